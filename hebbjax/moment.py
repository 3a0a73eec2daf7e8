"""What callbacks are shown: a training as it stands after an epoch."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from hebbjax.train import Network, TrainState
from hebbjax.types import Told

Metrics = Mapping[str, float]


class Position(NamedTuple):
    """Where a training stands, beside its state: all that a resumed one needs to know."""

    stage: int = 0
    epoch: int = 0  # whole epochs of this stage
    ended: bool = False  # the stage was ended early
    history: tuple[Metrics, ...] = ()  # one per epoch since the beginning


@dataclasses.dataclass
class Moment:
    """What callbacks are shown after an epoch.

    Attributes:
        net: the layers.
        state: the training's state.
        told: what the epoch told of each layer, on the host; None before the first one.
        position: where the training stands; its history ends with this epoch's metrics.
        left: epochs that this stage still has.
        epochs: how many there will be in all, if no further stage ends early.

    Metrics of layers are named `layer1.change`, `layer2.dead` ..., the lowest layer's first.
    """

    net: Network
    state: TrainState
    told: tuple[Told | None, ...] | None
    position: Position
    left: int
    epochs: int

    @property
    def metrics(self) -> dict[str, float]:
        """This epoch's scalars; callbacks may add theirs."""
        return self.position.history[-1]

    @property
    def history(self) -> tuple[Metrics, ...]:
        """Every epoch's scalars, this one's last."""
        return self.position.history

    @property
    def epoch(self) -> int:
        """Whole epochs since the beginning, over all stages."""
        return len(self.history)

    def stop(self) -> None:
        """End the stage with this epoch."""
        self.position = self.position._replace(ended=True)

    def due(self, every: int) -> bool:
        """Say whether what is done every so many epochs is done now: in the first one, too, and where a stage ends."""
        return self.epoch == 1 or self.epoch % every == 0 or not self.left or self.position.ended

    def known(self, metric: str) -> list[float]:
        """Give a metric's values so far in this stage, wherever it was measured.

        Raises:
            ValueError: if no epoch has it, naming those there are.
        """
        if not any(metric in row for row in self.history):
            raise ValueError(f'metric {metric!r} is unknown; there are {", ".join(self.metrics)}.')
        return [row[metric] for row in self.history if metric in row and row['stage'] == self.position.stage]
