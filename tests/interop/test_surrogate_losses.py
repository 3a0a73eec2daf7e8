"""Four formulations of every rule give the same change: closed form, patches and product, convolution, surrogate."""

import functools

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from hebbjax import rules
from hebbjax.interop.surrogate_losses import expression_loss, hebb_loss, instar_loss, oja_loss
from hebbjax.layers import patches
from hebbjax.layers.patches import Window
from hebbjax.rules import competition

LOSSES = {'hebb': hebb_loss, 'instar': instar_loss, 'oja': oja_loss}
LEAK = {'hebb': lambda y: 0 * y, 'instar': lambda y: y, 'oja': lambda y: y * y}
BUILD = {'hebb': rules.hebb, 'instar': rules.instar, 'oja': rules.oja}
HIGHEST = lax.Precision.HIGHEST


def convolve(images, kernel, stride, padding):
    """Drives by a convolution with a flax kernel [kh, kw, C, N]."""
    pads = [(side, side) for side in padding]
    names = ('NHWC', 'HWIO', 'NHWC')
    return lax.conv_general_dilated(images, kernel, stride, pads, dimension_numbers=names, precision=HIGHEST)


@st.composite
def cases(draw):
    """Shapes, strides, paddings, a number of winners or graded credit, and numbers for all of it."""
    size, stride = (draw(st.tuples(st.integers(1, 4), st.integers(1, 4))) for _ in range(2))
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    height, width = (draw(st.integers(max(1, k - 2 * pad), 7)) for k, pad in zip(size, padding))
    channels, batch, neurons = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(2, 6))
    k = draw(st.none() | st.integers(1, neurons))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    images = rng.normal(size=(batch, height, width, channels)).astype(np.float32)
    kernel = rng.normal(size=(*size, channels, neurons)).astype(np.float32)
    return Window(size, stride, padding), jnp.asarray(images), jnp.asarray(kernel), k, rng


@given(case=cases())
@settings(max_examples=6)
def test_four_formulations_agree(case):
    """All three rules of one case in one program, because every new shape compiles."""
    window, images, kernel, k, rng = case
    graded = k is None  # anything at all, of either sign
    shape = (len(images), *patches.lay_grid(window, images.shape[1:]).out, kernel.shape[3])
    credit = jnp.asarray(rng.normal(size=shape), jnp.float32)

    @jax.jit
    def formulations(images, kernel, credit):
        drives = lambda kernel: convolve(images, kernel, window.stride, window.padding)  # noqa: E731
        w = kernel.reshape(-1, kernel.shape[3]).T  # [N, D]
        x = patches.extract_patches(window, images).reshape(-1, w.shape[1])  # [P, D]
        u, pulled_by = jax.vjp(drives, kernel)  # [B, H', W', N]
        y = credit if graded else competition.k_wta(k)(None, u.reshape(len(x), -1)).reshape(u.shape)
        flat, changes = y.reshape(len(x), -1), {}
        for rule, leak in LEAK.items():
            leaks = leak(y).sum((0, 1, 2))
            by_rule = BUILD[rule](lambda key, u: flat, reduce=rules.sum_over_patches)
            surrogate_loss = lambda kernel, rule=rule: LOSSES[rule](drives(kernel), y, kernel)  # noqa: E731
            changes[rule] = (
                jnp.matmul(flat.T, x, precision=HIGHEST) - leaks[:, None] * w,
                by_rule.update(jax.random.key(0), x, u.reshape(len(x), -1), w, ())[0],
                (pulled_by(y)[0] - jnp.expand_dims(leaks, (0, 1, 2)) * kernel).reshape(-1, len(w)).T,
                -jax.grad(surrogate_loss)(kernel).reshape(-1, len(w)).T,
            )
        return changes, flat, x, w

    changes_of, y, x, w = formulations(images, kernel, credit)
    y, x, w = (np.asarray(a, np.float64) for a in (y, x, w))
    assert k is None or (y.sum(1) == k).all()
    for rule, changes in changes_of.items():
        leak = LEAK[rule](y).sum(0)
        closed = y.T @ x - leak[:, None] * w
        largest = np.abs(y).T @ np.abs(x) + np.abs(leak)[:, None] * np.abs(w)  # of what is added up
        for change in changes:
            assert np.max(np.abs(change - closed) / np.maximum(largest, 1e-6)) < 1e-5


