"""Image data sets as two arrays: by name, or one's own, from folders, files and arrays.

By name: scikit-learn's digits, and what `download.prepare_dataset` puts on disk, read without TensorFlow.
"""

import contextlib
import functools
import logging
import math
import os
import pathlib
import shlex
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from hebbjax.base import AnyPath
from hebbjax.data import folders, tables
from hebbjax.data.arrays import read_arrays
from hebbjax.data.forms import Found, Reading, assemble, check_part, part_of, spell
from hebbjax.support import checks
from hebbjax.support.files import quiet_absl
from hebbjax.support.shards import Split

PREPARED = ('mnist', 'fashion_mnist', 'cifar10')
NAMES = ('digits', *PREPARED)

FITS = {  # which settings say something about which kind of source
    'named': (),
    'folder': ('white', 'skip_unreadable'),
    'mapping': ('white', 'channels_first', 'shape', 'images_key', 'labels_key'),
    'table': ('white', 'channels_first', 'shape', 'labels_key'),
    'examples': ('white', 'channels_first', 'images_key', 'labels_key'),
}
_SUFFIXES = {'.npz': 'mapping', '.npy': 'mapping', '.csv': 'table', '.parquet': 'table'}


def load(source: Any, split: str = 'train', *, data_dir: AnyPath | None = None, **how: Any) -> Split:
    """Load one split into memory, decoded, in an order that is always the same.

    Args:
        source: one of `NAMES`, or images of one's own, as `read` takes them. digits: 1797 handwritten digits of 8 x 8,
            grey values 0..16 stretched to 0..255; they are stored roughly writer by writer, so the first 1200,
            'train', and the last 597, 'test', share few writers.
        split: 'train' or 'test'; images of one's own without a test part are all 'train'.
        data_dir: directory of prepared data sets, see `data_dir_of`; nothing else needs one.
        how: settings of `read`.

    Example:
        >>> images, labels = load('digits', 'test')
        >>> images.shape, labels[:5].tolist()
        ((597, 8, 8, 1), [7, 7, 3, 5, 1])
    """
    return Split(*read(source, split, data_dir=data_dir, **how)[:2])


def read(
    source: Any, split: str = 'train', *, data_dir: AnyPath | None = None, resize: int | tuple[int, int] | None = None,
    shape: tuple[int, ...] | None = None, images_key: str | None = None, labels_key: str | None = None,
    channels_first: bool | None = None, white: float | None = None, skip_unreadable: bool = False,
    part: tuple[int, int] | None = None,
) -> Reading:  # fmt: skip
    """Load one split, and tell names of classes, and in sentences what was found and what was made of it.

    Args:
        source: one of `NAMES`; a folder, see `folders.read_folder`; an .npz, .npy, .csv or .parquet file, or a mapping
            of arrays, see `tables`; (images, labels), or examples, see `arrays`.
        split, data_dir: as in `load`.
        resize: a side, or (H, W), that images are stretched to.
        shape: (H, W, C) or (H, W) of images that are rows of pixels; left out: squares.
        images_key: the entry that holds images, where its name does not tell.
        labels_key: the entry or column that holds labels.
        channels_first: whether images are [C, H, W]; left out: recognised.
        white: the value that is white; left out: known by types, else recognised, see `forms.scale`.
        skip_unreadable: whether pictures of a folder that cannot be read are left out, and not refused.
        part: (i, n): part i of n of equal size alone, every n-th image, for process i of n; those that are left over
            are in none. Of a folder or a prepared data set the others are not even decoded.

    Example:
        >>> images = np.zeros((2, 3, 8, 8), np.uint8)
        >>> read((images, ['cat', 'dog'])).notes[0]
        '2 images of 8 x 8, RGB, uint8; 2 classes.'
    """
    kind, source = recognise(source)
    part_of(part)
    checks.check_choice('split', split, ('train', 'test'))
    checks.check_flag('skip_unreadable', skip_unreadable)
    if resize is not None:
        sides = resize if isinstance(resize, tuple | list) else (resize,)
        sides = (*sides, *sides) if len(sides) == 1 else sides
        resize = _check_sizes('resize', sides, (2,), 'a side in pixels, or (H, W)')
    if shape is not None:
        shape = _check_sizes('shape', shape, (2, 3), '(H, W) or (H, W, C)')
    how = {'shape': shape, 'images_key': images_key, 'labels_key': labels_key, 'channels_first': channels_first}
    how |= {'white': white, 'skip_unreadable': skip_unreadable or None}
    how = {name: value for name, value in how.items() if value is not None}
    strange = [name for name in how if name not in FITS[kind]]
    checks.require(not strange, f'{", ".join(strange)} says nothing about {spell(source)}; leave it out.')
    checks.require(part is None or not skip_unreadable, 'skip_unreadable makes unequal parts; read all of them.')
    notes, white = [], how.pop('white', None)
    if kind == 'named':
        found = _load_digits(split, part) if source == 'digits' else _load_prepared(source, split, data_dir, part)
        return assemble(found, notes, resize=resize)._replace(notes=())  # nothing had to be recognised
    if kind == 'folder':
        found = folders.read_folder(source, split, notes, resize=resize, part=part, **how)
    elif kind == 'mapping':
        found = tables.read_mapping(source, split, notes, **how)
    else:
        check_part(split, ('train',), spell(source))
        reader = tables.read_table if kind == 'table' else functools.partial(read_arrays, resize=resize)
        found = reader(source, notes, **how)
    reading = assemble(found, notes, white=white, resize=resize)
    if part is None:
        return reading
    if kind == 'folder':
        is_known = white is not None or reading.images.dtype.kind != 'f'
        checks.require(is_known, 'parts of float pictures may differ in what is white; give white=1, or another.')
    else:  # when white and classes are known, which all parts share
        chosen = part_of(part, len(reading.images))
        images, labels = (None if a is None else np.ascontiguousarray(a[chosen]) for a in reading[:2])
        reading = reading._replace(images=images, labels=labels)
    note = f'{len(reading.images)} images are part {part[0]} of {part[1]}, of equal size.'
    return reading._replace(notes=(*reading.notes, note))


