"""Amato et al.'s tables: networks by letters, trainings that are shared, kept and gone on with."""

import json
import random

import jax
import numpy as np
import pytest
from rich.console import Console

from hebbjax import cli, data, teachers
from hebbjax.jobs import amato, amato_tables, cells, deep, left, shelf
from hebbjax.jobs.cells import CELLS, TABLES, Training, plan
from hebbjax.jobs.deep import Learned, Line
from hebbjax.jobs.material import Material
from hebbjax.jobs.report import Report, Row

QUIET = Console(quiet=True)


def names(letters, **how):
    return [one.name for one in plan(letters, **how).chain]


# which trainings make a network


def test_the_tables_hold_every_number_of_the_paper():
    (gradient, means, hebbian), second = TABLES['1'], TABLES['2']
    assert [[cell.paper for cell in group.cells] for group in (gradient, means, hebbian)] == [
        [60.71, 66.30, 72.39, 82.69, 84.95],
        [46.58, 56.59, 67.79, 82.18, 84.88],
        [63.92, 63.81, 58.28, 52.99, 41.78],
    ]
    assert [len(group.cells) for group in second] == [2, 5, 5, 5, 4, 3, 2, 1]
    assert sum(cell.paper for group in second for cell in group.cells) == pytest.approx(1752.01)
    assert len(CELLS) == 52
    assert len(cells.order(CELLS.values())) == 61


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
    assert names('H-G', whiten=False) == ['H16', 'H16.1.G6']
    assert names('HH-G', scale='ones') == ['whitened-ones-H123456', 'whitened-ones-H123456.2.G6']
    assert names('GG-G', scale='ones') == names('GG-G')  # a gradient network has no Hebbian scales
    assert names('RRGGG-G', scale='drawn') == ['whitened-R12', 'whitened-R12.2.drawn-G3456']
    assert names('GHHGG-G', scale='drawn') == ['drawn-G16', 'drawn-G16.1.H23456', 'drawn-G16.1.H23456.3.G456']
    assert names('H-H', scale='drawn') == names('H-H')  # Hebbian scales are drawn anyway
    assert [one.name for one in plan('GH-H', scale='ones').chain] == [
        'G16',
        'G16.1.ones-H23456',
        'G16.1.ones-H23456.2.H6',
    ]


@pytest.mark.parametrize(
    'letters, l2',
    [('GGGGG-G', 0.06), ('HGGGG-G', 0.07), ('HHGGG-G', 0.06), ('GGHGG-G', 0.05), ('HHHHG-G', 5e-4), ('GG-G', 5e-4)],
)
def test_penalties_are_those_of_the_authors(letters, l2):
    assert plan(letters).l2 == l2


def test_penalties_and_batches_of_bottoms():
    bottoms = [plan(letters).chain[0] for letters in ('GHHHH-H', 'GGHHH-H', 'GGGHH-H', 'GGGGH-H')]
    assert [(one.name, one.l2) for one in bottoms] == [('G16', 0.02), ('G126', 0.03), ('G1236', 0.04), ('G12346', 0.05)]
    assert [plan(one).batch for one in ('GHHHH-H', 'GGHHH-H', 'G-H', 'HHHHH-H')] == [32, 64, 64, 64]


@pytest.mark.parametrize(
    'letters, says',
    [
        ('GGHHGG', "'GGHHGG' is no network: write 1 to 5 layers, a dash and the classifier, such as GGHHG-G."),
        ('GGHHGG-G', 'write 1 to 5 layers'),
        ('-G', 'write 1 to 5 layers'),
        ('GG-', 'write 1 to 5 layers'),
        ('GXH-G', "'GXH-G' holds 'X'; layers are G (gradient), H (Hebbian) or R (random)."),
        ('GG-R', 'has a random classifier'),
    ],
)
def test_other_letters_are_refused(letters, says):
    with pytest.raises(ValueError) as refused:
        plan(letters)
    assert says in str(refused.value)


# the network


def test_the_network_is_the_papers():
    net = deep.network(plan('HHHHH-H'))
    assert [layer.features for layer in net] == [96, 128, 192, 256, 300, 10]
    state = jax.eval_shape(lambda key: deep.initial_states(plan('HHHHH-H'), key, ()), jax.random.key(0))
    assert [one.w.shape for one in state] == [(96, 75), (128, 864), (192, 1152), (256, 1728), (300, 2304), (10, 300)]
    assert [one.norm is None for one in state] == [False] * 5 + [True]
    assert [layer.dropout for layer in deep.network(plan('GGGGG-G'))] == [0] * 5 + [0.5]
    assert [layer.dropout for layer in deep.network(plan('GG-G'))] == [0] * 3
    assert [layer.frozen for layer in deep.network(plan('GGHHG-G'))] == [True, True, False, False, True, True]


