"""The training loop: epochs and stages, watched and steered by callbacks; what runs is one program per stage.

    outcome = fit(net, state, images, stages=stages.plan('parallel', net, 100), batch=128, callbacks=[...])

A callback is any function of a `Moment`, called after every epoch. It may read everything, add scalars to
`moment.metrics` for those behind it, and end the stage by `moment.stop()`. It need not remember anything: what was said
in earlier epochs is in `moment.history`, which is kept with the weights, so that a resumed training goes the same way.

A callback may have more to it: if it is a context manager, the loop enters it before the first epoch and leaves it
after the last; if it has `finish`, this is called with the last whole moment, after an interruption too; if
`after_all` is true, it comes after the others. See `hebbjax.callbacks`.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from hebbjax import hybrid, train
from hebbjax.hybrid import Supervised, Taught
from hebbjax.monitor import Monitor
from hebbjax.stages import Stage
from hebbjax.supervised import compiled
from hebbjax.train import Network, TrainState
from hebbjax.types import Array, Told

Metrics = Mapping[str, float]


class Position(NamedTuple):
    """Where a training stands, beside its state: all that a resumed one needs to know."""

    stage: int = 0
    epoch: int = 0  # whole epochs of this stage
    ended: bool = False  # the stage was ended early
    history: tuple[Metrics, ...] = ()  # one per epoch since the beginning


DEFAULT, START = Monitor(), Position()


@dataclasses.dataclass
class Moment:
    """What callbacks are shown after an epoch.

    Attributes:
        net: the layers.
        state: the training's state.
        told: what the epoch told of each layer; None before the first one.
        position: where the training stands; its history ends with this epoch's metrics.
        epochs: how many there will be in all, if no stage ends early.

    Metrics of layers are named `layer1.change`, `layer2.dead` ..., the lowest layer's first.
    """

    net: Network
    state: TrainState
    told: tuple[Told | None, ...] | None
    position: Position
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
        """Say whether what is done every so many epochs is done now: in the first one, too, and in the last."""
        return self.epoch == 1 or self.epoch % every == 0 or self.epoch == self.epochs or self.position.ended

    def known(self, metric: str) -> list[tuple[int, float]]:
        """Give a metric's values in this stage so far: (epoch, value) wherever it was measured.

        Raises:
            ValueError: if no epoch has it, naming those there are.
        """
        found = [(row['epoch'], row[metric]) for row in self.history if metric in row]
        if not found:
            raise ValueError(f'metric {metric!r} is unknown; there are {", ".join(self.metrics)}.')
        return [(epoch, value) for epoch, value in found if self.history[epoch - 1]['stage'] == self.position.stage]


class Outcome(NamedTuple):
    """What a training ends with."""

    state: TrainState
    history: tuple[Metrics, ...]
    taught: Taught | None  # of the supervised stage, if there was one
    interrupted: bool
    seconds: float  # of epochs and callbacks
    compile_seconds: float


Callback = Callable[[Moment], Any]


def fit(
    net: Network,
    state: TrainState,
    images: Array,
    labels: Array | None = None,
    *,
    stages: Sequence[Stage | Supervised],
    batch: int,
    callbacks: Iterable[Callback] = (),
    watch: Monitor | None = DEFAULT,
    augment: Callable | None = None,
    validation: tuple[Array, Array] | None = None,
    position: Position = START,
) -> Outcome:
    """Train a network through its stages.

    Args:
        net: the layers, bottom first.
        state: from `train.init`, or from a checkpoint together with its position.
        images: [n, H, W, C], on the device.
        labels: [n], where rules or a supervised stage want them.
        stages: Hebbian ones, such as `stages.plan('layerwise', net, 10)`, and, last, a `Supervised` one if you like.
        batch: images per step.
        callbacks: functions of a `Moment`, called in this order after every epoch.
        watch: what to watch on the way; None: nothing but the size of change.
        augment: (key, images of a batch) -> images.
        validation: images and labels that a supervised stage is judged by.
        position: where to go on.

    Returns:
        The outcome. After Ctrl-C: of the last epoch that was whole, callbacks included.

    Raises:
        ValueError: if stages, batch or a callback do not fit, or weights are no longer finite.
    """
    check(net, stages, callbacks := tuple(callbacks), labels, validation)
    hebbian = [stage for stage in stages if isinstance(stage, Stage)]
    callbacks = sorted(callbacks, key=lambda one: getattr(one, 'after_all', False))
    settled = Moment(net, state, None, position, sum(stage.epochs for stage in hebbian))
    data = (images,) if labels is None else (images, labels)
    started, compiling, taught, interrupted = time.perf_counter(), 0.0, None, False
    with contextlib.ExitStack() as stack:
        for callback in callbacks:
            if hasattr(callback, '__exit__'):
                stack.enter_context(callback)
        try:
            for number, stage in list(enumerate(stages))[position.stage :]:
                if isinstance(stage, Supervised):
                    key = jax.random.fold_in(settled.state.key, settled.state.step)
                    taught = hybrid.learn(net, settled.state.layers, stage, key, (images, labels), validation)
                    interrupted = taught.fitted.interrupted
                    settled = dataclasses.replace(settled, state=settled.state._replace(layers=taught.layers))
                    break
                if number > settled.position.stage:
                    settled.position = Position(number, history=settled.history)
                begun = time.perf_counter()
                epoch = compiled(make_epoch(tuple(net), batch, stage, watch, augment), settled.state, *data)
                compiling += time.perf_counter() - begun
                while settled.position.epoch < stage.epochs and not settled.position.ended:
                    moment = one_epoch(epoch, settled, data)
                    for callback in callbacks:
                        callback(moment)
                    settled = moment
        except KeyboardInterrupt:
            interrupted = True
        for callback in callbacks:
            if hasattr(callback, 'finish'):
                callback.finish(settled)
    seconds = time.perf_counter() - started - compiling
    return Outcome(settled.state, settled.history, taught, interrupted, seconds, compiling)


make_epoch = functools.lru_cache(maxsize=64)(  # the same question gets the same program, whatever the seed
    lambda net, batch, stage, watch, augment: train.make_train_epoch(
        net, batch=batch, stage=stage, watch=watch, augment=augment
    )
)


def one_epoch(epoch: Callable, before: Moment, data: Sequence[Array]) -> Moment:
    """Learn for one epoch, and write down its scalars.

    Raises:
        ValueError: if weights are no longer finite.
    """
    started = time.perf_counter()
    state, told = wait(epoch(before.state, *data))
    seconds = time.perf_counter() - started
    told = jax.device_get(told)
    stage, number, _, history = before.position
    row = {'epoch': len(history) + 1, 'stage': stage, 'seconds': seconds}
    for layer, one in enumerate(told, 1):
        row |= {f'layer{layer}.{name}': value for name, value in scalars(one).items()}
        if one is not None and one.finite is not None and not one.finite:
            raise ValueError(
                f'weights of layer {layer} are no longer finite: the images hold NaN, or its rate is too large.'
            )
    return Moment(before.net, state, told, Position(stage, number + 1, history=(*history, row)), before.epochs)


def scalars(told: Told | None) -> dict[str, float]:
    """Give what an epoch told of one layer as scalars; those of looks as means, convergence as the last look saw it."""
    if told is None:
        return {}
    found = {} if told.change is None else {'change': float(told.change)}
    if told.trace is not None:
        trace, seen = told.trace, told.trace.seen
        if found:  # a layer that did not learn has no winners
            found |= {'win_entropy': float(trace.entropy), 'dead': int(trace.dead)}
        found['converged'] = float(seen.converged[-1])
        found |= {name: float(getattr(seen, name).mean()) for name in ('mean', 'variance', 'sparsity')}
    return found


def wait(arrays: Any) -> Any:
    """Wait for a long computation so that Ctrl-C is heard meanwhile; jax's own waiting is deaf until it ends."""
    started = time.perf_counter()
    leaves = [leaf for leaf in jax.tree.leaves(arrays) if hasattr(leaf, 'is_ready')]  # keys have none
    while not all(leaf.is_ready() for leaf in leaves):
        time.sleep(min(0.05, 0.02 * (time.perf_counter() - started)))  # a short epoch is not slept away
    return arrays


def check(net: Network, stages: Sequence[Stage | Supervised], callbacks: Sequence, labels, validation) -> None:
    """Refuse stages and callbacks that cannot run, before anything is computed.

    Raises:
        ValueError: naming what does not fit.
    """
    for callback in callbacks:
        if not callable(callback):
            raise ValueError(f'callback {callback!r} is no function of a moment; hebbjax.callbacks has some ready.')
    if not stages:
        raise ValueError('a training needs at least one stage, such as stages.plan("parallel", net, epochs=10).')
    for number, stage in enumerate(stages):
        if isinstance(stage, Supervised):
            stage.check(len(net))
            if number + 1 < len(stages):
                raise ValueError('a supervised stage comes last: layers below it are finished; reorder the stages.')
            if labels is None or validation is None:
                raise ValueError('a supervised stage needs labels, and validation=(images, labels) to be judged by.')
