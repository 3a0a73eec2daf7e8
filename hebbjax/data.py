"""Image data sets as two arrays.

`digits` comes embedded in scikit-learn. The others are read from what tensorflow-datasets has prepared on disk, through
its `data_source`, which needs no TensorFlow. `hebbjax.prepare` makes such a directory.
"""

import contextlib
import logging
import math
import os
import pathlib
import shlex
import zlib
from typing import NamedTuple

import numpy as np

from hebbjax import checks
from hebbjax.checks import check_images

__all__ = ['NAMES', 'Split', 'check_images', 'digest', 'load', 'split_validation']
NAMES = ('digits', 'mnist', 'fashion_mnist', 'cifar10')


class Split(NamedTuple):
    """One split of a data set, in its order on disk."""

    images: np.ndarray  # [n, H, W, C] uint8
    labels: np.ndarray  # [n] int32, classes 0 .. K - 1


def load(name, split='train', *, data_dir=None) -> Split:
    """Load one split into memory, decoded, in an order that is always the same.

    digits: 1797 handwritten digits of 8 x 8, grey values 0..16 stretched to 0..255. They are stored roughly writer by
    writer: the first 1200 are 'train' and the last 597 'test', which keeps most writers on one side.

    Args:
      name: one of `NAMES`.
      split: 'train' or 'test'.
      data_dir: directory of prepared data sets, see `data_dir_of`; digits needs none.

    Raises:
      ValueError: for an unknown name or split, and for files that are damaged or in a format only TensorFlow reads.
      FileNotFoundError: if the data set is not prepared in the directory.
      PermissionError, NotADirectoryError: if the directory cannot be looked into.
    """
    check_name(name)
    if split not in ('train', 'test'):
        raise ValueError(f"unknown split {split!r} of {name}; wanted 'train' or 'test'")
    return _digits(split) if name == 'digits' else _prepared(name, split, data_dir)


def data_dir_of(data_dir=None) -> pathlib.Path:
    """Resolve the data directory: the argument, then HEBBJAX_DATA_DIR, then TFDS_DATA_DIR, then ~/tensorflow_datasets.

    Args:
      data_dir: path or None. What is empty counts as unset, here and in the environment.
    """
    environment = os.environ.get('HEBBJAX_DATA_DIR') or os.environ.get('TFDS_DATA_DIR')
    return pathlib.Path(data_dir or environment or '~/tensorflow_datasets').expanduser()