def splits_of(source: Any, *, data_dir: AnyPath | None = None, **how: Any) -> tuple[str, ...]:
    """Name the splits that a source has, ('train', 'test') or ('train',); it takes the settings of `read`.

    Example:
        >>> splits_of('digits'), splits_of(np.zeros((2, 8, 8)))
        (('train', 'test'), ('train',))
    """
    kind, source = recognise(source)
    if kind == 'folder':
        return tuple(folders.splits_of_folder(source))
    if kind == 'mapping':
        with tables.opening_arrays(source) as entries:
            return tuple(tables.splits_of_arrays(entries, how.get('images_key'), how.get('labels_key')))
    return ('train', 'test') if kind == 'named' else ('train',)


def recognise(source: Any) -> tuple[str, Any]:
    """Tell what kind of source this is, and where it lies, or refuse what is none."""
    if not isinstance(source, str | os.PathLike):
        kinds = {folders.Listing: 'folder', Mapping: 'mapping', object: 'examples'}
        return next(kind for of, kind in kinds.items() if isinstance(source, of)), source
    path = os.path.expanduser(os.fsdecode(source))
    suffix = os.path.splitext(path)[1].lower()
    is_name = isinstance(source, str) and not os.path.exists(path) and not suffix and os.sep not in path
    if is_name or (isinstance(source, str) and source in NAMES):
        way = f'name one that there is, or one of {", ".join(NAMES)}'
        checks.require(source in NAMES, f'there is no file or folder {checks.show(source)} here; {way}.')
        return 'named', source
    if os.path.isdir(path):
        return 'folder', path
    way = f'name a folder of images, a file {", ".join(_SUFFIXES)}, or one of {", ".join(NAMES)}'
    if not os.path.exists(path):
        raise FileNotFoundError(f'{spell(path)} does not exist; {way}.')
    checks.require(suffix in _SUFFIXES and os.path.isfile(path), f'{spell(path)} is no data set; {way}.')
    return _SUFFIXES[suffix], path


def _check_sizes(name, sizes, counts, words) -> Any:
    fits = isinstance(sizes, tuple | list) and len(sizes) in counts
    checks.require(fits, f'{name}={checks.show(sizes)} is out of range; use {words}.')
    for size in sizes:
        checks.check_count(name, size)
    return tuple(map(int, sizes))


