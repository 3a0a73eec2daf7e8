"""Layers as models, and networks that are Hebbian below and learn by gradient above."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbjax
from hebbjax import activations, hybrid, initial, layers, models, norms, plasticity, prototypes, rules, train
from hebbjax.layers import Layer
from hebbjax.norms import BatchNorm
from hebbjax.patches import Window, centred_l2, raw
from hebbjax.readout import Head
from hebbjax.schedules import Milestones

SHAPE, TX = (6, 6, 1), plasticity.ascend(0.1)
BODY = {'patch': raw, 'initial': initial.fan_in, 'norm': BatchNorm(norms.uniform)}
NET = (
    Layer(4, prototypes.nearest(), TX, Window(3), send='cosine', pool=hebbjax.max_pool(2), **BODY),
    Layer(5, rules.instar(), TX, Window(2), bias=True, dropout=0.2, **BODY),
    Layer(3, rules.instar(), TX, bias=True, initial=initial.fan_in, fire=activations.identity),
)
SCHEDULE = Milestones(epochs=2, batch=10, rate=0.05)


@pytest.fixture(scope='module')
def bars():
    """Three classes: a bright row near the top, a bright column near the left, or both; and noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.uniform(0, 0.5, (60, *SHAPE))
    images[labels != 1, 1] += 0.5
    images[labels != 0, :, 1] += 0.5
    return jnp.asarray(images, jnp.float32), jnp.asarray(labels)


@pytest.fixture(scope='module')
def state(bars):
    """A network whose running averages have seen something."""
    return train.make_train_epoch(NET, batch=20)(train.init(NET, jax.random.key(0), SHAPE), bars[0])[0]


def learn(net, states, stage, bars, **how):
    """Learn by gradient, with the same images for both sides."""
    return hybrid.learn(net, states, stage, jax.random.key(1), bars, bars, **how)


def moved(before, after):
    """Names of what is not as it was, bit for bit."""
    names = jax.tree_util.tree_leaves_with_path(before)
    return {
        jax.tree_util.keystr(path) for (path, a), b in zip(names, jax.tree.leaves(after)) if not np.array_equal(a, b)
    }


@pytest.fixture(scope='module')
def headless(bars, state):
    """Two upper layers learned by gradient; the highest one gives logits."""
    with jax.numpy_dtype_promotion('standard'):
        stage = hybrid.Supervised(1, None, SCHEDULE)
        return stage, learn(NET, state.layers, stage, bars)


def test_layers_as_a_model_answer_as_the_network_does(bars, state):
    images = bars[0][:7]
    for start, below in ((0, 0), (1, 0), (2, 1)):
        model = models.of_layers(NET, state.layers, start, below)
        params, averages = model.init(jax.random.key(0))
        x = train.answers(NET, state.layers, images, below)
        found, after = model.apply(params, averages, x)
        np.testing.assert_allclose(found.reshape(7, -1), train.features(NET, state.layers, images), atol=1e-5)
        assert not moved(averages, after)


def test_in_practice_only_layers_that_learn_normalise_by_the_batch_and_drop_out(bars, state):
    images = bars[0][:7]
    model = models.of_layers(NET, state.layers, 1)
    params, averages = model.init(jax.random.key(0))
    (one, after), (again, _), (other, _) = (model.apply(params, averages, images, jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3
    assert moved(averages, after) == {'[1][0][0]', '[1][0][1]'}  # mean and variance of layer 1
    slopes = jax.grad(lambda averages: jnp.sum(model.apply(params, averages, images)[0]))(
        jax.tree.map(lambda a: a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(jnp.float32), averages)
    )
    assert all(np.all(slope == 0) for slope in jax.tree.leaves(slopes[0]))


def test_gradients_move_the_upper_layers_and_the_lower_ones_stay_bit_for_bit(state, headless):
    _, taught = headless
    learned = {'.w', '.threshold', '.norm.scale', '.norm.shift', '.norm.mean', '.norm.var'}
    found = [moved(before, after) for before, after in zip(state.layers, taught.layers, strict=True)]
    assert found == [set(), learned, {'.w', '.threshold'}]
    assert taught.below == 1
    for layer, own in zip(taught.layers[1:], taught.fitted.params, strict=True):
        assert not moved(layer.w, own.w) and not moved(layer.threshold, own.threshold)


def test_a_headless_network_predicts_the_largest_of_its_answers(bars, headless):
    stage, taught = headless
    classes = hybrid.predict(NET, taught.layers, stage, taught, bars[0])
    logits = train.features(NET, taught.layers, bars[0])
    assert logits.shape == (60, 3)
    np.testing.assert_array_equal(classes, logits.argmax(1))
    best = taught.fitted.curve[taught.fitted.best].validation
    np.testing.assert_allclose(np.mean(np.asarray(classes) == bars[1]), best, atol=1e-6)


def test_without_room_lower_layers_answer_anew_and_the_same_is_learned(bars, state, headless, relaxed):
    stage, cached = headless
    anew = learn(NET, state.layers, stage, bars, room=0)
    assert anew.below == 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), anew.layers, cached.layers)
    assert not moved(state.layers[0], anew.layers[0])
    np.testing.assert_array_equal(
        *(hybrid.predict(NET, taught.layers, stage, taught, bars[0]) for taught in (anew, cached))
    )


