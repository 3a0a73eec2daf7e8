"""Files of arrays (.npz, .npy) and tables of pixels (.csv, .parquet), a row for each image."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hebbjax.data.forms import KEYS, Found, check_part, find_key, find_keys, number_labels, spell, to_nhwc, to_numpy
from hebbjax.support.checks import require, show
from hebbjax.support.files import reading

_ANEW = 'write it anew with numpy.savez(file, images=images, labels=labels)'
_PARTS = {'train': 'train', 'training': 'train', 'test': 'test', 'testing': 'test', 'val': 'val', 'valid': 'val'}
_PARTS |= {'validation': 'val'}


@contextlib.contextmanager
def opening_arrays(source: str | Mapping) -> Iterator[Mapping]:
    """Open an .npz, or an .npy as images alone; what is a mapping already stays. Nothing is ever unpickled."""
    if isinstance(source, Mapping):
        yield source
        return
    with contextlib.ExitStack() as stack:
        with reading(spell(source), _ANEW):
            entries = np.load(stack.enter_context(open(source, 'rb')), allow_pickle=False)
            entries = {'images': entries} if isinstance(entries, np.ndarray) else stack.enter_context(entries)
        names = [*entries]
        twice = [name for name in names if names.count(name) > 1]
        require(not twice, f'{spell(source)} holds {show(twice[:1])[1:-1]} twice; write each array once.')
        yield entries


def splits_of_arrays(names, images_key=None, labels_key=None) -> dict[str, tuple[Any, Any]]:
    """Find the entries of images and labels in each split by their names, such as images, x_train, test_labels."""
    groups = {}
    for name in names:
        words = str(name).lower().split('_')
        part = next((_PARTS[word] for word in words if word in _PARTS), None)
        groups.setdefault(part, {}).setdefault('_'.join(word for word in words if word not in _PARTS), name)
    require('' not in groups.get('train', ()), "these are splits; give one of them, such as source['train'].")
    if images_key is not None or labels_key is not None:
        return {'train': find_keys(names, images_key, labels_key)}
    parts = {'train': groups.get('train', groups.get(None, {}))}
    if 'train' in groups and set(groups.get('test', ())) & {*KEYS['images']}:
        parts['test'] = groups['test']
    return {part: tuple(map(group.get, find_keys(group))) for part, group in parts.items()}


def read_mapping(
    source: str | Mapping, split, notes, *, images_key=None, labels_key=None, shape=None, channels_first=None
) -> Found:
    """Read an .npz, an .npy or a mapping of arrays; names of classes are numbered as those of training sort."""
    where = spell(source)
    with opening_arrays(source) as entries:
        parts = splits_of_arrays(entries, images_key, labels_key)
        check_part(split, [*parts], where)
        used = {key for keys in parts.values() for key in keys}
        if unused := [str(name) for name in entries if name not in used]:
            notes.append(f'{", ".join(unused[:5])} of {where} {"were" if len(unused) > 1 else "was"} left out.')
        read = lambda key: None if key is None else to_numpy(entries[key])  # noqa: E731
        with contextlib.nullcontext() if isinstance(source, Mapping) else reading(where, _ANEW):
            images, labels, trained = map(read, (*parts[split], parts['train'][1]))
    classes = () if labels is None or trained is None else number_labels(trained)[1]
    return Found(to_nhwc(to_shape(images, shape, where, notes, channels_first), channels_first, notes), labels, classes)


def read_table(path: str, notes: list[str], *, labels_key=None, shape=None, channels_first=None) -> Found:
    """Read a table, a row for each image: a column of labels, found by its name or named, and pixels in their order.

    A .csv without a line of names has labels first, if there is a column more than pixels; columns are then numbered.
    """
    from pyarrow import csv, float32, parquet, string

    where, is_csv = spell(path), not path.lower().endswith('.parquet')
    way = 'all columns but one of labels, named by labels_key, hold numbers'
    with reading(where, way):
        names = csv.open_csv(path).schema.names if is_csv else parquet.read_schema(path).names
    has_names = not is_csv or not all(map(_is_number, names))
    names = [name.strip() if is_csv else name for name in names] if has_names else [*map(str, range(len(names)))]
    require(len({*names}) == len(names), f'{where} holds columns of the same name; rename them.')
    label = find_key('labels', names, labels_key, needed=False)
    count = math.prod(shape) if shape else math.isqrt(len(names)) ** 2
    label = names[0] if label is None and not has_names and len(names) == 1 + count else label
    pixels, blocks, labels = [name for name in names if name != label], [], []
    with reading(where, way):
        if is_csv:
            types = csv.ConvertOptions(column_types={name: float32() for name in pixels} | {label or '': string()})
            batches = csv.open_csv(path, csv.ReadOptions(column_names=names, skip_rows=int(has_names)), None, types)
        else:
            batches = parquet.ParquetFile(path).iter_batches(1024)
        for batch in batches:
            columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in pixels]
            block = np.stack(columns, 1).astype(np.float32, copy=False)
            lacking = ~np.isfinite(block).all(1)
            require(not lacking.any(), f'row {sum(map(len, blocks)) + lacking.argmax() + 1} lacks values')
            low, high = block.min(initial=0), block.max(initial=0)
            is_whole = low >= 0 and high <= 65535 and (block == np.rint(block)).all()  # take less memory as such
            blocks.append(block.astype(np.uint8 if high <= 255 else np.uint16) if is_whole else block)
            labels += [] if label is None else batch.column(label).to_pylist()
        require(blocks, 'it has no rows')
        require(not {None, ''} & {*labels}, 'a row has no label')
        names_classes = any(isinstance(name, str) and not _is_number(name) for name in labels)
        labels = None if label is None else np.array(labels, None if names_classes else float)
    found = 'no column was taken for labels; name it by labels_key'
    notes.append(f'{found}.' if label is None else f'column {label} was taken for labels.')
    images = to_shape(np.concatenate(blocks), shape, where, notes, channels_first)
    return Found(to_nhwc(images, channels_first, notes), labels, is_typed=False)


def to_shape(images: np.ndarray, shape, where: str, notes: list[str], channels_first: bool | None) -> np.ndarray:
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
    way = 'give another shape, or leave out columns that are no pixels'
    require(math.prod(shape) == count, f'images of {where} hold {count} values, which do not make {shape}; {way}.')
    grey = (1, *shape) if channels_first is True else (*shape, 1)
    return images.reshape(-1, *(grey if len(shape) == 2 else shape))


def _is_number(text) -> bool:
    try:
        return isinstance(float(text.strip() or 'nan'), float)  # a row of pixels may lack some
    except ValueError:
        return False
