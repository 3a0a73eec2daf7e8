"""What a layer hands to a trained head: its drives, pooled, with the sums that batch normalisation needs.

Batch norm, a rising activation and max pooling commute where the scale g of the norm is not negative, and turn the
maximum into the minimum where it is. So the largest *and* the smallest drive of each pooling block, with the mean of
u and u^2 over all positions, are all that `pool(repu(norm(u)))` needs, for any g, b: exact batch norm from a cache.
For a frozen layer these are computed once: with 2 x 2 blocks half the numbers of the map, and no product in the head.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax import checks, layers, patches, values
from hebbjax.layers import Layer
from hebbjax.types import Array


class Drives(NamedTuple):
    """The drives of a layer, as a head wants them. Leading axis: images; Q: pooling blocks per image; N: neurons."""

    high: Array  # [B, Q, N] the largest drive of each block
    low: Array | None = None  # [B, Q, N] the smallest; None where `high` is already the end that the scale asks for
    mean: Array | None = None  # [B, N] mean of u over all positions of the image; None: there is nothing but `high`
    square: Array | None = None  # [B, N] mean of u^2 over all positions
    exponent: Array | None = None  # [B, N] int8: of the power of two that an image's `high` and `low` were divided by

    def whole(self, end: Array) -> Array:
        """Give `high` or `low` as it was, in float32."""
        end = end.astype(jnp.float32)
        return end if self.exponent is None else end * _power(self.exponent)


def _power(exponent: Array) -> Array:
    """Give powers of two for blocks: [B, N] -> [B, 1, N]."""
    return jnp.ldexp(jnp.ones((), jnp.float32), exponent.astype(jnp.int32))[:, None]


def drives(layer: Layer, w: Array, images: Array, pool: int = 1, scale: Array | None = None) -> Drives:
    """Compute a layer's pooled drives.

    Args:
        layer: the layer; its `send` ('weights' or 'seen') and `patch` decide what a drive is.
        w: its weights [N, D].
        images: [B, H, W, C], floating.
        pool: side of the pooling blocks, in positions; rows and columns that fill no block are not pooled, yet count
            in the means. 1: no pooling.
        scale: batch norm's scale [N], where it is known: then only the end that it asks for is computed.

    Returns:
        `high` and `low` (with `scale`: `high` alone, the minimum where scale < 0); the means unless pool is 1.

    Raises:
        ValueError: if a pooling block is larger than the map, or the layer sends more than drives (`check_layer`).
    """
    check_layer(layer)
    x = layers.look(layer, images)  # [B, H', W', D]
    batch, h, width, _ = x.shape
    check_pool(pool, (h, width))
    effective = layers.seen(layer, w)  # [N, D]
    if pool == 1:
        return Drives(layers.product(layer, x, effective).reshape(batch, -1, len(w)))
    # One product per place within a block, so that pooling is a maximum of whole arrays and no map is ever laid out.
    rows, columns = h // pool * pool, width // pool * pool
    # Rows of patches, because the gradient of a product over several leading axes leaves XLA's fast path on a CPU.
    places = [x[:, i:rows:pool, j:columns:pool].reshape(-1, x.shape[3]) for i in range(pool) for j in range(pool)]
    sign = None if scale is None else jnp.where(scale < 0, -1.0, 1.0)
    maps = [layers.product(layer, place, effective if sign is None else sign[:, None] * effective) for place in places]
    high = functools.reduce(jnp.maximum, maps).reshape(batch, -1, len(w))
    low = functools.reduce(jnp.minimum, maps).reshape(batch, -1, len(w)) if sign is None else None
    mean, square = moments(layer, x.reshape(batch, h * width, -1), effective)
    return Drives(high if sign is None else sign[None, None] * high, low, mean, square)


def shape(layer: Layer, image_shape: tuple[int, int, int], pool: int = 1) -> tuple[int, int]:
    """Say how many pooling blocks Q and neurons N a head will find, for images of shape (H, W, C).

    Raises:
        ValueError: if the window or the pooling does not fit, or the layer sends more than drives (`check_layer`).
    """
    check_layer(layer)
    g = patches.grid(layer.window, image_shape)
    check_pool(pool, g.out)
    return (g.out[0] // pool) * (g.out[1] // pool), layer.features


def check_layer(layer: Layer) -> None:
    """Refuse a layer that sends something else than what becomes of `x . w` or `x . W` in a head.

    Raises:
        ValueError: naming what it has.
    """
    if layer.send not in ('weights', 'seen'):
        own = f'sends {layer.send!r}'
    elif layer.bias or layer.norm is not None:
        own = 'has a bias' if layer.bias else 'has a norm'
    else:
        return
    raise ValueError(
        f'pooled drives know neither cosines nor projections, biases nor norms, and this layer {own}; '
        'read the layer out with hybrid.learn.'
    )


def check_pool(pool: int, positions: tuple[int, int]) -> None:
    """Refuse pooling blocks that do not fit a map.

    Raises:
        ValueError: naming both.
    """
    if not checks.is_count(pool) or pool > min(positions):
        raise ValueError(
            f'pooling blocks of {pool} do not fit maps of {positions[0]} x {positions[1]}; '
            f'use 1 <= pool <= {min(positions)}.'
        )


def moments(layer: Layer, x: Array, seen: Array) -> tuple[Array, Array]:
    """Compute each image's mean of u and u^2 from the moments of its patches, without the drives.

    `mean(u_i) = w_i . mean(x)`, `mean(u_i^2) = w_i' mean(x x') w_i`: D + D^2 numbers instead of H' W' N.

    Args:
        layer: for the precision of its drives.
        x: patches [B, H'W', D].
        seen: the weights that drives are computed with [N, D].

    Returns:
        [B, N] each.
    """
    second = jnp.einsum('bpd,bpe->bde', x, x, precision=lax.Precision.HIGHEST) / x.shape[1]
    half = jnp.einsum('bde,ne->bnd', second, seen, precision=lax.Precision.HIGHEST)
    return layers.product(layer, x.mean(1), seen), jnp.einsum('bnd,nd->bn', half, seen, precision=lax.Precision.HIGHEST)


def blockwise(f: Callable, inputs, block: int):
    """Apply f to blocks of rows, one after the other, writing into one output: memory for one block beside it.

    Args:
        f: pytree of [block, ...] -> pytree of [block, ...], row by row.
        inputs: pytree of [n, ...].
        block: rows at a time. The last block reaches back over rows already done where n is no multiple of it.
    """
    count = len(jax.tree.leaves(inputs)[0])
    block = min(block, count)
    shapes = jax.eval_shape(f, jax.tree.map(lambda a: jax.ShapeDtypeStruct((block, *a.shape[1:]), a.dtype), inputs))
    empty = jax.tree.map(lambda s: jnp.zeros((count, *s.shape[1:]), s.dtype), shapes)

    def write(number, out):
        start = jnp.minimum(number * block, count - block)
        part = f(jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, block), inputs))
        return jax.tree.map(lambda o, p: lax.dynamic_update_slice_in_dim(o, p, start, 0), out, part)

    return lax.fori_loop(0, -(-count // block), write, empty)


def cache(layer: Layer, w: Array, images: Array, pool: int = 1, *, dtype=jnp.float16, block: int = 50) -> Drives:
    """Compute a frozen layer's drives for a whole data set, once.

    Args:
        layer: the layer.
        w: its weights [N, D].
        images: [n, H, W, C], uint8 or floating.
        pool: side of the pooling blocks.
        dtype: of the kept drives; the means stay float32. float16 keeps 3 digits in half the memory: those of an image
            and neuron with one power of two, so that drives of any size fit.
        block: images at a time.

    Raises:
        ValueError: if images, pooling or block do not fit, or as `drives`.
    """
    if not isinstance(layer, Layer):
        raise ValueError(f'drives are those of a layer, not of {checks.shown(layer)}.')
    if jnp.ndim(w) != 2:
        raise ValueError(f'weights are [N, D], not of shape {jnp.shape(w)}.')
    if not checks.is_count(pool):
        raise ValueError(f'pooling blocks of {checks.shown(pool)} cannot be; use a whole number, 1 or more.')
    if not checks.is_count(block):
        raise ValueError(f'blocks of {checks.shown(block)} images cannot be; use 1 or more.')
    return _cache(layer, w, checks.check_images(images), pool, dtype, block)


@values.compiled_once('layer', 'pool', 'dtype', 'block')
def _cache(layer, w, images, pool, dtype, block):
    def part(some):
        found = drives(layer, w, layers.intensities(some), pool)
        ends = [end for end in (found.high, found.low) if end is not None]
        exponent = None
        if jnp.finfo(dtype).maxexp < jnp.finfo(jnp.float32).maxexp:
            largest = functools.reduce(jnp.maximum, [jnp.abs(end).max(1) for end in ends])  # [B, N]
            # as large as the dtype holds, less a factor of 2 for rounding up; 2**-126 is float32's smallest power
            exponent = jnp.frexp(largest)[1] - (jnp.finfo(dtype).maxexp - 1)
            exponent = jnp.maximum(exponent, -126).astype(jnp.int8)
            ends = [end.astype(jnp.float32) / _power(exponent) for end in ends]
        high, low = [*(end.astype(dtype) for end in ends), None][:2]
        mean, square = (None if a is None else a.astype(jnp.float32) for a in (found.mean, found.square))
        return Drives(high, low, mean, square, exponent)

    return blockwise(part, images, block)


def cache_bytes(layer: Layer, images: Array | jax.ShapeDtypeStruct, pool: int = 1, *, dtype=jnp.float16) -> int:
    """Say how many bytes `cache` would fill, without computing anything; images may be a mere shape."""
    w = jax.ShapeDtypeStruct((layer.features, patches.grid(layer.window, images.shape[1:]).inputs), jnp.float32)
    shapes = jax.eval_shape(lambda w, x: cache(layer, w, x, pool, dtype=dtype), w, images)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
