"""The two comparisons, what all scripts share, and tables that are made of committed results."""

import dataclasses
import json
import re
import signal
import subprocess
import sys

import common
import fashion_mnist_cnn
import jax
import krotov_mnist
import margins
import numpy as np
import pytest
import tables

from hebbjax import layers, rules
from hebbjax.training import comparison, presets

TINY = (
    '--dataset digits --seeds 1 --epochs 2 --batch 50 --features 6 --head-epochs 2 --backprop-epochs 1 --head-batch 40'
)


def flags_of(folder, text, *more):
    return [*TINY.split(), '--data-dir', str(folder), *text.split(), *map(str, more)]


@pytest.mark.parametrize(
    'script, rows, more',
    [
        (fashion_mnist_cnn, 'untrained hebbian', '--patches-per-image 2 --start patches'),
        (krotov_mnist, 'raw_pixels backprop', '--shift 1'),
    ],
)
def test_a_comparison_is_printed_written_and_drawn(script, rows, more, small_data, tmp_path, relaxed, refused, capsys):
    files = {name: tmp_path / file for name, file in (('json', 'r.json'), ('figure', 'f.png'), ('curves', 'c.png'))}
    flags = flags_of(
        small_data,
        f'{more} --rows {rows} --weights {tmp_path}',
        *(word for name in files for word in (f'--{name}', files[name])),
    )
    assert script.main(flags) == 0
    report = json.loads(files['json'].read_text())
    assert [row['row'] for row in report['rows']] == rows.split()
    accuracies = {row['row']: row['test_accuracy'] for row in report['rows']}
    assert all(len(values) == 1 and 0 <= values[0] <= 100 for values in accuracies.values())
    assert report['config']['epochs'] == 2 and not report['interrupted'] and report['versions']['jax']
    assert all(files[name].read_bytes().startswith(b'\x89PNG') for name in ('figure', 'curves'))
    assert f'{rows.split()[-1]}, seed 0: validation' in capsys.readouterr().out
    assert len(tables.lay_out([report]).splitlines()) == len(accuracies) + 4
    kept = {path.stem for path in tmp_path.glob('*.safetensors')}
    assert kept == {f'{row}_0' for row in rows.split() if row != 'raw_pixels'}
    assert 'safetensors is there already; delete it, or name another folder by --weights.' in refused(
        script.main, flags
    )


def test_rows_are_what_they_say():
    images = np.zeros((100, 8, 8, 1), np.uint8)
    settings = dataclasses.replace(fashion_mnist_cnn.PRESETS['digits'], start='patches')
    entries = fashion_mnist_cnn.build_entries(settings, images, 3)
    assert list(entries) == [
        'raw_pixels',
        'untrained',
        'hebbian',
        'backprop',
        'patches',
        'gaussian',
        'published_setting',
    ]
    (layer,), (twin,), (published,) = (entries[row].net for row in ('hebbian', 'backprop', 'published_setting'))
    assert entries['untrained'].net == (layer,) and not entries['untrained'].stages
    assert entries['hebbian'].start is entries['untrained'].start is not None
    assert entries['patches'].start is not entries['hebbian'].start and entries['patches'].net == (layer,)
    assert not entries['patches'].stages and not entries['gaussian'].stages
    assert twin.patch_transform is published.patch_transform is layers.raw is not layer.patch_transform
    tuned = dataclasses.replace(settings, backprop_patches='centred_l2', backprop_flips=True, backprop_shift=1)
    assert fashion_mnist_cnn.build_entries(tuned, images, 3)['backprop'].net[0].patch_transform is layers.centred_l2
    corner = np.zeros((64, 8, 8, 1), np.float32)
    corner[:, 3, 1] = 1  # shifts by a pixel leave it in the left half, mirrors do not
    moved = np.asarray(tuned.twin.augment(jax.random.key(0), corner))
    assert {int(column) for column in moved[..., 0].sum(1).argmax(1)} == {0, 1, 2, 5, 6, 7}
    assert entries['published_setting'].p == 4 and published.rule == rules.krotov(4, 0.4, 4.0)
    assert krotov_mnist.build_entries(krotov_mnist.PRESETS['digits'], images, 3)['hebbian'].net[0].window.size is None
    entries = krotov_mnist.build_entries(krotov_mnist.PRESETS['mnist'], np.zeros((1000, 8, 8, 1), np.uint8), 3)
    assert {row: entry.paper for row, entry in entries.items() if entry.paper} == {'hebbian': 98.54}


