"""Settling against its loops and its linear theory; what is sent down; recall."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from hebbjax import layers, rules, training, transforms
from hebbjax.layers import Layer, Window, chain
from hebbjax.layers.settling import back_through

RATE = transforms.scale_by_rate(0.1)
CONVOLUTION = (
    Layer(6, rules.oja(), RATE, Window(3), post=(layers.relu, layers.max_pool(2))),
    Layer(5, rules.oja(), RATE, Window(2), pre=(layers.standardise,), post=(layers.triangle, layers.avg_pool(2))),
    Layer(4, rules.oja(), RATE, homeostasis=layers.Homeostasis(), post=(layers.send_credit(rules.k_wta(1)),)),
)


@pytest.fixture(scope='module')
def convolution():
    """States of three layers, and images."""
    states = layers.init(CONVOLUTION, jax.random.key(0), (8, 8, 1)).layers
    return states, np.random.default_rng(1).uniform(size=(5, 8, 8, 1)).astype(np.float32)


def dense(rng, neurons=(6, 4), post=(layers.relu,), scale=0.3):
    """Two dense layers with thresholds, their states, and images [7, 3, 3, 1]."""
    net = tuple(Layer(n, rules.oja(), RATE, homeostasis=layers.Homeostasis(), post=post) for n in neurons)
    weights = [scale * rng.normal(size=shape) for shape in ((neurons[0], 9), neurons[::-1])]
    shapes = (3, 3, 1), (1, 1, neurons[0])
    states = [layers.init_layer(layer, jax.random.key(0), *of) for layer, *of in zip(net, shapes, weights)]
    states = tuple(state._replace(threshold=0.1 * rng.normal(size=len(state.w))) for state in states)
    return net, states, rng.uniform(size=(7, 3, 3, 1))


@pytest.mark.parametrize('gain, steps', [(0.2, 1), (0.1, 4)])
def test_settling_equals_its_loops(gain, steps, rng, x64):
    net, states, images = dense(rng)
    weights, thresholds = ([np.asarray(getattr(state, name)) for state in states] for name in ('w', 'threshold'))
    expected, changes = reference.settle(images.reshape(7, 9), weights, thresholds, gain, steps)
    found = layers.settled_activations(net, states, images, gain=gain, steps=steps)
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-11, atol=1e-12)
    assert np.all(changes[:, -1] <= 4 * changes[:, 0]) and np.abs(expected).max() > 0.01
    plain = layers.activations_of(net, states, images)
    assert np.abs(found - plain).max() > 1e-3


def test_without_gain_or_steps_it_is_the_plain_network_bit_for_bit(convolution):
    states, images = convolution
    plain = layers.activations_of(CONVOLUTION, states, images, 2)
    for gain, steps in ((0.0, 3), (0.7, 0), (0, 0)):
        found = layers.settled_activations(CONVOLUTION, states, images, gain=gain, steps=steps, upto=2)
        np.testing.assert_array_equal(found, plain)
    traced = jax.jit(lambda gain: layers.settled_activations(CONVOLUTION, states, images, gain=gain, steps=2, upto=2))
    np.testing.assert_allclose(traced(0.0), plain, rtol=1e-6)
    assert np.abs(traced(0.1) - plain).max() > 1e-3


def linear(rng):
    """A linear network, and for every image the gain above which it diverges."""
    net, states, images = dense(rng, post=())
    w2, up = np.asarray(states[1].w), layers.forward(net[0], states[0], images)[:, 0, 0]
    told = layers.forward(net[1], states[1], up[:, None, None])[:, 0, 0] @ w2
    scale = np.sqrt(np.mean(up**2, 1) / np.mean(told**2, 1))
    return net, states, images, up, w2, scale, 1 / (scale * np.linalg.eigvalsh(w2.T @ w2)[-1])


def test_a_linear_network_tends_to_its_fixed_point(rng, x64):
    net, states, images, up, w2, scale, most = linear(rng)
    gain = 0.5 * most.min()
    found = layers.settled_activations(net, states, images, gain=gain, steps=60, upto=1)
    for u, expected, s in zip(found[:, 0, 0], np.asarray(up), scale):
        fed = expected - gain * s * np.asarray(states[1].threshold) @ w2
        np.testing.assert_allclose(u, np.linalg.solve(np.eye(6) - gain * s * w2.T @ w2, fed), rtol=1e-9)


def test_gains_at_which_it_diverges_are_told(rng, x64):
    net, states, images, *_, most = linear(rng)
    settle = lambda gain, steps=30: layers.settled_activations(net, states, images, gain=gain, steps=steps)  # noqa: E731
    assert np.isfinite(settle(0.9 * most.min())).all()
    with pytest.raises(ValueError, match=r'^settling diverges for 7 images at gain=.*; use a smaller gain\.$'):
        settle(2 * most.max())
    between = (most.min() + np.sort(most)[1]) / 2
    with pytest.raises(ValueError, match='diverges for 1 images'):
        settle(between, 3000)
    lost = np.isnan(jax.jit(lambda gain: settle(gain, 3000))(between)).all((1, 2, 3))
    np.testing.assert_array_equal(lost, most == most.min())


def test_images_settle_by_themselves_and_under_vmap_over_gains(rng, x64):
    net, states, images = dense(rng)
    settle = lambda images, gain: layers.settled_activations(net, states, images, gain=gain, steps=2)  # noqa: E731
    together = settle(images, 0.1)
    np.testing.assert_allclose(settle(images[2:3], 0.1), together[2:3], rtol=1e-12)
    gains = jax.vmap(lambda gain: settle(images, gain))(jnp.array([0.0, 0.1]))
    np.testing.assert_allclose(gains[1], together, rtol=1e-12)
    np.testing.assert_allclose(gains[0], layers.activations_of(net, states, images), rtol=1e-12)


def test_what_comes_down_is_half_the_slope_of_the_squared_answer(convolution, x64):
    """Of a layer without anything that keeps the shape of maps: pooling before, windows, pooling behind."""
    parts = {'pre': (layers.avg_pool(2),), 'post': (layers.max_pool(2),), 'patch_transform': layers.raw}
    layer, images = Layer(5, rules.oja(), RATE, Window(3, 1, 1), **parts), convolution[1].astype(np.float64)
    state = layers.init_layer(layer, jax.random.key(0), (8, 8, 1), np.random.default_rng(0).normal(size=(5, 9)))
    answer = layers.forward(layer, state, images)
    down = layers.send_down(layer, state, images, layers.forward(layer, state, images, 0), answer)
    slope = jax.grad(lambda images: (layers.forward(layer, state, images) ** 2).sum() / 2)(images)
    np.testing.assert_allclose(down, slope, rtol=1e-9, atol=1e-12)
    assert down.shape == images.shape and np.abs(down).max() > 0.1


def test_silent_neurons_hear_and_maxima_alone_get_what_was_pooled():
    x = jnp.array([[-1.0, 2.0, -3.0, -4.0]]).reshape(1, 2, 2, 1)
    parts = (layers.relu, layers.max_pool(2))
    np.testing.assert_array_equal(back_through(parts[:1], ((),), -x, x), x)
    np.testing.assert_array_equal(back_through(parts, ((), ()), x, jnp.full((1, 1, 1, 1), 5.0)).ravel(), [0, 5, 0, 0])
    states = chain.init_chain(parts, jax.random.key(0), (2, 2, 1))
    np.testing.assert_array_equal(back_through(parts, states, -abs(x), jnp.ones((1, 1, 1, 1))).ravel(), [0.25] * 4)


def test_a_network_of_one_layer_has_nothing_above(convolution):
    states, images = convolution
    with pytest.raises(ValueError, match='in a network of one layer nothing comes down; settle a network of two'):
        layers.settled_activations(CONVOLUTION[:1], states[:1], images, gain=0.1, steps=2)
    with pytest.raises(ValueError, match=r'upto=4 is out of range; use a whole number from 1 to 3'):
        layers.settled_activations(CONVOLUTION, states, images, gain=0.1, steps=2, upto=4)


# Recall


def memory(kind, patterns, epochs=1, rate=1.0):
    """A layer that stored patterns [P, H, W, 1], and its state."""
    shape = patterns.shape[1:]
    settings = {'init': jax.nn.initializers.zeros, 'post': (jnp.sign,)}
    layer = Layer(int(np.prod(shape)), rules.associate(kind), transforms.scale_by_rate(rate), **settings)
    state = layers.init((layer,), jax.random.key(0), shape).layers[0]
    learn = lambda state, _: (layers.update_layer(layer, jax.random.key(0), state, patterns)[0], None)  # noqa: E731
    return layer, jax.jit(lambda state: jax.lax.scan(learn, state, None, epochs)[0])(state)


def random_patterns(rng, count, shape=(10, 10, 1)):
    return rng.choice(np.array([-1, 1], np.float32), (count, *shape))


@pytest.mark.parametrize('kind', ['hebb', 'oja', 'delta'])
def test_few_patterns_are_recalled_from_half_and_stay(kind, rng):
    patterns = random_patterns(rng, 5)
    layer, state = memory(kind, patterns, epochs=60, rate=0.03)
    np.testing.assert_array_equal(np.diagonal(state.w), 0)
    cues = patterns.copy()
    cues[:, 5:] = 0
    path = layers.recall(layer, state, cues, 5)
    assert path.shape == (5, 5, 10, 10, 1)
    np.testing.assert_array_equal(path[-1], patterns)
    np.testing.assert_array_equal(layers.recall(layer, state, patterns, 3), [patterns] * 3)  # fixed points


def test_hebb_breaks_above_its_capacity_and_the_delta_rule_holds(rng):
    patterns = random_patterns(rng, 60, (20, 10, 1))  # 0.3 N
    wrong = {}
    for kind, epochs in (('hebb', 1), ('delta', 200)):
        layer, state = memory(kind, patterns, epochs, 0.2)
        wrong[kind] = np.mean(layers.recall(layer, state, patterns, 30)[-1] != patterns)
    assert wrong['hebb'] > 0.15 and wrong['delta'] == 0


def test_recall_is_forward_again_and_again(rng):
    layer, state = memory('hebb', random_patterns(rng, 40))
    x = cues = random_patterns(rng, 3)
    for found in layers.recall(layer, state, cues, 4):
        x = layers.forward(layer, state, x).reshape(x.shape)
        np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize('kind', ['hebb', 'delta'])
def test_a_stored_sequence_replays_from_its_first_frame(kind, rng):
    """And from half of it: the second frame is whole; a second sequence is another one."""
    frames = random_patterns(rng, 12).reshape(2, 6, 10, 10, 1)
    settings = {'init': jax.nn.initializers.zeros, 'post': (jnp.sign,)}
    net = (Layer(100, rules.associate(kind, sequences=True), transforms.scale_by_rate(0.05), **settings),)
    state, step = layers.init(net, jax.random.key(0), (10, 10, 1)), training.make_train_step(net)
    for _ in range(20):
        state, _ = step(state, frames)
    np.testing.assert_array_equal(np.diagonal(state.layers[0].w), 0)
    path = layers.recall(net[0], state.layers[0], frames[:, 0], 5)
    np.testing.assert_array_equal(path.swapaxes(0, 1), frames[:, 1:])
    cues = frames[:, 0].copy()
    cues[:, 5:] = 0
    np.testing.assert_array_equal(layers.recall(net[0], state.layers[0], cues, 5)[1:], path[1:])
    with pytest.raises(ValueError, match=r'are sequences, \[n, T, H, W, C\], not of shape \(6, 10, 10, 1\)'):
        step(state, frames[0])


def test_what_cannot_answer_itself_is_refused(convolution):
    states, images = convolution
    with pytest.raises(
        ValueError, match=r'answers \(3, 3, 6\) to images \(8, 8, 1\) cannot answer itself; give a dense'
    ):
        layers.recall(CONVOLUTION[0], states[0], images, 2)
    folded = Layer(4, rules.oja(1), RATE, Window(3), post=())  # 2 x 2 x 4 answers are as many as 4 x 4 pixels
    state = layers.init_layer(folded, jax.random.key(0), (4, 4, 1))
    with pytest.raises(ValueError, match=r'answers \(2, 2, 4\) to images \(4, 4, 1\) cannot answer itself'):
        layers.recall(folded, state, jnp.ones((1, 4, 4, 1)), 1)
    layer = Layer(4, rules.associate(), RATE)
    with pytest.raises(ValueError, match='layer 1: an associative layer of 4 neurons sees 9 pixels; give it as many'):
        layers.init((layer,), jax.random.key(0), (3, 3, 1))
    with pytest.raises(ValueError, match="kind='hopfield' is unknown; there are hebb, oja, delta"):
        rules.associate('hopfield')
