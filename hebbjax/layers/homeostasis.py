"""Homeostasis: a threshold per neuron, raised while it wins too often and lowered while it wins too rarely."""

import dataclasses

import jax.numpy as jnp

from hebbjax.base import Array, UpdateStats
from hebbjax.rules.local import mean_over_patches
from hebbjax.support import checks


@dataclasses.dataclass(frozen=True)
class Homeostasis:
    """Adaptive thresholds, subtracted from the drives before neurons compete and before they send.

    After every learning step, with the credit that the rule gave on P patches (`UpdateStats.weight`, 1 to a winner):

        threshold_i += rate (sum_p |y_pi| / P - winners / N)

    They adapt only while a layer learns; in Miconi's code in evaluation too, which costs 10 points where test images
    come sorted by class. Miconi 2021, section 2.2; the rate, of drive per win rate, is that of its notebook.
    `winners`: the credit that a patch should give in all, the k of k winners (1 of krotov); None: what it does give.
    """

    rate: float = 3.0
    winners: float | None = None

    def __post_init__(self) -> None:
        checks.check_number('rate', self.rate, least=0)
        if self.winners is not None:
            checks.check_number('winners', self.winners, above=0)

    def init(self, w: Array) -> Array:
        """Make the first thresholds [N], all zero, for weights [N, D]; refuse more winners than neurons."""
        if self.winners is not None:
            checks.check_number('winners', self.winners, most=len(w))
        return jnp.zeros_like(w[:, 0])

    def adapt(self, threshold: Array, stats: UpdateStats) -> Array:
        """Move thresholds [N] towards the target rate, by what one step's patches gave."""
        rates = mean_over_patches(stats.weight, stats)  # [N]
        target = jnp.mean(rates) if self.winners is None else self.winners / len(threshold)
        return threshold + self.rate * (rates - target)