def test_ctrl_c_keeps_networks_that_were_finished(small_data, tmp_path, relaxed, monkeypatch, capsys):
    def interrupt(line):
        if not line:  # when a network is finished
            raise KeyboardInterrupt

    monkeypatch.setattr(common, 'tell_status', interrupt)
    flags = flags_of(small_data, '--shift 1 --rows raw_pixels untrained', '--json', tmp_path / 'r.json')
    assert krotov_mnist.main(flags) == 130
    report = json.loads((tmp_path / 'r.json').read_text())
    assert [row['row'] for row in report['rows']] == ['raw_pixels'] and report['interrupted']
    assert '(interrupted: what was reached)' in ' '.join(capsys.readouterr().out.split())

    # once more, while the test split is read: nothing of it is lost
    score = comparison.score_entries
    pressed = lambda *args: [signal.raise_signal(signal.SIGINT), score(*args)][1]  # noqa: E731
    monkeypatch.setattr(comparison, 'score_entries', pressed)
    (tmp_path / 'r.json').unlink()
    assert krotov_mnist.main(flags) == 130
    assert [row['row'] for row in json.loads((tmp_path / 'r.json').read_text())['rows']] == ['raw_pixels']

    monkeypatch.setattr(comparison, 'train_entry', lambda *args, **how: interrupt(''))
    assert krotov_mnist.main(flags) == 130
    assert 'interrupted; nothing was reached yet' in capsys.readouterr().err


