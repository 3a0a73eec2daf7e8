"""The words of the library: arrays, keys, and what a learning rule is. No arithmetic here.

Shapes, once for the whole library:

    B images    H W height, width     C channels          K classes
    P patches = B * H' * W'           D = kh * kw * C inputs of a neuron, in (kh, kw, C) order
    N neurons   weights w [N, D]: row i is neuron i, `w[i].reshape(kh, kw, C)` its receptive field

Images are NHWC. Letters: `x` input, `u` drive, `y` credit, `w` weights, `dw` change.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array  # a typed key, `jax.random.key(seed)`
State = Any  # any pytree

Competition = Callable[[Key, Array], Array]
"""(key, u [P, N]) -> y [P, N]: who learns. Rows are patches; one key serves them all."""


class Credit(NamedTuple):
    """What each patch asks of each neuron: `dw_i = sum_p pull_pi x_p - leak_pi w_i`, reduced with `weight`."""

    pull: Array  # [P, N] towards the patch
    leak: Array  # [P, N] away from what the neuron is
    weight: Array  # [P, N] what the step is averaged by, where the reduction asks for it


class LearningRule(NamedTuple):
    """A learning rule: pure functions, as in optax. The rate and everything else after `dw` is optax's part."""

    init: Callable[[Array], State]
    """w [N, D] -> the rule's own state (win rates, ...); refuses weights that the rule cannot serve."""
    seen: Callable[[Array], Array]
    """w -> the weights [N, D] that drives are computed with: w itself, or sign(w)|w|^(p-1)."""
    update: Callable[..., tuple[Array, State]]
    """(key, x [P, D], u [P, N], w [N, D], state, teacher=None) -> (dw [N, D] to be added, state)."""


class Told(NamedTuple):
    """What happened in one learning step. Never part of the state."""

    wins: Array  # [N] patches for which this neuron had the largest drive, the first of equals
    change: Array  # largest absolute weight change of the step
    finite: Array  # True while every weight is finite
