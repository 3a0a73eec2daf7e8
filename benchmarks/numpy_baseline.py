"""Krotov and Hopfield's update in numpy: as it was published, and as fast as we could write it.

Both compute what `rules.krotov` with `scale_by_max_abs()` and `scale_by_rate(rate)` computes (a test holds all three
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

    Drives with the unit axis contiguous; k maxima instead of a sort, on as many threads as the product has; only the
    two rows per sample are added, one after the other; buffers kept. What else was tried: `numpy_tries.py`.
    """
    pool = ThreadPoolExecutor(threads)
    dw, scratch = np.empty((neurons, inputs), np.float32), np.empty((neurons, inputs), np.float32)
    drives: dict[int, np.ndarray] = {}

    def step(w, x, *, k, delta, p, rate):
        batch, delta = len(x), np.float32(delta)
        u = drives.setdefault(batch, np.empty((batch, neurons), np.float32))
        np.matmul(x, effective_weights(w, p, scratch).T, out=u)
        cuts = np.linspace(0, batch, threads + 1).astype(int)
        parts = pool.map(lambda cut: first_and_kth(u[cut[0] : cut[1]], k), itertools.pairwise(cuts))
        first, top, kth, value = (np.concatenate(part) for part in zip(*parts, strict=True))
        leak = np.bincount(first, top, neurons) - delta * np.bincount(kth, value, neurons)
        np.multiply(w, -leak.astype(np.float32)[:, None], out=dw)
        for row, gain, loss in zip(x, first.tolist(), kth.tolist(), strict=True):
            dw[gain] += row
            dw[loss] -= delta * row
        largest = max(float(dw.max()), -float(dw.min()), PRECISION)
        np.multiply(dw, np.float32(rate / largest), out=dw)
        w += dw

    return step


def effective_weights(w: np.ndarray, p: float, out: np.ndarray) -> np.ndarray:
    """Compute sign(w) |w|^(p-1): by products where p is 2 or 3, since a power costs 50 times a product."""
    if p == 2:
        return w
    np.abs(w, out=out)
    if p == 3:
        return np.multiply(w, out, out=out)
    return np.multiply(np.sign(w), np.power(out, np.float32(p - 1), out=out), out=out)


def first_and_kth(u: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the largest and the k-th largest drive of each row: whose and how large, twice. Overwrites u [B, N]."""
    rows, ranked = np.arange(len(u)), []
    for _ in range(k):
        place = u.argmax(1)
        ranked.append((place, u[rows, place]))
        u[rows, place] = -np.inf
    return *ranked[0], *ranked[-1]


def epoch(step: Callable, dtype, images: np.ndarray, *, hidden: int, batch: int, **settings) -> Callable[[], None]:
    """Build a turn: one epoch of a step over all batches of uint8 images, made ready in its floating type."""
    x = (images.reshape(len(images), -1) / 255).astype(dtype)
    w = np.random.default_rng(0).standard_normal((hidden, x.shape[1])).astype(dtype)

    def turn():
        for start in range(0, len(x), batch):
            step(w, x[start : start + batch], **settings)

    return turn
