"""Layers that learn by gradient alone, how layers answer while they do, and the head: what reads classes out."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hebbjax import rules
from hebbjax.base import BIAS_SALT, Array, Key
from hebbjax.layers import activations, initializers
from hebbjax.layers.chain import PartState, apply_chain, bind_weights
from hebbjax.layers.layer import Layer, LayerState, drives, settled_drive
from hebbjax.layers.normalization import BatchNorm
from hebbjax.layers.patches import Window, raw
from hebbjax.layers.pooling import max_pool
from hebbjax.support.checks import check_count, check_number, require, show


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Silence a share of what passes while a layer learns by gradient, `x m / (1 - rate)`; else pass everything."""

    rate: float  # the share, in [0, 1)
    maps: bool = False  # draw for each channel of an image, rather than for each value
    by_image = True

    def __post_init__(self) -> None:
        check_number('rate', self.rate, least=0, below=1)

    def apply(self, state: PartState, x: Array, train: bool = False, key: Key | None = None) -> tuple[Array, PartState]:
        """Draw anew for every batch, where there is a key to draw with."""
        if key is None or not train or self.rate == 0:
            return x, state
        shape = (len(x), *(1,) * (x.ndim - 2), x.shape[-1]) if self.maps else x.shape
        return x * draw_passing(key, self.rate, shape).astype(x.dtype) / (1 - self.rate), state


def draw_passing(key: Key, rate: float, shape: tuple[int, ...]) -> Array:
    """Draw who passes, True with probability 1 - rate; of halves a bit each, down to 256ths so few as it takes.

    A number of 32 bits for each value takes as long as all the rest of a head's step.
    """
    bits = next((bits for bits in (1, 2, 4, 8) if float(rate * 2**bits).is_integer()), None)
    if bits is None:
        return jax.random.bernoulli(key, 1 - rate, shape)
    count = math.prod(shape)
    words = jax.random.bits(key, (-(-count * bits // 32), 1), jnp.uint32)
    drawn = (words >> jnp.arange(0, 32, bits, jnp.uint32)[None]) & jnp.uint32(2**bits - 1)
    return (drawn >= jnp.uint32(rate * 2**bits)).reshape(-1)[:count].reshape(shape)


def forward_train(layer: Layer, state: LayerState, images: Array, key: Key) -> tuple[Array, LayerState]:
    """Answer a batch in gradient training: dropout draws by the key, batch norms go by the batch and move.

    [B, H, W, C] -> [B, H'', W'', N], and the state with its chains as they are then.
    """
    x, pre = apply_chain(layer.pre, state.pre, images, train=True, key=key)
    post_key = jax.random.fold_in(key, BIAS_SALT)  # no part of `pre` has this number
    u = settled_drive(layer, state, drives(layer, state.w, x))
    sent, post = apply_chain(bind_weights(layer.post, state.w), state.post, u, train=True, key=post_key)
    return sent, state._replace(pre=pre, post=post)


def gradient_layer(features: int, window: Window = Window(), **settings: Any) -> Layer:
    """Build a layer that learns by gradient alone: with a bias, on plain patches, drawn as PyTorch draws; no Hebbian
    stage moves it. Further settings are attributes of `Layer`, such as pre and post.
    """
    own = {'patch_transform': raw, 'bias': initializers.fan_in, 'init': initializers.fan_in, 'frozen': True}
    return Layer(features, rules.hebb(), optax.set_to_zero(), window, **own | settings)


def linear_head(
    classes: int, *, norm: bool = True, power: float | None = 1.0, threshold: float = 0.0, pool: int | None = None,
    dropout: float = 0.0, maps: bool = True,
) -> Layer:  # fmt: skip
    """Build a head on raw drives u: batch norm -> RePU -> max pool -> dropout -> linear, each but the last optional.

        logits = linear(dropout(pool(repu(norm(u)))))

    On a layer with `post=()` it is trained on cached drives, see `feature_cache`. Talloen et al. 2021, section 5.

    Args:
        norm: whether to normalise drives per neuron, over the batch and all positions, with a learned scale and shift.
        power: n of the rectified power unit max(u, 0)^n; None sends drives on as they are.
        threshold: the first shift is its negative: above 0, a neuron starts by sending only what exceeds its mean by so
            many standard deviations, which makes for sparse codes. Learned from there on.
        pool: side of the max-pooling blocks; None: no pooling.
        dropout: share of neurons silenced per image while training, in [0, 1); of whole `maps`, or of each value.

    Example:
        >>> linear_head(10, pool=2).features
        10
    """
    check_count('classes', classes, 2)
    check_number('threshold', threshold)
    require(isinstance(norm, bool), f'a head normalises or not, and norm={show(norm)} says neither; use True or False.')
    pre = (
        *((BatchNorm(shift=-threshold, momentum=0.99, debias=True),) if norm else ()),
        *(() if power is None else (activations.repu(power),)),
        *(() if pool is None else (max_pool(pool),)),
        *(() if dropout == 0 else (Dropout(dropout, maps),)),
    )
    return gradient_layer(classes, pre=pre, post=(), bias=initializers.zeros)
