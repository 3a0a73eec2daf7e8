"""What a neuron sends on, given its drive: functions of `u [..., N]`, neurons last."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hebbjax import checks
from hebbjax.types import Array

Activation = Callable[[Array], Array]


def identity(u: Array) -> Array:
    """Send the drive itself: `u`."""
    return u


def relu(u: Array) -> Array:
    """Send the positive part: `max(u, 0)`."""
    return jax.nn.relu(u)


def repu(n) -> Activation:
    """Build the rectified power unit: `max(u, 0)^n` (Krotov & Hopfield 2019, Grinberg et al. 2019).

    Args:
        n: the power, 1 or more; 1 is relu, larger powers favour the strongest neurons. Below 1 the slope at 0 is
            infinite, so it is refused.

    Raises:
        ValueError: if n is below 1.
    """
    if checks.misfits(n, lambda n: n >= 1):
        raise ValueError(f'repu(n={checks.shown(n)}) has no finite slope at 0, or no power; use a finite n >= 1.')
    if not checks.is_traced(n) and n == 1:
        return relu

    def power(u):
        # relu first, inside and outside: the power never sees a negative base, whose gradient would be NaN.
        return jnp.where(u > 0, jnp.where(u > 0, u, 1) ** n, 0)

    return power


def softmax(temperature) -> Activation:
    """Build the normalised exponential over neurons: `softmax(u / temperature)`.

    Raises:
        ValueError: if the temperature is not above 0.
    """
    if checks.misfits(temperature, lambda temperature: temperature > 0):
        raise ValueError(
            f'a softmax at temperature {checks.shown(temperature)} is none; use a finite temperature above 0.'
        )
    return lambda u: jax.nn.softmax(u / temperature, axis=-1)


def triangle(u: Array) -> Array:
    """Send what exceeds the mean over neurons: `max(u - mean_i(u_i), 0)` (Coates, Lee & Ng 2011)."""
    return jax.nn.relu(u - jnp.mean(u, axis=-1, keepdims=True))


def credit(compete: Callable[[None, Array], Array]) -> Activation:
    """Send what a competition gives, such as `credit(competition.k_wta(5))`: 1 from winners, 0 from the others.

    Args:
        compete: a competition that draws nothing: it gets no key. Its rows are patches.
    """
    return lambda u: compete(None, u.reshape(-1, u.shape[-1])).reshape(u.shape)