def test_room_is_counted_in_bytes_of_both_sides(state):
    assert hybrid.present_bytes(NET, state.layers, 1, 120, SHAPE) == 120 * 2 * 2 * 4 * 4


def test_a_head_sits_on_layers_with_norms(bars, state, relaxed):
    stage = hybrid.Supervised(1, Head(3), SCHEDULE)
    taught = learn(NET[:2], state.layers[:2], stage, bars)
    assert not moved(state.layers[0], taught.layers[0])
    assert {'.w', '.norm.mean', '.norm.scale'} <= moved(state.layers[1], taught.layers[1])
    own = taught.fitted.params[1][0]
    assert not moved(taught.layers[1].w, own.w)
    classes = hybrid.predict(NET[:2], taught.layers, stage, taught, bars[0])
    best = taught.fitted.curve[taught.fitted.best].validation
    np.testing.assert_allclose(np.mean(np.asarray(classes) == bars[1]), best, atol=1e-6)


def test_a_head_alone_needs_no_room(bars, state, relaxed):
    stage = hybrid.Supervised(2, Head(3), SCHEDULE)
    cached, anew = (learn(NET[:2], state.layers[:2], stage, bars, **how) for how in ({}, {'room': 0}))
    assert (cached.below, anew.below) == (2, 0)
    assert not moved(state.layers[:2], anew.layers)
    losses = [[line.loss for line in taught.fitted.curve] for taught in (cached, anew)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_without_a_head_some_layer_must_learn(bars, state):
    stage = hybrid.Supervised(3, None, SCHEDULE)
    with pytest.raises(ValueError, match='cannot be supervised from start=3 on; use 0 to 2'):
        learn(NET, state.layers, stage, bars)


def test_a_hebbian_bottom_with_a_top_by_gradient_tells_bars_apart(bars, relaxed):
    bottom = Layer(12, prototypes.nearest(), TX, Window(3), centred_l2, norm=BatchNorm(), pool=hebbjax.max_pool(2))
    net, epochs = (bottom, NET[2]), train.make_train_epoch((bottom,), batch=10)
    state = train.init(net, jax.random.key(0), SHAPE)
    below = state._replace(layers=state.layers[:1])
    for _ in range(3):
        below, _ = epochs(below, bars[0])
    stage = hybrid.Supervised(1, None, SCHEDULE._replace(epochs=10))
    taught = learn(net, (*below.layers, state.layers[1]), stage, bars)
    classes = np.asarray(hybrid.predict(net, taught.layers, stage, taught, bars[0]))
    assert np.mean(classes == np.asarray(bars[1])) > 0.85
    assert taught.fitted.curve[-1].loss < 0.5 * taught.fitted.curve[0].loss


def test_what_a_layer_learns_goes_out_of_its_state_and_back(state):
    for layer, before in zip(NET, state.layers):
        own, averages = models.learnable(layer, before)
        assert (own.threshold is None) != layer.bias and (own.scale is None) == (layer.norm is None)
        assert not moved(before, models.learned(before, own, averages))
    layer = Layer(4, rules.instar(), TX, homeostasis=hebbjax.Homeostasis())
    before = layers.init(layer, jax.random.key(0), SHAPE)
    own, averages = models.learnable(layer, before)
    assert own.threshold is None and models.learned(before, own, averages).threshold is before.threshold


@pytest.mark.parametrize('head', [None, Head(3, dropout=0.5)], ids=['layers', 'head'])
def test_layers_learn_by_gradient_in_64_bits(bars, head, relaxed):
    """On lower layers that answer in float64, with a rate that is cut."""
    with jax.enable_x64(True):
        sides = (bars[0][:20].astype(jnp.float64), np.arange(20) % 3)
        state = train.init(NET, jax.random.key(0), SHAPE)
        stage = hybrid.Supervised(1, head, Milestones(epochs=2, batch=10, milestones=(1,), average=2))
        taught = learn(NET, state.layers, stage, sides)
        classes = hybrid.predict(NET, taught.layers, stage, taught, sides[0])
    assert taught.layers[2].w.dtype == jnp.float64
    best = taught.fitted.curve[taught.fitted.best].validation
    np.testing.assert_allclose(np.mean(np.asarray(classes) == sides[1]), best, atol=1e-6)
