"""Cached drives and the head on them equal batch norm -> RePU -> max pool -> linear on the whole map."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import hebbjax
from hebbjax import frozen, layers, models, norms, patches, plasticity, readout, rules, supervised
from hebbjax.readout import Head


def layer_of(patch=patches.centred_l2, features=6, window=3):
    tx = optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(0.1))
    return hebbjax.Layer(features, rules.krotov(2), tx, hebbjax.Window(window), patch)


@pytest.fixture
def images():
    return jax.random.uniform(jax.random.key(0), (7, 9, 9, 2))


@pytest.fixture
def w():
    return jax.random.normal(jax.random.key(1), (6, 18))


@pytest.mark.parametrize('pool', [1, 2, 3])
@pytest.mark.parametrize('patch', [patches.raw, patches.centred_l2])
def test_pooled_ends_and_means_are_those_of_the_whole_map(images, w, pool, patch):
    layer = layer_of(patch)
    whole = layers.predict(layer, w, images)  # [7, 7, 7, 6]
    found = frozen.drives(layer, w, images, pool)
    high = hebbjax.max_pool(pool)(whole).reshape(7, -1, 6)
    np.testing.assert_allclose(found.high, high, rtol=1e-5, atol=1e-6)
    if pool > 1:
        np.testing.assert_allclose(found.low, -hebbjax.max_pool(pool)(-whole).reshape(7, -1, 6), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.mean, whole.mean((1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.square, (whole**2).mean((1, 2)), rtol=1e-4, atol=1e-5)
    assert found.high.shape[1:] == frozen.shape(layer, images.shape[1:], pool)


@pytest.mark.parametrize('power', [1.0, 2.0, 2.5])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('known', [True, False], ids=['scale known', 'both ends kept'])
def test_logits_equal_the_network_in_plain_loops_for_scales_of_any_sign(images, w, power, training, known):
    layer, head = layer_of(), Head(3, power=power)
    params, norm = readout.init(head, jax.random.key(2), frozen.shape(layer, images.shape[1:], 2))
    params = params._replace(
        scale=jnp.array([1.0, -1.0, 0.5, -0.2, 0.0, 2.0]), shift=jnp.linspace(-0.5, 0.5, 6), b=jnp.arange(3.0)
    )
    norm = readout.Norm(jnp.linspace(-1, 1, 6), jnp.linspace(0.5, 2, 6), jnp.ones(()))
    found = frozen.drives(layer, w, images, 2, scale=params.scale if known else None)
    assert (found.low is None) == known
    logits, _ = readout.apply(head, params, norm, found, jax.random.key(3) if training else None)
    whole = np.asarray(layers.predict(layer, w, images), np.float64)
    mean, var = (whole.mean((0, 1, 2)), whole.var((0, 1, 2))) if training else (norm.mean, norm.var)
    mean, var, scale, shift, w, b = map(np.asarray, (mean, var, params.scale, params.shift, params.w, params.b))
    wanted = reference.head_logits(whole, mean, var, scale, shift, power, 2, w, b)
    np.testing.assert_allclose(logits, wanted, rtol=2e-4, atol=2e-4)


def test_only_training_moves_the_running_averages(images, w):
    layer, head = layer_of(), Head(3)
    params, norm = readout.init(head, jax.random.key(2), frozen.shape(layer, images.shape[1:], 2))
    found = frozen.drives(layer, w, images, 2)
    _, after = readout.apply(head, params, norm, found)
    np.testing.assert_array_equal(after.mean, norm.mean)
    _, after = readout.apply(head, params, norm, found, jax.random.key(0))
    whole = layers.predict(layer, w, images)
    np.testing.assert_allclose(after.mean / after.seen, whole.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    once, _ = readout.apply(head, params, norm, found, jax.random.key(0))
    np.testing.assert_allclose(readout.apply(head, params, after, found)[0], once, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('block', [1, 3, 7, 50])
def test_a_cache_is_the_same_for_every_block_size(images, w, block):
    found = frozen.cache(layer_of(), w, images, 2, dtype=jnp.float32, block=block)
    wanted = frozen.drives(layer_of(), w, images, 2)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype, digits', [(jnp.float16, 11), (jnp.bfloat16, 8), (jnp.float32, 24)])
def test_drives_of_any_size_fit_into_a_cache(images, w, dtype, digits):
    """Each neuron has a scale of its own, from 1e-33 to 1e18: means of squares would not fit beyond it."""
    sizes = jnp.asarray([1e-33, 1e-9, 1.0, 7e5, 1e15, 1e18], jnp.float32)
    keep, drives = (
        jax.jit(partial(f, layer_of(patches.raw), pool=2)) for f in (partial(frozen.cache, dtype=dtype), frozen.drives)
    )
    for scale in (1.0, 1e-3, 256.0):
        found, wanted = (f(w=sizes[:, None] * w, images=np.float32(scale) * images) for f in (keep, drives))
        for name in ('high', 'low'):
            end, own = np.asarray(found.whole(getattr(found, name))), np.asarray(getattr(wanted, name))
            np.testing.assert_allclose(end, own, rtol=2.0**-digits, atol=2.0**-24 * np.abs(own).max((0, 1)).min())


def test_a_cache_fills_as_many_bytes_as_announced(images, w):
    found = frozen.cache(layer_of(), w, images, 2)
    assert found.high.dtype == jnp.float16
    assert frozen.cache_bytes(layer_of(), images, 2) == sum(leaf.nbytes for leaf in jax.tree.leaves(found))


def test_gradients_through_the_pooled_form_equal_those_through_the_whole_map(images, w):
    layer, head = layer_of(), Head(3, power=2.0)
    model = models.end_to_end(head, layer, images.shape[1:], 2)
    (params, _), norm = model.init(jax.random.key(4))
    truth = jnp.arange(7) % 3

    def pooled(w):
        return supervised.cross_entropy(model.apply((params, w), norm, images, jax.random.key(0))[0], truth)

    def whole(w):
        u = layers.predict(layer, w, images)
        over = {'axis': (0, 1, 2), 'keepdims': True}
        z = (u - u.mean(**over)) / jnp.sqrt(u.var(**over) + readout.EPSILON)
        z = hebbjax.max_pool(2)(jax.nn.relu(z) ** 2).reshape(7, -1, 6)
        return supervised.cross_entropy(jnp.einsum('bqn,qnk->bk', z, params.w) + params.b[None], truth)

    np.testing.assert_allclose(jax.grad(pooled)(w), jax.grad(whole)(w), rtol=1e-3, atol=1e-5)


def test_a_pool_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='pooling blocks of 8 do not fit maps of 7 x 7'):
        frozen.shape(layer_of(), (9, 9, 2), 8)


@pytest.mark.parametrize(
    'settings, says',
    [
        ({'send': 'cosine'}, "sends 'cosine'"),
        ({'send': 'projection'}, "sends 'projection'"),
        ({'bias': True}, 'has a bias'),
        ({'norm': norms.BatchNorm()}, 'has a norm'),
    ],
)
def test_layers_that_send_more_than_drives_are_refused(settings, says, images, w):
    layer = dataclasses.replace(layer_of(), **settings)
    for call in (lambda: frozen.drives(layer, w, images), lambda: frozen.shape(layer, images.shape[1:])):
        with pytest.raises(ValueError, match=f'know neither cosines .* this layer {says}; read .* with hybrid.learn'):
            call()


def test_a_cache_made_again_for_an_equal_layer_compiles_nothing(images, w, compilations):
    first = frozen.cache(layer_of(), w, images, 2, block=3)
    assert compilations
    del compilations[:]
    again = frozen.cache(layer_of(), w, images, 2, block=3)
    assert not compilations
    np.testing.assert_array_equal(again.high, first.high)
