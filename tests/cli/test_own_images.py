"""Images of one's own on the command line: compared, trained on, evaluated on, and made features of."""

import json
import re
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from hebbjax.cli import evaluate, features
from hebbjax.training import comparison

SIZES = ['--features', '6', '--epochs', '3']
HEADS = ['--head-epochs', '2', '--seeds', '1', '--rows', 'hebbian', 'untrained']


def write_folder(root, classes=('bars', 'rows'), count=20, size=(10, 12), seed=0):
    """A folder of small grey pictures: bars across or down, of random strength."""
    draw = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 60, size)
            bar = (slice(None), draw.integers(size[1])) if name == 'bars' else (draw.integers(size[0]), slice(None))
            pixels[bar] = draw.integers(150, 256)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f'{number}.png')
    return root


@pytest.fixture
def pictures(tmp_path, monkeypatch, relaxed):
    monkeypatch.chdir(tmp_path)
    return write_folder(tmp_path / 'eigene Bilder äöü')


def test_a_folder_is_compared_and_its_settings_are_chosen_by_size(pictures, tmp_path, call):
    code, said, errors = call('compare', '--dataset', pictures, *SIZES, *HEADS, '--json', tmp_path / 'rows.json')
    assert (code, errors) == (0, '') and '40 images of 10 x 12, grey, uint8; 2 classes' in said
    held_out = re.search(r'are learned from, (\d+) are for validation', said)[1]
    assert f'winners: of {held_out} validation images' in said
    report = json.loads((tmp_path / 'rows.json').read_text())
    assert [row['row'] for row in report['rows']] == ['hebbian', 'untrained']
    assert report['config']['window'] == 6 and report['config']['dataset'] == str(pictures)
    assert report['config']['head'][1] <= 20  # a batch of the head, no larger than the images are many


def test_a_run_on_a_folder_goes_all_the_way(pictures, tmp_path, call):
    run = tmp_path / 'runs' / f'cnn-{pictures.name}-1'
    code, said, _ = call('train', 'cnn', '--dataset', pictures.name, *SIZES)
    assert code == 0 and str(run) in said
    assert json.loads((run / 'config.json').read_text())['settings']['dataset'] == str(pictures)
    assert call('evaluate', run)[0] == call('plot', run)[0] == 0

    other = write_folder(tmp_path / 'other', size=(14, 9), seed=3)
    moved = pictures.rename(tmp_path / 'moved')  # what it learned from is not needed any more
    code, said, _ = call('evaluate', run, '--dataset', other, '--resize', 10, 12, '--out', tmp_path / 'judged')
    assert code == 0 and f'on {other}' in said
    judged = json.loads((tmp_path / 'judged' / 'evaluation.json').read_text())
    assert judged['config']['names'] == ['bars', 'rows']
    assert judged['config']['dataset'] == str(other) and np.sum(judged['rows'][0]['confusion']) == 7  # a sixth of 40
    code, _, errors = call('evaluate', run, '--dataset', other)
    assert code == 2 and 'images of (14, 9, 1) do not fit a run that learned from (10, 12, 1)' in errors
    assert '--resize 10 12' in errors

    moved.rename(pictures)
    code, said, _ = call('features', '--run', run, '--out', tmp_path / 'of_run.npz')
    assert code == 0 and 'linear probe: ' in said and '% of 7 held-out images' in said
    with np.load(tmp_path / 'of_run.npz') as file:
        assert len(file['features']) == 40 and file['labels'].tolist() == [0] * 20 + [1] * 20
        assert file['classes'].tolist() == ['bars', 'rows']


def test_a_runs_own_images_are_read_as_it_read_them(tmp_path, call, monkeypatch, relaxed):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    np.savez('dim.npz', images=draw.integers(0, 17, (60, 8, 8), np.uint8), labels=np.arange(60) % 3)
    train = ['train', 'cnn', '--dataset=~/dim.npz', '--white', '16', '--resize', '7', *SIZES, '--run', 'run']
    monkeypatch.setenv('HOME', str(tmp_path))
    assert call(train, '--callbacks', 'checkpoint')[0] == 0
    assert call('features', '--run', 'run', '--out', 'a.npz')[0] == 0
    assert (
        call('features', '--run', 'run', '--dataset', 'dim.npz', '--white', '16', '--resize', '7', '--out', 'b.npz')[0]
        == 0
    )
    with np.load('a.npz') as own, np.load('b.npz') as named:
        np.testing.assert_array_equal(own['features'], named['features'])
        assert own['features'].any()
    for command in (['features', '--run', 'run'], ['evaluate', 'run']):
        code, _, errors = call(command, '--white', '3', '--test', '0.5')
        assert code == 2 and '--test, --white says how other images are read' in errors and errors.count('\n') == 1


