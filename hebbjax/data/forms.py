"""The forms of images and labels, made one: [n, H, W, C] whose type says what white is, and classes 0 .. K - 1.

Folders, files and arrays are read by their own modules as `Found`; all of it ends here, in `assemble`.
"""

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hebbjax.data import pictures
from hebbjax.support import checks
from hebbjax.support.checks import require, show

KEYS = {
    'images': ('images', 'image', 'imgs', 'img', 'x', 'data', 'pixels', 'pixel_values', 'arr_0'),
    'labels': ('labels', 'label', 'classes', 'class', 'targets', 'target', 'y', 'arr_1'),
}
"""Names that entries, columns and fields of examples go by, in any case."""

_WHITES = {np.dtype(bool): 1, np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}  # of types that tell it
_HINT = 'give white='
TAKEN = 'was taken for white'


class Found(NamedTuple):
    """What a source holds, before it is made one with the others."""

    images: np.ndarray  # [n, H, W, C], any numbers
    labels: Any = None  # in any form, or None
    classes: tuple[str, ...] = ()
    is_typed: bool = True  # whether uint8 and uint16 were chosen as such, and do not merely hold small numbers


class Reading(NamedTuple):
    """A split, and what is to be said of it."""

    images: np.ndarray  # as in `Split`
    labels: Any
    classes: tuple[str, ...]  # names of the classes 0 .. K - 1; () where they are unknown
    notes: tuple[str, ...]  # a sentence each: what was found and what was made of it


def assemble(found: Found, notes: Sequence[str], *, white=None, resize=None) -> Reading:
    """Make what was found a `Reading`: white known, sizes as asked for, classes numbered, all checked."""
    notes, labels, classes = [*notes], found.labels, found.classes
    images = np.ascontiguousarray(scale(found.images, white, notes, found.is_typed))
    if resize is not None and resize != images.shape[1:3]:
        images = pictures.gather(((str(index), pixels) for index, pixels in enumerate(images)), len(images), resize)
    checks.check_images(images)
    n, h, w, c = images.shape
    count, kind = 'no labels', {1: 'grey', 3: 'RGB'}.get(c, f'{c} channels')
    if labels is not None:
        labels, classes = number_labels(labels, classes)
        require(len(labels) == n, f'{len(labels)} labels do not fit {n} images; give one for each.')
        number = len(classes) or labels.max() + 1
        count = f'{number} class{"" if number == 1 else "es"}'
    summary = f'{n} images of {h} x {w}, {kind}, {images.dtype}; {count}.'
    return Reading(images, labels, () if labels is None else classes, (summary, *notes))


def spell(source: Any) -> str:
    """Spell a path on one line that can be printed, whatever bytes it is of; of other sources the kind."""
    path = source if isinstance(source, str | os.PathLike) else f'this {type(source).__name__}'
    return ' '.join(os.fsencode(path).decode(errors='replace').split())


def check_part(split: str, parts: Sequence[str], source: str) -> None:
    """Refuse a split that a source does not have."""
    way = 'hold images out with data.split_validation'
    require(split in parts, f'{source} has no {split} part, and gives all its images as train; {way}.')


