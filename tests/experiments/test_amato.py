"""Amato et al.'s tables: networks by letters, trainings that are shared, kept and gone on with."""

import json
import os

import amato_cifar10.__main__ as amato
import jax
import numpy as np
import pytest
from amato_cifar10 import networks, tables, train
from amato_cifar10.networks import CELLS, GROUPS, TABLES, plan

from hebbjax import readout
from hebbjax.layers import normalization


def names(network):
    return [training.name for training in plan(network).chain]


# which trainings make a network


def test_the_tables_hold_every_number_of_the_paper():
    assert [[cell.paper for cell in GROUPS[name]] for name in ('gradient', 'means', 'hebbian')] == [
        [60.71, 66.30, 72.39, 82.69, 84.95],
        [46.58, 56.59, 67.79, 82.18, 84.88],
        [63.92, 63.81, 58.28, 52.99, 41.78],
    ]
    assert [len(GROUPS[str(number)]) for number in range(1, 9)] == [2, 5, 5, 5, 4, 3, 2, 1]
    assert sum(cell.paper for cell in TABLES['2']) == pytest.approx(1752.01)
    assert len(CELLS) == 52 and len({training for name in CELLS for training in plan(name).chain}) == 61
    assert {table: len(cells) for table, cells in TABLES.items()} == {'1': 15, '2': 27, 'more': 13}


@pytest.mark.parametrize(
    'letters, chain',
    [
        ('GGGGG-G', ['G123456']),
        ('GG-G', ['G123456', 'G123456.2.G6']),  # a classifier reads the whole network
        ('GGGGG-H', ['G123456', 'G123456.5.H6']),
        ('H-H', ['whitened-H16']),
        ('HGGGG-G', ['whitened-H16', 'whitened-H16.1.G23456']),
        ('HHHGG-G', ['whitened-H123456', 'whitened-H123456.3.G456']),
        ('HHHHH-G', ['whitened-H123456', 'whitened-H123456.5.G6']),
        ('RRGGG-G', ['whitened-R12', 'whitened-R12.2.G3456']),
        ('GGHHH-H', ['G126', 'G126.2.H3456']),  # gradient layers below Hebbian ones had a classifier of their own
        ('GGHHG-G', ['G126', 'G126.2.H3456', 'G126.2.H3456.4.G56']),
        ('GHHHH-G', ['G16', 'G16.1.H23456', 'G16.1.H23456.5.G6']),
        ('GHGR-H', ['G16', 'G16.1.H23456', 'G16.1.H23456.2.G36', 'G16.1.H23456.2.G36.3.R4',
                    'G16.1.H23456.2.G36.3.R4.4.H6']),
    ],
)  # fmt: skip
def test_letters_become_the_trainings_of_the_paper(letters, chain):
    assert names(letters) == chain


def test_whitening_and_scales_are_part_of_what_a_training_is():
    assert names('H-G.plain') == ['H16', 'H16.1.G6']
    assert names('GG-G.whitened') == ['whitened-G123456', 'whitened-G123456.2.G6']
    assert names('HH-G.ones') == ['whitened-ones-H123456', 'whitened-ones-H123456.2.G6']
    assert names('GG-G.ones') == names('GG-G')  # a gradient network has no Hebbian scales
    assert names('RRGGG-G.drawn') == ['whitened-R12', 'whitened-R12.2.drawn-G3456']
    assert names('GHHGG-G.drawn') == ['drawn-G16', 'drawn-G16.1.H23456', 'drawn-G16.1.H23456.3.G456']
    assert names('H-H.drawn') == names('H-H')  # Hebbian scales are drawn anyway
    assert names('GH-H.ones') == ['G16', 'G16.1.ones-H23456', 'G16.1.ones-H23456.2.H6']


