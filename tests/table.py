"""The rules under test. A new rule enters by one row and inherits every test in rules/test_rules.py.

Also what tests ask a rule for: one program for each rule and shape, whichever test asks.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import reference
from jax import lax

from hebbjax import rules
from hebbjax.base import LearningRule
from hebbjax.layers import activations
from hebbjax.rules import graded, linear, soft_wta


class Row(NamedTuple):
    """A rule and its judge."""

    name: str
    make: Callable[[], LearningRule]
    reference: Callable  # (x [P, D], w [N, D], threshold=None) -> dw [N, D], in loops
    reduce: str  # 'sum_over_patches' grows with the number of patches, the means do not
    square: bool = False  # whether a layer has as many neurons as inputs


def row(name, build, judge, compete=None, judged=None, reduce='mean_over_patches', **settings):
    """A rule by its competition and reduction; `judged` is the competition in loops."""
    judge = partial(judge, compete=judged, reduce=reduce, **settings)
    return Row(name, lambda: build(compete, reduce=getattr(rules, reduce), **settings), judge, reduce)


def nearest_row(name, compete, judged, metric, reduce):
    """Prototypes that are near by their angle or distance."""
    return row(name, rules.instar, reference.prototypes, compete, judged, reduce, metric=metric)


def krotov_row(k, delta, p):
    """Krotov and Hopfield's rule at one setting."""
    judge = partial(reference.krotov, k=k, delta=delta, p=p)
    return Row(f'krotov-k{k}-delta{delta}-p{p}', lambda: rules.krotov(k, delta, p), judge, 'sum_over_patches')


def sanger_row(name, reduce):
    """Sanger's rule with one reduction."""
    judge = partial(reference.sanger, reduce=reduce)
    return Row(name, lambda: rules.sanger(reduce=getattr(rules, reduce)), judge, reduce)


def associative_row(name, kind, reduce='mean_over_patches', **settings):
    """An associative memory of patterns, or of sequences."""
    judge = partial(reference.associate, kind=kind, reduce=reduce, **settings)
    make = lambda: rules.associate(kind, reduce=getattr(rules, reduce), **settings)  # noqa: E731
    return Row(name, make, judge, reduce, square=True)


def taylor_row(name, theta, judge, compete=None, judged=None, reduce='mean_over_patches'):
    """A series in powers with these coefficients, a number or {(a, b, c): number}."""
    if isinstance(theta, dict):
        theta, terms = np.zeros((2, 3, 2)), theta
        for powers, coefficient in terms.items():
            theta[powers] = coefficient
    else:
        judge = partial(judge, theta=theta)
    judge = partial(judge, compete=judged, reduce=reduce)
    return Row(name, lambda: rules.taylor(theta, compete, reduce=getattr(rules, reduce)), judge, reduce)


def mlp_row(name, compete=None, judged=None):
    """A network at every synapse."""
    rng = np.random.default_rng(0)
    params = tuple(rng.normal(size=shape) for shape in ((5, 3), (3,), (3,)))
    judge = partial(reference.mlp, params=params, compete=judged)
    return Row(name, lambda: rules.mlp(params, compete), judge, 'mean_over_patches')


THETAS = [np.random.default_rng(0).normal(size=shape) / 10 for shape in ((3, 3, 3), (1, 4, 2), (2, 1, 1))]
HEBB = {(1, 1, 0): 1}
ONE, TWO, THREE = map(reference.winners, (1, 2, 3))
RELU, TRIANGLE, SOFT = graded(activations.relu), graded(activations.triangle), soft_wta(1.0)
SUM, MEAN, CREDIT = 'sum_over_patches', 'mean_over_patches', 'mean_over_credit'

