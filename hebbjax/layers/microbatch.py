"""Going through a batch some images at a time: the sums are the same, and little lies in memory at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array

CACHE_FLOATS, DEVICE_FLOATS = 2**20, 2**28  # what a microbatch may lay out: 4 MiB on a CPU, 1 GiB on an accelerator


def scan_microbatches(add: Callable, stats: Any, size: int, images: Array, teacher: Any = None) -> tuple[Any, Array]:
    """Go through a batch [B, ...] in microbatches of `size`, the last smaller: stats, and all that was sent, in order.

    `add`: (stats, number of the microbatch, images, teacher) -> (stats, what is sent on).
    """
    count = len(images)
    if size >= count:
        return add(stats, 0, images, teacher)
    whole = count // size
    cut = lambda a: a[: whole * size].reshape(whole, size, *a.shape[1:])  # noqa: E731
    parts = jax.tree.map(cut, (images, teacher))
    # gradients compute each microbatch once more, so that only one is laid out
    step = jax.checkpoint(lambda stats, part: add(stats, part[0], *part[1]), prevent_cse=False)
    stats, sent = lax.scan(step, stats, (jnp.arange(whole), parts))
    sent = sent.reshape(whole * size, *sent.shape[2:])
    if whole * size < count:
        stats, last = add(stats, whole, *jax.tree.map(lambda a: a[whole * size :], (images, teacher)))
        sent = jnp.concatenate([sent, last])
    return stats, sent
