"""Training a network of Hebbian layers: a network is a tuple of layers, a state is a pytree, a step is a function."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array, Key, StepInfo
from hebbjax.layers.layer import Layer, LayerState, check_image_size, forward, to_intensities
from hebbjax.layers.network import Network, TrainState, check_network, check_states
from hebbjax.layers.update import update_layer
from hebbjax.support import checks, specs
from hebbjax.training.monitor import Monitor, Trace, observe_every, trace_epoch
from hebbjax.training.stages import Stage, learning_layers

ORDER_SALT, AUGMENT_SALT = 0x5EED, 0xF11B  # folded in beside a step's number, so that no key serves two draws


def train_step(
    net: Network, state: TrainState, images: Array, labels=None, *, stage: Stage | None = None
) -> tuple[TrainState, tuple[StepInfo | None, ...]]:
    """Sweep upward once: every layer that learns in this stage learns from what reaches it, and sends on."""
    net = check_network(net)
    images, labels = check_inputs(net, state, images, labels)
    return _sweep(net, state, images, labels, stage)


@specs.compiled_once('net', 'stage')
def _sweep(net, state, images, labels, stage):
    learns = learning_layers(stage, net)
    top = len(net) - learns[::-1].index(True)  # nothing above the highest layer that learns is computed
    keys = jax.random.split(jax.random.fold_in(state.key, state.step), len(net))
    x, states, infos = to_intensities(images), list(state.layers), [None] * len(net)
    for number, layer in enumerate(net[:top]):
        before = state.layers[number]
        if not learns[number]:
            x = forward(layer, before, x)
            continue
        teacher = teacher_signal(net, state.layers, number, labels)
        states[number], sent, infos[number] = update_layer(layer, keys[number], before, x, teacher)
        if stage is not None and stage.order == 'sequential' and number + 1 < top:
            sent = forward(layer, states[number], x)
        x = sent
    return TrainState(state.step + 1, state.key, tuple(states)), tuple(infos)


def teacher_signal(net: Network, states: Sequence[LayerState], number: int, labels) -> Array | None:
    """Give what a layer's teacher tells its neurons of each image [B, N], or None where it has none."""
    if net[number].teacher is None:
        return None
    needs = f'layer {number + 1} has a teacher, which needs labels; call with (state, images, labels).'
    checks.require(labels is not None, needs)
    return net[number].teacher(labels, tuple(state.w for state in states[number + 1 :]))


