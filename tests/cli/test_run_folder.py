"""The commands around a run folder, used as people use them: train, Ctrl-C, go on, evaluate, plot."""

import json
import re
import signal
import sys

import jax
import numpy as np
import pytest

from hebbjax import data, training
from hebbjax.cli import run_folder, train
from hebbjax.readout import ridge_probe
from hebbjax.support import files
from hebbjax.training import presets

SMALL = ['--features', '6', '--epochs', '3', '--head-epochs', '2', '--every', '2', '--monitor-every', '2']


def kept_state(folder, epoch=None):
    """Read a run's checkpoint back; give its leaves, keys as numbers, and how many epochs it has."""
    settings, about = train.read_run(folder, None)
    checkpoints = training.Checkpoints(folder / run_folder.CHECKPOINTS)
    state, position = training.resume(checkpoints, settings.start(about).state, epoch)
    is_key = lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    leaves = [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(state)]
    return [np.asarray(leaf) for leaf in leaves], len(position.history)


def test_a_run_folder_holds_all_that_is_known_of_a_training(folder, call):
    assert {path.name for path in folder.iterdir()} == {
        'config.json', 'versions.json', 'metrics.jsonl', 'details.jsonl', 'checkpoints', 'pictures', '.lock',
        'evaluation.json',
    }  # fmt: skip
    config = json.loads((folder / 'config.json').read_text())
    assert config['command'] == 'train' and config['settings']['network'] == 'cnn'
    assert config['settings']['features'] == 6 and config['settings']['k'] == 2
    assert {'versions', 'device'} == set(json.loads((folder / 'versions.json').read_text()))
    evaluation = json.loads((folder / 'evaluation.json').read_text())
    assert [row['row'] for row in evaluation['rows']] == ['untrained', 'hebbian']
    assert set(evaluation) == {'rows', 'config', 'versions', 'device', 'interrupted'}
    for row in evaluation['rows']:
        counts = np.array(row['confusion'])
        assert counts.shape == (10, 10) and counts.sum() == 300
        assert row['test_accuracy'][0] == pytest.approx(100 * np.trace(counts) / 300)

    assert call('plot', folder, '--format', 'svg', '--epoch', '1')[0] == 0
    drawn = {path.stem for path in (folder / 'pictures').iterdir()}
    assert drawn == {
        'layer1_fields', 'layer1_weights', 'metrics', 'activations', 'convergence', 'wins', 'curves',
        'confusion_untrained', 'confusion_hebbian', 'layer1_epoch0001', 'layer1_epoch0002',
        'layer1_epoch0003',
    }  # fmt: skip
    assert 'epoch 1 -->' in (folder / 'pictures' / 'layer1_fields.svg').read_text()  # the title, as a comment


def test_the_same_settings_give_the_same_bits_and_another_seed_others(few_digits):
    w = [
        np.asarray(train.TrainKrotov(network='dense', features=6, seed=seed).resolve().start().state.layers[0].w)
        for seed in (0, 0, 1)
    ]
    assert (w[0] == w[1]).all() and (w[0] != w[2]).any()


def test_a_run_begins_as_the_comparison_of_its_data_set_does(few_digits, monkeypatch):
    chosen = presets.TUNED['dense']['digits'] | {'start': 'patches'}  # as MNIST's
    monkeypatch.setitem(presets.TUNED['dense'], 'digits', chosen)
    start = train.TrainKrotov(dataset='digits', network='dense', features=4).resolve().start()
    images, w = np.asarray(start.train.images), np.asarray(start.state.layers[0].w)
    images = images.reshape(len(images), -1) / 255
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    assert np.abs(images[:, None] - w).max(2).min(0).max() < 1e-6  # each is a training image
    _, began = train.begin_again(start.settings, start.about)
    np.testing.assert_array_equal(began.layers[0].w, w)


