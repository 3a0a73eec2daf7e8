"""A training as one function: the steps of `train_step`, with slopes that are right, in little memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import Window, init, layers, rules, train_step, transforms
from hebbjax.layers import Layer
from hebbjax.learned.unroll import run_steps

INSTAR = np.zeros((2, 3, 2))
INSTAR[1, 1, 0], INSTAR[0, 1, 1], INSTAR[0, 2, 1] = 1, -0.7, -0.2


def network(theta, microbatch=2):
    """A convolution by coefficients under a taught layer, both learning."""
    first = rules.taylor(theta, rules.soft_wta(0.5))
    rate = transforms.scale_by_rate(0.1)
    post = (layers.triangle, layers.avg_pool(2))
    low = Layer(3, first, rate, Window(3), post=post, init=jax.nn.initializers.normal(0.3), microbatch=microbatch)
    return low, Layer(2, rules.instar(rules.soft_wta(1.0)), rate, teacher=rules.one_hot(2))


def material(rng, steps=3):
    """Images and labels for each step."""
    images = jnp.asarray(rng.uniform(size=(steps, 4, 6, 6, 1)))
    return images, jnp.asarray(rng.integers(0, 2, (steps, 4)), jnp.int32)


def test_steps_are_those_of_train_step(rng):
    images, labels = material(rng)
    net = network(INSTAR.astype(np.float32))
    state = init(net, jax.random.key(0), (6, 6, 1))
    keep = lambda state, infos: (state.layers[0].w, infos[1].win_rates)  # noqa: E731
    last, (w, rates) = jax.jit(lambda state: run_steps(net, state, images, labels, keep=keep))(state)
    for number, batch in enumerate(zip(images, labels)):
        state, infos = train_step(net, state, *batch)
        np.testing.assert_allclose(w[number], state.layers[0].w, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(rates[number], infos[1].win_rates, rtol=1e-6)
    assert int(last.step) == 3 and run_steps(net, state, images, labels)[1] is None


@pytest.mark.parametrize('remat', [True, False])
def test_slopes_are_what_small_changes_of_a_coefficient_make(remat, rng, x64):
    images, labels = material(rng)

    starts, shapes = (rng.normal(size=(3, 9)), rng.normal(size=(2, 12))), ((6, 6, 1), (2, 2, 3))

    def loss(theta):
        net = network(theta)
        states = [layers.init_layer(layer, jax.random.key(0), shape, w) for layer, shape, w in zip(net, shapes, starts)]
        state = layers.TrainState(jnp.zeros((), jnp.int32), jax.random.key(1), tuple(states))
        state, _ = run_steps(net, state, images, labels, remat=remat)
        return sum(jnp.sum(jnp.sin(3 * layer.w)) for layer in state.layers)

    slope, step = jax.jit(jax.grad(loss))(INSTAR), 1e-5
    quick = jax.jit(loss)
    for place in ((1, 1, 0), (0, 2, 1), (1, 0, 0), (0, 0, 1)):
        moved = [INSTAR.copy() for _ in range(2)]
        moved[0][place] += step
        moved[1][place] -= step
        measured = (quick(moved[0]) - quick(moved[1])) / (2 * step)
        np.testing.assert_allclose(slope[place], measured, rtol=1e-5)
        assert abs(measured) > 1e-3


def test_memory_is_that_of_one_microbatch_whatever_the_steps():
    """Temporaries of the gradient, of 20 steps and of 2, and beside those of the steps themselves."""
    theta = jnp.asarray(INSTAR, jnp.float32)

    def outcome(theta, images):
        layer = Layer(
            8, rules.taylor(theta, rules.soft_wta(0.5)), transforms.scale_by_rate(0.1), Window(5), microbatch=4
        )
        return jnp.sum(run_steps((layer,), init((layer,), jax.random.key(0), (16, 16, 1)), images)[0].layers[0].w)

    def temporaries(f, steps):
        images = jax.ShapeDtypeStruct((steps, 32, 16, 16, 1), jnp.float32)
        return jax.jit(f).lower(theta, images).compile().memory_analysis().temp_size_in_bytes

    forward, few, many = temporaries(outcome, 20), *(temporaries(jax.grad(outcome), steps) for steps in (2, 20))
    assert many < 2 * few and many < 4 * forward


def test_rules_side_by_side_learn_as_each_alone(rng):
    images, labels = material(rng)
    thetas = jnp.asarray(np.stack([INSTAR, 2 * INSTAR]), jnp.float32)

    @partial(jax.jit, static_argnums=0)
    def final(theta_map, thetas):
        def one(theta):
            net = network(theta)
            return run_steps(net, init(net, jax.random.key(0), (6, 6, 1)), images, labels)[0].layers[0].w

        return theta_map(one)(thetas)

    np.testing.assert_allclose(final(jax.vmap, thetas)[1], final(lambda one: one, thetas[1]), rtol=1e-5, atol=1e-6)


def test_images_of_one_step_alone_are_refused():
    net = network(INSTAR.astype(np.float32))
    state = init(net, jax.random.key(0), (6, 6, 1))
    for shape in ((4, 6, 6, 1), (0, 4, 6, 6, 1)):
        with pytest.raises(ValueError, match=r'images are \[T, B, H, W, C\], T steps, .* images\[None\] are those'):
            run_steps(net, state, jnp.ones(shape))
    with pytest.raises(ValueError, match='has a teacher, which needs labels'):
        run_steps(net, state, jnp.ones((2, 4, 6, 6, 1)))


def test_labels_of_every_step_are_looked_at():
    net, images = network(INSTAR.astype(np.float32)), jnp.ones((2, 4, 6, 6, 1))
    state, labels = init(net, jax.random.key(0), (6, 6, 1)), np.zeros((2, 4), int)
    w = run_steps(net, state, images, labels)[0].layers[0].w
    for same in (labels.tolist(), labels.astype(float)):
        np.testing.assert_array_equal(run_steps(net, state, images, same)[0].layers[0].w, w)
    for bad, says in ((np.array([[0] * 4, [99] * 4]), 'labels run from'), (labels[:1], 'labels'), (labels.T, 'labels')):
        with pytest.raises(ValueError, match=says):
            run_steps(net, state, images, bad)
