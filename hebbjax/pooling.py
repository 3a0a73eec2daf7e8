"""Making maps smaller: maxima and means over blocks, means over quadrants. [B, H, W, N] in, neurons last."""

from typing import NamedTuple

import jax.numpy as jnp

from hebbjax import checks
from hebbjax.types import Array


class Pool(NamedTuple):
    """Pooling over size x size blocks, stride size; rows and columns that fill no block are left out.

    A reshape and a reduction: on a CPU nearly twice as fast as `lax.reduce_window`.
    """

    size: int
    kind: str  # 'max' or 'avg'

    def __call__(self, maps: Array) -> Array:
        """Pool. [B, H, W, N] -> [B, H // size, W // size, N].

        Raises:
            ValueError: if a block is larger than the map.
        """
        batch, h, w, channels = maps.shape
        size = self.size
        if min(h, w) < size:
            raise ValueError(f'{self.kind}_pool({size}) does not fit maps of {h} x {w}; use a smaller block.')
        rows, columns = h // size, w // size
        blocks = maps[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels)
        return blocks.max((2, 4)) if self.kind == 'max' else blocks.mean((2, 4))


def max_pool(size: int) -> Pool:
    """Build max pooling over size x size blocks; a map of 5 x 5 under 2 x 2 blocks loses its last row and column.

    Raises:
        ValueError: if size is below 1, or (when first traced) larger than the map.
    """
    return _pool(size, 'max')


def avg_pool(size: int) -> Pool:
    """Build average pooling over size x size blocks; a map of 5 x 5 under 2 x 2 blocks loses its last row and column.

    Raises:
        ValueError: if size is below 1, or (when first traced) larger than the map.
    """
    return _pool(size, 'avg')


def _pool(size, kind):
    if not checks.is_count(size):
        raise ValueError(f'{kind}_pool({checks.shown(size)}) has no block to look at; use a whole number, 1 or more.')
    return Pool(int(size), kind)


def quadrants(maps: Array) -> Array:
    """Average each neuron over the four quadrants of its map (Coates, Lee & Ng 2011). [B, H, W, N] -> [B, 4 N].

    Rows `i H // 2 : (i + 1) H // 2`, columns likewise: in an odd map the lower and the right half are the larger.

    Raises:
        ValueError: if a map has fewer than 2 rows or columns.
    """
    _, h, w, _ = maps.shape
    if min(h, w) < 2:
        raise ValueError(f'maps of {h} x {w} have no quadrants; they need 2 rows and 2 columns.')
    rows, columns = (slice(None, h // 2), slice(h // 2, None)), (slice(None, w // 2), slice(w // 2, None))
    return jnp.concatenate([maps[:, i, j].mean((1, 2)) for i in rows for j in columns], axis=1)
