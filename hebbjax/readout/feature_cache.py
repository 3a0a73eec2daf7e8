"""What a layer hands to a head that begins with batch norm, a rising activation and max pooling: its pooled drives.

These three commute where the scale g of the norm is not negative, and turn the maximum into the minimum where it is. So
the largest *and* the smallest drive of each pooling block, with mean and variance of u over all positions, are all that
`pool(repu(norm(u)))` needs, for any g, b: exact batch norm from a cache. Of a frozen layer they are computed once: with
2 x 2 blocks half the numbers of the map, and no product in the head. It is the head's chain `pre` in another form.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array, Key
from hebbjax.layers import activations
from hebbjax.layers.chain import PartState, apply_chain
from hebbjax.layers.layer import Layer, LayerState, forward, layer_patches, matmul_drives, output_transform
from hebbjax.layers.network import Network, activations_of
from hebbjax.layers.normalization import BatchNorm
from hebbjax.layers.pooling import Pool
from hebbjax.readout.blocks import map_blocks
from hebbjax.readout.head import forward_train
from hebbjax.support import devices, specs
from hebbjax.support.checks import require

DRIVES_BLOCK = 50  # images whose drives are computed together


class PooledDrives(NamedTuple):
    """The drives of a layer, as a head wants them. Leading axis: images; Q: pooling blocks per image; N: neurons."""

    high: Array  # [B, Q, N] the largest drive of each block
    low: Array | None = None  # [B, Q, N] the smallest; None where `high` is already the end that the scale asks for
    mean: Array | None = None  # [B, N] mean of u over all positions of the image; None: blocks are single positions
    variance: Array | None = None  # [B, N] of u over all positions of the image
    exponent: Array | None = None  # [B, N] int8: of the power of two that an image's `high` and `low` were divided by

    def whole(self, end: Array) -> Array:
        """Give `high` or `low` as it was, in float32."""
        end = end.astype(jnp.float32)
        return end if self.exponent is None else end * _power(self.exponent)


class PooledParts(NamedTuple):
    """The parts at the beginning of a head's `pre` that pooled drives stand for."""

    norm: BatchNorm | None
    activation: Callable[[Array], Array]
    pool: int
    count: int  # how many parts these are  # pyright: ignore[reportIncompatibleMethodOverride]  no tuple is searched


def pooled_parts(layer: Layer, head: Layer) -> PooledParts | None:
    """Say which parts of a head pooled drives of the layer below stand for; None where the two do not go together.

    The layer has to send its drives as they are: no `post`, no thresholds, no lateral connections, no lengths.
    """
    sends_drives = not layer.post and layer.output in ('weights', 'effective')
    if not sends_drives or layer.bias or layer.homeostasis or layer.lateral or head.window.size is not None:
        return None
    norm, activation, pool, parts = None, activations.identity, 1, list(head.pre)
    if parts and isinstance(parts[0], BatchNorm):
        norm = parts.pop(0)
    if parts and getattr(parts[0], 'rising', False):
        activation = parts.pop(0)
    if parts and isinstance(parts[0], Pool) and parts[0].kind == 'max' and parts[0].tiles:
        pool = parts.pop(0).size
    return PooledParts(norm, activation, pool, len(head.pre) - len(parts))


def pooled_drives(layer: Layer, w: Array, images: Array, pool: int = 1, scale: Array | None = None) -> PooledDrives:
    """Compute pooled drives of a layer with weights w [N, D] on images [B, H, W, C], floating, after `pre`.

    `pool` is the side of blocks, in positions; rows and columns that fill no block are not pooled, yet count in the
    means. 1: no pooling, and no means. Where batch norm's `scale` [N] is known, `high` alone: minima where it is < 0.
    """
    came = 'drives of a layer with lateral connections settle, and their means and maxima are not those of its weights'
    require(layer.lateral is None, f'{came}; read its features, or leave lateral out.')
    x = layer_patches(layer, images)  # [B, H', W', D]
    batch, height, width, _ = x.shape
    effective = output_transform(layer)(w)  # [N, D]
    if pool == 1:
        return PooledDrives(matmul_drives(layer, x, effective).reshape(batch, -1, len(w)))
    if pool > min(height, width):
        raise ValueError(f'max_pool({pool}) does not fit maps of {height} x {width}; use a smaller block.')
    # One product per place within a block, so that pooling is a maximum of whole arrays and no map is ever laid out.
    rows, columns = height // pool, width // pool
    places = x[:, : rows * pool, : columns * pool].reshape(batch, rows, pool, columns, pool, -1)
    places = places.transpose(2, 4, 0, 1, 3, 5).reshape(pool**2, batch * rows * columns, -1)  # [pool^2, B Q, D]
    sign = None if scale is None else jnp.where(scale < 0, -1.0, 1.0)
    signed = effective if sign is None else sign[:, None] * effective
    ends = [end.reshape(batch, -1, len(w)) for end in block_ends(layer, places, signed, both=sign is None)]
    high, low = ends if sign is None else (sign[None, None] * ends[0], None)
    # Moments of u from those of patches, D + D^2 numbers an image instead of H' W' N:
    # mean(u_i) = w_i . mean(x), var(u_i) = w_i' mean(xc xc') w_i, xc = x - mean(x)
    x, einsum = x.reshape(batch, height * width, -1), functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    level = x.mean(1, keepdims=True)  # [B, 1, D]
    half = einsum('bde,ne->bnd', einsum('bpd,bpe->bde', x - level, x - level) / x.shape[1], effective)
    mean, var = einsum('bd,nd->bn', level[:, 0], effective), einsum('bnd,nd->bn', half, effective)  # [B, N]
    return PooledDrives(high, low, mean, var)


