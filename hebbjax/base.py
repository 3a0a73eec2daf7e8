"""The words of the library: arrays, keys, what a learning rule is, what it adds up, what a step tells. No arithmetic.

Shapes, once for the whole library; images are NHWC; `x` input, `u` drive, `y` credit, `w` weights, `dw` change:

    B images    H W height, width     C channels          K classes
    P patches = B * H' * W'           D = kh * kw * C inputs of a neuron, in (kh, kw, C) order
    T frames of a sequence            S sequences of patches, one at every place of every sequence of images
    N neurons   weights w [N, D]: row i is neuron i, `w[i].reshape(kh, kw, C)` its receptive field
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hebbjax.support import specs

Array = jax.Array
AnyArray = jax.Array | np.ndarray  # what comes from outside: images, labels
Labelled = tuple[AnyArray, AnyArray]  # images [n, H, W, C], or features [n, F], and labels [n]
AnyPath = str | os.PathLike[str]
Scalar = float | Array  # a setting that may be traced, and then has no value yet
Key = jax.Array  # a typed key, `jax.random.key(seed)`
State = Any  # any pytree

Competition = Callable[[Key, Array], Array]
"""(key, u [P, N]) -> y [P, N]: who learns. Rows are patches; one key serves them all."""
Competing = Competition | int | None  # or so many winners; None: everyone by their drive, or as a rule says

BIAS_SALT = 2**31 - 1  # folded into a step's key for what a competition bias draws; no microbatch has this number


class Credit(NamedTuple):
    """What each patch asks of each neuron: `dw_i = sum_p pull_pi x_p - leak_pi w_i`, reduced with `weight`."""

    pull: Array  # [P, N] towards the patch
    leak: Array  # [P, N] away from what the neuron is
    weight: Array  # [P, N] what the step is averaged by, where the reduction asks for it


class UpdateStats(NamedTuple):
    """What a rule adds up over patches. Those of microbatches, of shards and of hosts add up alike."""

    pull: Array  # [N, D] sum_p pull_pi x_p
    leak: Array  # [N] sum_p leak_pi; a rule that couples neurons keeps [N, N]
    weight: Array  # [N] sum_p weight_pi: the credit that each neuron was given; of winners, their number
    win_counts: Array  # [N] int32: patches for which this neuron had the largest drive; all-zero ones may be nobody's
    patches: Array  # P, int32 scalar
    products: Array | None = None  # [N, N] sum_p y_p y_p', which a layer with lateral connections adds


def zero_stats(w: Array) -> UpdateStats:
    """Give the stats of no patches, for weights [N, D]."""
    zeros = jnp.zeros_like(w[:, 0])
    return UpdateStats(jnp.zeros_like(w), zeros, zeros, jnp.zeros(len(w), jnp.int32), jnp.zeros((), jnp.int32))


class LearningRule(NamedTuple):
    """A learning rule: pure functions, as in optax. The rate and everything else after `dw` is optax's part.

    `init_stats`, `accumulate` and `finalize` take patches in any number of parts. Rules are equal by their settings.
    """

    init: Callable[[Array], State]
    """w [N, D] -> the rule's own state (win rates, ...); refuses weights that the rule cannot serve."""
    effective_weights: Callable[[Array], Array]
    """w -> the weights [N, D] that drives are computed with: w itself, unit rows, or sign(w)|w|^(p-1)."""
    accumulate: Callable[..., UpdateStats]
    """(stats, key, x [P, D], u [P, N], teacher=None, threshold=None) -> stats, these patches added. Neurons compete by
    `u - threshold` [N], and leak by `u`; competing, only those take part that the teacher signals [P, N] > 0."""
    finalize: Callable[[UpdateStats, Array, State], tuple[Array, State]]
    """(stats, w [N, D], state) -> (dw [N, D] to be added, state)."""
    init_stats: Callable[[Array], UpdateStats] = zero_stats
    """w [N, D] -> the stats of no patches."""
    competition_bias: Callable[[Key, Array, State], Array] | None = None
    """(key, w [N, D], state) -> [N]; or None: what is subtracted from all drives of a learning step before neurons
    compete, on top of a layer's thresholds; +inf: this neuron sits the step out."""
    sequential: bool = False
    """Whether it remembers: `accumulate` is then given x [S, T, D], u and teacher [S, T, N], every row the patches that
    one place of a sequence of images saw, frame after frame. It forgets between rows, so that these add up alike."""

    __eq__, __hash__, __reduce__ = specs.specs_equal, specs.spec_hash, specs.spec_reduce

    def competition_threshold(self, key: Key, w: Array, state: State, threshold: Array | None = None) -> Array | None:
        """Give what neurons compete less by in the step of this key: thresholds and `competition_bias`. [N] or None."""
        if self.competition_bias is None:
            return threshold
        bias = self.competition_bias(jax.random.fold_in(key, BIAS_SALT), w, state)
        return bias if threshold is None else threshold + bias

    def update(
        self, key: Key, x: Array, u: Array, w: Array, state: State, teacher: Array | None = None,
        threshold: Array | None = None,
    ) -> tuple[Array, State]:  # fmt: skip
        """Learn from all patches at once: x [P, D], their drives u [P, N] -> (dw [N, D] to be added, state)."""
        threshold = self.competition_threshold(key, w, state, threshold)  # [N]
        return self.finalize(self.accumulate(self.init_stats(w), key, x, u, teacher, threshold), w, state)


class StepInfo(NamedTuple):
    """What happened in one learning step. Never part of the state."""

    win_counts: Array  # [N] patches for which this neuron had the largest drive, the first of equals
    max_update: Array  # largest absolute weight change of the step
    is_finite: Array  # True while every pixel, drive, weight and threshold is finite
    win_rates: Array  # [N] credit per patch: of winners, the share of patches that a neuron won, first or not
    trace: Any = None  # `monitor.Trace` of a watched epoch