def data_dir_of(data_dir: AnyPath | None = None) -> pathlib.Path:
    """Give the data directory: the argument, else HEBBJAX_DATA_DIR, else TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    environment = os.environ.get('HEBBJAX_DATA_DIR') or os.environ.get('TFDS_DATA_DIR')
    return pathlib.Path(data_dir or environment or '~/tensorflow_datasets').expanduser()


def split_validation(labels: Any, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out ceil(fraction * n) images of a training set, every class in proportion; the same for the same seed.

    labels [n] -> indices to train on and indices to validate on, each ascending, int64.
    """
    from sklearn.model_selection import train_test_split

    way = 'give numpy.zeros(len(images), int) for labels, which holds out any of them'
    checks.require(labels is not None, f'there are no labels to hold classes out by in proportion; {way}.')
    labels = np.asarray(checks.check_labels(labels))
    checks.check_number('fraction', fraction, above=0, below=1)
    images, counts = len(labels), np.unique(labels, return_counts=True)[1]
    held_out = math.ceil(fraction * images)
    fits = min(counts, default=0) >= 2 and min(held_out, images - held_out) >= len(counts)
    what = f'{images} images of {len(counts)} classes are too few to hold out a fraction of {fraction:.3g}'
    checks.require(fits, f'{what}: each class needs 2 images, and each side as many images as there are classes.')
    train, validation = train_test_split(np.arange(images), test_size=fraction, stratify=labels, random_state=seed)
    return np.sort(train), np.sort(validation)


def labelled_subset(labels: Any, per_class: int, seed: int) -> np.ndarray:
    """Draw images of which the labels are known, as many of each class; fewer of one seed are among more.

    labels [n] -> indices [K per_class], ascending, int64.

    Example:
        >>> labelled_subset([0, 0, 1, 0, 1, 1], 2, seed=0).shape
        (4,)
    """
    checks.check_count('per_class', per_class)
    labels = np.asarray(checks.check_labels(labels))
    classes, counts = np.unique(labels, return_counts=True)
    least = counts.min(initial=len(labels))
    few = f'per_class={per_class} is more labels than class {classes[counts.argmin()] if least else 0} has'
    checks.require(per_class <= least, f'{few}; use {least} at most.')
    order = np.random.default_rng(seed).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == one][:per_class] for one in classes]))


def digest(*arrays: Any) -> str:
    """Tell these arrays, images and labels, from others: a checksum of each, but for labels that are None."""
    return ' '.join(f'{zlib.crc32(np.ascontiguousarray(array)):08x}' for array in arrays if array is not None)


def _load_digits(split, part) -> Found:
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = np.arange(1797)[slice(1200) if split == 'train' else slice(1200, None)]
    rows = rows[part_of(part, len(rows))]
    images = np.rint(digits.images[rows, :, :, None] * (255 / 16)).astype(np.uint8)  # [n, 8, 8, 1]
    return Found(images, digits.target[rows].astype(np.int32), tuple(map(str, range(10))))


def _load_prepared(name, split, data_dir, part) -> Found:
    source, builder = open_prepared(name, split, data_dir)
    with calling_tfds(f'{builder.data_dir} cannot be read', name, data_dir_of(data_dir)):
        rows = range(len(source))[part_of(part, len(source))]
        examples = source.__getitems__(rows)  # one batched read: 3 times as fast as source[i]
        images, labels = ([example[part] for example in examples] for part in ('image', 'label'))
        return Found(np.stack(images), np.array(labels, np.int32), tuple(builder.info.features['label'].names))


def open_prepared(name: str, split: str, data_dir: AnyPath | None = None) -> tuple[Any, Any]:
    """Open a split that lies prepared on disk, whose examples are read by their numbers. -> source, builder."""
    directory = data_dir_of(data_dir)
    builder, is_prepared = open_builder(name, directory)
    if not is_prepared:
        where = '--data-dir, else HEBBJAX_DATA_DIR, else TFDS_DATA_DIR, else ~/tensorflow_datasets'
        way = f'run `{command_of(name, data_dir)}` on a machine with network, or use digits'
        raise FileNotFoundError(f'{name} is not prepared in {directory} ({where}); {way}.')
    with calling_tfds(f'{builder.data_dir} cannot be read', name, directory):
        return builder.as_data_source(split=split), builder


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
    try:
        with quiet_absl(logging.WARNING):
            yield
    except (ImportError, MemoryError):  # not the files' fault
        raise
    except Exception as error:
        reason = f'{type(error).__name__}: {error}'.splitlines()[0][:200].rstrip('.: ')
        way = f'delete what is damaged, and run `{command_of(name, directory)}` on a machine with network'
        raise ValueError(f'{trouble} ({reason}); {way}.') from error
