"""Training by gradient: heads on cached features, upper layers, or whole networks end to end, with one loop for all.

A model is a spec that compares by value, see `Model`; the loop knows nothing of heads, caches or layers. Choices (rate
reductions, when to stop, which state to keep) see the validation set alone.
"""

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from hebbjax.base import AnyArray, Array, Key
from hebbjax.readout.blocks import map_blocks
from hebbjax.readout.schedules import Milestones, Schedule
from hebbjax.support import checks, devices
from hebbjax.support.shards import Shards, draw_order, parts_of, read_ahead
from hebbjax.support.signals import compile_whole

PARTS = 8  # a long epoch returns to the host so many times, so that Ctrl-C need not wait for its end


class Model(Protocol):
    """What the loop needs of a network."""

    def apply(self, params: Any, stats: Any, inputs: Any, key: Key | None = None) -> tuple[Array, Any]:
        """Compute logits [B, K], and where running averages stand then; with a key, in training."""
        ...


class Carry(NamedTuple):
    """What gradient training carries from step to step."""

    params: Any
    stats: Any  # the model's running averages
    opt: Any  # the optimizer's state
    mean: Any  # of the parameters over the last steps
    step: Array  # int32 scalar


class GradientEpoch(NamedTuple):
    """One line of a learning curve; accuracies in [0, 1]."""

    loss: float  # mean training loss over the epoch
    train: float  # accuracy on training batches, as they passed
    validation: float
    rate: float
    seconds: float  # of training and validating until its end, over all sessions


class GradientSnapshot(NamedTuple):
    """A training between two epochs: all that it takes to go on, to the same bits."""

    carry: Carry
    best: tuple[Any, Any]  # (params, stats) of the epoch that would be kept so far
    curve: np.ndarray  # [epochs of the schedule, 5], a line each; NaN for those to come


class GradientResult(NamedTuple):
    """What `fit_gradient` reached."""

    params: Any  # of the epoch that is kept: the best on validation inputs, or the last, as the schedule says
    stats: Any
    best: int  # its number, from 0
    curve: list[GradientEpoch]
    seconds: float  # of training and validating, over all sessions
    compile_seconds: float
    interrupted: bool  # the user ended it early; the state is what would be kept until then


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames=('mesh', 'count'), donate_argnums=2)
def gradient_epoch(
    model, schedule, carry: Carry, inputs, labels, key, scale, part, mesh=None, count=None
) -> tuple[Carry, tuple]:
    """Descend for one epoch: shuffled by key on the device, looped over batches there; the carry is donated.

    `scale` multiplies every update. `part` is (first, last + 1) of the n // batch batches to go through, so that a long
    epoch can return to the host now and then; loss and accuracy are sums over these. What fills no batch sits it out.
    On a mesh each device descends on its share of every batch, from its own samples, of `count` in all.
    """
    epoch = functools.partial(_own_epoch, model, schedule, count, devices.host_count(mesh))
    same, rows = (devices.SAME,), (devices.ROWS,)
    return devices.divide(epoch, mesh, *same, *2 * rows, *3 * same)(carry, inputs, labels, key, scale, part)


