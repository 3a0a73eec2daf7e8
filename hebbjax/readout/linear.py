"""Linear classifiers, however they were fitted: what they are, which penalty images chose, and what they answer."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hebbjax.base import AnyArray, Array, Labelled
from hebbjax.support.checks import check_labels, check_number, is_traced, require

Penalty = float | tuple[float, ...]  # one, or several, of which images choose one
NOT_FINITE = 'features hold NaN or infinite values, which no classifier can take; check the images.'


class LinearClassifier(NamedTuple):
    """A linear classifier: the largest of `x w + b`."""

    w: np.ndarray  # [F, K] float64
    b: np.ndarray  # [K]


class PenaltyChoice(NamedTuple):
    """What validation images chose: the best of several penalties, of equally good ones the first."""

    model: LinearClassifier
    penalty: float
    accuracies: tuple[tuple[float, float], ...]  # (penalty, share in [0, 1] that is right); NaN: has no solution


def pairs_of(batches) -> Iterator[Any]:
    """Give batches one by one, or refuse what is no pair of features and labels."""
    for batch in batches if isinstance(batches, Iterable) else (batches,):
        came = f'batches are pairs of features [b, F] and labels [b], not {type(batch).__name__}'
        is_pair = isinstance(batch, tuple | list) and len(batch) == 2
        require(is_pair, f'{came}; give a single one as [(features, labels)].')
        yield batch


def check_features(features, inputs: int | None, stay: bool = False) -> Any:
    """Give features [b, F] as an array on the host, or refuse what no classifier can be fitted to.

    Where they `stay` on their device, what is added up there says in the end whether they are finite.
    """
    traced = is_traced(features)
    require(not traced, 'linear classifiers are fitted, and answer, on the host; call them outside of jit.')
    x = features if stay and isinstance(features, jax.Array) else np.asarray(features)
    fits = x.ndim == 2 and 0 not in x.shape and inputs in (None, x.shape[1])
    wanted = f'[b, {inputs or "F"}], b >= 1, a row for each image'
    require(fits, f'features of shape {x.shape} do not fit; wanted {wanted}.')
    are_numbers = x.dtype.kind in 'iub' or jnp.issubdtype(x.dtype, jnp.floating)
    require(are_numbers, f'features are numbers, not {x.dtype}; convert them to numpy.float32.')
    require(not isinstance(x, np.ndarray) or np.isfinite(x).all(), NOT_FINITE)
    return x


def check_penalties(penalty: Penalty, **bounds: float) -> tuple[float, ...]:
    """Give one penalty, or several, as a tuple."""
    penalties = penalty if isinstance(penalty, tuple) else (penalty,)
    require(penalties, 'penalty=() chooses among none; give a number, or a tuple of some.')
    for one in penalties:
        check_number('penalty', one, **bounds)
    return tuple(map(float, penalties))


def require_solved(model: Any, penalty: float) -> Any:
    """Give what was solved for, or refuse a penalty that is nothing beside products of features."""
    what = f'penalty={penalty:g} is lost in rounding beside products of these features'
    require(model is not None, f'{what}; use one ten times as large, or more.')
    return model


def choose(
    models: Sequence[LinearClassifier | None], penalties: Sequence[float], held_out: Iterable[Labelled]
) -> tuple[int, tuple]:
    """Say which penalty's model reads most held-out images right, in one pass over these, and the accuracies of all."""
    one = require_solved(next(filter(None, models), None), max(penalties))
    nothing = LinearClassifier(np.full(one.w.shape, np.nan), one.b)
    w, b = (np.stack(parts) for parts in zip(*(model or nothing for model in models)))  # [p, F, K], [p, K]
    hits = []
    for features, labels in pairs_of(held_out):
        x = check_features(features, w.shape[1]).astype(np.float64)
        hits.append((x @ w + b[:, None]).argmax(2) == np.asarray(check_labels(labels, count=len(x))))  # [p, b]
    require(hits, 'a choice needs at least one batch of held-out features and labels.')
    return choose_best(penalties, np.concatenate(hits, 1), [model is not None for model in models])


def choose_best(penalties: Sequence[float], hits: np.ndarray, solved: Sequence[bool]) -> tuple[int, tuple]:
    """Say which penalty's hits [p, n] are most, among those that are `solved`, and the accuracies of all."""
    accuracies = np.where(solved, hits.mean(1), np.nan)
    require_solved(True if any(solved) else None, max(penalties))
    return int(np.nanargmax(accuracies)), tuple(zip(penalties, accuracies.tolist()))


def predict_linear(model: LinearClassifier, features: AnyArray) -> Array:
    """Give the class of each image: `argmax(x w + b)`. [B, F] -> [B] int32."""
    x = check_features(features, len(model.w)).astype(np.float64)
    return jax.device_put((x @ model.w + model.b).argmax(1).astype(np.int32))


def linear_accuracy(model: LinearClassifier, batches: Iterable[Labelled]) -> float:
    """Give the share, in [0, 1], of images whose class is predicted right."""
    hits = [np.asarray(predict_linear(model, x)) == check_labels(y, len(model.b), len(x)) for x, y in pairs_of(batches)]
    require(hits, 'an accuracy needs at least one batch of features and labels.')
    return float(np.concatenate(hits).mean())