def test_random_layers_are_gradient_layers_that_never_saw_an_image():
    training = plan('RR-G').chain[0]
    below = deep.learn(training, jax.random.key(0), (), (), 0).states
    for layer, state in zip(deep.network(training), below, strict=True):
        assert layer.bias and layer.frozen and layer.send == 'weights'
        assert 0 <= state.norm.scale.min() < 0.1 and 0.9 < state.norm.scale.max() <= 1
        np.testing.assert_array_equal(state.norm.mean, 0)
        np.testing.assert_array_equal(state.norm.var, 1)


@pytest.mark.parametrize('scale, lowest', [('uniform', 1), ('ones', 1), ('drawn', 0)])
def test_gradient_layers_start_at_scales_of_1_or_drawn(scale, lowest):
    states = deep.initial_states(plan('GGGGG-G', scale=scale), jax.random.key(0), ())
    scales = np.concatenate([state.norm.scale for state in states[:-1]])
    assert scales.max() == pytest.approx(1, abs=0.01) and scales.min() == pytest.approx(lowest, abs=0.01)


# whole runs, on small images and small layers


@pytest.fixture
def small(monkeypatch):
    """A data set of 300 images of 12 x 12 whose class is a colour and a place, and layers to their size."""

    def load(name, split='train', *, data_dir=None):
        count = {'train': 300, 'test': 100}[split]
        rng = np.random.default_rng(count)
        labels = np.arange(count) % 10
        images = rng.integers(0, 60, (count, 12, 12, 3))
        for image, label in zip(images, labels):
            image[4 * (label % 3) : 4 * (label % 3) + 4, :, label // 4] += 150
        return data.Split(images.astype(np.uint8), labels.astype(np.int32))

    monkeypatch.setattr(data, 'load', load)
    monkeypatch.setattr(deep, 'SHAPE', (12, 12, 3))
    plan = {1: (8, 5, True), 2: (22, 3, False), 3: (24, 1, True), 4: (22, 1, False), 5: (21, 1, False)}
    monkeypatch.setattr(deep, 'PLAN', plan)
    monkeypatch.setattr(teachers, 'AMATO', {2: (2, 2), 3: (2, 4), 4: (2, 2), 5: (2, 1)})
    deep.network.cache_clear()
    yield
    deep.network.cache_clear()


def test_a_run_is_reported_kept_and_gone_on_with(small, tmp_path, monkeypatch):
    folder, file, text = tmp_path / 'run', tmp_path / 'r.json', tmp_path / 't.md'
    config = amato.Config(
        cell=('RHG-G', 'H-H'), epochs=6, run=folder, json=file, markdown=text, figure=tmp_path / 'f.png'
    )
    first = amato.run(config, QUIET)
    rows = json.loads(file.read_text())['rows']
    assert [row['row'] for row in rows] == ['RHG-G', 'H-H']
    assert rows[0]['trainings'] == ['whitened-R1', 'whitened-R1.1.H23456', 'whitened-R1.1.H23456.2.G36']
    assert rows[1]['paper'] == 41.84
    assert all(len(row['curves'][0]) == 6 and 0 <= row['test_accuracy'][0] <= 100 for row in rows)
    assert rows[1]['test_accuracy'][0] > 20, 'class means tell classes apart'
    assert '| H-H |' in text.read_text()
    assert (tmp_path / 'f.png').stat().st_size > 10_000

    with monkeypatch.context() as patched:  # what is finished is not done again
        patched.setattr(deep, 'learn', None)
        again = amato.run(config, QUIET)
    assert [row.test_accuracy for row in again.rows] == [row.test_accuracy for row in first.rows]

    with pytest.raises(ValueError, match=r'holds trainings with epochs = 6, asked are 1; name another folder'):
        amato.run(amato.Config(cell=('H-H',), epochs=1, run=folder), QUIET)
    with monkeypatch.context() as patched:  # said before the images are read
        patched.setattr(data, 'load', None)
        with pytest.raises(ValueError, match='holds trainings with subset = None, asked are 200'):
            amato.run(amato.Config(cell=('H-H',), epochs=6, subset=200, run=folder), QUIET)
    told = (folder / 'seed0' / 'whitened-H16.json').read_text()
    for at in range(40):
        content, draw = json.loads(told), random.Random(at)
        part = draw.choice([content, content['curve'][draw.randrange(6)]])
        part[draw.choice([*(part if isinstance(part, dict) else range(1, 4))])] = draw.choice(['6', [], -1e31, True])
        (folder / 'seed0' / 'whitened-H16.json').write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r'whitened-H16.json is damaged .* and what it tells of is trained anew\.'):
            shelf.Shelf(folder).get(plan('H-H'), 0, None)
    (folder / 'seed0' / 'whitened-H16.json').write_text(told)
    (folder / 'seed0' / 'whitened-R1.1.H23456.npz').write_bytes(b'no npz')
    with pytest.raises(ValueError, match='damaged or no saved state'):
        amato.run(config, QUIET)