def _own_epoch(model, schedule, count, hosts, carry, inputs, labels, key, scale, part) -> tuple[Carry, tuple]:
    share, average = devices.device_count(), schedule.average
    tx, batch = schedule.tx(), schedule.batch // share
    order_key, noise_key = jax.random.split(key)
    samples = (len(labels) if count is None else count // share) // batch * batch
    order = devices.own_order(order_key, len(labels), count, hosts)[:samples].reshape(-1, batch)
    noise_key = devices.own_key(noise_key)

    def step(number, state):
        (params, stats, opt, mean, count), losses, hits = state
        x, truth = jax.tree.map(lambda a: a[order[number]], inputs), labels[order[number]]

        def loss_of(params):
            logits, moved = model.apply(params, stats, x, jax.random.fold_in(noise_key, number))
            return optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean(), (logits, moved)

        (loss, (logits, stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(devices.own(params))
        hit = jnp.mean(jnp.argmax(logits, 1) == truth, dtype=jnp.float32)
        # the slope of the mean of all devices' losses, through the moments of batch norms, too, which they share
        gradient, loss, hit = devices.mean_over_devices((gradient, loss, hit))
        updates, opt = tx.update(gradient, opt, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u: scale.astype(u.dtype) * u, updates))
        # a plain mean until there are `average` steps to forget, an exponential one from there on
        share = jnp.maximum(1 / (count + 1), 1 / average)
        blend = lambda new, old: (s := share.astype(new.dtype)) * new + (1 - s) * old  # noqa: E731
        mean = params if average == 1 else jax.tree.map(blend, params, mean)
        return Carry(params, stats, opt, mean, count + 1), losses + loss.astype(jnp.float32), hits + hit

    zero = jnp.zeros((), jnp.float32)
    carry, losses, hits = jax.lax.fori_loop(*part, step, (carry, zero, zero))
    return carry, (losses, hits)


_init_optimizer = jax.jit(lambda schedule, params: schedule.tx().init(params), static_argnums=0)


@devices.by_rows
@functools.partial(jax.jit, static_argnums=0)
def predict_classes(model, learned, inputs) -> Array:
    """Give the class of each sample [n] int32, -1 where logits are not finite; some samples at a time.

    `learned`: the model's params and stats.
    """

    def classes(x):
        logits, _ = model.apply(*learned, x)  # [b, K]
        return jnp.where(jnp.isfinite(logits).all(1), jnp.argmax(logits, 1), -1)

    return map_blocks(classes, inputs)


def fit_gradient(
    model: Model, params: Any, stats: Any, key: Key, train: tuple[Any, AnyArray] | Shards,
    validation: tuple[Any, AnyArray], schedule: Schedule | Milestones, *,
    watch: Callable[[int, GradientEpoch], None] = lambda number, line: None,
    keep: Callable[[GradientSnapshot], None] = lambda snapshot: None,
    kept: Callable[[GradientSnapshot], GradientSnapshot | None] = lambda like: None, mesh: Mesh | None = None,
) -> GradientResult:  # fmt: skip
    """Train a model on the cross-entropy, and keep the state that is best on the validation set, or the last one.

    A training that diverges, so that the loss of an epoch or an answer to validation inputs is not finite, is a
    ValueError. Ctrl-C before the first epoch is over is raised; later, what was reached is returned.

    Args:
        model: what to train, by `schedule`, from `params` and `stats` on, which are not written over.
        key: draws the order of samples and dropout.
        train, validation: inputs (pytree of [n, ...]) and labels [n]; every choice is made on the second. The first may
            be `data.Shards`: an epoch goes through all parts, in an order that the key draws, each shuffled.
        watch: called after each epoch with its number and line.
        keep: called after each epoch with all that it takes to go on; its buffers are gone with the next epoch.
        kept: called once with a snapshot of this shape: gives one that `keep` was given, to go on from, or None.
        mesh: devices, such as `jax.make_mesh((jax.device_count(),), ('data',))`; each keeps its share of the samples,
            shuffles them by a key of its own, and descends on its share of every batch.
    """

    # The door: whatever does not fit is refused before anything is computed.
    def check(samples, truth):
        counts = {len(leaf) for leaf in jax.tree.leaves(samples)}
        fits = len(counts) == 1 and 0 not in counts
        checks.require(fits, f'inputs of {sorted(counts)} samples teach nothing; give as many of each, 1 or more.')
        logits = jax.eval_shape(lambda *given: model.apply(*given)[0], params, stats, samples)
        return samples, np.asarray(checks.check_labels(truth, logits.shape[1], counts.pop()), np.int32)

    def place(number):
        part = check(*shards[number])
        laid = jax.device_put(part) if mesh is None else devices.fill_rows(part, mesh, evenly=True)
        return jax.block_until_ready(laid)

    shards, mesh = parts_of(train), devices.check_mesh(mesh)
    count, (held_inputs, held_labels) = len(check(*shards[0])[1]), check(*validation)
    schedule.check(count, mesh)
    count *= devices.host_count(mesh)
    steps, how, data = count // schedule.batch, {'mesh': mesh, 'count': count}, place(0)
    held_inputs, held_count = devices.fill_rows(held_inputs, mesh), len(held_labels)

    # Where it begins: afresh, or behind what an interrupted training kept.
    copy = functools.partial(jax.device_put, may_alias=False)  # the carry is written over; nothing is compiled for it
    carry = Carry(copy(params), copy(stats), _init_optimizer(schedule, params), copy(params), copy(np.int32(0)))
    curve, best = [], (params, stats)
    as_array = lambda curve: np.float32([*curve, *[[np.nan] * 5] * (schedule.epochs - len(curve))])  # noqa: E731
    if (snapshot := kept(GradientSnapshot(carry, best, as_array(curve)))) is not None:
        carry, best, lines = snapshot.carry, snapshot.best, np.asarray(snapshot.curve)
        curve = [GradientEpoch(*line) for line in lines[~np.isnan(lines[:, -1])].tolist()]  # a loss may be NaN

    carry, key = devices.lay((carry, key), mesh)

    started = time.perf_counter()
    stops = [steps * part // PARTS for part in range(PARTS + 1)] if steps > 8 * PARTS else [0, steps]
    parts = [(np.int32(first), np.int32(last)) for first, last in itertools.pairwise(stops)]
    compile_whole(gradient_epoch, model, schedule, carry, *data, key, np.float32(1), parts[0], **how)
    compile_whole(predict_classes, model, (carry.mean, carry.stats), held_inputs, mesh=mesh)
    words, epochs = np.asarray(jax.random.key_data(key)), range(len(curve), schedule.epochs)
    orders = itertools.chain.from_iterable(draw_order(words, number, len(shards)) for number in epochs)
    stream = read_ahead(place, orders) if len(shards) > 1 else itertools.repeat(data)
    del data
    ready, interrupted = time.perf_counter(), False
    before = curve[-1].seconds if curve else 0.0
    try:
        while len(curve) < schedule.epochs and len(curve) - 1 - chosen_epoch(schedule, curve) <= schedule.stop_after:
            number, scale = len(curve), schedule.scale([line.validation for line in curve])
            loss, right, total = 0.0, 0.0, steps * len(shards)
            for turn, data in enumerate(itertools.islice(stream, len(shards)), number * len(shards)):
                drawn = jax.random.fold_in(key, np.uint32(turn)), np.float32(scale)
                for part in parts:
                    carry, sums = gradient_epoch(model, schedule, carry, *data, *drawn, part, **how)
                    loss, right = loss + float(sums[0]) / total, right + float(sums[1]) / total
            judged = carry.mean, carry.stats
            classes = predict_classes(model, judged, held_inputs, mesh=mesh)
            classes = np.asarray(classes if mesh is None else devices.local_rows(classes, mesh))[:held_count]
            held_out = np.mean(classes == held_labels) if (classes >= 0).all() else np.nan
            held_out = devices.from_hosts(held_out, mesh).mean()
            what = 'answer to validation inputs' if np.isfinite(loss) else 'training loss'
            diverged = f'training by gradient diverged: in epoch {number + 1} the {what} is not finite'
            way = f'lower the rate {schedule.rate:g}, or check the inputs'
            checks.require(np.isfinite([loss, held_out]).all(), f'{diverged}; {way}.')
            seconds = before + time.perf_counter() - ready
            # as they can be kept, so that a resumed curve is the same
            line = GradientEpoch(*map(float, np.float32([loss, right, held_out, schedule.rate * scale, seconds])))
            reached = [*curve, line]  # both change at once, whoever interrupts; the next epoch writes over the buffers
            curve, best = reached, copy(devices.own_copy(judged)) if chosen_epoch(schedule, reached) == number else best
            keep(GradientSnapshot(devices.own_copy(carry), best, as_array(curve)))
            watch(number, line)
    except KeyboardInterrupt:
        if not curve:
            raise
        interrupted = True
    seconds = before + time.perf_counter() - ready
    return GradientResult(*best, chosen_epoch(schedule, curve), curve, seconds, ready - started, interrupted)


def best_epoch(curve: Sequence[GradientEpoch]) -> int:
    """Give the number of the epoch with the best validation accuracy, from 0, the first of equals."""
    return int(np.argmax([line.validation for line in curve] or [0]))


def chosen_epoch(schedule: Any, curve: Sequence[GradientEpoch]) -> int:
    """Give the number of the epoch that a schedule keeps: the best, or the last one."""
    return len(curve) - 1 if getattr(schedule, 'choose', 'best') == 'last' else best_epoch(curve)
