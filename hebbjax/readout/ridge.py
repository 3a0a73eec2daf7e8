"""Reading classes out of features in closed form: ridge regression on one-hot labels, streamed over batches.

All of it is computed in float64, since products of float32 features differ by more than a small penalty; but for the
products of more than 4,000 features, whose number takes care of the time and whose penalties are larger.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hebbjax.base import AnyArray, Array, Labelled
from hebbjax.support import devices
from hebbjax.support.checks import check_count, check_labels, check_memory, check_number, is_traced, require
from hebbjax.support.moments import Moments, add_moments, eigh, gather_moments, is_on_device, is_wide, solve_refined

LOST = 3e-13  # share of the largest eigenvalue below which one is known to fewer than three digits, in float64
NOT_FINITE = 'features hold NaN or infinite values, which no classifier can take; check the images.'
RidgeStats = Moments  # all that ridge regression needs of the data: x are features, y one-hot labels


class Ridge(NamedTuple):
    """A linear classifier: the largest of `x w + b`."""

    w: np.ndarray  # [F, K] float64
    b: np.ndarray  # [K]


class RidgeChoice(NamedTuple):
    """What validation images chose: the best of several penalties, of equally good ones the first."""

    model: Ridge
    penalty: float
    accuracies: tuple[tuple[float, float], ...]  # (penalty, share in [0, 1] that is right); NaN: has no solution


def ridge_stats(batches: Iterable[Labelled], classes: int, mesh: Mesh | None = None) -> RidgeStats:
    """Add up what ridge regression needs of (features [b, F], labels [b] of 0 .. K - 1), batch by batch.

    No two batches need to lie in memory at once. On a mesh (`jax.make_mesh((jax.device_count(),), ('data',))`) every
    device adds up its rows of each.
    """
    stats: Any = None
    for features, labels in _pairs(batches):
        stats = add_batch(stats, features, labels, classes, mesh)
    require(stats is not None, 'ridge regression needs at least one batch of features and labels.')
    return gather_moments(stats)


def add_batch(
    stats: RidgeStats | None, features: AnyArray, labels: AnyArray, classes: int, mesh: Mesh | None = None
) -> RidgeStats:
    """Add one batch, features [b, F] and labels [b], to stats, which are written over; None: it is the first."""
    check_count('classes', classes)
    mesh = devices.check_mesh(mesh)
    features = _check_features(features, None if stats is None else stats.x.shape[-1], is_on_device(mesh))
    labels = np.asarray(check_labels(labels, classes, len(features)))
    if stats is None:
        check_width(features.shape[1])
    return add_moments(stats, features, np.eye(classes)[labels], mesh)


def check_width(inputs: int) -> None:
    """Refuse so many features as the memory cannot hold the products of, in a few copies."""
    check_memory(28 * inputs**2, f'ridge regression on {inputs} features', 'pool the features')


def _pairs(batches) -> Iterator[Any]:
    for batch in batches if isinstance(batches, Iterable) else (batches,):
        came = f'batches are pairs of features [b, F] and labels [b], not {type(batch).__name__}'
        is_pair = isinstance(batch, tuple | list) and len(batch) == 2
        require(is_pair, f'{came}; give a single one as [(features, labels)].')
        yield batch


def _check_features(features, inputs: int | None, stay: bool = False) -> Any:
    """Give features [b, F] as an array on the host, or refuse what no classifier can be fitted to.

    Where they `stay` on their device, what is added up there says in the end whether they are finite.
    """
    traced = is_traced(features)
    require(not traced, 'ridge regression computes in float64 on the host; call it outside of jit.')
    x = features if stay and isinstance(features, jax.Array) else np.asarray(features)
    fits = x.ndim == 2 and 0 not in x.shape and inputs in (None, x.shape[1])
    wanted = f'[b, {inputs or "F"}], b >= 1, a row for each image'
    require(fits, f'features of shape {x.shape} do not fit; wanted {wanted}.')
    are_numbers = x.dtype.kind in 'iub' or jnp.issubdtype(x.dtype, jnp.floating)
    require(are_numbers, f'features are numbers, not {x.dtype}; convert them to numpy.float32.')
    require(not isinstance(x, np.ndarray) or np.isfinite(x).all(), NOT_FINITE)
    return x


def solve_ridge(stats: RidgeStats, penalty: float = 1.0) -> Ridge:
    """Minimise `|Y - X w - b|^2 + penalty |w|^2`: `w = (Xc' Xc + penalty I)^(-1) Xc' Yc`, centred; `b` goes free.

    The penalty is in squared units of the features, summed over images; 0 is least squares, where it has a solution.
    One that is too small for features that depend on each other is refused, naming one that is not.
    """
    check_number('penalty', penalty, least=0)
    stats = _check_stats(stats)
    if is_wide(len(stats.xx)):
        (model,) = _solve_each(stats, [float(penalty)])
        return require_solved(model, penalty)
    a = stats.xx + float(penalty) * np.eye(len(stats.xx))
    # every feature in units of its own, so that the large ones do not drown the small ones in their rounding
    unit = np.sqrt(np.diag(a))
    unit[unit == 0] = 1
    values, vectors = eigh(a / unit / unit[:, None])
    largest = stats.xx.diagonal().max()
    enough = 4 * LOST * max(values[-1], 1) * largest
    way = f'use a penalty of {enough:.1e} or more' if enough else 'use a larger one'
    spread = f'with standard deviations of up to {(largest / stats.count) ** 0.5:.1e}'
    depend = f'at penalty {penalty} the features depend on each other to the last digit of float64'
    require(values[0] > LOST * values[-1], f'{depend}, {spread}; {way}.')
    w = vectors @ (vectors.T @ (stats.xy / unit[:, None]) / values[:, None]) / unit[:, None]
    return _with_bias(stats, w)


def _check_stats(stats: RidgeStats) -> RidgeStats:
    """Give stats of all devices, on the host, or refuse what are no finite numbers."""
    stats = gather_moments(stats)
    require(np.isfinite(stats.x).all(), NOT_FINITE)
    beyond = 'squares of these features are beyond float64; divide them by their largest value.'
    require(np.isfinite(stats.xx).all(), beyond)
    return stats


def _solve_each(stats: RidgeStats, penalties: Sequence[float]) -> Iterator[Ridge | None]:
    """Solve for one penalty after the other, by Cholesky of features in units of their own; None: without success."""
    unit = np.sqrt(stats.xx.diagonal())
    unit[unit == 0] = 1
    a = stats.xx / unit
    a /= unit[:, None]
    for penalty in penalties:
        w = solve_refined(a, penalty / unit**2, stats.xy / unit[:, None])
        yield None if w is None else _with_bias(stats, w / unit[:, None])


def _with_bias(stats, w) -> Ridge:
    return Ridge(w, stats.y - (stats.origin + stats.x) @ w)


def check_penalties(penalty: float | tuple[float, ...], **bounds: float) -> tuple[float, ...]:
    """Give one penalty, or several, as a tuple."""
    penalties = penalty if isinstance(penalty, tuple) else (penalty,)
    require(penalties, 'penalty=() chooses among none; give a number, or a tuple of some.')
    for one in penalties:
        check_number('penalty', one, **bounds)
    return tuple(map(float, penalties))


def require_solved(model: Any, penalty: float) -> Any:
    """Give what was solved for, or refuse a penalty that float32 cannot tell from 0."""
    what = f'penalty={penalty:g} is lost in the rounding of float32 beside products of so many features'
    require(model is not None, f'{what}; use one ten times as large, or more.')
    return model


def choose_ridge(stats: RidgeStats, penalties: tuple[float, ...], held_out: Iterable[Labelled]) -> RidgeChoice:
    """Solve for each of the penalties, and choose the one by which most held-out images are read right.

    It takes a Cholesky decomposition for each, a fifteenth of the time of eigenvectors, and one pass over the batches
    of held-out features and labels, if there are several. The model is that of `solve_ridge`.
    """
    penalties = check_penalties(penalties, least=0)
    if len(penalties) == 1:
        return RidgeChoice(solve_ridge(stats, *penalties), *penalties, ())
    stats = _check_stats(stats)
    models = list(_solve_each(stats, penalties))
    nothing = Ridge(np.full(stats.xy.shape, np.nan), stats.y)
    w, b = (np.stack(parts) for parts in zip(*(model or nothing for model in models)))  # [p, F, K], [p, K]
    hits = []
    for features, labels in _pairs(held_out):
        x = _check_features(features, w.shape[1]).astype(np.float64)
        hits.append((x @ w + b[:, None]).argmax(2) == np.asarray(check_labels(labels, count=len(x))))  # [p, b]
    require(hits, 'a choice needs at least one batch of held-out features and labels.')
    best, accuracies = choose_best(penalties, np.concatenate(hits, 1), [model is not None for model in models])
    model = models[best] if is_wide(len(stats.xx)) else solve_ridge(stats, penalties[best])
    return RidgeChoice(model, penalties[best], accuracies)


def choose_best(penalties: Sequence[float], hits: np.ndarray, solved: Sequence[bool]) -> tuple[int, tuple]:
    """Say which penalty's hits [p, n] are most, among those that are `solved`, and the accuracies of all."""
    accuracies = np.where(solved, hits.mean(1), np.nan)
    require_solved(True if any(solved) else None, max(penalties))
    return int(np.nanargmax(accuracies)), tuple(zip(penalties, accuracies.tolist()))