def check_inputs(net: tuple[Layer, ...], state: TrainState, images: Array, labels, look=False) -> tuple[Array, Any]:
    """Check what learning is given; `look` at the values of images, too. -> images, and labels as integers [B]."""
    way = f'training goes on from the TrainState that init makes, not from {type(state).__name__}.'
    checks.require(isinstance(state, TrainState), way)
    check_states(net, state.layers)
    (checks.check_images if look else checks.check_pixels)(images)
    check_image_size(state.layers[0], images.shape[1:])
    if labels is not None:
        classes = [layer.teacher.classes for layer in net if hasattr(layer.teacher, 'classes')]
        labels = checks.check_labels(labels, min(classes, default=None), len(images))
    return images, labels


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A jitted step or epoch, with checks at its door; those of the same settings are equal, and compiled once."""

    run: Callable  # (program, state, images, labels), jitted for each program
    net: tuple[Layer, ...]
    stage: Stage | None = None
    batch: int | None = None
    watch: Monitor | None = None
    augment: Callable[[Key, Array], Array] | None = None
    keep_last: bool = False

    __eq__ = specs.specs_equal

    def __hash__(self):
        return self._hash

    @functools.cached_property
    def _hash(self):  # asked for at every call
        return specs.spec_hash(self)

    def __call__(self, state: TrainState, images: Array, labels=None):
        images, labels = check_inputs(self.net, state, images, labels, look=self.batch is not None)
        return self.run(self, state, images, *(() if labels is None else (labels,)))

    def lower(self, state: TrainState, images: Array, labels=None):
        return self.run.lower(self, state, images, *(() if labels is None else (labels,)))


def make_train_step(net: Network, *, stage: Stage | None = None, donate: bool = False) -> Program:
    """Build the jitted step `(state, images [B, H, W, C], labels=None) -> (state, info)`: one `StepInfo` per layer.

    Example:
        >>> from hebbjax import init, rules, transforms
        >>> net = (Layer(4, rules.oja(), transforms.scale_by_rate(0.01)),)
        >>> step, state = make_train_step(net), init(net, jax.random.key(0), (3, 3, 1))
        >>> for _ in range(5):
        ...     state, info = step(state, jnp.ones((2, 3, 3, 1)))
        >>> int(state.step), info[0].win_counts.sum()
        (5, Array(2, dtype=int32))
    """
    learning_layers(stage, net)
    return Program(_STEP[donate], check_network(net), stage)


def make_train_epoch(
    net: Network,
    *,
    batch: int,
    stage: Stage | None = None,
    watch: Monitor | None = None,
    augment: Callable[[Key, Array], Array] | None = None,
    keep_last: bool = False,
    donate: bool = False,
) -> Program:
    """Build the jitted epoch `(state, images, labels=None) -> (state, info)`: one program, scanned over batches.

    The images [n, H, W, C] stay on the device and are shuffled there, by the state's key and step. Its info is one
    `StepInfo` per layer: wins summed, the largest change, finite only if every step was, mean rates, and the `Trace` of
    what was watched; for layers that do not learn None, or their trace alone.

    Args:
        batch: images per step.
        stage: who learns, fed in which order; None: every layer that is not frozen, at once.
        augment: (key, images of a batch) -> images, such as `random_flip`; on the device, by the state's key and step.
        keep_last: learn from the last, smaller batch too; else the images left over, other ones each time, sit out.
        donate: let the new state be written over the old one, which is then gone.
    """
    came = checks.show(batch)
    checks.require(checks.is_count(batch), f'a batch of {came} images teaches nothing; use a whole number, 1 or more.')
    is_monitor = isinstance(watch, Monitor | None)
    checks.require(is_monitor, f'what is watched is a training.Monitor, or None for nothing, not {checks.show(watch)}.')
    learning_layers(stage, net)
    return Program(_EPOCH[donate], check_network(net), stage, batch, watch, augment, keep_last)


def _step(program: Program, state, images, labels=None):
    return _sweep(program.net, state, images, labels, program.stage)


def _epoch(program: Program, state, images, labels=None):
    net, batch, watch, count, first = program.net, program.batch, program.watch, len(images), state.step
    checks.require(batch <= count, f'a batch of {batch} is larger than the {count} images; use batch <= {count}.')
    order = jax.random.permutation(_step_key(state, ORDER_SALT), count)

    def step(state, chosen):
        observation = None
        if watch is not None:  # images of its own, so that the step's need not be laid out for it
            observation = observe_every(watch, net, state.step - first, state.layers, images, chosen)
        x = images[chosen]
        if program.augment is not None:
            x = program.augment(_step_key(state, AUGMENT_SALT), x)
        state, infos = _sweep(net, state, x, None if labels is None else labels[chosen], program.stage)
        return state, (infos, observation)

    whole = count // batch * batch
    state, steps = lax.scan(step, state, order[:whole].reshape(-1, batch))
    if program.keep_last and whole < count:
        state, last = step(state, order[whole:])
        steps = jax.tree.map(lambda many, one: jnp.concatenate([many, one[None]]), steps, last)
    (infos, observations), traces = steps, [None] * len(net)
    if watch is not None:
        traces = [trace_epoch(watch, *seen, first, layer.w) for *seen, layer in zip(infos, observations, state.layers)]
    return state, tuple(map(_sum_up, infos, traces))


def _step_key(state: TrainState, salt: int) -> Key:
    return jax.random.fold_in(jax.random.fold_in(state.key, state.step), salt)


def _sum_up(steps: StepInfo | None, trace: Trace | None) -> StepInfo | None:
    if steps is None:  # a layer that did not learn
        return None if trace is None else StepInfo(None, None, None, None, trace)
    wins, update, finite, rates, _ = steps
    return StepInfo(wins.sum(0), update.max(), finite.all(), rates.mean(0), trace)


# by whether the state is donated
_STEP, _EPOCH = ([jax.jit(f, static_argnums=0, donate_argnums=(1,)[:d]) for d in (0, 1)] for f in (_step, _epoch))
