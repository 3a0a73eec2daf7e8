"""Networks that are Hebbian or random below and learn by gradient above: who moves, who stays, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import layers, readout, rules, transforms
from hebbjax.layers import activations, initializers, normalization, patches
from hebbjax.layers.layer import init_layer
from hebbjax.layers.network import features
from hebbjax.layers.pooling import max_pool
from hebbjax.readout import (
    GradientStage,
    Milestones,
    Schedule,
    fit_hybrid,
    gradient_layer,
    hybrid,
    linear_head,
    predict_hybrid,
)
from hebbjax.readout.head import forward_train
from hebbjax.readout.hybrid import NetworkModel, lower_answers, put_together, take_apart

SHAPE, TX = (6, 6, 1), transforms.scale_by_rate(0.1)
NORM = normalization.BatchNorm(normalization.uniform)
NET = (
    layers.Layer(
        4, rules.instar(), TX, layers.Window(3), patch_transform=patches.raw, init=initializers.fan_in,
        output='cosine', post=(activations.relu, max_pool(2), NORM),
    ),
    gradient_layer(5, layers.Window(2), post=(activations.relu, NORM, readout.Dropout(0.2)), frozen=False),
    gradient_layer(3, post=()),
)  # fmt: skip
SCHEDULE = Milestones(epochs=2, batch=30, rate=0.05)
ALONE = (dataclasses.replace(NET[0], output='weights', post=()), linear_head(3, pool=2, dropout=0.2))


@pytest.fixture(scope='module')
def state(bars):
    """A network whose running averages have seen something."""
    state = layers.init(NET, jax.random.key(0), SHAPE)
    seen = lambda stats: stats and stats._replace(mean=stats.mean + 0.1, var=stats.var + 0.1)  # noqa: E731
    posts = [tuple(part._replace(stats=seen(part.stats)) for part in own.post) for own in state.layers]
    return state._replace(layers=tuple(own._replace(post=post) for own, post in zip(state.layers, posts)))


def learn(net, states, start, bars, schedule=SCHEDULE, **how):
    """Learn by gradient, with the same images for both sides."""
    with jax.numpy_dtype_promotion('standard'):
        return fit_hybrid(net, states, GradientStage(start, schedule), jax.random.key(1), bars, bars, **how)


def moved(before, after):
    """Names of what is not as it was, bit for bit."""
    names = jax.tree_util.tree_leaves_with_path(before)
    return {
        jax.tree_util.keystr(path) for (path, a), b in zip(names, jax.tree.leaves(after)) if not np.array_equal(a, b)
    }


def chain(name, place):
    return {f'.{name}[{place}].{leaf}' for leaf in ('params.scale', 'params.shift', 'stats.mean', 'stats.var')}


@pytest.mark.parametrize('start', [1, 2])
def test_gradients_move_the_upper_layers_and_the_lower_ones_stay_bit_for_bit(state, bars, start):
    """Whatever the lower ones learned by; answers are those of the network, whoever learned which layer."""
    result = learn(NET, state.layers, start, bars)
    learned = [None, {'.w', '.threshold'} | chain('post', 1), {'.w', '.threshold'}]
    changes = [moved(*pair) for pair in zip(state.layers, result.layers, strict=True)]
    assert changes == [set()] * start + learned[start:]
    assert result.model.below == start
    if start != 1:
        return
    logits = features(NET, result.layers, bars[0])
    classes = np.asarray(predict_hybrid(result, bars[0]))
    np.testing.assert_array_equal(classes, logits.argmax(1))
    best = result.gradient.curve[result.gradient.best].validation
    np.testing.assert_allclose(np.mean(classes == bars[1]), best, atol=1e-6)


def test_without_room_lower_layers_answer_anew_and_the_same_is_learned(bars, state):
    cached, anew = learn(NET, state.layers, 1, bars), learn(NET, state.layers, 1, bars, room=0)
    assert (cached.model.below, anew.model.below) == (1, 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), anew.layers, cached.layers)


def test_room_is_bytes_of_both_sides_and_images_that_change_need_none(bars, state, monkeypatch):
    """What is trained is looked at before it is."""

    class Asked(Exception):
        pass

    def ask(model, *rest, **how):
        raise Asked(model.below)

    def below(**how):
        with pytest.raises(Asked) as asked:
            learn(NET, state.layers, 1, bars, **how)
        return asked.value.args[0]

    monkeypatch.setattr('hebbjax.readout.hybrid.fit_gradient', ask)

    size = 120 * 2 * 2 * 4 * 4  # 2 x 60 maps of 2 x 2 x 4
    assert [below(room=size), below(room=size - 1), below(augment=lambda key, images: images)] == [1, 0, 0]


def test_images_change_in_training_alone(bars):
    head = linear_head(3, norm=False, power=None)
    model = NetworkModel((head,), 0, augment=lambda key, images: 0 * images)
    params, stats = model.init([init_layer(head, jax.random.key(0), SHAPE)])
    dark, _ = model.apply(params, stats, bars[0][:5], jax.random.key(1))
    np.testing.assert_array_equal(dark, np.zeros((5, 3)))
    assert np.abs(model.apply(params, stats, bars[0][:5])[0]).min() > 0


def test_a_head_learns_from_a_cache_what_it_learns_from_drives_anew_and_moves_alone(bars):
    states = layers.init(ALONE, jax.random.key(0), SHAPE).layers
    cached, anew = (learn(ALONE, states, 1, bars, **how) for how in ({}, {'room': 0}))
    assert (cached.model.below, anew.model.below) == (1, 0)
    for result in (cached, anew):
        assert not moved(states[0], result.layers[0])
        assert {'.w', '.threshold', *chain('pre', 0)} <= moved(states[1], result.layers[1])
    losses = [[line.loss for line in result.gradient.curve] for result in (cached, anew)]
    np.testing.assert_allclose(*losses, rtol=1e-3)  # half precision in the cache
    np.testing.assert_allclose(cached.layers[1].w, anew.layers[1].w, atol=1e-3)


def test_a_twin_learns_its_filters_and_tells_bars_apart_and_compiles_once(bars, compilations):
    states, schedule = layers.init(ALONE, jax.random.key(0), SHAPE).layers, Schedule(epochs=15, batch=20, rate=0.05)
    result = learn(ALONE, states, 0, bars, schedule)
    changes = [moved(*pair) for pair in zip(states, result.layers, strict=True)]
    assert changes == [{'.w'}, {'.w', '.threshold', '.pre[0].stats.filled'} | chain('pre', 0)]
    assert np.mean(np.asarray(predict_hybrid(result, bars[0])) == np.asarray(bars[1])) > 0.85
    assert result.gradient.curve[-1].loss < 0.6 * result.gradient.curve[0].loss
    other = jax.tree.map(jnp.copy, states)
    del compilations[:]
    equal = tuple(dataclasses.replace(layer) for layer in ALONE)
    again = learn(equal, other, 0, bars, schedule)
    assert not compilations
    assert not moved(result.layers, again.layers)
    predict_hybrid(again, bars[0])
    assert not compilations


def test_what_a_layer_learns_goes_out_of_its_state_and_back(state):
    homeostatic = layers.Layer(4, rules.instar(), TX, homeostasis=layers.Homeostasis())
    own = init_layer(homeostatic, jax.random.key(0), SHAPE)
    for layer, before in zip((*NET, homeostatic), (*state.layers, own)):
        params, stats = take_apart(layer, before)
        assert (params.threshold is None) == (layer.bias is None)
        assert not moved(before, put_together(params, stats, before))
    assert put_together(*take_apart(homeostatic, own), own).threshold is own.threshold


@pytest.mark.parametrize('start, below', [(0, 0), (1, 0), (1, 1)])
def test_in_64_bits_every_model_goes_on_from_step_to_step(start, below, relaxed, x64):
    """What a step takes in has the types of what it gives; nothing is computed."""
    states = jax.eval_shape(lambda key: layers.init(ALONE, key, SHAPE).layers, jax.random.key(0))
    model = NetworkModel(ALONE, start, below)

    def step(states, images):
        inputs = lower_answers(ALONE[:1], states[:1], images, 2) if below else images
        params, stats = model.init(states)
        slopes = jax.grad(lambda params: model.apply(params, stats, inputs, jax.random.key(0))[0].sum())(params)
        return (params, stats), (slopes, model.apply(params, stats, inputs, jax.random.key(0))[1])

    before, after = jax.eval_shape(step, states, jax.ShapeDtypeStruct((20, *SHAPE), jnp.float32))
    assert jax.tree.map(lambda a: a.dtype, before) == jax.tree.map(lambda a: a.dtype, after)


def test_what_does_not_fit_is_met_with_a_sentence_before_anything_is_computed(bars, state, monkeypatch):
    images, labels, key = bars[0], np.asarray(bars[1]), jax.random.key(1)

    def refuse(says, net=NET, states=state.layers, start=1, train=bars, validation=bars, schedule=SCHEDULE, stage=None):
        stage = GradientStage(start, schedule) if stage is None else stage
        with pytest.raises(ValueError, match=says):
            fit_hybrid(net, states, stage, key, train, validation)

    def compute(*_, **__):
        pytest.fail('something was computed before the refusal')

    wide = np.zeros((60, 8, 8, 1), np.float32)
    for name in ('lower_answers', 'fit_gradient'):
        monkeypatch.setattr(hybrid, name, compute)
    refuse('start=3 is out of range; use a whole number from 0 to 2', start=3)
    with pytest.raises(ValueError, match='augment=3 is no function of a key and images; give one, or leave it'):
        fit_hybrid(NET, state.layers, GradientStage(1, SCHEDULE), key, bars, bars, augment=3)
    refuse('a stage of gradient training is a GradientStage, not 3', stage=3)
    refuse('a schedule is a Schedule or Milestones, not 3', schedule=3)
    refuse('batch=61 is out of range; use a whole number from 1 to 60', schedule=SCHEDULE._replace(batch=61))
    refuse('labels run from 0 to 3 and there are 3 classes', validation=(images, np.arange(60) % 4))
    refuse('59 labels do not fit 60 images', validation=(images, labels[:59]))
    refuse('images of 8 x 8 x 1 do not fit a layer made for 6 x 6 x 1', train=(wide, labels))
    refuse('images of 8 x 8 x 1 do not fit a layer made for 6 x 6 x 1', validation=(wide, labels))
    refuse('2 states do not fit 3 layers', states=state.layers[:2])
    monkeypatch.undo()
    result = learn(NET, state.layers, 2, bars)
    with pytest.raises(ValueError, match='images of 8 x 8 x 1 do not fit a layer made for 6 x 6 x 1'):
        predict_hybrid(result, wide)


def test_dropout_before_and_behind_the_weights_draws_apart():
    """A part in second place of `pre` and the first one of `post` once had the same key."""
    drop = readout.Dropout(0.5)
    layer = gradient_layer(4000, pre=(layers.identity, drop), post=(drop,), bias=initializers.zeros)
    state = layers.init((layer,), jax.random.key(0), (1, 1, 4000)).layers[0]
    state = state._replace(w=jnp.eye(4000), threshold=jnp.zeros(4000))
    sent, _ = forward_train(layer, state, jnp.ones((1, 1, 1, 4000)), jax.random.key(1))
    assert 0.2 < float(jnp.mean(sent > 0)) < 0.3  # half of a half
