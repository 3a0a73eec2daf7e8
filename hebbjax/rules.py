"""Learning rules: what each neuron makes of a patch. Parts (`local`, reductions) and the named wholes.

Nearly every rule says, per patch, `dw_i = pull_i x - leak_i w_i`: pull towards the patch, leak away from what the
neuron is. A rule names those two vectors; `local` sums over patches with one matrix product. A rule whose credit is
sparse (`krotov`) adds rows instead of multiplying zeros.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from hebbjax import competition
from hebbjax.types import Array, Competition, Credit, Key, LearningRule

Reduction = Callable[[Array, Array, int], Array]  # (sum over patches [N, D], weight [N], P) -> dw [N, D]


def total(summed: Array, weight: Array, patches: int) -> Array:
    """Take the sum over patches: a batch twice as large moves twice as far."""
    return summed


def mean(summed: Array, weight: Array, patches: int) -> Array:
    """Take the mean over all patches: rare winners move less than frequent ones."""
    return summed / patches


def weighted(summed: Array, weight: Array, patches: int) -> Array:
    """Take each neuron's mean over its own credit: rare winners move as far as frequent ones (Amato et al. 2019)."""
    return summed / jnp.where(weight > 0, weight, 1)[:, None]


def local(compete: Competition, credit: Callable[[Array, Array], Credit], *, reduce: Reduction = mean) -> LearningRule:
    """Build a rule from a competition and a credit: `dw_i = reduce_p(pull_pi x_p - leak_pi w_i)`.

    Args:
        compete: (key, u [P, N]) -> y [P, N].
        credit: (u, y) -> Credit of [P, N] arrays.
        reduce: total, mean or weighted; learning rates do not carry over from one to another.
    """

    def update(key: Key, x: Array, u: Array, w: Array, state, teacher=None):
        pull, leak, weight = credit(u, compete(key, u))  # [P, N] each
        # dw_i = sum_p pull_pi x_p - (sum_p leak_pi) w_i
        dw = jnp.matmul(pull.T, x, precision=lax.Precision.HIGHEST) - leak.sum(0)[:, None] * w  # [N, D]
        return reduce(dw, weight.sum(0), len(x)), state

    return LearningRule(init=lambda w: (), seen=lambda w: w, update=update)


def hebb(compete: Competition | None = None, *, reduce: Reduction = mean) -> LearningRule:
    """Hebb's rule: `dw_i = y_i x`. It only grows; chain `plasticity.unit_rows()` to bound it.

    Args:
        compete: who learns; None: everyone, by their drive (`competition.linear`).
        reduce: how patches are added up.
    """
    return local(
        compete or competition.linear(),
        lambda u, y: Credit(pull=y, leak=jnp.zeros_like(y), weight=jnp.abs(y)),
        reduce=reduce,
    )


def oja(compete: Competition | None = None, *, reduce: Reduction = mean) -> LearningRule:
    """Oja's rule: `dw_i = y_i (x - y_i w_i)`; a neuron alone finds the first principal component at norm 1 (Oja 1982).

    Args:
        compete: who learns; None: everyone, by their drive (`competition.linear`).
        reduce: how patches are added up.
    """
    return local(
        compete or competition.linear(),
        lambda u, y: Credit(pull=y, leak=y * y, weight=jnp.abs(y)),
        reduce=reduce,
    )


def instar(k: int = 1, *, reduce: Reduction = mean) -> LearningRule:
    """Grossberg's instar: `dw_i = y_i (x - w_i)`; winners move towards what they won, to its mean.

    Args:
        k: winners per patch; 1 is hard winner-take-all (online k-means), more is k-WTA.
        reduce: how patches are added up.

    Raises:
        ValueError: if k is below 1, or (when first traced) above the number of neurons.
    """
    rule = local(competition.k_wta(k), lambda u, y: Credit(pull=y, leak=y, weight=y), reduce=reduce)
    return rule._replace(init=lambda w: competition.fits(k, len(w)) or ())


def sanger(*, reduce: Reduction = mean) -> LearningRule:
    """Sanger's rule: `dw_i = y_i (x - sum_{j <= i} y_j w_j)`, `y = u`: the principal components in order (Sanger 1989).

    Its leak couples neurons, so it has its own door: `dw = y' x - tril(y' y) w`.
    """

    def update(key: Key, x: Array, u: Array, w: Array, state, teacher=None):
        y = u  # [P, N]
        product = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)  # noqa: E731
        dw = product(y.T, x) - product(jnp.tril(product(y.T, y)), w)  # [N, D]
        return reduce(dw, jnp.abs(y).sum(0), len(x)), state

    return LearningRule(init=lambda w: (), seen=lambda w: w, update=update)


def krotov(k: int = 2, delta=0.4, p=2.0) -> LearningRule:
    """Krotov and Hopfield's rule: winners learn, the k-th unlearn, norms converge to a p-sphere.

    `g_i = 1` for the largest drive, `-delta` for the k-th, 0 elsewhere; with the drive `<w_i, x> = W_i . x`,
    `W = sign(w) |w|^(p-1)`:

        dw_i = sum over patches of g_i (x - <w_i, x> w_i)

    The fixed points lie on `sum_d |w_id|^p = 1`. Chain `plasticity.scale_by_max_abs()` and `plasticity.ascend(rate)`.
    Krotov & Hopfield 2019, equations 3, 9 and 10, in the fast form of section "A fast implementation" (ranking by
    drives); Talloen et al. 2021, section 5. Both neurons' rows are added (2 P rows), never the [P, N] zeros.

    Args:
        k: rank that unlearns, from 2 to N.
        delta: strength of the unlearning, relative to learning; 0 switches it off.
        p: exponent of the norm, any real number above 1; 2 is the Euclidean one.

    Raises:
        ValueError: if k is below 2 or p not above 1; in `init`, if k is above the number of neurons.
    """
    if k < 2:
        raise ValueError(f'krotov(k={k}) would punish the winner itself; use 2 <= k <= number of neurons.')
    if isinstance(p, (int, float)) and not p > 1:
        raise ValueError(f'krotov(p={p}) has no norm to converge to; use p > 1.')

    def seen(w: Array) -> Array:
        if isinstance(p, (int, float)) and p == 2:
            return w
        return jnp.sign(w) * jnp.abs(w) ** (p - 1)

    def update(key: Key, x: Array, u: Array, w: Array, state, teacher=None):
        drive, order = competition.largest(u, k)  # [P, k]
        first, kth = order[:, 0], order[:, k - 1]
        # dw_i = sum_p g_pi x_p - (sum_p g_pi u_pi) w_i, where g has two entries a patch: 1 and -delta
        pull = jnp.zeros_like(w).at[first].add(x).at[kth].add(-delta * x)  # [N, D]
        leak = jnp.zeros_like(w[:, 0]).at[first].add(drive[:, 0]).at[kth].add(-delta * drive[:, k - 1])  # [N]
        return pull - leak[:, None] * w, state

    return LearningRule(init=lambda w: competition.fits(k, len(w)) or (), seen=seen, update=update)
