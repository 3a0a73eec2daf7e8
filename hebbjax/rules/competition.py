"""Who learns: competitions between the neurons that look at one patch.

A competition turns drives `u [P, N]` into credit `y [P, N]`, row by row. Of equal drives the first neuron wins. Who
takes no part, forbidden by a teacher or sitting the step out, has a drive of -inf and gets no credit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hebbjax.base import Array, Competition, Key
from hebbjax.rules.top_k import check_k, drop_absent, in_top_k, top_k
from hebbjax.support import checks


def linear() -> Competition:
    """Let every neuron learn in proportion to its drive: `y = u`."""
    return lambda key, u: u


def graded(activation: Callable[[Array], Array]) -> Competition:
    """Let neurons learn as they fire: `y = activation(u)`, such as relu; triangle bears no -inf of who is absent."""
    return lambda key, u: activation(u)


def hard_wta() -> Competition:
    """Let the neuron with the largest drive learn: `y_i = 1 if i = argmax_j u_j else 0`."""
    return k_wta(1)


def k_wta(k: int, ties: str = 'first', above: float | None = None) -> Competition:
    """Let the k neurons with the largest drives learn alike: `y_i = 1 if rank(u_i) <= k else 0`.

    `ties`: of equal drives the 'first' neuron wins, or 'all' that equal the k-th largest. `above`: only drives (less
    thresholds) above this win; None: exactly k win, however low. Miconi's notebook: `k_wta(1, 'all', above=0.0)`.

    Example:
        >>> jax.jit(k_wta(2))(jax.random.key(0), jnp.array([[0.3, 0.9, 0.1, 0.5]]))
        Array([[0., 1., 0., 1.]], dtype=float32)
    """
    checks.require(checks.is_count(k), f'k_wta(k={checks.show(k)}) leaves no winner; use a whole number k >= 1.')
    fits = above is None or not checks.is_misfit(above, lambda above: True)
    checks.require(fits, f'no drive can be told to be above {checks.show(above)}; use a finite number, or None.')
    checks.require(ties in ('first', 'all'), f"of equal drives the 'first' or 'all' win, not {ties!r}.")

    def compete(key: Key, u: Array) -> Array:
        check_k(k, u.shape[1])
        won = in_top_k(u, k) if ties == 'first' else u >= top_k(u, k)[0][:, k - 1 :]
        return (won if above is None else won & (u > above)).astype(u.dtype)

    return compete


def soft_wta(temperature) -> Competition:
    """Share one unit of credit by a softmax: `y = softmax(u / temperature)`, the temperature in units of the drive."""
    fits = not checks.is_misfit(temperature, lambda temperature: temperature > 0)
    checks.require(fits, f'soft_wta({checks.show(temperature)}) shares nothing; use a finite temperature above 0.')
    return lambda key, u: jax.nn.softmax(u / temperature, axis=-1)


def krotov_ranks(k: int, delta) -> Competition:
    """Let the winner learn and the k-th unlearn: `y = 1` at rank 1, `-delta` at rank k, else 0; see `krotov`."""
    check_rank('krotov_ranks', k, delta)

    def compete(key: Key, u: Array) -> Array:
        check_k(k, u.shape[1])
        order, patch = drop_absent(*top_k(u, k), u.shape[1]), jnp.arange(len(u))
        y = jnp.zeros_like(u).at[patch, order[:, 0]].set(1, mode='drop')
        return y.at[patch, order[:, k - 1]].set(-delta, mode='drop')

    return compete


def check_rank(name: str, k: int, delta) -> None:
    """Refuse a rank that unlearns, or its strength, that is none."""
    way = 'use a whole number from 2 to that of neurons'
    checks.require(checks.is_count(k, 2), f'{name}(k={checks.show(k)}) would punish the winner itself; {way}.')
    fits = not checks.is_misfit(delta, lambda delta: delta >= 0)
    way = 'use a finite number, 0 or more'
    checks.require(fits, f'{name}(delta={checks.show(delta)}) has no strength to unlearn with; {way}.')


def subtract_threshold(u: Array, threshold: Array | None) -> Array:
    """Subtract thresholds from drives: `u - threshold`. [..., N], [N] or None -> [..., N]."""
    return u if threshold is None else u - jnp.expand_dims(threshold, tuple(range(u.ndim - 1)))


def competing_drives(u: Array, teacher: Array | None, threshold: Array | None) -> Array:
    """Give what neurons compete by: `v = u - threshold` [P, N], -inf where a teacher [P, N or 1] signals 0 or less."""
    v = subtract_threshold(u, threshold)
    return v if teacher is None else jnp.where(teacher > 0, v, -jnp.inf)


def zero_absent(y: Array, v: Array) -> Array:
    """Give no credit to neurons that take no part: `y_i = 0 where v_i = -inf`. [P, N], [P, N] -> [P, N]."""
    return jnp.where(v == -jnp.inf, 0, y)
