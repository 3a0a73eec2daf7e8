"""The door: what comes from outside is met here, and refused by a ValueError of one sentence where it does not fit.

Of what jax is tracing, which has no values yet, shapes and dtypes are checked.
"""

import math
import numbers
import os
import reprlib
import warnings
import weakref
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

BRIGHT = 10.0  # intensities are in [0, 1]; images that are nowhere negative and reach this hold another range
EXTREME = 100.0  # and so do those that reach this on either side, which no normalisation gives

_finite_images = weakref.WeakValueDictionary()  # jax's arrays that passed, by id while they live; they never change
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def require(fits: object, sentence: str) -> None:
    """Refuse what does not fit, in one sentence: what came, what fits and what to do."""
    if not fits:
        raise ValueError(sentence)


def is_traced(value) -> bool:
    """Say whether jax is tracing this value, so that it has none yet, or has parts of it on other hosts."""
    return isinstance(value, jax.core.Tracer) or not getattr(value, 'is_fully_addressable', True)


def is_key(leaf) -> bool:
    """Say whether a leaf of a state is a typed key, or many."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_one_float(outcome) -> bool:
    """Say whether what `jax.eval_shape` foretells is one float."""
    return getattr(outcome, 'shape', None) == () and jnp.issubdtype(outcome.dtype, jnp.floating)


def show(value) -> str:
    """Show a value in a few words, on one line, for a sentence; numbers plainly, all else as Python writes it."""
    return ' '.join((str(value) if isinstance(value, float | np.generic) else _short.repr(value)).split())[:60]


def is_count(value, least: int = 1, most: int = 2**31 - 1) -> bool:
    """Say whether a setting is a whole number from `least` to `most`; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_) and least <= value <= most


def check_number(name: str, value, *, least=-math.inf, above=-math.inf, most=math.inf, below=math.inf) -> None:
    """Refuse a setting that is no finite number within these bounds; a traced one, which has none yet, passes."""
    if is_traced(value):
        return
    try:
        number = float(value) if not isinstance(value, str | bytes | bool | np.bool_) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    bounds = {f'>= {least:g}': number >= least, f'> {above:g}': number > above}
    bounds |= {f'<= {most:g}': number <= most, f'< {below:g}': number < below}
    words = ' and '.join(bound for bound in bounds if 'inf' not in bound)
    fits = math.isfinite(number) and all(bounds.values())
    require(fits, f'{name}={show(value)} is out of range; use a finite number{words and " "}{words}.')


def check_count(name: str, value, least: int = 1, most: int = 2**31 - 1) -> None:
    """Refuse a setting that is no whole number from `least` to `most`."""
    words = f'from {least} {"on" if most == 2**31 - 1 else f"to {most}"}'
    require(is_count(value, least, most), f'{name}={show(value)} is out of range; use a whole number {words}.')


def check_flag(name: str, value) -> None:
    """Refuse a setting that says neither yes nor no."""
    require(isinstance(value, bool | np.bool_), f'{name}={show(value)} says neither; use True or False.')


def check_function(name: str, value, of: str) -> None:
    """Refuse a setting that is neither left out nor a function."""
    fits = value is None or callable(value)
    require(fits, f'{name}={show(value)} is no function of {of}; give one, or leave it out.')


def check_choice(name: str, value, known: Iterable[str]) -> None:
    """Refuse a setting that is none of the names that are known."""
    known = [*known]
    fits = isinstance(value, str) and value in known
    require(fits, f'{name}={show(value)} is unknown; there are {", ".join(known)}.')


def host_memory() -> int:
    """Say how many bytes the machine can hold."""
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def device_memory() -> int:
    """Say how many bytes the default device can hold: its own limit, or the machine's memory."""
    return (jax.local_devices()[0].memory_stats() or {}).get('bytes_limit') or host_memory()


def check_memory(size: int, what: str, way: str, room: int | None = None) -> None:
    """Refuse what the machine, or `room` bytes, cannot hold: `what` takes `size`; `way` is out."""
    need, there = size / 2**30, (room or host_memory()) / 2**30
    require(need <= there, f'{what} takes {need:.0f} GiB and the machine has {there:.0f}; {way}.')


def check_key(key) -> None:
    """Refuse what is not one random key."""
    dtype, shape = getattr(key, 'dtype', None), getattr(key, 'shape', None)
    is_one = shape == () if is_key(key) else dtype == np.uint32 and shape == (2,)  # the second: jax.random.PRNGKey
    require(is_one, f'one key is wanted, such as jax.random.key(0), not {show(key)}; map over several by jax.vmap.')


def check_image_shape(image_shape, is_map: bool = False) -> tuple[int, int, int]:
    """Return (H, W, C) as whole numbers, or refuse what is no shape of one image, or map of neurons."""
    sizes = tuple(image_shape) if isinstance(image_shape, tuple | list) else ()
    if len(sizes) != 3 or not all(map(is_count, sizes)):
        ways = {4: 'images.shape[1:], of sequences images.shape[2:]', 5: 'images.shape[2:]'}
        way = ways.get(len(sizes), '(H, W, C), channels last, grey images with C = 1')
        raise ValueError(f'an image shape is three numbers (H, W, C), not {show(image_shape)}; give {way}.')
    h, w, c = map(int, sizes)
    is_channels_first = not is_map and h in (1, 3) and w == c and w > 4
    way = f'use images.transpose(0, 2, 3, 1), which are {(w, c, h)}'
    require(not is_channels_first, f'an image is (H, W, C), and {(h, w, c)} is channels first; {way}.')
    return h, w, c


