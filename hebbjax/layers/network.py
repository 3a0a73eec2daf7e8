"""A network is a tuple of layers, bottom first; a training's state is a pytree: made here, and what it answers."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hebbjax.base import AnyArray, Array, Key
from hebbjax.layers.chain import Shape
from hebbjax.layers.layer import Layer, LayerState, forward, init_layer, to_intensities
from hebbjax.support import checks, devices, specs

Network = Sequence[Layer]


class TrainState(NamedTuple):
    """The whole of a training, as a plain pytree: save it, vmap over it, shard it."""

    step: Array  # int32 scalar: learning steps taken
    key: Key  # never changes; every step folds its number in
    layers: tuple[LayerState, ...]  # one each, bottom first


def init(net: Network, key: Key, image_shape: Shape, weights: Sequence[AnyArray | None] | None = None) -> TrainState:
    """Make the first state of a network, bottom first, for images of shape (H, W, C).

    The key draws all weights and, kept in the state, all that training draws later. `weights` are, per layer, those
    [N, D] to start from, or None to draw them; they are not copied: a step that donates its state takes them along.

    Example:
        >>> from hebbjax import rules, transforms
        >>> net = (Layer(20, rules.oja(), transforms.scale_by_rate(0.01)),)
        >>> init(net, jax.random.key(0), (8, 8, 1)).layers[0].w.shape
        (20, 64)
    """
    net = check_network(net)
    checks.check_key(key)
    image_shape = checks.check_image_shape(image_shape)
    weights = [None] * len(net) if weights is None else weights
    way = 'give one for each, or None to draw it'
    checks.require(len(weights) == len(net), f'{len(weights)} weights for {len(net)} layers; {way}.')
    init_key, train_key = jax.random.split(key)
    states = []
    for number, (layer, w, layer_key) in enumerate(zip(net, weights, jax.random.split(init_key, len(net))), 1):
        try:
            states.append(init_layer(layer, layer_key, image_shape, w))
            one = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
            image_shape = jax.eval_shape(lambda s, x, layer=layer: forward(layer, s, x), states[-1], one).shape[1:]
        except ValueError as error:
            raise ValueError(f'layer {number}: {error}') from None
    return TrainState(jax.device_put(np.int32(0)), train_key, tuple(states))


def check_network(net: Network) -> tuple[Layer, ...]:
    """Return a network as a tuple of layers, or refuse what is none."""
    fits = isinstance(net, tuple | list) and net and all(isinstance(layer, Layer) for layer in net)
    came = 'a layer alone; write (layer,)' if isinstance(net, Layer) else checks.show(net)
    checks.require(fits, f'a network is a tuple of layers, at least one, not {came}.')
    return tuple(net)


def check_states(net: tuple[Layer, ...], states: Sequence[LayerState], upto: int | None = None) -> None:
    """Refuse states that are not those of a network, or of its lowest layers."""
    listed, kind = isinstance(states, tuple | list) and not hasattr(states, '_fields'), type(states).__name__
    checks.require(listed, f'states are one LayerState per layer, such as state.layers, not {kind}.')
    least, count = len(net) if upto is None else upto, len(states)
    checks.check_count('upto', least, 0, len(net))
    checks.require(least <= count <= len(net), f'{count} states do not fit {len(net)} layers; give one for each.')
    for number, (layer, state) in enumerate(zip(net, states), 1):
        size, shape = layer.window.size, jnp.shape(getattr(state, 'w', 0))
        has = f'layer {number} has {layer.features} neurons, and its state weights of shape {shape} for Window({size})'
        fits = len(shape) == 2 and shape[0] == layer.features and shape[1] % np.prod(np.broadcast_to(size or 1, 2)) == 0
        way = 'give the states that init or a training made for this network'
        way = 'of many seeds take one by training.take_seed' if len(shape) == 3 else way
        checks.require(fits, f'{has}; {way}.')
        for name, part in (('threshold', layer.homeostasis or layer.bias), ('lateral', layer.lateral)):
            fits = (part is None) == (getattr(state, name, None) is None)
            checks.require(fits, f'of layer {number} and its state only one has its {name}; {way}.')


def features(
    net: Network, states: Sequence[LayerState], images: AnyArray, upto: int | None = None, mesh: Mesh | None = None
) -> Array:
    """Compute what a network sends on, or its lowest `upto` layers; nothing adapts. [B, H, W, C] -> [B, F].

    On a mesh (`jax.make_mesh((jax.device_count(),), ('data',))`) every device answers its own rows, and keeps them.
    """
    x = activations_of(net, states, images, upto, mesh)
    return x.reshape(len(x), -1)


def activations_of(
    net: Network, states: Sequence[LayerState], images: AnyArray, upto: int | None = None, mesh: Mesh | None = None
) -> Array:
    """Compute `features` as the map that the last of these layers sends on. [B, H, W, C] -> [B, H', W', N]."""
    net = check_network(net)
    check_states(net, states, upto)
    checks.check_images(images)
    return _activations_of(net[:upto], tuple(states[:upto]), images, mesh=mesh)


@devices.by_rows
@specs.compiled_once('net')
def _activations_of(net, states, images):
    x = to_intensities(images)
    for layer, state in zip(net, states):
        x = forward(layer, state, x)
    return x
