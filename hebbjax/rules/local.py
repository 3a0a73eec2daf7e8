"""What most rules have in common: pull and leak, summed over patches, and how these are reduced to a change.

Nearly every rule says, per patch, `dw_i = pull_i x - leak_i w_i`. `local` sums these over patches with one matrix
product; where credit is sparse, `from_leak` adds rows.
"""

import numbers
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array, Competing, Competition, Credit, Key, LearningRule, Scalar, UpdateStats
from hebbjax.rules.competition import competing_drives, k_wta, linear, zero_absent
from hebbjax.rules.products import add_rows, matmul
from hebbjax.rules.top_k import check_k, drop_absent, top_k
from hebbjax.support import checks

Reduction = Callable[[Array, UpdateStats], Array]
"""(pull - leak w, summed over patches [N, D], stats) -> dw [N, D]. Rates do not carry over from one to another."""

SPARSE = 1 / 20  # share of neurons that may learn from a patch before one product beats adding rows


def sum_over_patches(summed: Array, stats: UpdateStats) -> Array:
    """Take the sum over patches: a batch twice as large moves twice as far."""
    return summed


def mean_over_patches(summed: Array, stats: UpdateStats) -> Array:
    """Take the mean over all patches: rare winners move less than frequent ones."""
    return summed / stats.patches.astype(summed.dtype)


def mean_over_credit(summed: Array, stats: UpdateStats) -> Array:
    """Take each neuron's mean over its own credit: rare winners move as far as frequent ones (Amato et al. 2019)."""
    return summed / jnp.where(stats.weight > 0, stats.weight, 1)[:, None]


def count_wins(x: Array, first: Array, neurons: int) -> Array:
    """Count the patches x [P, D] whose `first` [P] each neuron is (N: nobody); all-zero ones count for nobody. [N]."""
    return add_rows(jnp.zeros(neurons, jnp.int32), first[:, None], (jnp.any(x != 0, axis=1).astype(jnp.int32),))


def add_dense(
    stats: UpdateStats, x: Array, v: Array, pull: Array, leak: Scalar, weight: Array, shown: Array | None = None
) -> UpdateStats:
    """Add what patches x [P, D] ask for: `pull` [P, N] by one product, summed `leak` and `weight`; `v`: who won."""
    first = drop_absent(*top_k(v, 1), v.shape[1])[:, 0]  # [P]; N where nobody takes part
    win_counts = stats.win_counts + count_wins(x if shown is None else shown, first, v.shape[1])  # x may be powers
    pull = stats.pull + matmul(pull.T, x)  # [N, D]
    return UpdateStats(pull, stats.leak + leak, stats.weight + weight, win_counts, stats.patches + len(x))


def finalizer(reduce: Reduction = sum_over_patches) -> Callable:
    """Build what most rules end with: `dw_i = reduce(sum_p pull_pi x_p - (sum_p leak_pi) w_i)`; no state."""
    return lambda stats, w, state: (reduce(stats.pull - stats.leak[:, None] * w, stats), state)


def local(
    compete: Competition | None, credit: Callable[[Array, Array], Credit], *, reduce: Reduction = mean_over_patches,
    zeros_win: bool = False,
) -> LearningRule:  # fmt: skip
    """Build a rule from a competition and a credit: `dw_i = reduce_p(pull_pi x_p - leak_pi w_i)`.

    Args:
        compete: (key, u [P, N], -inf for who takes no part) -> y [P, N]; None: y is what the teacher signals.
        credit: (u, y) -> Credit of [P, N] arrays.
        reduce, zeros_win: how patches are added up; whether one that is all zero is won, or by nobody.

    Example:
        >>> from hebbjax.rules import soft_wta
        >>> softhebb = local(soft_wta(0.1), lambda u, y: Credit(y, y * u, y))  # dw_i = y_i (x - u_i w_i)
    """
    compete = None if compete is None else as_competition(compete)

    def accumulate(stats: UpdateStats, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> UpdateStats:
        needs = 'a rule without competition imposes its teacher and got None; give the layer a teacher.'
        checks.require(compete is not None or teacher is not None, needs)
        v = competing_drives(u, None if compete is None else teacher, threshold)  # [P, N]
        y = zero_absent(teacher.astype(u.dtype) if compete is None else compete(key, v), v)  # [P, N]
        pull, leak, weight = credit(u, y)  # [P, N] each
        return add_dense(stats, x, v, pull, leak.sum(0), weight.sum(0), jnp.ones_like(x) if zeros_win else x)

    return LearningRule(lambda w: (), lambda w: w, accumulate, finalizer(reduce))


def as_competition(compete: Competing) -> Competition:
    """Give a competition as it is, so many winners as `k_wta`, None as everyone by their drive."""
    known = f'neurons compete by a competition, or by a number of winners, not by {checks.show(compete)}.'
    checks.require(compete is None or callable(compete) or isinstance(compete, numbers.Integral), known)
    return linear() if compete is None else compete if callable(compete) else k_wta(compete)


def from_leak(
    compete: Competing, leak: Callable[[Array], Array], *, reduce: Reduction = mean_over_patches,
    zeros_win: bool = False,
) -> LearningRule:  # fmt: skip
    """Build `dw_i = y_i x - leak(y_i) w_i`; for so many winners without ever laying the zeros of y out.

    `compete` is a competition, or so many winners; None: everyone, by their drive. `reduce`, `zeros_win`: see `local`.
    """
    how = {'reduce': reduce, 'zeros_win': zeros_win}
    dense = local(as_competition(compete), lambda u, y: Credit(y, leak(y), jnp.abs(y)), **how)
    if not isinstance(compete, numbers.Integral):
        return dense
    k = int(compete)

    def accumulate(stats: UpdateStats, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> UpdateStats:
        if k > SPARSE * u.shape[1]:
            return dense.accumulate(stats, key, x, u, teacher, threshold)
        order = drop_absent(*top_k(competing_drives(u, teacher, threshold), k), u.shape[1])  # [P, k]
        pull, weight = add_rows(stats.pull, order, (1,) * k, x), add_rows(stats.weight, order, (1,) * k)
        win_counts = stats.win_counts + count_wins(jnp.ones_like(x) if zeros_win else x, order[:, 0], u.shape[1])
        # every winner's credit is 1, so it leaks leak(1)
        return UpdateStats(pull, leak(jnp.ones_like(weight)) * weight, weight, win_counts, stats.patches + len(x))

    return dense._replace(init=lambda w: check_k(k, len(w)) or (), accumulate=accumulate)


def inverse_length(x: Array, floor: float = 0.0) -> Array:
    """Give `1 / |x|_2` of rows [..., D], 0 for one no longer than `floor`. -> [..., 1]."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    flat = square <= floor**2
    # chosen twice: neither a zero row's quotient nor its slope sees a division by zero; NaN passes, and is found
    return jnp.where(flat, 0, lax.rsqrt(jnp.where(flat, 1, square)))


def unit_rows(x: Array, floor: float = 0.0) -> Array:
    """Scale rows, such as patches or weights, to unit length: `x / |x|_2`; one no longer than `floor` becomes zero."""
    return x * inverse_length(x, floor)
