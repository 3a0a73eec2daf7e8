"""The training loop: epochs and stages, watched and steered by callbacks; what runs is one program per stage.

A callback is any function of a `CallbackContext`, called after every epoch. It may read everything, add scalars to
`context.metrics` for those behind it, and end the stage by `context.stop()`. It need not remember anything: scalars of
earlier epochs are in `context.history`, which is kept with the weights, so that a resumed training goes the same way.
If it has them, `begin` is called with the context that training begins at, and may refuse it; `finish` with the last
whole epoch's, after Ctrl-C too; it is entered and left as a context manager; `after_all` puts it behind the others.
Of several processes all call it, unless it is `first_only`, as what writes is; the first one's metrics and `stop` hold.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hebbjax.base import AnyArray, Array, Key, StepInfo
from hebbjax.layers.network import Network, TrainState, check_network
from hebbjax.support import devices
from hebbjax.support.checks import check_count, require, show
from hebbjax.support.shards import Shards
from hebbjax.support.signals import compile_whole, hold_signals, listen, wait_until_ready
from hebbjax.training import hosts, parallel
from hebbjax.training.epoch import join_infos, make_train_epoch
from hebbjax.training.monitor import Monitor
from hebbjax.training.stages import Stage
from hebbjax.training.streaming import stream_parts


class Position(NamedTuple):
    """Where a training stands, beside its state: all that a resumed one needs to know."""

    stage: int = 0
    epoch: int = 0  # whole epochs of this stage
    ended: bool = False  # the stage was ended early
    history: tuple[dict[str, float], ...] = ()  # every epoch's scalars, since the beginning


@dataclasses.dataclass
class CallbackContext:
    """A training after an epoch, or as it begins: then there is no info."""

    net: Network
    stages: Sequence[Stage]
    position: Position
    state: TrainState  # a process's own, with a leading axis of seeds, if any; the next epoch writes over it
    info: tuple[StepInfo | None, ...] | None = None  # the epoch's of each layer, on the host

    @property
    def history(self) -> tuple[dict[str, float], ...]:  # every epoch's scalars
        return self.position.history

    @property
    def metrics(self) -> dict[str, float]:  # this one's, `layer1.max_update`, ..., to which callbacks may add theirs
        return self.history[-1] if self.history else {}

    @property
    def epoch(self) -> int:  # whole ones since the beginning, over all stages
        return len(self.history)

    @property
    def epochs_left(self) -> int:  # of this stage
        return 0 if self.position.ended else self.stages[self.position.stage].epochs - self.position.epoch

    @property
    def epochs(self) -> int:  # that there will be in all, if no further stage ends early
        return self.epoch + self.epochs_left + sum(stage.epochs for stage in self.stages[self.position.stage + 1 :])

    def stop(self) -> None:
        """End the stage with this epoch."""
        self.position = self.position._replace(ended=True)

    def is_due(self, every: int) -> bool:
        """Say whether what is done every so many epochs is done now: in the first one, too, and where a stage ends."""
        return self.epoch == 1 or self.epoch % every == 0 or not self.epochs_left

    def values_of(self, metric: str) -> list[float]:
        """Give a metric's values so far in this stage, wherever it was measured; refuse one that no epoch has."""
        known = any(metric in row for row in self.history)
        require(known, f'metric {metric!r} is unknown; there are {", ".join(self.metrics)}.')
        return [row[metric] for row in self.history if metric in row and row['stage'] == self.position.stage]


DEFAULT_MONITOR, START = Monitor(), Position()
Callback = Callable[[CallbackContext], Any]


class FitResult(NamedTuple):
    """What a training ends with."""

    state: TrainState
    history: tuple[dict[str, float], ...]  # one row of scalars per epoch
    interrupted: bool
    seconds: float  # of epochs and callbacks
    compile_seconds: float


