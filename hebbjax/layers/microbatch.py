"""Going through a batch some images at a time: the sums are the same, and little lies in memory at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array
from hebbjax.support import checks

CACHE_FLOATS, DEVICE_FLOATS = 2**20, 2**28  # what a microbatch may lay out: 4 MiB on a CPU, 1 GiB on an accelerator


def microbatch_size(count: int, floats: int) -> int:
    """Say how many of `count` images to look at together, where one lays out so many numbers; a near divisor of it."""
    most = max(1, (CACHE_FLOATS if jax.default_backend() == 'cpu' else DEVICE_FLOATS) // floats)
    if most >= count:
        return count
    return next((size for size in range(most, most // 2, -1) if count % size == 0), most)


def device_memory() -> int:
    """Say how many bytes the default device can hold: its own limit, or the machine's memory."""
    return (jax.devices()[0].memory_stats() or {}).get('bytes_limit') or checks.host_memory()


def scan_microbatches(add: Callable, stats: Any, size: int, images: Array, teacher: Any = None) -> tuple[Any, Array]:
    """Go through a batch [B, ...] in microbatches of `size`, the last one smaller, in order, and add up.

    `add`: (stats, number of the microbatch, images, teacher) -> (stats, what is sent on). -> stats, all that was sent.
    """
    count = len(images)
    if size >= count:
        return add(stats, 0, images, teacher)
    whole = count // size
    cut = lambda a: a[: whole * size].reshape(whole, size, *a.shape[1:])  # noqa: E731
    parts = jax.tree.map(cut, (images, teacher))
    stats, sent = lax.scan(lambda stats, part: add(stats, part[0], *part[1]), stats, (jnp.arange(whole), parts))
    sent = sent.reshape(whole * size, *sent.shape[2:])
    if whole * size < count:
        stats, last = add(stats, whole, *jax.tree.map(lambda a: a[whole * size :], (images, teacher)))
        sent = jnp.concatenate([sent, last])
    return stats, sent


def map_blocks(f: Callable, inputs: Any, block: int = 100) -> Any:
    """Apply a function of rows to a pytree of [n, ...], some at a time, with memory for one block beside the output."""
    count = len(jax.tree.leaves(inputs)[0])
    block = min(block, count)

    def answer(start):
        return f(jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, block), inputs))

    def write(number, outputs):
        start = jnp.minimum(number * block, count - block)  # the last block reaches back over rows already done
        return jax.tree.map(lambda a, b: lax.dynamic_update_slice_in_dim(a, b, start, 0), outputs, answer(start))

    empty = lambda part: jnp.zeros((count, *part.shape[1:]), part.dtype)  # noqa: E731
    return lax.fori_loop(0, -(-count // block), write, jax.tree.map(empty, jax.eval_shape(lambda: answer(0))))
