"""Changing training images at random, on the device: (key, images [B, H, W, C]) -> images."""

import jax
import jax.numpy as jnp

from hebbjax.types import Array, Key


def flip(key: Key, images: Array) -> Array:
    """Mirror every second image on average, left to right: `x[b, i, W - 1 - j, c]`. [B, H, W, C] -> [B, H, W, C]."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)
