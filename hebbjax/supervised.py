"""Training by gradient: heads on frozen drives, or whole networks end to end, with one loop for both.

A model (`models.Model`) is a pair of pure functions, so the loop knows nothing of heads, caches or layers. Choices
(rate reductions, when to stop, which state to keep) see the validation set alone.
"""

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.early_stopping import EarlyStopping

from hebbjax import checks, frozen
from hebbjax.models import Model
from hebbjax.schedules import Milestones, Schedule
from hebbjax.types import Array, Key

PARTS = 8  # a long epoch returns to the host so many times, so that Ctrl-C need not wait for its end


class Carry(NamedTuple):
    """What gradient training carries from step to step."""

    params: Any
    averages: Any  # the model's running averages
    opt: Any  # the optimizer's state
    mean: Any  # of the parameters over the last steps
    step: Array  # int32 scalar


class Epoch(NamedTuple):
    """One line of a learning curve; accuracies in [0, 1]."""

    loss: float  # mean training loss over the epoch
    train: float  # accuracy on training batches, as they passed
    validation: float
    rate: float
    seconds: float  # of training and validating until its end, over all sessions


class Snapshot(NamedTuple):
    """A training between two epochs: all that it takes to go on, to the same bits."""

    carry: Carry
    best: tuple[Any, Any]  # (params, averages) of the best epoch so far
    curve: np.ndarray  # [epochs of the schedule, 5], a line each; NaN for those to come


class Fitted(NamedTuple):
    """What `fit` reached."""

    params: Any  # of the epoch with the best validation accuracy
    averages: Any
    best: int  # its number, from 0
    curve: list[Epoch]
    history: list[tuple[Any, Any]]  # (params, averages) after every epoch, on the host; empty unless asked for
    seconds: float  # of training and validating, over all sessions
    compile_seconds: float
    interrupted: bool  # the user ended it early; the state is the best until then


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Compute the mean softmax cross-entropy. [B, K], [B] -> scalar."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def begin(tx: optax.GradientTransformation, params, averages) -> Carry:
    """Give what training starts from, in buffers of its own."""
    return Carry(params, averages, tx.init(params), jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32))