def test_features_of_a_recipe_are_those_of_its_weights(pictures, tmp_path, call):
    weights, made, again = tmp_path / 'w.npz', tmp_path / 'made.npz', tmp_path / 'again.npy'
    settings = ['features', '--dataset', pictures, *SIZES]
    code, said, _ = call(settings, '--out', made, '--save-weights', weights)
    assert code == 0 and 'made.npz' in said and 'of 40 images' in said
    assert call(settings, '--out', again, '--weights', weights)[0] == 0
    with np.load(made) as file:
        np.testing.assert_array_equal(file['features'], np.load(again))
        np.testing.assert_array_equal(file['labels'], np.load(tmp_path / 'again-labels.npy'))
        assert np.isfinite(file['features']).all() and file['features'].std() > 0
        assert file['features'].shape[1] == 6 * 1 * 2  # windows of 6 x 6, maxima of 3 x 3


def test_a_test_part_of_ones_own_is_the_test_split(tmp_path, call, monkeypatch, relaxed):
    monkeypatch.chdir(tmp_path)
    for split, count in (('train', 20), ('test', 5)):
        write_folder(tmp_path / 'both' / split, count=count, seed=count)
    assert call('features', '--dataset', 'both', *SIZES)[0] == 0
    code, said, _ = call('features', '--dataset', 'both', *SIZES, '--out', 'x.npy')
    assert code == 0 and 'test images are left out' in said and len(np.load('x.npy')) == 40
    with np.load('features.npz') as file:
        assert len(file['features']) == 40 and len(file['test_features']) == len(file['test_labels']) == 10
    code, _, _ = call('compare', '--dataset', 'both', *SIZES, *HEADS, '--json', 'rows.json')
    assert code == 0


@pytest.mark.parametrize(
    'test, says',
    [
        ({'test_images': np.zeros((10, 8, 8), np.uint8)}, 'test images without labels, which judge nothing; add them'),
        ({'test_images': np.zeros((10, 9, 9), np.uint8), 'test_labels': np.arange(10) % 2}, 'test images of (9'),
    ],
)  # fmt: skip
def test_a_test_part_that_judges_nothing_is_refused_before_anything_is_trained(
    test, says, tmp_path, call, monkeypatch, relaxed
):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    learned = {'train_images': images, 'train_labels': np.arange(40) % 2}
    np.savez('own.npz', **learned, **test)
    np.savez('good.npz', **learned)
    assert call('train', 'cnn', '--dataset', 'good.npz', *SIZES, '--run', 'run')[0] == 0
    for module, name in ((comparison, 'train_entry'), (evaluate, 'judge')):
        monkeypatch.setattr(module, name, lambda *args, **how: pytest.fail('a classifier was fitted'))
    for command in (['compare', *SIZES, *HEADS], ['evaluate', 'run']):
        code, _, errors = call(*command, '--dataset', 'own.npz')
        assert code == 2 and says in errors and errors.count('\n') == 1
    if 'test_labels' in test:  # of other sizes, which is known before anything has learned
        monkeypatch.setattr(features.training, 'fit', lambda *args, **how: pytest.fail('a network was trained'))
        code, _, errors = call('features', '--dataset', 'own.npz')
        assert code == 2 and 'in its parts; bring them to one size by --resize' in errors and errors.count('\n') == 1


def test_images_without_labels_are_learned_from_and_not_judged(tmp_path, call, monkeypatch, relaxed):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / 'in', classes=['bars'])
    (tmp_path / 'in' / 'bars').rename(tmp_path / 'flat')
    code, said, _ = call('train', 'cnn', '--dataset', 'flat', *SIZES, '--run', 'run')
    assert code == 0 and 'nothing is evaluated' in said and 'validation_accuracy' not in said
    assert call('train', '--resume', 'run')[0] == 0 and call('plot', 'run')[0] == 0
    code, said, _ = call('features', '--dataset', 'flat', *SIZES)
    assert code == 0 and 'probe' not in said
    with np.load('features.npz') as file:
        assert file.files == ['features']
    for command in (['compare'], ['train', 'cnn', '--callbacks', 'early_stop'], ['evaluate', 'run']):
        if command[0] != 'evaluate':
            command = [*command, '--dataset', 'flat', *SIZES]
        code, _, errors = call(command)
        assert code == 2 and 'flat has no labels' in errors and errors.count('\n') == 1


