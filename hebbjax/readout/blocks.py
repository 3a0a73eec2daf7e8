"""Going through a whole data set in blocks of rows: what networks answer, with memory for one block at a time."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hebbjax.base import AnyArray, Array


def block_size(count: int, most: int) -> int:
    """Say how many of so many images are answered at once: `most`; of fewer a round number, so that programs serve."""
    bits = (count - 1).bit_length()  # up to 64 a power of two, up to 1024 a multiple of 64, then an eighth more at most
    return min(most, -(-max(count, 1) // (step := 1 << max(min(bits, 6), bits - 4))) * step)


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


def cut_blocks(images: AnyArray, block: int) -> Iterator[tuple[AnyArray, slice]]:
    """Cut images into blocks of one size, so that one program serves all. -> a block, and which of its rows are new.

    The last block reaches back over images that were in the one before; fewer than a block are filled up.
    """
    count = len(images)
    if count < block:
        images = np.pad(images, ((0, block - count), *((0, 0),) * (images.ndim - 1)))
    for start in range(0, count, block):
        first = min(start, len(images) - block)
        yield images[first : first + block], slice(start - first, min(count - first, block))


def over_blocks(f: Callable[[Array], Array], images: AnyArray, block: int | None = None) -> np.ndarray:
    """Give `f` of all images on the host, of one block after the other: 256, or 2**22 values. -> [n, ...]."""
    block = block or block_size(len(images), max(1, min(256, 2**22 // math.prod(images.shape[1:]))))
    return np.concatenate([np.asarray(f(part))[new] for part, new in cut_blocks(images, block)])
