"""Homeostasis: a threshold per neuron, raised while it wins too often and lowered while it wins too rarely."""

import dataclasses

import jax.numpy as jnp

from hebbjax import checks
from hebbjax.types import Array, Sums


@dataclasses.dataclass(frozen=True)
class Homeostasis:
    """Adaptive thresholds, subtracted from the drives before neurons compete and before they send.

    After every learning step, with the credit that the rule gave on P patches (`Sums.weight`; 1 to every winner):

        threshold_i += rate (sum_p |y_pi| / P - winners / N)

    Thresholds belong to a layer's state and adapt only while it learns: what a trained layer sends does not depend on
    the order in which it is shown images. (In the authors' code they go on adapting in evaluation, which costs 10
    points where test images come sorted by class.) Miconi 2021, section 2.2; the rate is that of its notebook.

    Attributes:
        rate: in units of the drive per unit of win rate. 3 suits unit weights on images of unit variance.
        winners: the credit that a patch should give in all, the k of k winners: the target rate is winners / N. None:
            what it does give, so that thresholds keep their sum. (`krotov` credits its first winner alone.)

    Raises:
        ValueError: if the rate is negative or winners not above 0.
    """

    rate: float = 3.0
    winners: float | None = None

    def __post_init__(self):
        if checks.misfits(self.rate, lambda rate: rate >= 0):
            raise ValueError(
                f'homeostasis at rate {checks.shown(self.rate)} would run away from its target; use a finite rate >= 0.'
            )
        if self.winners is not None and checks.misfits(self.winners, lambda winners: winners > 0):
            raise ValueError(
                f'homeostasis towards {checks.shown(self.winners)} winners silences everyone; use a number above 0.'
            )


def init(homeostasis: Homeostasis, w: Array) -> Array:
    """Make the first thresholds, all zero, for weights [N, D].

    Raises:
        ValueError: if more neurons should win than there are.
    """
    if homeostasis.winners is not None and homeostasis.winners > len(w):
        raise ValueError(
            f'homeostasis towards {homeostasis.winners} winners cannot be reached by {len(w)} neurons; '
            f'use winners <= {len(w)}, or None.'
        )
    return jnp.zeros_like(w[:, 0])


def rates(sums: Sums) -> Array:
    """Give the credit per patch of each neuron, [N]."""
    return sums.weight / sums.patches.astype(sums.weight.dtype)


def adapt(homeostasis: Homeostasis, threshold: Array, sums: Sums) -> Array:
    """Move thresholds [N] towards the target rate, by what one step's patches gave."""
    found = rates(sums)  # [N]
    target = jnp.mean(found) if homeostasis.winners is None else homeostasis.winners / len(threshold)
    return threshold + homeostasis.rate * (found - target)


def less(u: Array, threshold: Array | None) -> Array:
    """Subtract thresholds from drives: `u - threshold`. [..., N], [N] or None -> [..., N]."""
    return u if threshold is None else u - jnp.expand_dims(threshold, tuple(range(u.ndim - 1)))
