"""Learning rules: what each neuron makes of a patch. Parts (`local`, reductions) and the named wholes.

Nearly every rule says, per patch, `dw_i = pull_i x - leak_i w_i`: pull towards the patch, leak away from what the
neuron is. A rule names those two vectors; `local` sums over patches with one matrix product. A rule whose credit is
sparse (`krotov`, `instar`) adds rows instead of multiplying zeros. What is added up (`Sums`) does not care in how many
parts the patches come.
"""

import numbers
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from hebbjax import checks, competition
from hebbjax.homeostasis import less
from hebbjax.types import Array, Competition, Credit, Key, LearningRule, Sums, nothing_yet

Reduction = Callable[[Array, Sums], Array]  # (pull - leak w, summed over patches [N, D], sums) -> dw [N, D]


def total(summed: Array, sums: Sums) -> Array:
    """Take the sum over patches: a batch twice as large moves twice as far."""
    return summed


def mean(summed: Array, sums: Sums) -> Array:
    """Take the mean over all patches: rare winners move less than frequent ones."""
    return summed / sums.patches.astype(summed.dtype)


def weighted(summed: Array, sums: Sums) -> Array:
    """Take each neuron's mean over its own credit: rare winners move as far as frequent ones (Amato et al. 2019)."""
    return summed / jnp.where(sums.weight > 0, sums.weight, 1)[:, None]


def winners(x: Array, first: Array, neurons: int) -> Array:
    """Count, per neuron, the patches that it won; an all-zero patch is nobody's.

    Args:
        x: patches [P, D].
        first: the neuron with the largest drive, [P]; N: nobody.
        neurons: N.

    Returns:
        [N] int32.
    """
    return jnp.zeros(neurons, jnp.int32).at[first].add(jnp.any(x != 0, axis=1).astype(jnp.int32), mode='drop')


def rivals(u: Array, teacher: Array | None, threshold: Array | None) -> Array:
    """Give the drives that neurons compete by: `u - threshold`, -inf where the teacher forbids. [P, N] -> [P, N]."""
    return competition.permitted(less(u, threshold), teacher)


