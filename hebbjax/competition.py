"""Who learns: competitions between the neurons that look at one patch.

A competition turns drives `u [P, N]` into credit `y [P, N]`, row by row. Of equal drives the first neuron wins.
"""

import jax
import jax.numpy as jnp
from jax import lax

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


def k_wta(k: int) -> Competition:
    """Let the k neurons with the largest drives learn alike: `y_i = 1 if rank(u_i) <= k else 0`.

    Args:
        k: winners per patch, from 1 to N; N lets everyone learn.

    Raises:
        ValueError: if k is below 1, or (when first traced) above the number of neurons.
    """
    if k < 1:
        raise ValueError(f'k_wta(k={k}) leaves no winner; use k >= 1.')

    def compete(key: Key, u: Array) -> Array:
        fits(k, u.shape[1])
        _, order = largest(u, k)
        return jnp.zeros_like(u).at[jnp.arange(len(u))[:, None], order].set(1)

    return compete


def soft_wta(temperature) -> Competition:
    """Share one unit of credit by a softmax: `y = softmax(u / temperature)`.

    Args:
        temperature: in units of the drive; towards 0 the winner takes all, towards infinity all learn alike.
    """
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
    if k < 2:
        raise ValueError(f'rank(k={k}) would punish the winner itself; use k >= 2.')

    def compete(key: Key, u: Array) -> Array:
        fits(k, u.shape[1])
        _, order = largest(u, k)
        rows = jnp.arange(len(u))
        return jnp.zeros_like(u).at[rows, order[:, 0]].set(1).at[rows, order[:, k - 1]].set(-delta)

    return compete


def largest(u: Array, k: int) -> tuple[Array, Array]:
    """Find the k largest drives of each patch and whose they are, largest first, the first neuron first among equals.

    Returns:
        values and indices, [P, k] each.
    """
    # The barrier keeps XLA from rewriting a top_k whose output is sliced into a full sort: 17 times slower on a CPU.
    return lax.optimization_barrier(lax.top_k(u, k))


def fits(k: int, neurons: int) -> None:
    """Refuse to rank more neurons than there are.

    Raises:
        ValueError: if k is larger than the number of neurons.
    """
    if k > neurons:
        raise ValueError(f'k={k} is more than the {neurons} neurons that compete; use k <= {neurons}.')
