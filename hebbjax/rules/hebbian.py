"""The named rules: Hebb, Oja, Sanger, Krotov and Hopfield. Each is a competition and a credit.

`compete` says who learns: a competition, or so many winners with credit 1; None: everyone, by their drive (`linear`).
`reduce` says how patches are added up; a rate is one per patch, or one per batch. The instar: `prototypes.instar`.
"""

import jax.numpy as jnp

from hebbjax.base import Array, Competing, Credit, Key, LearningRule, Scalar, UpdateStats, zero_stats
from hebbjax.rules.competition import competing_drives, signed_soft_wta, zero_absent
from hebbjax.rules.local import (
    Reduction,
    add_dense,
    count_wins,
    finalizer,
    from_leak,
    local,
    mean_over_patches,
    sum_over_patches,
)
from hebbjax.rules.products import add_rows, matmul
from hebbjax.rules.top_k import check_k, drop_absent, top_k
from hebbjax.support import checks


def hebb(compete: Competing = None, *, reduce: Reduction = mean_over_patches) -> LearningRule:
    """Hebb's rule: `dw_i = y_i x`. It only grows; chain `transforms.project_unit_rows()` to bound it."""
    return from_leak(compete, jnp.zeros_like, reduce=reduce)


def oja(compete: Competing = None, *, reduce: Reduction = mean_over_patches) -> LearningRule:
    """Oja's rule: `dw_i = y_i (x - y_i w_i)`; a neuron alone finds the first principal component at norm 1 (Oja 1982).

    With winners that learn alike (`y` 0 or 1) it is the instar.

    Example:
        >>> import jax
        >>> x, w = jnp.ones((1, 2)), jnp.array([[1.0, 0.5]])  # one patch, one neuron: u = y = 1.5
        >>> jax.jit(oja().update)(jax.random.key(0), x, x @ w.T, w, ())[0]
        Array([[-0.75 ,  0.375]], dtype=float32)
    """
    return from_leak(compete, lambda y: y * y, reduce=reduce)


def sanger(*, reduce: Reduction = mean_over_patches) -> LearningRule:
    """Sanger's rule: `dw_i = y_i (x - sum_{j <= i} y_j w_j)`, `y = u`: the principal components in order (Sanger 1989).

    Its leak couples neurons: `dw = y' x - tril(y' y) w`. Nobody competes; `y = 0` for who takes no part.
    """

    def init_stats(w: Array) -> UpdateStats:
        return zero_stats(w)._replace(leak=jnp.zeros((len(w), len(w)), w.dtype))

    def accumulate(stats: UpdateStats, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> UpdateStats:
        v = competing_drives(u, teacher, threshold)  # [P, N]
        y = u if teacher is None and threshold is None else zero_absent(u, v)  # [P, N]
        return add_dense(stats, x, v, y, matmul(y.T, y), jnp.abs(y).sum(0))

    def finalize(stats: UpdateStats, w: Array, state):
        return reduce(stats.pull - matmul(jnp.tril(stats.leak), w), stats), state

    return LearningRule(lambda w: (), lambda w: w, accumulate, finalize, init_stats)


def softhebb(temperature: Scalar = 1.0, *, reduce: Reduction = sum_over_patches) -> LearningRule:
    """SoftHebb: a soft winner-take-all, signed, under Oja's decay by the drive: `dw_i = y_i (x - u_i w_i)`.

    `y_i = s_i` for the winner and `-s_i` for all others, `s = softmax(u / temperature)`, the temperature in units of
    the drive. Chain `scale_by_max_abs()`, `scale_by_norm_gap()` and `scale_by_rate(rate)`, and start from rows that are
    longer than 1. Journé, Garcia Rodriguez, Guo & Moraitis 2023, equations 1 to 4.
    """
    return local(signed_soft_wta(temperature), lambda u, y: Credit(y, y * u, jnp.abs(y)), reduce=reduce)


def krotov(k: int = 2, delta: Scalar = 0.4, p: Scalar = 2.0) -> LearningRule:
    """Krotov and Hopfield's rule: winners learn, the k-th unlearn, norms converge to a p-sphere.

    `g_i = 1` for the largest drive, `-delta` for the k-th, 0 elsewhere; with the drive `<w_i, x> = W_i . x`,
    `W = sign(w) |w|^(p-1)`:

        dw_i = sum over patches of g_i (x - <w_i, x> w_i)

    The fixed points lie on `sum_d |w_id|^p = 1`, p > 1. Chain `scale_by_max_abs()` and `scale_by_rate(rate)`. Krotov
    and Hopfield 2019, equations 3, 9 and 10, in the fast form of section "A fast implementation" (ranking by drives);
    Talloen et al. 2021, section 5. Both neurons' rows are added (2 P rows), never the [P, N] zeros.
    """
    checks.check_count('k', k, 2)
    checks.check_number('delta', delta, least=0)
    checks.check_number('p', p, above=1)

    def effective_weights(w: Array) -> Array:
        return w if not checks.is_traced(p) and float(p) == 2 else jnp.sign(w) * jnp.abs(w) ** (p - 1)

    def accumulate(stats: UpdateStats, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> UpdateStats:
        drive, order = top_k(competing_drives(u, teacher, threshold), k)  # [P, k]
        ranked = drop_absent(drive, order, u.shape[1])[:, :: k - 1]  # [P, 2], the first and the k-th
        drive = jnp.where(drive == -jnp.inf, 0, drive)  # who takes no part; of -delta * -inf the slope would be NaN
        if threshold is not None:  # neurons rank by what exceeds their threshold, and leak by their drive
            drive = drive + threshold[order]
        # dw_i = sum_p g_pi x_p - (sum_p g_pi u_pi) w_i, where g has two entries a patch: 1 and -delta
        return UpdateStats(
            add_rows(stats.pull, ranked, (1, -delta), x),
            add_rows(stats.leak, ranked, (drive[:, 0], -delta * drive[:, k - 1])),
            add_rows(stats.weight, ranked[:, :1], (1,)),
            stats.win_counts + count_wins(x, ranked[:, 0], u.shape[1]),
            stats.patches + len(x),
        )

    return LearningRule(lambda w: check_k(k, len(w)) or (), effective_weights, accumulate, finalizer())
