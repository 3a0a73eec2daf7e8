"""A layer's moment of learning: look, compete, change, adapt; and what it sends on meanwhile."""

import dataclasses

import jax
import jax.numpy as jnp

from hebbjax import chunks, homeostasis, layers, norms, teachers
from hebbjax.layers import Layer, LayerState
from hebbjax.patches import glimpse
from hebbjax.types import HANDICAP, Array, Key, Sums, Told


def learn(layer: Layer, key: Key, state: LayerState, images: Array, teacher=None) -> tuple[LayerState, Array, Told]:
    """Learn from one batch: look, compete, change, adapt; and send on what the layer made of it before it did.

    Args:
        layer: the layer.
        key: draws the glimpses, and what the rule draws.
        state: what it has.
        images: [B, H, W, C], floating.
        teacher: what each neuron is told of each image [B, N], or None.

    Returns:
        The new state, what is sent on [B, H'', W'', N] (computed only where it is used, under jit), what happened.

    Raises:
        ValueError: if the teacher's signal has another shape.
    """
    if teacher is not None:
        teachers.fits(jnp.shape(teacher), len(images), layer.features)
    sums, sent, finite = gather(layer, key, state, images, teacher)
    dw, rule = layer.rule.change(sums, state.w, state.rule)  # [N, D]
    change, opt = layer.tx.update(dw, state.opt, state.w)
    w = state.w + change
    adapts = layer.homeostasis is not None
    threshold = homeostasis.adapt(layer.homeostasis, state.threshold, sums) if adapts else state.threshold
    sent, norm = (sent, None) if layer.norm is None else norms.learn(layer.norm, state.norm, sent)
    state = state._replace(w=w, rule=rule, opt=opt, threshold=threshold, norm=norm)
    finite &= jnp.array([all_finite(w), *(jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves((threshold, norm)))]).all()
    return state, sent, Told(sums.wins, jnp.max(jnp.abs(change)), finite, homeostasis.rates(sums))


def gather(layer: Layer, key: Key, state: LayerState, images: Array, teacher=None) -> tuple[Sums, Array, Array]:
    """Add up what the patches of a batch ask for, some images at a time, and send the layer's answer on.

    A batch's patches and drives are many times the batch: 49 MiB for 100 images of 14 x 14 x 100 under 3 x 3 windows.
    Their sum needs none of it at once. On a CPU a few images at a time stay in its cache from the moment they are cut
    to the moment they are added (2 cores, 196 such neurons, hard winner-take-all: 41 ms a batch where patches and one
    product of the whole batch take 86, and a convolution 124; benchmarks/NOTES.md). An accelerator wants large
    products: it gets all that fits in a share of its memory. `Layer.chunk` overrides.

    Whether everything was finite is seen here, where all of it passes, and not in what a rule makes of it: a rule adds
    the rows of winners, and maxima pass over NaN on a CPU, so that a patch with NaN in it teaches nobody and leaves no
    trace.

    Returns:
        The rule's sums; what is sent on, before any norm; and whether all pixels and drives are finite (`all_finite`).
    """
    layers.refuse_other_images(state, images.shape[1:])
    finite = jnp.bool_(True) if layers.sees_everything(layer, images.shape[1:]) else jnp.isfinite(images).all()
    sample_key, rule_key = jax.random.split(key)
    learned = layer.rule.seen(state.w)  # [N, D]
    if learned is not state.w:  # of which `learn` says whether it is finite, and small enough
        finite &= all_finite(learned)
    # the very same array where it is the same: then there is one product, not two
    sending = learned if layers.sight(layer) is layer.rule.seen else layers.seen(layer, state.w)
    images = layers.prepared(layer, images)
    threshold = handicapped(layer, jax.random.fold_in(key, HANDICAP), state)

    def add(found, number, some, told):
        sums, finite = found
        key = jax.random.fold_in(rule_key, number)
        maps = layers.windows(layer, some)  # [b, H', W', D]
        x = maps.reshape(-1, maps.shape[-1])  # [P, D]
        u = layers.product(layer, x, learned)  # [P, N]
        predicted = layers.sent_drive(layer, x, u if sending is learned else layers.product(layer, x, sending))
        sums = layer.rule.gather(sums, key, x, u, everywhere(told, len(x)), threshold)
        return (sums, finite & all_finite(x)), layers.send(layer, state, predicted.reshape(*maps.shape[:-1], -1))

    def glance(sums):
        x = layer.patch(glimpse(sample_key, layer.window, images, layer.glimpses))  # [P, D]
        u = layers.product(layer, x, learned)
        return layer.rule.gather(sums, rule_key, x, u, everywhere(teacher, len(x)), threshold), finite & all_finite(x)

    sums = layer.rule.start(state.w)
    if layer.glimpses is not None:  # few patches, drawn from the whole batch
        plain, anywhere = dataclasses.replace(layer, prepare=None, norm=None), state._replace(made_for=None)
        sums, finite = glance(sums)
        return sums, layers.respond(plain, anywhere, images), finite
    (sums, finite), sent = chunks.fold(add, (sums, finite), layers.chunk_of(layer, images.shape), images, teacher)
    return sums, sent, finite


def all_finite(rows: Array) -> Array:
    """Say whether rows are finite, and so small that no product of two of them overflows. [..., D] -> bool.

    `|x . w| <= |x| |w|`: squares of patches and of weights say it of all drives, which are many more. And sums see NaN,
    which maxima pass over on a CPU.
    """
    return jnp.isfinite(jnp.sum(rows * rows, -1)).all()


def handicapped(layer: Layer, key: Key, state: LayerState) -> Array | None:
    """Give what neurons compete less by in this step: thresholds, and the rule's handicap. [N] or None."""
    handicap = layer.rule.handicap(key, state.w, state.rule)
    if handicap is None or state.threshold is None:
        return state.threshold if handicap is None else handicap
    return state.threshold + handicap


def everywhere(teacher: Array | None, patches: int) -> Array | None:
    """Give every patch of an image what its teacher tells. [B, N] -> [P, N]."""
    return None if teacher is None else jnp.repeat(teacher, patches // len(teacher), axis=0)
