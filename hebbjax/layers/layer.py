"""One layer: what it is (`Layer`, static), what it has (`LayerState`, a pytree), what it answers. It learns: `update`.

images -> pre -> windows -> patch_transform -> drives w . x, less thresholds, settled -> post -> what is sent on
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hebbjax import transforms
from hebbjax.base import BIAS_SALT, AnyArray, Array, Key, LearningRule, State
from hebbjax.layers import activations
from hebbjax.layers.chain import PartState, Shape, apply_chain, bind_weights, count_by_image, init_chain, lay_behind
from hebbjax.layers.homeostasis import Homeostasis
from hebbjax.layers.kernel import AngleKernel
from hebbjax.layers.lateral import Lateral
from hebbjax.layers.microbatch import microbatch_of, scan_microbatches
from hebbjax.layers.patches import PatchTransform, Window, centred, extract_patches, l2, raw, sample_patches
from hebbjax.rules.competition import subtract_threshold
from hebbjax.rules.local import inverse_length
from hebbjax.rules.products import PRECISIONS, arithmetic, matmul
from hebbjax.rules.teachers import Teacher
from hebbjax.support import checks, specs

LINEAR = ('weights', 'effective', 'projection')  # in the patch, as the others are not
OUTPUTS = (*LINEAR, 'cosine')


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A layer, as configuration, never part of a state. Layers of the same settings are equal, and can be pickled.

    Example:
        >>> from hebbjax import rules, transforms
        >>> layer = Layer(100, rules.krotov(), transforms.scale_by_rate(0.01), Window(5), post=(activations.relu,))
        >>> layer == dataclasses.replace(layer, features=100)
        True
    """

    features: int  # N, the number of neurons (filters)
    rule: LearningRule  # such as `rules.krotov(k=4, delta=0.4, p=4)`
    tx: optax.GradientTransformation  # from `dw` to the change that is added to the weights
    window: Window = Window()  # `Window()` for a dense layer, `Window(5)` for a 5 x 5 convolution
    _: dataclasses.KW_ONLY
    pre: tuple[Any, ...] = ()
    """Chain of parts that images pass before windows are cut, such as `(standardise,)`; see `chain`."""
    patch_transform: PatchTransform | None = None
    """What happens to each patch, in learning and prediction alike (`patches.raw`, `centred`, `l2`, or a function on
    rows of your own). None: centred for a convolution, raw for a dense layer."""
    post: tuple[Any, ...] = (activations.relu,)
    """Chain of parts that drives, less thresholds, pass before they are sent on: activation, pooling, batch norm, in
    any order, such as `(relu, max_pool(2))`."""
    init: Callable[[Key, tuple[int, int]], Array] = jax.random.normal
    """(key, (N, D)) -> first weights, by jax; standard normal, as Krotov and Hopfield. Others: `initializers`."""
    output: str | AngleKernel = 'weights'
    """The drive that is predicted with: 'weights', `w . x`; 'effective', that of the rule (`|w|^(p-1)` for krotov);
    'projection', `w . x / |w|`; 'cosine', `w . x / |w| |x|`; or a kernel of it, such as `AngleKernel(0.6)`."""
    homeostasis: Homeostasis | None = None
    """Adaptive thresholds, subtracted from drives before neurons compete and before `post`; None: no."""
    lateral: Lateral | None = None
    """Lateral inhibition: drives less thresholds settle by it before neurons compete and before `post`; None: no."""
    bias: Callable[[Key, tuple[int, int]], Array] | None = None
    """(key, (N, D)) -> [N, D], of which the first column begins the threshold of a layer that has a constant beside its
    weights, `w . x - threshold`, such as `initializers.fan_in`. Only gradients learn it. None: no."""
    teacher: Teacher | None = None
    """(labels [B], weights of the layers above) -> what is signalled to every neuron for each image [B, N], such as
    `teachers.groups(10, 16, 32)`; None: the layer learns without labels."""
    patches_per_image: int | None = None
    """Windows drawn at random per image and learning step; None: all of them, as a rule with memory needs."""
    frozen: bool = False
    """Never learns by its rule; its state stays bit for bit, whatever stages say. Gradients may move it."""
    precision: str = 'highest'
    """Of all products of the layer, for drives, by its rule and of lateral connections: 'highest', float32 everywhere;
    'float32x3', as accurate and faster on a GPU, in three passes of TF32; 'tensorfloat32', where a GPU has it;
    'bfloat16', operands and slopes rounded to it, sums in float32 (what that costs: experiments/RESULTS.md)."""
    deterministic: bool = False
    """Learns the same from the same key to the last bit on a GPU, too, as on a CPU: by products, not sums of rows."""
    microbatch: int | None = None
    """Images that a learning step looks at together, of sequences whole ones; None: what suits backend and shape."""

    __eq__, __hash__, __reduce__ = specs.specs_equal, specs.spec_hash, specs.spec_reduce

    def __post_init__(self) -> None:
        for name in ('pre', 'post'):  # a single part is a chain of one
            chain = getattr(self, name)
            chain = tuple(chain) if isinstance(chain, tuple | list) else (chain,)
            known = ('__call__', 'apply', *(('bind',) if name == 'post' else ()))
            misfits = [part for part in chain if isinstance(part, type) or not any(hasattr(part, way) for way in known)]
            wants = f'{name} of a layer is a tuple of parts, functions of maps such as relu or BatchNorm()'
            checks.require(not misfits, f'{wants}; {checks.show(misfits)} are none.')
            object.__setattr__(self, name, chain)
        checks.check_count('features', self.features)
        if not isinstance(self.output, AngleKernel):
            checks.check_choice('output', self.output, OUTPUTS)
        checks.check_choice('precision', self.precision, PRECISIONS)
        for name in ('patches_per_image', 'microbatch'):
            if getattr(self, name) is not None:
                checks.check_count(name, getattr(self, name))
        for name, kind, example in (
            ('rule', LearningRule, 'a rule such as rules.krotov()'),
            ('tx', optax.GradientTransformation, 'a transformation such as transforms.scale_by_rate(0.1)'),
            ('window', Window, 'one such as Window(5)'),
            ('homeostasis', Homeostasis | None, 'a Homeostasis or None'),
            ('lateral', Lateral | None, 'a Lateral or None'),
            ('init', Callable, 'a function'),
            *((name, Callable | None, 'a function or None') for name in ('patch_transform', 'bias', 'teacher')),
        ):
            fits, came = isinstance(getattr(self, name), kind), checks.show(getattr(self, name))
            checks.require(fits, f'{name} of a layer is {example}, not {came}.')
        fits = self.bias is None or self.homeostasis is None
        checks.require(fits, 'a layer has a bias or adaptive thresholds; leave bias or homeostasis out.')
        sees = 'patches_per_image draws other places in every frame, and a rule with memory stays at one; leave it out.'
        checks.require(self.patches_per_image is None or not self.rule.sequential, sees)
        if self.patch_transform is None:
            object.__setattr__(self, 'patch_transform', raw if self.window.size is None else centred)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ImageShape:
    """(H, W, C) of the images that a state was made for: no array, but part of the structure of its pytree."""

    shape: tuple[int, int, int]


