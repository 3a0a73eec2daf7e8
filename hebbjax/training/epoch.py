"""An epoch of learning in one program: shuffled on the device, scanned over batches, watched on the way."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from hebbjax.base import Array, Key, StepInfo
from hebbjax.layers.network import Network, check_network
from hebbjax.support import checks, devices
from hebbjax.training.monitor import Monitor, join_traces, observe_every, trace_epoch
from hebbjax.training.stages import Stage, learning_layers
from hebbjax.training.step import Program, sweep

ORDER_SALT, AUGMENT_SALT = 0x5EED, 0xF11B  # folded in beside a step's number, so that no key serves two draws


def make_train_epoch(
    net: Network, *, batch: int, stage: Stage | None = None, watch: Monitor | None = None,
    augment: Callable[[Key, Array], Array] | None = None, keep_last: bool = False, donate: bool = False,
    mesh: Mesh | None = None,
) -> Program:  # fmt: skip
    """Build the jitted epoch `(state, images, labels=None) -> (state, info)`: one program, scanned over batches.

    The images [n, H, W, C], or sequences of them as for `train_step`, stay on the device and are shuffled there, whole
    ones, by the state's key and step. Its info is one `StepInfo` per layer: wins summed, the largest change, finite
    only if every step was, mean rates, and the `Trace` of what is watched, which alone is of layers that rest.

    Args:
        batch: images per step, or sequences.
        stage: who learns, fed in which order; None: every layer that is not frozen, at once.
        augment: (key, images of a batch) -> images, such as `random_flip`; frames of a sequence change alike.
        keep_last: learn from the last, smaller batch too; else the images left over, other ones each time, sit out.
        donate: let the new state be written over the old one, which is then gone.
        mesh: devices, such as `jax.make_mesh((jax.device_count(),), ('data',))`; each keeps its share of the images,
            shuffles them by a key of its own, and learns from its share of every batch; sums are those of all. Of
            several processes each is given its own part of the images, equally many; a batch is that of all.
    """
    checks.check_count('batch', batch)
    is_monitor = isinstance(watch, Monitor | None)
    checks.require(is_monitor, f'what is watched is a training.Monitor, or None for nothing, not {checks.show(watch)}.')
    checks.check_function('augment', augment, 'a key and images')
    learning_layers(stage, net)
    mesh = devices.check_mesh(mesh)
    devices.check_divides('a batch', batch, mesh)
    return Program(_EPOCH[donate], check_network(net), stage, batch, watch, augment, keep_last, mesh)


def _epoch(program: Program, state, *data):
    count, batch = program.count or len(data[0]), program.batch
    checks.require(batch <= count, f'a batch of {batch} is larger than the {count} images; use batch <= {count}.')
    devices.check_divides('a last batch', count % batch if program.keep_last else 0, program.mesh)
    epoch = functools.partial(_own_epoch, program, count)
    return devices.divide(epoch, program.mesh, devices.SAME, *(devices.ROWS for _ in data))(state, *data)


def _own_epoch(program: Program, count: int, state, images, labels=None):
    """Learn from a device's own images, of `count` in all."""
    net, watch, first, share = program.net, program.watch, state.step, devices.device_count()
    batch, count = program.batch // share, count // share  # of this device
    key_of = lambda state, salt: jax.random.fold_in(jax.random.fold_in(state.key, state.step), salt)  # noqa: E731
    order = devices.own_order(key_of(state, ORDER_SALT), len(images), program.count, devices.host_count(program.mesh))

    def step(state, chosen):
        observation = None
        if watch is not None:  # images of its own, so that the step's need not be laid out for it
            observation = observe_every(watch, net, state.step - first, state.layers, images, chosen)
        x = images[chosen]
        if program.augment is not None:
            change = functools.partial(program.augment, devices.own_key(key_of(state, AUGMENT_SALT)))
            x = jax.vmap(change, 1, 1)(x) if x.ndim == 5 else change(x)  # one draw for all frames of a sequence
            checks.check_pixels(x, in_time=images.ndim == 5)
        state, infos = sweep(net, state, x, None if labels is None else labels[chosen], program.stage)
        return state, (infos, observation)

    whole = count // batch * batch
    state, steps = lax.scan(step, state, order[:whole].reshape(-1, batch))
    if program.keep_last and whole < count:
        state, last = step(state, order[whole:count])
        steps = jax.tree.map(lambda many, one: jnp.concatenate([many, one[None]]), steps, last)

    # one info a layer for the whole epoch
    (infos, observations), summaries = steps, []
    for number, info in enumerate(infos):
        summary = None if info is None else join_steps(info)
        if watch is not None:
            trace = trace_epoch(watch, info, observations[number], first, state.layers[number].w)
            summary = (summary or StepInfo(None, None, None, None))._replace(trace=trace)
        summaries.append(summary)
    return state, tuple(summaries)


def join_steps(info: StepInfo) -> StepInfo:
    """Make one info of a leading axis of steps, or of parts of an epoch."""
    wins, update, finite, rates, _ = info
    return StepInfo(wins.sum(0, wins.dtype), update.max(0), finite.all(0), rates.mean(0))


def join_infos(infos: Sequence[tuple[StepInfo | None, ...]]) -> tuple[StepInfo | None, ...]:
    """Put together, on the host, what epochs over parts of a data set say, as one over all of them would say it."""

    def join(*parts: StepInfo | None) -> StepInfo | None:
        traces, joined = [getattr(info, 'trace', None) for info in parts], parts[0]
        if joined is not None and joined.win_counts is not None:
            joined = join_steps(jax.tree.map(lambda *a: np.stack(a), *(info._replace(trace=None) for info in parts)))
        return joined if traces[0] is None else joined._replace(trace=join_traces(traces, joined.win_counts))

    return infos[0] if len(infos) == 1 else tuple(map(join, *infos))


_EPOCH = [jax.jit(_epoch, static_argnums=0, donate_argnums=(1,)[:donate]) for donate in (0, 1)]