@pytest.mark.parametrize(
    'flags, says',
    [
        ('--dataset nothing', "--dataset='nothing' is unknown; there are fashion_mnist, mnist, cifar10, digits."),
        ('--rows rubbish', "--rows='rubbish' is unknown; there are raw_pixels, untrained"),
        ('--seeds 0', '--seeds=0 is out of range; use a whole number from 1 to 1000.'),
        ('--k 7', '--k 7 is more than the 6 neurons'),
        ('--batch 101', '--batch 101 is larger than the 100 training images'),
        ('--start nowhere', "--start='nowhere' is unknown; there are drawn, patches."),
        ('--patch-transform odd', "--patch-transform='odd' is unknown; there are raw, centred"),
        ('--window 9', 'does not fit'),
        ('--pool 9', 'does not fit'),
        ('--head-batch 101', 'batch=101 is out of range; use a whole number from 1 to 100'),
        ('--shift 8', '--shift or --backprop-shift moves images of 8 x 8 out of sight'),
        ('--backprop-shift 8', '--shift or --backprop-shift moves images of 8 x 8 out of sight'),
        ('--figure f.txt', 'f.txt cannot be drawn: its ending is no picture; use .png'),
        ('--figure png', 'png cannot be drawn: its ending is no picture; use .png'),
        ('--json no/where.json', 'is no folder; make it first'),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence(flags, says, small_data, refused):
    assert says in refused(fashion_mnist_cnn.main, flags_of(small_data, flags))


def test_weights_are_refused_before_the_first_hour_where_nothing_can_write_them(
    small_data, refused, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    said = refused(krotov_mnist.main, flags_of(small_data, '--rows untrained --weights', tmp_path))
    assert "this needs safetensors, which is not there; pip install 'hebbjax[safetensors]'." in said


def test_classifiers_are_fitted_by_devices_of_their_own_process_alone():
    settings = dataclasses.replace(krotov_mnist.PRESETS['digits'], devices=2)
    assert settings.probe_mesh() == settings.mesh() == settings.gradient['mesh'] and settings.mesh().size == 2
    assert dataclasses.replace(settings, distributed=True).probe_mesh() is None


@pytest.mark.parametrize('script', [fashion_mnist_cnn, krotov_mnist, margins])
def test_help_explains_every_setting(script, capsys):
    with pytest.raises(SystemExit):
        script.main(['--help'])
    told = re.sub(r'[│\s]+', ' ', capsys.readouterr().out)
    bare = re.findall(r'(--[a-z-]+) [A-Z|{}\[\]._ ]+\(default', told)
    assert '--seeds' in told and not bare, 'comments behind settings are their help, on the same line'


def test_presets_are_those_of_the_data_set():
    assert [fashion_mnist_cnn.PRESETS[name].pool for name in ('fashion_mnist', 'digits')] == [4, 3]
    assert krotov_mnist.PRESETS['mnist'].start == 'patches' and next(iter(krotov_mnist.PRESETS)) == 'mnist'
    for network, script in (('cnn', fashion_mnist_cnn), ('dense', krotov_mnist)):
        for name, settings in script.PRESETS.items():
            chosen = presets.TUNED[network][name]
            assert settings.dataset == name and settings.seeds == chosen['seeds']
            assert (settings.schedule, settings.twin) == (chosen['head'], chosen['twin'])


def test_a_damaged_data_file_is_named(tmp_path):
    for content in (b'no npz', b''):
        (tmp_path / 'mnist.npz').write_bytes(content)
        with pytest.raises(ValueError, match=r'mnist.npz is damaged'):
            common.load('mnist', 'train', tmp_path)
    images = np.zeros((2, 8, 8, 1), np.uint8)
    for arrays, told in (
        ({'train_images': images, 'train_labels': [0, 1]}, 'mnist.npz has no test part; add test_images'),
        (
            {'train_images': images, 'test_images': images},
            'mnist.npz has no labels of its SPLIT images; add SPLIT_labels',
        ),
    ):
        np.savez(tmp_path / 'mnist.npz', **arrays)
        for split in ('train', 'test'):  # as training images are read: before anything is trained
            with pytest.raises(ValueError, match=told.replace('SPLIT', split)):
                common.load('mnist', split, tmp_path)


def test_a_script_explains_itself():
    told = subprocess.run([sys.executable, tables.HERE / 'amato_cifar10', '--help'], capture_output=True, text=True)
    assert told.returncode == 0 and '--cell' in told.stdout and 'Traceback' not in told.stderr


def test_seeds_that_ran_apart_are_joined():
    def report(first, accuracies, seconds, **config):
        row = {'row': 'learned', 'test_accuracy': accuracies, 'seconds': seconds, 'compile_seconds': 1.0, 'paper': 80.3}
        return {'rows': [row], 'config': {'seeds': len(accuracies), 'first_seed': first, 'batch': 10} | config}

    (joined,) = tables.join_seeds([report(0, [80.0], 60.0), report(1, [81.0, 82.0], 30.0)])
    assert joined['test_accuracy'] == [80, 81, 82] and joined['seconds'] == 40 and joined['paper'] == 80.3
    older, newer = report(0, [80.0], 60.0), report(1, [81.0], 60.0, precision='highest')
    assert len(tables.join_seeds([older, newer])) == 1  # a report from before there was such a setting
    others = report(1, [81.0], 60.0, batch=20), report(1, [81.0], 60.0, precision='bfloat16')
    for again in (report(0, [80.0], 60.0), *others):
        with pytest.raises(ValueError, match='learned: two reports of it are of the same seeds, or of other settings'):
            tables.join_seeds([report(0, [80.0], 60.0), again])
    one, other = (report(seed, [80.0], 60.0) for seed in (0, 1))
    other['rows'][0]['network'] = 'SoftHebb'
    measured = {'rows': [{'row': 'it', 'measures': {}}], 'config': {}}
    for pair in ([one, other], [measured, measured]):
        with pytest.raises(ValueError, match='or of other settings'):
            tables.join_seeds(pair)


def test_a_damaged_report_is_named_and_no_document_written(tmp_path, monkeypatch, capsys):
    (tmp_path / 'results').mkdir()
    (tmp_path / 'results' / 'bad.json').write_text('{"rows": ')
    (tmp_path / 'x.md').write_text('<!-- table: bad.json -->\nold\n<!-- end -->\n')
    monkeypatch.setattr(tables, 'HERE', tmp_path)
    monkeypatch.setattr(tables, 'DOCUMENTS', (tmp_path / 'x.md',))
    assert tables.main([]) == 2
    assert 'bad.json is damaged' in capsys.readouterr().err and 'old' in (tmp_path / 'x.md').read_text()


@pytest.mark.parametrize('document', tables.DOCUMENTS, ids=lambda path: path.name)
def test_every_table_is_what_its_results_give(document):
    text = document.read_text()
    assert tables.MARKED.search(text)
    assert tables.fill_tables(text, tables.HERE / 'results') == text
