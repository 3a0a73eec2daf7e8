"""The jobs, used as people use them: flags in, a table, files and an exit code out."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hebbjax import augment, cli, data, files
from hebbjax.jobs import arms, cnn, compare, dense, report

SMALL = ['--seeds', '1', '--epochs', '2', '--head-epochs', '2', '--backprop-epochs', '2', '--features', '6']


@pytest.mark.parametrize(('command', 'job'), [('cnn', cnn), ('dense', dense)])
def test_a_job_ends_in_a_table_a_json_and_two_pictures(command, job, few_digits, relaxed, tmp_path, capsys):
    made = {name: tmp_path / f'{name}.{end}' for name, end in (('json', 'json'), ('figure', 'png'), ('curves', 'png'))}
    flags = [part for name, path in made.items() for part in (f'--{name}', str(path))]
    assert cli.main([command, '--dataset', 'digits', *SMALL, *flags]) == 0
    written = json.loads(made['json'].read_text())
    assert [row['row'] for row in written['rows']] == list(job.Config.ROWS)
    for row in written['rows']:
        assert len(row['test_accuracy']) == len(row['train_accuracy']) == 1
        assert 0 < row['test_accuracy'][0] <= 100
        assert row['paper'] is None
        assert row['seconds'] > 0
        assert {part: len(values) for part, values in row['curve'].items()} == {'train': 2, 'validation': 2, 'test': 2}
        if row['row'] != 'raw_pixels':
            assert 1 <= row['distinct_winners'][0] <= 6
            assert 0 <= row['unit_convergence'][0] <= 1
    assert written['config']['epochs'] == 2
    assert set(written) == {'rows', 'config', 'versions', 'device', 'interrupted'}
    assert written['versions']['jax']
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in (made['figure'], made['curves']))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['curves.png', 'figure.png', 'json.json']
    printed = capsys.readouterr().out
    assert 'untrained' in printed and 'hebbian' in printed and 'backprop' in printed


def test_the_same_seed_gives_the_same_numbers(few_digits, relaxed):
    config = cnn.Config(seeds=1, epochs=2, head_epochs=2, features=6, rows=('untrained', 'hebbian'))
    one, other = cnn.run(config), cnn.run(config)
    assert [row.test_accuracy for row in one.rows] == [row.test_accuracy for row in other.rows]


def test_the_test_split_cannot_be_read_until_every_choice_is_made(few_digits, relaxed, monkeypatch):
    load, fit, fitted = data.load, arms.supervised.fit, []
    monkeypatch.setattr(arms.supervised, 'fit', lambda *a, **k: fitted.append(0) or fit(*a, **k))

    def guarded(name, split='train', **where):
        assert split == 'train' or len(fitted) == 8, 'the test split was read before all networks were trained'
        return load(name, split, **where)

    monkeypatch.setattr(data, 'load', guarded)
    config = cnn.Config(
        seeds=2, epochs=1, head_epochs=1, backprop_epochs=1, features=6,
        rows=('raw_pixels', 'untrained', 'hebbian', 'backprop'),
    )  # fmt: skip
    assert len(cnn.run(config).rows) == 4


def test_no_choice_depends_on_the_test_split(few_digits, relaxed, monkeypatch):
    config = cnn.Config(seeds=1, epochs=1, head_epochs=4, features=6, rows=('hebbian',))
    (before,) = cnn.run(config).rows
    load = data.load

    def wrong_labels(name, split='train', **where):
        images, labels = load(name, split, **where)
        return data.Split(images, (labels + 1) % 10 if split == 'test' else labels)

    monkeypatch.setattr(data, 'load', wrong_labels)
    (after,) = cnn.run(config).rows
    assert before.more['epoch'] == after.more['epoch']
    assert before.more['curve']['validation'] == after.more['curve']['validation']
    assert before.test_accuracy != after.test_accuracy


def test_hebbian_and_untrained_start_from_the_same_filters_and_only_one_learns(few_digits, relaxed):
    config = cnn.Config(epochs=1, head_epochs=1, features=6).resolve()
    stuff = compare.material(config)
    console = report.Console(quiet=True)
    first, learned, again = (
        np.asarray(compare.train_row(row, 0, config, stuff, console).w) for row in ('untrained', 'hebbian', 'untrained')
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(learned - first).max() > 0.01


def test_filters_may_start_from_patches_untrained_ones_too(few_digits, relaxed):
    config = dense.Config(dataset='digits', epochs=1, head_epochs=1, features=6, start='patches').resolve()
    stuff, console = compare.material(config), report.Console(quiet=True)
    first, learned = (
        np.asarray(compare.train_row(row, 0, config, stuff, console).w) for row in ('untrained', 'hebbian')
    )
    pixels = np.asarray(stuff.images, np.float32).reshape(len(stuff.images), -1)
    np.testing.assert_allclose((first @ pixels.T / np.linalg.norm(pixels, axis=1)).max(1), 1, atol=1e-5)
    assert 1e-3 < np.abs(learned - first).max() < 0.5, 'learning goes on from them'


def test_every_arm_can_learn_from_shifted_images(few_digits, relaxed, monkeypatch):
    found, change = [], augment.shift(1)
    monkeypatch.setattr(arms.augment, 'shift', lambda most: lambda *given: found.append(most) or change(*given))
    rows = ('raw_pixels', 'untrained', 'backprop')
    settings = {'seeds': 1, 'head_epochs': 1, 'backprop_epochs': 1, 'features': 6, 'rows': rows}
    result = dense.run(dense.Config(dataset='digits', shift=1, **settings))
    assert found == [1] * 3, 'each network is traced on shifted images, once'
    assert all(0 < row.test_accuracy[0] <= 100 for row in result.rows)


def test_heads_see_the_same_cached_or_not(few_digits, relaxed):
    config = cnn.Config(seeds=1, epochs=1, head_epochs=2, features=6, rows=('untrained',))
    cached = cnn.run(config).rows[0].test_accuracy[0]
    anew = cnn.run(cnn.Config(**{**vars(config), 'cache_gib': 1e-9})).rows[0].test_accuracy[0]
    assert abs(cached - anew) < 3


@pytest.mark.parametrize(
    ('argv', 'sentence'),
    [
        (['--dataset', 'imagenet'], 'imagenet'),
        (['--k', '7'], '--k 7 is more than the 6 neurons'),
        (['--k', '1'], '--k 1 does not fit; use a whole number from 2 to 1000000.'),
        (['--p', '1'], '--p 1.0 does not fit; use a number above 1, up to 1e+30.'),
        (['--window', '9'], 'does not fit images of 8 x 8'),
        (['--pool', '9'], 'pooling blocks of 9 do not fit'),
        (['--epochs', '0'], '--epochs 0 does not fit; use a whole number from 1 to 1000000.'),
        (['--head-epochs', '0'], '--head-epochs 0 does not fit'),
        (['--seeds', '0'], '--seeds 0 does not fit; use a whole number from 1 to 1000.'),
        (['--rate', '-0.1'], '--rate -0.1 does not fit; use a number from 1e-30 to 1e+30.'),
        (['--head-rate', '-1'], '--head-rate -1.0 does not fit'),
        (['--batch', '5000'], '--batch 5000 is larger than'),
        (['--head-batch', '5000'], 'a batch of 5000 does not fit'),
        (['--power', '0.5'], '--power 0.5 does not fit; use a number from 1 to 1e+30.'),
        (['--dropout', '1'], '--dropout 1.0 does not fit; use a number from 0 on, below 1.'),
        (['--start', 'zeros'], '--start zeros is unknown; there are drawn, patches.'),
        (['--shift', '-1'], '--shift -1 does not fit'),
        (['--shift', '8'], '--shift 8 moves images of 8 x 8 out of sight'),
        (['--patch', 'sideways'], '--patch sideways is unknown'),
        (['--precision', 'int4'], '--precision int4 is unknown; there are highest'),
        (['--rows', 'hebian'], '--rows hebian is unknown'),
        (['--maximum', 'world'], '--maximum world is unknown; there are layer, unit.'),
        (['--send', 'nothing'], '--send nothing is unknown; there are weights, seen'),
        (['--validation', '1.5'], '--validation 1.5 does not fit; use a number above 0 and below 1.'),
        (['--json', 'no/such/folder/x.json'], 'no/such/folder'),
        (['--figure', 'picture.docx'], '.docx'),
        (['--dataset', 'mnist', '--data-dir', 'no/such/place'], 'no/such/place'),
    ],
)
def test_bad_input_is_met_at_the_door(argv, sentence, few_digits, relaxed, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(compare, 'train_row', lambda *a: trained.append(a))
    assert cli.main([*SMALL, *argv]) == 2
    told = capsys.readouterr()
    assert sentence in told.err
    assert told.err.startswith('hebbjax cnn: error: ')
    assert told.err.count('\n') == 1 and 'Traceback' not in told.err + told.out
    assert not trained


def test_unreadable_data_is_one_sentence(tmp_path, capsys):
    (tmp_path / 'mnist').write_text('not a directory')
    assert cli.main(['--dataset', 'mnist', '--data-dir', str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_no_permission_to_write_is_refused_before_training(tmp_path, monkeypatch, few_digits, capsys):
    monkeypatch.setattr(files.os, 'access', lambda path, mode: False)  # tests may run as root, who may write anywhere
    assert cli.main([*SMALL, '--json', str(tmp_path / 'x.json')]) == 2
    assert 'no permission' in capsys.readouterr().err


def test_unknown_commands_and_flags_exit_with_2(capsys):
    assert cli.main(['dance']) == 2
    assert 'cnn, dense, miconi, amato, train, evaluate, picture, data' in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main(['--seads', '3'])
    assert ended.value.code == 2


def test_help_explains(capsys):
    assert cli.main(['--help']) == 0
    assert 'hebbjax cnn --help' in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli.main(['cnn', '--help'])
    assert ended.value.code == 0
    assert '--head-epochs' in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'x.json'
    path.write_text('old')

    def fail(file: pathlib.Path):
        file.write_text('half')
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        files.write_whole(path, fail)
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_mean_and_std_are_of_the_sample():
    assert report.mean_std([1.0, 3.0]) == '2.00 ± 1.41'
    assert report.mean_std([2.0]) == '2.00'
    assert report.mean_std([]) == '-'


def test_ctrl_c_ends_with_what_was_reached(tmp_path):
    path = tmp_path / 'x.json'
    endless = ['--rows', 'raw_pixels', 'hebbian', '--epochs', '1000000', '--head-epochs', '2', '--json', str(path)]
    # a shell that starts tests in the background makes its children deaf to SIGINT: give the job its hearing back
    start = 'import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); '
    start += "runpy.run_module('hebbjax', run_name='__main__', alter_sys=True)"
    job = subprocess.Popen(
        [sys.executable, '-u', '-c', start, *endless], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        first = job.stdout.readline()
        time.sleep(8)  # beyond compiling, into the Hebbian epochs
        job.send_signal(signal.SIGINT)
        out, err = job.communicate(timeout=120)
    finally:
        job.kill()
    assert job.returncode == 130, err
    assert first.startswith('raw_pixels, seed 0')
    assert 'interrupted' in out
    assert 'Traceback' not in err
    written = json.loads(path.read_text())
    assert written['interrupted'] is True
    assert [row['row'] for row in written['rows']] == ['raw_pixels']


def test_ctrl_c_before_anything_was_reached_writes_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, 'train_row', interrupt)
    assert cli.main([*SMALL, '--json', str(tmp_path / 'x.json')]) == 130
    assert 'nothing was reached yet' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
