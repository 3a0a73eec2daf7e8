"""Networks of Hebbian and gradient layers: from some layer on, training goes by gradient; what lies below stays."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from hebbjax.base import AnyArray, Array, Key, Labelled
from hebbjax.layers.chain import PartState, apply_chain
from hebbjax.layers.layer import Layer, LayerState, check_image_size, forward, to_intensities
from hebbjax.layers.network import Network, activations_of, check_network, check_states
from hebbjax.readout.blocks import map_blocks, over_blocks
from hebbjax.readout.feature_cache import PooledDrives, cache_drives, forward_pooled, pooled_drives, pooled_parts
from hebbjax.readout.gradient import GradientResult, fit_gradient, predict_classes
from hebbjax.readout.head import forward_train
from hebbjax.readout.schedules import Milestones, Schedule
from hebbjax.support import checks, devices, specs
from hebbjax.support.shards import Shards, parts_of

ROOM = 0.5  # share of the device's memory that lower layers' answers may fill, rather than be computed anew
ANSWERED_TOGETHER = 100  # images that are classified in one call


@dataclasses.dataclass(frozen=True)
class GradientStage:
    """A last stage: layers from `start` on learn together by gradient; the answers of the highest are logits."""

    start: int  # number of the lowest layer that learns by gradient, 0 the lowest of all
    schedule: Schedule | Milestones  # how long, how fast


def take_apart(layer: Layer, state: LayerState) -> tuple[LayerState, LayerState]:
    """Tell what gradients learn of a layer's state from what else it answers by: states that lack the other's."""
    learned, adapted = (None, state.threshold) if layer.bias is None else (state.threshold, None)
    of_parts = lambda kind: [tuple(getattr(part, kind) for part in chain) for chain in (state.pre, state.post)]  # noqa: E731
    params = LayerState(state.w, (), (), learned, *of_parts('params'))
    return params, LayerState((), (), (), adapted, *of_parts('stats'), state.made_for, state.lateral)


def put_together(params: LayerState, stats: LayerState, state: LayerState | None = None) -> LayerState:
    """Make a layer's state of both; what a rule and an optimizer had stays that of a state, if one is given."""
    rule, opt = ((), ()) if state is None else (state.rule, state.opt)
    threshold = stats.threshold if params.threshold is None else params.threshold
    pre, post = (tuple(map(PartState, *chains)) for chains in ((params.pre, stats.pre), (params.post, stats.post)))
    return LayerState(params.w, rule, opt, threshold, pre, post, stats.made_for, stats.lateral)


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkModel:
    """The upper layers of a network as a model of gradient training (`gradient.Model`).

    Parameters are of each layer from `start` on what gradients learn of its state. Stats are the states of the layers
    from `below` to `start`, which answer and never change, and the rest of each that learns.
    """

    net: tuple[Layer, ...]  # bottom first
    start: int  # the lowest layer that learns
    below: int = 0  # inputs are what reaches this layer, or the pooled drives of the layer below it
    augment: Callable[[Key, Array], Array] | None = None  # (key, images of a batch) -> images, in training alone

    __eq__, __hash__, __reduce__ = specs.specs_equal, specs.spec_hash, specs.spec_reduce

    def init(self, states: Sequence[LayerState]) -> tuple[Any, Any]:
        """Give params and stats of states that training begins with."""
        params, stats = zip(*map(take_apart, self.net[self.start :], states[self.start :]))
        return params, (tuple(states[self.below : self.start]), stats)

    def apply(self, params: Any, stats: Any, inputs: Any, key: Key | None = None) -> tuple[Array, tuple[Any, Any]]:
        """Compute logits [B, K]; with a key: in training, where running averages move."""
        answering, learning = stats
        if key is not None and self.augment is not None:
            key, augment_key = jax.random.split(key)
            inputs = self.augment(augment_key, inputs)
        x = inputs if isinstance(inputs, PooledDrives) else to_intensities(inputs)
        for number, state in enumerate(answering, self.below):
            x, _ = self._pass(number, state, x, params)
        x, moved = lax.stop_gradient(x), []
        for number, layer_stats in enumerate(learning, self.start):
            own = number - self.start
            layer_key = None if key is None else jax.random.fold_in(key, own)
            x, state = self._pass(number, put_together(params[own], layer_stats), x, params, layer_key)
            moved.append(take_apart(self.net[number], state)[1])
        return x.reshape(len(x), -1), (answering, tuple(moved))

    def _pass(self, number, state, x, params, key=None):
        """Pass one layer, with a key in training: from maps or pooled drives to maps, or pooled drives for a head."""
        layer = self.net[number]
        if isinstance(x, PooledDrives):
            return forward_pooled(layer, state, pooled_parts(self.net[number - 1], layer), x, key)
        above = pooled_parts(*self.net[number : number + 2]) if self.start <= number + 1 < len(self.net) else None
        if above is not None and above.pool > 1:  # no map of drives is laid out between the two
            scale = jnp.ones(layer.features) if above.norm is None else params[number + 1 - self.start].pre[0].scale
            x, pre = apply_chain(layer.pre, state.pre, x, key is not None, key)
            return pooled_drives(layer, state.w, x, above.pool, scale), state._replace(pre=pre)
        return (forward(layer, state, x), state) if key is None else forward_train(layer, state, x, key)


