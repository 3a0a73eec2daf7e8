"""Changing training images at random, on the device: (key, images [B, H, W, C]) -> images."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax import checks
from hebbjax.types import Array, Key


def flip(key: Key, images: Array) -> Array:
    """Mirror every second image on average, left to right: `x[b, i, W - 1 - j, c]`. [B, H, W, C] -> [B, H, W, C]."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def shift(most: int) -> Callable[[Key, Array], Array]:
    """Build shifts: each image moves by `(i, j)` pixels, uniform in `-most ... most`, and zeros come in at the edges.

    Args:
        most: pixels, down or up and right or left; 0 leaves images as they are.

    Raises:
        ValueError: if it is negative.
    """
    if not checks.is_count(most, 0):
        raise ValueError(
            f'images cannot be shifted by at most {checks.shown(most)} pixels; use a whole number, 0 or more.'
        )
    return _shift(int(most))


@functools.lru_cache(maxsize=64)  # the same shifts are the same function, so that what is built on them compiles once
def _shift(most):
    def move(key: Key, images: Array) -> Array:
        padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
        start = jax.random.randint(key, (len(images), 2), 0, 2 * most + 1)
        cut = lambda image, place: lax.dynamic_slice(image, (*place, 0), images.shape[1:])  # noqa: E731
        return jax.vmap(cut)(padded, start)

    return move
