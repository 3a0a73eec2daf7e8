"""The rules under test. A new rule enters by one row and inherits every test in test_rules.py."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import reference

from hebbjax import activations, competition, prototypes, rules
from hebbjax.types import LearningRule


class Row(NamedTuple):
    """A rule and its judge."""

    name: str
    make: Callable[[], LearningRule]
    reference: Callable  # (x [P, D], w [N, D], threshold=None) -> dw [N, D], in loops
    reduce: str  # 'total' grows with the number of patches, 'mean' and 'weighted' do not


def total(x, w, judge, threshold=None):
    """Undo a judge's mean over patches."""
    return judge(x, w, threshold=threshold) * len(x)


def weighted(x, w, judge, compete, threshold=None):
    """Turn a judge's mean over patches into a mean over each neuron's credit."""
    return reference.own_mean(judge(x, w, compete=compete, threshold=threshold), x, w, compete, threshold)


def peaks(u):
    """y = max(u - mean u, 0)."""
    return np.maximum(np.array(u) - np.mean(u), 0)


def nearest_row(name, compete, judged, by, reduce):
    """The rule of prototypes at one setting; `judged` is the competition in loops."""
    judge = partial(reference.nearest, compete=judged, by=by, reduce=reduce)
    return Row(name, lambda: prototypes.nearest(compete, by=by, reduce=getattr(rules, reduce)), judge, reduce)


def krotov_row(k, delta, p):
    """Krotov and Hopfield's rule at one setting."""
    judge = partial(reference.krotov, k=k, delta=delta, p=p)
    return Row(f'krotov-k{k}-delta{delta}-p{p}', lambda: rules.krotov(k, delta, p), judge, 'total')


RULES = [
    Row('hebb', rules.hebb, reference.hebb, 'mean'),
    Row('hebb-total', lambda: rules.hebb(reduce=rules.total), partial(total, judge=reference.hebb), 'total'),
    Row(
        'hebb-soft_wta',
        lambda: rules.hebb(competition.soft_wta(1.0)),
        partial(reference.hebb, compete=reference.shared),
        'mean',
    ),
    Row('oja', rules.oja, reference.oja, 'mean'),
    Row('oja-relu', lambda: rules.oja(competition.relu()), partial(reference.oja, compete=reference.driven), 'mean'),
    Row(
        'oja-relu-weighted',
        lambda: rules.oja(competition.relu(), reduce=rules.weighted),
        partial(weighted, judge=reference.oja, compete=reference.driven),
        'weighted',
    ),
    Row('sanger', rules.sanger, reference.sanger, 'mean'),
    Row('sanger-total', lambda: rules.sanger(reduce=rules.total), partial(total, judge=reference.sanger), 'total'),
    Row('instar-1', lambda: rules.instar(1), partial(reference.instar, k=1), 'mean'),
    Row('instar-3', lambda: rules.instar(3), partial(reference.instar, k=3), 'mean'),
    Row(
        'instar-weighted',
        lambda: rules.instar(reduce=rules.weighted),
        partial(weighted, judge=reference.instar, compete=reference.winners(1)),
        'weighted',
    ),
    Row(
        'instar-triangle-total',
        lambda: rules.instar(competition.graded(activations.triangle), reduce=rules.total),
        partial(total, judge=partial(reference.instar, compete=peaks)),
        'total',
    ),
    Row('hebb-1', lambda: rules.hebb(1), partial(reference.hebb, compete=reference.winners(1)), 'mean'),
    Row('oja-2', lambda: rules.oja(2), partial(reference.oja, compete=reference.winners(2)), 'mean'),
    nearest_row('nearest', 1, reference.winners(1), 'angle', 'weighted'),
    nearest_row('nearest-distance-2', 2, reference.winners(2), 'distance', 'mean'),
    nearest_row('nearest-distance-soft_wta', competition.soft_wta(1.0), reference.shared, 'distance', 'weighted'),
    nearest_row('nearest-linear', competition.linear(), reference.everyone, 'angle', 'weighted'),
    nearest_row('nearest-linear-total', competition.linear(), reference.everyone, 'angle', 'total'),
    krotov_row(2, 0.4, 2),
    krotov_row(2, 0.4, 2.0),
    krotov_row(3, 0.2, 3),
    krotov_row(5, 0.0, 1.5),
    krotov_row(6, 1.0, 4),
]
