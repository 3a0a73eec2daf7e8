"""Receptive fields of higher layers in terms of the image: weighted sums of the fields below (Miconi 2021, 2.4)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from hebbjax import checks, patches
from hebbjax.layers import Layer, check_network
from hebbjax.pooling import Pool
from hebbjax.types import Array


def fields(net: Sequence[Layer], weights: Sequence[Array], image_shape: tuple[int, int, int]) -> Array:
    """Reconstruct what the neurons of the last of some layers look for, as pictures.

    A neuron's picture is the sum of the pictures of the layer below, each at its place and times its weight:

        field_i[y s : y s + r, x s : x s + r] += w_i[y, x, c] field_c      (s: pixels between neighbours below)

    Pooling over q x q blocks makes of each field below the mean of its q x q shifted copies. Exact for a linear network
    with average pooling; activations, normalisation and whitening are left out, and maxima are taken for means.

    Args:
        net: the layers, bottom first, up to the one whose fields are wanted.
        weights: their weights [N, D]; those of layers above are ignored.
        image_shape: (H, W, C) of the images.

    Returns:
        [N, rh, rw, C] of the last layer; its r grows by `(k - 1) s` per layer and `(q - 1) s` per pooling below it:
        5, 10 and 20 for Miconi's three layers.

    Raises:
        ValueError: if there are fewer weights than layers, a window does not fit, or a pooling is none of `pooling`.
    """
    check_network(net)
    image_shape = checks.check_image_shape(image_shape)
    if not isinstance(weights, tuple | list) or len(weights) < len(net):
        raise ValueError(f'{len(weights)} weights for {len(net)} layers; give one for each, and at least one layer.')
    shape, step = image_shape, (1, 1)
    below = jnp.eye(image_shape[2])[:, None, None, :]  # [C, 1, 1, C]: one pixel of one channel
    for number, (layer, w) in enumerate(zip(net, weights)):
        g = patches.grid(layer.window, shape)
        kernel = w.reshape(layer.features, *g.size, shape[2])  # [N, kh, kw, C]
        found = _spread(kernel, below, step)
        step = (step[0] * g.stride[0], step[1] * g.stride[1])
        if number == len(net) - 1:
            return found
        shape = (*g.out, layer.features)
        if layer.pool is not None:
            if not isinstance(layer.pool, Pool):
                raise ValueError(
                    f'layer {number + 1} pools in an unknown way; receptive fields know max_pool and avg_pool.'
                )
            size = layer.pool.size
            alike = jnp.eye(layer.features)[:, None, None, :] * jnp.full((1, size, size, 1), 1 / size**2)
            found = _spread(alike, found, step)
            step, shape = (step[0] * size, step[1] * size), (g.out[0] // size, g.out[1] // size, layer.features)
        below = found


def _spread(kernel, below, step):
    """Add up `kernel[i, y, x, c] below[c]`, moved by (y, x) steps. [N, kh, kw, C], [C, r, r, Z] -> [N, R, R, Z]."""
    (neurons, kh, kw, _), (_, rows, columns, channels) = kernel.shape, below.shape
    out = jnp.zeros((neurons, rows + (kh - 1) * step[0], columns + (kw - 1) * step[1], channels))
    for y in range(kh):
        for x in range(kw):
            part = jnp.einsum('nc,crsz->nrsz', kernel[:, y, x], below, precision=lax.Precision.HIGHEST)
            top, left = y * step[0], x * step[1]
            out = out.at[:, top : top + rows, left : left + columns].add(part)
    return out
