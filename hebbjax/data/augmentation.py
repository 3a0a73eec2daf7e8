"""Changing training images at random, on the device: (key, images [B, H, W, C]) -> images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array, Key
from hebbjax.support import checks


def random_flip(key: Key, images: Array) -> Array:
    """Mirror every second image on average, left to right: `x[b, i, W - 1 - j, c]`. [B, H, W, C] -> [B, H, W, C]."""
    return jnp.where(jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1)), images[:, :, ::-1], images)


def random_shift(most: int) -> Callable[[Key, Array], Array]:
    """Build shifts: each image moves by `(i, j)` pixels, uniform in -most ... most, and zeros come in at the edges."""
    checks.check_count('most', most, 0)
    most = int(most)

    def shift(key: Key, images: Array) -> Array:
        padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
        corners = jax.random.randint(key, (len(images), 2), 0, 2 * most + 1)
        cut = lambda image, corner: lax.dynamic_slice(image, (*corner, 0), images.shape[1:])  # noqa: E731
        return jax.vmap(cut)(padded, corners)

    return shift
