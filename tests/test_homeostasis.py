"""Thresholds that keep every neuron winning: the equation, its fixed point, and that nothing adapts in evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hebbjax
from hebbjax import Homeostasis, Window, activations, layers, learning, pooling, rules, train
from hebbjax.plasticity import ascend

key = lambda: jax.random.key(0)  # noqa: E731


def layer(**settings):
    """Six neurons with thresholds, on 3 x 3 windows."""
    own = {'rule': rules.instar(1, reduce=rules.total), 'tx': ascend(0.01), 'homeostasis': Homeostasis(0.5), **settings}
    return hebbjax.Layer(6, window=Window(3), patch=hebbjax.patches.raw, **own)


def images_of(rng, count=8):
    """Images of which some neurons see far more than others."""
    return jnp.asarray(rng.normal(size=(count, 6, 6, 2)) + 1, jnp.float32)


def test_a_step_adapts_by_the_share_won_and_learns_by_the_threshold_before(rng):
    images, one = images_of(rng), layer()
    state = layers.init(one, key(), (6, 6, 2))._replace(threshold=jnp.asarray(rng.normal(size=6), jnp.float32))
    x = np.asarray(layers.look(one, images)).reshape(-1, 18)
    v = x @ np.asarray(state.w).T - np.asarray(state.threshold)
    after, sent, told = learning.learn(one, key(), state, images)
    share = np.bincount(v.argmax(1), minlength=6) / len(v)
    np.testing.assert_allclose(after.threshold, state.threshold + 0.5 * (share - 1 / 6), rtol=1e-5)
    np.testing.assert_array_equal(told.wins, share * len(v))
    np.testing.assert_allclose(sent.reshape(len(x), -1), np.maximum(v, 0), atol=1e-5)
    np.testing.assert_allclose(after.threshold.sum(), state.threshold.sum(), atol=1e-5)  # one winner everywhere
    for i in range(6):
        moved = 0.01 * (x[v.argmax(1) == i] - np.asarray(state.w[i])).sum(0)
        np.testing.assert_allclose(after.w[i] - state.w[i], moved, atol=1e-4)


@pytest.mark.parametrize('k', [1, 2])
def test_every_neuron_comes_to_win_its_share(k, rng):
    one = layer(rule=rules.instar(k, reduce=rules.total), tx=ascend(0.0), homeostasis=Homeostasis(1.0, winners=k))
    images, state = images_of(rng, 200), layers.init(one, key(), (6, 6, 2))
    learn = jax.jit(lambda state: learning.learn(one, key(), state, images)[::2])
    first = learn(state)[1].wins
    for _ in range(150):
        state = learn(state)[0]
    x = layers.look(one, images).reshape(-1, 18)
    y = hebbjax.competition.k_wta(k)(key(), layers.product(one, x, state.w) - state.threshold[None])
    np.testing.assert_allclose(y.mean(0), k / 6, atol=0.01)
    assert np.ptp(np.asarray(first)) / first.sum() > 0.1  # without thresholds they do not


@pytest.mark.parametrize('graded', [False, True])
def test_a_nan_pixel_is_told_of(graded, rng):
    """Through masks, unit rows and thresholds alike."""
    rule = rules.instar(hebbjax.competition.graded(activations.triangle) if graded else 1)
    tx = optax.chain(ascend(0.1), hebbjax.plasticity.masked(), hebbjax.plasticity.unit_rows())
    one = layer(rule=rule, tx=tx, prepare=hebbjax.whitening.standardise)
    images = images_of(rng)
    state = layers.init(one, key(), (6, 6, 2))
    assert learning.learn(one, key(), state, images)[2].finite
    assert not learning.learn(one, key(), state, images.at[3, 2, 2, 0].set(jnp.nan))[2].finite


def test_thresholds_keep_their_sum_whatever_the_credit(rng):
    """Left to itself, homeostasis evens out what there is: three winners do not run away from a target of one."""
    one = layer(rule=rules.instar(3), homeostasis=Homeostasis(1.0), tx=ascend(0.0))
    state, images = layers.init(one, key(), (6, 6, 2)), images_of(rng, 100)
    learn = jax.jit(lambda state: learning.learn(one, key(), state, images)[::2])
    for _ in range(100):
        state, told = learn(state)
    np.testing.assert_allclose(state.threshold.sum(), 0, atol=1e-3)
    np.testing.assert_allclose(told.rates, 0.5, atol=0.02)


def test_without_homeostasis_there_is_no_threshold(rng):
    plain = layer(homeostasis=None)
    state = layers.init(plain, key(), (6, 6, 2))
    assert state.threshold is None
    assert learning.learn(plain, key(), state, images_of(rng))[0].threshold is None


def test_features_do_not_depend_on_the_order_of_evaluation_data(rng):
    """Sorted by class or not, alone or together, before and after: a trained network's answer is its own."""
    below = layer(fire=activations.triangle, pool=pooling.avg_pool(2))
    net = (below, dataclasses.replace(below, window=Window(2), pool=None))
    labels = np.repeat([0, 1], 40)
    images = jnp.asarray(rng.normal(size=(80, 6, 6, 2)) + 3 * labels[:, None, None, None], jnp.float32)
    state = train.init(net, key(), (6, 6, 2))
    epoch = train.make_train_epoch(net, batch=8)
    for _ in range(3):
        state, _ = epoch(state, images)
    assert all(float(jnp.abs(one.threshold).max()) > 0.01 for one in state.layers)
    answer = jax.jit(lambda images: train.features(net, state.layers, images))
    in_order, mixed = answer(images), rng.permutation(80)
    np.testing.assert_allclose(answer(images[mixed]), np.asarray(in_order)[mixed], atol=1e-5)
    np.testing.assert_allclose(answer(images[:1]), in_order[:1], atol=1e-5)
    np.testing.assert_array_equal(answer(images), in_order)


@pytest.mark.parametrize(
    'settings, match', [({'rate': -1.0}, 'rate -1.0 would run away'), ({'winners': 0}, 'towards 0 winners')]
)
def test_bad_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Homeostasis(**settings)


def test_more_winners_than_neurons_are_refused():
    with pytest.raises(ValueError, match='towards 7 winners cannot be reached by 6 neurons; use winners <= 6'):
        layers.init(layer(homeostasis=Homeostasis(winners=7)), key(), (6, 6, 2))
