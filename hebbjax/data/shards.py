"""Data sets that do not fit memory, in equal parts: files that are read in part, folders, and whatever has numbers."""

import dataclasses
import inspect
import logging
import math
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hebbjax.base import AnyPath
from hebbjax.data import datasets, folders, tables
from hebbjax.data.forms import TAKEN, Reading, check_part, number_labels, spell, to_numpy
from hebbjax.support.checks import check_count, require
from hebbjax.support.files import quiet_absl, reading
from hebbjax.support.shards import Shards

TOGETHER = 256  # examples that are asked for at once, where that is faster
_logger = logging.getLogger('hebbjax')


def open_shards(
    source: Any, images_per_part: int | None = None, *, labels: Any = None, split: str = 'train',
    data_dir: AnyPath | None = None, **how: Any,
) -> Shards:  # fmt: skip
    """Open a data set that does not fit memory, in parts that are each read when their turn comes.

    Args:
        source: a list of parts, each what `read` takes, such as a file, or a function of no arguments that gives it.
            Or one data set to be cut. Of a .npy file, an .npz of `numpy.savez`, an array of any kind that is read by
            slices (`numpy.memmap`, h5py), and (images, labels), parts are runs, so classes should lie mixed. Of a
            folder, of anything with `len` and indices, and of a name, images are dealt to parts in turn.
        images_per_part: of one data set; two parts lie in memory at once. Those left over sit out, which is logged.
        labels: of one data set, all of them, where it has none of its own.
        split, data_dir: as in `load`.
        how: settings of `read`.

    Example:
        >>> shards = open_shards((np.zeros((100, 8, 8), np.uint8), np.arange(100) % 3), 30)
        >>> len(shards), shards.shape, shards[0].labels[:4].tolist()
        (3, (90, 8, 8, 1), [0, 1, 2, 0])
    """
    inspect.signature(datasets.read).bind(source, **how)  # a misspelt setting is refused at once
    if isinstance(source, list):
        fits = source and images_per_part is None and labels is None
        require(fits, 'a list holds parts, one or more, as they are; leave images_per_part and labels out.')
        return Shards(lambda number: _read(source[number], how, split=split, data_dir=data_dir), len(source))
    check_count('images_per_part', images_per_part)
    opened = _open(source, labels, split, data_dir, how)
    per, count = images_per_part, opened.total // images_per_part
    require(count, f'{opened.total} images make no part of {per}; use images_per_part <= {opened.total}.')
    if left := opened.total % per:
        _logger.info(f'{opened.total} images make {count} parts of {per}, and the last {left} sit out.')
    how = {name: value for name, value in how.items() if opened.is_dealt or not name.endswith('_key')}

    def read(number: int) -> Reading:
        rows = slice(number, per * count, count) if opened.is_dealt else slice(number * per, (number + 1) * per)
        made = _read(opened.pick(rows), how)
        return made._replace(classes=opened.classes or made.classes)

    return Shards(read, count, opened.class_count)


def _read(source, how, **where) -> Reading:
    """Read a part as `datasets.read` does, but for this: one part must not guess what is white in all of them."""
    made = datasets.read(source() if callable(source) else source, **how, **where)
    guessed = made.images.dtype.kind == 'f' and any(TAKEN in note and f' 1 {TAKEN}' not in note for note in made.notes)
    require('white' in how or not guessed, 'its floats go beyond 1; give white=255, or what else is white in all parts')
    return made


class _Opened(NamedTuple):
    """A data set that is to be cut."""

    total: int
    pick: Callable[[slice], Any]  # rows -> what `datasets.read` takes
    classes: tuple[str, ...] = ()
    class_count: int | None = None
    is_dealt: bool = True  # rows that lie far apart are read as fast as a run