def test_an_interrupted_gradient_training_goes_on_to_the_same_bits(small, tmp_path, monkeypatch):
    undisturbed = amato.run(amato.Config(cell=('GR-G',), epochs=3), QUIET)
    config = amato.Config(cell=('GR-G',), epochs=3, run=tmp_path / 'run')
    partly = shelf.Shelf.partly

    def stop_after_two(self, training, seed):
        how, calls = partly(self, training, seed), []

        def keep(snapshot):
            how['keep'](snapshot)
            calls.append(snapshot)
            if len(calls) == 2:
                raise KeyboardInterrupt

        return how | {'keep': keep}

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt) as stopped:
        patched.setattr(shelf.Shelf, 'partly', stop_after_two)
        amato.run(config, QUIET)
    assert 'what was reached is kept in' in str(stopped.value)
    assert [path.name for path in (tmp_path / 'run' / 'seed0').iterdir()] == ['G16.part.npz']
    resumed = amato.run(config, QUIET)
    assert not [*(tmp_path / 'run').rglob('*.part.npz')]
    ours, theirs = (one.rows[0].more['curves'][0] for one in (resumed, undisturbed))
    assert [line['loss'] for line in ours] == [line['loss'] for line in theirs]
    assert resumed.rows[0].test_accuracy == undisturbed.rows[0].test_accuracy


def test_a_training_that_is_refused_leaves_no_new_folder_and_an_old_one_as_it_is(small, tmp_path, monkeypatch):
    def diverged(*args, **how):
        raise ValueError('no number')

    monkeypatch.setattr(deep, 'learn', diverged)
    with pytest.raises(ValueError, match='no number'):
        amato.run(amato.Config(cell=('H-H',), run=tmp_path / 'new'), QUIET)
    assert not list(tmp_path.iterdir())
    # made by a run that was killed at once, say
    shelf.opened(tmp_path / 'old', 'amato', {'subset': None, 'epochs': None, 'data': Material(None, None).digest})
    with pytest.raises(ValueError, match='no number'):
        amato.run(amato.Config(cell=('H-H',), run=tmp_path / 'old'), QUIET)
    assert (tmp_path / 'old' / 'config.json').is_file()


@pytest.mark.parametrize(
    'flags, says',
    [
        (['--cell', 'GGHHGG'], "'GGHHGG' is no network"),
        (['--cell', 'GG-G.odd'], "'GG-G.odd' ends in 'odd'; behind a dot stands plain, whitened, ones, drawn"),
        (['--group', '9'], '--group 9 is unknown; there are gradient, means'),
        (['--table', '3'], '--table 3 is unknown; there are 1, 2, more'),
        (['--subset', '20'], '--subset 20 does not fit; use a whole number from 100 on'),
        (['--subset', '400'], '--subset 400 does not fit 300 images; use 100 to that many'),
        (['--epochs', '0'], '--epochs 0 does not fit'),
        (['--run', 'FILE'], 'is a file; name a new folder with --run'),
        (['--run', 'FOLDER'], 'is not empty and holds no run'),
        (['--run', 'OTHER'], 'holds a run of miconi_table, not of amato'),
        (['--json', 'no/r.json'], 'is no folder; make it first'),
    ],
)
def test_bad_input_is_met_with_a_sentence(small, tmp_path, capsys, flags, says):
    (tmp_path / 'FILE').write_text('')
    for name in ('FOLDER', 'OTHER'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'something').write_text('')
    (tmp_path / 'OTHER' / 'config.json').write_text('{"job": "miconi_table", "settings": {}}')
    flags = [str(tmp_path / one) if one.isupper() and one not in CELLS and '-' not in one and one != 'GGHHGG' else one
             for one in flags]  # fmt: skip
    assert cli.run_job(amato.Config, amato.run, flags, 'amato_cifar10.py') == 2
    said = capsys.readouterr().err
    assert says in ' '.join(said.split())
    assert 'Traceback' not in said


