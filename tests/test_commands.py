"""The commands around a run folder, used as people use them: train, Ctrl-C, go on, evaluate, picture."""

import json
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from hebbjax import checkpoint, cli, data, files, runs
from hebbjax.jobs import recipes, watched
from hebbjax.jobs import train as job

SMALL = ['--features', '6', '--epochs', '3', '--every', '2', '--head-epochs', '2']


@pytest.fixture
def folder(few_digits, tmp_path):
    """A finished run."""
    assert cli.main(['train', 'cnn', *SMALL, '--run', str(tmp_path / 'run')]) == 0
    return tmp_path / 'run'


def refused(argv, capsys):
    """Run a command that is refused; give its one sentence."""
    capsys.readouterr()
    assert cli.main(list(map(str, argv))) == 2
    told = capsys.readouterr()
    assert told.err.count('\n') == 1 and 'Traceback' not in told.err
    return told.err


def test_a_run_folder_holds_all_that_is_known_of_a_training(folder, relaxed, capsys):
    assert {path.name for path in folder.iterdir()} == {
        'config.json', 'versions.json', 'metrics.jsonl', 'metrics.csv', 'details.jsonl', 'checkpoints', 'pictures',
        '.lock',
    }  # fmt: skip
    config = json.loads((folder / 'config.json').read_text())
    assert config['job'] == 'cnn' and config['settings']['features'] == 6 and config['settings']['k'] == 2
    assert {'versions', 'device'} == set(json.loads((folder / 'versions.json').read_text()))

    assert (
        cli.main(['evaluate', str(folder), '--rows', 'untrained', 'hebbian', 'backprop', '--readout', 'gradient']) == 0
    )
    found = json.loads((folder / 'evaluation.json').read_text())
    assert [row['row'] for row in found['rows']] == ['untrained', 'hebbian', 'backprop']
    assert set(found) == {'rows', 'config', 'versions', 'device', 'interrupted'}
    for row in found['rows']:
        counts = np.array(row['confusion'])
        assert counts.shape == (10, 10) and counts.sum() == 300
        assert row['test_accuracy'][0] == pytest.approx(100 * np.trace(counts) / 300)
        assert {part: len(values) for part, values in row['curve'].items()} == {'train': 2, 'validation': 2}
    assert 'backprop' in capsys.readouterr().out

    assert cli.main(['picture', str(folder)]) == 0
    drawn = {path.stem for path in (folder / 'pictures').iterdir()}
    assert drawn >= {
        'layer1_fields', 'layer1_weights', 'metrics', 'activations', 'convergence', 'wins', 'curves',
        'confusion_untrained', 'confusion_hebbian', 'confusion_backprop', 'layer1_epoch0001', 'layer1_epoch0003',
    }  # fmt: skip
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in (folder / 'pictures').iterdir())
    assert cli.main(['picture', str(folder), '--format', 'svg', '--epoch', '1']) == 0
    assert 'epoch 1 -->' in (folder / 'pictures' / 'layer1_fields.svg').read_text()  # the title, as a comment


def test_the_same_settings_give_the_same_bits_and_another_seed_others(few_digits):
    outcome = {}
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        config = recipes.Dense(dataset='digits', features=6, epochs=2, seed=seed, callbacks=(), run=pathlib.Path(name))
        subject = config.resolve().subject()
        outcome[name] = np.asarray(subject.state.layers[0].w)
    assert (outcome['a'] == outcome['b']).all() and (outcome['a'] != outcome['c']).any()


