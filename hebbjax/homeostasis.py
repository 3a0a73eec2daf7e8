"""Homeostasis: a threshold per neuron, raised while it wins too often and lowered while it wins too rarely."""

import dataclasses

import jax.numpy as jnp

from hebbjax.types import Array, Sums


@dataclasses.dataclass(frozen=True)
class Homeostasis:
    """Adaptive thresholds, subtracted from the drives before neurons compete and before they send.

    After every learning step, with the credit y that the step gave on P patches:

        threshold_i += rate (sum_p y_pi / P - winners / N)

    Thresholds belong to a layer's state and adapt only while it learns: what a trained layer sends does not depend on
    the order in which it is shown images. (In the authors' code they go on adapting in evaluation, which costs 10
    points where test images come sorted by class.) Miconi 2021, section 2.2; the rate is that of its notebook.

    Attributes:
        rate: in units of the drive per unit of win rate. 3 suits unit weights on images of unit variance.
        winners: neurons that should win each patch, the k of the competition: the target rate is winners / N.

    Raises:
        ValueError: if the rate is negative or winners not above 0.
    """

    rate: float = 3.0
    winners: float = 1

    def __post_init__(self):
        if not self.rate >= 0:
            raise ValueError(f'homeostasis at rate {self.rate} would run away from its target; use a rate >= 0.')
        if not self.winners > 0:
            raise ValueError(f'homeostasis towards {self.winners} winners silences everyone; use a number above 0.')


def adapt(homeostasis: Homeostasis, threshold: Array, sums: Sums) -> Array:
    """Move thresholds [N] towards the target rate, by what one step's patches gave."""
    rate = sums.weight / sums.patches.astype(sums.weight.dtype)  # [N]
    return threshold + homeostasis.rate * (rate - homeostasis.winners / len(threshold))


def less(u: Array, threshold: Array | None) -> Array:
    """Subtract thresholds from drives: `u - threshold`. [..., N], [N] or None -> [..., N]."""
    return u if threshold is None else u - jnp.expand_dims(threshold, tuple(range(u.ndim - 1)))