def test_the_command_is_there(capsys):
    assert cli.main(['amato', '--cell', 'GGG']) == 2
    assert "hebbjax amato: error: 'GGG' is no network" in capsys.readouterr().err
    assert 'amato ' in cli.USAGE


# what a training promises


def test_a_layer_that_should_have_stayed_or_moved_is_found():
    key = jax.random.key(0)
    training = Training('H', (6,), on=plan('H-H').chain[0], upto=1)
    below = deep.initial_states(training.on, jax.random.key(1), ())[:1]
    before = deep.initial_states(training, key, below)
    moved = before[1]._replace(w=before[1].w + 1)
    deep.audit(training, before, Learned((before[0], moved), [], 0, 0, 0))
    with pytest.raises(RuntimeError, match='layer 1 should have stayed as it was, and moved'):
        norm = before[0].norm._replace(mean=before[0].norm.mean + 1)
        deep.audit(training, before, Learned((before[0]._replace(norm=norm), moved), [], 0, 0, 0))
    with pytest.raises(RuntimeError, match='layer 2 should have learned, and stayed'):
        deep.audit(training, before, Learned(before, [], 0, 0, 0))


def test_a_loss_that_did_not_fall_is_told_in_the_end():
    fell, risen = (Row(name, more={'loss': [(2.3, after)]}) for name, after in (('G-G', 2.2), ('GG-G', 2.3)))
    amato.refuse_risen(Report({}, [fell, Row('H-H', more={'loss': [None]})]))
    for after in (risen, Row('GG-G', more={'loss': [(2.3, float('nan'))]})):
        with pytest.raises(ValueError, match='the loss of GG-G did not fall'):
            amato.refuse_risen(Report({}, [fell, after]))


def test_a_network_has_settled_within_a_point_of_its_end():
    curve = [Line(None, 0, held, 10.0 * number) for number, held in enumerate((0.3, 0.595, 0.6, 0.58))]
    assert amato.settled(curve, 2) == (2, 10.0)


def test_what_is_left_is_foretold_from_what_was_done():
    one, other = plan('H-H'), plan('GGGGG-G')
    found = left.Left([(one, 0, 2), (other, 0, 20)])
    assert found.seconds() is None and str(found) == ''
    found.spent(one, 0, 1, 2, 60.0)
    pace = 60 / (deep.work(one, 2) / 2)
    assert found.seconds() == pytest.approx(60 + pace * deep.work(other, 20))
    found.drop(one, 0)
    assert found.seconds() == pytest.approx(pace * deep.work(other, 20))
    assert 'h' in str(found)
    assert [left.duration(s) for s in (40, 600, 7500)] == ['40 s', '10 min', '2 h 5 min']


def test_tables_show_ours_the_papers_and_the_difference():
    def row(name, accuracies, last, letter, settled):
        return {
            'row': name, 'test_accuracy': accuracies, 'train_accuracy': accuracies, 'kept_epoch': [2] * len(accuracies),
            'trainings': [last], 'letter': letter, 'settled': [settled], 'curves': [[1, 2]],
        }  # fmt: skip

    text = amato_tables.lay_out(
        [row('H-G', [64.0, 65.0], 'whitened-H16.1.G6', 'G', (3, 20.0)),
         row('HG-G', [50.0], 'whitened-H16.1.G26', 'G', (1, 2.0)),
         row('HHHHH-H', [28.0], 'whitened-H123456', 'H', (1, 9.0))]
    )  # fmt: skip
    assert '64.50 ± 0.71 (63.92; +0.58)' in text
    assert '| all by one rule | HHHHH-H | 28.00 | 28.59 | -0.59 |' in text
    assert '**Other networks**' in text and '|  | HG-G | 50.00 |  |  |' in text
    assert '| HHHHH-H | whitened-H123456 | Hebbian | 1.0 | 9 | 2 |' in text
    assert '| H-G | whitened-H16.1.G6 | gradient | 3.0 | 20 | 2 |' in text