def fit(
    net: Network, state: TrainState, images: AnyArray | Shards, labels: AnyArray | None = None, *,
    stages: Sequence[Stage], batch: int, callbacks: Iterable[Callback] = (), watch: Monitor | None = DEFAULT_MONITOR,
    augment: Callable[[Key, Array], Array] | None = None, position: Position = START, seeds_at_once: int | None = None,
    mesh: Mesh | None = None,
) -> FitResult:  # fmt: skip
    """Train a network through its stages, such as `plan_stages('greedy', net, 10)`, on images [n, H, W, C].

    Where a rule has memory they are sequences, as for `train_step`, with a label each; those that callbacks judge are
    single images. After Ctrl-C or SIGTERM it gives the last epoch that was whole, callbacks included. Metrics of many
    seeds are means, `max_update` the largest.

    Args:
        state: from `init`; from `parallel.init_seeds`, whose seeds are trained each as if it were alone; or from a
            checkpoint together with its position. It stays as it is: epochs write over a copy of it.
        images: an array, or `data.Shards`, which bring their labels: an epoch goes through all parts, in an order that
            it draws, each shuffled, with two of them in memory; images that fill no batch of their part sit it out.
        callbacks: called in this order after every epoch. The state they see is written over by the next epoch; one
            that keeps it copies it: `jax.device_put(context.state, may_alias=False)`.
        watch: what to watch on the way; None: nothing but the size of change.
        augment: (key, images of a batch) -> images.
        seeds_at_once: how many seeds to map together; None: all of them, or on a CPU, where it is faster, one.
        mesh: devices of one axis 'data', which divides images and batches (`make_train_epoch`), or 'seed', which
            divides seeds. Those of several processes (`jax.distributed`) are given equal parts of the images, such as
            those of `data.load(..., part=(jax.process_index(), jax.process_count()))`, and all else alike.
    """
    # The door: whatever does not fit is refused before anything is computed.
    for name, given in (('stages', stages), ('callbacks', callbacks)):
        listed = isinstance(given, Iterable) and not isinstance(given, str)
        require(listed, f'{name} are a list, such as {name}=[...], and this is {show(given)}.')
    stages, callbacks = [*stages], sorted(callbacks, key=lambda callback: getattr(callback, 'after_all', False))
    for callback in callbacks:
        require(callable(callback), f'callback {show(callback)} is no function of a context; write one, or import it.')
    net, programs, seeds = check_network(net), [], parallel.count_seeds(state)
    by_seed = seeds is not None and getattr(mesh, 'axis_names', None) == (devices.SEED,)
    mesh = devices.check_mesh(mesh, devices.SEED if by_seed else devices.DATA)
    several = devices.host_count(mesh) > 1
    require(stages, 'a training needs at least one stage; plan_stages("simultaneous", net, epochs=10) makes it.')
    for stage in stages:
        require(isinstance(stage, Stage), f'a stage is a training.Stage, not {show(stage)}.')
        stage = dataclasses.replace(stage, epochs=1)  # a program is the same for any number of them
        how = {'donate': not several, 'mesh': None if by_seed else mesh}  # of several hosts each keeps its view
        programs.append(make_train_epoch(net, batch=batch, stage=stage, watch=watch, augment=augment, **how))
    require(isinstance(position, Position), f'a training goes on at a training.Position, not {show(position)}.')
    number, epoch, epochs = position.stage, position.epoch, [stage.epochs for stage in stages]
    rows, learned = sum(row.get('stage') == number for row in position.history), np.all(getattr(state, 'step', 1))
    stands = f'a training at epoch {epoch} of stage {number}, with {rows} of its epochs in its history'
    way = 'give the stages it began with, or longer ones, and both state and position of training.resume'
    fits = 0 <= number < len(stages) and rows == epoch <= epochs[number] and (learned or not rows)
    require(fits, f'{stands}, cannot go on in stages of {epochs} epochs; {way}.')
    settled = CallbackContext(net, stages, position, state)  # the last whole epoch, callbacks included
    seed_mesh = mesh if by_seed else None
    check_count('seeds_at_once', 1 if seeds_at_once is None else seeds_at_once)
    devices.check_divides('a number of seeds', seeds or 0, seed_mesh)
    to_come = settled.epochs - settled.epoch
    program, data, parts, stream = stream_parts(programs[0], state, images, labels, to_come, seed_mesh)
    state = devices.lay(state, mesh, devices.SEEDS if by_seed else devices.SAME)
    settled.state = devices.own_copy(state)
    programs = [dataclasses.replace(other, count=program.count) for other in programs]
    if seeds is not None:
        at_once = seeds_at_once or (1 if jax.default_backend() == 'cpu' else seeds)
        programs = [parallel.over_seeds(epoch, at_once, seed_mesh, donate=not several) for epoch in programs]

    if several:
        if jax.process_index():
            callbacks = [callback for callback in callbacks if not getattr(callback, 'first_only', False)]
        same = {'number, shape or dtype of images': f'{images.shape} {images.dtype} {parts}'}
        same |= {'labels': f'{len(data) > 1}', 'batch': f'{batch}', 'stages': f'{stages}'}
        same |= {'position': f'{position[:3]}', 'key or weights': state}
        texts = [program.lower(state, *data).as_text() for program in programs]  # all that else is computed with
        hosts.check_agree(mesh, same | {'network, or what is watched': ''.join(texts)})
    ignore = lambda context: None  # noqa: E731
    for callback in callbacks:
        getattr(callback, 'begin', ignore)(settled)
    started, compile_seconds, interrupted = time.perf_counter(), 0.0, False
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(stream))
        stack.enter_context(hosts.losing_none(mesh))
        for callback in callbacks:
            if hasattr(callback, '__exit__'):
                callback.__enter__()
                stack.push(callback.__exit__)

        # Each epoch is written over the state before it, of which the host has a copy: who is interrupted wants it.
        if not several:
            where = None if mesh is None else jax.tree.map(lambda a: a.sharding, state)
            state = jax.device_put(state, where, may_alias=False)
        saved = None
        try:
            with listen(waits=several) as check_interrupt:
                while settled.epochs > settled.epoch:
                    number, epoch = position.stage, position.epoch
                    if not settled.epochs_left:
                        number, epoch = number + 1, 0
                    began = time.perf_counter()
                    if settled.info is not None and not several:  # in the host's memory, divided as it is
                        where = jax.tree.map(lambda a: a.sharding.with_memory_kind('pinned_host'), state)
                        saved = jax.device_put(state, where, may_alias=False)
                    state, info, compiling = run_epoch(programs[number], state, itertools.islice(stream, parts))
                    seconds = time.perf_counter() - began - compiling
                    compile_seconds += compiling
                    metrics = {'epoch': settled.epoch + 1, 'stage': number, 'seconds': seconds, **epoch_metrics(info)}
                    position = Position(number, epoch + 1, history=(*settled.history, metrics))
                    context = CallbackContext(net, stages, position, devices.own_copy(state), info)
                    with contextlib.ExitStack() as whole:  # an epoch that a checkpoint holds is whole, too
                        for callback in callbacks:
                            check_interrupt()
                            if getattr(callback, 'after_all', False):
                                whole.enter_context(hold_signals())
                            callback(context)
                            metrics.update({name: to_metric(name, value) for name, value in metrics.items()})
                        if several:
                            hosts.agree(context, check_interrupt)
                        settled, position = context, context.position
                    check_interrupt()
        except KeyboardInterrupt:
            interrupted = True
            if saved is not None and any(leaf.is_deleted() for leaf in jax.tree.leaves(settled.state)):
                settled.state = jax.device_put(saved, jax.tree.map(lambda a: a.sharding, settled.state))
        try:
            with hold_signals():
                for callback in callbacks:
                    getattr(callback, 'finish', ignore)(settled)
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.perf_counter() - started - compile_seconds
    return FitResult(settled.state, settled.history, interrupted, seconds, compile_seconds)


