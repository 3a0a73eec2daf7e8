"""Layers that learn by gradient alone, and the head among them: what reads classes out of what lies below."""

import optax

from hebbjax import rules
from hebbjax.layers import activations, initializers
from hebbjax.layers.chain import Dropout
from hebbjax.layers.layer import Layer
from hebbjax.layers.normalization import BatchNorm
from hebbjax.layers.patches import Window, raw
from hebbjax.layers.pooling import max_pool
from hebbjax.support.checks import is_count, is_misfit, require, show


def gradient_layer(features: int, window: Window = Window(), **settings) -> Layer:
    """Build a layer that learns by gradient alone: with a bias, on plain patches, drawn as PyTorch draws; no Hebbian
    stage moves it. Further settings are attributes of `Layer`, such as pre and post.
    """
    own = {'patch_transform': raw, 'bias': initializers.fan_in, 'init': initializers.fan_in, 'frozen': True}
    return Layer(features, rules.hebb(), optax.set_to_zero(), window, **own | settings)


def linear_head(
    classes: int,
    *,
    norm: bool = True,
    power: float | None = 1.0,
    threshold: float = 0.0,
    pool: int | None = None,
    dropout: float = 0.0,
) -> Layer:
    """Build a head on raw drives u: batch norm -> RePU -> max pool -> dropout -> linear, each but the last optional.

        logits = linear(dropout(pool(repu(norm(u)))))

    On a layer that sends its drives as they are (`post=()`), such a head is trained on cached drives, see
    `feature_cache`. Talloen et al. 2021, section 5.

    Args:
        classes: K.
        norm: whether to normalise drives per neuron, over the batch and all positions, with a learned scale and shift.
        power: n of the rectified power unit max(u, 0)^n; None sends drives on as they are.
        threshold: the first shift is its negative: above 0, a neuron starts by sending only what exceeds its mean by so
            many standard deviations, which makes for sparse codes. Learned from there on.
        pool: side of the max-pooling blocks; None: no pooling.
        dropout: share of neurons (whole maps) silenced per image while training, in [0, 1).

    Example:
        >>> linear_head(10, pool=2).features
        10
    """
    require(is_count(classes, 2), f'a head of {show(classes)} classes has nothing to tell apart; use 2 or more.')
    require(isinstance(norm, bool), f'a head normalises or not, and norm={show(norm)} says neither; use True or False.')
    is_number = not is_misfit(threshold, lambda deviations: True)
    require(is_number, f'a threshold of {show(threshold)} standard deviations cannot be; use a number.')
    pre = (
        *((BatchNorm(shift=-threshold, momentum=0.99, debias=True),) if norm else ()),
        *(() if power is None else (activations.repu(power),)),
        *(() if pool is None else (max_pool(pool),)),
        *(() if dropout == 0 else (Dropout(dropout, maps=True),)),
    )
    return gradient_layer(classes, pre=pre, post=(), bias=initializers.zeros)
