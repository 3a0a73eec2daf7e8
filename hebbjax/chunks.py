"""Going through a batch some images at a time: the sums are the same, and little lies in memory at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax import checks
from hebbjax.types import Array

CACHE_FLOATS, DEVICE_FLOATS = 2**20, 2**28  # what one chunk may lay out: 4 MiB on a CPU, 1 GiB on an accelerator


def at_once(count: int, floats: int) -> int:
    """Say how many of `count` images to look at together, where one lays out so many numbers.

    As many as stay in a CPU's cache, or in a share of an accelerator's memory; a divisor of the count where one is
    near, so that no smaller chunk is left over; at least one.
    """
    room = CACHE_FLOATS if jax.default_backend() == 'cpu' else DEVICE_FLOATS
    most = max(1, room // floats)
    if most >= count:
        return count
    return next((size for size in range(most, most // 2, -1) if count % size == 0), most)


def memory() -> int:
    """Say how many bytes the default device can hold: its own limit, or the machine's memory."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get('bytes_limit') or checks.memory()


def fold(add: Callable, sums: Any, size: int, images: Array, teacher: Any = None) -> tuple[Any, Array]:
    """Go through a batch in chunks, in order, and add up.

    Args:
        add: (sums, number of the chunk, images, teacher) -> (sums, what is sent on [b, ...]).
        sums: to begin with.
        size: images per chunk; the last one may be smaller.
        images: [B, ...].
        teacher: pytree of [B, ...], or None.

    Returns:
        The sums, and what all chunks sent on [B, ...].
    """
    count = len(images)
    if size >= count:
        return add(sums, 0, images, teacher)
    whole = count // size
    cut = lambda a: a[: whole * size].reshape(whole, size, *a.shape[1:])  # noqa: E731
    parts = jax.tree.map(cut, (images, teacher))
    sums, sent = lax.scan(lambda sums, part: add(sums, part[0], *part[1]), sums, (jnp.arange(whole), parts))
    sent = sent.reshape(whole * size, *sent.shape[2:])
    if whole * size < count:
        sums, last = add(sums, whole, *jax.tree.map(lambda a: a[whole * size :], (images, teacher)))
        sent = jnp.concatenate([sent, last])
    return sums, sent