@pytest.mark.parametrize('rule', LEAK)
def test_dense_layers_and_the_value_of_the_loss(rule, rng):
    x, w, y = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((9, 5), (4, 5), (9, 4)))
    value, gradient = jax.jit(jax.value_and_grad(lambda kernel: LOSSES[rule](x @ kernel, y, kernel)))(w.T)
    np.testing.assert_allclose(value, -np.sum(np.asarray(y) ** 2) / 2, rtol=1e-5)
    np.testing.assert_allclose(-gradient.T, y.T @ x - LEAK[rule](y).sum(0)[:, None] * w, atol=1e-4)


def test_the_credit_may_be_computed_from_the_drives_and_lends_no_gradient(rng):
    x, w = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((9, 5), (4, 5)))

    @functools.partial(jax.jit, static_argnums=1)
    def answer(kernel, compete):
        def loss(kernel):
            y = compete(None, u := x @ kernel)
            return instar_loss(u, y, kernel), y

        return jax.grad(loss, has_aux=True)(kernel)

    for compete in (competition.soft_wta(0.5), competition.k_wta(2)):
        gradient, y = (np.asarray(a) for a in answer(w.T, compete))
        np.testing.assert_allclose(-gradient.T, y.T @ x - y.sum(0)[:, None] * w, atol=1e-4)


def test_credit_keeps_its_digits_beside_large_drives():
    """In bfloat16, 1 - 5000 + 5000 is 0: the winners' credit must not pass through the drive."""
    x, kernel = jnp.full((2, 4), 200.0, jnp.bfloat16), jnp.full((4, 3), 6.25, jnp.bfloat16)
    y = jnp.eye(2, 3, dtype=jnp.bfloat16)
    value, gradient = jax.jit(jax.value_and_grad(lambda kernel: hebb_loss(x @ kernel, y, kernel)))(kernel)
    assert value == -1
    wanted = np.eye(2, 3).T @ np.full((2, 4), 200.0)
    np.testing.assert_array_equal(-np.asarray(gradient, np.float32).T, wanted)


def test_shapes_that_do_not_fit_are_refused():
    u = jnp.zeros((2, 3, 3, 4))
    with pytest.raises(ValueError, match=r'drives \(2, 3, 3, 4\), credit \(2, 3, 3, 1\) .* do not fit'):
        hebb_loss(u, u[..., :1], jnp.zeros((3, 3, 1, 4)))
    with pytest.raises(ValueError, match=r'kernel \(4, 3\) do not fit; .* neurons come last'):
        oja_loss(u, u, jnp.zeros((4, 3)))


# In a user's own flax model: two convolutions, each with its own loss, learning at once


class Linen(linen.Module):
    """Sows the drives of two convolutions."""

    @linen.compact
    def __call__(self, x):
        for number, features in enumerate((4, 5)):
            u = linen.Conv(features, (3, 3), use_bias=False, padding='VALID', name=f'conv{number}')(
                lax.stop_gradient(x)
            )
            self.sow('intermediates', 'drives', u)
            x = linen.relu(u)


class Nnx(nnx.Module):
    """Gives the drives of two convolutions."""

    def __init__(self, kernels):
        own = {'kernel_size': (3, 3), 'use_bias': False, 'padding': 'VALID', 'rngs': nnx.Rngs(0)}
        convs = [nnx.Conv(*kernel.shape[2:], kernel_init=lambda *_, k=kernel: k, **own) for kernel in kernels]
        self.convs = nnx.List(convs)

    def __call__(self, x):
        drives = []
        for conv in self.convs:
            drives.append(conv(lax.stop_gradient(x)))
            x = nnx.relu(drives[-1])
        return drives


def expected_changes(kernels, images):
    """What the library's rules make of both layers."""
    x, changes, rule = images, [], rules.instar(1, reduce=rules.sum_over_patches)
    for kernel in kernels:
        w = kernel.reshape(-1, kernel.shape[3]).T
        rows = patches.extract_patches(Window(3), x).reshape(-1, w.shape[1])
        changes.append(rule.update(jax.random.key(0), rows, rows @ w.T, w, ())[0])
        x = jax.nn.relu(convolve(x, kernel, (1, 1), (0, 0)))
    return changes


