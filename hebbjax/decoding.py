"""Reading classes out of features in closed form: ridge regression on one-hot labels, streamed over batches.

All of it is computed in float64, on the host: products of float32 features differ by more than a small penalty.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from hebbjax import checks
from hebbjax.types import Array

ROWS = 4096  # features that lie in memory in float64 at once
LOST = 3e-13  # share of the largest eigenvalue below which one is known to fewer than three digits, in float64


class Moments(NamedTuple):
    """All that ridge regression needs of the data, on the host in float64: its size does not grow with the data."""

    origin: np.ndarray  # [F] the first features; of all that follow they are subtracted, so a constant one becomes 0
    count: int
    x: np.ndarray  # [F] mean of the features less the origin
    y: np.ndarray  # [K] and of the one-hot labels
    xx: np.ndarray  # [F, F] sum of products of the features' deviations from their mean
    xy: np.ndarray  # [F, K] and of those with the labels' deviations


class Ridge(NamedTuple):
    """A linear classifier: the largest of `x w + b`."""

    w: np.ndarray  # [F, K] float64
    b: np.ndarray  # [K]


def gather(batches: Iterable[tuple[Array, Array]], classes: int) -> Moments:
    """Add up what ridge regression needs, batch by batch; no two batches need to lie in memory at once.

    Args:
        batches: (features [b, F], labels [b] of 0 .. K - 1), at least one.
        classes: K.

    Raises:
        ValueError: if there is no batch, or as `add`.
    """
    found = None
    for features, labels in _pairs(batches):
        found = add(found, features, labels, classes)
    if found is None:
        raise ValueError('ridge regression needs at least one batch of features and labels.')
    return found


def add(found: Moments | None, features: Array, labels: Array, classes: int) -> Moments:
    """Add one batch to moments; None: it is the first.

    Args:
        found: moments so far; their arrays are written over.
        features: [b, F], b >= 1.
        labels: [b] of 0 .. K - 1, as `checks.check_labels` takes them.
        classes: K.

    Raises:
        ValueError: if features or labels do not fit, are out of range or not finite, or there is no room for F x F.
    """
    if not checks.is_count(classes):
        raise ValueError(f'{checks.shown(classes)} classes cannot be told apart; give their number, a whole one.')
    features = _features(features, None if found is None else len(found.x))
    labels = np.asarray(checks.check_labels(labels, classes, len(features)))
    if found is None:
        inputs = features.shape[1]
        checks.check_room(5 * 8 * inputs**2, f'ridge regression on {inputs} features', 'pool the features')
        none = np.zeros(inputs), np.zeros(classes), np.zeros((inputs, inputs)), np.zeros((inputs, classes))
        found = Moments(features[0].astype(np.float64), 0, *none)
    for start in range(0, len(features), ROWS):
        found = _merged(found, features[start : start + ROWS].astype(np.float64), labels[start : start + ROWS])
    if not np.isfinite(found.xx).all():
        raise ValueError('squares of these features are beyond float64; divide them by their largest value.')
    return found


@np.errstate(over='ignore', invalid='ignore')  # `add` looks at what comes out
def _merged(found, x, labels):
    """Add samples: means first, then products of deviations from them, so that no common level costs digits."""
    count, new = found.count, len(x)
    x, y = x - found.origin, np.eye(len(found.y))[labels]
    dx, dy = x.mean(0) - found.x, y.mean(0) - found.y
    # what the means differ by counts like one more sample
    share = (count * new / (count + new)) ** 0.5
    x = np.concatenate([x - x.mean(0), share * dx[None]])
    y = np.concatenate([y - y.mean(0), share * dy[None]])
    found.xx[:] += x.T @ x
    found.xy[:] += x.T @ y
    found.x[:] += dx * new / (count + new)
    found.y[:] += dy * new / (count + new)
    return found._replace(count=count + new)


def _pairs(batches) -> Iterator[tuple[Array, Array]]:
    if not isinstance(batches, Iterable):
        raise ValueError(f'batches are a list of pairs of features and labels, not {checks.shown(batches)}.')
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ValueError(
                f'batches are pairs of features [b, F] and labels [b], not {type(batch).__name__}; '
                'give a single one as [(features, labels)].'
            )
        yield batch


def _features(features, inputs: int | None) -> np.ndarray:
    """Give features [b, F] as an array on the host, or refuse what no classifier can be fitted to."""
    if checks.is_traced(features):
        raise ValueError('ridge regression computes in float64 on the host; call it outside of jit.')
    x = checks.on_host('features', features)
    if x.ndim != 2 or 0 in x.shape or inputs not in (None, x.shape[1]):
        raise ValueError(
            f'features of shape {x.shape} do not fit; wanted [b, {inputs or "F"}], b >= 1, a row for each image.'
        )
    if x.dtype.kind not in 'iub' and not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f'features are numbers, not {x.dtype}; convert them to numpy.float32.')
    if not np.isfinite(x).all():
        raise ValueError('features hold NaN or infinite values, which no classifier can take; check the images.')
    return x


def solve(moments: Moments, penalty: float = 1.0) -> Ridge:
    """Minimise `|Y - X w - b|^2 + penalty |w|^2`: `w = (Xc' Xc + penalty I)^(-1) Xc' Yc`, centred; `b` goes free.

    Args:
        moments: of features and labels.
        penalty: in squared units of the features, summed over images; 0 is least squares, where it has a solution.

    Raises:
        ValueError: if the penalty is negative, or too small for features that depend on each other.
    """
    check_penalty(penalty)
    a = moments.xx + float(penalty) * np.eye(len(moments.xx))
    # every feature in units of its own, so that the large ones do not drown the small ones in their rounding
    unit = np.sqrt(np.diag(a))
    unit[unit == 0] = 1
    values, vectors = np.linalg.eigh(a / unit / unit[:, None])
    if not values[0] > LOST * values[-1]:
        largest = moments.xx.diagonal().max()
        enough = 4 * LOST * max(values[-1], 1) * largest
        way = f'use a penalty of {enough:.1e} or more' if enough else 'use a larger one'
        raise ValueError(
            f'at penalty {penalty} the features depend on each other to the last digit of float64, with standard '
            f'deviations of up to {(largest / moments.count) ** 0.5:.1e}; {way}.'
        )
    w = vectors @ (vectors.T @ (moments.xy / unit[:, None]) / values[:, None]) / unit[:, None]
    return Ridge(w, moments.y - (moments.origin + moments.x) @ w)


def check_penalty(penalty: float) -> None:
    """Refuse what is no penalty.

    Raises:
        ValueError: naming it.
    """
    if checks.misfits(penalty, lambda p: p >= 0):
        raise ValueError(f'a penalty of {checks.shown(penalty)} would reward large weights; use a number, 0 or more.')


def ridge(batches: Iterable[tuple[Array, Array]], classes: int, penalty: float = 1.0) -> Ridge:
    """Fit ridge regression to batches of features and labels: `solve(gather(batches, classes), penalty)`.

    Args and errors are theirs.
    """
    return solve(gather(batches, classes), penalty)


def predict(model: Ridge, features: Array) -> Array:
    """Give the class of each image: `argmax(x w + b)`. [B, F] -> [B] int32.

    Raises:
        ValueError: if features are not [B, F] with the F that the model was fitted to, or not finite.
    """
    x = _features(features, len(model.w)).astype(np.float64)
    return jnp.asarray((x @ model.w + model.b).argmax(1).astype(np.int32))


def accuracy(model: Ridge, batches: Iterable[tuple[Array, Array]]) -> float:
    """Give the share of images whose class is predicted right.

    Raises:
        ValueError: if there is no batch, or features or labels do not fit.
    """
    right = total = 0
    for features, labels in _pairs(batches):
        found = predict(model, features)
        right += int((np.asarray(found) == np.asarray(checks.check_labels(labels, count=len(found)))).sum())
        total += len(found)
    if not total:
        raise ValueError('an accuracy needs at least one batch of features and labels.')
    return right / total
