"""First weights: (key, (N, D)) -> w [N, D], for `Layer.init`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hebbjax.base import Array, Key
from hebbjax.support import checks

zeros = jax.nn.initializers.zeros  # as biases start


def fan_in(key: Key, shape: tuple[int, int]) -> Array:
    """Draw from U(-1/sqrt(D), 1/sqrt(D)), as PyTorch's layers start, and Amato et al. (2019) with them."""
    bound = shape[1] ** -0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def scaled_normal(radius: float) -> Callable[[Key, tuple[int, int]], Array]:
    """Build normal weights whose rows have an expected length: N(0, (radius / sqrt(D))^2) (Journé et al. 2023)."""
    checks.check_number('radius', radius, above=0)
    return lambda key, shape: radius * shape[1] ** -0.5 * jax.random.normal(key, shape)


def pruned(density: float) -> Callable[[Key, tuple[int, int]], Array]:
    """Build sparse directions: each connection exists with probability `density` in (0, 1], rows have length 1.

    A unit that would have none keeps its largest connection (in the authors' code it has none). To keep the pattern,
    chain `transforms.keep_pruned()`. Miconi 2021, section 2.3: density 0.01 in layers 2 and 3.
    """
    checks.check_number('density', density, above=0, most=1)

    def draw(key: Key, shape: tuple[int, int]) -> Array:
        weight_key, mask_key = jax.random.split(key)
        w = jax.random.normal(weight_key, shape)
        mask = jax.random.bernoulli(mask_key, jnp.asarray(density, w.dtype), shape)
        largest = jnp.arange(shape[1])[None] == jnp.argmax(jnp.abs(w), axis=1)[:, None]
        w = jnp.where(mask | (largest & ~mask.any(1, keepdims=True)), w, 0)
        return w / jnp.linalg.norm(w, axis=1, keepdims=True)

    return draw