def test_ctrl_c_keeps_a_checkpoint_and_going_on_ends_in_the_same_bits(folder, tmp_path, monkeypatch, hearing, call):
    """Those of a whole run; and so it goes from an earlier checkpoint, where the last is damaged, and from none."""
    monkeypatch.setattr(training, 'Pictures', lambda *args, **how: lambda context: None)  # which takes its time
    whole, lines = kept_state(folder), files.read_lines(folder / 'metrics.jsonl')
    append, cut = files.append_lines, tmp_path / 'cut'

    def interrupt(path, rows):
        append(path, rows)
        if path.name == 'metrics.jsonl' and rows[0]['epoch'] == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(files, 'append_lines', interrupt)
        code, printed, said = call('train', 'cnn', SMALL, '--run', cut)
    assert code == 130 and not said
    assert f'interrupted; go on with: hebbjax train --resume {cut}' in printed
    assert len(files.read_lines(cut / 'metrics.jsonl')) == 1, 'the epoch that was cut off is taken back'

    def check_resumed(run, *flags):
        assert call('train', '--resume', run, flags)[0] == 0
        leaves, epochs = kept_state(run)
        assert epochs == 3 and all((a == b).all() for a, b in zip(whole[0], leaves, strict=True))
        resumed = files.read_lines(run / 'metrics.jsonl')
        assert [row['epoch'] for row in resumed] == [1, 2, 3]
        assert [row['layer1.max_update'] for row in resumed] == [row['layer1.max_update'] for row in lines]

    check_resumed(cut)
    for file in (folder / 'checkpoints' / '3').rglob('*'):
        if file.is_file():
            file.write_bytes(b'')
    code, _, said = call('train', '--resume', folder)
    assert code == 2 and 'is damaged' in said and 'of epochs [1' in said
    check_resumed(folder, '--epoch', '1')
    (folder / 'checkpoints').rename(folder / 'gone')
    check_resumed(folder)


def test_a_run_that_is_being_trained_can_be_looked_at_and_not_trained_twice(folder, monkeypatch, call, refuse):
    starts = []
    monkeypatch.setattr(train.Watched, 'probe', lambda run, classes, start=None: starts.append(start) or ridge_probe())
    with run_folder.held(folder):
        assert 'another process trains into' in refuse('train', '--resume', folder)
        (folder / 'checkpoints' / '9.orbax-checkpoint-tmp').mkdir()  # a save that is going on
        assert call('evaluate', folder, '--rows', 'untrained', 'backprop')[0] == 0 and starts == [None, 0]
        assert (folder / 'checkpoints' / '9.orbax-checkpoint-tmp').is_dir()
    evaluation = json.loads((folder / 'evaluation.json').read_text())
    assert [row['row'] for row in evaluation['rows']] == ['untrained', 'backprop']
    assert call('train', '--resume', folder)[0] == 0
    assert not (folder / 'checkpoints' / '9.orbax-checkpoint-tmp').exists()