class LayerState(NamedTuple):
    """All that a layer has; a plain pytree."""

    w: Array  # [N, D]
    rule: State  # the rule's own
    opt: State  # the optax transformation's own
    threshold: Array | None = None  # [N], where the layer has homeostasis (it adapts in learning) or a bias (negated)
    pre: tuple[PartState, ...] = ()  # one a part
    post: tuple[PartState, ...] = ()
    made_for: ImageShape | None = None  # what its images look like; None: nobody said
    lateral: Array | None = None  # M [N, N], where the layer has lateral connections


def init_layer(layer: Layer, key: Key, image_shape: Shape, w: Array | None = None) -> LayerState:
    """Make a layer's first state for images of shape (H, W, C), from weights [N, D] where they are given."""
    checks.check_key(key)
    image_shape = checks.check_image_shape(image_shape, is_map=True)
    shape = (layer.features, lay_behind(layer.pre, layer.window, image_shape).inputs)
    given, w = w, _draw(specs.ByValue(layer.init), key, shape) if w is None else jnp.asarray(w)
    fits = w.shape == shape and jnp.issubdtype(w.dtype, jnp.floating)
    came = f'weights of shape {w.shape} and type {w.dtype}'
    checks.require(fits, f'{came} do not fit a layer that needs floats of {shape} for images {image_shape}.')
    is_finite = given is None or checks.is_traced(w) or np.isfinite(np.asarray(w)).all()
    checks.require(is_finite, 'weights to start from hold NaN or infinite values.')
    transforms.check_ascends(layer.tx)
    asked = (layer, key, image_shape, w := to_float32(w))
    rest = _init_around.eval_shape(*asked)  # of many layers no arrays, for which nothing is compiled
    return (_init_around(*asked) if jax.tree.leaves(rest) else rest)._replace(w=w)  # which is not copied


@specs.compiled_once('init', 'shape')
def _draw(init, key: Key, shape: tuple[int, int]) -> Array:
    """Draw first weights, by one program for all layers that draw alike."""
    return jnp.asarray(init.thing(key, shape))


@specs.compiled_once('layer', 'image_shape')
def _init_around(layer: Layer, key: Key, image_shape: Shape, w: Array) -> LayerState:
    """Make all of a first state but the weights."""
    # numbers that `split` in two, which `init` may do, does not give
    bias_key, post_key, pre_key = (jax.random.fold_in(key, salt) for salt in (BIAS_SALT, 2, 3))
    pre = init_chain(layer.pre, pre_key, image_shape)
    grid = lay_behind(layer.pre, layer.window, image_shape)
    threshold = None if layer.homeostasis is None else layer.homeostasis.init(w)
    if layer.bias is not None:
        threshold = layer.bias(bias_key, w.shape)[:, 0]
    post = init_chain(bind_weights(layer.post, w), post_key, (*grid.out, layer.features))
    lateral = None if layer.lateral is None else layer.lateral.init(w)
    return LayerState((), layer.rule.init(w), layer.tx.init(w), threshold, pre, post, ImageShape(image_shape), lateral)


