"""Files of arrays (.npz, .npy) and tables of pixels (.csv, .parquet), a row for each image."""

import contextlib
import csv
import math
import os
from collections.abc import Iterator, Mapping

import numpy as np

from hebbjax.data.forms import KEYS, Reading, assemble, check_part, find_key, number_labels, to_numpy
from hebbjax.support.checks import check_count, require, show
from hebbjax.support.files import reading

_ANEW = 'write it anew with numpy.savez(file, images=images, labels=labels)'
_PARTS = {'train': 'train', 'training': 'train', 'test': 'test', 'testing': 'test', 'val': 'val', 'valid': 'val'}
_PARTS |= {'validation': 'val'}


@contextlib.contextmanager
def opening_arrays(source: str | os.PathLike | Mapping) -> Iterator[Mapping]:
    """Open an .npz, or an .npy as images alone; what is a mapping already stays. Nothing is ever unpickled."""
    if isinstance(source, Mapping):
        yield source
        return
    with contextlib.ExitStack() as stack:
        with reading(source, _ANEW):
            entries = np.load(stack.enter_context(open(source, 'rb')), allow_pickle=False)
            entries = {'images': entries} if isinstance(entries, np.ndarray) else stack.enter_context(entries)
        names = [*entries]
        twice = [name for name in names if names.count(name) > 1]
        require(not twice, f'{source} holds {show(twice[:1])[1:-1]} twice; write each array once.')
        yield entries


def splits_of_arrays(names, images_key=None, labels_key=None) -> dict[str, tuple[str, str | None]]:
    """Find the entries of images and labels in each split by their names, such as images, x_train, test_labels."""
    groups = {}
    for name in names:
        words = str(name).lower().split('_')
        part = next((_PARTS[word] for word in words if word in _PARTS), None)
        bare = '_'.join(word for word in words if word not in _PARTS)
        groups.setdefault(part, {}).setdefault(bare, name)
    require('' not in groups.get('train', ()), "these are splits; give one of them, such as source['train'].")
    if images_key is not None or labels_key is not None:
        names = [*names]
        images = find_key('images', names, images_key)
        rest = [name for name in names if name != images]
        return {'train': (images, find_key('labels', rest, labels_key, needed=False))}
    training = 'train' if 'train' in groups else None
    found = {'train': _find_pair(groups.get(training, {}))}
    if training and set(groups.get('test', ())) & {*KEYS['images']}:
        found['test'] = _find_pair(groups['test'])
    return found


def read_mapping(
    source: str | os.PathLike | Mapping, split='train', *, images_key=None, labels_key=None, shape=None, **how
) -> Reading:
    """Read an .npz, an .npy or a mapping of arrays; names of classes are numbered as those of training sort."""
    where, notes = 'the mapping' if isinstance(source, Mapping) else os.fspath(source), []
    with opening_arrays(source) as entries:
        parts = splits_of_arrays(entries, images_key, labels_key)
        check_part(split, [*parts], where)
        used = {key for keys in parts.values() for key in keys}
        if unused := [str(name) for name in entries if name not in used]:
            notes.append(f'{", ".join(unused[:5])} of {where} {"were" if len(unused) > 1 else "was"} left out.')
        read = lambda key: None if key is None else to_numpy(entries[key])  # noqa: E731
        with contextlib.nullcontext() if isinstance(source, Mapping) else reading(where, _ANEW):
            images, labels = map(read, parts[split])
            trained = read(parts['train'][1]) if split == 'test' and labels is not None else labels
    is_named = labels is not None and trained is not None and labels.dtype.kind in 'USO'
    classes = number_labels(trained)[1] if is_named else ()
    return assemble(to_shape(images, shape, where, notes), labels, classes, notes, **how)


