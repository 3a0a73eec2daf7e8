"""In and out of flax: trained layers as flax layers, and their weights back. Models of your own: `flax_models`."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from hebbjax.base import Array
from hebbjax.layers.layer import LINEAR, Layer, LayerState, output_transform
from hebbjax.layers.network import check_network, check_states
from hebbjax.layers.patches import centred, raw
from hebbjax.support.checks import is_count, is_traced, require


def to_kernel(w: Array, size: int | tuple[int, int] | None = None) -> Array:
    """Lay weights [N, D] out as flax does: [kh, kw, C, N] for windows of that size; None: dense, [D, N]."""
    require(jnp.ndim(w) == 2, f'weights are [N, D], one row per neuron, and these are {jnp.shape(w)}; reshape them.')
    if size is None:
        return w.T
    sides = np.broadcast_to(size, 2).tolist()
    fits = all(map(is_count, sides)) and w.shape[1] % math.prod(sides) == 0
    require(fits, f'weights {w.shape} do not fill windows of {size}; give the size that they were learned with.')
    return w.T.reshape(*sides, -1, len(w))


def from_kernel(kernel: Array) -> Array:
    """Lay a flax kernel [kh, kw, C, N] or [D, N] out as weights [N, D], D in (kh, kw, C) order."""
    return kernel.reshape(-1, kernel.shape[-1]).T


def check_finite(arrays: Mapping[str, Array]) -> None:
    """Refuse arrays, by their names, that hold NaN or infinity, unless they are traced and have no values yet."""
    for name, array in arrays.items():
        is_finite = is_traced(array) or np.isfinite(np.asarray(array)).all()
        require(is_finite, f'{name} holds NaN or infinity; use weights of before that.')


def to_linen(layer: Layer, state: LayerState) -> dict[str, Array]:
    """Give the linen parameters of a Conv, or of a Dense on flattened images, that answers with the layer's drives.

    They are those that it predicts with, on raw images, before `post`: what it does to patches is folded into the
    'kernel', [kh, kw, C, N] or [D, N], and its thresholds or its bias into the 'bias' [N], if it has any.
    """
    check_states(check_network((layer,)), (state,))
    stateful = [part for part, part_state in zip(layer.post, state.post) if jax.tree.leaves(part_state)]
    names = ', '.join(getattr(part, '__name__', type(part).__name__) for part in (*layer.pre, *stateful))
    way = 'put it around that layer yourself, and pass dataclasses.replace(layer, pre=..., post=...) without it'
    require(not names, f'no kernel does what {names} does; {way}.')
    cosine = 'no kernel divides by the length of each patch, as a layer does that sends cosines'
    require(layer.output in LINEAR, f'{cosine}; take the whole layer out with export_features.')
    inhibits = 'no convolution settles under lateral connections'
    require(layer.lateral is None, f'{inhibits}; take the whole layer out with export_features.')
    # `(x - mean x) . w = x . (w - mean w)`, so centred learning predicts with a plain convolution
    f, way = layer.patch_transform, 'learn with raw or centred patches'
    require(f in (raw, centred), f'{getattr(f, "__name__", f)} is not linear in the patch; {way}.')
    params = {'kernel': to_kernel(f(output_transform(layer)(state.w)), layer.window.size)}
    params |= {} if state.threshold is None else {'bias': -state.threshold}
    check_finite(params)
    return params


def to_nnx(layer: Layer, state: LayerState) -> nnx.Conv | nnx.Linear:
    """Build the nnx.Conv, or nnx.Linear on flattened images, that answers with the layer's drives, in full float32."""
    params = to_linen(layer, state)
    *size, inputs, features = params['kernel'].shape
    settings = {'use_bias': 'bias' in params, 'precision': lax.Precision.HIGHEST, 'rngs': nnx.Rngs(0)}
    settings |= {f'{name}_init': lambda *_, name=name: params[name] for name in params}
    if not size:
        return nnx.Linear(inputs, features, **settings)
    stride, padding = (tuple(np.broadcast_to(part, 2).tolist()) for part in layer.window[1:3])
    pads: Any = [(side, side) for side in padding]
    if layer.window.edges == 'reflect':
        fits = all(k % 2 and side == k // 2 for k, side in zip(size, padding))
        way = 'take the whole layer out with export_features'
        require(fits, f'an nnx.Conv mirrors edges of odd windows that keep the size of images alone; {way}.')
        pads = 'REFLECT'
    return nnx.Conv(inputs, features, tuple(size), stride, padding=pads, **settings)


def from_flax(layer: nnx.Conv | nnx.Linear | Mapping[str, Array], *, bias: bool = False) -> Array | tuple[Array, Array]:
    """Take the weights [N, D] out of a flax layer, for `init(weights=...)`.

    Args:
        layer: an nnx.Conv or nnx.Linear, or the linen parameters of a Conv or Dense, {'kernel': ...}.
        bias: give (weights, threshold [N]), the layer's bias, or 0, as the threshold `-bias` of a layer with a bias.
    """
    if isinstance(layer, nnx.Conv | nnx.Linear):
        check_plain_window(vars(layer), 'input_dilation', 'kernel_dilation', 'feature_group_count')
        mask = getattr(layer, 'mask', None)
        kernel = layer.kernel[...] if mask is None else layer.kernel[...] * mask
        layer = {'kernel': kernel} if layer.bias is None else {'kernel': kernel, 'bias': layer.bias[...]}
    kernel = layer.get('kernel') if isinstance(layer, Mapping) else None
    fits = hasattr(kernel, 'dtype') and jnp.issubdtype(kernel.dtype, jnp.floating) and kernel.ndim in (2, 4)
    came = f'{getattr(kernel, "dtype", type(kernel).__name__)} {list(np.shape(kernel))}'
    way = "give an nnx.Conv, an nnx.Linear or parameters {'kernel': floats [kh, kw, C, N] or [D, N]}"
    require(fits and kernel.size, f'the kernel of {type(layer).__name__} is {came}; {way}.')
    w = from_kernel(kernel)
    offset = jnp.asarray(layer.get('bias', jnp.zeros(len(w), jnp.float32)))
    fits = jnp.shape(offset) == (len(w),)
    require(fits, f'a bias {list(jnp.shape(offset))} does not fit {len(w)} neurons; give one number for each.')
    check_finite({'kernel': kernel, 'bias': offset})
    if bias:
        return w, -offset
    way = "take it with from_flax(..., bias=True), or pass {'kernel': ...} alone to drop it"
    require(not offset.any(), f'a bias that is not zero has no place among weights; {way}.')
    return w


def check_plain_window(settings: Mapping, *names: str) -> None:
    """Refuse the settings of a convolution of which any of these is not 1: no window describes it."""
    for name in names:
        value = settings.get(name)
        fits = value is None or np.all(np.equal(value, 1))
        require(fits, f'{name}={value} makes of a convolution what no window is; leave this layer out.')
