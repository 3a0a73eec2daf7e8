"""Neurons as prototypes: each moves towards what it is nearest to, `dw_i = y_i (x - w_i)` (Amato et al. 2019).

By angle, by distance or by drive; k winners, a graded competition or a teacher's word; and a handicap for those who win
too often. `rules.instar` is the same step for whoever has the largest drive.
"""

import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hebbjax import rules
from hebbjax.patches import l2
from hebbjax.types import Array, Competition, Credit, Key, LearningRule, State, Sums


def nearest(
    compete: Competition | int | None = 1, *, by: str = 'angle', reduce: rules.Reduction = rules.weighted
) -> LearningRule:
    """Build the rule of prototypes: `dw_i = y_i (x - w_i)`, or `|y_i| (sign(y_i) x - w_i)` where y may be negative.

    The steps of a batch's patches are averaged with weights |y|, so that rare winners move as far as frequent ones:

        dw_i = sum_p |y_pi| |y_pi| (sign(y_pi) x_p - w_i) / sum_p |y_pi|      reduce = weighted; no credit, no change
        dw_i = sum_p |y_pi| (sign(y_pi) x_p - w_i)                            reduce = total; mean divides it by P

    Amato et al. 2019, equation 3 and sections 3.2 to 3.4; for y of 0 and 1 the first is the mean over the patches won.

    Args:
        compete: who learns: so many nearest neurons, with y = 1; or a competition, whose credit may be graded, given
            the closeness that `by` names. A teacher lets only those take part whom it signals above 0. None: nobody
            competes, y is what the teacher signals (section 3.3).
        by: 'angle': the cosine of patch and weights. An all-zero patch has none, so it trains nobody, unless the
            teacher is imposed. 'distance': `x . w_i - |w_i|^2 / 2`, which is `(|x|^2 - |x - w_i|^2) / 2`: the nearest
            has the largest, and a softmax of it at temperature T is one of `-|x - w_i|^2 / 2T`. An all-zero patch is a
            point like any other, and can be won. 'drive': `x . w_i`, as `rules.instar`.
        reduce: weighted, total or mean; rates do not carry over from one to another. One of your own is given the sums
            that total is given.

    Raises:
        ValueError: for another `by`; if there are fewer winners than 1, or (in `init`, or when first traced) more than
            neurons; when first traced without a teacher, if that is to be imposed.
    """
    if by not in ('angle', 'distance', 'drive'):
        raise ValueError(f"prototypes are near by 'angle', 'distance' or 'drive', not {by!r}.")
    count = _points if by == 'distance' else rules.winners
    if isinstance(compete, numbers.Integral):
        rule = rules.associate(compete, lambda y: y, reduce=reduce, count=count)
    else:
        rule = rules.local(compete, _squared if reduce is rules.weighted else _plain, reduce=reduce, count=count)
    if by == 'distance':
        return rule._replace(handicap=lambda key, w, state: jnp.sum(w * w, 1) / 2)
    return rule if by == 'drive' else _by_angle(rule, imposed=compete is None)


def _squared(u: Array, y: Array) -> Credit:
    return Credit(jnp.abs(y) * y, y * y, jnp.abs(y))


def _plain(u: Array, y: Array) -> Credit:
    return Credit(y, jnp.abs(y), jnp.abs(y))


def _points(x: Array, first: Array, neurons: int) -> Array:
    """Count the patches that each neuron won, all-zero ones as well. [P, D], [P] -> [N] int32."""
    return jnp.zeros(neurons, jnp.int32).at[first].add(1, mode='drop')


def _by_angle(rule: LearningRule, imposed: bool) -> LearningRule:
    """Let a rule compete by cosines: drives of unit rows over the patch's length."""

    def gather(sums: Sums, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> Sums:
        length = jnp.linalg.norm(x, axis=1, keepdims=True)  # [P, 1]
        cosine = u / jnp.where(length == 0, 1, length)  # [P, N]
        if not imposed:  # nobody may compete for a patch of no direction; a NaN has one, and is found in the weights
            asked = jnp.ones_like(length) if teacher is None else teacher.astype(u.dtype)
            teacher = jnp.where(length == 0, 0, asked)
        return rule.gather(sums, key, x, cosine, teacher, threshold)

    return rule._replace(seen=l2, gather=gather)


class Abstention(NamedTuple):
    """What a rule with random abstention has."""

    rule: State  # the inner rule's own
    victories: Array  # [N] credit won so far, above that of the neuron with the least
    patches: Array  # patches of the last step; 0 at first


def abstaining(rule: LearningRule) -> LearningRule:
    """Let neurons sit a step out at random, the more often the more they have won: an answer to dead neurons.

    Per step, not per patch, neuron i draws once whether it competes for any of the step's P patches:

        P(i abstains) = victories_i / max(1, max_j victories_j + P / N)
        victories_i  += credit that i won (`Sums.weight`), then less the smallest of all

    P is that of the step before, since neurons decide before they see. An option in the authors' code of Amato et al.
    2019 that none of their models uses; there P is the step's own. In a map (`maps.som`) an abstaining neuron still
    learns as a neighbour of who wins.

    Args:
        rule: what they learn by otherwise; any rule, since abstention is a handicap of +inf.
    """

    def init(w: Array) -> Abstention:
        return Abstention(rule.init(w), jnp.zeros_like(w[:, 0]), jnp.zeros((), w.dtype))

    def handicap(key: Key, w: Array, state: Abstention) -> Array:
        inner_key, coin_key = jax.random.split(key)
        victories = state.victories
        share = victories / jnp.maximum(1, jnp.max(victories) + state.patches / len(w))  # [N]
        sits = jnp.where(jax.random.bernoulli(coin_key, share), jnp.inf, jnp.zeros_like(victories))
        inner = rule.handicap(inner_key, w, state.rule)
        return sits if inner is None else sits + inner

    def change(sums: Sums, w: Array, state: Abstention) -> tuple[Array, Abstention]:
        dw, inner = rule.change(sums, w, state.rule)
        victories = state.victories + sums.weight
        return dw, Abstention(inner, victories - jnp.min(victories), sums.patches.astype(w.dtype))

    return rule._replace(init=init, handicap=handicap, change=change)