def test_penalties_and_batches_are_those_of_the_authors():
    penalties = {'GGGGG-G': 0.06, 'HGGGG-G': 0.07, 'HHGGG-G': 0.06, 'GGHGG-G': 0.05, 'HHHHG-G': 5e-4, 'GG-G': 5e-4}
    assert {letters: plan(letters).l2 for letters in penalties} == penalties
    bottoms = [plan(letters).chain[0] for letters in ('GHHHH-H', 'GGHHH-H', 'GGGHH-H', 'GGGGH-H')]
    assert [(training.name, training.l2) for training in bottoms] == [
        ('G16', 0.02), ('G126', 0.03), ('G1236', 0.04), ('G12346', 0.05),
    ]  # fmt: skip
    assert [plan(letters).batch for letters in ('GHHHH-H', 'GGHHH-H', 'G-H', 'HHHHH-H')] == [32, 64, 64, 64]


# the network


def test_the_network_is_the_papers():
    net = networks.network(plan('HHHHH-H'))
    assert [layer.features for layer in net] == [96, 128, 192, 256, 300, 10]
    states = jax.eval_shape(lambda: train.draw(plan('HHHHH-H'), 0, (), 0)).states
    assert [state.w.shape for state in states] == [
        (96, 75), (128, 864), (192, 1152), (256, 1728), (300, 2304), (10, 300),
    ]  # fmt: skip
    assert [len(layer.post) for layer in net] == [3, 2, 3, 2, 2, 0]
    assert [layer.pre for layer in networks.network(plan('GGGGG-G'))] == [()] * 5 + [(readout.Dropout(0.5),)]
    assert [layer.pre for layer in networks.network(plan('GG-G'))] == [()] * 3
    assert [layer.frozen for layer in networks.network(plan('GGHHG-G'))] == [True, True, False, False, True, True]


def test_batch_norms_scales_are_those_of_the_published_runs():
    def scales(name):
        net = networks.network(plan(name))[:-1]
        return ['ones' if layer.post[-1].scale is normalization.ones else 'uniform' for layer in net]

    assert scales('RHG-G') == ['uniform', 'uniform', 'ones']
    assert scales('GHG-G.ones') == ['ones', 'ones', 'ones']
    assert scales('GHG-G.drawn') == ['uniform', 'uniform', 'uniform']
    assert scales('HR-G.ones') == ['ones', 'uniform']
    random, _ = networks.network(plan('R-G'))  # a gradient layer that never saw an image
    assert random.bias and random.frozen and random.output == 'weights'


# whole runs, on small images and small layers


@pytest.fixture
def small(monkeypatch):
    sizes = {1: (8, 5, True), 2: (22, 3, False), 3: (24, 1, True), 4: (22, 1, False), 5: (21, 1, False)}
    monkeypatch.setattr(networks, 'SIZES', sizes)
    monkeypatch.setattr(networks, 'NEURONS_OF_CLASSES', {2: (2, 2), 3: (2, 4), 4: (2, 2), 5: (2, 1)})
    monkeypatch.setattr(train, 'SHAPE', (12, 12, 3))


@pytest.fixture
def folder(small_data):
    """300 images of 12 x 12 whose class is a colour and a place."""
    return small_data / 'amato'