def test_runs_get_a_folder_of_their_own(few_digits, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    flags = '--callbacks checkpoint --monitor-every 0 --plan greedy --features 6 --epochs 2'
    for _ in range(2):
        code, printed, _ = call('train', 'dense', *flags.split())
    assert sorted(path.name for path in (tmp_path / 'runs').iterdir()) == ['dense-digits-1', 'dense-digits-2']
    assert code == 0 and f'hebbjax evaluate {tmp_path}/runs/dense-digits-2' in printed and '2 of 2 epochs' in printed


@pytest.mark.parametrize(
    'command', ['train cnn', 'train miconi', 'train --resume x', 'evaluate', 'plot', 'show', 'compare', 'features']
)
def test_help_explains(command, call):
    code, printed, _ = call(*command.split(), '--help')
    assert code == 0 and ('--data-dir' in printed or command in ('plot', 'show'))
    for flag in ('--callbacks', '--batch', '--run') if command in ('train cnn', 'train miconi') else ():
        assert flag in printed
    bare = re.findall(r'(--[a-z-]+) \S+ +\(default', printed)
    assert not bare, 'comments behind settings are their help, on the same line'
    for words in {'train cnn': ['Draws weights, order and all else'], 'compare': ['N, the number of neurons']}.get(
        command, []
    ):
        assert words in printed


def test_usage_names_every_command_and_others_are_refused(call, refuse, folder):
    for flags in (['--help'], ['train', '--help']):
        code, printed, _ = call(flags)
        commands = ('compare', 'train', 'evaluate', 'plot', 'show', 'features', 'data', '--resume')
        assert code == 0 and all(name in printed for name in commands)
    assert 'there are compare, train, evaluate, plot, show, features, data.' in refuse('dance')
    assert call('--seads', '3')[0] == 2
    assert "'tea' is no network; there are cnn, dense, miconi" in refuse('train', 'tea')
    assert "'nothing' is no network" in refuse('train')
    assert "--rows[0]='tea' is unknown" in refuse('evaluate', folder, '--rows', 'tea')
    assert "--readout='tea' is unknown" in refuse('evaluate', folder, '--readout', 'tea')
    assert 'no checkpoint of epoch 77' in refuse('evaluate', folder, '--epoch', '77')
    assert '--count=0 is out of range; use a whole number from 1' in refuse('plot', folder, '--count', '0')
    for ending in ('mp3', 'pgf'):  # matplotlib draws the second for LaTeX alone
        assert f"--format='{ending}' is unknown; there are png, pdf, svg" in refuse('plot', folder, '--format', ending)
    before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    assert 'cannot be made (File exists); name another folder' in refuse('train', 'cnn', SMALL, '--run', folder)
    assert {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()} == before


BAD = [
    (['--callbacks', 'log', 'dance'], "--callbacks[1]='dance' is unknown; there are evaluate, early_stop"),
    (['--plan', 'layerwise'], "--plan='layerwise' is unknown; there are simultaneous, sequential, greedy."),
    (['--readout', 'magic'], "--readout='magic' is unknown; there are ridge, gradient"),
    (['--every', '0'], '--every=0 is out of range; use a whole number from 1 to 1000000.'),
    (['--monitor-every', '-1'], '--monitor-every=-1 is out of range; use a whole number from 0 to 1000000.'),
    (['--delta', 'nan'], '--delta=nan is out of range; use a finite number >= 0 and <= 1e+30.'),
    (['--seed', '9' * 20], f'--seed={"9" * 20} is out of range; use a whole number from 0 to 4294967295.'),
    (['--readout', 'gradient', '--head-batch', '1000'], 'batch=1000 is out of range'),
    (['--batch', '100000'], '--batch 100000 is larger than the 250 training images'),
    (['--window', '20'], 'layer 1: window (20, 20) with padding (0, 0) does not fit images of 8 x 8'),
    (['--dataset', 'letters'], 'letters'),
    (['--callbacks', 'early_stop'], 'early_stop waits for what evaluate measures; name evaluate in --callbacks'),
]


def test_what_does_not_fit_is_refused_and_leaves_no_folder(few_digits, tmp_path, monkeypatch, refuse):
    new = tmp_path / 'new'
    for flags, says in BAD:
        assert says in refuse('train', 'cnn', SMALL, flags, '--run', new)

    def fail(*args, **how):
        raise OSError(30, 'Read-only file system')

    with monkeypatch.context() as without:
        without.setitem(sys.modules, 'tensorboardX', None)
        assert 'this needs tensorboardX' in refuse('train', 'cnn', SMALL, '--callbacks', 'tensorboard', '--run', new)
    (tmp_path / 'runs').symlink_to(tmp_path / 'a disk that is not there')
    monkeypatch.chdir(tmp_path)
    assert refuse('train', 'cnn', SMALL)
    (tmp_path / 'runs').unlink()
    monkeypatch.setattr(run_folder.files, 'write_json', fail)
    said = refuse('train', 'cnn', SMALL, '--run', new)
    assert 'cannot be made (Read-only file system); name another folder' in said
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_training_says_how_to_go_on(few_digits, tmp_path, monkeypatch, call, refuse):
    append, lines, new = files.append_lines, [], tmp_path / 'new'

    def full(path, rows):
        lines.append(path)
        if len(lines) > 3:
            raise OSError(28, 'No space left on device', str(path))
        append(path, rows)

    monkeypatch.setattr(files, 'append_lines', full)
    said = refuse('train', 'cnn', SMALL, '--save-every', '1', '--run', new)
    assert 'No space left on device' in said and f'go on with: hebbjax train --resume {new}' in said
    monkeypatch.setattr(files, 'append_lines', append)
    assert call('train', '--resume', new)[0] == 0
    assert [row['epoch'] for row in files.read_lines(new / 'metrics.jsonl')] == [1, 2, 3]


def test_folders_that_are_no_runs_or_damaged_are_refused(folder, tmp_path, refuse):
    commands = (['evaluate'], ['plot'], ['train', '--resume'])
    for command in commands:
        assert 'is no run folder' in refuse(command, tmp_path / 'nowhere')
    path = folder / 'config.json'
    config = json.loads(path.read_text())
    config['settings']['features'] = 7
    path.write_text(json.dumps(config))
    for command in commands:
        assert 'leaf .layers[0].w is float32[6, 36], wanted float32[7, 36]' in refuse(command, folder)
    damaged = 'config.json is damaged'
    for text, says in (
        ('{"command": "train"', damaged), ('{"command": "train"}', damaged),
        (json.dumps({'command': 'train', 'settings': {'network': 'tea'}}), damaged),
        (json.dumps({'command': 'train', 'settings': {'network': 'cnn', 'sugar': 2}}), damaged),
        (json.dumps({'command': ['train'], 'settings': {'network': 'cnn'}}), damaged),
        (json.dumps({'command': 'train', 'settings': []}), damaged),
        (json.dumps(config | {'settings': config['settings'] | {'features': 'six'}}), damaged),
        (json.dumps(config | {'settings': config['settings'] | {'monitor_every': None}}), damaged),
        (json.dumps(config | {'data': None}), damaged),
    ):  # fmt: skip
        path.write_text(text)
        assert says in refuse('plot', folder), text
    for file in (folder / 'checkpoints').rglob('*'):
        if file.is_file():
            file.write_bytes(b'')
    config['settings']['features'] = 6
    path.write_text(json.dumps(config))
    assert 'is damaged' in refuse('evaluate', folder)


def test_a_stack_is_whitened_and_trained_as_published(tmp_path, monkeypatch, call):
    rng, fits = np.random.default_rng(0), []
    split = data.Reading(rng.integers(0, 256, (60, 24, 24, 1), np.uint8), np.arange(60, dtype=np.int32) % 2, (), ())
    monkeypatch.setattr(data, 'read', lambda *args, **how: split)
    result = training.FitResult(None, (), False, 0.0, 0.0)
    monkeypatch.setattr(training, 'fit', lambda *args, **how: fits.append((args, how)) or result)
    flags = '--features 3 4 5 --epochs 1 --batch 20 --burn-in 1 --callbacks log checkpoint --monitor-every 0'
    assert call('train', 'miconi', *flags.split(), '--run', tmp_path / 'run')[0] == 0
    [((net, state, *_), how)] = fits
    assert [layer.w.shape for layer in state.layers] == [(3, 25), (4, 27), (5, 36)]
    assert [len(layer.pre) for layer in net] == [3, 1, 1] and how['augment'] is data.random_flip and how['batch'] == 20
    assert 'burn_in=9 leaves nothing of 2 steps' in call('train', 'miconi', *flags.split(), '--burn-in', '9')[2]
