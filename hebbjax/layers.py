"""One layer: what it is (`Layer`, static), what it has (`LayerState`, a pytree), what it answers. See `learning`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from hebbjax import activations, checks, chunks, homeostasis, initial, norms, plasticity, values
from hebbjax.homeostasis import Homeostasis
from hebbjax.norms import BatchNorm, NormState
from hebbjax.patches import PREPARATIONS, Preparation, Window, centred, extract, glimpse, grid, l2, raw
from hebbjax.teachers import Teacher
from hebbjax.types import HANDICAP, Array, Key, LearningRule, State

SENDS = ('weights', 'seen', 'projection', 'cosine')
PRECISIONS = {'highest': lax.Precision.HIGHEST, 'tensorfloat32': lax.Precision.HIGH, 'bfloat16': None}


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A layer, as configuration, never part of a state. Layers of the same settings are equal, and can be pickled.

    Attributes:
        features: N, the number of neurons (filters).
        rule: the learning rule, such as `rules.krotov(k=4, delta=0.4, p=4)`.
        tx: the optax transformation from `dw` to the change that is added to the weights.
        window: `Window()` for a dense layer, `Window(5)` for a 5 x 5 convolution.
        patch: how patches are prepared, in learning and in prediction alike (`patches.raw`, `centred`, `l2`,
            `centred_l2`, or a function on rows of your own). None: centred for a convolution, raw for a dense layer.
        glimpses: windows drawn at random per image and learning step; None: all of them.
        send: what is predicted with: 'weights', `w . x`; 'seen', the drive of the rule (`|w|^(p-1)` for krotov);
            'projection', `w . x / |w|`; 'cosine', `w . x / |w| |x|` (with `activations.identity`; clipped with `relu`).
        fire: activation on the drives, less thresholds.
        pool: images -> images after the activation, such as `max_pool(2)`; None: nothing.
        initial: (key, (N, D)) -> first weights; standard normal, as Krotov and Hopfield. Others: `hebbjax.initial`.
        chunk: images that a learning step looks at together (`gather`); None: what suits the backend and the shape.
        precision: of the drives' matrix product. 'highest': float32 everywhere (JAX's own default may be TF32);
            'tensorfloat32': that, where a GPU has it; 'bfloat16': operands rounded to it, sums in float32. What
            the last costs in accuracy: experiments/RESULTS.md.
        prepare: images -> images, before windows are cut, in learning and prediction alike, such as
            `whitening.standardise`; None: nothing.
        homeostasis: adaptive thresholds, subtracted from drives before neurons compete and before they fire; None: no.
        frozen: the layer answers and never learns by its rule; its state stays bit for bit, whatever stages say
            (`stages`). Gradients may move it: they start where `hybrid.Supervised` says.
        norm: batch normalisation of what is sent on, after pooling; None: no.
        bias: a constant beside the weights, `w . x - threshold`, which gradients learn and Hebbian rules leave alone
            (their neurons compete less it, as with adaptive thresholds).
            Weights and bias of a layer with one are what deep-learning frameworks start from where `initial` is
            `initial.fan_in`.
        dropout: share of what reaches the layer that is silenced while it learns by gradient, in [0, 1).
        teacher: (labels [B], weights of the layers above) -> what every neuron is told of each image [B, N], such as
            `teachers.groups(10, 16, 32)`; None: the layer learns without labels.
    """

    features: int
    rule: LearningRule
    tx: optax.GradientTransformation
    window: Window = Window()
    patch: Preparation | None = None
    glimpses: int | None = None
    send: str = 'weights'
    fire: activations.Activation = activations.relu
    pool: Callable[[Array], Array] | None = None
    initial: Callable[[Key, tuple[int, int]], Array] = jax.random.normal
    chunk: int | None = None
    precision: str = 'highest'
    prepare: Callable[[Array], Array] | None = None
    homeostasis: Homeostasis | None = None
    frozen: bool = False
    norm: BatchNorm | None = None
    bias: bool = False
    dropout: float = 0.0
    teacher: Teacher | None = None

    __eq__, __hash__, __reduce__ = values.same, values.hashed, values.reduced

    def __post_init__(self):
        if not checks.is_count(self.features):
            raise ValueError(
                f'a layer of {checks.shown(self.features)} neurons cannot learn; use a whole number, 1 or more.'
            )
        if not isinstance(self.rule, LearningRule):
            raise ValueError(f'a layer learns by a rule such as rules.krotov(), not by {checks.shown(self.rule)}.')
        if not isinstance(self.tx, optax.GradientTransformation):
            raise ValueError(
                f'a layer moves by an optax transformation such as plasticity.ascend(0.1), not {checks.shown(self.tx)}.'
            )
        if not isinstance(self.window, Window):
            raise ValueError(f'a layer looks through a Window, such as Window(5), not {checks.shown(self.window)}.')
        for name in ('patch', 'fire', 'pool', 'initial', 'prepare', 'teacher'):
            value = getattr(self, name)
            if not callable(value) and (value is not None or name in ('fire', 'initial')):
                raise ValueError(f'{name} of a layer is a function, and this is {checks.shown(value)}.')
        for name, kind in (('homeostasis', Homeostasis), ('norm', BatchNorm)):
            if not isinstance(getattr(self, name), kind | None):
                came = checks.shown(getattr(self, name))
                raise ValueError(f'{name} of a layer is a {kind.__name__} or None, and this is {came}.')
        if self.glimpses is not None and not checks.is_count(self.glimpses):
            raise ValueError(
                f'glimpses={checks.shown(self.glimpses)} shows the layer nothing; use 1 or more, or None for all.'
            )
        if self.chunk is not None and not checks.is_count(self.chunk):
            raise ValueError(
                f'chunk={checks.shown(self.chunk)} looks at no image; use 1 or more, or None to let the library choose.'
            )
        if not isinstance(self.send, str) or self.send not in SENDS:
            raise ValueError(f'a layer sends {", ".join(map(repr, SENDS))} drives, not {checks.shown(self.send)}.')
        if checks.misfits(self.dropout, lambda share: 0 <= share < 1):
            raise ValueError(
                f'dropout {checks.shown(self.dropout)} leaves nothing to learn from; use 0 <= dropout < 1.'
            )
        if self.bias and self.homeostasis is not None:
            raise ValueError('a layer has either a bias or adaptive thresholds; leave one of bias, homeostasis out.')
        if self.precision not in PRECISIONS:
            raise ValueError(f'precision {self.precision!r} is unknown; there are {", ".join(PRECISIONS)}.')
        if self.patch is None:
            object.__setattr__(self, 'patch', raw if self.window.size is None else centred)