def block_ends(layer: Layer, places: Array, w: Array, both: bool = True) -> list[Array]:
    """Give the largest drive of each block, or `both` ends, of patches by their place in it. [p, R, D] -> [R, N] each.

    The first of equals has the slope, for which drives are computed anew: of a chain of p maxima XLA computes p^2.
    """
    kinds = ((jnp.maximum, jnp.greater), (jnp.minimum, jnp.less))[: 1 + both]
    numbers, drives = jnp.arange(len(places), dtype=jnp.int32), functools.partial(matmul_drives, layer)

    @jax.custom_gradient
    def ends(places, w) -> Any:
        def compare(found, place):
            number, u = place[0], drives(place[1], w)
            one = lambda end, at, far, beats: (far(end, u), jnp.where(beats(u, end), number, at))  # noqa: E731
            return [one(*before, *kind) for before, kind in zip(found, kinds)], None

        def give_back(slopes):
            def add(slope_w, place):
                number, x = place
                slope = sum(jnp.where(at == number, slope, 0) for (_, at), slope in zip(found, slopes))
                slope_x, more = jax.vjp(drives, x, w)[1](slope)
                return slope_w + more, slope_x

            return lax.scan(add, devices.own(jnp.zeros_like(w)), (numbers, places))[::-1]

        u = drives(places[0], w)
        first = [(u, devices.own(jnp.zeros(u.shape, jnp.int32)))] * len(kinds)
        found, _ = lax.scan(compare, first, (numbers[1:], places[1:]))
        return [end for end, _ in found], give_back

    return ends(places, w)


def forward_pooled(
    head: Layer, state: LayerState, parts: PooledParts, drives: PooledDrives, key: Key | None = None
) -> tuple[Array, LayerState]:
    """Answer pooled drives as the head answers the maps they stand for; with a key, as in gradient training.

    -> what the head sends on [B, 1, 1, K], and its state as it is then.
    """
    u, pre = drives.whole(drives.high), list(state.pre)  # [B, Q, N]
    if parts.norm is not None:
        params, stats = pre[0]
        mean, var = parts.norm.averages(stats)
        if key is not None:  # those of the batch, over all positions
            if drives.mean is None:
                mean, var = u.mean((0, 1)), u.var((0, 1))
            else:  # float32 sums may leave -1e-9 where a neuron never varies
                mean = drives.mean.mean(0)
                var = jnp.maximum(drives.variance.mean(0), 0) + jnp.square(drives.mean - mean[None]).mean(0)
            positions = u.shape[1] * parts.pool**2 if state.made_for is None else math.prod(state.made_for.shape[:2])
            mean, var = devices.moments_over_devices(mean, var)
            pre[0] = parts.norm.moved(pre[0], mean, var, len(u) * positions * devices.device_count())
        if drives.low is not None:
            u = jnp.where((params.scale >= 0)[None, None], u, drives.whole(drives.low))
        u = parts.norm.scaled(params, u, mean, var)
    # as blocks lie in the map, for parts behind that look at places; where nobody said its size, in a column
    sides = (u.shape[1], 1) if state.made_for is None else (side // parts.pool for side in state.made_for.shape[:2])
    z = parts.activation(u).reshape(len(u), *sides, u.shape[2])  # [B, H' / pool, W' / pool, N]
    # nothing in place of the parts that are done, so that those behind draw what they draw anyway
    done = parts.count
    rest = dataclasses.replace(head, pre=(*(activations.identity,) * done, *head.pre[done:]))
    rest_state = state._replace(pre=(*(PartState(),) * done, *state.pre[done:]), made_for=None)
    if key is None:
        return forward(rest, rest_state, z), state
    sent, moved = forward_train(rest, rest_state, z, key)
    return sent, state._replace(pre=(*pre[:done], *moved.pre[done:]), post=moved.post)


@devices.by_rows
@specs.compiled_once('net', 'pool')
def cache_drives(net: Network, states: tuple[LayerState, ...], images: Array, pool: int = 1) -> PooledDrives:
    """Compute, once for a whole data set, the pooled drives of the highest layer of a network that stays as it is.

    Means stay float32. As float16, drives of any size keep 3 digits: those of an image and neuron share a power of 2.
    """
    layer, state = net[-1], states[-1]

    def drives(images):
        x, _ = apply_chain(layer.pre, state.pre, activations_of(net, states, images, len(net) - 1))
        drives = pooled_drives(layer, state.w, x, pool)
        ends = [end for end in (drives.high, drives.low) if end is not None]
        largest = functools.reduce(jnp.maximum, [jnp.abs(end).max(1) for end in ends])  # [B, N]
        # as large as float16 holds, less a factor of 2 for rounding up; 2**-126 is float32's smallest power
        exponent = jnp.frexp(largest)[1] - (jnp.finfo(jnp.float16).maxexp - 1)
        exponent = jnp.maximum(exponent, -126).astype(jnp.int8)
        ends = [(end.astype(jnp.float32) / _power(exponent)).astype(jnp.float16) for end in ends]
        high, low = [*ends, None][:2]
        mean, var = (None if a is None else a.astype(jnp.float32) for a in (drives.mean, drives.variance))
        return PooledDrives(high, low, mean, var, exponent)

    return map_blocks(drives, images, DRIVES_BLOCK)


def _power(exponent: Array) -> Array:
    """Give powers of two for blocks: [B, N] -> [B, 1, N]."""
    return jnp.ldexp(jnp.ones((), jnp.float32), exponent.astype(jnp.int32))[:, None]