def test_a_run_is_reported_kept_and_gone_on_with(small, folder, tmp_path, monkeypatch, capsys):
    run, file, text = tmp_path / 'run', tmp_path / 'r.json', tmp_path / 't.md'
    flags = ['--data-dir', str(folder), '--run', str(run), '--json', str(file)]
    cells = ['--cell', 'HR-G', 'H-H', '--epochs', '4']
    assert amato.main([*flags, *cells, '--markdown', str(text), '--figure', str(tmp_path / 'f.png')]) == 0
    rows = json.loads(file.read_text())['rows']
    assert [row['row'] for row in rows] == ['HR-G', 'H-H']
    assert rows[0]['trainings'] == ['whitened-H16', 'whitened-H16.1.R2', 'whitened-H16.1.R2.2.G6']
    assert rows[1]['paper'] == 41.84 and rows[1]['letter'] == 'H' and rows[1]['curves'][0][0]['loss'] is None
    assert all(len(row['curves'][0]) == 4 and 0 <= row['test_accuracy'][0] <= 100 for row in rows)
    assert rows[1]['test_accuracy'][0] > 20, 'class means tell classes apart'
    assert all(line['loss'] > 0 for line in rows[0]['curves'][0])
    assert sorted(path.stem for path in (run / 'seed0').iterdir()) == rows[0]['trainings']  # shared ones once
    drawn = train.draw(plan('H-H'), 0, (), 4)
    kept = train.Shelf(run, {}).load(plan('H-H'), 0, drawn)
    assert all((before.w != after.w).any() for before, after in zip(drawn.states, kept.states))
    assert '| H-H |' in text.read_text() and (tmp_path / 'f.png').stat().st_size > 10_000

    # what is finished is not done again, and layers below are those that were finished
    monkeypatch.setattr(train, 'fit_by_hebb', None)
    monkeypatch.setattr(train, 'fit_by_gradient', None)
    assert amato.main([*flags, *cells]) == 0
    again = json.loads(file.read_text())['rows']
    assert [row['test_accuracy'] for row in again] == [row['test_accuracy'] for row in rows]

    # other settings are refused, and so is damage
    for others, says in (
        (['--epochs', '1'], 'holds trainings with epochs = 4, asked are 1; name another folder'),
        (['--subset', '200', '--epochs', '4'], 'holds trainings with subset = None, asked are 200'),
    ):
        assert amato.main([*flags, '--cell', 'H-H', *others]) == 2
        assert says in capsys.readouterr().err
    path = run / 'seed0' / 'whitened-H16.npz'
    content = path.read_bytes()
    for damaged in (b'no npz', content[: len(content) // 2]):
        path.write_bytes(damaged)
        assert amato.main([*flags, *cells]) == 2
        said = capsys.readouterr().err
        assert 'whitened-H16.npz is damaged' in said and 'or delete it, and it is trained anew.' in said


def test_an_interrupted_gradient_training_goes_on_to_the_same_bits(small, folder, tmp_path, monkeypatch, capsys):
    flags = ['--cell', 'RG-G', '--epochs', '3', '--data-dir', str(folder)]
    assert amato.main([*flags, '--json', str(tmp_path / 'whole.json')]) == 0
    run, save, calls = tmp_path / 'run', train.Shelf.save, []

    def save_and_stop(*what, **how):
        save(*what, **how)
        calls.append(what)
        if len(calls) == 3:  # the random layer, two epochs
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train.Shelf, 'save', save_and_stop)
        assert amato.main([*flags, '--run', str(run)]) == 130
    assert 'what was reached is kept in' in capsys.readouterr().err
    assert sorted(os.listdir(run / 'seed0')) == ['whitened-R1.1.G26.part.npz', 'whitened-R1.npz']
    assert amato.main([*flags, '--run', str(run), '--json', str(tmp_path / 'resumed.json')]) == 0
    assert not [*run.rglob('*.part.npz')]
    (resumed,), (whole,) = (
        json.loads((tmp_path / f'{name}.json').read_text())['rows'] for name in ('resumed', 'whole')
    )
    assert [line['loss'] for line in resumed['curves'][0]] == [line['loss'] for line in whole['curves'][0]]
    assert resumed['test_accuracy'] == whole['test_accuracy']


def test_a_training_that_is_refused_leaves_no_new_folder(small, folder, tmp_path, monkeypatch, capsys):
    def diverged(*args, **how):
        raise ValueError('no number')

    monkeypatch.setattr(train, 'train', diverged)
    assert amato.main(['--cell', 'H-H', '--data-dir', str(folder), '--run', str(tmp_path / 'new')]) == 2
    assert 'no number' in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'flags, says',
    [
        ('--cell GGHHGG', "'GGHHGG' is no network: write 1 to 5 layers, a dash and the classifier, such as GGHHG-G."),
        ('--cell GGHHGG-G', 'write 1 to 5 layers'),
        ('--cell GG-', 'write 1 to 5 layers'),
        ('--cell GXH-G', "'GXH-G' holds 'X'; layers are G (gradient), H (Hebbian) or R (random)."),
        ('--cell GG-R', 'has a random classifier'),
        ('--cell GG-G.odd', "'GG-G.odd' ends in 'odd'; behind a dot stands plain, whitened, ones, drawn"),
        ('--group 9', "--group='9' is unknown; there are gradient, means"),
        ('--table 3', "--table='3' is unknown; there are 1, 2, more"),
        ('--subset 20', '--subset 20 does not fit 300 images; use 100 to that many'),
        ('--subset 400', '--subset 400 does not fit 300 images; use 100 to that many'),
        ('--epochs 0', '--epochs=0 is out of range'),
        ('--run FILE', 'holds no run; name a new one with --run'),
        ('--run FOLDER', 'holds no run; name a new one with --run'),
        ('--run FILE/run', 'cannot be made in'),
        ('--run LIST', 'config.json is damaged (no settings)'),
        ('--run OTHER', 'holds trainings with job = miconi_table, asked are amato'),
        ('--json no/r.json', 'is no folder; make it first'),
    ],
)
def test_bad_input_is_met_with_a_sentence(flags, says, small, folder, tmp_path, refused):
    (tmp_path / 'FILE').write_text('')
    found = (
        ('FOLDER', 'something', ''),
        ('LIST', 'config.json', '[]'),
        ('OTHER', 'config.json', '{"job": "miconi_table"}'),
    )
    for name, file, content in found:
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(content)
    flags = [str(tmp_path / word) if word[:4] in ('FILE', 'FOLD', 'LIST', 'OTHE') else word for word in flags.split()]
    flags += [] if '--cell' in flags else ['--cell', 'H-H']
    assert says in refused(amato.main, ['--data-dir', str(folder), *flags])