def from_patches(layer: Layer, key: Key, images: AnyArray) -> Array:
    """Cut first weights out of images, one window for each neuron, prepared as in learning. [n, H, W, C] -> [N, D].

    Neurons that start from something that is there to be seen win something from the beginning. The key draws the
    images, each once before any comes again, and the places. Batch norms of `pre` go by these images.
    """
    checks.require(isinstance(layer, Layer), f'patches are cut for a layer, not for {checks.show(layer)}.')
    checks.check_key(key)
    checks.check_images(images)
    order_key, place_key = jax.random.split(key)
    chosen = jax.random.permutation(order_key, len(images))[jnp.arange(layer.features) % len(images)]
    x = to_intensities(jnp.asarray(images)[chosen])  # numpy cannot be indexed by what jax traces
    x, _ = apply_chain(layer.pre, init_chain(layer.pre, key, x.shape[1:]), x, train=True)
    return layer.patch_transform(sample_patches(place_key, layer.window, x, 1))


def to_intensities(images: AnyArray) -> Any:
    """Turn uint8 and uint16 pixels into float32 intensities in [0, 1]; floats pass, half precision as float32."""
    checks.check_pixels(images)
    return to_float32(images)


def to_float32(a: Array) -> Array:
    """Do what `to_intensities` does to arrays of any shape."""
    if jnp.issubdtype(a.dtype, jnp.unsignedinteger):
        return a.astype(jnp.float32) / jnp.iinfo(a.dtype).max
    return a.astype(jnp.float32) if a.dtype.itemsize < 4 else a


def check_image_size(state: LayerState, image_shape: Shape) -> None:
    """Refuse images of another size than a layer's state was made for; windows would slide over them all the same."""
    if state.made_for is not None:
        came, made = (' x '.join(map(str, shape)) for shape in (image_shape, state.made_for.shape))
        way = 'resize them, or make a state for their size with init(..., weights=[state.w for state in states])'
        checks.require(came == made, f'images of {came} do not fit a layer made for {made}; {way}.')


def layer_patches(layer: Layer, images: Array) -> Array:
    """Cut windows out of images that have passed `pre`, and transform these. [B, H, W, C] -> [B, H', W', D]."""
    return layer.patch_transform(extract_patches(layer.window, images))


def matmul_drives(layer: Layer, x: Array, w: Array) -> Array:
    """Compute drives `u = x . w` in the layer's precision. [..., D], [N, D] -> [..., N]."""
    with arithmetic(layer.precision):
        return matmul(x, w.T)


def output_transform(layer: Layer) -> Callable[[Array], Array]:
    """Give the function by which weights [N, D] become those that a layer predicts with: `w`, the rule's, unit rows."""
    known: dict[Any, Callable] = {'weights': activations.identity, 'effective': layer.rule.effective_weights}
    return known.get(layer.output, l2) if isinstance(layer.output, str) else l2


def output_drive(layer: Layer, x: Array, u: Array) -> Array:
    """Make of `u = x . w` [..., N] what is predicted with: itself, or `u / |x|`; an all-zero patch has cosine 0."""
    if isinstance(layer.output, AngleKernel):
        return layer.output.drive(x, u)
    return u * inverse_length(x) if layer.output == 'cosine' else u


def settled_drive(layer: Layer, state: LayerState, u: Array) -> Array:
    """Make of drives [..., N] what `post` gets: less thresholds, settled where neurons inhibit each other."""
    u = subtract_threshold(u, state.threshold)
    with arithmetic(layer.precision):
        return u if layer.lateral is None else layer.lateral.settle(state.lateral, u)


def drives(layer: Layer, w: Array, images: Array) -> Array:
    """Compute the drives a layer predicts with, of images that have passed `pre`. [B, H, W, C] -> [B, H', W', N]."""
    x = layer_patches(layer, images)
    return output_drive(layer, x, matmul_drives(layer, x, output_transform(layer)(w)))


def forward(layer: Layer, state: LayerState, images: Array, parts: int | None = None) -> Array:
    """Answer images by all of `post`, or some parts; nothing adapts here. [B, H, W, C] -> [B, H'', W'', N]."""
    check_image_size(state, images.shape[1:])
    images, _ = apply_chain(layer.pre, state.pre, to_float32(images))
    w = output_transform(layer)(state.w)
    post = bind_weights(layer.post[:parts], state.w)
    by_image = count_by_image(post)  # parts that a microbatch passes; the others see the batch as a whole

    def add(stats, number, images, teacher):
        x = layer_patches(layer, images)
        u = settled_drive(layer, state, output_drive(layer, x, matmul_drives(layer, x, w)))
        return stats, apply_chain(post[:by_image], state.post, u)[0]

    sent = scan_microbatches(add, (), microbatch_of(layer, images.shape), images)[1]
    return apply_chain(post[by_image:], state.post[by_image:], sent)[0]
