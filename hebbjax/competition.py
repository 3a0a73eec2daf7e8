"""Who learns: competitions between the neurons that look at one patch.

A competition turns drives `u [P, N]` into credit `y [P, N]`, row by row. Of equal drives the first neuron wins. A drive
of -inf is that of a neuron that takes no part, whether its teacher forbids it (`permitted`) or it sits a step out; it
gets no credit (`among_present`, `present`), however few take part.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax import checks
from hebbjax.types import Array, Competition, Key


def linear() -> Competition:
    """Let every neuron learn in proportion to its drive: `y = u`."""
    return lambda key, u: u


def relu() -> Competition:
    """Let every driven neuron learn in proportion to its drive: `y = max(u, 0)`."""
    return lambda key, u: jax.nn.relu(u)


def hard_wta() -> Competition:
    """Let the neuron with the largest drive learn: `y_i = 1 if i = argmax_j u_j else 0`."""
    return k_wta(1)


def k_wta(k: int, ties: str = 'first', above: float | None = None) -> Competition:
    """Let the k neurons with the largest drives learn alike: `y_i = 1 if rank(u_i) <= k else 0`.

    By default every patch has exactly k winners: of equal drives the first neuron wins, and the largest wins however
    low it is. Miconi's notebook decides otherwise, which `k_wta(1, ties='all', above=0.0)` gives.

    Args:
        k: winners per patch, from 1 to N; N lets everyone learn.
        ties: 'first' or 'all': whether all whose drive equals the k-th largest win.
        above: only drives (less thresholds) above this win; a patch may then have no winner. None: no such condition.

    Raises:
        ValueError: if k is below 1, or (when first traced) above the number of neurons; for other `ties`.
    """
    if not checks.is_count(k):
        raise ValueError(f'k_wta(k={checks.shown(k)}) leaves no winner; use a whole number k >= 1.')
    if above is not None and checks.misfits(above, lambda above: True):
        raise ValueError(f'no drive can be told to be above {checks.shown(above)}; use a finite number, or None.')
    if ties not in ('first', 'all'):
        raise ValueError(f"of equal drives the 'first' or 'all' win, not {ties!r}.")

    def compete(key: Key, u: Array) -> Array:
        fits(k, u.shape[1])
        won = among(u, k) if ties == 'first' else u >= largest(u, k)[0][:, k - 1 :]
        return (won if above is None else won & (u > above)).astype(u.dtype)

    return compete


def graded(fire: Callable[[Array], Array]) -> Competition:
    """Let neurons learn as they fire: `y = fire(u)`, u [P, N], such as `graded(activations.triangle)`.

    Args:
        fire: activation. Who takes no part has the drive -inf: relu, repu and softmax bear it, triangle does not, whose
            mean over neurons it makes infinite (and the weights with it: `Told.finite` says so).
    """
    return lambda key, u: fire(u)


def soft_wta(temperature) -> Competition:
    """Share one unit of credit by a softmax: `y = softmax(u / temperature)`.

    Args:
        temperature: in units of the drive; towards 0 the winner takes all, towards infinity all learn alike.

    Raises:
        ValueError: if it is not above 0.
    """
    if checks.misfits(temperature, lambda temperature: temperature > 0):
        raise ValueError(f'soft_wta({checks.shown(temperature)}) shares nothing; use a finite temperature above 0.')
    return lambda key, u: jax.nn.softmax(u / temperature, axis=-1)


def rank(k: int, delta) -> Competition:
    """Let the winner learn and the k-th unlearn: `y = 1` at rank 1, `-delta` at rank k, 0 elsewhere.

    Krotov & Hopfield 2019, equations 9 and 10. The dense form, for composing; `rules.krotov` adds the same two rows
    of every patch without the zeros between them.

    Args:
        k: the rank that unlearns, from 2 to N.
        delta: strength of the unlearning, relative to learning; 0 switches it off.

    Raises:
        ValueError: if k is below 2, or (when first traced) above the number of neurons.
    """
    check_rank('rank', k, delta)

    def compete(key: Key, u: Array) -> Array:
        fits(k, u.shape[1])
        order = present(*largest(u, k), u.shape[1])
        rows = jnp.arange(len(u))
        y = jnp.zeros_like(u).at[rows, order[:, 0]].set(1, mode='drop')
        return y.at[rows, order[:, k - 1]].set(-delta, mode='drop')

    return compete


def largest(u: Array, k: int) -> tuple[Array, Array]:
    """Find the k largest drives of each patch and whose they are, largest first, the first neuron first among equals.

    Three forms of the same answer, chosen by shape (2 CPU cores, k = 1, 2, 4, 7 of 2000 drives of 1024 patches:
    `lax.top_k` 3.0 to 5.9 ms, the form chosen 0.9 to 2.6 ms; benchmarks/NOTES.md):

    - few (k <= 4): a maximum and the first place that holds it, 2 k sweeps that vectorise;
    - many of very many: a tournament. Whoever is among the k largest plays in one of the k groups with the largest
      champions, so only those groups' members are ranked;
    - else `lax.top_k`.

    What a patch with a NaN drive gets is anything, -inf and some neuron say: maxima pass over NaN on a CPU. `learning`
    finds such patches. Where fewer than k take part, the rest are -inf and some neurons (`present`).

    Returns:
        values and indices, [P, k] each.
    """
    if k <= 4:
        return _by_sweeps(u, k, lax.broadcasted_iota(jnp.int32, u.shape, 1), u.shape[1] - 1)
    return _by_tournament(u, k) if u.shape[1] >= 4 * GROUP * k else _top_k(u, k)


def among(u: Array, k: int) -> Array:
    """Say which neurons have one of the k largest drives of each patch, the first among equals. [P, N] -> bool [P, N].

    A few are compared one by one, which vectorises; places of many are written.
    """
    _, order = largest(u, k)
    if k > 4:
        return jnp.zeros(u.shape, bool).at[jnp.arange(len(u))[:, None], order].set(True)
    neuron = lax.broadcasted_iota(jnp.int32, u.shape, 1)
    return functools.reduce(jnp.logical_or, (neuron == order[:, place : place + 1] for place in range(k)))


def permitted(v: Array, teacher: Array | None) -> Array:
    """Let only those take part whose teacher signal is above 0: `v_i = -inf` for the others.

    Args:
        v: drives less thresholds, [P, N].
        teacher: [P, N], or [P, 1] for all neurons alike; None: everyone takes part.
    """
    return v if teacher is None else jnp.where(teacher > 0, v, -jnp.inf)


def among_present(y: Array, v: Array) -> Array:
    """Give no credit to neurons that take no part: `y_i = 0 where v_i = -inf`. [P, N], [P, N] -> [P, N]."""
    return jnp.where(v == -jnp.inf, 0, y)


def present(values: Array, order: Array, neurons: int) -> Array:
    """Turn who is largest (`largest`) into whose row to write: N, nobody's and dropped, for who takes no part."""
    return jnp.where(values == -jnp.inf, neurons, order)


