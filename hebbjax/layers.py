"""One layer: what it is (`Layer`, static), what it has (`LayerState`, a pytree), its moment: look, learn, respond."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from hebbjax import activations
from hebbjax.patches import Preparation, Window, centred, extract, glimpse, grid, raw
from hebbjax.types import Array, Key, LearningRule, State, Told


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer, as configuration: hashable only by identity, never part of a state.

    Attributes:
        features: N, the number of neurons (filters).
        rule: the learning rule, such as `rules.krotov(k=4, delta=0.4, p=4)`.
        tx: the optax transformation from `dw` to the change that is added to the weights.
        window: `Window()` for a dense layer, `Window(5)` for a 5 x 5 convolution.
        patch: how patches are prepared, in learning and in prediction alike (`patches.raw`, `centred`, `l2`,
            `centred_l2`, or a function on rows of your own). None: centred for a convolution, raw for a dense layer.
        glimpses: windows drawn at random per image and learning step; None: all of them.
        send: what is predicted with: 'weights', `w . x`, or 'seen', the drive of the rule (`|w|^(p-1)` for krotov).
        fire: activation on the drives.
        pool: images -> images after the activation, such as `max_pool(2)`; None: nothing.
        initial: (key, (N, D)) -> first weights; standard normal, as Krotov and Hopfield.
        precision: of the matrix products. HIGHEST is float32 everywhere; JAX's own default may be TF32 on a GPU.
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
    precision: Any = lax.Precision.HIGHEST

    def __post_init__(self):
        if self.features < 1:
            raise ValueError(f'a layer of {self.features} neurons cannot learn; use features >= 1.')
        if self.glimpses is not None and self.glimpses < 1:
            raise ValueError(f'glimpses={self.glimpses} shows the layer nothing; use 1 or more, or None for all.')
        if self.send not in ('weights', 'seen'):
            raise ValueError(f"a layer sends 'weights' or 'seen' drives, not {self.send!r}.")
        if self.patch is None:
            object.__setattr__(self, 'patch', raw if self.window.size is None else centred)


class LayerState(NamedTuple):
    """All that a layer has; a plain pytree."""

    w: Array  # [N, D]
    rule: State  # the rule's own
    opt: State  # the optax transformation's own


def intensities(images: Array) -> Array:
    """Turn uint8 pixels into float32 intensities in [0, 1]; floating images pass, half precision as float32."""
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def init(layer: Layer, key: Key, image_shape: tuple[int, int, int], w: Array | None = None) -> LayerState:
    """Make a layer's first state for images of shape (H, W, C).

    Args:
        layer: the layer.
        key: draws the weights.
        image_shape: (H, W, C) of what reaches the layer.
        w: weights to start from instead, [N, D]; they are taken as they are.

    Raises:
        ValueError: if the window does not fit, the weights have another shape, or the rule refuses them.
    """
    shape = (layer.features, grid(layer.window, image_shape).inputs)
    if w is None:
        w = layer.initial(key, shape)
    elif jnp.shape(w) != shape:
        raise ValueError(
            f'weights of shape {jnp.shape(w)} do not fit a layer that needs {shape} for images {image_shape}.'
        )
    w = jnp.asarray(w)
    return LayerState(w, layer.rule.init(w), layer.tx.init(w))


def look(layer: Layer, images: Array) -> Array:
    """Show every prepared window of the images. [B, H, W, C] -> [B, H', W', D]."""
    return layer.patch(extract(layer.window, images))


def product(layer: Layer, x: Array, w: Array) -> Array:
    """Compute drives `u = x . w` in the layer's precision. [..., D], [N, D] -> [..., N]."""
    return jnp.matmul(x, w.T, precision=layer.precision)


def seen(layer: Layer, w: Array) -> Array:
    """Give the weights that a layer predicts with: `w`, or the rule's `W`. [N, D] -> [N, D]."""
    return layer.rule.seen(w) if layer.send == 'seen' else w


def predict(layer: Layer, w: Array, images: Array) -> Array:
    """Compute the drives a layer predicts with, on patches prepared as in learning. [B, H, W, C] -> [B, H', W', N]."""
    return product(layer, look(layer, images), seen(layer, w))


def respond(layer: Layer, w: Array, images: Array) -> Array:
    """Send on: `pool(fire(u))`. Nothing learns or adapts here. [B, H, W, C] -> [B, H'', W'', N]."""
    sent = layer.fire(predict(layer, w, images))
    return sent if layer.pool is None else layer.pool(sent)


def learn(layer: Layer, key: Key, state: LayerState, images: Array, teacher=None) -> tuple[LayerState, Told]:
    """Learn from one batch: look, compete, change.

    Returns:
        The new state and what happened.
    """
    sample_key, rule_key = jax.random.split(key)
    if layer.glimpses is None:
        x = look(layer, images)
        x = x.reshape(-1, x.shape[-1])  # [P, D]
    else:
        x = layer.patch(glimpse(sample_key, layer.window, images, layer.glimpses))  # [P, D]
    u = product(layer, x, layer.rule.seen(state.w))  # [P, N]
    dw, rule = layer.rule.update(rule_key, x, u, state.w, state.rule, teacher)  # [N, D]
    change, opt = layer.tx.update(dw, state.opt, state.w)
    w = state.w + change
    told = Told(
        wins=wins(x, u),
        change=jnp.max(jnp.abs(change)),
        finite=jnp.all(jnp.isfinite(w)),
    )
    return LayerState(w, rule, opt), told


def wins(x: Array, u: Array) -> Array:
    """Count, per neuron, the patches for which its drive is the largest; an all-zero patch is nobody's.

    Args:
        x: patches [P, D].
        u: their drives [P, N].

    Returns:
        [N] int32.
    """
    someone = jnp.any(x != 0, axis=1).astype(jnp.int32)
    return jnp.zeros(u.shape[1], jnp.int32).at[jnp.argmax(u, axis=1)].add(someone)


def max_pool(size: int) -> Callable[[Array], Array]:
    """Build max pooling over size x size blocks, stride size; rows and columns that fill no block are left out.

    A reshape and a maximum: on a CPU nearly twice as fast as `lax.reduce_window`.

    Raises:
        ValueError: if size is below 1, or (when first traced) larger than the map.
    """
    if size < 1:
        raise ValueError(f'max_pool({size}) has no block to look at; use size >= 1.')

    def pool(maps: Array) -> Array:
        batch, h, w, channels = maps.shape
        if min(h, w) < size:
            raise ValueError(f'max_pool({size}) does not fit maps of {h} x {w}; use a smaller block.')
        rows, columns = h // size, w // size
        blocks = maps[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels)
        return blocks.max((2, 4))

    return pool
