"""The k largest drives of each patch, in the form that suits their number."""

import functools

import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array
from hebbjax.rules.products import by_backend
from hebbjax.support import checks, specs

GROUP = 16  # neurons per group of the tournament


@specs.compiled_once('k')
def top_k(u: Array, k: int) -> tuple[Array, Array]:
    """Find the k largest drives of each patch and whose they are, largest first, the first neuron first among equals.

    Where fewer than k take part the rest are -inf and any neurons, of a NaN drive any. -> values, indices [P, k].

    Four forms, chosen by backend and shape: argmax, for one; 2 k sweeps, a maximum and the first place that holds it; a
    tournament, since whoever is among the k largest plays in one of the k groups with the largest champions, so only
    those are ranked; `lax.top_k`. What each takes, on a CPU and a GPU: benchmarks/NOTES.md.
    """
    cpu = elsewhere = by_ranking
    if u.shape[1] >= 4 * GROUP * max(k, 5):
        cpu = by_tournament
    elif k <= 4:
        cpu = by_sweeps
    if k <= 8:
        elsewhere = by_argmax if k == 1 else by_sweeps
    return by_backend(cpu, elsewhere, u, k=k)


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


def by_ranking(u: Array, k: int) -> tuple[Array, Array]:
    """Do what `top_k` does by XLA's own."""
    # The barrier keeps XLA from rewriting a top_k whose output is sliced into a full sort: 17 times slower on a CPU.
    # One for each output, since XLA falls over the two in one where it has no top_k, as of float64.
    values, indices = lax.top_k(u, k)
    return lax.optimization_barrier(values), lax.optimization_barrier(indices)


def by_argmax(u: Array, k: int) -> tuple[Array, Array]:
    """Do what `top_k` does for k = 1 in one pass, which vectorises on accelerators."""
    index = lax.argmax(u, 1, jnp.int32)[:, None]
    return jnp.take_along_axis(u, index, 1), index


def by_sweeps(u: Array, k: int, neuron: Array | None = None, last: int | None = None) -> tuple[Array, Array]:
    """Do what `top_k` does by 2 k sweeps; `neuron` [P, N] says whose each drive is, `last` is the last of them all."""
    if neuron is None:
        neuron, last = lax.broadcasted_iota(jnp.int32, u.shape, 1), u.shape[1] - 1
    values, indices, unranked = [], [], u
    for _ in range(k):
        value = jnp.max(unranked, 1, keepdims=True)
        index = jnp.min(jnp.where(unranked == value, neuron, last), 1, keepdims=True)
        values.append(value)
        indices.append(index)
        # ranked after (value, index): smaller, or equal and later
        unranked = jnp.where((u < value) | ((u == value) & (neuron > index)), u, -jnp.inf)
    return jnp.concatenate(values, 1), jnp.concatenate(indices, 1)


def by_tournament(u: Array, k: int) -> tuple[Array, Array]:
    """Do what `top_k` does by groups: of each the champion, then of the groups with the largest ones all members."""
    groups = -(-u.shape[1] // GROUP)
    full = jnp.pad(u, ((0, 0), (0, groups * GROUP - u.shape[1])), constant_values=-jnp.inf)
    full = full.reshape(len(u), groups, GROUP)
    _, chosen = by_ranking(full.max(2), k)  # [P, k] groups with the largest champions
    members = jnp.take_along_axis(full, chosen[:, :, None], 1)  # [P, k, GROUP]
    neuron = chosen[:, :, None] * GROUP + lax.broadcasted_iota(jnp.int32, members.shape, 2)
    return by_sweeps(members.reshape(len(u), -1), k, neuron.reshape(len(u), -1), u.shape[1] - 1)
