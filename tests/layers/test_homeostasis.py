"""Thresholds that keep every neuron winning: the equation, its fixed point, and that nothing adapts in evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from hebbjax import layers, rules, transforms
from hebbjax.layers import Homeostasis, Layer, Window, avg_pool, standardise, triangle
from hebbjax.layers.patches import raw
from hebbjax.training.epoch import make_train_epoch

update_layer = jax.jit(layers.update_layer, static_argnums=0)
key = lambda: jax.random.key(0)  # noqa: E731


def layer(**settings):
    """Six neurons with thresholds, on 3 x 3 windows."""
    own = {
        'rule': rules.instar(1, reduce=rules.sum_over_patches),
        'tx': transforms.scale_by_rate(0.01),
        'homeostasis': Homeostasis(0.5),
        **settings,
    }
    return Layer(6, window=Window(3), patch_transform=raw, **own)


def images_of(rng, count=8):
    """Images of which some neurons see far more than others."""
    return (rng.normal(size=(count, 6, 6, 2)) + 1).astype(np.float32)


def test_a_step_adapts_by_the_share_won_and_learns_by_the_threshold_before(rng):
    images, spec = images_of(rng), layer()
    state = layers.init_layer(spec, key(), (6, 6, 2))._replace(threshold=rng.normal(size=6).astype(np.float32))
    x = np.asarray(layers.layer_patches(spec, images)).reshape(-1, 18)
    v = x @ np.asarray(state.w).T - state.threshold
    after, sent, info = update_layer(spec, key(), state, images)
    share = np.bincount(v.argmax(1), minlength=6) / len(v)
    np.testing.assert_allclose(after.threshold, state.threshold + 0.5 * (share - 1 / 6), rtol=1e-5)
    np.testing.assert_array_equal(info.win_counts, share * len(v))
    np.testing.assert_allclose(sent.reshape(len(x), -1), np.maximum(v, 0), atol=1e-5)
    np.testing.assert_allclose(after.threshold.sum(), state.threshold.sum(), atol=1e-5)  # one winner everywhere
    for i in range(6):
        moved = 0.01 * (x[v.argmax(1) == i] - np.asarray(state.w[i])).sum(0)
        np.testing.assert_allclose(after.w[i] - state.w[i], moved, atol=1e-4)


@pytest.mark.parametrize('k, winners', [(1, 1), (3, None)])
def test_every_neuron_comes_to_win_its_share(k, winners, rng):
    """Left to itself, homeostasis evens out what there is: three winners do not run away from a target of one."""
    spec = layer(
        rule=rules.instar(k, reduce=rules.sum_over_patches),
        tx=transforms.scale_by_rate(0.0),
        homeostasis=Homeostasis(1.0, winners=winners),
    )
    images, state = images_of(rng, 100), layers.init_layer(spec, key(), (6, 6, 2))

    @jax.jit
    def learn(state):
        return lax.scan(lambda state, _: layers.update_layer(spec, key(), state, images)[::2], state, None, 150)

    state, info = learn(state)
    np.testing.assert_allclose(info.win_rates[-1], k / 6, atol=0.02)
    np.testing.assert_allclose(state.threshold.sum(), 0, atol=1e-3)
    assert np.ptp(info.win_rates[0]) > 0.1  # without thresholds they do not


@pytest.mark.parametrize('graded', [False, True])
def test_a_nan_pixel_is_told_of(graded, rng):
    """Through masks, unit rows and thresholds alike."""
    spec = layer(
        rule=rules.instar(rules.graded(triangle) if graded else 1),
        tx=optax.chain(transforms.scale_by_rate(0.1), transforms.keep_pruned(), transforms.project_unit_rows()),
        pre=(standardise,),
    )
    images, state = images_of(rng), layers.init_layer(spec, key(), (6, 6, 2))
    assert update_layer(spec, key(), state, images)[2].is_finite
    images[3, 2, 2, 0] = np.nan
    assert not update_layer(spec, key(), state, images)[2].is_finite


def test_without_homeostasis_there_is_no_threshold(rng):
    state = layers.init_layer(layer(homeostasis=None), key(), (6, 6, 2))
    after = jax.eval_shape(lambda s: layers.update_layer(layer(homeostasis=None), key(), s, images_of(rng))[0], state)
    assert state.threshold is None and after.threshold is None


def test_features_do_not_depend_on_the_order_of_evaluation_data(rng):
    """Sorted by class or not, alone or together, before and after: a trained network's answer is its own."""
    below = layer(post=(triangle, avg_pool(2)))
    net = (below, dataclasses.replace(below, window=Window(2), post=(triangle,)))
    labels = np.repeat([0, 1], 40)
    images = (rng.normal(size=(80, 6, 6, 2)) + 3 * labels[:, None, None, None]).astype(np.float32)
    state = layers.init(net, key(), (6, 6, 2))
    epoch = make_train_epoch(net, batch=8)
    for _ in range(3):
        state, _ = epoch(state, jnp.asarray(images))
    assert all(np.abs(of_layer.threshold).max() > 0.01 for of_layer in state.layers)
    answer = lambda images: np.asarray(layers.features(net, state.layers, images))  # noqa: E731
    in_order, mixed = answer(images), rng.permutation(80)
    np.testing.assert_allclose(answer(images[mixed]), in_order[mixed], atol=1e-5)
    np.testing.assert_allclose(answer(images[:1]), in_order[:1], atol=1e-5)
    np.testing.assert_array_equal(answer(images), in_order)


def test_thresholds_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match='winners=7 is out of range; use a finite number <= 6'):
        layers.init_layer(layer(homeostasis=Homeostasis(winners=7)), key(), (6, 6, 2))
