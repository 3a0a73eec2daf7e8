"""Networks of Hebbian and gradient layers: from some layer on, training is supervised; what lies below stays."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hebbjax import frozen, models, readout, supervised, train
from hebbjax.frozen import Drives
from hebbjax.layers import LayerState
from hebbjax.models import Model
from hebbjax.readout import Head
from hebbjax.supervised import Fitted, Schedule
from hebbjax.train import Network
from hebbjax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class Supervised:
    """A last stage: layers from `start` on, and a head above them, learn together by gradient.

    Attributes:
        start: number of the lowest layer that learns by gradient; the number of layers: the head alone does.
        head: what reads classes out of the highest layer's answers.
        schedule: how long, how fast.
    """

    start: int
    head: Head
    schedule: Schedule

    def check(self, depth: int) -> None:
        """Refuse to start where a network of so many layers has none.

        Raises:
            ValueError: naming both.
        """
        if not 0 <= self.start <= depth:
            raise ValueError(f'training cannot be supervised from layer {self.start} on; use 0 to {depth}.')


class Taught(NamedTuple):
    """What a supervised stage reached."""

    layers: tuple[LayerState, ...]  # those below `start` as they were
    model: Model  # on what reaches layer `start`
    fitted: Fitted


def present(net: Network, states: Sequence[LayerState], start: int, images: Array) -> Array | Drives:
    """Compute, once for a whole data set, what a stage from layer `start` on takes in.

    That is what reaches this layer, [n, H', W', C'] (of layer 0 the images themselves); for the head alone the highest
    layer's answers as drives, Q positions of N neurons.
    """
    if not start:
        return images
    x = _reaching(tuple(net[:start]))(tuple(states[:start]), images)
    return x if start < len(net) else Drives(x.reshape(len(x), -1, x.shape[-1]))


@functools.lru_cache(maxsize=64)  # asked again and again while a network learns: compiled once
def _reaching(below, block=100):
    part = functools.partial(train.answers, below)
    return jax.jit(lambda states, images: frozen.blockwise(functools.partial(part, states), images, block))


def above(head: Head, net: Network, states: Sequence[LayerState], start: int, inputs: Array | Drives) -> Model:
    """Put the layers from `start` on and a head together as a model, on what `present` gives.

    Parameters are (the head's, the weights of these layers), which start from what the states hold; the head's alone
    where there is no layer left.
    """
    if start == len(net):
        return models.on_drives(head, *inputs.high.shape[1:])
    given = tuple(state.w for state in states[start:])

    def answer(weights, x):
        x = train.answers(net[start:], [state._replace(w=w) for state, w in zip(states[start:], weights)], x)
        return x.reshape(len(x), -1, x.shape[-1])  # [B, Q, N]

    def init(key):
        blocks = jax.eval_shape(answer, given, inputs[:1]).shape[1:]
        params, norm = readout.init(head, key, blocks)
        return (params, jax.tree.map(jnp.copy, given)), norm

    def apply(params, norm, x, key=None):
        params, weights = params
        return readout.apply(head, params, norm, Drives(answer(weights, x)), key)

    return Model(init, apply)


def learn(
    net: Network,
    states: Sequence[LayerState],
    stage: Supervised,
    key: Key,
    train: tuple[Array, Array],
    validation: tuple[Array, Array],
    **how,
) -> Taught:
    """Train the upper layers and a head by gradient; lower layers are frozen, their answers computed once.

    Args:
        net: the layers.
        states: theirs.
        stage: what learns, how long.
        key: draws the head, the order of images and dropout.
        train: images and labels.
        validation: images and labels that every choice is made on.
        how: `history` and `watch` of `supervised.fit`.

    Raises:
        ValueError: if the stage or its schedule does not fit.
    """
    stage.check(len(net))
    start = stage.start
    sides = [(present(net, states, start, images), labels) for images, labels in (train, validation)]
    model = above(stage.head, net, states, start, sides[0][0])
    fitted = supervised.fit(model, key, *sides, stage.schedule, **how)
    learned = [state._replace(w=w) for state, w in zip(states[start:], fitted.params[1])] if start < len(net) else []
    return Taught((*states[:start], *learned), model, fitted)


def predict(net: Network, states: Sequence[LayerState], stage: Supervised, taught: Taught, images: Array) -> Array:
    """Give the classes [n] that a supervised stage's network reads out of images."""
    fitted, inputs = taught.fitted, present(net, states, stage.start, images)
    return supervised.make_predict(taught.model)(fitted.params, fitted.averages, inputs)
