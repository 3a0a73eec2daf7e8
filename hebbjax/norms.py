"""Batch normalisation between layers: by the batch while a layer learns, by running averages when it answers."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax import checks
from hebbjax.types import Array, Key


def ones(key: Key, shape: tuple[int]) -> Array:
    """Start scales at 1, as today's frameworks do."""
    return jnp.ones(shape)


def uniform(key: Key, shape: tuple[int]) -> Array:
    """Draw scales from U(0, 1), as PyTorch 1.0 did.

    A Hebbian layer never learns them, so every published number of Amato et al. (2019) has such scales between its
    Hebbian layers: an accident, and a network of its own.
    """
    return jax.random.uniform(key, shape)


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation of what a layer sends on, per neuron, over the batch and all positions:

        z = scale (x - mean) / sqrt(var + epsilon) + shift

    Hebbian learning leaves scale and shift as they were drawn; gradients learn them.

    Attributes:
        scale: (key, (N,)) -> first scales: `ones` or `uniform`.
        momentum: what running averages keep of themselves per batch, in [0, 1).
        epsilon: added to the variance.

    Raises:
        ValueError: if the momentum is outside [0, 1) or epsilon not above 0.
    """

    scale: Callable[[Key, tuple[int]], Array] = ones
    momentum: float = 0.9
    epsilon: float = 1e-5

    def __post_init__(self):
        if checks.misfits(self.momentum, lambda share: 0 <= share < 1):
            raise ValueError(
                f'momentum {checks.shown(self.momentum)} of running averages is out of range; use 0 <= momentum < 1.'
            )
        if checks.misfits(self.epsilon, lambda variance: variance > 0):
            raise ValueError(
                f'epsilon={checks.shown(self.epsilon)} would divide by variances that are zero; use a number above 0.'
            )


class NormState(NamedTuple):
    """What batch normalisation has."""

    scale: Array  # [N]
    shift: Array  # [N]
    mean: Array  # [N] running
    var: Array  # [N] running, unbiased


def init(norm: BatchNorm, key: Key, neurons: int) -> NormState:
    """Draw the scales; running averages start at mean 0 and variance 1."""
    zeros, scale = jnp.zeros(neurons), norm.scale(key, (neurons,))
    return NormState(scale, zeros, zeros, jnp.ones(neurons))


def apply(norm: BatchNorm, state: NormState, x: Array) -> Array:
    """Normalise by the running averages; nothing changes. [..., N] -> [..., N]."""
    return _scaled(norm, state, x, state.mean, state.var)


def learn(norm: BatchNorm, state: NormState, x: Array) -> tuple[Array, NormState]:
    """Normalise by the batch, and let it move the running averages. [..., N] -> ([..., N], state)."""
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    mean = x.mean(axes)
    var = jnp.square(x - _spread(mean, x)).mean(axes)
    unbiased = var * (count / max(count - 1, 1))
    step = lambda old, new: norm.momentum * old + (1 - norm.momentum) * lax.stop_gradient(new)  # noqa: E731
    moved = state._replace(mean=step(state.mean, mean), var=step(state.var, unbiased))
    return _scaled(norm, state, x, mean, var), moved


def _scaled(norm, state, x, mean, var):
    # as one multiplication and one addition: scale / sqrt(var + eps), shift - mean scale / sqrt(var + eps)
    a = state.scale * lax.rsqrt(var + norm.epsilon)  # [N]
    return x * _spread(a, x) + _spread(state.shift - mean * a, x)


def _spread(a, x):
    return jnp.expand_dims(a, tuple(range(x.ndim - 1)))