def _open(source, labels, split, data_dir, how) -> _Opened:
    """Find out how much there is, and how some of it is read; of an array all labels, which are small, at once."""
    kind, source = datasets.recognise(source)
    where, classes = spell(source), ()
    strange = ', '.join({*how} - {*datasets.FITS[kind], 'resize', *(['shape'] if kind == 'examples' else [])})
    require(not strange, f'{strange} says nothing about {where}; leave it out.')
    require(not how.get('skip_unreadable'), 'skip_unreadable makes unequal parts; delete what it would leave out.')
    require(kind != 'table', f'{where} cannot be read in parts; write it as .npy, or give a list of smaller files.')
    if kind == 'folder':
        require(labels is None, 'pictures of a folder have the labels of their subfolders; leave labels out.')
        listing = folders.list_folder(source, split)
        return _Opened(listing.total, lambda rows: listing._replace(rows=rows), listing.classes)
    if kind == 'named' and source != 'digits':
        source, builder = datasets.open_prepared(source, split, data_dir)
        own, classes = None, tuple(builder.info.features['label'].names)
    elif kind == 'examples':
        check_part(split, ('train',), where)
        source, own = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    else:
        source, own, classes = _open_arrays(kind, source, where, split, **how)
    require(labels is None or own is None, 'images come with labels of their own; leave out the others.')
    labels, total, class_count = own if labels is None else labels, len(source), None
    if labels is not None:
        labels, classes = number_labels(labels, classes)
        require(len(labels) == total, f'{len(labels)} labels do not fit {total} images; give one for each.')
        class_count = int(labels.max(initial=0)) + 1
    if not hasattr(source, 'ndim'):
        rows_of = lambda rows: _Examples(source, range(total)[rows])  # noqa: E731
        pick = rows_of if labels is None else lambda rows: (rows_of(rows), labels[rows])
        return _Opened(total, pick, classes, class_count)
    if class_count not in (None, 1) and (np.diff(labels) >= 0).all():
        warnings.warn(f'{where} is sorted by class, so its parts hold few classes each; shuffle it once.', stacklevel=3)
    arrays = {'images': source} if labels is None else {'images': source, 'labels': labels}
    pick = lambda rows: {name: to_numpy(array[rows]) for name, array in arrays.items()}  # noqa: E731
    return _Opened(total, pick, classes, class_count, is_dealt=False)


def _open_arrays(kind, source, where, split, images_key=None, labels_key=None, **how) -> tuple[Any, Any, tuple]:
    """Open a mapping of arrays, a .npy or an .npz. -> images, labels or None, names of classes."""
    if kind == 'named':
        return datasets.read(source, split)[:3]
    if kind == 'mapping' and str(where).lower().endswith('.npy') and isinstance(source, str):
        check_part(split, ('train',), where)
        return _map(source), None, ()
    with tables.opening_arrays(source) as entries:
        parts = tables.splits_of_arrays(entries, images_key, labels_key)
        check_part(split, [*parts], where)
        (images, labels), trained = parts[split], parts['train'][1]
        with reading(where, 'write it anew with numpy.savez'):
            labels, trained = (None if key is None else to_numpy(entries[key]) for key in (labels, trained))
    classes = () if labels is None or trained is None else number_labels(trained)[1]
    return source[images] if isinstance(source, Mapping) else _map(source, f'{images}.npy'), labels, classes


@dataclasses.dataclass(frozen=True)
class _Mapped:
    """An array in a file, of which only those rows are mapped into memory that are asked for."""

    path: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        offset = self.offset + start * self.dtype.itemsize * math.prod(self.shape[1:])
        return np.memmap(self.path, self.dtype, 'r', offset, (stop - start, *self.shape[1:]))


def _map(path: str, entry: str | None = None) -> _Mapped:
    """Find an array in a .npy file, or as an entry of an .npz that is not compressed."""
    with reading(spell(path), 'write it anew with numpy.save or numpy.savez'), open(path, 'rb') as file:
        if entry is not None:
            info = zipfile.ZipFile(file).getinfo(entry)
            require(info.compress_type == zipfile.ZIP_STORED, 'it is compressed, so no part of it can be read alone')
            file.seek(info.header_offset + 26)  # of the entry's own header: how long are its name, and what follows?
            file.seek(info.header_offset + 30 + sum(struct.unpack('<HH', file.read(4))))
        version, _ = np.lib.format.read_magic(file)
        shape, is_fortran, dtype = getattr(np.lib.format, f'read_array_header_{version}_0')(file)
        require(shape and not is_fortran and not dtype.hasobject, 'it holds no rows of numbers that follow each other')
        return _Mapped(path, dtype, shape, file.tell())


class _Examples:
    """Some of a data set's examples, many at a time of one that gives many at once."""

    def __init__(self, examples, rows: range):
        self._examples, self._rows, self._block = examples, rows, (None, ())
        names = (name for name in ('features', 'classes') if hasattr(examples, name))
        self.__dict__.update({name: getattr(examples, name) for name in names})

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        if not hasattr(self._examples, '__getitems__'):
            return self._examples[self._rows[index]]
        number, within = divmod(index, TOGETHER)
        if self._block[0] != number:
            rows = self._rows[number * TOGETHER : (number + 1) * TOGETHER]
            with quiet_absl(logging.WARNING):  # tensorflow-datasets' advice
                self._block = number, self._examples.__getitems__([*rows])
        return self._block[1][within]
