"""What neurons send that stand for the entries of a dictionary: who is near to a patch (Thiry et al. 2021)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array, Scalar
from hebbjax.support import checks

HALVINGS = 10  # of twice the range of drives, until a threshold is known


def both_signs(u: Array) -> Array:
    """Send every drive and its negative, as of twice as many neurons: `[u, -u]`. [..., N] -> [..., 2 N]."""
    return jnp.concatenate([u, -u], axis=-1)


def nearest(share: float, temperature: Scalar | None = None) -> Callable[[Array], Array]:
    """Let the share of neurons with the largest drives, at least one, send 1: `1 if u > theta else 0`, theta what so
    many exceed, to a 512th of their range; where all are equal, nobody. Softly: `1 / (1 + exp((theta - u) / T))`.

    Above `both_signs`, as many send as are nearest to a patch or to its negative (Thiry et al. 2021).

    Example:
        >>> nearest(0.5)(jnp.array([0.3, 0.9, 0.1, 0.5]))
        Array([0., 1., 0., 1.], dtype=float32)
    """
    checks.check_number('share', share, above=0, below=1)
    checks.require(not checks.is_traced(share), 'share says how many send, and cannot be traced; give a number.')
    if temperature is not None:
        checks.check_number('temperature', temperature, above=0)

    def send(u):
        count, known = max(1, round(share * u.shape[-1])), lax.stop_gradient(u)

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            above = lax.population_count(jnp.packbits(known > middle, -1))  # eight at a time, twice as fast
            enough = jnp.sum(above, -1, keepdims=True, dtype=jnp.int32) >= count
            return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

        least, most = known.min(-1, keepdims=True), known.max(-1, keepdims=True)
        bounds = 2 * least - most, most  # the lowest, too, may be among those that send
        theta, _ = lax.fori_loop(0, HALVINGS, halve, bounds)  # ranking all neurons takes longer, on a CPU many times
        hard = jnp.where(jnp.isnan(u), u, (u > theta).astype(u.dtype))
        return hard if temperature is None else jax.nn.sigmoid((u - theta) / temperature)

    return send
