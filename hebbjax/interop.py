"""In and out of flax: trained layers as flax layers, and their weights back. Models of your own: `hebbjax.hebbify`."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from hebbjax import checks, layers, train
from hebbjax.layers import Layer, LayerState
from hebbjax.patches import fold
from hebbjax.types import Array


def to_kernel(w: Array, size: int | tuple[int, int] | None = None) -> Array:
    """Lay weights [N, D] out as flax does: [kh, kw, C, N] for windows of that size; None: dense, [D, N].

    Raises:
        ValueError: if weights are not [N, D], or D is no multiple of kh kw.
    """
    if jnp.ndim(w) != 2:
        raise ValueError(f'weights are [N, D], one row per neuron, and these are {jnp.shape(w)}; reshape them.')
    if size is None:
        return w.T
    sizes = size if isinstance(size, tuple | list) else (size, size)
    if len(sizes) != 2 or not all(map(checks.is_count, sizes)):
        raise ValueError(f'a window is one whole number from 1 on, or two of them, not {checks.shown(size)}.')
    kh, kw = sizes
    if w.shape[1] % (kh * kw):
        raise ValueError(f'weights {w.shape} do not fill windows of {kh} x {kw}; give the size they were learned with.')
    return w.T.reshape(kh, kw, -1, len(w))


def from_kernel(kernel: Array) -> Array:
    """Lay a flax kernel [kh, kw, C, N] or [D, N] out as weights [N, D], D in (kh, kw, C) order."""
    return kernel.reshape(-1, kernel.shape[-1]).T


def check_kernel(name: str, kernel: Array) -> None:
    """Refuse what is no kernel [kh, kw, C, N] or [D, N] of finite floating point numbers.

    Raises:
        ValueError: naming it, what came and what fits.
    """
    if not hasattr(kernel, 'shape') or not jnp.issubdtype(kernel.dtype, jnp.floating):
        kind = getattr(kernel, 'dtype', type(kernel).__name__)
        raise ValueError(f'{name} holds {kind}, no floating point numbers; use numpy.asarray(..., "float32").')
    if len(kernel.shape) not in (2, 4) or 0 in kernel.shape:
        raise ValueError(f'{name} is [kh, kw, C, N] or [D, N], none of them 0, and not {list(kernel.shape)}.')
    check_finite(name, kernel)


def check_finite(name: str, array: Array) -> None:
    """Refuse numbers that are none, unless they are traced and have no values yet.

    Raises:
        ValueError: saying how many of them there are.
    """
    bad = 0 if checks.is_traced(array) else int((~np.isfinite(np.asarray(array))).sum())
    if bad:
        raise ValueError(f'{name} holds NaN or infinity ({bad} of {array.size} numbers); use weights of before that.')


def to_linen(layer: Layer, state: LayerState) -> dict[str, Array]:
    """Give the linen parameters of a Conv, or of a Dense on flattened images, that answers with the layer's drives.

    They are the drives that the layer predicts with, on raw images: what it does to patches is folded into the kernel,
    its thresholds or its bias into a bias. Activation and pooling come after, and stay yours.

    Returns:
        {'kernel': [kh, kw, C, N] or [D, N]}, and 'bias' [N] where the layer has thresholds or a bias.

    Raises:
        ValueError: if the layer prepares images, or patches in a way that no kernel can; if it sends cosines, or has a
            norm; if the state is not its own, or not finite.
    """
    train.check_states(train.check_network((layer,)), (state,))
    if layer.prepare is not None:
        raise ValueError(
            f'no kernel prepares images as {getattr(layer.prepare, "__name__", layer.prepare)} does; '
            'prepare them before the model, and pass dataclasses.replace(layer, prepare=None).'
        )
    if layer.send == 'cosine':
        raise ValueError(
            'no kernel divides by the length of each patch, as a layer does that sends cosines; '
            'take the whole layer out with export.export.'
        )
    if layer.norm is not None:
        raise ValueError(
            'no kernel normalises what is sent on after pooling; pass dataclasses.replace(layer, norm=None), and give '
            'scale, shift, mean and var of state.norm to a BatchNorm of your own after pooling.'
        )
    params = {'kernel': to_kernel(fold(layer.patch, layers.seen(layer, state.w)), layer.window.size)}
    check_kernel('the kernel', params['kernel'])
    return params if state.threshold is None else params | {'bias': -state.threshold}


def to_nnx(layer: Layer, state: LayerState) -> nnx.Conv | nnx.Linear:
    """Build the nnx.Conv, or nnx.Linear on flattened images, that answers with the layer's drives, in full float32.

    Raises:
        ValueError: as `to_linen`.
    """
    params = to_linen(layer, state)
    *size, inputs, features = params['kernel'].shape
    own = {
        'use_bias': 'bias' in params,
        'kernel_init': lambda *_: params['kernel'],
        'bias_init': lambda *_: params['bias'],
        'precision': lax.Precision.HIGHEST,
        'rngs': nnx.Rngs(0),
    }
    if not size:
        return nnx.Linear(inputs, features, **own)
    stride, padding = (tuple(np.broadcast_to(part, 2).tolist()) for part in layer.window[1:])
    return nnx.Conv(inputs, features, tuple(size), stride, padding=[(side, side) for side in padding], **own)


def from_flax(layer: nnx.Conv | nnx.Linear | Mapping[str, Array], *, bias: bool = False) -> Array | tuple[Array, Array]:
    """Take the weights [N, D] out of a flax layer, for `train.init(weights=...)`.

    Args:
        layer: an nnx.Conv or nnx.Linear, or the linen parameters of a Conv or Dense, {'kernel': ...}.
        bias: take its bias as well, for a layer with `bias=True`, as the threshold that it is there; 0 if it has none.

    Returns:
        Weights [N, D]; with `bias`, (weights, threshold [N]), `threshold = -bias`, for
        `state._replace(threshold=threshold)`.

    Raises:
        ValueError: if it is something else, is dilated or grouped, holds other than finite floating point numbers, or
            has a bias that is not zero and is not asked for, or none for each neuron.
    """
    if isinstance(layer, nnx.Conv | nnx.Linear):
        refuse(layer, 'input_dilation', 'kernel_dilation', 'feature_group_count')
        mask = getattr(layer, 'mask', None)
        kernel = layer.kernel[...] if mask is None else layer.kernel[...] * mask
        layer = {'kernel': kernel} if layer.bias is None else {'kernel': kernel, 'bias': layer.bias[...]}
    if not isinstance(layer, Mapping) or 'kernel' not in layer:
        raise ValueError(
            f'{checks.shown(layer)} has no weights to take; '
            f"give an nnx.Conv, an nnx.Linear or parameters {{'kernel': ...}}."
        )
    check_kernel('the kernel', layer['kernel'])
    w = from_kernel(layer['kernel'])
    if 'bias' in layer:
        shape = jnp.shape(layer['bias'])
        if shape != (len(w),):
            raise ValueError(f'a bias {list(shape)} does not fit {len(w)} neurons; give one number for each.')
        check_finite('the bias', layer['bias'])
    if bias:
        return w, -layer['bias'] if 'bias' in layer else jnp.zeros(len(w), w.dtype)
    if 'bias' in layer and bool(jnp.any(layer['bias'] != 0)):
        raise ValueError(
            'a bias that is not zero has no place among weights; take it with from_flax(..., bias=True) for a layer '
            "with bias=True, or pass {'kernel': ...} alone to drop it."
        )
    return w


def refuse(convolution, *settings):
    """Refuse a convolution that a window does not describe.

    Raises:
        ValueError: naming the setting and its value.
    """
    for name in settings:
        value = convolution.get(name) if isinstance(convolution, Mapping) else getattr(convolution, name, None)
        if value is not None and not np.all(np.equal(value, 1)):
            raise ValueError(f'{name}={value} makes of a convolution what no window is; leave this layer out.')