def part_of(part: tuple[int, int] | None, count: int = 2**31) -> slice:
    """Say which of so many images are part i of n: the i-th and every n-th after it, equally many in each of the n; of
    those left over none is in any. None: all of them.

    Example:
        >>> [*range(8)][part_of((1, 3), 8)]
        [1, 4]
    """
    if part is None:
        return slice(count)
    fits = isinstance(part, tuple | list) and len(part) == 2 and all(map(checks.is_count, part, (0, 1)))
    way = 'give (i, n), such as (jax.process_index(), jax.process_count())'
    require(fits and part[0] < part[1], f'part={show(part)} is none of 0 to n - 1 of n parts; {way}.')
    require(part[1] <= count, f'{count} images do not make {part[1]} parts; use fewer.')
    return slice(part[0], count // part[1] * part[1], part[1])


def find_keys(names: Iterable[str], images_key: str | None = None, labels_key: str | None = None) -> tuple[Any, Any]:
    """Find the entries or fields of images and of labels, see `find_key`."""
    names = [*names]
    images = find_key('images', names, images_key)
    return images, find_key('labels', [name for name in names if name != images], labels_key, needed=False)


def find_key(what: str, names: Sequence[str], given: str | None = None, needed: bool = True) -> str | None:
    """Find the entry or column of 'images' or 'labels' by its name, or by the one given; None: there is none."""
    setting = f'{what}_key'
    if given is not None:
        checks.check_choice(setting, given, names)
        return given
    found = [name for name in names if str(name).lower() in KEYS[what]]
    shown = ', '.join(map(str, [*names][:8]))
    require(len(found) < 2, f'{", ".join(map(str, found))} may all be {what}; name one by {setting}.')
    require(found or not needed, f'there are no {what} by name among {shown or "no entries"}; name them by {setting}.')
    return found[0] if found else None


def to_numpy(value) -> np.ndarray:
    """Give what jax, torch or a list holds as a numpy array, wherever it lies, without importing either."""
    for way in ('detach', 'cpu'):  # of torch's tensors, which may have gradients and lie on another device
        value = getattr(value, way)() if callable(getattr(value, way, None)) else value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = ' '.join(str(error).split())[:150].rstrip('.')
        raise ValueError(f'{type(value).__name__} cannot be made an array ({reason}); give numpy arrays.') from None
    kind = np.float32 if array.dtype.name in ('bfloat16', 'float16', 'float64') else array.dtype.newbyteorder('=')
    return array.astype(kind, copy=False)


def to_nhwc(images: np.ndarray, channels_first: bool | None, notes: list[str]) -> np.ndarray:
    """Give images [n, H, W], [n, H, W, C] or [n, C, H, W] as [n, H, W, C].

    Channels are first where that is said, or where axis 1 is 1 or 3 and the last is longer than 4.
    """
    is_told = channels_first is None or isinstance(channels_first, bool)
    require(is_told, f'channels_first={show(channels_first)} is unknown; give True or False, or leave it out.')
    shape = images.shape
    way = 'give [n, H, W], [n, H, W, C] or [n, C, H, W]; rows of pixels by reshape(-1, H, W, C)'
    require(images.ndim in (3, 4) and 0 not in shape, f'images of shape {shape} are none; {way}.')
    if images.ndim == 3:
        way = 'write images[None], or images[..., None] where these are many narrow ones'
        require(shape[2] not in (1, 3, 4), f'images of shape {shape} look like one image [H, W, C]; {way}.')
        return images[..., None]
    is_first = channels_first is None and shape[1] in (1, 3) and shape[3] > 4
    if is_first:
        notes.append(f'{shape[1]} in images [n, {", ".join(map(str, shape[1:]))}] was taken for their channels.')
    return images.transpose(0, 2, 3, 1) if channels_first or is_first else images


def scale(images: np.ndarray, white: float | None, notes: list[str], is_typed: bool = True) -> np.ndarray:
    """Give images as uint8, uint16, bool or float32 whose type says what white is; 1 of floats.

    A range 0..1, 0..255 or 0..65535 is recognised where the upper half of it is reached; floats up to 10, and those
    that go below 0, are taken as they are.

    Args:
        white: the value that is white, where it is another than that.
        is_typed: as in `Found`.
    """
    kind, name = images.dtype.kind, images.dtype.name if is_typed else 'numbers'
    way = 'give uint8 (0-255), uint16, bool or floats (0-1)'
    require(kind in 'buif', f'images are numbers, not {images.dtype}; {way}.')
    low, high = float(images.min()), float(images.max())
    own = _WHITES.get(images.dtype) if is_typed else None
    if white is not None:
        checks.check_number('white', white, above=0)
    elif own or not math.isfinite(low + high):  # the latter are refused at the door
        if kind == 'u' and 0 < high < own / 2:
            notes.append(f'images of {name} reach {high:g} of {own}; if {high:g} is white, {_HINT}{high:g}.')
        return images
    else:
        white = _recognise(low, high, kind == 'f', name)
        notes.append(f'images of {name} run from {low:g} to {high:g}, and {white} {TAKEN}; if it is another, {_HINT}.')
        if kind != 'f':
            return images.astype({white: dtype for dtype, white in _WHITES.items()}[white], copy=False)
    if white == (own or (kind == 'f' and 1)):
        return images.astype(np.float32, copy=False) if kind == 'f' else images
    return np.divide(images, white, dtype=np.float32)


def number_labels(labels, names: Sequence[str] = ()) -> tuple[np.ndarray, tuple[str, ...]]:
    """Give labels [n] as int32, and the names of classes: `names` if there are, else the names found, sorted.

    Whole numbers, columns [n, 1] and one-hot rows keep their numbers; names that are all whole numbers sort as such.
    """
    labels = to_numpy(labels)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    labels = np.char.decode(labels, errors='replace') if labels.dtype.kind == 'S' else labels
    if labels.dtype.kind == 'O' and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)  # of tables
    if labels.dtype.kind not in 'US':
        labels = np.asarray(checks.check_labels(labels, len(names) or None))
        highest = labels.max(initial=0)
        require(highest < 2**31 - 1, f'labels run to {highest}, which are no classes; number them from 0.')
        return labels.astype(np.int32), tuple(names)
    require(labels.ndim == 1, f'labels are one name for each image, [n], not of shape {labels.shape}.')
    found = set(labels.astype(str).tolist())
    classes = tuple(names) or tuple(sort_names(found))
    strange = sorted(found - {*classes})
    what = f'class {show(strange[:1])[1:-1]} is not among the {len(classes)} that training has'
    require(not strange, f'{what}; rename it, or make it one set.')
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[label] for label in labels.astype(str).tolist()], np.int32), classes


def sort_names(names) -> list[str]:
    """Sort names of classes: as numbers where all are whole numbers, so that 10 comes after 9, else as text."""
    return sorted(names, key=lambda name: (int(name), name)) if all(map(str.isdecimal, names)) else sorted(names)


def _recognise(low, high, is_float, name) -> int:
    if is_float and (low < 0 or high <= checks.BRIGHT):
        return 1
    white = next((white for white in _WHITES.values() if high <= white), 0)
    fits, known = low >= 0 and white >= high > white / 2, high if high > 0 else 255
    require(fits, f'images of {name} run from {low:g} to {high:g} and do not say what white is; {_HINT}{known:g}, say.')
    return white
