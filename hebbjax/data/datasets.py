"""Image data sets as two arrays, by name: scikit-learn's digits, and what `download.prepare_dataset` puts on disk.

tensorflow-datasets reads that through its `data_source`, which needs no TensorFlow.
"""

import contextlib
import logging
import math
import os
import pathlib
import shlex
import zlib
from typing import Any, NamedTuple

import numpy as np

from hebbjax.support import checks

PREPARED = ('mnist', 'fashion_mnist', 'cifar10')
NAMES = ('digits', *PREPARED)


class Split(NamedTuple):
    """One split of a data set, in its order on disk."""

    images: np.ndarray  # [n, H, W, C] uint8
    labels: np.ndarray  # [n] int32, classes 0 .. K - 1


def load(name: str, split: str = 'train', *, data_dir: str | os.PathLike[str] | None = None) -> Split:
    """Load one split into memory, decoded, in an order that is always the same.

    Args:
        name: one of `NAMES`. digits: 1797 handwritten digits of 8 x 8, grey values 0..16 stretched to 0..255; they are
            stored roughly writer by writer, so the first 1200, 'train', and the last 597, 'test', share few writers.
        split: 'train' or 'test'.
        data_dir: directory of prepared data sets, see `data_dir_of`; digits needs none.

    Example:
        >>> images, labels = load('digits', 'test')
        >>> images.shape, labels[:5].tolist()
        ((597, 8, 8, 1), [7, 7, 3, 5, 1])
    """
    checks.check_choice('dataset', name, NAMES)
    checks.check_choice('split', split, ('train', 'test'))
    return _load_digits(split) if name == 'digits' else _load_prepared(name, split, data_dir)


def data_dir_of(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Give the data directory: the argument, else HEBBJAX_DATA_DIR, else TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    environment = os.environ.get('HEBBJAX_DATA_DIR') or os.environ.get('TFDS_DATA_DIR')
    return pathlib.Path(data_dir or environment or '~/tensorflow_datasets').expanduser()


def split_validation(labels: Any, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out ceil(fraction * n) images of a training set, every class in proportion; the same for the same seed.

    labels [n] -> indices to train on and indices to validate on, each ascending, int64.
    """
    from sklearn.model_selection import train_test_split

    labels = np.asarray(checks.check_labels(labels))
    checks.check_number('fraction', fraction, above=0, below=1)
    images, counts = len(labels), np.unique(labels, return_counts=True)[1]
    held_out = math.ceil(fraction * images)
    fits = min(counts, default=0) >= 2 and min(held_out, images - held_out) >= len(counts)
    what = f'{images} images of {len(counts)} classes are too few to hold out a fraction of {fraction}'
    checks.require(fits, f'{what}: each class needs 2 images, and each side as many images as there are classes.')
    train, validation = train_test_split(np.arange(images), test_size=fraction, stratify=labels, random_state=seed)
    return np.sort(train), np.sort(validation)


def digest(*arrays: Any) -> str:
    """Tell these arrays, images and labels, from others: a checksum of each."""
    return ' '.join(f'{zlib.crc32(np.ascontiguousarray(array)):08x}' for array in arrays)


def _load_digits(split) -> Split:
    from sklearn.datasets import load_digits

    digits = load_digits()
    part = slice(None, 1200) if split == 'train' else slice(1200, None)
    images = np.rint(digits.images[part, :, :, None] * (255 / 16)).astype(np.uint8)  # [n, 8, 8, 1]
    return Split(images, digits.target[part].astype(np.int32))


def _load_prepared(name, split, data_dir) -> Split:
    directory = data_dir_of(data_dir)
    builder, is_prepared = open_builder(name, directory)
    if not is_prepared:
        where = '--data-dir, else HEBBJAX_DATA_DIR, else TFDS_DATA_DIR, else ~/tensorflow_datasets'
        way = f'run `{command_of(name, data_dir)}` on a machine with network, or use digits'
        raise FileNotFoundError(f'{name} is not prepared in {directory} ({where}); {way}.')
    with calling_tfds(f'{builder.data_dir} cannot be read', name, directory):
        source = builder.as_data_source(split=split)
        examples = source.__getitems__(range(len(source)))  # one batched read: 3 times as fast as source[i]
        images, labels = ([example[part] for example in examples] for part in ('image', 'label'))
        return Split(np.stack(images), np.array(labels, np.int32))


def command_of(name: str, data_dir=None) -> str:
    """Spell the command that prepares a data set, as an error sentence tells it."""
    return f'hebbjax data {name}' + (f' --data-dir {shlex.quote(str(data_dir))}' if data_dir else '')


def open_builder(name: str, directory: pathlib.Path):
    """Give the tensorflow-datasets builder of a data set, and whether it is prepared; nothing is made or fetched."""
    with calling_tfds(f'{directory / name} cannot be read', name, directory):
        import tensorflow_datasets as tfds

        builder = tfds.builder(name, data_dir=directory)  # to name a file_format unlike that on disk is an error there
        is_prepared = builder.is_prepared()
    kind, way = builder.info.file_format.value, f'run `{command_of(name, "DIR")}` with another directory'
    fits = kind == 'array_record' or not is_prepared
    checks.require(fits, f'{builder.data_dir} holds {kind} files, which need TensorFlow to be read; {way}.')
    return builder, is_prepared


@contextlib.contextmanager
def calling_tfds(trouble: str, name: str, directory: pathlib.Path):
    """Make one sentence of what tensorflow-datasets raises, `trouble (reason); way out.`, and keep its advice quiet."""
    from absl import logging as absl_logging

    is_severe = lambda record: record.levelno > logging.WARNING  # noqa: E731
    logger = absl_logging.get_absl_logger()
    logger.addFilter(is_severe)
    try:
        yield
    except (ImportError, MemoryError):  # not the files' fault
        raise
    except Exception as error:
        reason = f'{type(error).__name__}: {error}'.splitlines()[0][:200].rstrip('.: ')
        way = f'delete what is damaged, and run `{command_of(name, directory)}` on a machine with network'
        raise ValueError(f'{trouble} ({reason}); {way}.') from error
    finally:
        logger.removeFilter(is_severe)
