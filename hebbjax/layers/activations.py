"""What a neuron sends on, given its drive: functions of `u [..., N]`, neurons last."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array, Scalar
from hebbjax.support import checks

HALVINGS = 10  # of twice the range of drives, until a threshold is known


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

    def power(u):
        # relu first, inside and outside: the power never sees a negative base, whose gradient would be NaN
        return jnp.where(u > 0, jnp.where(u > 0, u, 1) ** n, 0)

    power.rising = True
    return power


def triangle(u: Array) -> Array:
    """Send what exceeds the mean over neurons: `max(u - mean_i(u_i), 0)` (Coates, Lee & Ng 2011)."""
    return jax.nn.relu(u - jnp.mean(u, axis=-1, keepdims=True))


def triangle_to(power: float) -> Callable[[Array], Array]:
    """Build the triangle to a power: `max(u - mean_i(u_i), 0)^power`, power > 0 (Journé et al. 2023)."""
    checks.check_number('power', power, above=0)

    def send(u):
        v = triangle(u)
        return jnp.where(v > 0, jnp.where(v > 0, v, 1) ** power, 0)  # chosen twice: its slope at 0 may be infinite

    return send


def both_signs(u: Array) -> Array:
    """Send every drive and its negative, as of twice as many neurons: `[u, -u]`. [..., N] -> [..., 2 N]."""
    return jnp.concatenate([u, -u], axis=-1)


def nearest(share: float, temperature: Scalar | None = None) -> Callable[[Array], Array]:
    """Let the share of neurons with the largest drives, at least one, send 1: `1 if u > theta else 0`, theta what so
    many exceed, to a 512th of their range. Of a temperature T softly: `1 / (1 + exp((theta - u) / T))`.

    Above `both_signs`, as many send as are nearest to a patch or to its negative (Thiry et al. 2021).

    Example:
        >>> nearest(0.5)(jnp.array([0.3, 0.9, 0.1, 0.5]))
        Array([0., 1., 0., 1.], dtype=float32)
    """
    checks.check_number('share', share, above=0, below=1)
    if temperature is not None:
        checks.check_number('temperature', temperature, above=0)

    def send(u):
        count, known = max(1, round(share * u.shape[-1])), lax.stop_gradient(u)

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            enough = jnp.sum(known > middle, -1, keepdims=True) >= count
            return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

        least, most = known.min(-1, keepdims=True), known.max(-1, keepdims=True)
        bounds = 2 * least - most, most  # the lowest, too, may be among those that send
        theta, _ = lax.fori_loop(0, HALVINGS, halve, bounds)  # ranking all neurons takes longer, on a CPU many times
        return (u > theta).astype(u.dtype) if temperature is None else jax.nn.sigmoid((u - theta) / temperature)

    return send


def send_credit(compete: Callable[[Any, Array], Array]) -> Callable[[Array], Array]:
    """Send what a competition that draws nothing gives, such as `send_credit(k_wta(5))`: 1 from winners, else 0."""
    return lambda u: compete(None, u.reshape(-1, u.shape[-1])).reshape(u.shape)
