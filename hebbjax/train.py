"""Training a network of Hebbian layers: a network is a tuple of layers, a state is a pytree, a step is a function.

net = (Layer(...), Layer(...))
state = init(net, key, images.shape[1:])
epoch = make_train_epoch(net, batch=128)
for _ in range(epochs):
    state, info = epoch(state, images)
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax import checks, layers, learning, monitor, stages, values
from hebbjax.layers import Layer, LayerState, check_network
from hebbjax.monitor import Monitor, Trace
from hebbjax.stages import Stage
from hebbjax.types import Array, Key, Told

Network = Sequence[Layer]


class TrainState(NamedTuple):
    """The whole of a training, as a plain pytree: save it, vmap over it, shard it."""

    step: Array  # int32 scalar: learning steps taken
    key: Key  # never changes; every step folds its number in
    layers: tuple[LayerState, ...]  # one each, bottom first


def init(net: Network, key: Key, image_shape: tuple[int, int, int], weights: Sequence | None = None) -> TrainState:
    """Make the first state of a network for images of shape (H, W, C).

    Args:
        net: the layers, bottom first.
        key: draws all weights and, kept in the state, all that training draws later.
        image_shape: (H, W, C).
        weights: per layer, weights [N, D] to start from, or None to draw them. Given weights are never drawn anew, and
            not copied: a step that donates its state takes them along.

    Raises:
        ValueError: if a layer does not fit what reaches it, naming the layer, or a rule refuses its weights.
    """
    net = check_network(net)
    checks.check_key(key)
    image_shape = checks.check_image_shape(image_shape)
    weights = [None] * len(net) if weights is None else weights
    if len(weights) != len(net):
        raise ValueError(f'{len(weights)} weights for {len(net)} layers; give one for each, or None to draw it.')
    init_key, train_key = jax.random.split(key)
    states = []
    for number, (layer, w, layer_key) in enumerate(zip(net, weights, jax.random.split(init_key, len(net)))):
        try:
            states.append(layers.init(layer, layer_key, image_shape, w))
            image_shape = jax.eval_shape(
                lambda state, x, layer=layer: layers.respond(layer, state, x),
                states[-1],
                jax.ShapeDtypeStruct((1, *image_shape), jnp.float32),
            ).shape[1:]
        except ValueError as error:
            raise ValueError(f'layer {number + 1}: {error}') from None
    return TrainState(jnp.zeros((), jnp.int32), train_key, tuple(states))


def check_states(net: tuple[Layer, ...], states: Sequence[LayerState], upto: int | None = None) -> None:
    """Refuse states that are not those of a network, or of its lowest layers.

    Raises:
        ValueError: naming what came and what fits.
    """
    if isinstance(states, TrainState):
        raise ValueError("a training's state came where the states of layers are wanted; give state.layers.")
    if isinstance(states, LayerState) or not isinstance(states, tuple | list):
        raise ValueError(f'states are one LayerState per layer, such as state.layers, not {type(states).__name__}.')
    if upto is not None and not (checks.is_count(upto, 0) and upto <= len(net)):
        raise ValueError(
            f'upto={checks.shown(upto)} is no number of layers to pass through; use 0 to {len(net)}, or None for all.'
        )
    if len(states) < (len(net) if upto is None else upto) or len(states) > len(net):
        raise ValueError(f'{len(states)} states do not fit {len(net)} layers; give one for each.')
    for number, (layer, state) in enumerate(zip(net, states), 1):
        w = getattr(state, 'w', 0)
        if jnp.ndim(w) != 2 or len(w) != layer.features:
            raise ValueError(
                f'layer {number} has {layer.features} neurons, and its state weights of shape {jnp.shape(w)}; '
                'give the states that init or a training made for this network.'
            )


def train_step(
    net: Network, state: TrainState, images: Array, labels=None, *, stage: Stage | None = None
) -> tuple[TrainState, tuple[Told | None, ...]]:
    """Sweep upward once: every layer that learns in this stage learns from what reaches it, and sends on.

    What it sends is its answer from before its update ('parallel'), or from after it ('in_order'); see `stages`. The
    pure function behind `make_train_step`, for those who compose it themselves.
    """
    net = check_network(net)
    images, labels = admit(net, state, images, labels)
    return _sweep(net, state, images, labels, stage)


@values.compiled_once('net', 'stage')
def _sweep(net, state, images, labels, stage):
    learns = stages.learning(stage, net)
    top = len(net) - learns[::-1].index(True)  # nothing above the highest layer that learns is computed
    keys = jax.random.split(jax.random.fold_in(state.key, state.step), len(net))
    x, learned, told = layers.intensities(images), list(state.layers), [None] * len(net)
    for number, layer in enumerate(net[:top]):
        before = state.layers[number]
        if not learns[number]:
            x = layers.respond(layer, before, x)
            continue
        signal = teacher_of(net, state.layers, number, labels)
        after, sent, told[number] = learning.learn(layer, keys[number], before, x, signal)
        learned[number] = after
        if stage is not None and stage.order == 'in_order' and number + 1 < top:
            sent = layers.respond(layer, after, x)
        x = sent
    return TrainState(state.step + 1, state.key, tuple(learned)), tuple(told)


def teacher_of(net: Network, states: Sequence[LayerState], number: int, labels) -> Array | None:
    """Give what a layer's teacher tells its neurons of each image [B, N], or None where it has none.

    Raises:
        ValueError: if it has one, and there are no labels.
    """
    if net[number].teacher is None:
        return None
    if labels is None:
        raise ValueError(f'layer {number + 1} has a teacher, which needs labels; call with (state, images, labels).')
    return net[number].teacher(labels, tuple(state.w for state in states[number + 1 :]))


def admit(net: tuple[Layer, ...], state: TrainState, images: Array, labels, look: bool = False) -> tuple[Array, Any]:
    """Check what a learning step or an epoch is given; of what is traced, shapes and dtypes.

    Args:
        net: the layers.
        state: the training's.
        images: uint8, uint16, bool or floating.
        labels: in any form that `checks.check_labels` understands, or None.
        look: whether to look at the values of floating images, which waits for them.

    Returns:
        images, and labels as integers [B].

    Raises:
        ValueError: naming what does not fit.
    """
    if not isinstance(state, TrainState):
        raise ValueError(f'training goes on from the TrainState that init makes, not from {type(state).__name__}.')
    check_states(net, state.layers)
    (checks.check_images if look else checks.check_pixels)(images)
    layers.refuse_other_images(state.layers[0], images.shape[1:])
    if labels is not None:
        classes = [layer.teacher.classes for layer in net if hasattr(layer.teacher, 'classes')]
        labels = checks.check_labels(labels, min(classes, default=None), len(images))
    return images, labels


def _door(program: Callable, net: tuple[Layer, ...], look: bool) -> Callable:
    """Put checks in front of a jitted step or epoch, which can be lowered and asked how often it compiled as before."""

    @functools.wraps(program)
    def call(state, images, labels=None):
        images, labels = admit(net, state, images, labels, look)
        return program(state, images) if labels is None else program(state, images, labels)

    call.lower, call._cache_size = program.lower, program._cache_size
    return call


def make_train_step(net: Network, *, stage: Stage | None = None, donate: bool = False) -> Callable:
    """Build the jitted step `(state, images, labels=None) -> (state, info)`.

    Args:
        net: the layers, bottom first.
        stage: who learns, fed in which order; None: every layer that is not frozen, in parallel.
        donate: let the step write the new state over the old one, which is then gone. Off, so that no array vanishes.

    Returns:
        A function of a state and images [B, H, W, C], uint8 or floating; info is one `Told` per layer, None for
        layers that do not learn.

    Raises:
        ValueError: if the stage does not fit the network.
    """
    net = check_network(net)
    stages.learning(stage, net)

    def step(state, images, labels=None):
        return _sweep(net, state, images, labels, stage)

    return _door(jax.jit(step, donate_argnums=0 if donate else ()), net, look=False)


def make_train_epoch(
    net: Network,
    *,
    batch: int,
    stage: Stage | None = None,
    watch: Monitor | None = None,
    augment: Callable[[Key, Array], Array] | None = None,
    keep_last: bool = False,
    donate: bool = False,
) -> Callable:
    """Build the jitted epoch `(state, images, labels=None) -> (state, info)`: one program, scanned over batches.

    The images stay on the device and are shuffled there, by the state's key and step; nothing returns to the host.

    Args:
        net: the layers, bottom first.
        batch: images per step.
        stage: who learns, fed in which order; None: every layer that is not frozen, in parallel.
        watch: what to watch on the way (`monitor`); None: nothing.
        augment: (key, images of a batch) -> images, such as `augment.flip`; on the device, by the state's key and step.
        keep_last: learn from the last, smaller batch too; else the images left over sit this epoch out (other ones
            in the next epoch).
        donate: let the epoch write the new state over the old one, which is then gone. Off by default.

    Returns:
        A function of a state and images [n, H, W, C]. Its info is one `Told` per layer for the whole epoch: wins
        summed, largest change, finite only if every step was, mean rates, and the `Trace` of what was watched. Layers
        that do not learn tell None, or their trace alone where they are watched.

    Raises:
        ValueError: if the batch is below 1, or (when first traced) larger than the data; if stage or monitor do
            not fit.
    """
    net = check_network(net)
    if not checks.is_count(batch):
        raise ValueError(f'a batch of {checks.shown(batch)} images teaches nothing; use a whole number, 1 or more.')
    stages.learning(stage, net)
    if watch is not None:
        if not isinstance(watch, Monitor):
            raise ValueError(f'what is watched is told by a monitor.Monitor, not by {checks.shown(watch)}.')
        watch.check()

    def epoch(state, images, labels=None):
        count = len(images)
        if batch > count:
            raise ValueError(f'a batch of {batch} is larger than the {count} images; use batch <= {count}.')
        # Folded in beside the step's own number, so that no key serves both the shuffle and a step.
        order_key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 0x5EED)
        order = jax.random.permutation(order_key, count)
        first = state.step

        def step(state, chosen):
            seen = None
            if watch is not None:  # images of its own, so that the step's need not be laid out for it
                seen = monitor.now_and_then(watch, net, state.step - first, state.layers, images, chosen)
            some = images[chosen]
            if augment is not None:
                some = augment(jax.random.fold_in(jax.random.fold_in(state.key, state.step), 0xF11B), some)
            state, told = _sweep(net, state, some, None if labels is None else labels[chosen], stage)
            return state, (told, seen)

        whole = count // batch * batch
        state, found = lax.scan(step, state, order[:whole].reshape(-1, batch))
        if keep_last and whole < count:
            state, last = step(state, order[whole:])
            found = jax.tree.map(lambda many, one: jnp.concatenate([many, one[None]]), found, last)
        told, seen = found
        if watch is None:
            return state, tuple(None if steps is None else over_epoch(steps) for steps in told)
        traces = [monitor.trace(watch, *one, first, now.w) for *one, now in zip(told, seen, state.layers)]
        return state, tuple(over_epoch(steps, trace) for steps, trace in zip(told, traces))

    return _door(jax.jit(epoch, donate_argnums=0 if donate else ()), net, look=True)


def over_epoch(steps: Told | None, trace: Trace | None = None) -> Told:
    """Sum up what the steps of an epoch told of one layer; a layer that did not learn has only its trace to tell."""
    if steps is None:
        return Told(None, None, None, None, trace)
    return Told(steps.wins.sum(0), steps.change.max(), steps.finite.all(), steps.rates.mean(0), trace)


def features(net: Network, states: Sequence[LayerState], images: Array, upto: int | None = None) -> Array:
    """Compute what a network sends on; nothing learns or adapts. [B, H, W, C] -> [B, F].

    Args:
        net: the layers, bottom first.
        states: their states.
        images: uint8, uint16, bool or floating.
        upto: how many layers to pass through; None: all.

    Raises:
        ValueError: if network, states and images do not fit, naming what came.
    """
    x = answers(net, states, images, upto)
    return x.reshape(len(x), -1)


def answers(net: Network, states: Sequence[LayerState], images: Array, upto: int | None = None) -> Array:
    """Compute `features` as the map that the last of these layers sends on. [B, H, W, C] -> [B, H', W', N]."""
    net = check_network(net)
    check_states(net, states, upto)
    checks.check_images(images)
    return _answers(net[:upto], tuple(states[:upto]), images)


@values.compiled_once('net')
def _answers(net, states, images):
    x = layers.intensities(images)
    for layer, state in zip(net, states):
        x = layers.respond(layer, state, x)
    return x
