"""Models: what gradient training needs of a network, as a pair of pure functions; heads on drives, whole networks."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax import frozen, layers, readout
from hebbjax.frozen import Drives
from hebbjax.layers import Layer, LayerState
from hebbjax.norms import NormState
from hebbjax.readout import Head
from hebbjax.types import Array, Key


class Model(NamedTuple):
    """What gradient training needs of a network."""

    init: Callable[[Key], tuple[Any, Any]]  # key -> (params, running averages)
    apply: Callable[..., tuple[Array, Any]]  # (params, averages, inputs, key=None) -> (logits, averages); a key trains


@functools.lru_cache(maxsize=64)  # the same question gets the same model, so that its programs are compiled once
def on_drives(head: Head, blocks: int, neurons: int) -> Model:
    """Put a head on drives of Q blocks and N neurons: inputs are `Drives`, cached or raw pixels (`flat`)."""
    return Model(
        lambda key: readout.init(head, key, (blocks, neurons)),
        lambda params, norm, drives, key=None: readout.apply(head, params, norm, drives, key),
    )


def on_images(head: Head, layer: Layer, w: Array, image_shape: tuple[int, int, int], pool: int) -> Model:
    """Put a head on a frozen layer: inputs are images, drives are computed anew each time.

    The same parameters as `on_drives`, for data whose drives do not fit in memory.
    """

    def apply(params, norm, images, key=None):
        found = frozen.drives(layer, w, layers.intensities(images), pool, scale=params.scale)
        return readout.apply(head, params, norm, found, key)

    return Model(lambda key: readout.init(head, key, frozen.shape(layer, image_shape, pool)), apply)


@functools.lru_cache(maxsize=64)
def on_pixels(head: Head, image_shape: tuple[int, int, int]) -> Model:
    """Put a head on images as they are: one block of H W C neurons. Inputs are images."""
    model = on_drives(head, 1, math.prod(image_shape))
    return Model(model.init, lambda params, norm, images, key=None: model.apply(params, norm, flat(images), key))


@functools.lru_cache(maxsize=64)
def augmented(model: Model, change: Callable[[Key, Array], Array]) -> Model:
    """Let a model that takes images train on changed ones, such as `augment.shift(1)`; it answers to them as they are.

    Args:
        model: the model.
        change: (key, images) -> images; drawn anew for every batch.
    """

    def apply(params, averages, images, key=None):
        if key is not None:
            key, change_key = jax.random.split(key)
            images = change(change_key, images)
        return model.apply(params, averages, images, key)

    return Model(model.init, apply)


@functools.lru_cache(maxsize=64)
def end_to_end(head: Head, layer: Layer, image_shape: tuple[int, int, int], pool: int) -> Model:
    """Put a head on a layer whose weights are parameters too: the backprop twin. Inputs are images."""

    def init(key):
        head_key, layer_key = jax.random.split(key)
        params, norm = readout.init(head, head_key, frozen.shape(layer, image_shape, pool))
        return (params, layers.init(layer, layer_key, image_shape).w), norm

    def apply(params, norm, images, key=None):
        params, w = params
        found = frozen.drives(layer, w, layers.intensities(images), pool, scale=params.scale)
        return readout.apply(head, params, norm, found, key)

    return Model(init, apply)


class Learnable(NamedTuple):
    """What gradients can learn of a layer."""

    w: Array  # [N, D]
    threshold: Array | None  # [N], where the layer has a bias
    scale: Array | None  # [N] and
    shift: Array | None  # [N], where it is normalised


def learnable(layer: Layer, state: LayerState) -> tuple[Learnable, tuple[Array, Array] | None]:
    """Take out of a layer's state what gradients learn, and its running averages."""
    norm = state.norm
    own = Learnable(
        state.w,
        state.threshold if layer.bias else None,
        None if norm is None else norm.scale,
        None if norm is None else norm.shift,
    )
    return own, None if norm is None else (norm.mean, norm.var)


def learned(state: LayerState, own: Learnable, averages: tuple[Array, Array] | None) -> LayerState:
    """Put back what gradients learned."""
    threshold = state.threshold if own.threshold is None else own.threshold
    norm = None if averages is None else NormState(own.scale, own.shift, *averages)
    return state._replace(w=own.w, threshold=threshold, norm=norm)


def of_layers(net: Sequence[Layer], states: Sequence[LayerState], start: int = 0, below: int = 0) -> Model:
    """Make layers a model of what the highest one sends on, [B, Q, N]; they start from what their states hold.

    Parameters are one `Learnable` for each layer from `start` on. Averages are the states of the layers from `below` to
    `start`, which answer and never change, and the running averages of those that learn.

    Args:
        net: the layers, bottom first.
        states: theirs.
        start: the lowest layer that learns.
        below: the lowest layer of all: inputs are what reaches it.
    """
    found = [learnable(layer, state) for layer, state in zip(net[start:], states[start:])]
    given = tuple(own for own, _ in found), (tuple(states[below:start]), tuple(averages for _, averages in found))

    def apply(params, averages, x, key=None):
        answering, averages = averages
        x = layers.intensities(x)
        for layer, state in zip(net[below:start], answering):
            x = lax.stop_gradient(layers.respond(layer, state, x))
        moved = []
        for number, (layer, state, own, average) in enumerate(zip(net[start:], states[start:], params, averages)):
            state = learned(state, own, average)
            if key is None:
                x = layers.respond(layer, state, x)
            else:
                x, norm = layers.practise(layer, state, x, jax.random.fold_in(key, number))
                average = None if norm is None else (norm.mean, norm.var)
            moved.append(average)
        return x.reshape(len(x), -1, x.shape[-1]), (answering, tuple(moved))

    return Model(lambda key: jax.tree.map(jnp.copy, given), apply)


def flat(images: Array) -> Drives:
    """Present raw pixels to a head as if they were drives: one block of H W C neurons."""
    return Drives(layers.intensities(images).reshape(len(images), 1, -1))
