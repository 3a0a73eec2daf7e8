"""The door: images, labels, shapes, keys and numbers from outside are met here, once, before anything is computed.

One sentence each: what came, what fits, what to do. What is traced has no values yet: of it, shapes and dtypes are
checked.
"""

import math
import numbers
import os
import warnings
import weakref
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

BRIGHT = 10.0  # intensities are in [0, 1]; images that are nowhere negative and reach this hold another range
EXTREME = 100.0  # and so do those that reach this on either side, which no normalisation gives


def is_traced(value) -> bool:
    """Say whether jax is tracing this value, so that it has none yet."""
    return isinstance(value, jax.core.Tracer)


class _Checked:
    """Arrays that have passed a check, by identity, while they live; jax's arrays never change."""

    def __init__(self):
        self._alive = {}

    def __contains__(self, array) -> bool:
        return id(array) in self._alive

    def add(self, array) -> None:
        if isinstance(array, jax.Array):
            place = id(array)
            self._alive[place] = weakref.ref(array, lambda _: self._alive.pop(place, None))


_finite_images = _Checked()


def check_pixels(images) -> None:
    """Refuse what is no array of pixels [n, H, W, C] by its shape and dtype; traced or not.

    uint8 and uint16 are scaled by the range of their type, bool is 0 or 1, floats are taken as they are. Other integers
    do not say what white is.

    Raises:
        ValueError: naming what came and what to do.
    """
    if not isinstance(images, np.ndarray | jax.Array):
        way = 'numpy.stack' if isinstance(images, list | tuple) else 'numpy.asarray'
        came = _article(type(images).__name__)
        raise ValueError(f'images must be one numpy or jax array [n, H, W, C], got {came}; make one with {way}.')
    shape, dtype = tuple(images.shape), images.dtype
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f'images must be [n, H, W, C] with n >= 1, got shape {shape}{_way_to_4d(shape)}.')
    if looks_channels_first(shape[1:]):
        raise ValueError(
            f'images must be [n, H, W, C], and shape {shape} looks like channels first; '
            'use images.transpose(0, 2, 3, 1).'
        )
    if dtype not in (np.uint8, np.uint16, np.bool_) and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f'images must be a uint8, uint16, bool or floating point array, got {dtype}, which does not say what white '
            'is; use images.astype(numpy.uint8) where they run from 0 to 255, or divide by their largest value.'
        )


def looks_channels_first(image_shape) -> bool:
    """Say whether (H, W, C) is rather (C, H, W): 1 or 3 rows of as many columns as channels."""
    h, w, c = image_shape
    return h in (1, 3) and w == c and w > 4


def _way_to_4d(shape) -> str:
    if len(shape) == 3:
        return '; use images[None] if this is one image, images[..., None] if these are grey ones'
    if len(shape) == 2:
        return '; use images.reshape(-1, H, W, C)'
    return ''


def check_images(images, image_shape: tuple[int, int, int] | None = None):
    """Return `images` unchanged, or refuse what no layer could learn from.

    Their values are looked at once, as long as an array lives; those of uint8, uint16 and bool need not be.

    Args:
        images: [n, H, W, C], n >= 1; uint8, uint16, bool, or floating point and all finite; a numpy or a jax array.
        image_shape: (H, W, C) that they must have; None: any.

    Raises:
        ValueError: for another shape or dtype, and for nan or inf.

    Warns:
        UserWarning: where floats are far outside [0, 1], which uint8 images would be scaled to.
    """
    check_pixels(images)
    if image_shape is not None and tuple(images.shape[1:]) != tuple(image_shape):
        raise ValueError(
            f'images of {_by(images.shape[1:])} do not fit a network made for {_by(image_shape)}; '
            'give images of that size, or make a state for these with init.'
        )
    if is_traced(images) or not jnp.issubdtype(images.dtype, jnp.floating) or images in _finite_images:
        return images
    xp = jnp if isinstance(images, jax.Array) else np
    low, high = float(xp.min(images)), float(xp.max(images))
    # XLA's maximum may pass over NaN on a CPU, its sum does not
    if not math.isfinite(low) or not math.isfinite(high) or not math.isfinite(float(xp.sum(images - images))):
        bad = np.asarray((~xp.isfinite(images)).sum(axis=(1, 2, 3)))  # [n]
        if bad.any():
            raise ValueError(f'images hold {bad.sum()} non-finite values, the first in image {bad.argmax()}.')
    if (low >= 0 and high > BRIGHT) or max(-low, high) > EXTREME:
        warnings.warn(
            f'images of floats run from {low:.4g} to {high:.4g}, and are taken as they are, where uint8 images are '
            'scaled to [0, 1]; divide them by their largest possible value, or give the same range in prediction.',
            stacklevel=3,
        )
    _finite_images.add(images)
    return images


def check_image_shape(image_shape) -> tuple[int, int, int]:
    """Return (H, W, C) as whole numbers, or refuse what is no shape of one image.

    Raises:
        ValueError: naming what came and what to do.
    """
    try:
        sizes = tuple(image_shape)
    except TypeError:
        sizes = (image_shape,)
    whole = all(isinstance(size, numbers.Integral) and not isinstance(size, bool) for size in sizes)
    if len(sizes) != 3 or not whole or min(sizes) < 1:
        way = 'images.shape[1:]' if len(sizes) == 4 else '(H, W, C), channels last, grey images with C = 1'
        raise ValueError(f'an image shape is three numbers (H, W, C), not {shown(image_shape)}; give {way}.')
    if looks_channels_first(sizes):
        raise ValueError(
            f'an image shape is (H, W, C), and {sizes} looks like channels first; give {(*sizes[1:], sizes[0])}, and '
            'images.transpose(0, 2, 3, 1).'
        )
    return tuple(map(int, sizes))


