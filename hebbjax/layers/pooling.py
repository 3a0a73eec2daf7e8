"""Making maps smaller: maxima and means over blocks. [B, H, W, N] in, neurons last."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax

from hebbjax.base import Array
from hebbjax.support import checks


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pooling over size x size blocks, stride size; rows and columns that fill no block are left out."""

    size: int
    kind: str  # 'max' or 'avg'

    def __post_init__(self) -> None:
        checks.check_count('size', self.size)

    def __call__(self, maps: Array) -> Array:
        """Pool, nearly twice as fast on a CPU as `lax.reduce_window`. [B, H, W, N] -> [B, H // size, W // size, N]."""
        batch, h, w, channels = maps.shape
        size, rows, columns = self.size, h // self.size, w // self.size
        checks.require(rows and columns, f'{self.kind}_pool({size}) does not fit maps of {h} x {w}; use a smaller one.')
        blocks = maps[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels)
        return blocks.max((2, 4)) if self.kind == 'max' else blocks.mean((2, 4))


def max_pool(size: int) -> Pool:
    """Build max pooling; of a map of 5 x 5, blocks of 2 x 2 leave out the last row and column."""
    return Pool(size, 'max')


def avg_pool(size: int) -> Pool:
    """Build average pooling; what fills no block is left out, as in `max_pool`."""
    return Pool(size, 'avg')


def gauss_pool(stride: int) -> Callable[[Array], Array]:
    """Build means weighted by a Gaussian of deviation `stride / sqrt 2`, over blocks of side `2 stride + 1`, one around
    every `stride`-th row and column, from the first; beyond the map there are zeros. Without aliases (Mairal 2016).

    Example:
        >>> gauss_pool(2)(jnp.ones((1, 5, 5, 1)))[0, :, :, 0].round(2)
        Array([[0.42, 0.65, 0.42],
               [0.65, 1.  , 0.65],
               [0.42, 0.65, 0.42]], dtype=float32)
    """
    checks.check_count('stride', stride)
    size, weights = 2 * stride + 1, np.exp(-((np.arange(-stride, stride + 1) / stride) ** 2))

    def pool(maps: Array) -> Array:
        h, w = maps.shape[1:3]
        came = f'gauss_pool({stride}) looks at {size} x {size} positions, and maps are {h} x {w}'
        checks.require(size <= min(h, w), f'{came}; use a smaller one.')
        for axis, side in (1, h), (2, w):  # one after the other, so that sums are short
            padded = jnp.pad(maps, [(stride, stride) if at == axis else (0, 0) for at in range(4)])
            reach = (side - 1) // stride * stride + 1
            shifted = (lax.slice_in_dim(padded, i, i + reach, stride, axis) for i in range(size))
            maps = sum(float(weight) * part for weight, part in zip(weights / weights.sum(), shifted))
        return maps

    return pool
