"""Who learns when, as plain configuration: a training is a sequence of stages, a stage a number of sweeps upward.

Three ways to train a stack, which are three different algorithms:

    simultaneous  all layers learn in every sweep, each fed by the layer below as it was before this step's update
    sequential    all layers learn in every sweep, each fed by the layer below as it is after this step's update
    greedy        one layer after the other, bottom first, each to its end on finished layers below

A layer's batch norm goes by the batch in simultaneous, by running averages that the step has just moved in sequential.
"""

import dataclasses
from collections.abc import Sequence

from hebbjax.layers.layer import Layer
from hebbjax.layers.network import check_network
from hebbjax.support.checks import check_choice, check_count, is_count, require, show

ORDERS = ('simultaneous', 'sequential')
PLANS = (*ORDERS, 'greedy')


@dataclasses.dataclass(frozen=True)
class Stage:
    """Some epochs in which some layers learn; the others answer, and keep their state bit for bit."""

    epochs: int
    layers: tuple[int, ...] | None = None  # numbers of those that learn, 0 the lowest; None: all that are not frozen
    order: str = 'simultaneous'  # or 'sequential'

    def __post_init__(self) -> None:
        check_count('epochs', self.epochs)
        check_choice('order', self.order, ORDERS)
        numbers = self.layers if isinstance(self.layers, tuple | list) else (self.layers,)
        fits = self.layers is None or all(is_count(number, 0) for number in numbers)
        require(fits, f'a stage names layers by their numbers, 0 the lowest, not {show(self.layers)}.')
        object.__setattr__(self, 'layers', None if self.layers is None else tuple(map(int, numbers)))


def learning_layers(stage: Stage | None, net: Sequence[Layer]) -> tuple[bool, ...]:
    """Say of every layer whether it learns in a stage; None: as many as may."""
    net = check_network(net)
    fits = isinstance(stage, Stage | None)
    require(fits, f'a stage is a training.Stage, or None for all layers at once, not {show(stage)}.')
    named = None if stage is None else stage.layers
    for number in named or ():
        fits = f'a stage has {number} among its layers={named}'
        require(number < len(net), f'{fits}; there are 0 to {len(net) - 1}.')
        require(not net[number].frozen, f'{fits}, which is frozen; thaw that layer, or leave it out.')
    learns = tuple(number in named if named is not None else not layer.frozen for number, layer in enumerate(net))
    require(any(learns), 'no layer learns in this stage; name one that is not frozen.')
    return learns


def plan_stages(name: str, net: Sequence[Layer], epochs: int) -> tuple[Stage, ...]:
    """Lay out a training: 'simultaneous' or 'sequential' is one stage, 'greedy' one for each layer that may learn."""
    check_choice('plan', name, PLANS)
    learns = learning_layers(None, net)
    if name in ORDERS:
        return (Stage(epochs, order=name),)
    return tuple(Stage(epochs, (number,)) for number, may_learn in enumerate(learns) if may_learn)