RULES = [
    row('hebb', rules.hebb, reference.hebb),
    row('hebb-total', rules.hebb, reference.hebb, reduce=SUM),
    row('hebb-1', rules.hebb, reference.hebb, 1, ONE),
    row('hebb-soft_wta', rules.hebb, reference.hebb, SOFT, reference.shared),
    row('oja', rules.oja, reference.oja),
    row('oja-2', rules.oja, reference.oja, 2, TWO),
    row('oja-relu', rules.oja, reference.oja, RELU, reference.driven),
    row('oja-relu-weighted', rules.oja, reference.oja, RELU, reference.driven, CREDIT),
    row('instar-1', rules.instar, reference.instar, 1, ONE),
    row('instar-3', rules.instar, reference.instar, 3, THREE),
    row('instar-weighted', rules.instar, reference.instar, 1, ONE, CREDIT),
    row('instar-triangle-total', rules.instar, reference.instar, TRIANGLE, reference.peaks, SUM),
    Row('softhebb', lambda: rules.softhebb(0.8), partial(reference.softhebb, temperature=0.8), SUM),
    nearest_row('nearest', 1, ONE, 'cosine', CREDIT),
    nearest_row('nearest-linear', linear(), reference.everyone, 'cosine', CREDIT),
    nearest_row('nearest-linear-total', linear(), reference.everyone, 'cosine', SUM),
    nearest_row('nearest-distance-2', 2, TWO, 'euclidean', MEAN),
    nearest_row('nearest-distance-soft_wta', SOFT, reference.shared, 'euclidean', CREDIT),
    sanger_row('sanger', MEAN),
    sanger_row('sanger-total', SUM),
    krotov_row(2, 0.4, 2),
    krotov_row(2, 0.4, 2.0),
    krotov_row(3, 0.2, 3),
    krotov_row(5, 0.0, 1.5),
    taylor_row('taylor', THETAS[0], reference.taylor),
    taylor_row('taylor-2', THETAS[0], reference.taylor, 2, TWO, CREDIT),
    taylor_row('taylor-soft_wta-total', THETAS[1], reference.taylor, SOFT, reference.shared, SUM),
    taylor_row('taylor-of-inputs', THETAS[2], reference.taylor),
    taylor_row('taylor-hebb', HEBB, reference.hebb),
    taylor_row('taylor-oja', HEBB | {(0, 2, 1): -1}, reference.oja),
    taylor_row('taylor-instar', HEBB | {(0, 1, 1): -1}, reference.instar, SOFT, reference.shared),
    mlp_row('mlp'),
    mlp_row('mlp-soft_wta', SOFT, reference.shared),
    krotov_row(6, 1.0, 4),
]

MEMORY = [
    row('trace-1', rules.trace, reference.trace, 1, ONE, eta=0.3),
    row('trace-2-weighted', rules.trace, reference.trace, 2, TWO, CREDIT, eta=0.6),
    row('trace-soft_wta-total', rules.trace, reference.trace, SOFT, reference.shared, SUM, eta=0.2),
    Row('bcm', lambda: rules.bcm(0.3), reference.bcm, MEAN),
    Row('bcm-total', lambda: rules.bcm(reduce=rules.sum_over_patches), partial(reference.bcm, reduce=SUM), SUM),
]

ASSOCIATIVE = [
    associative_row('associate-hebb', 'hebb'),
    associative_row('associate-hebb-total', 'hebb', SUM),
    associative_row('associate-oja-weighted', 'oja', CREDIT),
    associative_row('associate-delta', 'delta'),
    associative_row('associate-hebb-sequences', 'hebb', SUM, sequences=True),
    associative_row('associate-oja-sequences', 'oja', CREDIT, sequences=True),
    associative_row('associate-delta-sequences', 'delta', sequences=True),
]


def drives(rule, x, w):
    """Drives as a layer computes them."""
    return jnp.matmul(x, rule.effective_weights(w).T, precision=lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames='rule')
def _accumulate(rule, stats, x, w, state, teacher, threshold):
    threshold = rule.competition_threshold(jax.random.key(1), w, state, threshold)
    u = drives(rule, x, w)
    if rule.sequential and x.ndim == 2:  # one sequence of patches
        x, u, teacher = jax.tree.map(lambda a: a[None], (x, u, teacher))
    return rule.accumulate(stats, jax.random.key(0), x, u, teacher, threshold)


finalize = jax.jit(lambda rule, stats, w, state: rule.finalize(stats, w, state), static_argnums=0)


def stats_of(rule, x, w, state=None, *, teacher=None, threshold=None, stats=None):
    """What a rule adds up over patches, on top of what there is."""
    state = rule.init(w) if state is None else state
    if stats is None:
        stats = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), jax.eval_shape(rule.init_stats, w))
    return _accumulate(rule, stats, x, w, state, teacher, threshold)


def change(rule, x, w, state=None, **settings):
    """The raw change that a rule makes of patches."""
    state = rule.init(w) if state is None else state
    return finalize(rule, stats_of(rule, x, w, state, **settings), w, state)[0]
