"""One learning step of a layer: look, compete, change, adapt; and what it sends on meanwhile."""

import jax
import jax.numpy as jnp

from hebbjax.base import Array, Key, StepInfo, UpdateStats
from hebbjax.layers import microbatch
from hebbjax.layers.chain import apply_chain, count_by_image
from hebbjax.layers.homeostasis import adapt_threshold
from hebbjax.layers.layer import (
    Layer,
    LayerState,
    apply_post,
    check_image_size,
    layer_patches,
    matmul_drives,
    microbatch_of,
    output_drive,
    output_transform,
    sees_everything,
)
from hebbjax.layers.patches import sample_patches
from hebbjax.rules import teachers
from hebbjax.rules.local import mean_over_patches


def update_layer(
    layer: Layer, key: Key, state: LayerState, images: Array, teacher=None
) -> tuple[LayerState, Array, StepInfo]:
    """Learn from one batch: look, compete, change, adapt; and send on what the layer made of it before it did.

    Images are [B, H, W, C], floating; a teacher tells each neuron of each image, [B, N]. The key draws patches, and
    what the rule draws. -> new state, what is sent on [B, H'', W'', N] (computed where it is used, under jit), info.
    """
    if teacher is not None:
        teachers.check_signal(jnp.shape(teacher), len(images), layer.features)
    stats, sent, is_finite, pre, post = accumulate_layer(layer, key, state, images, teacher)
    dw, rule = layer.rule.finalize(stats, state.w, state.rule)  # [N, D]
    change, opt = layer.tx.update(dw, state.opt, state.w)
    w = state.w + change
    threshold = state.threshold
    if layer.homeostasis is not None:
        threshold = adapt_threshold(layer.homeostasis, threshold, stats)
    state = state._replace(w=w, rule=rule, opt=opt, threshold=threshold, pre=pre, post=post)
    moved = [jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves((threshold, pre, post))]
    is_finite &= jnp.array([all_finite(w), *moved]).all()
    win_rates = mean_over_patches(stats.weight, stats)  # [N]
    return state, sent, StepInfo(stats.win_counts, jnp.max(jnp.abs(change)), is_finite, win_rates)


def accumulate_layer(
    layer: Layer, key: Key, state: LayerState, images: Array, teacher=None
) -> tuple[UpdateStats, Array, Array, tuple, tuple]:
    """Add up what the patches of a batch ask for, some images at a time, and send the layer's answer on.

    A batch's patches and drives are many times the batch: 49 MiB for 100 images of 14 x 14 x 100 under 3 x 3 windows.
    Their sum needs none of it at once. On a CPU a few images at a time stay in its cache from being cut to being added
    (2 cores, 196 such neurons, hard winner-take-all: 41 ms a batch where patches and one product of the whole batch
    take 86, and a convolution 124; benchmarks/NOTES.md). An accelerator wants large products: it gets all that fits in
    a share of its memory. `Layer.microbatch` overrides.

    Whether everything was finite is seen here, where all of it passes, and not in what a rule makes of it: a rule adds
    the rows of winners, and maxima pass over NaN on a CPU, so that a patch with NaN in it teaches nobody and leaves no
    trace.

    Returns:
        The rule's stats; what is sent on; whether all pixels and drives are finite (`all_finite`); states of the
        chains `pre` and `post` as the batch moved them.
    """
    check_image_size(state, images.shape[1:])
    is_finite = jnp.bool_(True) if sees_everything(layer, images.shape[1:]) else jnp.isfinite(images).all()
    sample_key, rule_key = jax.random.split(key)
    w = layer.rule.effective_weights(state.w)  # [N, D]
    if w is not state.w:  # of which `update_layer` says whether it is finite, and small enough
        is_finite &= all_finite(w)
    # the very same array where it is the same: then there is one product, not two
    transform = output_transform(layer)
    w_out = w if transform is layer.rule.effective_weights else transform(state.w)
    images, pre = apply_chain(layer.pre, state.pre, images, train=True)
    threshold = layer.rule.competition_threshold(key, state.w, state.rule, state.threshold)
    some = count_by_image(layer.post)  # parts that a microbatch passes; the others see the batch as a whole

    def learn(carry, microbatch_key, x, teacher):
        stats, is_finite = carry
        u = matmul_drives(layer, x, w)  # [P, N]
        stats = layer.rule.accumulate(stats, microbatch_key, x, u, repeat_teacher(teacher, len(x)), threshold)
        return (stats, is_finite & all_finite(x)), u

    def send(u):
        return apply_post(layer, state, u, slice(0, some), train=True)[0]

    def add(carry, number, images, teacher):
        maps = layer_patches(layer, images)  # [b, H', W', D]
        x = maps.reshape(-1, maps.shape[-1])  # [P, D]
        carry, u = learn(carry, jax.random.fold_in(rule_key, number), x, teacher)
        u = u if w_out is w else matmul_drives(layer, x, w_out)
        u = output_drive(layer, x, u)  # of rows, as in the rule, so that XLA computes a cosine's |x| once for both
        return carry, send(u.reshape(*maps.shape[:-1], -1))

    def answer(carry, number, images, teacher):
        maps = layer_patches(layer, images)
        return carry, send(output_drive(layer, maps, matmul_drives(layer, maps, w_out)))

    carry, size = (layer.rule.init_stats(state.w), is_finite), microbatch_of(layer, images.shape)
    if layer.patches_per_image is None:
        carry, sent = microbatch.scan_microbatches(add, carry, size, images, teacher)
    else:  # few patches, drawn from the whole batch
        x = layer.patch_transform(sample_patches(sample_key, layer.window, images, layer.patches_per_image))  # [P, D]
        carry, _ = learn(carry, rule_key, x, teacher)
        sent = microbatch.scan_microbatches(answer, (), size, images)[1]
    sent, moved = apply_chain(layer.post[some:], state.post[some:], sent, train=True)
    return carry[0], sent, carry[1], pre, (*state.post[:some], *moved)


def all_finite(rows: Array) -> Array:
    """Say whether rows are finite, and so small that no product of two of them overflows. [..., D] -> bool.

    `|x . w| <= |x| |w|`: squares of patches and of weights say it of all drives, which are many more. And sums see NaN,
    which maxima pass over on a CPU.
    """
    return jnp.isfinite(jnp.sum(rows * rows, -1)).all()


def repeat_teacher(teacher: Array | None, patches: int) -> Array | None:
    """Give every patch of an image what its teacher tells. [B, N] -> [P, N]."""
    return None if teacher is None else jnp.repeat(teacher, patches // len(teacher), axis=0)