def local(
    compete: Competition | None,
    credit: Callable[[Array, Array], Credit],
    *,
    reduce: Reduction = mean,
    count: Callable = winners,
) -> LearningRule:
    """Build a rule from a competition and a credit: `dw_i = reduce_p(pull_pi x_p - leak_pi w_i)`.

    Args:
        compete: (key, u [P, N]) -> y [P, N]; u less thresholds, -inf for who takes no part, whose y is 0 whatever the
            competition says. None: y is what the teacher signals.
        credit: (u, y) -> Credit of [P, N] arrays.
        reduce: total, mean or weighted; learning rates do not carry over from one to another.
        count: tells who won; `winners` gives an all-zero patch to nobody.

    Raises:
        ValueError: if the competition is none; when first traced without a teacher, if that is to be imposed.
    """
    if compete is not None and not callable(compete):
        raise ValueError(
            f'neurons compete by a competition, or by a number of winners, not by {checks.shown(compete)}.'
        )

    def gather(sums: Sums, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> Sums:
        if compete is None and teacher is None:
            raise ValueError('a rule without competition imposes its teacher and got None; give the layer a teacher.')
        v = rivals(u, None if compete is None else teacher, threshold)  # [P, N]
        y = teacher.astype(u.dtype) if compete is None else compete(key, v)  # [P, N]
        if teacher is not None or threshold is not None:
            y = competition.among_present(y, v)
        pull, leak, weight = credit(u, y)  # [P, N] each
        return Sums(
            sums.pull + jnp.matmul(pull.T, x, precision=lax.Precision.HIGHEST),
            sums.leak + leak.sum(0),
            sums.weight + weight.sum(0),
            sums.wins + count(x, _first(v), u.shape[1]),
            sums.patches + len(x),
        )

    return LearningRule(init=lambda w: (), seen=lambda w: w, gather=gather, change=leaky(reduce))


def _first(v: Array) -> Array:
    """Find the neuron with the largest drive of each patch, [P]; N where nobody takes part."""
    return competition.present(*competition.largest(v, 1), v.shape[1])[:, 0]


def leaky(reduce: Reduction) -> Callable:
    """Build what most rules end with: `dw_i = reduce(sum_p pull_pi x_p - (sum_p leak_pi) w_i)`; no state."""
    return lambda sums, w, state: (reduce(sums.pull - sums.leak[:, None] * w, sums), state)


def hebb(compete: Competition | int | None = None, *, reduce: Reduction = mean) -> LearningRule:
    """Hebb's rule: `dw_i = y_i x`. It only grows; chain `plasticity.unit_rows()` to bound it.

    Args:
        compete: who learns: a competition, or so many winners; None: everyone, by their drive (`competition.linear`).
        reduce: how patches are added up. Rates do not carry over: a rate for `total` is one per patch, for `mean` one
            per batch, the number of patches times as large.

    Raises:
        ValueError: if there are fewer winners than 1, or (in `init`, or when first traced) more than neurons.
    """
    return associate(compete, lambda y: jnp.zeros_like(y), reduce=reduce)


def oja(compete: Competition | int | None = None, *, reduce: Reduction = mean) -> LearningRule:
    """Oja's rule: `dw_i = y_i (x - y_i w_i)`; a neuron alone finds the first principal component at norm 1 (Oja 1982).

    With winners that learn alike (`y` 0 or 1) it is the instar.

    Args:
        compete: who learns: a competition, or so many winners; None: everyone, by their drive (`competition.linear`).
        reduce: how patches are added up; rates do not carry over, see `hebb`.

    Raises:
        ValueError: if there are fewer winners than 1, or (in `init`, or when first traced) more than neurons.
    """
    return associate(compete, lambda y: y * y, reduce=reduce)


def instar(compete: Competition | int = 1, *, reduce: Reduction = mean) -> LearningRule:
    """Grossberg's instar: `dw_i = y_i (x - w_i)`; winners move towards what they won, to its mean.

    Args:
        compete: who learns: so many winners (1 is hard winner-take-all, online k-means; more is k-WTA) or a
            competition, whose credit may be graded.
        reduce: how patches are added up; rates do not carry over, see `hebb`.

    Raises:
        ValueError: if there are fewer winners than 1, or (in `init`, or when first traced) more than neurons.
    """
    return associate(compete, lambda y: y, reduce=reduce)


def associate(
    compete: Competition | int | None,
    leak: Callable[[Array], Array],
    *,
    reduce: Reduction = mean,
    count: Callable = winners,
) -> LearningRule:
    """Build `dw_i = y_i x - leak(y_i) w_i`; for so many winners without ever laying the zeros of y out.

    Args:
        compete: a competition, or so many winners; None: everyone, by their drive.
        leak: y -> what leaks, elementwise.
        reduce, count: see `local`.

    Raises:
        ValueError: if there are fewer winners than 1, or (in `init`, or when first traced) more than neurons.
    """
    if not isinstance(compete, numbers.Integral):
        credit = lambda u, y: Credit(y, leak(y), jnp.abs(y))  # noqa: E731
        compete = competition.linear() if compete is None else compete
        return local(compete, credit, reduce=reduce, count=count)
    competition.k_wta(compete)  # refuses k < 1
    k = int(compete)

    def gather(sums: Sums, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> Sums:
        v = rivals(u, teacher, threshold)  # [P, N]
        pull, weight = sums.pull, sums.weight
        if k <= SPARSE * u.shape[1]:
            order = competition.present(*competition.largest(v, k), u.shape[1])  # [P, k]
            first = order[:, 0]
            for place in range(k):
                winner = order[:, place]
                pull, weight = pull.at[winner].add(x, mode='drop'), weight.at[winner].add(1, mode='drop')
        else:
            first = _first(v)
            y = competition.among_present(competition.among(v, k).astype(u.dtype), v)  # [P, N]
            pull, weight = pull + jnp.matmul(y.T, x, precision=lax.Precision.HIGHEST), weight + y.sum(0)
        wins = sums.wins + count(x, first, u.shape[1])
        # every winner's credit is 1, so it leaks leak(1)
        return Sums(pull, leak(jnp.ones_like(weight)) * weight, weight, wins, sums.patches + len(x))

    return LearningRule(
        init=lambda w: competition.fits(k, len(w)) or (), seen=lambda w: w, gather=gather, change=leaky(reduce)
    )


SPARSE = 1 / 20  # share of neurons that may learn from a patch before one product beats adding rows


def sanger(*, reduce: Reduction = mean) -> LearningRule:
    """Sanger's rule: `dw_i = y_i (x - sum_{j <= i} y_j w_j)`, `y = u`: the principal components in order (Sanger 1989).

    Its leak couples neurons, so it has its own door: `dw = y' x - tril(y' y) w`. Nobody competes; `y = 0` for who takes
    no part.
    """

    product = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)  # noqa: E731

    def start(w: Array) -> Sums:
        return nothing_yet(w)._replace(leak=jnp.zeros((len(w), len(w)), w.dtype))

    def gather(sums: Sums, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> Sums:
        v = rivals(u, teacher, threshold)  # [P, N]
        y = u if teacher is None and threshold is None else competition.among_present(u, v)  # [P, N]
        return Sums(
            sums.pull + product(y.T, x),  # [N, D]
            sums.leak + product(y.T, y),  # [N, N]
            sums.weight + jnp.abs(y).sum(0),
            sums.wins + winners(x, _first(v), u.shape[1]),
            sums.patches + len(x),
        )

    def change(sums: Sums, w: Array, state):
        return reduce(sums.pull - product(jnp.tril(sums.leak), w), sums), state

    return LearningRule(init=lambda w: (), seen=lambda w: w, gather=gather, change=change, start=start)


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
    competition.check_rank('krotov', k, delta)
    if checks.misfits(p, lambda p: p > 1):
        raise ValueError(f'krotov(p={checks.shown(p)}) has no norm to converge to; use a finite p > 1.')

    def seen(w: Array) -> Array:
        if not checks.is_traced(p) and p == 2:
            return w
        return jnp.sign(w) * jnp.abs(w) ** (p - 1)

    def gather(sums: Sums, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> Sums:
        drive, order = competition.largest(rivals(u, teacher, threshold), k)  # [P, k]
        ranked = competition.present(drive, order, u.shape[1])
        if threshold is not None:  # neurons rank by what exceeds their threshold, and leak by their drive
            drive = drive + threshold[order]
        first, kth = ranked[:, 0], ranked[:, k - 1]
        # dw_i = sum_p g_pi x_p - (sum_p g_pi u_pi) w_i, where g has two entries a patch: 1 and -delta
        return Sums(
            sums.pull.at[first].add(x, mode='drop').at[kth].add(-delta * x, mode='drop'),
            sums.leak.at[first].add(drive[:, 0], mode='drop').at[kth].add(-delta * drive[:, k - 1], mode='drop'),
            sums.weight.at[first].add(1, mode='drop'),
            sums.wins + winners(x, first, u.shape[1]),
            sums.patches + len(x),
        )

    return LearningRule(
        init=lambda w: competition.fits(k, len(w), 2) or (), seen=seen, gather=gather, change=leaky(total)
    )
