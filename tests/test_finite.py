"""What is no number is told, whatever the rule, its number of winners, and the size: `StepInfo.is_finite`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbjax
from hebbjax import layers, rules, transforms
from hebbjax.interop import flax_models
from hebbjax.layers import patches
from hebbjax.layers.layer import Layer
from hebbjax.layers.patches import Window

# XLA's maxima pass over NaN on a CPU once an array is large: who wins a patch with NaN in it is -inf, so nobody.
CASES = {
    'krotov-2': (lambda: rules.krotov(2), patches.raw, 4096, 300),
    'krotov-4': (lambda: rules.krotov(4), patches.l2, 1024, 100),
    'krotov-5-top_k': (lambda: rules.krotov(5), patches.raw, 300, 60),
    'krotov-5-tournament': (lambda: rules.krotov(5, p=3.0), patches.raw, 256, 330),
    'instar': (rules.instar, patches.centred_l2, 2048, 300),
    'instar-3': (lambda: rules.instar(3), patches.raw, 500, 70),
    'hebb-everyone': (rules.hebb, patches.raw, 256, 16),
    'oja-soft': (lambda: rules.oja(rules.soft_wta(0.5)), patches.contrast, 700, 40),
    'sanger': (rules.sanger, patches.raw, 64, 30),
    'cosine': (lambda: rules.instar(metric='cosine'), patches.raw, 2000, 90),
    'euclidean': (lambda: rules.instar(metric='euclidean'), patches.raw, 1000, 200),
    'abstaining': (lambda: rules.random_abstention(rules.instar(2, metric='cosine')), patches.raw, 300, 50),
    'som': (lambda: rules.som((6, 5)), patches.raw, 400, 30),
}


@pytest.mark.parametrize('name', CASES)
def test_one_pixel_drive_or_weight_that_is_no_number_is_told_of(name, rng):
    make, prepare, count, neurons = CASES[name]
    layer = Layer(neurons, make(), transforms.scale_by_rate(0.01), patch_transform=prepare)
    learn = jax.jit(lambda state, images: layers.update_layer(layer, jax.random.key(0), state, images)[2].is_finite)
    state = layers.init_layer(layer, jax.random.key(1), (3, 3, 1))
    images = rng.uniform(0.1, 1, size=(count, 3, 3, 1)).astype(np.float32)
    w = np.asarray(state.w)
    assert learn(state, images)

    def spoiled(array, value):
        array = array.copy()
        array[tuple(rng.integers(0, array.shape))] = value
        return array

    for bad in (np.nan, np.inf, -np.inf):
        assert not learn(state, spoiled(images, bad)), bad
        assert not learn(state._replace(w=jnp.asarray(spoiled(w, bad))), images), bad
    if prepare is patches.raw and name not in ('cosine', 'abstaining', 'som'):
        huge = np.full_like(w, 1e38)  # finite, and its drives are not
        assert not learn(state._replace(w=jnp.asarray(huge)), 1e3 * images)


@pytest.mark.parametrize('how', [{}, {'patches_per_image': 2}, {'microbatch': 3}], ids=['all', 'drawn', 'microbatches'])
def test_no_pixel_is_passed_over_by_windows_that_do_not_see_it(how, rng):
    """Patches drawn may miss a pixel and strides leave some out; it is bad all the same."""
    net = (Layer(6, rules.instar(), transforms.scale_by_rate(0.1), Window(2, 3), **how),)
    state = layers.init(net, jax.random.key(0), (7, 7, 1))
    step = hebbjax.make_train_step(net)
    images = rng.uniform(size=(8, 7, 7, 1)).astype(np.float32)
    assert step(state, images)[1][0].is_finite
    for _ in range(4):
        place = tuple(rng.integers(0, images.shape))
        bad = images.copy()
        bad[place] = np.nan
        assert not step(state, bad)[1][0].is_finite


def test_a_preparation_of_ones_own_hides_no_pixel(rng):
    net = (
        Layer(6, rules.instar(), transforms.scale_by_rate(0.1), Window(2), patch_transform=lambda x: jnp.nan_to_num(x)),
    )
    state = layers.init(net, jax.random.key(0), (4, 4, 1))
    images = rng.uniform(size=(3, 4, 4, 1)).astype(np.float32)
    assert hebbjax.train_step(net, state, images)[1][0].is_finite
    images[1, 2, 2, 0] = np.nan
    assert not hebbjax.train_step(net, state, images)[1][0].is_finite


def test_what_a_layer_below_sends_is_looked_at_too(rng):
    broken = partial(jnp.where, True, jnp.nan)
    net = (
        Layer(4, rules.instar(), transforms.scale_by_rate(0.1), Window(2), post=lambda u: broken(u)),
        Layer(3, rules.instar(), transforms.scale_by_rate(0.1)),
    )
    state = layers.init(net, jax.random.key(0), (4, 4, 1))
    _, (low, high) = hebbjax.train_step(net, state, rng.integers(0, 256, (3, 4, 4, 1), np.uint8))
    assert low.is_finite and not high.is_finite


def test_a_flax_layer_hands_on_nan_where_its_images_hold_some(rng):
    """Who wins a patch with NaN in it is nobody, so that its row would not even move."""
    w = jnp.asarray(rng.normal(size=(9, 16)), jnp.float32)
    layer = Layer(16, rules.instar(), transforms.scale_by_rate(0.1))
    images = rng.uniform(size=(256, 3, 3, 1)).astype(np.float32)

    def loss(kernel, images):
        return flax_models.hebbian_gradient(layer, 0, kernel, images, images.reshape(256, 9) @ kernel).sum()

    assert np.isfinite(jax.grad(loss)(w, jnp.asarray(images))).all()
    images[3, 1, 1, 0] = np.nan
    assert np.isnan(jax.grad(loss)(w, jnp.asarray(images))).all()
