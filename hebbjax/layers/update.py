"""One learning step of a layer: look, compete, change, adapt; and what it sends on meanwhile."""

import math

import jax
import jax.numpy as jnp

from hebbjax.base import Array, Key, StepInfo, UpdateStats
from hebbjax.layers.chain import PartState, apply_chain, bind_weights, count_by_image
from hebbjax.layers.layer import (
    LINEAR,
    Layer,
    LayerState,
    check_image_size,
    matmul_drives,
    output_drive,
    output_transform,
    settled_drive,
    to_float32,
)
from hebbjax.layers.microbatch import bands_of, microbatch_of, scan_microbatches
from hebbjax.layers.patches import cut_bands, extract_patches, lay_grid, sample_patches
from hebbjax.rules.local import mean_over_patches
from hebbjax.rules.products import arithmetic, matmul
from hebbjax.support import checks, devices


def update_layer(
    layer: Layer, key: Key, state: LayerState, images: Array, teacher: Array | None = None, frames: int | None = None
) -> tuple[LayerState, Array, StepInfo]:
    """Learn from images [B, H, W, C], and a teacher's signal [B, N]; the key draws patches, and for the rule.

    A rule with memory learns from sequences, so many `frames` that follow each other among the images.

    -> new state, what the layer made of them before [B, H'', W'', N] (computed where it is used, under jit), info.
    """
    if teacher is not None:
        wanted = len(images), layer.features
        came = f'a teacher signal of shape {jnp.shape(teacher)} is not one number per image and neuron, here {wanted}'
        way = 'one_hot(classes) teaches as many neurons as classes, groups(K, n, common) K n + common'
        checks.require(jnp.shape(teacher) == wanted, f'{came}; {way}.')
    stats, is_finite, sent, pre, post = accumulate_layer(layer, key, state, images, teacher, frames)
    stats, misfits = devices.sum_over_devices((stats, (~is_finite).astype(jnp.int32)))
    is_finite = misfits == 0
    with arithmetic(layer.precision, layer.deterministic):
        dw, rule = layer.rule.finalize(stats, state.w, state.rule)  # [N, D]
    change, opt = layer.tx.update(dw, state.opt, state.w)
    w = state.w + change
    threshold = state.threshold if layer.homeostasis is None else layer.homeostasis.adapt(state.threshold, stats)
    lateral = None if layer.lateral is None else layer.lateral.adapt(state.lateral, stats)
    state = state._replace(w=w, rule=rule, opt=opt, threshold=threshold, pre=pre, post=post, lateral=lateral)
    moved = [jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves((threshold, pre, post, lateral))]
    is_finite &= jnp.array([all_finite(w), *moved]).all()
    win_rates = mean_over_patches(stats.weight, stats)  # [N]
    return state, sent, StepInfo(stats.win_counts, jnp.max(jnp.abs(change)), is_finite, win_rates)


