"""Normalisation as a part of a chain: of every image by itself (`standardise`), or over the batch (`BatchNorm`)."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array, Key
from hebbjax.layers.chain import PartState, Shape
from hebbjax.support import checks, devices

ones = jax.nn.initializers.ones  # first scales, as today's frameworks have them
# as PyTorch 1.0; so Amato et al. (2019), whose Hebbian layers keep them
uniform: jax.nn.initializers.Initializer = jax.nn.initializers.uniform(1.0)
FLAT_IMAGE = 1e-6  # relative to its largest value: an image that varies less is constant up to rounding


def standardise(images: Array) -> Array:
    """Give every image mean 0 and deviation 1, `(x - mean x) / std x` of n - 1; zeros if constant. Miconi 2021, 2.1."""
    axes, count = tuple(range(1, images.ndim)), images[0].size
    largest = lax.stop_gradient(jnp.max(jnp.abs(images), axes, keepdims=True))
    unit = jnp.ldexp(jnp.ones_like(largest), jnp.frexp(largest)[1])  # a power of two: no square is out of range
    x, largest = images / unit, largest / unit
    x = x - x.mean(axes, keepdims=True)
    variance = jnp.sum(x * x, axes, keepdims=True) / max(count - 1, 1)
    # rounding leaves 1e-8 behind a constant image's mean: that is no shape, and is not to be blown up to variance 1
    flat = variance <= (FLAT_IMAGE * largest) ** 2
    return jnp.where(flat, 0, x * lax.rsqrt(jnp.where(flat, 1, variance)))  # chosen twice, for a finite slope


class NormParams(NamedTuple):
    """What gradients learn of batch normalisation; Hebbian learning leaves it as it was drawn."""

    scale: Array  # [N]
    shift: Array  # [N]


class NormStats(NamedTuple):
    """Running averages of each channel."""

    mean: Array  # [N]
    var: Array  # [N] unbiased
    filled: Array  # share of the averages that batches have filled; 1 where they begin at mean 0 and variance 1


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation per channel, over the batch and all positions; in evaluation by running averages:

    z = scale (x - mean) / sqrt(var + epsilon) + shift
    """

    scale: Callable[[Key, tuple[int]], Array] = ones  # (key, (N,)) -> first scales: `ones` or `uniform`
    shift: float = 0.0  # first shift of every channel, in its standard deviations
    momentum: float = 0.9  # what running averages keep of themselves per batch, in [0, 1)
    epsilon: float = 1e-5  # added to the variance
    debias: bool = False  # averages begin empty, and are divided by what has filled them

    def __post_init__(self) -> None:
        checks.check_number('momentum', self.momentum, least=0, below=1)
        checks.check_number('epsilon', self.epsilon, above=0)
        checks.check_number('shift', self.shift)

    def init(self, key: Key, shape: Shape) -> PartState:
        """Draw the scales; running averages start empty, or at mean 0 and variance 1."""
        zeros = jnp.zeros(shape[-1])
        params = NormParams(self.scale(key, zeros.shape), zeros + self.shift)
        filled = jnp.zeros(()) if self.debias else jnp.ones(())
        return PartState(params, NormStats(zeros, zeros + filled, filled))

    def apply(self, state: PartState, x: Array, train: bool = False, key: Key | None = None) -> tuple[Array, PartState]:
        """Normalise by the batch and move the averages, in training; else by the averages. [..., N] -> [..., N]."""
        if not train:
            return self.scaled(state.params, x, *self.averages(state.stats)), state
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axes)  # [N]
        var = jnp.square(x - jnp.expand_dims(mean, axes)).mean(axes)
        mean, var = devices.moments_over_devices(mean, var)
        count = x.size // x.shape[-1] * devices.device_count()
        return self.scaled(state.params, x, mean, var), self.moved(state, mean, var, count)

    def averages(self, stats: NormStats) -> tuple[Array, Array]:
        """Give mean and variance to evaluate with."""
        if not self.debias:
            return stats.mean, stats.var
        filled = jnp.where(stats.filled > 0, stats.filled, 1)
        return stats.mean / filled, jnp.where(stats.filled > 0, stats.var / filled, 1)

    def moved(self, state: PartState, mean: Array, var: Array, count: int) -> PartState:
        """Let a batch of `count` values per channel move the running averages, by its unbiased variance."""
        batch = NormStats(mean, var * (count / max(count - 1, 1)), jnp.ones_like(state.stats.filled))
        step = lambda old, new: self.momentum * old + (1 - self.momentum) * lax.stop_gradient(new)  # noqa: E731
        return state._replace(stats=jax.tree.map(step, state.stats, batch))

    def scaled(self, params: NormParams, x: Array, mean: Array, var: Array) -> Array:
        """Compute z as one multiplication and one addition: `a = scale / sqrt(var + eps)`, `x a + (shift - mean a)`."""
        # a variance beyond float32 would make everything the same 0, and nobody would know
        var = jnp.where(jnp.isfinite(var), var, jnp.nan)
        a = params.scale * lax.rsqrt(var + self.epsilon)  # [N]
        axes = tuple(range(x.ndim - 1))
        return x * jnp.expand_dims(a, axes) + jnp.expand_dims(params.shift - mean * a, axes)