@pytest.mark.parametrize(
    'words, says',
    [
        (['--out', 'features.txt'], 'ending of features.txt'),
        (['--out', 'nowhere/features.npz'], 'no folder'),
        (['--run', 'a', '--weights', 'b.npz'], 'is as it was trained; leave --weights out'),
        (['--run', 'a', '--epochs', '2', '--recipe', 'miconi'], 'leave --recipe, --epochs out'),
        (['--upto', '2', *SIZES], '--upto=2 is out of range; use a whole number from 1 to 1.'),
        (['--features', '3', '4'], '--features of krotov are one number'),
        (['--dataset', 'nowhere'], 'nowhere'),
        (['--run', 'nowhere'], 'nowhere is no run folder'),
        (['--weights', 'nowhere.npz', *SIZES], 'nowhere.npz'),
        (['--resize', '0'], 'resize[0]=0 is out of range'),
        (['--recipe', 'softkrotov'], "recipe='softkrotov' is unknown"),
        (['--epoch', '7', *SIZES], '--epoch is that of a checkpoint; name its run by --run.'),
        (['--save-weights', 'w.txt', *SIZES], 'ending of w.txt'),
        (['--save-weights', 'f.npz', '--out', './f.npz', *SIZES], 'f.npz is also what is read or saved here'),
        (['--dataset', 'mine.npz', '--out', 'mine.npz'], '--out mine.npz is also what is read or saved here'),
    ],
)
def test_features_refuses_in_one_sentence_and_writes_nothing(words, says, few_digits, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = call('features', words)
    assert code == 2 and says in errors and errors.count('\n') == 1, errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('flag', ['--weights', '--save-weights'])
def test_features_refuses_weights_that_an_extra_is_missing_for(flag, few_digits, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    code, said, errors = call('features', flag, 'w.safetensors', *SIZES)
    assert code == 2 and "needs safetensors, which is not there; pip install 'hebbjax[safetensors]'" in errors
    assert not said and not list(tmp_path.iterdir())


@pytest.mark.parametrize('side', [['8'], ['8', '10']])
def test_pictures_of_many_sizes_are_brought_to_one_by_a_side_or_two(side, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / 'mixed', ['bars'], size=(9, 12))
    write_folder(tmp_path / 'mixed', ['rows'], size=(20, 15))
    assert call('features', '--dataset', 'mixed', *SIZES)[0] == 2
    code, said, _ = call('features', '--dataset', 'mixed', *SIZES, '--resize', *side)
    assert code == 0 and f'40 images of {side[0]} x {side[-1]}' in said


def test_classes_too_few_for_a_probe_still_have_features(tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / 'few', [f'class{number}' for number in range(9)], count=1)
    code, said, _ = call('features', '--dataset', 'few', *SIZES)
    assert code == 0 and 'linear probe: not fitted, 9 images of 9 classes are too few' in said
    with np.load('features.npz') as file:
        assert len(file['features']) == 9 and file['classes'][8] == 'class8'


def test_images_of_one_class_have_features_and_nothing_that_tells_them_apart(tmp_path, call, refuse, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / 'one', ['cat'], count=20)
    assert 'linear probe: not fitted, there is one class' in call('features', '--dataset', 'one', *SIZES)[1]
    assert 'one has images of one class; classifiers tell 2 or more apart' in refuse('compare', '--dataset', 'one')


def test_an_interrupt_that_got_lost_is_heard_after_the_row(pictures, tmp_path, call, monkeypatch, hearing):
    assert call('train', 'cnn', '--dataset', pictures, *SIZES, '--run', 'run')[0] == 0
    judge = evaluate.Entry

    def lose(*args, **how):  # as jax's hook of the collector loses it
        signal.getsignal(signal.SIGINT).__self__.heard = signal.SIGINT
        return judge(*args, **how)

    monkeypatch.setattr(evaluate, 'Entry', lose)
    code, _, errors = call('evaluate', 'run')
    assert code == 130 and 'interrupted' in errors and not (tmp_path / 'run' / 'evaluation.json').exists()
