"""Reading classes out of features in closed form: ridge regression on one-hot labels, streamed over batches."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hebbjax.types import Array


class Moments(NamedTuple):
    """All that ridge regression needs of the data, on the host: its size does not grow with the data."""

    origin: np.ndarray  # [F] float32: what was subtracted from the features before anything was multiplied
    count: int
    x: np.ndarray  # [F] float64, as all below: sum of features less the origin
    y: np.ndarray  # [K] images per class
    xx: np.ndarray  # [F, F] sum of their products
    xy: np.ndarray  # [F, K] and of those with the one-hot labels


class Ridge(NamedTuple):
    """A linear classifier: the largest of `x w + b`."""

    w: Array  # [F, K]
    b: Array  # [K]


@jax.jit
def _products(x, targets):
    multiply = lambda a, b: jnp.matmul(a.T, b, precision=lax.Precision.HIGHEST)  # noqa: E731
    return x.sum(0), targets.sum(0), multiply(x, x), multiply(x, targets)


def gather(batches: Iterable[tuple[Array, Array]], classes: int) -> Moments:
    """Add up what ridge regression needs, batch by batch; no two batches need to lie in memory at once.

    Args:
        batches: (features [b, F], labels [b] of 0 .. K - 1), at least one.
        classes: K.

    Raises:
        ValueError: if there is no batch, a label is out of range, or features are not finite.
    """
    found = None
    for features, labels in batches:
        found = add(found, features, labels, classes)
    if found is None:
        raise ValueError('ridge regression needs at least one batch of features and labels.')
    return found


def add(found: Moments | None, features: Array, labels: Array, classes: int) -> Moments:
    """Add one batch to moments; None: it is the first.

    Products are made in float32 on the device, of features from which the first batch's mean is subtracted (so that
    nothing is lost to their common level), and added up in float64.

    Args:
        found: moments so far; their arrays are written over.
        features: [b, F], b >= 1, floating.
        labels: [b] of 0 .. K - 1.
        classes: K.

    Raises:
        ValueError: if shapes do not fit, a label is out of range, or features are not finite.
    """
    inputs = features.shape[-1] if found is None else len(found.x)
    _check(features, labels, classes, inputs)
    features = features.astype(jnp.float32)
    if found is None:
        none = np.zeros(inputs), np.zeros(classes), np.zeros((inputs, inputs)), np.zeros((inputs, classes))
        found = Moments(np.asarray(jnp.mean(features, 0)), 0, *none)
    targets = jax.nn.one_hot(labels, classes, dtype=features.dtype)
    new = _products(features - found.origin[None], targets)
    for total, part in zip(found[2:], new):
        total += np.asarray(part, np.float64)
    if not np.isfinite(found.x).all():
        raise ValueError('features hold NaN or infinite values, which no classifier can be fitted to.')
    return found._replace(count=found.count + len(labels))


def _check(features, labels, classes, inputs):
    if features.ndim != 2 or labels.shape != features.shape[:1] or features.shape[1] != inputs or not len(labels):
        raise ValueError(
            f'features {features.shape} and labels {labels.shape} do not fit; wanted [b, {inputs}] and [b], b >= 1.'
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise ValueError(f'labels of {lowest} .. {highest} do not fit {classes} classes; wanted 0 .. {classes - 1}.')


def solve(moments: Moments, penalty: float = 1.0) -> Ridge:
    """Minimise `|Y - X w - b|^2 + penalty |w|^2`: `w = (Xc' Xc + penalty I)^(-1) Xc' Yc`, centred; `b` goes free.

    Args:
        moments: of features and labels.
        penalty: in squared units of the features, summed over images; 0 is least squares, where it has a solution.

    Raises:
        ValueError: if the penalty is negative, or 0 where features depend on each other.
    """
    if not penalty >= 0:
        raise ValueError(f'a penalty of {penalty} would reward large weights; use 0 or more.')
    x_mean, y_mean = moments.x / moments.count, moments.y / moments.count
    xx = moments.xx - moments.count * np.outer(x_mean, x_mean)
    xy = moments.xy - moments.count * np.outer(x_mean, y_mean)
    values, vectors = np.linalg.eigh(xx)
    values = np.maximum(values, 0) + penalty
    # products were made in float32: what is smaller than their rounding is no variance
    if penalty == 0 and values[0] <= len(xx) * np.finfo(np.float32).eps * values[-1]:
        raise ValueError(f'at penalty {penalty} the features depend on each other; use a larger one.')
    w = vectors @ (vectors.T @ xy / values[:, None])
    b = y_mean - (moments.origin + x_mean) @ w
    return Ridge(jnp.asarray(w, jnp.float32), jnp.asarray(b, jnp.float32))


def ridge(batches: Iterable[tuple[Array, Array]], classes: int, penalty: float = 1.0) -> Ridge:
    """Fit ridge regression to batches of features and labels: `solve(gather(batches, classes), penalty)`.

    Args and errors are theirs.
    """
    return solve(gather(batches, classes), penalty)


def predict(model: Ridge, features: Array) -> Array:
    """Give the class of each image: `argmax(x w + b)`. [B, F] -> [B] int32."""
    return jnp.argmax(jnp.matmul(features, model.w, precision=lax.Precision.HIGHEST) + model.b[None], axis=1)


def accuracy(model: Ridge, batches: Iterable[tuple[Array, Array]]) -> float:
    """Give the share of images whose class is predicted right.

    Raises:
        ValueError: if there is no batch.
    """
    right = total = 0
    for features, labels in batches:
        right += int(jnp.sum(predict(model, features) == labels))
        total += len(labels)
    if not total:
        raise ValueError('an accuracy needs at least one batch of features and labels.')
    return right / total
