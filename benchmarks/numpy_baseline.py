"""Krotov and Hopfield's update in numpy: as it was published, and as fast as we could write it.

Both compute what `hebbjax.rules.krotov` with `scale_by_max_abs()` and `ascend(rate)` computes (a test holds all three
together), so that a comparison is between things that compute the same:

    u = W x,  W = sign(w) |w|^(p-1)
    dw = sum over the batch of g (x - u w),  g = 1 for the largest u, -delta for the k-th, 0 elsewhere
    w <- w + rate dw / max(max|dw|, 1e-30)
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

PRECISION = 1e-30


def published(w: np.ndarray, x: np.ndarray, *, k: int, delta: float, p: float, rate: float) -> None:
    """Update `w` [N, D] in place from a batch `x` [B, D], in the steps of the authors' notebook.

    A full sort of all neurons along the slow axis, a dense [N, B] array of zeros with two entries per column, a dense
    second product. The notebook works in float64; the arrays decide.
    """
    neurons, batch = len(w), len(x)
    inputs = x.T  # [D, B]
    u = (np.sign(w) * np.abs(w) ** (p - 1)) @ inputs  # [N, B]
    order = np.argsort(u, axis=0)  # ascending
    g = np.zeros((neurons, batch), w.dtype)
    g[order[neurons - 1], np.arange(batch)] = 1
    g[order[neurons - k], np.arange(batch)] = -delta
    dw = g @ inputs.T - (g * u).sum(1)[:, None] * w  # [N, D]
    w += rate * (dw / max(np.abs(dw).max(), PRECISION))


def make_best(neurons: int, inputs: int, *, threads: int = 1) -> Callable:
    """Build the fastest numpy step we found, `step(w, x, *, k, delta, p, rate)`, in float32 and in place.

    Drives with the unit axis contiguous; an argmax and, for k = 2, a second one, else a partition; only the two rows
    per sample are added, sorted by neuron and summed by `reduceat`; buffers kept; selection on as many threads as the
    product has. What else was tried, with times: NOTES.md.
    """
    pool = ThreadPoolExecutor(threads)
    dw, scratch = np.empty((neurons, inputs), np.float32), np.empty((neurons, inputs), np.float32)
    drives: dict[int, np.ndarray] = {}

    def step(w, x, *, k, delta, p, rate):
        batch = len(x)
        u = drives.setdefault(batch, np.empty((batch, neurons), np.float32))
        np.matmul(x, seen(w, p, scratch).T, out=u)
        cuts = np.linspace(0, batch, threads + 1).astype(int)
        parts = list(pool.map(lambda cut: first_and_kth(u[cut[0] : cut[1]], k), itertools.pairwise(cuts)))
        first, kth = (np.concatenate([part[which] for part in parts]) for which in (0, 1))
        rows = np.arange(batch)
        owner = np.concatenate([first, kth])
        credit = np.concatenate([np.ones(batch, np.float32), np.full(batch, -delta, np.float32)])
        leak = np.bincount(owner, credit * u[np.concatenate([rows, rows]), owner], neurons).astype(np.float32)
        order = np.argsort(owner, kind='stable')
        starts = np.flatnonzero(np.r_[True, np.diff(owner[order]) > 0])
        given = x[order % batch]
        given *= credit[order][:, None]
        np.multiply(w, -leak[:, None], out=dw)
        dw[owner[order][starts]] += np.add.reduceat(given, starts)
        largest = max(float(dw.max()), -float(dw.min()), PRECISION)
        np.multiply(dw, np.float32(rate / largest), out=dw)
        w += dw

    return step


def seen(w: np.ndarray, p: float, out: np.ndarray) -> np.ndarray:
    """Compute sign(w) |w|^(p-1): by products where p is 2 or 3, since a power costs 50 times a product."""
    if p == 2:
        return w
    np.abs(w, out=out)
    if p == 3:
        return np.multiply(w, out, out=out)
    return np.multiply(np.sign(w), np.power(out, np.float32(p - 1), out=out), out=out)


def first_and_kth(u: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find who has the largest and who the k-th largest drive of each row. [B, N] -> [B], [B]."""
    rows = np.arange(len(u))
    first = u.argmax(1)
    if k == 2:
        top = u[rows, first]
        u[rows, first] = -np.inf
        second = u.argmax(1)
        u[rows, first] = top
        return first, second
    best = np.argpartition(u, u.shape[1] - k, axis=1)[:, -k:]
    return first, best[rows, np.take_along_axis(u, best, 1).argmin(1)]
