"""The training loop: epochs and stages, watched and steered by callbacks; what runs is one program per stage.

    outcome = fit(net, state, images, stages=stages.plan('parallel', net, 100), batch=128, callbacks=[...])

A callback is any function of a `Moment`, called after every epoch. It may read everything, add scalars to
`moment.metrics` for those behind it, and end the stage by `moment.stop()`. It need not remember anything: what was said
in earlier epochs is in `moment.history`, which is kept with the weights, so that a resumed training goes the same way.

A callback may have more to it: if it is a context manager, the loop enters it before the first epoch and leaves it
after the last; if it has `begin`, this is called with the moment that the training begins at, before anything is
computed, and may refuse it; if it has `finish`, this is called with the last whole moment, after an interruption too;
if `after_all` is true, it comes after the others. See `hebbjax.callbacks`.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hebbjax import checks, hybrid, train
from hebbjax.hybrid import Supervised, Taught
from hebbjax.interrupt import listening, undisturbed, wait
from hebbjax.moment import Metrics, Moment, Position
from hebbjax.monitor import Monitor
from hebbjax.stages import Stage, learning
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
        ValueError: if anything of this does not fit, a callback adds what is no number, or weights are no longer
            finite.
    """
    net, stages = train.check_network(net), listed('stages', stages)
    callbacks = sorted(listed('callbacks', callbacks), key=lambda one: getattr(one, 'after_all', False))
    check(net, stages, callbacks, batch, watch, position)
    images, labels = train.admit(net, state, images, labels, look=True)
    hebbian, supervised = split(stages)
    if supervised is not None and (labels is None or validation is None):
        raise ValueError('a supervised stage needs labels, and validation=(images, labels) to be judged by.')
    classes = supervised.head.classes if supervised is not None and supervised.head is not None else None
    data = (images,) if labels is None else (images, checks.check_labels(labels, classes))
    validation = None if validation is None else pair('validation', validation, classes)
    images, *labelled = data = jax.tree.map(jnp.asarray, data)
    run = Running(hebbian, callbacks, data, position, net, state)
    for callback in callbacks:
        if hasattr(callback, 'begin'):
            callback.begin(run.settled)
    started, taught, interrupted = time.perf_counter(), None, False
    with contextlib.ExitStack() as stack:
        for callback in callbacks:
            if hasattr(callback, '__exit__'):
                callback.__enter__()
                stack.push(callback.__exit__)
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
                taught = hybrid.learn(net, states, supervised, key, (images, *labelled), validation)
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
                row.update({name: as_metric(name, value) for name, value in row.items()})
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


def as_metric(name: str, value) -> float:
    """Give a metric as a plain number, as those behind the callback that added it, and files, are to see it.

    Raises:
        ValueError: if it is none, naming it.
    """
    if type(value) in (bool, int, float):
        return value
    kind = getattr(value, 'dtype', np.dtype(object))
    single = isinstance(value, np.generic | np.ndarray | jax.Array) and value.size == 1
    if not single or not any(jnp.issubdtype(kind, one) for one in (jnp.floating, jnp.integer, jnp.bool_)):
        came = ' '.join(repr(value).split())[:40]
        raise ValueError(f'metrics are numbers, and {name!r} was made {came}; give a float, nan where there is none.')
    return float(value.reshape(()))


def listed(name: str, given: Iterable) -> list:
    """Give what was given as a list, or refuse what is none, such as a single one.

    Raises:
        ValueError: naming it.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(f'{name} are a list, such as {name}=[...], and this is {checks.shown(given)}.')
    return list(given)


def pair(name: str, given: tuple[Array, Array], classes: int | None = None) -> tuple[Array, Array]:
    """Give images and their labels, checked.

    Raises:
        ValueError: if they are none, or do not belong together.
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(f'{name} are two arrays, (images, labels), and not {type(given).__name__}.')
    images, labels = given
    return checks.check_images(images), checks.check_labels(labels, classes, len(images))


def check(net: Network, stages: Sequence, callbacks: Sequence, batch: int, watch, position: Position) -> None:
    """Refuse what cannot run, before anything is computed.

    Raises:
        ValueError: naming what does not fit.
    """
    if not checks.is_count(batch):
        raise ValueError(f'a batch of {checks.shown(batch)} images teaches nothing; use a whole number, 1 or more.')
    if not (watch is None or isinstance(watch, Monitor)):
        raise ValueError(
            f'what is watched is told by a monitor.Monitor, or None for nothing, not {checks.shown(watch)}.'
        )
    for place, callback in enumerate(callbacks):
        if not callable(callback):
            raise ValueError(f'callback {callback!r} is no function of a moment; hebbjax.callbacks has some ready.')
        if any(callback is other for other in callbacks[:place]):
            raise ValueError(f'callback {checks.shown(callback)} is there twice; once is enough, or make another one.')
    if not stages:
        raise ValueError('a training needs at least one stage, such as stages.plan("parallel", net, epochs=10).')
    for place, stage in enumerate(stages):
        if isinstance(stage, Stage):
            learning(stage, net)
        elif not isinstance(stage, Supervised):
            raise ValueError(
                f'a stage is a stages.Stage, or the last one a hybrid.Supervised, not {checks.shown(stage)}.'
            )
        else:
            stage.check(len(net))
            if place + 1 < len(stages):
                raise ValueError('a supervised stage comes last: layers below it are finished; reorder the stages.')
    if not isinstance(position, Position) or not all(checks.is_count(one, 0) for one in position[:2]):
        raise ValueError(
            f'a training goes on at a moment.Position with its stage and epoch, not {checks.shown(position)}.'
        )
    hebbian, _ = split(stages)
    if hebbian and (position.stage >= len(hebbian) or position.epoch > hebbian[position.stage].epochs):
        raise ValueError(
            f'a training that stands at epoch {position.epoch} of stage {position.stage} cannot go on in stages of '
            f'{[stage.epochs for stage in hebbian]} epochs; give the stages it began with, or longer ones.'
        )
    told = sum(row.get('stage') == position.stage for row in position.history)
    if told != position.epoch:
        raise ValueError(
            f'a training that stands at epoch {position.epoch} of stage {position.stage} has a history of as many '
            f'epochs of it, and this has {told}; take the position from a moment, or from callbacks.resume.'
        )
