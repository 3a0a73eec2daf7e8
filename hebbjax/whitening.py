"""Before anything is seen: normalising images one by one, and ZCA whitening, fitted once and applied inside jit."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from hebbjax import checks
from hebbjax.types import Array

FAINT = 1e-6  # of epsilon: where no eigenvalue is as large, whitening is a mere factor
ROUNDING = 1e-6  # of the largest deviation: directions as small as this hold little but the rounding of float32
LARGE = 1e60  # variance: what divides by its root comes close to the smallest float32
FLAT = 1e-6  # relative to its largest value: an image that varies less is constant up to rounding


def standardise(images: Array) -> Array:
    """Give every image mean 0 and standard deviation 1, over all pixels and channels; a constant one becomes zero.

    `(x - mean x) / std x`, unbiased, per image [B, H, W, C]. Miconi 2021, section 2.1, before every layer.
    """
    axes = tuple(range(1, images.ndim))
    count = images[0].size
    largest = lax.stop_gradient(jnp.max(jnp.abs(images), axes, keepdims=True))
    unit = jnp.ldexp(jnp.ones_like(largest), jnp.frexp(largest)[1])  # a power of two: no square is out of range
    x, largest = images / unit, largest / unit
    x = x - x.mean(axes, keepdims=True)
    variance = jnp.sum(x * x, axes, keepdims=True) / max(count - 1, 1)
    # rounding leaves 1e-8 behind a constant image's mean: that is no shape, and is not to be blown up to variance 1
    flat = variance <= (FLAT * largest) ** 2
    return jnp.where(flat, 0, x * lax.rsqrt(jnp.where(flat, 1, variance)))  # chosen twice, for a finite slope


class Whitening(NamedTuple):
    """A fitted ZCA transform: a pytree."""

    mean: Array  # [H, W, C] or [D], as what it was fitted to; zero where none is subtracted
    matrix: Array  # [D, D], symmetric


RECIPES = {
    'miconi_paper': {'epsilon': 1e-3, 'centre': True, 'per': 'sample'},
    'miconi_notebook': {'epsilon': 1e-3, 'centre': False, 'per': 'input'},
    'amato': {'epsilon': 1e-1, 'centre': True, 'per': 'sample', 'subtract': False},
}
"""The published recipes, as arguments of `fit`. They differ: the notebook's numbers come from 9000 images of 3072
values, so that its epsilon is 3.4e-4 in units of the paper's."""


def fit(
    x: Array, *, epsilon: float = 1e-3, centre: bool = True, per: str = 'sample', subtract: bool | None = None
) -> Whitening:
    """Fit ZCA whitening: `matrix = E (L + epsilon)^(-1/2) E'`, where `E L E'` is the covariance.

    The covariance is added up and decomposed in float64: it always has directions of nearly no variance (in centred
    images the mean is one), and their eigenvalues decide the result.

    Args:
        x: what to whiten: images [n, H, W, C] (one D = H W C vector each) or rows of patches [n, D]; a numpy or a jax
            array. Normalise images first (`standardise`): epsilon is in units of their variance.
        epsilon: added to every eigenvalue. Large ones (0.1) leave fine detail unwhitened, small ones amplify noise.
        centre: whether the mean of every input is subtracted before the covariance is formed; else second moments.
        per: 'sample' divides the sum of products by n, the covariance; 'input' by D, as Miconi's notebook does.
        subtract: whether `apply` subtracts that mean; left out: as `centre` says.

    Raises:
        ValueError: if epsilon is not positive, `per` unknown, x empty, of another shape, of integers, not finite or
            constant; if epsilon is so large or so small against its variance that nothing would be whitened, or
            rounding would; if the machine cannot hold D x D.
    """
    if checks.misfits(epsilon, lambda variance: variance > 0):
        raise ValueError(
            f'epsilon={checks.shown(epsilon)} would divide by eigenvalues that are zero; use a number above 0.'
        )
    if per not in ('sample', 'input'):
        raise ValueError(f"products are averaged per 'sample' or per 'input', not per {checks.shown(per)}.")
    x = x if hasattr(x, 'dtype') else np.asarray(x)
    _check_floats(x)
    shape = x.shape
    if len(shape) not in (2, 4) or 0 in shape:
        raise ValueError(f'whitening is fitted to images [n, H, W, C] or rows [n, D], not to shape {shape}.')
    count, inputs = shape[0], math.prod(shape[1:])
    checks.check_room(5 * 8 * inputs**2, f'whitening inputs of {inputs} values', 'whiten patches instead of images')
    total = sum(part.sum(0) for part in _blocks(x))
    if not np.isfinite(total).all():
        raise ValueError('whitening cannot be fitted to NaN or infinite values; check the images.')
    mean = total / count if centre else np.zeros(inputs)
    products = sum((part - mean).T @ (part - mean) for part in _blocks(x))
    values, vectors = np.linalg.eigh(products / (count if per == 'sample' else inputs))  # ascending
    # rounding leaves eigenvalues of -1e-16 where there is no variance
    least, largest = max(values[0], 0), values[-1]
    if not largest > 0:
        raise ValueError('whitening cannot be fitted to values that never vary; check the images.')
    if largest > LARGE:
        raise ValueError('whitening cannot be fitted to values of 1e30 and more; standardise them first.')
    if largest < FAINT * epsilon or largest > ROUNDING**-2 * (least + epsilon):
        what = 'leave' if largest < epsilon else 'blow up the rounding of'
        raise ValueError(
            f'epsilon={epsilon} would {what} values whose variance reaches {largest:.2g}; standardise them first, or '
            f'use an epsilon of about {1e-3 * largest:.1g}.'
        )
    matrix = (vectors / np.sqrt(np.maximum(values, 0) + epsilon)) @ vectors.T
    kept = mean if (centre if subtract is None else subtract) else np.zeros(inputs)
    return Whitening(jnp.asarray(kept.reshape(shape[1:]), jnp.float32), jnp.asarray(matrix, jnp.float32))


def _check_floats(x) -> None:
    """Refuse integers, which layers scale to [0, 1] before they whiten."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f'whitening takes intensities, as layers do, and not {x.dtype}; divide by the largest value, 255 for uint8.'
        )


def _blocks(x, rows: int = 5000) -> Iterator[np.ndarray]:
    """Go through samples in float64, some at a time."""
    for start in range(0, len(x), rows):
        part = np.asarray(x[start : start + rows], np.float64)
        yield part.reshape(len(part), -1)


def apply(whitening: Whitening, x: Array) -> Array:
    """Whiten images [B, H, W, C] or rows [..., D], whichever the whitening was fitted to: `(x - mean) matrix`.

    For `Layer.prepare` (images) or `Layer.patch` (patches), as `functools.partial(apply, whitening)`.

    Raises:
        ValueError: if x has other dimensions than what the whitening was fitted to, or holds integers.
    """
    _check_floats(x)
    own = whitening.mean.shape
    if x.shape[-len(own) :] != own:
        raise ValueError(
            f'whitening fitted to inputs of shape {own} does not fit an array of shape {x.shape}; '
            'fit it to images or patches of this shape.'
        )
    rows = x.reshape(-1, whitening.mean.size) - whitening.mean.reshape(1, -1)
    return lax.dot(rows, whitening.matrix, precision=lax.Precision.HIGHEST).reshape(x.shape)
