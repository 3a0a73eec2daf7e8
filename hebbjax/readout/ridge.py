"""Reading classes out of features in closed form: ridge regression on one-hot labels, streamed over batches.

All of it is computed in float64, on the host: products of float32 features differ by more than a small penalty.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hebbjax.base import AnyArray, Array, Labelled
from hebbjax.support.checks import check_count, check_labels, check_memory, check_number, is_traced, require

CHUNK = 4096  # features that lie in memory in float64 at once
LOST = 3e-13  # share of the largest eigenvalue below which one is known to fewer than three digits, in float64


class RidgeStats(NamedTuple):
    """All that ridge regression needs of the data, on the host in float64: its size does not grow with the data."""

    origin: np.ndarray  # [F] the first features; of all that follow they are subtracted, so a constant one becomes 0
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]  no tuple is searched for values
    x: np.ndarray  # [F] mean of the features less the origin
    y: np.ndarray  # [K] and of the one-hot labels
    xx: np.ndarray  # [F, F] sum of products of the features' deviations from their mean
    xy: np.ndarray  # [F, K] and of those with the labels' deviations


class Ridge(NamedTuple):
    """A linear classifier: the largest of `x w + b`."""

    w: np.ndarray  # [F, K] float64
    b: np.ndarray  # [K]


def ridge_stats(batches: Iterable[Labelled], classes: int) -> RidgeStats:
    """Add up what ridge regression needs of (features [b, F], labels [b] of 0 .. K - 1), batch by batch.

    No two batches need to lie in memory at once.
    """
    stats: Any = None
    for features, labels in _pairs(batches):
        stats = add_batch(stats, features, labels, classes)
    require(stats is not None, 'ridge regression needs at least one batch of features and labels.')
    return stats


def add_batch(stats: RidgeStats | None, features: AnyArray, labels: AnyArray, classes: int) -> RidgeStats:
    """Add one batch, features [b, F] and labels [b], to stats, whose arrays are written over; None: it is the first."""
    check_count('classes', classes)
    features = _check_features(features, None if stats is None else len(stats.x))
    labels = np.asarray(check_labels(labels, classes, len(features)))
    if stats is None:
        inputs = features.shape[1]
        check_memory(5 * 8 * inputs**2, f'ridge regression on {inputs} features', 'pool the features')
        zeros = np.zeros(inputs), np.zeros(classes), np.zeros((inputs, inputs)), np.zeros((inputs, classes))
        stats = RidgeStats(features[0].astype(np.float64), 0, *zeros)
    for start in range(0, len(features), CHUNK):
        # Means first, then products of deviations from them, so that no common level costs digits.
        y, count = np.eye(len(stats.y))[labels[start : start + CHUNK]], stats.count
        with np.errstate(over='ignore', invalid='ignore'):  # looked at below
            x = features[start : start + CHUNK].astype(np.float64) - stats.origin
            new, dx, dy = len(x), x.mean(0) - stats.x, y.mean(0) - stats.y
            # what the means differ by counts like one more sample
            share = (count * new / (count + new)) ** 0.5
            x = np.concatenate([x - x.mean(0), share * dx[None]])
            y = np.concatenate([y - y.mean(0), share * dy[None]])
            stats.xx[:] += x.T @ x
            stats.xy[:] += x.T @ y
            stats.x[:] += dx * new / (count + new)
            stats.y[:] += dy * new / (count + new)
        stats = stats._replace(count=count + new)
    beyond = 'squares of these features are beyond float64; divide them by their largest value.'
    require(np.isfinite(stats.xx).all(), beyond)
    return stats


def _pairs(batches) -> Iterator[Any]:
    for batch in batches if isinstance(batches, Iterable) else (batches,):
        came = f'batches are pairs of features [b, F] and labels [b], not {type(batch).__name__}'
        is_pair = isinstance(batch, tuple | list) and len(batch) == 2
        require(is_pair, f'{came}; give a single one as [(features, labels)].')
        yield batch


def _check_features(features, inputs: int | None) -> np.ndarray:
    """Give features [b, F] as an array on the host, or refuse what no classifier can be fitted to."""
    traced = is_traced(features)
    require(not traced, 'ridge regression computes in float64 on the host; call it outside of jit.')
    x = np.asarray(features)
    fits = x.ndim == 2 and 0 not in x.shape and inputs in (None, x.shape[1])
    wanted = f'[b, {inputs or "F"}], b >= 1, a row for each image'
    require(fits, f'features of shape {x.shape} do not fit; wanted {wanted}.')
    are_numbers = x.dtype.kind in 'iub' or jnp.issubdtype(x.dtype, jnp.floating)
    require(are_numbers, f'features are numbers, not {x.dtype}; convert them to numpy.float32.')
    finite = np.isfinite(x).all()
    require(finite, 'features hold NaN or infinite values, which no classifier can take; check the images.')
    return x


def solve_ridge(stats: RidgeStats, penalty: float = 1.0) -> Ridge:
    """Minimise `|Y - X w - b|^2 + penalty |w|^2`: `w = (Xc' Xc + penalty I)^(-1) Xc' Yc`, centred; `b` goes free.

    The penalty is in squared units of the features, summed over images; 0 is least squares, where it has a solution.
    One that is too small for features that depend on each other is refused, naming one that is not.
    """
    check_number('penalty', penalty, least=0)
    a = stats.xx + float(penalty) * np.eye(len(stats.xx))
    # every feature in units of its own, so that the large ones do not drown the small ones in their rounding
    unit = np.sqrt(np.diag(a))
    unit[unit == 0] = 1
    values, vectors = np.linalg.eigh(a / unit / unit[:, None])
    largest = stats.xx.diagonal().max()
    enough = 4 * LOST * max(values[-1], 1) * largest
    way = f'use a penalty of {enough:.1e} or more' if enough else 'use a larger one'
    spread = f'with standard deviations of up to {(largest / stats.count) ** 0.5:.1e}'
    depend = f'at penalty {penalty} the features depend on each other to the last digit of float64'
    require(values[0] > LOST * values[-1], f'{depend}, {spread}; {way}.')
    w = vectors @ (vectors.T @ (stats.xy / unit[:, None]) / values[:, None]) / unit[:, None]
    return Ridge(w, stats.y - (stats.origin + stats.x) @ w)


def fit_ridge(batches: Iterable[Labelled], classes: int, penalty: float = 1.0) -> Ridge:
    """Fit ridge regression to batches of features and labels: `solve_ridge(ridge_stats(batches, classes), penalty)`.

    Example:
        >>> features = np.array([[0.0, 1.0], [1.0, 0.0], [0.1, 0.9], [0.9, 0.2]])
        >>> model = fit_ridge([(features, [0, 1, 0, 1])], 2, penalty=0.1)
        >>> predict_ridge(model, features).tolist()
        [0, 1, 0, 1]
    """
    return solve_ridge(ridge_stats(batches, classes), penalty)


def predict_ridge(model: Ridge, features: AnyArray) -> Array:
    """Give the class of each image: `argmax(x w + b)`. [B, F] -> [B] int32."""
    x = _check_features(features, len(model.w)).astype(np.float64)
    return jax.device_put((x @ model.w + model.b).argmax(1).astype(np.int32))


def ridge_accuracy(model: Ridge, batches: Iterable[Labelled]) -> float:
    """Give the share, in [0, 1], of images whose class is predicted right."""
    hits = [np.asarray(predict_ridge(model, x)) == check_labels(y, count=len(x)) for x, y in _pairs(batches)]
    require(hits, 'an accuracy needs at least one batch of features and labels.')
    return float(np.concatenate(hits).mean())
