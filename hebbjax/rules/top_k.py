"""The k largest drives of each patch, in the form that suits their number."""

import functools

import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array
from hebbjax.support import checks

GROUP = 16  # neurons per group of the tournament


def top_k(u: Array, k: int) -> tuple[Array, Array]:
    """Find the k largest drives of each patch and whose they are, largest first, the first neuron first among equals.

    Three forms, chosen by shape (benchmarks/NOTES.md). Few (k <= 4): a maximum and the first place that holds it, 2 k
    sweeps that vectorise. Many of very many: a tournament; whoever is among the k largest plays in one of the k groups
    with the largest champions, so only those are ranked. Else `lax.top_k`. Of a NaN drive, and where fewer than k take
    part, the rest are -inf and any neurons. -> values, indices [P, k].
    """
    if k <= 4:
        return _by_sweeps(u, k, lax.broadcasted_iota(jnp.int32, u.shape, 1), u.shape[1] - 1)
    return _by_tournament(u, k) if u.shape[1] >= 4 * GROUP * k else _top_k(u, k)


def in_top_k(u: Array, k: int) -> Array:
    """Say which neurons have one of the k largest drives of each patch, the first among equals. [P, N] -> bool."""
    _, order = top_k(u, k)
    if k > 4:  # few are compared one by one, which vectorises; places of many are written
        return jnp.zeros(u.shape, bool).at[jnp.arange(len(u))[:, None], order].set(True)
    neuron = lax.broadcasted_iota(jnp.int32, u.shape, 1)
    return functools.reduce(jnp.logical_or, (neuron == order[:, place : place + 1] for place in range(k)))


def drop_absent(values: Array, order: Array, neurons: int) -> Array:
    """Turn who is largest (`top_k`) into whose row to write: N, nobody's and dropped, for who takes no part."""
    return jnp.where(values == -jnp.inf, neurons, order)


def check_k(k: int, neurons: int) -> None:
    """Refuse to rank more neurons than there are."""
    checks.require(k <= neurons, f'k={k} is more than the {neurons} neurons that compete; use a smaller k, or more.')


def _top_k(u, k):
    # The barrier keeps XLA from rewriting a top_k whose output is sliced into a full sort: 17 times slower on a CPU.
    return lax.optimization_barrier(lax.top_k(u, k))


def _by_sweeps(u, k, neuron, last):
    """Rank by maxima; `neuron` says whose each drive is, `last` is the last of them all."""
    values, indices, unranked = [], [], u
    for _ in range(k):
        value = jnp.max(unranked, 1, keepdims=True)
        index = jnp.min(jnp.where(unranked == value, neuron, last), 1, keepdims=True)
        values.append(value)
        indices.append(index)
        # ranked after (value, index): smaller, or equal and later
        unranked = jnp.where((u < value) | ((u == value) & (neuron > index)), u, -jnp.inf)
    return jnp.concatenate(values, 1), jnp.concatenate(indices, 1)


def _by_tournament(u, k):
    groups = -(-u.shape[1] // GROUP)
    full = jnp.pad(u, ((0, 0), (0, groups * GROUP - u.shape[1])), constant_values=-jnp.inf)
    full = full.reshape(len(u), groups, GROUP)
    _, chosen = _top_k(full.max(2), k)  # [P, k] groups with the largest champions
    members = jnp.take_along_axis(full, chosen[:, :, None], 1)  # [P, k, GROUP]
    neuron = chosen[:, :, None] * GROUP + lax.broadcasted_iota(jnp.int32, members.shape, 2)
    return _by_sweeps(members.reshape(len(u), -1), k, neuron.reshape(len(u), -1), u.shape[1] - 1)
