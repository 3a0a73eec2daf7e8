"""Networks of Hebbian and gradient layers: from some layer on, training is supervised; what lies below stays."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hebbjax import frozen, layers, readout, supervised
from hebbjax.frozen import Drives
from hebbjax.layers import Layer, LayerState
from hebbjax.models import Model
from hebbjax.readout import Head
from hebbjax.supervised import Fitted, Schedule
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


def reaching(net: Sequence[Layer], states: Sequence[LayerState], start: int, images: Array, block: int = 100) -> Array:
    """Compute what reaches a layer, once for a whole data set. [n, H, W, C] -> [n, H', W', C']."""

    def part(some):
        x = layers.intensities(some)
        for layer, state in zip(net[:start], states):
            x = layers.respond(layer, state, x)
        return x

    return jax.jit(lambda images: frozen.blockwise(part, images, block))(images) if start else images


def above(head: Head, net: Sequence[Layer], states: Sequence[LayerState], start: int, shape: tuple) -> Model:
    """Put the layers from `start` on and a head together as a model, whose inputs are what reaches layer `start`.

    Parameters are (the head's, the weights of these layers), which start from what the states hold.

    Args:
        head: it sees the highest layer's answers, Q positions of N neurons.
        net: the layers.
        states: theirs.
        start: the lowest that learns by gradient.
        shape: (H, W, C) of what reaches it.
    """
    given = tuple(state.w for state in states[start:])

    def answer(weights, x):
        x = layers.intensities(x)
        for layer, state, w in zip(net[start:], states[start:], weights):
            x = layers.respond(layer, state._replace(w=w), x)
        return x.reshape(len(x), -1, x.shape[-1])  # [B, Q, N]

    def init(key):
        blocks = jax.eval_shape(answer, given, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]
        params, norm = readout.init(head, key, blocks)
        return (params, jax.tree.map(jnp.copy, given)), norm

    def apply(params, norm, x, key=None):
        params, weights = params
        return readout.apply(head, params, norm, Drives(answer(weights, x)), key)

    return Model(init, apply)


def learn(
    net: Sequence[Layer],
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
    sides = [(reaching(net, states, stage.start, images), labels) for images, labels in (train, validation)]
    model = above(stage.head, net, states, stage.start, sides[0][0].shape[1:])
    fitted = supervised.fit(model, key, *sides, stage.schedule, **how)
    weights = fitted.params[1]
    learned = [state._replace(w=w) for state, w in zip(states[stage.start :], weights)]
    return Taught((*states[: stage.start], *learned), model, fitted)