class HybridResult(NamedTuple):
    """What a stage of gradient training reached."""

    layers: tuple[LayerState, ...]  # those below `start` as they were
    model: NetworkModel
    gradient: GradientResult


@devices.by_rows
@specs.compiled_once('net', 'pool')
def lower_answers(net: Network, states: tuple[LayerState, ...], images: Array, pool: int | None):
    """Compute what layers send on for a whole data set, some images at a time; with `pool`, pooled drives."""
    if pool is not None:
        return cache_drives(net, states, images, pool)
    return map_blocks(functools.partial(activations_of, net, states), images)


def fit_hybrid(
    net: Network, states: Sequence[LayerState], stage: GradientStage, key: Key, train: Labelled | Shards,
    validation: Labelled, *, augment: Callable[[Key, Array], Array] | None = None, room: float | None = None,
    mesh: Mesh | None = None, **how: Any,
) -> HybridResult:  # fmt: skip
    """Train the upper layers by gradient; lower layers answer and stay as they are, bit for bit.

    Their answers are computed once, as `feature_cache` has them, or, of too many or augmented images, for every batch.

    Args:
        net: the layers; the highest has a neuron per class. Those that learn start from what their states hold.
        stage: what learns, how long.
        key: draws the order of images and dropout.
        train, validation: images and labels; every choice is made on the second. Lower layers answer `Shards` anew.
        augment: (key, images of a batch) -> images, drawn anew for every batch of training.
        room: bytes that lower layers' answers may fill; None: a share of the device's memory.
        mesh: devices that divide the images, of answers and of training, see `gradient.fit_gradient`.
        how: `watch`, `keep` and `kept` of `gradient.fit_gradient`.
    """
    net, mesh = check_stage(net, states, stage, train, validation, mesh), devices.check_mesh(mesh)
    states = tuple(states)
    checks.check_key(key)
    checks.check_function('augment', augment, 'a key and images')
    start, train = stage.start, train if len(parts_of(train)) > 1 else parts_of(train)[0]
    parts = pooled_parts(*net[-2:]) if start == len(net) - 1 > 0 else None
    answers = functools.partial(lower_answers, net[:start], states[:start], pool=None if parts is None else parts.pool)
    below = start if augment is None and not isinstance(train, Shards) else 0
    sides: Any = train, validation
    if below:
        images, held_images = train[0], validation[0]
        shape = jax.ShapeDtypeStruct((len(images) + len(held_images), *images.shape[1:]), images.dtype)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(answers, shape)))
        below = start if size <= (ROOM * checks.device_memory() if room is None else room) else 0
    model = NetworkModel(net, start, below, augment)
    if below:
        sides = ((answers(images, mesh=mesh), labels) for images, labels in sides)
    gradient = fit_gradient(model, *model.init(states), key, *sides, stage.schedule, mesh=mesh, **how)
    upper = map(put_together, gradient.params, gradient.stats[1], states[start:])
    return HybridResult((*states[:start], *upper), model, gradient)


def check_stage(
    net: Network, states: Sequence[LayerState], stage: GradientStage, train, validation, mesh=None
) -> tuple:
    """Give the network as a tuple, or refuse what cannot be trained before it is; states may be mere shapes."""
    net = check_network(net)
    check_states(net, states)
    fits, came = isinstance(stage, GradientStage), checks.show(stage)
    checks.require(fits, f'a stage of gradient training is a GradientStage, not {came}.')
    checks.check_count('start', stage.start, 0, len(net) - 1)
    is_schedule = isinstance(stage.schedule, Schedule | Milestones)
    checks.require(is_schedule, f'a schedule is a Schedule or Milestones, not {checks.show(stage.schedule)}.')
    train = parts_of(train)[0]
    for images, labels in (train, validation):
        checks.check_images(images)
        check_image_size(states[0], images.shape[1:])
        checks.check_labels(labels, net[-1].features, len(images))
    stage.schedule.check(len(train[0]), devices.check_mesh(mesh))
    return net


def predict_hybrid(result: HybridResult, images: AnyArray, mesh: Mesh | None = None) -> Array:
    """Give the classes [n] that a network trained by gradient reads out of images; -1 where logits are not finite."""
    checks.check_images(images)
    check_image_size(result.layers[0], images.shape[1:])
    model = dataclasses.replace(result.model, below=0, augment=None)
    classes = functools.partial(predict_classes, model, model.init(result.layers), mesh=mesh)
    return jax.device_put(over_blocks(classes, images, ANSWERED_TOGETHER * devices.local_count(mesh)))