def check_key(key) -> None:
    """Refuse what is no random key.

    Raises:
        ValueError: naming what came and what to do.
    """
    dtype = getattr(key, 'dtype', None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and not (dtype == np.uint32 and key.shape[-1:] == (2,)):  # the second: jax.random.PRNGKey
        way = f'jax.random.key({key})' if isinstance(key, numbers.Integral) else 'jax.random.key(seed)'
        raise ValueError(f'a key is made by {way}, and this is {_article(type(key).__name__)}.')
    if typed and key.shape:
        raise ValueError(f'one key is wanted, and these are {key.shape}; take one, or map over them by jax.vmap.')


def check_labels(labels, classes: int | None = None, count: int | None = None):
    """Give labels as one integer per image [B], or refuse what says no class.

    A column [B, 1], whole numbers among floats, booleans and one-hot rows [B, K] mean what they seem to; lists and
    tuples are arrays. An integer array [B] passes as it is.

    Args:
        labels: of B images; a numpy or a jax array, or a list. Of traced ones only shape and dtype are seen.
        classes: K, which makes 0 .. K - 1 the classes there are; None: any from 0 on.
        count: how many images there are; None: any number.

    Raises:
        ValueError: naming what came and what to do.
    """
    given = labels
    labels = labels if isinstance(labels, np.ndarray | jax.Array) else on_host('labels', labels)
    shape, dtype = tuple(labels.shape), labels.dtype
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.bool_, jnp.floating)):
        raise ValueError(
            f'labels are classes 0, 1, ..., not {dtype}; numpy.unique(labels, return_inverse=True)[1] numbers them.'
        )
    if len(shape) == 2 and shape[1] == 1:
        labels = labels[:, 0]
    if len(labels.shape) == 2 and not is_traced(labels):
        rows = np.asarray(labels)
        if not (np.isin(rows, (0, 1)).all() and (rows.sum(1) == 1).all()):
            raise ValueError(f'labels are one class for each image, [B], or one-hot rows [B, K]; got shape {shape}.')
        if classes is not None and shape[1] != classes:
            raise ValueError(f'one-hot labels of {shape[1]} classes do not fit {classes} classes.')
        labels = rows.argmax(1).astype(np.int32)
    if len(labels.shape) != 1:
        raise ValueError(f'labels are one class for each image, [B], not an array of shape {shape}.')
    if count is not None and len(labels) != count:
        raise ValueError(f'{len(labels)} labels do not fit {count} images; give one for each.')
    if is_traced(labels):
        return labels if labels.dtype.kind in 'iu' else labels.astype(jnp.int32)
    numbers_ = np.asarray(labels)
    if numbers_.dtype.kind not in 'iu':
        wrong = np.flatnonzero(~(np.isfinite(numbers_) & (numbers_ == np.floor(numbers_))))
        if wrong.size:
            raise ValueError(f'labels are whole numbers, and that of image {wrong[0]} is {numbers_[wrong[0]]}.')
        numbers_ = labels = numbers_.astype(np.int32)
    lowest, highest = (int(numbers_.min()), int(numbers_.max())) if numbers_.size else (0, 0)
    if lowest < 0 or (classes is not None and highest >= classes):
        wanted = '0 on' if classes is None else f'0 to {classes - 1}'
        there = '' if classes is None else f' and there are {classes} classes'
        raise ValueError(f'labels run from {lowest} to {highest}{there}; use {wanted}.')
    return labels if hasattr(given, 'dtype') or not isinstance(labels, np.ndarray) else labels.astype(np.int32)


def misfits(value, fits: Callable[[float], bool]) -> bool:
    """Say whether a setting is no finite number that fits; a traced one has no value yet, and passes.

    Args:
        value: a Python, numpy or jax number, or whatever came instead.
        fits: number -> whether it will do.
    """
    if is_traced(value):
        return False
    try:
        number = float(value) if not isinstance(value, str | bytes) else math.nan
    except (TypeError, ValueError, OverflowError):
        return True
    return not math.isfinite(number) or not fits(number)


def is_count(value, least: int = 1) -> bool:
    """Say whether a setting is a whole number from `least` to what 32 bits count; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_) and least <= value < 2**31


def memory() -> int:
    """Say how many bytes the machine can hold."""
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def check_room(size: int, what: str, way: str) -> None:
    """Refuse what the machine cannot hold, before anything is allocated.

    Args:
        size: in bytes.
        what: needs them.
        way: what to do instead.

    Raises:
        ValueError: naming all three.
    """
    if size > memory():
        raise ValueError(f'{what} takes {size / 2**30:.0f} GiB and the machine has {memory() / 2**30:.0f}; {way}.')


def shown(value) -> str:
    """Show a value in a few words, on one line, for a sentence."""
    plain = isinstance(value, int | float | np.generic)
    return ' '.join((str if plain else repr)(value).split())[:60]


def on_host(name: str, values) -> np.ndarray:
    """Give numbers as a numpy array.

    Raises:
        ValueError: if they are none, naming what came.
    """
    try:
        return np.asarray(values)
    except (TypeError, ValueError):
        raise ValueError(f'{name} are an array of numbers, not {shown(values)}.') from None


def _by(shape) -> str:
    return ' x '.join(map(str, shape))


def _article(kind: str) -> str:
    return f'an {kind}' if kind[0] in 'aeiouAEIOU' else f'a {kind}'