def read_table(path: str | os.PathLike, *, labels_key=None, shape=None, **how) -> Reading:
    """Read a table, a row for each image: a column of labels, found by its name or named, and pixels in their order.

    A .csv without a line of names has labels first, if there is a column more than pixels.
    """
    way = 'columns of pixels hold numbers: name that of the labels by labels_key, and leave out all others'
    blocks, labels, notes, seen = [], [], [], 0
    with reading(path, way):
        names, label, batches = (
            _open_parquet(path, labels_key) if _is_parquet(path) else _open_csv(path, labels_key, shape)
        )
        pixels = [name for name in names if name != label]
        for batch in batches:
            block = np.empty((batch.num_rows, len(pixels)), np.float32)
            for column, name in enumerate(pixels):
                block[:, column] = batch.column(name).to_numpy(zero_copy_only=False)
            lacking = ~np.isfinite(block).all(1)
            require(not lacking.any(), f'row {seen + lacking.argmax() + 1} lacks values')
            blocks.append(_narrow(block))
            labels += [] if label is None else batch.column(label).to_pylist()
            seen += batch.num_rows
        require(seen > 0, 'it has no rows')
        require(not {None, ''} & {*labels}, 'a row has no label')
    how_found = 'were read as labels' if label is not None else 'no column was taken for labels'
    notes.append(f'column {label!r} holds the labels.' if label is not None else f'{how_found}; name it by labels_key.')
    images = np.concatenate(blocks)
    images = to_shape(images, shape, os.fspath(path), notes)
    return assemble(images, _as_numbers(labels) if label is not None else None, (), notes, is_typed=False, **how)


def to_shape(images: np.ndarray, shape, where: str, notes: list[str]) -> np.ndarray:
    """Give rows of pixels [n, D] as images of a shape, or of a square where D is one; images pass."""
    if shape is None and images.ndim != 2:
        return images
    count = images.shape[1] if images.ndim == 2 else math.prod(images.shape[1:])
    if shape is None:
        side = math.isqrt(count)
        fits = side**2 == count > 1
        require(fits, f'rows of {where} hold {count} values, which make no grey square; give shape=(H, W, C).')
        notes.append(f'rows of {count} values were taken for grey images of {side} x {side}.')
        shape = side, side
    sizes = tuple(shape) if isinstance(shape, tuple | list) else ()
    require(len(sizes) in (2, 3), f'shape={show(shape)} is out of range; use (H, W) or (H, W, C).')
    for size in sizes:
        check_count('shape', size)
    way = 'give another shape, or leave out columns that are no pixels'
    require(math.prod(sizes) == count, f'images of {where} hold {count} values, which do not make {sizes}; {way}.')
    return images.reshape(-1, *sizes)


def _find_pair(group) -> tuple[str, str | None]:
    names = [*group]
    keys = find_key('images', names), find_key('labels', names, needed=False)
    return tuple(group.get(key) for key in keys)


def _is_parquet(path) -> bool:
    return os.fspath(path).lower().endswith('.parquet')


def _open_parquet(path, labels_key) -> tuple[list[str], str | None, Iterator]:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    names = file.schema_arrow.names
    return names, find_key('labels', names, labels_key, needed=False), file.iter_batches(1024)


def _open_csv(path, labels_key, shape) -> tuple[list[str], str | None, Iterator]:
    import pyarrow
    import pyarrow.csv

    with open(path, encoding='utf-8-sig', newline='') as file:
        names = [name.strip() for name in next(csv.reader(file), [])]
    has_names = not all(map(_is_number, names))
    if has_names:
        label = find_key('labels', names, labels_key, needed=False)
    else:
        count = math.prod(shape) if shape else math.isqrt(len(names) - 1) ** 2
        names = [*map(str, range(len(names)))]
        label = '0' if len(names) == count + 1 else None
        label = find_key('labels', names, labels_key) if labels_key is not None else label
    twice = [name for name in names if names.count(name) > 1] if len({*names}) < len(names) else []
    require(not twice, f'the column {show(twice[:1])[1:-1]} is there twice')
    types = {name: pyarrow.string() if name == label else pyarrow.float32() for name in names}
    read = pyarrow.csv.ReadOptions(column_names=names, skip_rows=int(has_names))
    return names, label, pyarrow.csv.open_csv(path, read, None, pyarrow.csv.ConvertOptions(column_types=types))


def _is_number(text) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _narrow(block: np.ndarray) -> np.ndarray:
    """Give whole numbers of one or two bytes as such, so that little memory is taken."""
    low, high = block.min(initial=0), block.max(initial=0)
    is_whole = low >= 0 and high <= 65535 and (block == np.rint(block)).all()
    return block.astype(np.uint8 if high <= 255 else np.uint16) if is_whole else block


def _as_numbers(labels: list) -> np.ndarray:
    """Read labels as numbers, if all are."""
    if all(not isinstance(label, str) or _is_number(label) for label in labels):
        return (
            np.array(labels).astype(np.float64).astype(np.int64)
            if all(float(x).is_integer() for x in labels)
            else np.array(labels, float)
        )
    return np.array(labels)
