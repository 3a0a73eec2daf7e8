"""ZCA whitening of images or patches: fitted once, in float64, and applied inside jit."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hebbjax.base import AnyArray, Array
from hebbjax.support import checks
from hebbjax.support.moments import CHUNK, add_moments, eigh, gather_moments

_TINY = 1e-6  # of epsilon: whitening is a mere factor; of the largest deviation: little but the rounding of float32
_LARGE = 1e60  # variance: what divides by its root comes close to the smallest float32


class Whitening(NamedTuple):
    """A fitted ZCA transform: a pytree."""

    mean: Array  # [H, W, C] or [D], as what it was fitted to; zero where none is subtracted
    matrix: Array  # [D, D], symmetric


WHITENING_SETTINGS = {
    'miconi_paper': {'epsilon': 1e-3, 'centre': True, 'per': 'sample'},
    'miconi_notebook': {'epsilon': 1e-3, 'centre': False, 'per': 'input'},
    'amato': {'epsilon': 1e-1, 'centre': True, 'per': 'sample', 'subtract': False},
}
"""As published. The notebook fits 9000 images of 3072 values: its epsilon is 3.4e-4 in units of the paper's."""


def fit_whitening(
    x: AnyArray | Iterable[AnyArray], *, epsilon: float = 1e-3, centre: bool = True, per: str = 'sample',
    subtract: bool | None = None,
) -> Whitening:  # fmt: skip
    """Fit ZCA whitening: `matrix = E (L + epsilon)^(-1/2) E'`, where `E L E'` is the covariance.

    In float64: a covariance always has directions of nearly no variance, and their eigenvalues decide the result.

    Args:
        x: images [n, H, W, C] (D = H W C values each) or patches [n, D]; floats, standardised before. Or blocks of
            them, one after the other, which need not lie in memory at once, such as `Shards` are, or make.
        epsilon: in units of their variance. Large ones (0.1) leave fine detail unwhitened, small ones amplify noise.
        centre: whether L is of the covariance, about the mean of every input; else of second moments.
        per: 'sample' divides sums of products by n; 'input' by D, as Miconi's notebook does.
        subtract: whether `whiten` subtracts that mean; None: as `centre` says.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 3)) * np.array([1.0, 10.0, 100.0])
        >>> whiten(fit_whitening(x), x.astype(np.float32)).std(0).round(1).tolist()
        [1.0, 1.0, 1.0]
    """
    checks.check_number('epsilon', epsilon, above=0)
    checks.check_choice('per', per, ('sample', 'input'))
    moments: Any = None
    shape: tuple[int, ...] = ()
    checks.require(hasattr(x, 'ndim') or isinstance(x, Iterable), f'whitening takes images, not {checks.show(x)}.')
    wholes = [x] if hasattr(x, 'ndim') else (getattr(whole, 'images', whole) for whole in x)
    for block in (whole[i : i + CHUNK] for whole in wholes for i in range(0, max(len(whole), 1), CHUNK)):
        _check_floats(block)
        fits = shape in ((), block.shape[1:])
        checks.require(fits, f'blocks of {shape} and of {block.shape[1:]} are not of one kind; make them alike.')
        shape = block.shape[1:]
        fits = block.ndim in (2, 4) and 0 not in block.shape
        checks.require(fits, f'whitening is fitted to images [n, H, W, C] or rows [n, D], not to shape {block.shape}.')
        what = f'whitening inputs of {math.prod(shape)} values'
        checks.check_memory(5 * 8 * math.prod(shape) ** 2, what, 'whiten patches instead of images')
        moments = add_moments(moments, block.reshape(len(block), -1), np.zeros((len(block), 0)))
    checks.require(moments, 'whitening is fitted to one image or row at least, and there are none.')
    origin, count, mean, _, products, _ = gather_moments(moments)
    mean = origin + mean
    checks.require(np.isfinite(mean).all(), 'whitening cannot be fitted to NaN or infinite values; check the images.')
    if not centre:  # about zero
        products += count * np.outer(mean, mean)
    values, vectors = eigh(products / (count if per == 'sample' else len(mean)))  # ascending
    least, largest = max(values[0], 0), values[-1]  # rounding makes -1e-16 of no variance
    checks.require(largest > 0, 'whitening cannot be fitted to values that never vary; check the images.')
    fits = _TINY * epsilon <= largest <= min(_TINY**-2 * (least + epsilon), _LARGE)
    what = 'leave' if largest < epsilon else 'blow up the rounding of'
    what = f'epsilon={epsilon} would {what} values whose variance reaches {largest:.2g}'
    checks.require(fits, f'{what}; standardise them first, or use an epsilon of about {1e-3 * largest:.1g}.')
    matrix = (vectors / np.sqrt(np.maximum(values, 0) + epsilon)) @ vectors.T
    subtracted = mean if (centre if subtract is None else subtract) else np.zeros_like(mean)
    return Whitening(*map(jax.device_put, (np.float32(subtracted.reshape(shape)), np.float32(matrix))))


def whiten(whitening: Whitening, x: Array) -> Array:
    """Whiten images [B, H, W, C] or rows [..., D], whichever the whitening was fitted to: `(x - mean) matrix`.

    In a layer as `functools.partial(whiten, whitening)`, a part of `pre` (images) or its `patch_transform` (patches).
    """
    _check_floats(x)
    fitted = whitening.mean.shape
    fits = x.shape[-len(fitted) :] == fitted
    checks.require(fits, f'whitening that was fitted to inputs of shape {fitted} does not fit shape {x.shape}.')
    rows = x.reshape(-1, whitening.mean.size) - whitening.mean.reshape(1, -1)
    return lax.dot(rows, whitening.matrix, precision=lax.Precision.HIGHEST).reshape(x.shape)


def _check_floats(x) -> None:
    came = getattr(x, 'dtype', type(x).__name__)
    fits = came != 'list' and jnp.issubdtype(came, jnp.floating)
    checks.require(fits, f'whitening takes intensities as floats, not {came}; divide by the largest, 255 for uint8.')
