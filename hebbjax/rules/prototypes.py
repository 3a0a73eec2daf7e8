"""Neurons as prototypes: each moves towards what it is nearest to, and may rest where it wins too often."""

import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hebbjax.base import Array, Competing, Credit, Key, LearningRule, State, UpdateStats
from hebbjax.rules.local import Reduction, from_leak, local, mean_over_credit, mean_over_patches, unit_rows
from hebbjax.support import checks


def instar(compete: Competing = 1, *, metric: str = 'dot', reduce: Reduction = mean_over_patches) -> LearningRule:
    """Grossberg's instar: `dw_i = y_i (x - w_i)`; winners move towards what they won, to its mean.

    Where y is graded by another metric than the dot product, or imposed by a teacher, a negative one moves towards -x,
    and a mean over credit weighs each step by it (Amato et al. 2019, equation 3, sections 3.2 to 3.4):

        dw_i = sum_p |y_pi| (sign(y_pi) x_p - w_i)                            summed; their mean divides it by P
        dw_i = sum_p |y_pi| |y_pi| (sign(y_pi) x_p - w_i) / sum_p |y_pi|      reduce = mean_over_credit

    Args:
        compete: so many winners with y = 1 (1: online k-means), or a competition, which is given what `metric` names;
            None: nobody competes, y is what the teacher signals.
        metric: who is near, and wins. 'dot': `x . w_i`. 'cosine': `x . w_i / |x| |w_i|`; an all-zero patch has none and
            trains nobody, unless y is imposed. 'euclidean': `x . w_i - |w_i|^2 / 2 = (|x|^2 - |x - w_i|^2) / 2`; an
            all-zero patch is a point like any other.
        reduce: how patches are added up; Amato et al. take `mean_over_credit`.

    Example:
        >>> rule, x, w = instar(metric='euclidean'), jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 0.0], [1.0, 1.0]])
        >>> jax.jit(rule.update)(jax.random.key(0), x, x @ w.T, w, ())[0]
        Array([[0., 0.],
               [0., 1.]], dtype=float32)
    """
    checks.check_choice('metric', metric, ('dot', 'cosine', 'euclidean'))
    how = {'reduce': reduce, 'zeros_win': metric == 'euclidean'}
    if isinstance(compete, numbers.Integral) or (metric == 'dot' and compete is not None):
        rule = from_leak(compete, lambda y: y, **how)
    else:
        size = jnp.abs if reduce is mean_over_credit else jnp.ones_like
        credit = lambda u, y: Credit(size(y) * y, size(y) * jnp.abs(y), jnp.abs(y))  # noqa: E731
        rule = local(compete, credit, **how)
    if metric == 'euclidean':
        return rule._replace(competition_bias=lambda key, w, state: jnp.sum(w * w, 1) / 2)
    if metric == 'dot':
        return rule

    def accumulate(stats: UpdateStats, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> UpdateStats:
        length = optax.safe_norm(x, 0.0, axis=1, keepdims=True)  # [P, 1]
        cosine = u / jnp.where(length == 0, 1, length)  # [P, N]; u of unit rows
        if compete is not None:  # nobody competes for a patch of no direction; a NaN has one, and is found in w
            teacher = jnp.where(length == 0, 0, 1 if teacher is None else teacher).astype(u.dtype)
        return rule.accumulate(stats, key, x, cosine, teacher, threshold)

    return rule._replace(effective_weights=unit_rows, accumulate=accumulate)


class AbstentionState(NamedTuple):
    """What a rule with random abstention has."""

    rule: State  # the inner rule's own
    victories: Array  # [N] credit won so far, above that of the neuron with the least
    patches: Array  # patches of the last step; 0 at first


def random_abstention(rule: LearningRule) -> LearningRule:
    """Let neurons sit a step out at random, the more often the more they have won: an answer to dead neurons.

    Per step, not per patch, neuron i draws once whether it competes for any of the step's P patches:

        P(i abstains) = victories_i / max(1, max_j victories_j + P / N)
        victories_i  += credit that i won (`UpdateStats.weight`), then less the smallest of all

    P is that of the step before (in the code of Amato et al. 2019 the step's own: neurons decide before they see).
    """

    def init(w: Array) -> AbstentionState:
        return AbstentionState(rule.init(w), jnp.zeros_like(w[:, 0]), jnp.zeros((), w.dtype))

    def competition_bias(key: Key, w: Array, state: AbstentionState) -> Array:
        inner_key, coin_key = jax.random.split(key)
        share = state.victories / jnp.maximum(1, jnp.max(state.victories) + state.patches / len(w))  # [N]
        sits_out = jnp.where(jax.random.bernoulli(coin_key, share), jnp.inf, jnp.zeros_like(share))
        return sits_out if rule.competition_bias is None else sits_out + rule.competition_bias(inner_key, w, state.rule)

    def finalize(stats: UpdateStats, w: Array, state: AbstentionState) -> tuple[Array, AbstentionState]:
        dw, inner = rule.finalize(stats, w, state.rule)
        victories = state.victories + stats.weight
        return dw, AbstentionState(inner, victories - jnp.min(victories), stats.patches.astype(w.dtype))

    return rule._replace(init=init, competition_bias=competition_bias, finalize=finalize)
