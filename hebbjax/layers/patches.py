"""From images to patches: the windows that neurons look through (a dense layer's covers the image), transforms."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hebbjax.base import Array, Key
from hebbjax.rules.local import unit_rows as l2
from hebbjax.support import checks

FLAT = 1e-3  # a centred patch shorter than this (a quarter of one 8-bit grey step) is flat
EDGES = 'zeros', 'reflect'
SLICES = 50  # that are stacked at once; each takes XLA a fortieth of a second, and more where there are many
FAINT = 0.1  # length of a centred patch, in intensities of [0, 1], at which soft normalisation halves its energy

PatchTransform = Callable[[Array], Array]  # rows [..., D] -> rows [..., D]; the same in learning and in prediction


class Window(NamedTuple):
    """The window that one neuron looks through, in pixels: numbers, or pairs (vertical, horizontal)."""

    size: int | tuple[int, int] | None = None  # None covers the whole image: a dense layer
    stride: int | tuple[int, int] = 1  # step between neighbouring windows
    padding: int | tuple[int, int] = 0  # rows and columns around the image
    edges: str = 'zeros'  # what these hold: zeros, or 'reflect', the image mirrored at its outermost pixels


class Grid(NamedTuple):
    """A window laid over images of one shape, in integers."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    out: tuple[int, int]  # H', W'
    inputs: int  # D = kh * kw * C


def lay_grid(window: Window, image_shape: tuple[int, ...]) -> Grid:
    """Lay a window over images of shape (H, W, C): `H' = (H + 2 padding - kh) // stride + 1`, `W'` likewise."""
    h, w, c = image_shape
    window = window._replace(size=(h, w) if window.size is None else window.size)
    pairs = [tuple(value) if isinstance(value, tuple | list) else (value, value) for value in window[:3]]
    fits = [*map(len, pairs)] == [2, 2, 2] and all(map(checks.is_count, sum(pairs, ()), (1, 1, 1, 1, 0, 0)))
    came, way = checks.show(tuple(window[:3])), 'use whole numbers or pairs, sizes and strides from 1, a padding from 0'
    checks.require(fits, f'a window of size, stride and padding {came} is out of range; {way}.')
    size, stride, padding = (tuple(map(int, pair)) for pair in pairs)
    out = tuple((full + 2 * pad - k) // step + 1 for full, pad, k, step in zip((h, w), padding, size, stride))
    misfit = f'window {size} with padding {padding} does not fit images of {h} x {w}'
    checks.require(min(out) >= 1, f'{misfit}; use a smaller window or a larger padding.')
    checks.check_choice('edges', window.edges, EDGES)
    inner = f'{padding} rows and columns of mirrored pixels are more than images of {h} x {w} have inside'
    fits = window.edges != 'reflect' or (padding[0] < h and padding[1] < w)
    checks.require(fits, f'{inner}; use a smaller padding.')
    return Grid(size, stride, padding, out, size[0] * size[1] * c)


def pad_images(window: Window, images: Array, padding: tuple[int, int]) -> Array:
    """Put (rows, columns) of zeros or of mirrored pixels around images, as a window has it."""
    sides = (0, 0), *((pad, pad) for pad in padding), (0, 0)
    return jnp.pad(images, sides, 'reflect') if window.edges == 'reflect' else jnp.pad(images, sides)


def extract_patches(window: Window, images: Array) -> Array:
    """Cut every window out of every image (im2col). [B, H, W, C] -> [B, H', W', D].

    `patches[b, i, j] = padded[b, i s : i s + kh, j s : j s + kw]`, in (kh, kw, C) order; on a CPU faster than XLA's.
    """
    g = lay_grid(window, images.shape[1:])
    (kh, kw), (sh, sw), batch = g.size, g.stride, len(images)
    if g.out == (1, 1) and g.padding == (0, 0):  # one window an image: no stack of 784 one-pixel slices
        return images[:, :kh, :kw].reshape(batch, 1, 1, g.inputs)
    padded = pad_images(window, images, g.padding)
    rows, columns = (g.out[0] - 1) * sh + 1, (g.out[1] - 1) * sw + 1
    if kh * kw <= SLICES:
        shifted = [padded[:, i : i + rows : sh, j : j + columns : sw] for i in range(kh) for j in range(kw)]
        return jnp.stack(shifted, axis=3).reshape(batch, *g.out, g.inputs)
    # of a large window kh of rows, then kw of columns: they compile in seconds where kh kw take minutes
    lines = jnp.stack([padded[:, i : i + rows : sh] for i in range(kh)], axis=3)  # [B, H', W + 2 pw, kh, C]
    squares = jnp.stack([lines[:, :, j : j + columns : sw] for j in range(kw)], axis=4)  # [B, H', W', kh, kw, C]
    return squares.reshape(batch, *g.out, g.inputs)


def cut_bands(window: Window, images: Array, count: int) -> tuple[Window, Array]:
    """Cut images into `count` bands, with equal parts of the rows of windows; these overlap by what windows need.

    -> the window that finds the same patches in bands, and these [count, B, h, W, C].
    """
    if count == 1:
        return window, images[None]
    g = lay_grid(window, images.shape[1:])
    padded = pad_images(window, images, (g.padding[0], 0))
    step = g.out[0] // count * g.stride[0]
    lines = np.add.outer(step * np.arange(count), np.arange(step - g.stride[0] + g.size[0]))
    bands = padded[:, lines]  # [B, count, h, W, C]
    return Window(g.size, g.stride, (0, g.padding[1]), window.edges), jnp.swapaxes(bands, 0, 1)


def sample_patches(key: Key, window: Window, images: Array, count: int) -> Array:
    """Cut `count` windows out of each image, at places drawn uniformly. [B, H, W, C] -> [B count, D]."""
    g = lay_grid(window, images.shape[1:])
    padded = pad_images(window, images, g.padding)
    row_key, column_key = jax.random.split(key)
    b = jnp.repeat(jnp.arange(len(images)), count)
    i = jax.random.randint(row_key, b.shape, 0, g.out[0]) * g.stride[0]
    j = jax.random.randint(column_key, b.shape, 0, g.out[1]) * g.stride[1]
    cut = lambda *corner: lax.dynamic_slice(padded, (*corner, 0), (1, *g.size, images.shape[-1]))  # noqa: E731
    return jax.vmap(cut)(b, i, j).reshape(-1, g.inputs)


def raw(x: Array) -> Array:
    """Leave patches as they are."""
    return x


def centred(x: Array) -> Array:
    """Subtract each patch's own mean: `x - mean(x)`. Brightness is gone, shape stays."""
    return x - jnp.mean(x, axis=-1, keepdims=True)


def centred_l2(x: Array) -> Array:
    """Subtract each patch's mean, then scale to unit length; a flat one has no shape but rounding, and becomes zero."""
    return l2(centred(x), FLAT)


def contrast(x: Array) -> Array:
    """Normalise softly: `(x - mean x) / sqrt(|x - mean x|^2 + 0.1^2)` (Coates, Lee & Ng 2011, section 3.1)."""
    x = centred(x)
    return x * lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + FAINT**2)


PATCH_TRANSFORMS = {'raw': raw, 'centred': centred, 'l2': l2, 'centred_l2': centred_l2, 'contrast': contrast}
