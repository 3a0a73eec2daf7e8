"""What a neuron sends on, given its drive: functions of `u [..., N]`, neurons last."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hebbjax.base import Array
from hebbjax.support import checks


def identity(u: Array) -> Array:
    """Send the drive itself: `u`."""
    return u


def relu(u: Array) -> Array:
    """Send the positive part: `max(u, 0)`."""
    return jax.nn.relu(u)


identity.rising = relu.rising = True  # so that they commute with maxima


def repu(n: float) -> Callable[[Array], Array]:
    """Build the rectified power unit: `max(u, 0)^n`, n >= 1 (Krotov & Hopfield 2019, Grinberg et al. 2019)."""
    checks.check_number('n', n, least=1)  # below it the slope at 0 is not finite
    if not checks.is_traced(n) and n == 1:
        return relu
    power = lambda u: _positive_power(u, n)  # noqa: E731
    power.rising = True
    return power


def _positive_power(u, n):
    # chosen twice: nothing sees the slope of a negative base, which is NaN, nor that at 0, which may be infinite
    return jnp.where(u <= 0, 0, jnp.where(u <= 0, 1, u) ** n)


def triangle(u: Array) -> Array:
    """Send what exceeds the mean over neurons: `max(u - mean_i(u_i), 0)` (Coates, Lee & Ng 2011)."""
    return jax.nn.relu(u - jnp.mean(u, axis=-1, keepdims=True))


def triangle_to(power: float) -> Callable[[Array], Array]:
    """Build the triangle to a power: `max(u - mean_i(u_i), 0)^power`, power > 0 (Journé et al. 2023)."""
    checks.check_number('power', power, above=0)
    return lambda u: _positive_power(triangle(u), power)


def send_credit(compete: Callable[[Any, Array], Array]) -> Callable[[Array], Array]:
    """Send what a competition that draws nothing gives, such as `send_credit(k_wta(5))`: 1 from winners, else 0."""
    return lambda u: compete(None, u.reshape(-1, u.shape[-1])).reshape(u.shape)