def check_pixels(images, *, in_time: bool = False) -> None:
    """Refuse what is no array of pixels, traced or not, by shape and dtype: [n, H, W, C], `in_time` [n, T, H, W, C]."""
    if not isinstance(images, np.ndarray | jax.Array):
        way = 'numpy.stack' if isinstance(images, list | tuple) else 'numpy.asarray'
        raise ValueError(f'images are one array [n, H, W, C], not of type {type(images).__name__}; make one by {way}.')
    shape, dtype = tuple(images.shape), images.dtype
    wants, ways = 'images are [n, H, W, C] with n >= 1', {2: 'images.reshape(-1, H, W, C)'}
    ways[3] = 'images[None] for one image, images[..., None] for grey ones'
    ways[5] = 'images.reshape(-1, H, W, C), frames as images, since no rule with memory learns here'
    if in_time:
        wants = 'images for a rule with memory are sequences, [n, T, H, W, C]'
        ways = {4: 'images.reshape(-1, T, H, W, C), T frames that follow each other'}
    way = ways.get(len(shape), 'as many dimensions, none of them empty')
    require(len(shape) == 4 + in_time and 0 not in shape, f'{wants}, not of shape {shape}; use {way}.')
    check_image_shape(shape[-3:])
    has_range = dtype in (np.uint8, np.uint16, np.bool_) or jnp.issubdtype(dtype, jnp.floating)
    require(has_range, f'{dtype} images do not say what white is; use uint8 (0-255), uint16, bool or floats (0-1).')


def check_images(images, *, in_time: bool = False, any_range: bool = False):
    """Return images as they are, if `check_pixels` takes them; NaN is refused, floats far from [0, 1] warned about.

    `any_range`: not where they come from a world in which numbers have any range; an array of jax passes from then on.
    """
    check_pixels(images, in_time=in_time)
    if is_traced(images) or not jnp.issubdtype(images.dtype, jnp.floating) or id(images) in _finite_images:
        return images
    is_jax = isinstance(images, jax.Array)
    # on a CPU numpy sees the same memory, and compiles nothing for new shapes
    is_near = is_jax and {device.platform for device in images.devices()} == {'cpu'}
    xp, values = (np, np.asarray(images)) if is_near or not is_jax else (jnp, images)
    bad = np.asarray((~xp.isfinite(values)).sum((*range(1, images.ndim),)))  # [n]
    require(not bad.any(), f'images hold {bad.sum()} non-finite values, the first in image {bad.argmax()}.')
    low, high = float(values.min()), float(values.max())
    if not any_range and ((low >= 0 and high > BRIGHT) or max(-low, high) > EXTREME):
        what = f'images of floats run from {low:.4g} to {high:.4g}, and are taken as they are, unlike uint8'
        warnings.warn(f'{what}, scaled to [0, 1]; divide them by their largest possible value.', stacklevel=3)
    if is_jax:
        _finite_images[id(images)] = images
    return images


def check_labels(labels, classes: int | None = None, count: int | None = None, of: str = 'images'):
    """Give labels as one integer per image [B]: an integer array as it is, other clear forms as int32.

    Clear are columns [B, 1], whole floats, booleans, one-hot rows [B, K], and lists; `classes` is K, `count` is B.
    """
    is_array = isinstance(labels, np.ndarray | jax.Array)
    labels = labels if is_array else np.asarray(labels)
    is_numeric = any(jnp.issubdtype(labels.dtype, kind) for kind in (jnp.integer, jnp.bool_, jnp.floating))
    way = 'numpy.unique(labels, return_inverse=True)[1] numbers them'
    require(is_numeric, f'labels are classes 0, 1, ..., not {labels.dtype}; {way}.')
    shape = tuple(labels.shape)
    if len(shape) == 2 and shape[1] == 1:
        labels = labels[:, 0]
    elif len(shape) == 2 and not is_traced(labels):
        rows = np.asarray(labels)
        if np.isin(rows, (0, 1)).all() and (rows.sum(1) == 1).all():
            require(classes in (None, shape[1]), f'one-hot labels of {shape[1]} classes do not fit {classes} classes.')
            labels = rows.argmax(1).astype(np.int32)
    require(labels.ndim == 1, f'labels are one class for each image, [B], or one-hot [B, K], not of shape {shape}.')
    require(count in (None, shape[0]), f'{shape[0]} labels do not fit {count} {of}; give one for each.')
    if is_traced(labels):
        return labels if labels.dtype.kind in 'iu' else labels.astype(jnp.int32)
    values = np.asarray(labels)
    if values.dtype.kind not in 'iu':
        whole = np.isfinite(values) & (values == np.floor(values))
        if not whole.all():
            wrong = whole.argmin()
            raise ValueError(f'labels are whole numbers, and that of image {wrong} is {values[wrong]}.')
        values = labels = values.astype(np.int32)
    lowest, highest = (int(values.min()), int(values.max())) if values.size else (0, 0)
    end, known = ('on', '') if classes is None else (f'to {classes - 1}', f' and there are {classes} classes')
    fits = lowest >= 0 and (classes is None or highest < classes)
    require(fits, f'labels run from {lowest} to {highest}{known}; use 0 {end}.')
    return labels if is_array else labels.astype(np.int32)
