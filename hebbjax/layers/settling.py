"""Answers that come back: from the layer above to the drives below (settling), from a layer to itself (recall)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import AnyArray, Array, Scalar
from hebbjax.layers.chain import PartState, apply_chain, bind_weights
from hebbjax.layers.layer import Layer, LayerState, forward, matmul_drives, output_transform, to_intensities
from hebbjax.layers.network import Network, activations_of, check_network, check_states
from hebbjax.layers.patches import extract_patches
from hebbjax.support import checks, specs


def settled_activations(
    net: Network, states: Sequence[LayerState], images: AnyArray, *, gain: Scalar, steps: int, upto: int | None = None
) -> Array:
    """Compute `activations_of` after steps in which every layer hears the last answer of the layer above.

    In steps t = 1, 2, ... layers answer from the bottom up, `a_l = post_l(u_l)`, what comes down added to their drives:

        u_l(t) = W_l x_l(t) - threshold_l + gain s_l B_l a_(l+1)(t - 1),     s_l = rms(u_l(0)) / rms(B_l a_(l+1)(0))

    B_l leads down through the weights of the layer above (`send_down`) and this layer's pooling. s_l is an image's own:
    at gain 1 what comes down first is as large as what came up. Gain 0, or no steps, is the plain network. Maps of
    layer `upto`, from 1, are given, [B, H', W', N]; None: of the top. Where an image's drives change more than twice as
    much in the last step as in the first, or are not finite, settling diverges: an error, under `jit` NaN.

    Example:
        >>> from hebbjax import init, rules, transforms
        >>> net = tuple(Layer(n, rules.oja(), transforms.scale_by_rate(0.01)) for n in (8, 4))
        >>> states = init(net, jax.random.key(0), (3, 3, 1)).layers
        >>> settled_activations(net, states, jnp.ones((2, 3, 3, 1)), gain=0.1, steps=5).shape
        (2, 1, 1, 4)
    """
    net = check_network(net)
    check_states(net, states)
    checks.check_images(images)
    checks.require(len(net) > 1, 'in a network of one layer nothing comes down; settle a network of two or more.')
    checks.check_number('gain', gain, least=0)
    checks.check_count('steps', steps, 0)
    upto = len(net) if upto is None else upto
    checks.check_count('upto', upto, 1, len(net))
    if not steps or (not checks.is_traced(gain) and gain == 0):
        return activations_of(net, states, images, upto)
    maps = _settle(net, tuple(states), images, gain, int(steps), int(upto))
    lost = 0 if checks.is_traced(maps) else int((~jnp.isfinite(maps).all((1, 2, 3))).sum())
    checks.require(not lost, f'settling diverges for {lost} images at gain={gain}; use a smaller gain.')
    return maps


@specs.compiled_once('net', 'steps', 'upto')
def _settle(net, states, images, gain, steps, upto):
    x = to_intensities(images)
    bottom = forward(net[0], states[0], x, parts=0)  # what comes up to the first layer is the same in all steps
    posts = [bind_weights(layer.post, state.w) for layer, state in zip(net, states)]
    rms = lambda maps: jnp.sqrt(jnp.mean(maps**2, (1, 2, 3), keepdims=True))  # [B, 1, 1, 1]  # noqa: E731

    def sweep(came):  # up; what came down to all layers but the last -> drives and answers of all
        drives, answers = [], []
        for number, (layer, state) in enumerate(zip(net, states)):
            u = forward(layer, state, answers[-1], parts=0) if number else bottom
            drives.append(u + came[number] if number < len(came) else u)
            answers.append(apply_chain(posts[number], state.post, drives[-1])[0])
        return drives, answers

    def descend(drives, answers):  # -> B_l a_(l+1) of all layers but the last
        above = zip(net[1:], states[1:], answers, drives[1:], answers[1:])
        return [back_through(posts[i], states[i].post, drives[i], send_down(*of)) for i, of in enumerate(above)]

    def step(before, _):
        after = sweep([gain * s * b for s, b in zip(scales, descend(*before))])
        return after, sum(jnp.sum((u - old) ** 2, (1, 2, 3)) for u, old in zip(after[0], before[0]))  # [B]

    first = sweep(())
    scales = [rms(u) / jnp.where(rms(b) > 0, rms(b), 1) for u, b in zip(first[0], descend(*first))]
    (_, answers), change = lax.scan(step, first, None, steps)  # change [steps, B]
    settles = jnp.isfinite(change[-1]) & (change[-1] <= 4 * change[0])  # squares; winners that change are within twice
    return jnp.where(settles[:, None, None, None], answers[upto - 1], jnp.nan)


def send_down(layer: Layer, state: LayerState, images: Array, drives: Array, answer: Array) -> Array:
    """Send a layer's answer back to what it looked at: unpooled, through its weights, each window at its place.

        maps[b, y s : y s + kh, x s : x s + kw] += sum_i answer_i[b, y, x] w_i

    Parts of `pre` and `post` that make maps of another shape are transposed, at the images [B, H, W, C] and drives
    [B, H', W', N] that they were given. All others, and what happens to patches, are left out: silent neurons hear,
    too. The answer [B, H'', W'', N] -> maps [B, H, W, C].
    """
    sent = back_through(bind_weights(layer.post, state.w), state.post, drives, answer)  # [B, H', W', N]
    patches = matmul_drives(layer, sent, output_transform(layer)(state.w).T)  # [B, H', W', D]
    looked_at, _ = apply_chain(layer.pre, state.pre, images)
    (maps,) = jax.linear_transpose(lambda x: extract_patches(layer.window, x), looked_at)(patches)
    return back_through(layer.pre, state.pre, images, maps)


def back_through(parts: Sequence[Any], states: Sequence[PartState], x: Array, sent: Array) -> Array:
    """Send maps back through a chain that was given x: pooling is transposed at x, what keeps the shape is left out."""
    if not parts:
        return sent
    answer, transpose = jax.vjp(lambda x: apply_chain(parts[:1], states[:1], x)[0], x)
    sent = back_through(parts[1:], states[1:], answer, sent)
    return sent if answer.shape == x.shape else transpose(sent)[0]


def recall(layer: Layer, state: LayerState, cues: Array, steps: int) -> Array:
    """Let a layer of `rules.associate` answer its own answers: `x(t) = post(W x(t - 1) - threshold)`, x(0) the cues.

    Patterns of -1 and 1 take `post=(jnp.sign,)`. All neurons answer at once, and with symmetric weights end in a fixed
    point or in two states in turn. Cues [B, H, W, C] -> the path [steps, B, H, W, C], its last entry what is recalled.
    """
    checks.check_images(cues)
    checks.check_count('steps', steps)
    return _recall(layer, state, cues, int(steps))


@specs.compiled_once('layer', 'steps')
def _recall(layer, state, cues, steps):
    def step(x, _):
        answer = forward(layer, state, x)
        came = f'a layer that answers {answer.shape[1:]} to images {x.shape[1:]} cannot answer itself'
        fits = answer.size == x.size and (answer.shape[1:3] == (1, 1) or answer.shape == x.shape)
        checks.require(fits, f'{came}; give a dense layer as many neurons as pixels.')
        return (answer.reshape(x.shape),) * 2

    return lax.scan(step, to_intensities(cues), None, steps)[1]