def split_validation(labels, fraction, seed) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a part of the training set, every class in proportion; the same for the same seed.

    Args:
      labels: [n] class of each image.
      fraction: share held out, strictly between 0 and 1; ceil(fraction * n) images.
      seed: int that decides which images.

    Returns:
      Indices to train on and indices to validate on, each ascending, int64.

    Raises:
      ValueError: for a fraction outside (0, 1), a seed that is no whole number, labels of another shape, or if the set
        is too small to be split by class.
    """
    from sklearn.model_selection import train_test_split

    labels = checks.on_host('labels', labels)
    if labels.ndim != 1:
        raise ValueError(f'labels are one class for each image, [n], not an array of shape {labels.shape}.')
    if checks.misfits(fraction, lambda share: 0 < share < 1):
        raise ValueError(f'validation fraction must lie strictly between 0 and 1, got {checks.shown(fraction)}')
    if not checks.is_count(seed, 0):
        raise ValueError(f'a seed of {checks.shown(seed)} decides nothing; use a whole number, 0 or more.')
    counts = np.unique(labels, return_counts=True)[1]
    held = math.ceil(fraction * len(labels))
    if len(labels) < 2 or min(counts) < 2 or min(held, len(labels) - held) < len(counts):
        raise ValueError(
            f'{len(labels)} images of {len(counts)} classes are too few to hold out a fraction of {fraction}: '
            f'each class needs 2 images, and each side as many images as there are classes'
        )
    sides = train_test_split(np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed)
    return np.sort(sides[0]), np.sort(sides[1])


def digest(*parts) -> str:
    """Tell these arrays, images and labels, from others: a checksum of each."""
    return ' '.join(f'{zlib.crc32(np.ascontiguousarray(part)):08x}' for part in parts)


def check_name(name):
    """Refuse a data set that hebbjax does not know."""
    if name not in NAMES:
        raise ValueError(f'unknown data set {name!r}; choose one of {", ".join(NAMES)}')


def command_of(name, data_dir=None) -> str:
    """Spell the command that prepares a data set, as an error sentence tells it."""
    return f'hebbjax data {name}' + (f' --data-dir {shlex.quote(str(data_dir))}' if data_dir else '')


def open_builder(name, directory):
    """Return the tensorflow-datasets builder of `name` in `directory`, prepared or not; nothing is made or fetched.

    Raises:
      PermissionError, NotADirectoryError: if the directory cannot be looked into.
      ValueError: if what is there is damaged or not array_record.
    """
    for path in (directory, directory / name):  # tensorflow-datasets takes what it may not read for empty
        try:
            os.listdir(path)
        except FileNotFoundError:
            break
        except NotADirectoryError:
            raise NotADirectoryError(f'{path} is not a directory; choose another --data-dir') from None
        except PermissionError:
            raise PermissionError(f'{path} may not be read; change its permissions or choose another one') from None
    with quiet(), _damaged(name, directory, directory / name):
        for file in (directory / name).glob('*/*'):
            if file.exists() and not (file.is_file() or file.is_dir()):  # a pipe would be waited for, for ever
                raise ValueError(f'{file.name} is no regular file')
        import tensorflow_datasets as tfds

        # Without file_format: to name one that differs from what is on disk is an error there.
        builder = tfds.builder(name, data_dir=directory)
        found = builder.info.file_format if builder.is_prepared() else None
    if found and found.value != 'array_record':
        raise ValueError(
            f'{builder.data_dir} holds {found.value} files, which cannot be read without TensorFlow; '
            f'run `{command_of(name, "DIR")}` with another directory, which prepares array_record files'
        )
    return builder


@contextlib.contextmanager
def quiet():
    """Keep tensorflow-datasets' advice (OpenCV would be faster, no dataset_info.json yet) out of the user's sight."""
    from absl import logging as absl_logging

    def severe(record):
        return record.levelno > logging.WARNING

    logger = absl_logging.get_absl_logger()
    logger.addFilter(severe)
    try:
        yield
    finally:
        logger.removeFilter(severe)


def _digits(split):
    from sklearn.datasets import load_digits

    digits = load_digits()
    part = slice(None, 1200) if split == 'train' else slice(1200, None)
    images = np.rint(digits.images[part, :, :, None] * (255 / 16)).astype(np.uint8)  # [n, 8, 8, 1]
    return Split(images, digits.target[part].astype(np.int32))


def _prepared(name, split, data_dir):
    directory = data_dir_of(data_dir)
    builder = open_builder(name, directory)
    with quiet():
        prepared = builder.is_prepared()
    if not prepared:
        what = f'{name} is not prepared in {directory}' if directory.exists() else f'there is no directory {directory}'
        raise FileNotFoundError(
            f'{what} (taken from --data-dir, then HEBBJAX_DATA_DIR, then TFDS_DATA_DIR, then ~/tensorflow_datasets); '
            f'run `{command_of(name, data_dir)}` on a machine with network, or use digits, which needs no files'
        )
    with quiet(), _damaged(name, directory, builder.data_dir):
        source = builder.as_data_source(split=split)
        examples = source.__getitems__(range(len(source)))  # one batched read: 3 times as fast as source[i]
        images = np.stack([example['image'] for example in examples])
        return Split(images, np.array([example['label'] for example in examples], np.int32))


@contextlib.contextmanager
def _damaged(name, directory, target):
    """Turn whatever array_record, protobuf or an image decoder says about a bad file into one sentence."""
    try:
        yield
    except (ImportError, MemoryError):  # not the files' fault
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip('.')
        raise ValueError(
            f'{target} cannot be read ({reason}); if its files are damaged or incomplete, delete it and run '
            f'`{command_of(name, directory)}`, or copy it again'
        ) from error
