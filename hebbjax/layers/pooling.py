"""Making maps smaller: maxima and means over blocks. [B, H, W, N] in, neurons last."""

import dataclasses

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