def accumulate_layer(
    layer: Layer, key: Key, state: LayerState, images: Array, teacher: Array | None = None, frames: int | None = None
) -> tuple[UpdateStats, Array, Array, tuple[PartState, ...], tuple[PartState, ...]]:
    """Add up what the patches of a batch ask for, some images at a time, and send the layer's answer on.

    On a CPU a few images at a time stay in its cache from being cut to being added, twice as fast as whole batches
    (benchmarks/NOTES.md); an accelerator gets all that fits in a share of its memory.

    Whether everything was finite is seen here, where all of it passes: a rule adds the rows of winners, and maxima pass
    over NaN on a CPU, so that a patch with NaN in it teaches nobody and leaves no trace.

    -> The rule's stats; whether all pixels and drives are finite; what is sent on; `pre` and `post` as moved.
    """
    check_image_size(state, images.shape[1:])
    # windows may leave pixels out, and parts of `pre` may pass over NaN; whole numbers are finite, and not looked at
    is_finite, images = jnp.isfinite(images).all(), to_float32(images)
    sample_key, rule_key = jax.random.split(devices.own_key(key))
    w = layer.rule.effective_weights(state.w)  # [N, D]
    if w is not state.w:  # of which `update_layer` says whether it is finite, and small enough
        is_finite &= all_finite(w)
    # the very same array where it is the same: then there is one product, not two
    transform = output_transform(layer)
    w_out = w if transform is layer.rule.effective_weights else transform(state.w)
    images, pre = apply_chain(layer.pre, state.pre, images, train=True)
    settles = layer.lateral is not None  # thresholds are then in what neurons settle at
    threshold = layer.rule.competition_threshold(key, state.w, state.rule, None if settles else state.threshold)
    post = bind_weights(layer.post, state.w)
    by_image = count_by_image(post)  # parts that a microbatch passes; the others see the batch as a whole
    per_image, size, bands = layer.patches_per_image, microbatch_of(layer, images.shape), bands_of(layer, images.shape)
    if layer.rule.sequential:
        needs = 'a rule with memory learns from sequences of images, and got images that are none'
        checks.require(frames is not None, f'{needs}; train it by hebbjax.train_step or an epoch.')
        size = max(size // frames, 1) * frames  # no sequence is cut

    def learn(carry, key, x, teacher):
        stats, is_finite = carry
        u = matmul_drives(layer, x, w)  # [P, N]
        v = settled_drive(layer, state, u) if settles else u  # what neurons compete by
        if teacher is not None:  # tells every patch of an image the same
            teacher = jnp.repeat(teacher, len(x) // len(teacher), axis=0)  # [P, N]
        seen = x, v, teacher
        if layer.rule.sequential:
            maps = -1, frames, math.prod(lay_grid(layer.window, images.shape[1:]).out)  # S / positions, T, positions
            # what every place of a sequence sees, frame after frame: [S, T, D], [S, T, N] twice
            seen = jax.tree.map(lambda rows: jnp.swapaxes(rows.reshape(*maps, rows.shape[-1]), 1, 2), seen)
            seen = jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:]), seen)
        with arithmetic(layer.precision, layer.deterministic):
            before, stats = stats, layer.rule.accumulate(stats, key, *seen, threshold)
            if settles:
                stats = stats._replace(products=before.products + matmul(v.T, v))  # [N, N]
        return (stats, is_finite & all_finite(x)), (u, v)

    def look_at_microbatch(carry, number, images, teacher):
        window, parts = cut_bands(layer.window, images, bands)

        def look_at_band(carry, band, images, _):
            maps = layer.patch_transform(extract_patches(window, images[0]))  # [b, rows, W', D]
            x, u, v = maps.reshape(-1, maps.shape[-1]), None, None  # [P, D]
            if per_image is None:
                carry, (u, v) = learn(carry, jax.random.fold_in(rule_key, number * bands + band), x, teacher)
            if per_image is not None or w_out is not w:
                u = v = matmul_drives(layer, x, w_out)
            if u is v or layer.output not in LINEAR:  # else what neurons settled at, as they learned, is what they send
                # of rows, as in the rule, so that XLA computes a cosine's |x| once for both
                v = settled_drive(layer, state, output_drive(layer, x, u))
            return carry, v.reshape(1, *maps.shape[:-1], -1)

        carry, v = scan_microbatches(look_at_band, carry, 1, parts)  # [bands, b, rows, W', N]
        v = jnp.swapaxes(v, 0, 1).reshape(len(images), -1, *v.shape[3:])
        return carry, apply_chain(post[:by_image], state.post[:by_image], v, train=True)[0]

    stats = layer.rule.init_stats(state.w)
    stats = stats._replace(products=jnp.zeros_like(state.lateral)) if settles else stats
    carry = devices.own(stats), is_finite
    if per_image is not None:  # few patches, from the whole batch
        x = layer.patch_transform(sample_patches(sample_key, layer.window, images, per_image))  # [P, D]
        carry, _ = learn(carry, rule_key, x, teacher)
    carry, sent = scan_microbatches(look_at_microbatch, carry, size, images, teacher)
    sent, moved = apply_chain(post[by_image:], state.post[by_image:], sent, train=True)
    return *carry, sent, pre, (*state.post[:by_image], *moved)


def all_finite(rows: Array) -> Array:
    """Say whether rows [..., D] are finite, and so small that no product of two of them overflows.

    `|x . w| <= |x| |w|`: squares of patches and of weights say it of all drives, which are many more; sums see NaN.
    """
    return jnp.isfinite(jnp.sum(rows * rows, -1)).all()