def run_epoch(program: Callable, state: TrainState, parts: Iterable[Any]) -> tuple[TrainState, Any, float]:
    """Learn from one part after the other. -> the state, info on the host as of one epoch, seconds spent compiling."""
    infos, compile_seconds = [], 0.0
    for data in parts:
        began = time.perf_counter()
        compile_whole(program, state, *data)  # only the first time
        compile_seconds += time.perf_counter() - began
        state, info = wait_until_ready(program(state, *data))
        infos.append(jax.device_get(info))
    return state, join_infos(infos), compile_seconds


def epoch_metrics(info: Sequence[StepInfo | None]) -> dict[str, float]:
    """Give an epoch's info as scalars, activation statistics as means over its looks; refuse weights that blew up."""
    metrics = {}
    for number, layer in enumerate(info, 1):
        values, trace = {}, getattr(layer, 'trace', None)
        learned = layer is not None and layer.win_counts is not None
        if learned:
            why = 'the images hold NaN, its rate is too large, or its lateral connections do not settle'
            require(np.all(layer.is_finite), f'weights of layer {number} are no longer finite: {why}.')
            values['max_update'] = np.max(layer.max_update)
        if trace is not None:
            if learned:  # a layer that did not has no winners
                values |= {'win_entropy': trace.win_entropy, 'dead': trace.dead}
            values |= {'converged': trace.converged, **trace.observations._asdict()}
        for name, value in values.items():
            metrics[f'layer{number}.{name}'] = (np.mean(value) if np.ndim(value) else np.asarray(value)).item()
    return metrics


def to_metric(name: str, value) -> float:
    """Give a metric as a plain number, as those behind the callback that added it, and files, are to see it."""
    if type(value) in (bool, int, float):
        return value
    is_real = any(jnp.issubdtype(getattr(value, 'dtype', str), kind) for kind in (np.floating, np.integer, np.bool_))
    came = f'metrics are numbers, and {name!r} was made {show(value)}'
    require(is_real and value.size == 1, f'{came}; give a float, nan where there is none.')
    return float(value.reshape(()))