# what is told of results


def test_a_network_has_settled_within_a_point_of_its_end():
    curve = np.array([(np.nan, 0, held, 10.0 * number) for number, held in enumerate((0.3, 0.595, 0.6, 0.58))])
    trained = train.Trained((), np.concatenate([curve, np.full((2, 4), np.nan)]), np.zeros(2), np.zeros(2))
    summary = trained.summary()
    assert summary['settled'] == (2, 10.0) and summary['kept_epoch'] == 3 and len(summary['curves']) == 4


def test_tables_show_ours_the_papers_and_the_difference():
    def row(name, accuracies, last, letter, settled):
        return {
            'row': name, 'test_accuracy': accuracies, 'train_accuracy': accuracies, 'kept_epoch': [2] * len(accuracies),
            'trainings': [last], 'letter': letter, 'settled': [settled], 'curves': [[1, 2]],
        }  # fmt: skip

    text = tables.lay_out(
        [row('H-G', [64.0, 65.0], 'whitened-H16.1.G6', 'G', (3, 20.0)),
         row('HG-G', [50.0], 'whitened-H16.1.G26', 'G', (1, 2.0)),
         row('HHHHH-H', [28.0], 'whitened-H123456', 'H', (1, 9.0))]
    )  # fmt: skip
    assert '64.50 ± 0.71 (63.92; +0.58)' in text
    assert '| all by one rule | HHHHH-H | 28.00 | 28.59 | -0.59 |' in text
    assert '**Other networks**' in text and '|  | HG-G | 50.00 |  |  |' in text
    assert '| HHHHH-H | whitened-H123456 | Hebbian | 1.0 | 9 | 2 |' in text
    assert '| H-G | whitened-H16.1.G6 | gradient | 3.0 | 20 | 2 |' in text
