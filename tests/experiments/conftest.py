"""Scripts are imported from the folder of experiments, and see small data sets as NAME.npz files."""

import pathlib
import sys

import numpy as np
import pytest

EXPERIMENTS = pathlib.Path(__file__).parents[2] / 'experiments'
sys.path.insert(0, str(EXPERIMENTS))


def write_images(path, shape, classes, train, test):
    """Write noisy images whose class is a bright stripe, and in colour ones its colour."""
    arrays = {}
    for split, count in (('train', train), ('test', test)):
        labels = np.arange(count) % classes
        images = np.random.default_rng(count).integers(0, 70, (count, *shape))
        height, channels = shape[0] // min(classes, 4), shape[2]
        for image, label in zip(images, labels):
            image[height * (label % 4) : height * (label % 4 + 1), :, label // 4 % channels] += 140
        arrays |= {f'{split}_images': images.astype(np.uint8), f'{split}_labels': labels}
    np.savez(path, **arrays)


@pytest.fixture(scope='session')
def small_data(tmp_path_factory):
    """A folder of small data sets: digits of 8 x 8 in 3 classes, and cifar10 of 24 x 24; in amato, of 12 x 12."""
    folder = tmp_path_factory.mktemp('data')
    (folder / 'amato').mkdir()
    write_images(folder / 'amato' / 'cifar10.npz', (12, 12, 3), 10, 300, 100)
    write_images(folder / 'digits.npz', (8, 8, 1), 3, 120, 60)
    write_images(folder / 'cifar10.npz', (24, 24, 3), 3, 60, 40)
    return folder


@pytest.fixture
def refused(capsys):
    """A function that runs a script's main, and gives the sentence by which it refused, with exit code 2."""

    def run(main, flags):
        assert main(list(flags)) == 2
        said = capsys.readouterr().err
        assert said.count('\n') == 1 and 'error: ' in said and 'Traceback' not in said
        return said

    return run
