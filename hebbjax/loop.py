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
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from hebbjax import hybrid, train
from hebbjax.hybrid import Supervised, Taught
from hebbjax.interrupt import listening, undisturbed, wait
from hebbjax.moment import Metrics, Moment, Position
from hebbjax.monitor import Monitor
from hebbjax.stages import Stage
from hebbjax.supervised import compiled
from hebbjax.train import Network, TrainState
from hebbjax.types import Array, Told

DEFAULT, START = Monitor(), Position()


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
        The outcome. After Ctrl-C or SIGTERM: of the last epoch that was whole, callbacks included. A supervised stage
        is trained anew by a training that goes on, to the same bits: checkpoints hold what was there when it began.

    Raises:
        ValueError: if stages, batch or a callback do not fit, or weights are no longer finite.
    """
    callbacks = sorted(callbacks, key=lambda one: getattr(one, 'after_all', False))
    check(net, stages, callbacks, labels, validation, position)
    hebbian, supervised = split(stages)
    run = Running(hebbian, callbacks, (images,) if labels is None else (images, labels), position, net, state)
    started, taught, interrupted = time.perf_counter(), None, False
    with contextlib.ExitStack() as stack:
        for callback in callbacks:
            if hasattr(callback, '__exit__'):
                stack.enter_context(callback)
        try:
            with listening() as check_interrupt:
                for number in range(position.stage, len(hebbian)):
                    build = functools.partial(make_epoch, tuple(net), batch, hebbian[number], watch, augment)
                    run.through(number, build, check_interrupt)
        except KeyboardInterrupt:
            interrupted = True
        try:
            with undisturbed():
                for callback in callbacks:
                    if hasattr(callback, 'finish'):
                        callback.finish(run.settled)
            if supervised is not None and not interrupted:
                key = jax.random.fold_in(run.settled.state.key, run.settled.state.step)
                states = run.settled.state.layers
                taught = hybrid.learn(net, states, supervised, key, (images, labels), validation)
                interrupted = taught.fitted.interrupted
        except KeyboardInterrupt:
            interrupted = True
    state = run.settled.state if taught is None else run.settled.state._replace(layers=taught.layers)
    seconds = time.perf_counter() - started - run.compiling
    return Outcome(state, run.settled.history, taught, interrupted, seconds, run.compiling)


def split(stages: Sequence[Stage | Supervised]) -> tuple[list[Stage], Supervised | None]:
    """Tell the Hebbian stages from the supervised one, which comes last if there is one."""
    hebbian = [stage for stage in stages if isinstance(stage, Stage)]
    return hebbian, stages[-1] if len(hebbian) < len(stages) else None


class Running:
    """A training on its way: `settled` is its last whole moment, callbacks included."""

    def __init__(self, stages: Sequence[Stage], callbacks: Sequence[Callback], data, position, net, state):
        self.stages, self.callbacks, self.data, self.compiling = stages, callbacks, data, 0.0
        self.settled = self.moment(net, state, None, position)

    def moment(self, net, state, told, position: Position) -> Moment:
        """Say how far it is from here, if no further stage ends early."""
        stage, done, ended, history = position
        left = self.stages[stage].epochs - done if self.stages and not ended else 0
        rest = sum(later.epochs for later in self.stages[stage + 1 :])
        return Moment(net, state, told, position, left, len(history) + left + rest)

    def through(self, number: int, build: Callable[[], Callable], check_interrupt: Callable[[], None]) -> None:
        """Go through a stage, from where the training stands to its end."""
        now = self.settled
        if number > now.position.stage:
            now = self.settled = self.moment(now.net, now.state, None, Position(number, history=now.history))
        epoch = None
        while self.settled.left and not self.settled.position.ended:
            if epoch is None:
                started = time.perf_counter()
                with undisturbed():  # an interrupted compilation makes XLA fall over when the process ends
                    epoch = compiled(build(), self.settled.state, *self.data)
                self.compiling += time.perf_counter() - started
            state, told, row = one_epoch(epoch, self.settled, self.data)
            position = self.settled.position
            position = Position(position.stage, position.epoch + 1, history=(*position.history, row))
            moment = self.moment(now.net, state, told, position)
            for callback in self.callbacks:
                check_interrupt()
                callback(moment)
                row.update({name: float(one) for name, one in row.items() if isinstance(one, jax.Array | np.generic)})
            self.settled = moment
            check_interrupt()


make_epoch = functools.lru_cache(maxsize=64)(  # the same question gets the same program, whatever the seed
    lambda net, batch, stage, watch, augment: train.make_train_epoch(
        net, batch=batch, stage=stage, watch=watch, augment=augment
    )
)


def one_epoch(epoch: Callable, before: Moment, data: Sequence[Array]) -> tuple[TrainState, tuple, dict]:
    """Learn for one epoch, and write down its scalars.

    Raises:
        ValueError: if weights are no longer finite.
    """
    started = time.perf_counter()
    state, told = wait(epoch(before.state, *data))
    seconds = time.perf_counter() - started
    told = jax.device_get(told)
    row = {'epoch': before.epoch + 1, 'stage': before.position.stage, 'seconds': seconds}
    for layer, one in enumerate(told, 1):
        row |= {f'layer{layer}.{name}': value for name, value in scalars(one).items()}
        if one is not None and one.finite is not None and not one.finite:
            raise ValueError(
                f'weights of layer {layer} are no longer finite: the images hold NaN, or its rate is too large.'
            )
    return state, told, row


def scalars(told: Told | None) -> dict[str, float]:
    """Give what an epoch told of one layer as scalars; activation statistics as means over its looks."""
    if told is None:
        return {}
    found = {} if told.change is None else {'change': float(told.change)}
    if told.trace is not None:
        trace, seen = told.trace, told.trace.seen
        if found:  # a layer that did not learn has no winners
            found |= {'win_entropy': float(trace.entropy), 'dead': int(trace.dead)}
        found['converged'] = float(trace.converged)
        found |= {name: float(getattr(seen, name).mean()) for name in ('mean', 'variance', 'sparsity')}
    return found


def check(net: Network, stages: Sequence, callbacks: Sequence, labels, validation, position: Position) -> None:
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
    hebbian, _ = split(stages)
    if hebbian and (position.stage >= len(hebbian) or position.epoch > hebbian[position.stage].epochs):
        raise ValueError(
            f'a training that stands at epoch {position.epoch} of stage {position.stage} cannot go on in stages of '
            f'{[stage.epochs for stage in hebbian]} epochs; give the stages it began with, or longer ones.'
        )