GROUP = 16  # neurons per group of the tournament


def _top_k(u, k):
    # The barrier keeps XLA from rewriting a top_k whose output is sliced into a full sort: 17 times slower on a CPU.
    return lax.optimization_barrier(lax.top_k(u, k))


def _by_sweeps(u, k, neuron, last):
    """Rank by maxima; `neuron` says whose each drive is, `last` is the last of them all."""
    values, indices, left = [], [], u
    for _ in range(k):
        value = jnp.max(left, 1, keepdims=True)
        index = jnp.min(jnp.where(left == value, neuron, last), 1, keepdims=True)
        values.append(value)
        indices.append(index)
        # ranked after (value, index): smaller, or equal and later
        left = jnp.where((u < value) | ((u == value) & (neuron > index)), u, -jnp.inf)
    return jnp.concatenate(values, 1), jnp.concatenate(indices, 1)


def _by_tournament(u, k):
    groups = -(-u.shape[1] // GROUP)
    full = jnp.pad(u, ((0, 0), (0, groups * GROUP - u.shape[1])), constant_values=-jnp.inf)
    full = full.reshape(len(u), groups, GROUP)
    _, chosen = _top_k(full.max(2), k)  # [P, k] groups with the largest champions
    members = jnp.take_along_axis(full, chosen[:, :, None], 1)  # [P, k, GROUP]
    neuron = chosen[:, :, None] * GROUP + lax.broadcasted_iota(jnp.int32, members.shape, 2)
    return _by_sweeps(members.reshape(len(u), -1), k, neuron.reshape(len(u), -1), u.shape[1] - 1)


def check_rank(name: str, k: int, delta) -> None:
    """Refuse a rank that unlearns, and a strength, that are none.

    Raises:
        ValueError: if k is no whole number of 2 or more, or delta not finite and 0 or more.
    """
    if not checks.is_count(k, 2):
        raise ValueError(
            f'{name}(k={checks.shown(k)}) would punish the winner itself; use a whole number from 2 to that of neurons.'
        )
    if checks.misfits(delta, lambda delta: delta >= 0):
        raise ValueError(
            f'{name}(delta={checks.shown(delta)}) has no strength to unlearn with; use a finite number, 0 or more.'
        )


def fits(k: int, neurons: int, least: int = 1) -> None:
    """Refuse to rank more neurons than there are.

    Raises:
        ValueError: if k is larger than the number of neurons; naming the least k that there may be.
    """
    if k > neurons:
        way = f'use k <= {neurons}' if neurons >= least else f'use a layer of {least} neurons or more'
        raise ValueError(f'k={k} is more than the {neurons} neurons that compete; {way}.')