def test_ctrl_c_keeps_a_checkpoint_and_going_on_ends_in_the_same_bits(tmp_path, hearing):
    command = [sys.executable, '-m', 'hebbjax', 'train', 'dense', '--dataset', 'digits', '--features', '50', '--epochs',
               '400', '--batch', '20', '--callbacks', 'log', 'checkpoint', '--save-every', '1000', '--run']  # fmt: skip
    subprocess.run([*command, str(tmp_path / 'whole')], check=True, capture_output=True, timeout=300)
    folder = tmp_path / 'cut'
    with subprocess.Popen(
        [*command, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (folder / 'metrics.jsonl').exists() or len(files.read_lines(folder / 'metrics.jsonl')) < 5:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said, cried = process.communicate(timeout=60)
    assert process.returncode == 130 and 'error' not in cried
    assert f'interrupted; go on with: hebbjax train --resume {folder}' in said
    assert 4 <= len(files.read_lines(folder / 'metrics.jsonl')) < 400  # the epoch that was cut off is taken back
    done = subprocess.run(
        [sys.executable, '-m', 'hebbjax', 'train', '--resume', str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and 'from epoch' in done.stdout, done.stderr
    kept = {}
    for name in ('whole', 'cut'):
        config = recipes.rebuild(runs.config_of(tmp_path / name), tmp_path / name, None)
        keeper = job.callbacks.Checkpoints(tmp_path / name / 'checkpoints')
        state, record = keeper.restore(config.subject().state)
        kept[name] = [checkpoint.plain(leaf) for leaf in checkpoint.leaves_of(state).values()]
        assert len(record['history']) == 400
    assert all((a == b).all() for a, b in zip(kept['whole'], kept['cut'], strict=True))


def test_a_run_without_any_checkpoint_yet_begins_anew(folder):
    whole = np.asarray(job.resume(job.Resume(folder)).outcome.state.layers[0].w)
    (folder / 'checkpoints').rename(folder / 'gone')
    again = job.resume(job.Resume(folder))
    assert len(again.outcome.history) == 3
    np.testing.assert_array_equal(again.outcome.state.layers[0].w, whole)


def test_a_run_goes_on_from_an_earlier_checkpoint_when_the_last_is_damaged(folder, capsys):
    whole = files.read_lines(folder / 'metrics.jsonl')
    state, _ = job.callbacks.Checkpoints(folder / 'checkpoints').restore(job.recipes.rebuild(
        runs.config_of(folder), folder, None).subject().state)  # fmt: skip
    for file in (folder / 'checkpoints' / '3').rglob('*'):
        if file.is_file():
            file.write_bytes(b'')
    assert 'there are others, of epochs [1]' in refused(['train', '--resume', folder], capsys)
    again = job.resume(job.Resume(folder, epoch=1))
    np.testing.assert_array_equal(again.outcome.state.layers[0].w, state.layers[0].w)
    lines = files.read_lines(folder / 'metrics.jsonl')
    assert [row['epoch'] for row in lines] == [1, 2, 3]
    assert lines[-1]['layer1.change'] == whole[-1]['layer1.change']


def test_a_run_that_is_being_trained_can_be_looked_at_and_not_trained_twice(folder, capsys):
    with runs.held(folder):
        assert 'another process trains into' in refused(['train', '--resume', folder], capsys)
        (folder / 'checkpoints' / '9.orbax-checkpoint-tmp').mkdir()  # a save that is going on
        assert cli.main(['picture', str(folder)]) == 0 and cli.main(['evaluate', str(folder)]) == 0
        assert (folder / 'checkpoints' / '9.orbax-checkpoint-tmp').is_dir()
    assert cli.main(['train', '--resume', str(folder)]) == 0
    assert not (folder / 'checkpoints' / '9.orbax-checkpoint-tmp').exists()


def test_an_evaluation_adds_to_what_was_evaluated_before(folder, relaxed):
    for rows in (['untrained', 'hebbian'], ['backprop'], ['hebbian']):
        assert cli.main(['evaluate', str(folder), '--readout', 'gradient', '--rows', *rows]) == 0
    found = json.loads((folder / 'evaluation.json').read_text())
    assert [row['row'] for row in found['rows']] == ['untrained', 'hebbian', 'backprop']


def test_runs_get_a_folder_of_their_own(few_digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        flags = ['--dataset', 'digits', '--callbacks', 'checkpoint', *SMALL]
        assert cli.main(['train', 'dense', *flags]) == 0
    assert sorted(path.name for path in (tmp_path / 'runs').iterdir()) == ['dense-digits-1', 'dense-digits-2']
    told = capsys.readouterr().out
    assert f'hebbjax evaluate {tmp_path}/runs/dense-digits-2' in told and '3 of 3 epochs' in told


@pytest.mark.parametrize(
    'command', ['train cnn', 'train dense', 'train miconi', 'evaluate', 'picture', 'train --resume x']
)
def test_help_explains(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), '--help'])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert '--data-dir' in told or command == 'picture'
    if command.startswith('train ') and 'resume' not in command:
        assert '--callbacks' in told and '--batch' in told and '--run' in told


def test_usage_names_every_command(capsys):
    assert cli.main(['--help']) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in cli.COMMANDS)
    assert cli.main(['train', '--help']) == 0
    assert '--resume' in capsys.readouterr().out


def test_a_run_folder_that_exists_is_not_touched(folder, capsys):
    before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    assert 'exists and is not empty' in refused(['train', 'cnn', *SMALL, '--run', folder], capsys)
    assert {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()} == before


@pytest.mark.parametrize(
    ('flags', 'says'),
    [
        (['--callbacks', 'log', 'dance'], '--callbacks dance is unknown; there are evaluate, early_stop'),
        (['--plan', 'greedy'], '--plan greedy is unknown; there are parallel'),
        (['--readout', 'magic'], '--readout magic is unknown; there are ridge, gradient'),
        (['--every', '0'], '--every 0 does not fit; use a whole number from 1 to 1000000.'),
        (['--look', '-1'], '--look -1 does not fit; use a whole number from 0 to 1000000.'),
        (['--delta', 'nan'], '--delta nan does not fit; use a number from 0 to 1e+30.'),
        (
            ['--seed', '99999999999999999999'],
            '--seed 99999999999999999999 does not fit; use a whole number from 0 to 4294967295.',
        ),
        (['--callbacks', 'early_stop', '--metric', 'happiness'], '--metric happiness is unknown; there are seconds'),
        (['--callbacks', 'log', 'early_stop'], '--metric validation_accuracy is unknown'),
        (['--best', 'layer2.dead'], '--best layer2.dead is unknown; there are seconds, layer1.change'),
        (['--readout', 'gradient', '--head-batch', '1000'], '--head-batch 1000 is larger than the 250 images'),
        (['--features', '1001', '--pool', '1'], 'ridge regression on 4004 features'),
        (['--batch', '100000'], '--batch 100000 is larger than the 250 training images'),
        (['--window', '20'], 'layer 1: window (20, 20) with padding (0, 0) does not fit images of 8 x 8'),
        (['--dataset', 'letters'], 'letters'),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_no_folder(flags, says, few_digits, tmp_path, capsys):
    assert says in refused(['train', 'cnn', *SMALL, *flags, '--run', tmp_path / 'new'], capsys)
    assert list(tmp_path.iterdir()) == []


def test_without_tensorboard_the_extra_is_named_before_a_folder_is_made(few_digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(watched.importlib.util, 'find_spec', lambda name: None)
    told = refused(['train', 'cnn', '--callbacks', 'tensorboard', '--run', tmp_path / 'new'], capsys)
    assert "pip install 'hebbjax[tensorboard]'" in told and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('fails', ['mkdtemp', 'write_json'])
def test_a_disk_that_is_full_or_read_only_leaves_nothing(fails, few_digits, tmp_path, monkeypatch, capsys):
    def fail(*args, **how):
        raise OSError(30, 'Read-only file system')

    monkeypatch.setattr(runs.tempfile if fails == 'mkdtemp' else runs.files, fails, fail)
    told = refused(['train', 'cnn', *SMALL, '--run', tmp_path / 'new'], capsys)
    assert 'Read-only file system' in told and 'name a folder of yours' in told and list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_training_says_how_to_go_on(few_digits, tmp_path, monkeypatch, capsys):
    append, lines = files.append_lines, []

    def full(path, rows):
        lines.append(path)
        if len(lines) > 3:
            raise OSError(28, 'No space left on device', str(path))
        append(path, rows)

    monkeypatch.setattr(files, 'append_lines', full)
    told = refused(['train', 'cnn', *SMALL, '--save-every', '1', '--run', tmp_path / 'new'], capsys)
    assert 'No space left on device' in told and f'go on with: hebbjax train --resume {tmp_path / "new"}' in told
    monkeypatch.setattr(files, 'append_lines', append)
    assert cli.main(['train', '--resume', str(tmp_path / 'new')]) == 0
    assert [row['epoch'] for row in files.read_lines(tmp_path / 'new' / 'metrics.jsonl')] == [1, 2, 3]


def test_experiments_have_a_run_folder_if_they_are_asked(few_digits, relaxed, tmp_path, capsys):
    flags = ['--seeds', '1', '--epochs', '1', '--head-epochs', '1', '--features', '6', '--rows', 'untrained', 'hebbian']
    assert cli.main(['cnn', *flags, '--run', str(tmp_path / 'run')]) == 0
    made = {path.name for path in (tmp_path / 'run').iterdir()}
    assert made == {'config.json', 'versions.json', 'results.json', 'filters.png', 'curves.png'}
    assert 'exists and is not empty' in refused(['cnn', *flags, '--run', tmp_path / 'run'], capsys)
    assert 'another command or version' in refused(['picture', tmp_path / 'run'], capsys)


def test_folders_that_are_no_runs_or_damaged_are_refused(folder, tmp_path, capsys):
    for command in (['evaluate'], ['picture'], ['train', '--resume']):
        assert 'is no run folder' in refused([*command, tmp_path / 'nowhere'], capsys)
    config = json.loads((folder / 'config.json').read_text())
    config['settings']['features'] = 7
    (folder / 'config.json').write_text(json.dumps(config))
    for command in (['evaluate'], ['picture'], ['train', '--resume']):
        assert 'leaf .layers[0].w is float32[6, 36], wanted float32[7, 36]' in refused([*command, folder], capsys)
    for text, says in (
        ('{"job": "cnn"', 'config.json is damaged'), ('{"job": "cnn"}', 'config.json is damaged'),
        (json.dumps({'job': 'tea', 'settings': {}}), 'another command or version'),
        (json.dumps({'job': 'cnn', 'settings': {'sugar': 2}}), 'another command or version'),
        (json.dumps({'job': ['cnn'], 'settings': {}}), 'another command or version'),
        (json.dumps({'job': 'cnn', 'settings': []}), 'config.json is damaged'),
        (json.dumps({'job': 'cnn', 'settings': {'features': 'six'}}), 'config.json is damaged'),
        (json.dumps({'job': 'cnn', 'settings': {'look': None}}), 'config.json is damaged'),
    ):  # fmt: skip
        (folder / 'config.json').write_text(text)
        assert says in refused(['picture', folder], capsys)


def test_damaged_logs_and_evaluations_are_refused(folder, capsys):
    details = (folder / 'details.jsonl').read_text()
    for name, text, says in (
        ('details.jsonl', '{}\n', "lacks 'epoch'"), ('details.jsonl', '{"lay\n' + details, 'details.jsonl is damaged'),
        ('details.jsonl', details + '{"lay', ''), ('evaluation.json', '{}', "lacks 'rows'"),
        ('evaluation.json', '{"rows":', 'evaluation.json is damaged'),
    ):  # fmt: skip
        (folder / name).write_text(text)
        if says:
            assert says in refused(['picture', folder], capsys)
        else:  # a line that was cut off is passed over
            assert cli.main(['picture', str(folder)]) == 0


def test_commands_refuse_what_they_cannot_do(folder, capsys):
    assert "'tea' is no network; there are cnn, dense, miconi" in refused(['train', 'tea'], capsys)
    assert 'nothing is no network' in refused(['train'], capsys)
    assert '--rows tea is unknown' in refused(['evaluate', folder, '--rows', 'tea'], capsys)
    assert '--readout tea is unknown' in refused(['evaluate', folder, '--readout', 'tea'], capsys)
    assert 'no checkpoint of epoch 77' in refused(['evaluate', folder, '--epoch', '77'], capsys)
    assert '--count 0 does not fit; use a whole number from 1' in refused(['picture', folder, '--count', '0'], capsys)
    assert 'x.mp3 cannot be drawn' in refused(['picture', folder, '--format', 'mp3'], capsys)
    for path in (folder / 'checkpoints').iterdir():
        for file in path.rglob('*'):
            if file.is_file():
                file.write_bytes(b'')
    assert 'is damaged' in refused(['evaluate', folder], capsys)
    assert '--rows names no network' in refused(['evaluate', folder, '--rows'], capsys)


@pytest.mark.skipif('cifar10' not in str(list(data.data_dir_of(None).glob('*'))), reason='no CIFAR-10 prepared')
def test_a_stack_is_trained_layer_after_layer(tmp_path, monkeypatch, relaxed):
    flags = ['--images', '300', '--features', '8', '8', '8', '--epochs', '1', '--batch', '20', '--burn-in', '3',
             '--whitening-images', '100', '--plan', 'layerwise', '--run', str(tmp_path / 'run')]  # fmt: skip
    assert cli.main(['train', 'miconi', *flags]) == 0
    rows = files.read_lines(tmp_path / 'run' / 'metrics.jsonl')
    assert [row['stage'] for row in rows] == [0, 1, 2]
    assert ['layer2.change' in row for row in rows] == [False, True, False]
    assert {path.name for path in (tmp_path / 'run' / 'pictures').iterdir()} >= {'layer3_epoch0001.png'}
