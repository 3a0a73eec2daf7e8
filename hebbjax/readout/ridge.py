"""Reading classes out of features in closed form: ridge regression on one-hot labels, streamed over batches.

All of it is computed in float64, since products of float32 features differ by more than a small penalty; but for the
products of more than 4,000 features, whose number takes care of the time and whose penalties are larger.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from hebbjax.base import AnyArray, Labelled
from hebbjax.readout import linear
from hebbjax.readout.linear import LinearClassifier, PenaltyChoice
from hebbjax.support import devices, moments
from hebbjax.support.checks import check_count, check_labels, check_memory, check_number, require

LOST = 3e-13  # share of the largest eigenvalue below which one is known to fewer than three digits, in float64
RidgeStats = moments.Moments  # all that ridge regression needs of the data: x are features, y one-hot labels


def ridge_stats(batches: Iterable[Labelled], classes: int, mesh: Mesh | None = None) -> RidgeStats:
    """Add up what ridge regression needs of (features [b, F], labels [b] of 0 .. K - 1), batch by batch.

    One batch lies in memory at a time. On a mesh (`jax.make_mesh((jax.device_count(),), ('data',))`) devices share it.
    """
    stats: Any = None
    for features, labels in linear.pairs_of(batches):
        stats = add_batch(stats, features, labels, classes, mesh)
    require(stats is not None, 'ridge regression needs at least one batch of features and labels.')
    return moments.gather_moments(stats)


def add_batch(
    stats: RidgeStats | None, features: AnyArray, labels: AnyArray, classes: int, mesh: Mesh | None = None
) -> RidgeStats:
    """Add one batch, features [b, F] and labels [b], to stats, which are written over; None: it is the first."""
    check_count('classes', classes)
    mesh = devices.check_mesh(mesh)
    features = linear.check_features(features, None if stats is None else stats.x.shape[-1], moments.is_on_device(mesh))
    labels = np.asarray(check_labels(labels, classes, len(features)))
    known = classes if stats is None else stats.y.shape[-1]
    require(known == classes, f'stats of {known} classes take no batch of {classes}; say how many there are in all.')
    if stats is None:
        check_width(features.shape[1])
    return moments.add_moments(stats, features, np.eye(classes)[labels], mesh)


def check_width(inputs: int) -> None:
    """Refuse so many features as the memory cannot hold the products of, in a few copies."""
    check_memory(16 * inputs**2, f'ridge regression on {inputs} features', 'pool the features')


def solve_ridge(stats: RidgeStats, penalty: float = 1.0) -> LinearClassifier:
    """Minimise `|Y - X w - b|^2 + penalty |w|^2`: `w = (Xc' Xc + penalty I)^(-1) Xc' Yc`, centred; `b` goes free.

    The penalty is in squared units of the features, summed over images; 0 is least squares, where it has a solution.
    One that is too small for features that depend on each other is refused, naming one that is not.
    """
    check_number('penalty', penalty, least=0)
    stats = _check_stats(stats)
    if len(stats.xx) > moments.WIDE:
        return linear.require_solved(*_solve_each(stats, [float(penalty)]), penalty)
    a = stats.xx + float(penalty) * np.eye(len(stats.xx))
    # every feature in units of its own, so that the large ones do not drown the small ones in their rounding
    unit = np.sqrt(np.diag(a))
    unit[unit == 0] = 1
    a, right = a / unit / unit[:, None], stats.xy / unit[:, None]
    if (w := moments.solve_well(a, right, 1000 * LOST)) is not None:
        return _with_bias(stats, w / unit[:, None])
    values, vectors = moments.eigh(a)  # many times as long, but they tell what would do
    largest = stats.xx.diagonal().max()
    enough = 4 * LOST * max(values[-1], 1) * largest
    way = f'use a penalty of {enough:.1e} or more' if enough else 'use a larger one'
    spread = f'with standard deviations of up to {(largest / stats.count) ** 0.5:.1e}'
    depend = f'at penalty {penalty} the features depend on each other to the last digit of float64'
    require(values[0] > LOST * values[-1], f'{depend}, {spread}; {way}.')
    return _with_bias(stats, vectors @ (vectors.T @ right / values[:, None]) / unit[:, None])


def _check_stats(stats: RidgeStats) -> RidgeStats:
    """Give stats of all devices, on the host, or refuse what are no finite numbers."""
    stats = moments.gather_moments(stats)
    require(np.isfinite(stats.x).all(), linear.NOT_FINITE)
    beyond = 'squares of these features are beyond float64; divide them by their largest value.'
    require(np.isfinite(stats.xx).all(), beyond)
    return stats


def _solve_each(stats: RidgeStats, penalties: Sequence[float]) -> Iterator[LinearClassifier | None]:
    """Solve for one penalty after the other, by Cholesky of features in units of their own; None: without success."""
    unit = np.sqrt(stats.xx.diagonal())
    unit[unit == 0] = 1
    for penalty in penalties:
        w = moments.solve_refined(stats.xx, penalty, stats.xy, unit)
        yield None if w is None else _with_bias(stats, w)


def _with_bias(stats, w) -> LinearClassifier:
    return LinearClassifier(w, stats.y - (stats.origin + stats.x) @ w)


def choose_ridge(stats: RidgeStats, penalties: tuple[float, ...], held_out: Iterable[Labelled]) -> PenaltyChoice:
    """Solve for each of the penalties, and choose the one by which most held-out images are read right.

    It takes a Cholesky decomposition for each, a fifteenth of the time of eigenvectors, and one pass over the batches
    of held-out features and labels, if there are several. The model is the one that these were read by.
    """
    penalties = linear.check_penalties(penalties, least=0)
    if len(penalties) == 1:
        return PenaltyChoice(solve_ridge(stats, *penalties), *penalties, ())
    stats = _check_stats(stats)
    models = list(_solve_each(stats, penalties))
    best, accuracies = linear.choose(models, penalties, held_out)
    return PenaltyChoice(models[best], penalties[best], accuracies)


def fit_ridge(
    batches: Iterable[Labelled], classes: int, penalty: float = 1.0, mesh: Mesh | None = None
) -> LinearClassifier:
    """Fit ridge regression to batches of features and labels: `solve_ridge(ridge_stats(batches, classes), penalty)`.

    On a mesh, see `ridge_stats`.

    Example:
        >>> features = np.array([[0.0, 1.0], [1.0, 0.0], [0.1, 0.9], [0.9, 0.2]])
        >>> model = fit_ridge([(features, [0, 1, 0, 1])], 2, penalty=0.1)
        >>> linear.predict_linear(model, features).tolist()
        [0, 1, 0, 1]
    """
    return solve_ridge(ridge_stats(batches, classes, mesh), penalty)