def test_layers_of_a_flax_model_learn_by_instar_and_descend(rng):
    images, *kernels = (jnp.asarray(rng.normal(size=size), 'f4') for size in ((2, 7, 7, 3), (3, 3, 3, 4), (3, 3, 4, 5)))
    params = {f'conv{number}': {'kernel': kernel} for number, kernel in enumerate(kernels)}
    credit = lambda u: competition.k_wta(1)(None, u.reshape(-1, u.shape[-1])).reshape(u.shape)  # noqa: E731

    def total(drives, kernels):
        return sum(instar_loss(u, credit(u), kernel) for u, kernel in zip(drives, kernels))

    def linen_loss(params):
        _, sown = Linen().apply({'params': params}, images, mutable=['intermediates'])
        return total(sown['intermediates']['drives'], [params['conv0']['kernel'], params['conv1']['kernel']])

    def nnx_loss(model):
        return total(model(images), [conv.kernel[...] for conv in model.convs])

    gradients = jax.jit(jax.grad(linen_loss))(params)
    other = nnx.jit(nnx.grad(nnx_loss))(Nnx(kernels))
    for number, dw in enumerate(jax.jit(expected_changes)(kernels, images)):
        for gradient in (gradients[f'conv{number}']['kernel'], other['convs'][number]['kernel'][...]):
            np.testing.assert_allclose(-gradient.reshape(-1, len(dw)).T, dw, rtol=1e-4, atol=1e-4)
    tx = optax.sgd(0.1)  # what descends on the loss moves by 0.1 dw
    step = tx.update(gradients, tx.init(params))[0]['conv1']['kernel']
    np.testing.assert_allclose(step.reshape(-1, 5).T, 0.1 * dw, rtol=1e-3, atol=1e-5)


# Any expression of one neuron and one patch

EXPRESSIONS = {
    'hebb': lambda x, y, w: x @ w,
    'instar': lambda x, y, w: x @ w - w @ w / 2,
    'oja': lambda x, y, w: x @ w - y * (w @ w) / 2,
}


@pytest.mark.parametrize('rule', LOSSES)
def test_the_three_losses_are_expressions(rule, rng):
    """Of maps of patches under a kernel of flax, and of a dense layer."""
    images, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((2, 5, 5, 2), (3, 3, 2, 4)))
    x = patches.extract_patches(Window(3), images)  # [B, H', W', D]
    y = jnp.asarray(rng.normal(size=(2, 3, 3, 4)), jnp.float32)

    @jax.jit
    def both(kernel, dense):
        drives = lambda kernel: convolve(images, kernel, (1, 1), (0, 0))  # noqa: E731
        loss = expression_loss(EXPRESSIONS[rule])
        named = jax.value_and_grad(lambda kernel: LOSSES[rule](drives(kernel), y, kernel))(kernel)
        return named, *(jax.value_and_grad(lambda kernel: loss(x, y, kernel))(k) for k in (kernel, dense))

    (value, gradient), *others = both(kernel, kernel.reshape(18, 4))
    for other_value, other in others:
        np.testing.assert_allclose(other_value, value, rtol=1e-6)
        np.testing.assert_allclose(other.reshape(gradient.shape), gradient, rtol=1e-4, atol=1e-4)


def test_an_expression_is_learned_by_its_derivative_and_y_lends_none(rng):
    """`-grad = sum of y ds/dw`, of an expression that is no monomial."""
    x, w = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((9, 5), (5, 4)))
    s = lambda x, y, w: jnp.tanh(y) * jnp.sum(jnp.sin(x * w))  # noqa: E731
    y = x @ w
    gradient = jax.jit(jax.grad(lambda w: expression_loss(s)(x, x @ w, w)))(w)
    slope = np.cos(x[:, :, None] * w[None]) * x[:, :, None] * np.tanh(y)[:, None]  # [P, D, N]
    np.testing.assert_allclose(-gradient, (y[:, None] * slope).sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    's, says',
    [
        (lambda x, y, w: x * w, 'is one float, not .*; sum over D'),
        (lambda x, y, w: jnp.argmax(w), 'is one float'),
        (lambda x, y, w: (x @ w, y), 'is one float'),
        (lambda x, y, w: y * jnp.sum(x), 'has no derivative by w'),
        (lambda x, y, w: jnp.sign(x @ w), 'has no derivative by w'),
        (lambda x, y, w: lax.stop_gradient(x @ w), 'has no derivative by w'),
        (lambda x, y, w: lax.while_loop(lambda v: v < 9, lambda v: 2 * v + 1, w[0] ** 2), 'cannot be differentiated'),
    ],
)
def test_what_is_no_expression_is_refused_in_one_sentence(s, says):
    x, y, kernel = jnp.ones((2, 3)), jnp.ones((2, 4)), jnp.ones((3, 4))
    with pytest.raises(ValueError, match=says) as refused:
        jax.grad(expression_loss(s), argnums=2)(x, y, kernel)
    assert '\n' not in str(refused.value)
    with pytest.raises(ValueError, match=r'patches \(2, 3\), credit \(2, 3\) and a kernel \(3, 4\) do not fit'):
        expression_loss(EXPRESSIONS['oja'])(x, x, kernel)