def check_network(net: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return a network as a tuple of layers, or refuse what is none.

    Raises:
        ValueError: naming what came.
    """
    if isinstance(net, Layer):
        raise ValueError('a network is a tuple of layers, and this is a layer; write (layer,).')
    if not isinstance(net, tuple | list) or not net or not all(isinstance(layer, Layer) for layer in net):
        raise ValueError(f'a network is a tuple of layers, at least one, not {checks.shown(net)}.')
    return tuple(net)


class LayerState(NamedTuple):
    """All that a layer has; a plain pytree."""

    w: Array  # [N, D]
    rule: State  # the rule's own
    opt: State  # the optax transformation's own
    threshold: Array | None = None  # [N], where the layer has homeostasis (it adapts in learning) or a bias (negated)
    norm: NormState | None = None
    made_for: 'ImageShape | None' = None  # what its images look like; None: nobody said


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ImageShape:
    """(H, W, C) of the images that a state was made for: no array, but part of the structure of its pytree."""

    shape: tuple[int, int, int]


def intensities(images: Array) -> Array:
    """Turn uint8 and uint16 pixels into float32 intensities in [0, 1]; floating images pass, half precision as float32.

    Raises:
        ValueError: for what is no array of images, and for other integers (`checks.check_pixels`).
    """
    checks.check_pixels(images)
    if jnp.issubdtype(images.dtype, jnp.unsignedinteger):
        return images.astype(jnp.float32) / jnp.iinfo(images.dtype).max
    return widened(images)


def sees_everything(layer: Layer, image_shape: tuple[int, int, int]) -> bool:
    """Say whether each pixel is seen in a learning step: no window is drawn, no pixel lies between windows, and nothing
    that the layer prepares by is a function of somebody's own, which may make something else of it."""
    if layer.glimpses is not None or layer.prepare is not None or layer.patch not in PREPARATIONS.values():
        return False
    g, (h, w, _) = grid(layer.window, image_shape), image_shape
    sides = zip((h, w), g.size, g.stride, g.padding, g.out)
    return all(step <= k and (out - 1) * step + k - pad >= full for full, k, step, pad, out in sides)


def widened(a: Array) -> Array:
    """Give half precision, and booleans, as float32."""
    return a.astype(jnp.float32) if a.dtype.itemsize < 4 else a


def refuse_other_images(state: LayerState, image_shape: tuple[int, int, int]) -> None:
    """Refuse images of another size than a layer's state was made for; windows would slide over them all the same.

    Raises:
        ValueError: naming both.
    """
    if state.made_for is not None and state.made_for.shape != tuple(image_shape):
        came, made = (' x '.join(map(str, shape)) for shape in (image_shape, state.made_for.shape))
        raise ValueError(
            f'images of {came} do not fit a layer made for {made}; resize them, or make a state for their size with '
            'init(..., weights=[state.w for state in states]).'
        )


def init(layer: Layer, key: Key, image_shape: tuple[int, int, int], w: Array | None = None) -> LayerState:
    """Make a layer's first state for images of shape (H, W, C).

    Args:
        layer: the layer.
        key: draws the weights.
        image_shape: (H, W, C) of what reaches the layer.
        w: weights to start from instead, [N, D]; they are taken as they are, half precision as float32.

    Raises:
        ValueError: if the window does not fit, the weights have another shape, are no finite floats, the rule refuses
            them, or `tx` descends.
    """
    checks.check_key(key)
    image_shape = checks.check_image_shape(image_shape)
    ready = jax.eval_shape(lambda images: prepared(layer, images), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    shape = (layer.features, grid(layer.window, ready.shape[1:]).inputs)
    # numbers that `split` in two, which `initial` may do, does not give
    bias_key, norm_key = jax.random.fold_in(key, HANDICAP), jax.random.fold_in(key, 2)
    given, w = w, layer.initial(key, shape) if w is None else w
    w = jnp.asarray(w)
    if w.shape != shape:
        raise ValueError(f'weights of shape {w.shape} do not fit a layer that needs {shape} for images {image_shape}.')
    if not jnp.issubdtype(w.dtype, jnp.floating):
        raise ValueError(f'weights are floating point numbers, not {w.dtype}; convert them.')
    w = widened(w)
    if given is not None and not checks.is_traced(w) and not np.isfinite(np.asarray(w)).all():
        raise ValueError('weights to start from hold NaN or infinite values.')
    plasticity.check_ascends(layer.tx)
    threshold = None
    if layer.homeostasis is not None:
        threshold = homeostasis.init(layer.homeostasis, w)
    elif layer.bias:
        threshold = initial.fan_in(bias_key, shape)[:, 0]
    norm = None if layer.norm is None else norms.init(layer.norm, norm_key, layer.features)
    return LayerState(w, layer.rule.init(w), layer.tx.init(w), threshold, norm, ImageShape(image_shape))


def exemplars(layer: Layer, key: Key, images: Array) -> Array:
    """Cut first weights out of images, one window for each neuron, prepared as in learning. [n, H, W, C] -> [N, D].

    Neurons that start from something that is there to be seen win something from the beginning.

    Args:
        layer: the layer.
        key: draws the images, each once before any comes again, and the places.
        images: uint8, or floating: what reaches the layer.

    Raises:
        ValueError: if the window does not fit, or what came is no layer, key or images.
    """
    check_network((layer,))
    checks.check_key(key)
    checks.check_images(images)
    order_key, place_key = jax.random.split(key)
    chosen = jax.random.permutation(order_key, len(images))[jnp.arange(layer.features) % len(images)]
    return layer.patch(glimpse(place_key, layer.window, prepared(layer, intensities(images[chosen])), 1))


def prepared(layer: Layer, images: Array) -> Array:
    """Prepare images as the layer does. [B, H, W, C] -> [B, H, W, C]."""
    return images if layer.prepare is None else layer.prepare(images)


def windows(layer: Layer, images: Array) -> Array:
    """Cut windows out of prepared images, and prepare these. [B, H, W, C] -> [B, H', W', D]."""
    return layer.patch(extract(layer.window, images))


def look(layer: Layer, images: Array) -> Array:
    """Show every prepared window of the images. [B, H, W, C] -> [B, H', W', D]."""
    return windows(layer, prepared(layer, images))


def product(layer: Layer, x: Array, w: Array) -> Array:
    """Compute drives `u = x . w` in the layer's precision. [..., D], [N, D] -> [..., N].

    As rows: a product's slope over several leading axes leaves XLA's fast path on a CPU.
    """
    rows = x.reshape(-1, x.shape[-1])
    if layer.precision != 'bfloat16':
        u = jnp.matmul(rows, w.T, precision=PRECISIONS[layer.precision])
    else:
        short = rows.astype(jnp.bfloat16), w.T.astype(jnp.bfloat16)
        u = jnp.matmul(*short, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
    return u.reshape(*x.shape[:-1], len(w))


def seen(layer: Layer, w: Array) -> Array:
    """Give the weights that a layer predicts with: `w`, the rule's `W`, or unit rows. [N, D] -> [N, D]."""
    return sight(layer)(w)


def sight(layer: Layer) -> Callable[[Array], Array]:
    """Give the function by which weights become those that a layer predicts with."""
    return {'weights': activations.identity, 'seen': layer.rule.seen}.get(layer.send, l2)


def predict(layer: Layer, w: Array, images: Array) -> Array:
    """Compute the drives a layer predicts with, on patches prepared as in learning. [B, H, W, C] -> [B, H', W', N]."""
    x = look(layer, images)
    return sent_drive(layer, x, product(layer, x, seen(layer, w)))


def sent_drive(layer: Layer, x: Array, u: Array) -> Array:
    """Make of `u = x . seen(w)` what is predicted with: itself, or `u / |x|`; an all-zero patch has cosine 0.

    [..., D], [..., N] -> [..., N].
    """
    if layer.send != 'cosine':
        return u
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return u * jnp.where(square == 0, 0, lax.rsqrt(jnp.where(square == 0, 1, square)))  # twice, for a finite slope


def respond(layer: Layer, state: LayerState, images: Array) -> Array:
    """Send on `norm(pool(fire(u - threshold)))`, some images at a time. Nothing learns or adapts here.

    [B, H, W, C] -> [B, H'', W'', N].
    """
    refuse_other_images(state, images.shape[1:])
    images = prepared(layer, images)
    w = seen(layer, state.w)

    def add(nothing, number, some, teacher):
        x = windows(layer, some)
        return nothing, send(layer, state, sent_drive(layer, x, product(layer, x, w)))

    sent = chunks.fold(add, (), chunk_of(layer, images.shape), images)[1]
    return sent if layer.norm is None else norms.apply(layer.norm, state.norm, sent)


def practise(layer: Layer, state: LayerState, images: Array, key: Key) -> tuple[Array, NormState | None]:
    """Send on what a layer does that learns by gradient: inputs dropped out, answers normalised by the batch.

    [B, H, W, C] -> [B, H'', W'', N], and where batch normalisation stands now.
    """
    if layer.dropout > 0:
        images = images * jax.random.bernoulli(key, 1 - layer.dropout, images.shape).astype(images.dtype)
        images = images / (1 - layer.dropout)
    sent = send(layer, state, predict(layer, state.w, images))
    return (sent, None) if layer.norm is None else norms.learn(layer.norm, state.norm, sent)


def send(layer: Layer, state: LayerState, u: Array) -> Array:
    """Make of drives what is sent on, but for the norm: `pool(fire(u - threshold))`. [B, H', W', N] -> [B, ..., N]."""
    sent = layer.fire(homeostasis.less(u, state.threshold))
    return sent if layer.pool is None else layer.pool(sent)


def chunk_of(layer: Layer, shape: tuple[int, int, int, int]) -> int:
    """Say how many images a learning step looks at together: `Layer.chunk`, or what suits the backend and the shape."""
    if layer.chunk is not None:
        return min(layer.chunk, shape[0])
    g = grid(layer.window, shape[1:])
    if g.out == (1, 1):  # a dense layer's product reads all its weights anew for every chunk
        return shape[0]
    return chunks.at_once(shape[0], g.out[0] * g.out[1] * (g.inputs + layer.features))
