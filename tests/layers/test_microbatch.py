"""Microbatches: every image once, in order, in as many parts as it takes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbjax
from hebbjax import layers, rules, transforms
from hebbjax.layers import activations, microbatch, patches
from hebbjax.layers.kernel import AngleKernel, Decorrelate
from hebbjax.layers.lateral import Lateral
from hebbjax.layers.layer import Layer
from hebbjax.layers.patches import Window
from hebbjax.layers.pooling import gauss_pool, max_pool
from hebbjax.rules.products import assumed_backend


@pytest.mark.parametrize('size', [1, 3, 7])
def test_every_image_is_seen_once_with_its_own_teacher(size):
    images, teacher = np.arange(7, dtype=np.float32), {'label': np.arange(7, dtype=np.float32) * 10}

    def add(total, number, images, teacher):
        return total + images.sum() + 100 * jnp.asarray(number, jnp.float32), images + teacher['label']

    scan = jax.jit(lambda i, t: microbatch.scan_microbatches(add, jnp.zeros(()), size, i, t))
    total, sent = scan(images, teacher)
    parts = -(-7 // size)
    assert total == 21 + 100 * sum(range(parts))  # microbatches are numbered in order
    np.testing.assert_array_equal(sent, images * 11)


SMALL = Layer(6, rules.krotov(2), transforms.scale_by_rate(0.1), Window(3, 2, 1), lateral=Lateral(rate=0.1))
BANDS = {
    'krotov': SMALL,
    'two products': dataclasses.replace(SMALL, lateral=None, output='cosine', post=(max_pool(2), activations.relu)),
    'kernel': dataclasses.replace(SMALL, lateral=None, output=AngleKernel(), post=(gauss_pool(1), Decorrelate())),
    'tall': dataclasses.replace(
        SMALL, rule=rules.oja(rules.soft_wta(0.5)), window=Window((5, 2), (1, 3), (2, 0)), microbatch=3
    ),
}


@pytest.mark.parametrize('name', BANDS)
def test_rows_of_places_may_be_seen_in_bands(name, rng, monkeypatch):
    layer = BANDS[name]
    with jax.enable_x64(True):
        images, teacher = jnp.asarray(rng.uniform(size=(4, 11, 9, 2))), jnp.asarray(rng.random((4, 6)) - 0.2)
        state = layers.init_layer(layer, jax.random.key(0), (11, 9, 2), rng.normal(size=(6, layer_inputs(layer))))

        def learn(most):
            monkeypatch.setattr(microbatch, 'IMAGE_FLOATS', most)
            step = jax.jit(lambda *of: layers.update_layer(layer, jax.random.key(1), *of))
            return microbatch.bands_of(layer, images.shape), step(state, images, teacher)

        (one, whole), (bands, parts) = learn(2**20), learn(300)
        assert one == 1 < bands
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts)):
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-13)


def layer_inputs(layer):
    return patches.lay_grid(layer.window, (11, 9, 2)).inputs


def test_a_large_layer_of_large_images_learns_in_2_gib():
    """224 x 224 x 3 to 16,384 neurons has 3 GiB of drives an image; a top layer sends nothing on, so none are kept."""
    net = (Layer(16_384, rules.krotov(2), transforms.scale_by_rate(0.1), Window(5)),)
    state = jax.eval_shape(lambda: hebbjax.init(net, jax.random.key(0), (224, 224, 3)))
    step = jax.jit(lambda state, images: hebbjax.train_step(net, state, images))
    memory = step.lower(state, jax.ShapeDtypeStruct((64, 224, 224, 3), 'uint8')).compile().memory_analysis()
    assert memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes < 2**29


@pytest.mark.parametrize('neurons, rule', [(100, rules.instar()), (400, rules.krotov(4))], ids=['instar', 'krotov'])
def test_an_accelerator_lays_out_no_more_than_its_share(neurons, rule):
    layer, shape = Layer(neurons, rule, transforms.scale_by_rate(0.1), Window(5)), (32, 32, 3)
    state = jax.eval_shape(lambda: hebbjax.init((layer,), jax.random.key(0), shape))
    with assumed_backend('gpu'):
        size = microbatch.microbatch_of(layer, (10_007, *shape))
        assert size == 2**28 // (28 * 28 * (2 * 75 + 5 * neurons))
        step = jax.jit(lambda state, images: hebbjax.train_step((layer,), state, images))
        images = jax.ShapeDtypeStruct((2 * size, *shape), 'uint8')
        memory = step.lower(state, images).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2**30 + 4 * images.size  # as floats
