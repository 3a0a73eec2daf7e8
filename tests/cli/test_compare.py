"""The comparison, used as people use it: flags in, a table, files and an exit code out."""

import json
import signal

import numpy as np
import pytest

import hebbjax.training.comparison as comparison
from hebbjax import data
from hebbjax.cli import compare, tables
from hebbjax.layers import from_patches
from hebbjax.support import files
from hebbjax.training import controls, presets

SMALL = ['compare', '--seeds', '1', '--features', '6', '--epochs', '3', '--head-epochs', '2', '--backprop-epochs', '2']


@pytest.fixture
def trained(monkeypatch):
    """All that a comparison trains, (row, seed) -> network; its test split is loaded when that is done."""
    networks, train, load = {}, compare.train_entries, data.read

    def guarded(name, split='train', **how):
        assert split == 'train' or networks, 'the test split was read before all networks were trained'
        return load(name, split, **how)

    def train_and_keep(*args, **how):
        reached, interrupted = train(*args, **how)
        networks.update(reached)
        return reached, interrupted

    monkeypatch.setattr(data, 'read', guarded)
    monkeypatch.setattr(compare, 'train_entries', train_and_keep)
    return networks


def test_a_comparison_ends_in_a_table_and_a_file_of_results(few_digits, relaxed, trained, tmp_path, call):
    code, printed, _ = call(SMALL, '--rows', 'untrained', 'hebbian', '--json', tmp_path / 'x.json')
    assert code == 0
    written = json.loads((tmp_path / 'x.json').read_text())
    assert set(written) == {'rows', 'config', 'versions', 'device', 'interrupted'}
    assert written['config']['epochs'] == 3 and written['config']['window'] == 6 and written['versions']['jax']
    assert [row['row'] for row in written['rows']] == ['untrained', 'hebbian']
    for row in written['rows']:
        assert f'\n{row["row"]} ' in printed and f'{row["row"]}, seed 0: validation' in printed
        assert len(row['test_accuracy']) == len(row['train_accuracy']) == 1 and 0 < row['test_accuracy'][0] <= 100
        assert row['paper'] is None and row['seconds'] > 0
        assert {part: len(values) for part, values in row['curve'].items()} == {'train': 2, 'validation': 2}
        assert 1 <= row['distinct_winners'][0] <= 6 and 0 <= row['unit_convergence'][0] <= 1
    assert max(map(len, printed.splitlines()[3:-1])) <= 80
    first, learned = (np.asarray(trained[row, 0].probe.layers[0].w) for row in ('untrained', 'hebbian'))
    assert np.abs(learned - first).max() > 0.01


def test_no_number_depends_on_the_test_split_but_its_own(few_digits, relaxed, trained, tmp_path, monkeypatch, call):
    results, load = [], data.read
    for shift in (0, 1):

        def other_labels(name, split='train', shift=shift, **how):
            reading = load(name, split, **how)
            return reading._replace(labels=(reading.labels + shift) % 10) if split == 'test' else reading

        monkeypatch.setattr(data, 'read', other_labels)
        assert call(SMALL, '--rows', 'hebbian', '--json', tmp_path / 'x.json')[0] == 0
        results.append(json.loads((tmp_path / 'x.json').read_text())['rows'][0])
    one, other = results
    same = [name for name in one if name not in ('test_accuracy', 'seconds', 'compile_seconds', 'readout_seconds')]
    assert {name: one[name] for name in same} == {name: other[name] for name in same}
    assert one['test_accuracy'] != other['test_accuracy']


def test_a_dense_network_starts_from_patches_and_learns_from_shifted_images(few_digits, monkeypatch):
    pixels = []
    monkeypatch.setattr(data, 'random_shift', pixels.append)
    monkeypatch.setitem(presets.TUNED['dense'], 'digits', presets.DENSE_DIGITS | {'start': 'patches', 'shift': 1})
    settings = compare.Compare(network='dense').resolve()
    entries = compare.make_entries(settings, settings.open()[1])
    starts = {row: entry.start for row, entry in entries.items()}
    wanted = {'untrained': from_patches, 'patches': controls.patch_rows, 'hebbian': from_patches}
    assert starts == dict.fromkeys(starts) | wanted and set(pixels) == {1}
    assert entries['hebbian'].stages and not any(entries[row].stages for row in entries if row != 'hebbian')


