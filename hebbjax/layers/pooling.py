"""Making maps smaller: maxima and means over blocks, means over quadrants. [B, H, W, N] in, neurons last."""

import dataclasses

import jax.numpy as jnp

from hebbjax.base import Array
from hebbjax.support import checks


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pooling over size x size blocks, stride size; rows and columns that fill no block are left out."""

    size: int
    kind: str  # 'max' or 'avg'

    def __post_init__(self):
        name = f'{self.kind}_pool({checks.show(self.size)})'
        checks.require(checks.is_count(self.size), f'{name} has no block to look at; use a whole number, 1 or more.')

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


def quadrants(maps: Array) -> Array:
    """Average each neuron over the four quadrants of its map (Coates, Lee & Ng 2011). [B, H, W, N] -> [B, 4 N]."""
    _, h, w, _ = maps.shape
    checks.require(min(h, w) > 1, f'maps of {h} x {w} have no quadrants; they need 2 rows and 2 columns.')
    rows, columns = (slice(None, h // 2), slice(h // 2, None)), (slice(None, w // 2), slice(w // 2, None))
    return jnp.concatenate([maps[:, i, j].mean((1, 2)) for i in rows for j in columns], axis=1)
