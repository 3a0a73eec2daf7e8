"""Who learns: competitions between the neurons that look at one patch.

A competition turns drives `u [P, N]` into credit `y [P, N]`, row by row. Of equal drives the first neuron wins. Who
takes no part, forbidden by a teacher or sitting the step out, has a drive of -inf and gets no credit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hebbjax.base import Array, Competition, Key, Scalar
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
    checks.check_count('k', k)
    checks.check_choice('ties', ties, ('first', 'all'))
    if above is not None:
        checks.check_number('above', above)

    def compete(key: Key, u: Array) -> Array:
        check_k(k, u.shape[1])
        won = in_top_k(u, k) if ties == 'first' else u >= top_k(u, k)[0][:, k - 1 :]
        return (won if above is None else won & (u > above)).astype(u.dtype)

    return compete


def soft_wta(temperature: Scalar) -> Competition:
    """Share one unit of credit by a softmax: `y = softmax(u / temperature)`, the temperature in units of the drive."""
    checks.check_number('temperature', temperature, above=0)

    def compete(key: Key, u: Array) -> Array:
        here = u != -jnp.inf  # of -inf / temperature the slope would be NaN
        return jax.nn.softmax(jnp.where(here, u, 0) / temperature, axis=-1, where=here)

    return compete


def signed_soft_wta(temperature: Scalar) -> Competition:
    """Let the winner learn by its share of a softmax, and all others unlearn by theirs (Journé et al. 2023):

    `s = softmax(u / temperature)`, `y_i = s_i if i = argmax_j u_j else -s_i`.
    """
    share = soft_wta(temperature)

    def compete(key: Key, u: Array) -> Array:
        s = share(key, u)
        return jnp.where(in_top_k(u, 1), s, -s)

    return compete


def krotov_ranks(k: int, delta: Scalar) -> Competition:
    """Let the winner learn and the k-th unlearn: `y = 1` at rank 1, `-delta` at rank k, else 0; see `krotov`."""
    checks.check_count('k', k, 2)
    checks.check_number('delta', delta, least=0)

    def compete(key: Key, u: Array) -> Array:
        check_k(k, u.shape[1])
        order, patch = drop_absent(*top_k(u, k), u.shape[1]), jnp.arange(len(u))
        y = jnp.zeros_like(u).at[patch, order[:, 0]].set(1, mode='drop')
        return y.at[patch, order[:, k - 1]].set(-delta, mode='drop')

    return compete


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