def fit_ridge(batches: Iterable[Labelled], classes: int, penalty: float = 1.0, mesh: Mesh | None = None) -> Ridge:
    """Fit ridge regression to batches of features and labels: `solve_ridge(ridge_stats(batches, classes), penalty)`.

    On a mesh, see `ridge_stats`.

    Example:
        >>> features = np.array([[0.0, 1.0], [1.0, 0.0], [0.1, 0.9], [0.9, 0.2]])
        >>> model = fit_ridge([(features, [0, 1, 0, 1])], 2, penalty=0.1)
        >>> predict_ridge(model, features).tolist()
        [0, 1, 0, 1]
    """
    return solve_ridge(ridge_stats(batches, classes, mesh), penalty)


def predict_ridge(model: Ridge, features: AnyArray) -> Array:
    """Give the class of each image: `argmax(x w + b)`. [B, F] -> [B] int32."""
    x = _check_features(features, len(model.w)).astype(np.float64)
    return jax.device_put((x @ model.w + model.b).argmax(1).astype(np.int32))


def ridge_accuracy(model: Ridge, batches: Iterable[Labelled]) -> float:
    """Give the share, in [0, 1], of images whose class is predicted right."""
    hits = [np.asarray(predict_ridge(model, x)) == check_labels(y, count=len(x)) for x, y in _pairs(batches)]
    require(hits, 'an accuracy needs at least one batch of features and labels.')
    return float(np.concatenate(hits).mean())
