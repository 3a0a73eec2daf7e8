"""Going through a batch some images, or rows, at a time: the sums are the same, and little lies in memory at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array
from hebbjax.layers.chain import Shape
from hebbjax.layers.patches import Grid, lay_grid
from hebbjax.rules.products import backend_in_use

# numbers that may lie in memory at once: 4 MiB on a CPU, 256 MiB of one image alone; 1 GiB on an accelerator
CACHE_FLOATS, IMAGE_FLOATS, DEVICE_FLOATS = 2**20, 2**26, 2**28


def microbatch_of(layer: Any, shape: Shape) -> int:
    """Say how many images a step looks at together: `Layer.microbatch`, or what suits the backend and the shape."""
    batch, g = shape[0], lay_grid(layer.window, shape[1:])
    if layer.microbatch is not None or g.out == (1, 1):
        return min(layer.microbatch or batch, batch)  # a dense layer's product reads all its weights for every one
    # each reads all weights, and writes what they are to change by: it looks at as many numbers as these
    fill = max(CACHE_FLOATS, layer.features * g.inputs) if backend_in_use() == 'cpu' else DEVICE_FLOATS
    most = max(1, fill // floats_of(layer, g))
    return batch if most >= batch else next((n for n in range(most, most // 2, -1) if batch % n == 0), most)


def bands_of(layer: Any, shape: Shape) -> int:
    """Say in how many bands of rows a step looks at its images: one, unless a single image lays out too much."""
    g = lay_grid(layer.window, shape[1:])
    floats, most = floats_of(layer, g), IMAGE_FLOATS if backend_in_use() == 'cpu' else DEVICE_FLOATS
    least = 1 if layer.rule.sequential else min(-(-floats // most), g.out[0])
    return next(n for n in range(least, g.out[0] + 1) if g.out[0] % n == 0)


def floats_of(layer: Any, grid: Grid) -> int:
    """Count an image's patches and drives; for an accelerator, which gets its fill, with all copies in a program."""
    patches, drives = (1, 1) if backend_in_use() == 'cpu' else (2, 5)
    return grid.out[0] * grid.out[1] * (patches * grid.inputs + drives * layer.features)


def scan_microbatches(add: Callable, stats: Any, size: int, images: Array, teacher: Any = None) -> tuple[Any, Array]:
    """Go through a batch [B, ...] in microbatches of `size`, the last smaller: stats, and all that was sent, in order.

    `add`: (stats, number of the microbatch, images, teacher) -> (stats, what is sent on).
    """
    count = len(images)
    if size >= count:
        return add(stats, 0, images, teacher)
    whole = count // size
    parts = jax.tree.map(lambda a: a[: whole * size].reshape(whole, size, *a.shape[1:]), (images, teacher))
    # gradients compute each microbatch once more, so that only one is laid out
    step = jax.checkpoint(lambda stats, part: add(stats, part[0], *part[1]), prevent_cse=False)
    stats, sent = lax.scan(step, stats, (jnp.arange(whole), parts))
    sent = sent.reshape(whole * size, *sent.shape[2:])
    if whole * size < count:
        stats, last = add(stats, whole, *jax.tree.map(lambda a: a[whole * size :], (images, teacher)))
        sent = jnp.concatenate([sent, last])
    return stats, sent
