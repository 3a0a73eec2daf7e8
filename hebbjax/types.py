"""The words of the library: arrays, keys, and what a learning rule is.

Shapes, once for the whole library:

    B images    H W height, width     C channels          K classes
    P patches = B * H' * W'           D = kh * kw * C inputs of a neuron, in (kh, kw, C) order
    N neurons   weights w [N, D]: row i is neuron i, `w[i].reshape(kh, kw, C)` its receptive field

Images are NHWC. Letters: `x` input, `u` drive, `y` credit, `w` weights, `dw` change.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hebbjax import values

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


class Sums(NamedTuple):
    """What a rule adds up over patches. Sums of chunks and of shards add up, so a step may see its patches in parts."""

    pull: Array  # [N, D] sum_p pull_pi x_p
    leak: Array  # [N] sum_p leak_pi; a rule that couples neurons keeps [N, N]
    weight: Array  # [N] sum_p weight_pi: the credit that each neuron was given; of winners, their number
    wins: Array  # [N] int32: patches for which this neuron had the largest drive; an all-zero patch
    # is nobody's, unless a rule takes it for a point like any other (`prototypes.nearest(by='distance')`)
    patches: Array  # P, int32 scalar


def nothing_yet(w: Array) -> Sums:
    """Give the sums over no patches, for weights [N, D]."""
    none = jnp.zeros_like(w[:, 0])
    return Sums(jnp.zeros_like(w), none, none, jnp.zeros(len(w), jnp.int32), jnp.zeros((), jnp.int32))


HANDICAP = 2**31 - 1  # folded into a step's key for what a handicap draws; no chunk of a batch has this number


def nobody_is_handicapped(key: Key, w: Array, state: State) -> None:
    """Let everyone compete by their drive."""
    return None


class LearningRule(NamedTuple):
    """A learning rule: pure functions, as in optax. The rate and everything else after `dw` is optax's part.

    Rules of the same settings are equal, hash alike, and can be pickled.
    """

    init: Callable[[Array], State]
    """w [N, D] -> the rule's own state (win rates, ...); refuses weights that the rule cannot serve."""
    seen: Callable[[Array], Array]
    """w -> the weights [N, D] that drives are computed with: w itself, or sign(w)|w|^(p-1)."""
    gather: Callable[..., Sums]
    """(sums, key, x [P, D], u [P, N], teacher=None, threshold=None) -> sums, these patches added. Neurons compete by
    `u - threshold` [N], where there are thresholds; what leaks in proportion to the drive leaks by `u`. `teacher`
    [P, N], or None, is what each patch's teacher signals to each neuron (a layer gives all positions of an image its
    one signal): where neurons compete, only those with a signal above 0 take part."""
    change: Callable[[Sums, Array, State], tuple[Array, State]]
    """(sums, w [N, D], state) -> (dw [N, D] to be added, state)."""
    start: Callable[[Array], Sums] = nothing_yet
    """w [N, D] -> the sums over no patches."""
    handicap: Callable[[Key, Array, State], Array | None] = nobody_is_handicapped
    """(key, w [N, D], state) -> [N] or None: what is subtracted from all drives of a learning step before neurons
    compete, on top of a layer's thresholds; +inf: this neuron sits the step out."""

    __eq__, __hash__, __reduce__ = values.same, values.hashed, values.reduced

    def update(
        self, key: Key, x: Array, u: Array, w: Array, state: State, teacher=None, threshold=None
    ) -> tuple[Array, State]:
        """Learn from all patches at once: x [P, D], their drives u [P, N] -> (dw [N, D] to be added, state)."""
        handicap = self.handicap(jax.random.fold_in(key, HANDICAP), w, state)  # [N]
        if handicap is not None:
            threshold = handicap if threshold is None else threshold + handicap
        return self.change(self.gather(self.start(w), key, x, u, teacher, threshold), w, state)


class Told(NamedTuple):
    """What happened in one learning step. Never part of the state."""

    wins: Array  # [N] patches for which this neuron had the largest drive, the first of equals
    change: Array  # largest absolute weight change of the step
    finite: Array  # True while every pixel, drive, weight and threshold is finite
    rates: Array  # [N] credit per patch: of winners, the share of patches that a neuron won, first or not
    trace: Any = None  # `monitor.Trace` of a watched epoch
