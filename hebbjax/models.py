"""Models: what gradient training needs of a network, as a pair of pure functions; heads on drives, whole networks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from hebbjax import frozen, layers, readout
from hebbjax.frozen import Drives
from hebbjax.layers import Layer
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


def flat(images: Array) -> Drives:
    """Present raw pixels to a head as if they were drives: one block of H W C neurons."""
    return Drives(layers.intensities(images).reshape(len(images), 1, -1))