@functools.lru_cache(maxsize=64)
def make_gradient_epoch(model: Model, tx: optax.GradientTransformation, batch: int, average: int = 1) -> Callable:
    """Build one jitted epoch of gradient descent: shuffled by key on the device, looped over batches there.

    Returns:
        A function `(carry, inputs, labels, key, scale, part) -> (carry, (loss, accuracy))`, the `Carry` donated.
        `scale` multiplies every update. `part` is (first, last + 1) of the batches to go through, so that a long epoch
        can return to the host now and then; (0, n // batch) is all of it. Loss and accuracy are sums over those
        batches. Samples that fill no batch sit the epoch out.
    """

    def epoch(carry, inputs, labels, key, scale, part):
        order_key, noise_key = jax.random.split(key)
        count = len(labels)
        order = jax.random.permutation(order_key, count)[: count // batch * batch].reshape(-1, batch)

        def step(number, state):
            (params, averages, opt, smooth, count), total, hits = state
            chosen = order[number]
            some, truth = jax.tree.map(lambda a: a[chosen], inputs), labels[chosen]

            def loss_of(params):
                logits, updated = model.apply(params, averages, some, jax.random.fold_in(noise_key, number))
                return cross_entropy(logits, truth), (logits, updated)

            (loss, (logits, averages)), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
            updates, opt = tx.update(gradient, opt, params)
            params = optax.apply_updates(params, jax.tree.map(lambda u: scale.astype(u.dtype) * u, updates))
            hit = jnp.mean(jnp.argmax(logits, 1) == truth, dtype=jnp.float32)
            # a plain mean until there are `average` steps to forget, an exponential one from there on
            share = jnp.maximum(1 / (count + 1), 1 / average)
            blend = lambda new, old: (part := share.astype(new.dtype)) * new + (1 - part) * old  # noqa: E731
            smooth = params if average == 1 else jax.tree.map(blend, params, smooth)
            return Carry(params, averages, opt, smooth, count + 1), total + loss.astype(jnp.float32), hits + hit

        none = jnp.zeros((), jnp.float32)
        carry, loss, hits = jax.lax.fori_loop(*part, step, (carry, none, none))
        return carry, (loss, hits)

    return jax.jit(epoch, donate_argnums=0)


@functools.lru_cache(maxsize=64)
def make_predict(model: Model, block: int = 100) -> Callable:
    """Build the jitted `(params, averages, inputs) -> classes [n]`, -1 where logits are not finite."""

    def classes(logits):
        return jnp.where(jnp.isfinite(logits).all(1), jnp.argmax(logits, 1), -1)

    def predict(params, averages, inputs):
        return frozen.blockwise(lambda some: classes(model.apply(params, averages, some)[0]), inputs, block)

    return jax.jit(predict)


@functools.lru_cache(maxsize=64)
def make_accuracy(model: Model, block: int = 100) -> Callable:
    """Build the jitted accuracy `(params, averages, inputs, labels) -> scalar in [0, 1]`, NaN if a logit is."""
    predict = make_predict(model, block)

    def accuracy(params, averages, inputs, labels):
        found = predict(params, averages, inputs)
        return jnp.where((found >= 0).all(), jnp.mean(found == labels, dtype=jnp.float32), jnp.nan)

    return jax.jit(accuracy)


def fit(
    model: Model,
    key: Key,
    train: tuple[Any, Array],
    validation: tuple[Any, Array],
    schedule: Schedule | Milestones,
    *,
    history: bool = False,
    watch: Callable[[int, Epoch], None] | None = None,
    keep: Callable[[Snapshot], None] | None = None,
    kept: Callable[[Snapshot], Snapshot | None] | None = None,
) -> Fitted:
    """Train a model on the cross-entropy, and keep the state that is best on the validation set.

    Args:
        model: what to train.
        key: draws its first parameters, the order of samples and its dropout.
        train: inputs (pytree of [n, ...]) and labels [n].
        validation: inputs and labels that every choice is made on.
        schedule: optimizer, rates and lengths.
        history: keep every epoch's state on the host, to draw test curves with when every choice has been made; those
            of this session, where it goes on from another.
        watch: called after each epoch with its number and line.
        keep: called after each epoch with all that it takes to go on; its buffers are gone with the next epoch.
        kept: called once with a snapshot of this shape: gives one that `keep` was given, to go on from, or None.

    Raises:
        ValueError: if schedule, inputs and labels do not fit each other, or training diverges: where the loss of an
            epoch or an answer to validation inputs is not finite.
        KeyboardInterrupt: if the user ends it before the first epoch is over; later, what was reached is returned.
    """
    count, _ = (_count(inputs) for inputs, _ in (train, validation))
    schedule.check(count)
    init_key, train_key = jax.random.split(key)
    params, averages = model.init(init_key)
    (inputs, labels), validation = (_labelled(model, params, averages, *side) for side in (train, validation))
    tx = schedule.tx()
    pace, follow = schedule.pace()
    stopping = EarlyStopping(patience=schedule.stop_after)
    carry, curve, best = begin(tx, params, averages), [], None
    if kept is not None and (found := kept(Snapshot(carry, (params, averages), lines_of([], schedule)))) is not None:
        carry, best = found.carry, (0, found.best)
        lines = np.asarray(found.curve)
        for number, line in enumerate(lines[~np.isnan(lines[:, -1])].tolist()):  # a loss may be NaN, a rate is not
            curve.append(Epoch(*line))
            best = (number, found.best) if curve[-1].validation > curve[best[0]].validation else best
            pace, stopping = follow(pace, curve[-1].validation), stopping.update(1 - curve[-1].validation)

    started = time.perf_counter()
    one = jnp.ones((), jnp.float32)
    steps = len(labels) // schedule.batch
    stops = [steps * part // PARTS for part in range(PARTS + 1)] if steps > 8 * PARTS else [0, steps]
    parts = [(jnp.int32(first), jnp.int32(last)) for first, last in itertools.pairwise(stops)]
    epoch = make_gradient_epoch(model, tx, schedule.batch, schedule.average)
    epoch = compiled(epoch, carry, inputs, labels, train_key, one, parts[0])
    accuracy = compiled(make_accuracy(model), params, averages, *validation)
    ready = time.perf_counter()

    states, interrupted = [], False
    before = curve[-1].seconds if curve else 0.0
    try:
        for number in range(len(curve), schedule.epochs if not stopping.should_stop else 0):
            key, scale = jax.random.fold_in(train_key, number), pace.scale
            loss = right = 0.0
            for part in parts:
                carry, sums = epoch(carry, inputs, labels, key, scale, part)
                loss, right = loss + float(sums[0]) / steps, right + float(sums[1]) / steps
            judged = carry.mean, carry.averages
            held_out = float(accuracy(*judged, *validation))
            # as they can be kept, so that a resumed curve is the same
            spent = before + time.perf_counter() - ready
            if not np.isfinite([loss, held_out]).all():
                what = 'training loss' if not np.isfinite(loss) else 'answer to validation inputs'
                raise ValueError(
                    f'training by gradient diverged: in epoch {number + 1} the {what} is not finite; lower the rate '
                    f'{schedule.rate:g}, or check the inputs.'
                )
            now = Epoch(*map(float, np.float32([loss, right, held_out, schedule.rate * float(scale), spent])))
            # copies: the next epoch writes over these buffers
            if best is None or now.validation > curve[best[0]].validation:
                best = number, jax.tree.map(jnp.copy, judged)
            if history:
                states.append(jax.tree.map(np.array, judged))
            curve.append(now)
            if keep is not None:
                keep(Snapshot(carry, best[1], lines_of(curve, schedule)))
            if watch is not None:
                watch(number, now)
            pace, stopping = follow(pace, now.validation), stopping.update(1 - now.validation)
            if stopping.should_stop:
                break
    except KeyboardInterrupt:
        if not curve:
            raise
        interrupted = True
    seconds = before + time.perf_counter() - ready
    return Fitted(*best[1], best[0], curve, states, seconds, ready - started, interrupted)


def _count(inputs) -> int:
    counts = {len(leaf) for leaf in jax.tree.leaves(inputs)}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f'inputs of {sorted(counts)} samples teach nothing; give as many of each, 1 or more.')
    return counts.pop()


def _labelled(model, params, averages, inputs, labels):
    logits = jax.eval_shape(lambda *given: model.apply(*given)[0], params, averages, inputs)
    return inputs, jnp.asarray(checks.check_labels(labels, logits.shape[1], _count(inputs)), jnp.int32)


def lines_of(curve: list[Epoch], schedule: Schedule | Milestones) -> np.ndarray:
    """Lay a curve out as an array [epochs, 5]; epochs to come are NaN."""
    lines = np.full((schedule.epochs, len(Epoch._fields)), np.nan, np.float32)
    lines[: len(curve)] = curve or lines[:0]
    return lines


def compiled(f: Callable, *args) -> Callable:
    """Compile a jitted function for arguments of these shapes, ahead of its first call; once for all seeds.

    Under `jax.disable_jit` there is nothing to compile: it is given back.
    """
    if jax.config.jax_disable_jit:
        return f
    leaves, structure = jax.tree.flatten(args)
    like = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, 'sharding', None))  # noqa: E731
    return _program(f, structure, tuple(map(like, leaves)))


@functools.lru_cache(maxsize=32)
def _program(f, structure, shapes):
    return f.lower(*jax.tree.unflatten(structure, shapes)).compile()
