"""What can be measured of a bank of neurons: pure functions of weights and win counts, safe under jit and vmap.

No single one of them sees everything: a bank whose filters are all the same has converged perfectly.
"""

import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array, Scalar


def win_share(win_counts: Array) -> Array:
    """Give each neuron's share of all wins, `wins / sum(wins)`; all zero where nobody won. [N] -> [N]."""
    total = jnp.sum(win_counts := jnp.asarray(win_counts, float))  # of whole numbers it would end at 2^31
    return win_counts / jnp.where(total > 0, total, 1)


def win_entropy(win_counts: Array) -> Array:
    """Give the entropy of win shares, `-sum_i s_i log s_i / log N`: 1 if all win alike (or N = 1), 0 if one wins."""
    share = win_share(win_counts)
    entropy = -jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1)))
    return entropy / jnp.log(len(win_counts)) if len(win_counts) > 1 else jnp.ones_like(entropy)


def distinct_winners(win_counts: Array) -> Array:
    """Count the neurons that won at least once. [N] -> int scalar."""
    return jnp.sum(win_counts > 0)


def nearest_cosine(w: Array) -> Array:
    """Give each neuron's cosine to the neuron most like it: `max_{j != i} cos(w_i, w_j)`. [N, D] -> [N].

    Near 1 for most neurons: the bank has collapsed into copies.
    """
    length = jnp.linalg.norm(w, axis=1, keepdims=True)
    unit = w / jnp.where(length > 0, length, 1)
    cosine = jnp.matmul(unit, unit.T, precision=lax.Precision.HIGHEST)
    return jnp.max(jnp.where(jnp.eye(len(w), dtype=bool), -1, cosine), axis=1)


def unit_convergence(w: Array, p: Scalar = 2.0, tolerance: Scalar = 0.1) -> Array:
    """Give the share of neurons on the p-sphere, two-sided: `|sum_d |w_id|^p - 1| < tolerance`. [N, D] -> scalar."""
    return jnp.mean(jnp.abs(jnp.sum(jnp.abs(w) ** p, axis=1) - 1) < tolerance)
