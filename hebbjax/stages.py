"""Who learns when, as plain configuration: a training is a sequence of stages, a stage a number of sweeps upward.

Three ways to train a stack, which are three different algorithms:

    parallel    all layers learn in every sweep, each fed by the layer below as it was before this step's update
    in_order    all layers learn in every sweep, each fed by the layer below as it is after this step's update
    layerwise   one layer after the other, bottom first, each to its end on finished layers below

What is fed on after an update is what the layer answers (`layers.respond`): where it has a norm, in_order normalises by
the running averages, which the step has just moved, parallel by the batch.
"""

import dataclasses
from collections.abc import Sequence

from hebbjax import checks
from hebbjax.layers import Layer, check_network

ORDERS = ('parallel', 'in_order')
PLANS = (*ORDERS, 'layerwise')


@dataclasses.dataclass(frozen=True)
class Stage:
    """Some epochs in which some layers learn.

    Attributes:
        epochs: how many.
        layers: numbers of the layers that learn, 0 the lowest; None: all that are not frozen. The others answer and
            keep their state, thresholds included, bit for bit; those above the highest that learns are not computed.
        order: 'parallel' or 'in_order'.
    """

    epochs: int
    layers: tuple[int, ...] | None = None
    order: str = 'parallel'

    def __post_init__(self):
        if not checks.is_count(self.epochs):
            raise ValueError(
                f'a stage of {checks.shown(self.epochs)} epochs teaches nothing; use a whole number, 1 or more.'
            )
        named = self.layers if isinstance(self.layers, tuple | list) else (self.layers,)
        if self.layers is not None and not all(checks.is_count(number, 0) for number in named):
            raise ValueError(f'a stage names layers by their numbers, 0 the lowest, not {checks.shown(self.layers)}.')
        object.__setattr__(self, 'layers', None if self.layers is None else tuple(map(int, named)))
        if not isinstance(self.order, str) or self.order not in ORDERS:
            raise ValueError(f'the order of a sweep is one of {", ".join(ORDERS)}, not {checks.shown(self.order)}.')


def learning(stage: Stage | None, net: Sequence[Layer]) -> tuple[bool, ...]:
    """Say of every layer whether it learns in a stage; None: as many as may.

    Raises:
        ValueError: if the stage names a layer that is not there or is frozen, or nobody is left to learn.
    """
    net = check_network(net)
    if not isinstance(stage, Stage | None):
        raise ValueError(f'a stage is a stages.Stage, or None for all layers at once, not {checks.shown(stage)}.')
    named = None if stage is None else stage.layers
    for number in named or ():
        if not 0 <= number < len(net):
            raise ValueError(f'a stage has {number} among its layers={named}; there are 0 to {len(net) - 1}.')
        if net[number].frozen:
            raise ValueError(f'{number} among layers={named} of a stage is frozen; thaw that layer, or leave it out.')
    learns = tuple(number in named if named is not None else not layer.frozen for number, layer in enumerate(net))
    if not any(learns):
        raise ValueError('no layer learns in this stage; name one that is not frozen.')
    return learns


def plan(name: str, net: Sequence[Layer], epochs: int) -> tuple[Stage, ...]:
    """Lay out a training by name.

    Args:
        name: 'parallel', 'in_order' or 'layerwise'.
        net: the layers, bottom first; frozen ones get no stage.
        epochs: of every stage; 'layerwise' has one for each layer that may learn.

    Raises:
        ValueError: if there is no such plan, or nothing to learn.
    """
    if not isinstance(name, str) or name not in PLANS:
        raise ValueError(f'{checks.shown(name)} is no plan; there are {", ".join(PLANS)}.')
    learns = learning(None, net)
    Stage(epochs)  # refuses what is no number of them
    if name in ORDERS:
        return (Stage(epochs, order=name),)
    return tuple(Stage(epochs, (number,)) for number, one in enumerate(learns) if one)
