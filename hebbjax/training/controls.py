"""Controls: the same network with filters that nobody learned, so that a comparison tells what learning is worth.

    learned          the entry itself
    patches          copied image patches, rows of unit length: what reaches a layer, prepared alike (imprinting)
    centred_patches  the same less each patch's mean: patches of one brightness are all alike, and tell little apart
    gaussian         normal rows of unit length
    initialised      as the network's own initializers draw them
    backprop         the whole network trained end to end, an entry of its own

What adapts beside weights, thresholds and running averages, settles for one epoch. Pruned connections stay out.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hebbjax.base import AnyArray, Array, Key
from hebbjax.layers.chain import lay_behind
from hebbjax.layers.layer import Layer, from_patches
from hebbjax.layers.network import Network, TrainState, activations_of
from hebbjax.layers.patches import PatchTransform, centred, raw
from hebbjax.readout.blocks import over_blocks
from hebbjax.rules.local import unit_rows
from hebbjax.support import checks
from hebbjax.training.stages import Stage

CONTROLS = 'learned', 'patches', 'centred_patches', 'gaussian', 'initialised', 'backprop'
TRIES = 8  # patches that are cut for each neuron: the first that is not flat is its filter


def patch_rows(layer: Layer, key: Key, images: AnyArray, prepare: PatchTransform = raw) -> Array:
    """Cut filters out of what a layer sees, prepared as in learning, of unit length; 0 where 8 are flat in turn."""
    offered = len(images) * math.prod(lay_behind(layer.pre, layer.window, images.shape[1:]).out)
    came = f'{layer.features} filters are a patch each, and {len(images)} images have {offered}'
    checks.require(layer.features <= offered, f'{came}; give more images, or fewer neurons.')
    bare = dataclasses.replace(layer, patch_transform=raw)
    cut = jnp.stack([from_patches(bare, of_try, images) for of_try in jax.random.split(key, TRIES)])  # [TRIES, N, D]
    rows, of_ones = (prepare(layer.patch_transform(x)) for x in (cut, jnp.ones_like(cut[0, :1])))
    # where one value in all pixels is nothing, what is left of it is rounding, of any length
    is_flat = jnp.all(jnp.abs(of_ones) < 1e-3) & jnp.all(cut == cut[..., :1], axis=2, keepdims=True)
    rows = unit_rows(jnp.where(is_flat, 0, rows))
    first = jnp.argmax(jnp.any(rows != 0, axis=2), axis=0)  # [N]
    return jnp.take_along_axis(rows, first[None, :, None], axis=0)[0]


def gaussian_rows(layer: Layer, key: Key, images: AnyArray) -> Array:
    """Draw filters from a normal distribution, of unit length."""
    return unit_rows(jax.random.normal(key, jax.eval_shape(lambda: from_patches(layer, key, images)).shape))


CENTRED = functools.partial(patch_rows, prepare=centred)
STARTS = {'patches': patch_rows, 'centred_patches': CENTRED, 'gaussian': gaussian_rows, 'initialised': None}


def begin_layer(net: Network, state: TrainState, number: int, key: Key, images: AnyArray, start: Any) -> TrainState:
    """Give a layer the first weights that `start` (layer, key, images -> [N, D]) makes of what reaches it."""
    layer, own, key = net[number], state.layers[number], jax.random.fold_in(key, 2 + number)
    if number:  # not of all images: as many as there are neurons offer each a patch of an image of its own
        some = jax.random.permutation(jax.random.fold_in(key, 1), len(images))[: layer.features]
        maps = over_blocks(lambda rows: activations_of(net, state.layers, rows, number), images[some])
        images = checks.check_images(jax.device_put(maps), any_range=True)  # answers have any range
    w = start(layer, key, images)
    exists = own.w != 0
    w = jnp.where(exists.any() & ~exists.all(), unit_rows(jnp.where(exists, w, 0)), w)
    return state._replace(layers=(*state.layers[:number], own._replace(w=w), *state.layers[number + 1 :]))


def controlled(entry: Any, kind: str, shown: int | None = None) -> Any:
    """Give the entry of a comparison whose filters are made as a control says, and are not learned.

    `shown`: training images that what adapts beside weights settles on; None: as many as learning saw.
    """
    checks.check_choice('control', kind, STARTS)
    checks.require(len(entry.net) > 0, f'pixels have no filters; {kind} is a control of networks with a layer or more.')
    averages = lambda layer: any(hasattr(part, 'init') for part in (*layer.pre, *layer.post))  # noqa: E731
    settling = [n for n, layer in enumerate(entry.net) if layer.homeostasis or layer.lateral or averages(layer)]
    still = {'tx': optax.set_to_zero(), 'frozen': False}  # others stay equal to those that learn, and share programs
    net = tuple(dataclasses.replace(layer, **still) if n in settling else layer for n, layer in enumerate(entry.net))
    how = {'stages': tuple(Stage(1, (number,)) for number in settling), 'shown': shown or entry.shown, 'paper': None}
    return entry._replace(net=net, start=STARTS[kind], **how)


def with_controls(
    entry: Any, kinds: Sequence[str] = CONTROLS, twin: Any = None, shown: int | None = None
) -> Mapping[str, Any]:
    """Give the entries of a comparison: a network that learns, and its controls, by name.

    Args:
        entry: `comparison.Entry` of the network that learns.
        kinds: which of `CONTROLS`.
        twin: the entry of the end-to-end backprop twin, where it is asked for.
        shown: see `controlled`.
    """
    checks.require(kinds, f'no network is named; there are {", ".join(CONTROLS)}.')
    own, entries = {'learned': entry, 'backprop': twin}, {}
    for kind in kinds:
        checks.check_choice('control', kind, CONTROLS)
        checks.require(kind != 'backprop' or twin is not None, 'this network has no backprop twin; leave backprop out.')
        entries[kind] = own[kind] if kind in own else controlled(entry, kind, shown)
    return entries