BAD = [
    (['--dataset', 'imagenet'], 'imagenet'),
    (['--network', 'tea'], "--network='tea' is unknown; there are cnn, dense."),
    (['--k', '7'], '--k 7 is more than the 6 neurons'),
    (['--network', 'dense', '--window', '3'], '--window 3 is not for dense; leave it out'),
    (['--k', '1'], '--k=1 is out of range; use a whole number from 2 to 1000000.'),
    (['--p', '1'], '--p=1.0 is out of range; use a finite number > 1 and <= 1e+30.'),
    (['--window', '9'], 'does not fit images of 8 x 8'),
    (['--pool', '9'], 'max_pool(9) does not fit maps of 3 x 3'),
    (['--epochs', '0'], '--epochs=0 is out of range; use a whole number from 1 to 1000000.'),
    (['--seeds', '0'], '--seeds=0 is out of range; use a whole number from 1 to 1000.'),
    (['--rate', '-0.1'], '--rate=-0.1 is out of range; use a finite number >= 1e-30 and <= 1e+30.'),
    (['--batch', '5000'], '--batch 5000 is larger than'),
    (['--patch-transform', 'sideways'], "--patch-transform='sideways' is unknown"),
    (['--precision', 'int4'], "--precision='int4' is unknown; there are highest"),
    (['--rows', 'hebian'], "--rows[0]='hebian' is unknown"),
    (['--rows', 'hebbian', '--rows', 'untrained'], '--rows is given twice; name all its values behind one.'),
    (['--maximum', 'world'], "--maximum='world' is unknown; there are layer, unit."),
    (['--output', 'nothing'], "--output='nothing' is unknown; there are weights, effective"),
    (['--validation', '1.5'], '--validation=1.5 is out of range; use a finite number > 0 and'),
    (['--json', 'no/such/folder/x.json'], 'no/such/folder'),
    (['--dataset', 'mnist', '--data-dir', 'no/such/place'], 'no/such/place'),
    (['--dataset', 'mnist', '--data-dir', __file__], __file__),
]


def test_bad_input_is_met_at_the_door(few_digits, monkeypatch, tmp_path, refuse):
    trained = []
    monkeypatch.setattr(compare, 'train_entries', lambda *args, **how: trained.append(args))
    for flags, sentence in BAD:
        said = refuse(SMALL, flags)
        assert sentence in said and said.startswith('hebbjax compare: error: '), said
    monkeypatch.setattr(files.os, 'access', lambda path, mode: False)  # tests may run as root, who may write anywhere
    assert 'is read-only' in refuse(SMALL, '--json', tmp_path / 'x.json')
    assert not trained


def test_ctrl_c_ends_with_what_was_reached_and_writes_nothing_before(
    few_digits, relaxed, tmp_path, monkeypatch, hearing, call
):
    monkeypatch.setattr(comparison, 'fit', lambda *args, **how: signal.raise_signal(signal.SIGINT))
    path = tmp_path / 'x.json'
    code, _, said = call(SMALL, '--rows', 'hebbian', '--json', path)
    assert code == 130 and 'nothing was reached yet' in said and not path.exists()
    code, printed, said = call(SMALL, '--rows', 'untrained', 'hebbian', '--json', path)
    assert code == 130 and 'interrupted' in printed and not said
    written = json.loads(path.read_text())
    assert written['interrupted'] is True and [row['row'] for row in written['rows']] == ['untrained']


def test_mean_and_std_are_of_the_sample():
    assert tables.mean_std([1.0, 3.0]) == '2.00 ± 1.41'
    assert tables.mean_std([2.0]) == '2.00' and tables.mean_std([]) == '-'
