"""First weights: (key, (N, D)) -> w [N, D], for `Layer.initial`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hebbjax import checks
from hebbjax.types import Array, Key


def unit(key: Key, shape: tuple[int, int]) -> Array:
    """Draw directions uniformly: normal rows, scaled to length 1."""
    w = jax.random.normal(key, shape)
    return w / jnp.linalg.norm(w, axis=1, keepdims=True)


def fan_in(key: Key, shape: tuple[int, int]) -> Array:
    """Draw from U(-1/sqrt(D), 1/sqrt(D)), as PyTorch's layers start, and Amato et al. (2019) with them."""
    bound = shape[1] ** -0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def pruned(density: float) -> Callable[[Key, tuple[int, int]], Array]:
    """Build sparse directions: each connection exists with probability `density`, rows have length 1.

    Every unit keeps at least one connection (its own largest, where chance left it none; the authors' code leaves such
    a unit all zero, and its threshold then sinks until it wins what it cannot see). Chain `plasticity.masked()` before
    `plasticity.unit_rows()` to keep the pattern. Miconi 2021, section 2.3: density 0.01 in layers 2 and 3.

    Args:
        density: share of connections that exist, in (0, 1]; 1 prunes nothing.

    Raises:
        ValueError: if the density is outside (0, 1].
    """
    if checks.misfits(density, lambda density: 0 < density <= 1):
        raise ValueError(
            f'a density of {checks.shown(density)} leaves no connections to learn with; use 0 < density <= 1.'
        )

    def draw(key: Key, shape: tuple[int, int]) -> Array:
        weight_key, mask_key = jax.random.split(key)
        w = jax.random.normal(weight_key, shape)
        mask = jax.random.bernoulli(mask_key, jnp.asarray(density, w.dtype), shape)
        largest = jnp.arange(shape[1])[None] == jnp.argmax(jnp.abs(w), axis=1)[:, None]
        w = jnp.where(mask | (largest & ~mask.any(1, keepdims=True)), w, 0)
        return w / jnp.linalg.norm(w, axis=1, keepdims=True)

    return draw
