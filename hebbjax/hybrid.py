"""Networks of Hebbian and gradient layers: from some layer on, training is supervised; what lies below stays."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hebbjax import checks, chunks, frozen, initial, models, readout, rules, supervised, train
from hebbjax.frozen import Drives
from hebbjax.layers import Layer, LayerState
from hebbjax.models import Model
from hebbjax.patches import Window, raw
from hebbjax.readout import Head
from hebbjax.schedules import Milestones, Schedule
from hebbjax.supervised import Fitted
from hebbjax.train import Network, check_network, check_states
from hebbjax.types import Array, Key

ROOM = 0.3  # share of the device's memory that lower layers' answers may fill, rather than be computed anew


@dataclasses.dataclass(frozen=True)
class Supervised:
    """A last stage: layers from `start` on, and a head above them, learn together by gradient.

    Attributes:
        start: number of the lowest layer that learns by gradient; the number of layers: the head alone does.
        head: what reads classes out of the highest layer's answers; None: the highest layer does, its answers are
            logits.
        schedule: how long, how fast.
    """

    start: int
    head: Head | None
    schedule: Schedule | Milestones

    def check(self, depth: int) -> None:
        """Refuse to start where a network of so many layers has none, and a head that is none.

        Raises:
            ValueError: naming what does not fit.
        """
        if self.head is not None and not isinstance(self.head, Head):
            raise ValueError(f'a head is a readout.Head or None, not {checks.shown(self.head)}; use Head(classes).')
        most = depth if self.head is not None else depth - 1
        if not checks.is_count(self.start, 0) or self.start > most:
            raise ValueError(
                f'training cannot be supervised from start={checks.shown(self.start)} on; use 0 to {most}.'
            )


def gradient_layer(features: int, window: Window = Window(), **how) -> Layer:
    """Build a layer that learns by gradient alone: with a bias, on plain patches, drawn as PyTorch draws; no Hebbian
    stage moves it.

    Args:
        features: neurons.
        window: what they look through.
        how: further attributes of `Layer`, such as norm, pool, fire, dropout.
    """
    own = {'patch': raw, 'bias': True, 'initial': initial.fan_in, 'frozen': True}
    return Layer(features, rules.hebb(), optax.set_to_zero(), window, **own | how)


class Taught(NamedTuple):
    """What a supervised stage reached."""

    layers: tuple[LayerState, ...]  # those below `start` as they were
    model: Model
    fitted: Fitted
    below: int  # the model's inputs are what reaches this layer


def present(net: Network, states: Sequence[LayerState], start: int, images: Array) -> Array | Drives:
    """Compute, once for a whole data set, what a stage from layer `start` on takes in.

    That is what reaches this layer, [n, H', W', C'] (of layer 0 the images themselves); for the head alone the highest
    layer's answers as drives, Q positions of N neurons.
    """
    checks.check_images(images)
    if not start:
        return images
    x = _reaching(tuple(net[:start]))(tuple(states[:start]), images)
    return x if start < len(net) else Drives(x.reshape(len(x), -1, x.shape[-1]))


def present_bytes(net: Network, states: Sequence[LayerState], start: int, count: int, shape: tuple[int, ...]) -> int:
    """Say how many bytes `present` fills for so many images of shape (H, W, C), without computing anything."""
    if not start:
        return 0  # the images, which are there already
    one = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    found = _reaching(tuple(net[:start])).eval_shape(tuple(states[:start]), one)
    return count * found.size * found.dtype.itemsize


@functools.lru_cache(maxsize=64)  # asked again and again while a network learns: compiled once
def _reaching(below, block=100):
    part = functools.partial(train.answers, below)
    return jax.jit(lambda states, images: frozen.blockwise(functools.partial(part, states), images, block))


def above(
    head: Head | None, net: Network, states: Sequence[LayerState], start: int, inputs: Array | Drives, below: int
) -> Model:
    """Put the layers from `start` on, and a head if there is one, together as a model.

    Args:
        head: reads classes out of the highest layer's answers; None: these are logits.
        net: the layers.
        states: theirs; parameters start from what they hold. They are (the head's, one `models.Learnable` a layer), or
            without a head the layers', or without layers the head's.
        start: the lowest layer that learns.
        inputs: what reaches layer `below` (`present`).
        below: the layers between it and `start` answer, every time anew.
    """
    if start == len(net) and below == start:
        return models.on_drives(head, *inputs.high.shape[1:])
    body = models.of_layers(net, states, start, below)
    if head is None:
        flat = lambda x, averages: (x.reshape(len(x), -1), averages)  # noqa: E731
        return Model(body.init, lambda *given: flat(*body.apply(*given)))

    one = jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype)  # a model must not hold on to its data

    def init(key):
        given, averages = body.init(key)
        blocks = jax.eval_shape(lambda x: body.apply(given, averages, x)[0], one).shape[1:]
        params, norm = readout.init(head, key, blocks)
        return (params, given), (norm, averages)

    def apply(params, averages, x, key=None):
        x, moved = body.apply(params[1], averages[1], x, key)
        key = None if key is None else jax.random.fold_in(key, len(net))  # layers fold in their numbers
        logits, norm = readout.apply(head, params[0], averages[0], Drives(x), key)
        return logits, (norm, moved)

    return Model(init, apply)


def learn(
    net: Network,
    states: Sequence[LayerState],
    stage: Supervised,
    key: Key,
    train: tuple[Array, Array],
    validation: tuple[Array, Array],
    *,
    room: float | None = None,
    **how,
) -> Taught:
    """Train the upper layers and a head by gradient; lower layers answer and stay as they are, bit for bit.

    Their answers are computed once, where they fit; else anew for every batch.

    Args:
        net: the layers.
        states: theirs.
        stage: what learns, how long.
        key: draws the head, the order of images and dropout.
        train: images and labels.
        validation: images and labels that every choice is made on.
        room: bytes that lower layers' answers may fill; None: a share of the device's memory.
        how: further arguments of `supervised.fit`.

    Raises:
        ValueError: if network, states, the stage, its schedule, an image or a label does not fit.
    """
    net = check_network(net)
    check_states(net, states)
    if not isinstance(stage, Supervised):
        raise ValueError(f'a supervised stage is a hybrid.Supervised, not {checks.shown(stage)}.')
    checks.check_key(key)
    stage.check(len(net))
    classes = net[-1].features if stage.head is None else stage.head.classes
    start = stage.start
    sides = [
        (checks.check_images(images), checks.check_labels(labels, classes, len(images)))
        for images, labels in (train, validation)
    ]
    count = sum(len(labels) for _, labels in sides)
    room = ROOM * chunks.memory() if room is None else room
    below = start if present_bytes(net, states, start, count, train[0].shape[1:]) <= room else 0
    sides = [(present(net, states, below, images), labels) for images, labels in sides]
    model = above(stage.head, net, states, start, sides[0][0], below)
    fitted = supervised.fit(model, key, *sides, stage.schedule, **how)
    if start == len(net):
        return Taught(tuple(states), model, fitted, below)
    params, averages = fitted.params, fitted.averages
    if stage.head is not None:
        params, averages = params[1], averages[1]
    upper = [models.learned(*one) for one in zip(states[start:], params, averages[1])]
    return Taught((*states[:start], *upper), model, fitted, below)


def predict(net: Network, states: Sequence[LayerState], stage: Supervised, taught: Taught, images: Array) -> Array:
    """Give the classes [n] that a supervised stage's network reads out of images."""
    fitted, inputs = taught.fitted, present(net, states, taught.below, images)
    return supervised.make_predict(taught.model)(fitted.params, fitted.averages, inputs)
