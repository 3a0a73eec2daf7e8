"""Pooled drives stand for the maps of a layer: heads answer both alike, learn alike, and a cache holds any size."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hebbjax import layers, rules, transforms
from hebbjax.layers import activations, patches
from hebbjax.layers.layer import drives, forward, init_layer
from hebbjax.layers.normalization import BatchNorm, standardise
from hebbjax.layers.pooling import avg_pool, max_pool
from hebbjax.readout import forward_train, gradient_layer, linear_head
from hebbjax.readout.blocks import map_blocks
from hebbjax.readout.feature_cache import cache_drives, forward_pooled, pooled_drives, pooled_parts

LAYER = layers.Layer(
    6, rules.krotov(2), transforms.scale_by_rate(0.1), layers.Window(3),
    patch_transform=patches.centred_l2, post=(), output='effective',
)  # fmt: skip
HEADS = {
    'pooled': linear_head(3, pool=2, power=2.5, dropout=0.5),
    'positions': linear_head(3, power=1.0, dropout=0.5),
    'no norm': linear_head(3, norm=False, power=None, pool=3),
    'means': gradient_layer(3, pre=(BatchNorm(), activations.relu, avg_pool(2)), post=()),
    'overlapping': gradient_layer(3, pre=(activations.relu, max_pool(3, 1, 1)), post=()),
    'maxima of maxima': gradient_layer(3, pre=(activations.relu, max_pool(2), max_pool(2, 1)), post=()),
}
pooled = jax.jit(pooled_drives, static_argnums=(0, 3))


@pytest.fixture(scope='module')
def images():
    return jax.random.uniform(jax.random.key(0), (7, 9, 9, 2))


@pytest.fixture(scope='module')
def w():
    return jax.random.normal(jax.random.key(1), (6, 18))


def head_state(head):
    """A head's state for maps of 7 x 7 that has seen something, and has scales of any sign."""
    state = init_layer(head, jax.random.key(2), (7, 7, 6))
    if not isinstance(head.pre[0], BatchNorm):
        return state
    norm = state.pre[0]
    scale, shift = jnp.array([1.0, -1.0, 0.5, -0.2, 0.3, 2.0]), jnp.linspace(-0.5, 0.5, 6)
    mean, var = jnp.linspace(-0.1, 0.1, 6), jnp.linspace(0.5, 2, 6)
    norm = norm._replace(
        params=norm.params._replace(scale=scale, shift=shift),
        stats=norm.stats._replace(mean=mean, var=var, filled=jnp.float32(1)),
    )
    return state._replace(pre=(norm, *state.pre[1:]))


@functools.partial(jax.jit, static_argnames=('head', 'form'))
def learn(head, form, state, w, images):
    """What a head answers in evaluation and in training, where its averages are then, and all slopes."""
    parts, key = pooled_parts(LAYER, head), jax.random.key(3)

    def answer(w, params, key):
        own = state._replace(w=params[0])
        if params[1] is not None:
            own = own._replace(pre=(own.pre[0]._replace(params=params[1]), *own.pre[1:]))
        if form == 'maps':
            maps = drives(LAYER, w, images)
            return (forward(head, own, maps), own) if key is None else forward_train(head, own, maps, key)
        scale = None if form == 'both ends' or params[1] is None else params[1].scale
        found = pooled_drives(LAYER, w, images, parts.pool, scale)
        assert (found.low is None) == (scale is not None or parts.pool == 1)
        return forward_pooled(head, own, parts, found, key)

    def loss(w, params):
        logits, after = answer(w, params, key)
        logits = logits.reshape(len(images), -1)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(7) % 3)
        return losses.mean(), (logits, [part.stats for part in after.pre])

    params = state.w, state.pre[0].params if isinstance(head.pre[0], BatchNorm) else None
    slopes, told = jax.grad(loss, (0, 1), has_aux=True)(w, params)
    return answer(w, params, None)[0], told, slopes


@pytest.mark.parametrize('form', ['both ends', 'scale known'])
@pytest.mark.parametrize('name', HEADS)
def test_pooled_drives_are_answered_and_learned_from_as_whole_maps(name, form, images, w):
    """Logits, dropout, moved averages and slopes of filters and head, for scales of any sign; 7 rows are no 3 x 2."""
    head = HEADS[name]
    if form == 'scale known' and name != 'pooled':
        return
    maps, other = (learn(head, how, head_state(head), w, images) for how in ('maps', form))
    for a, b in zip(jax.tree.leaves(maps), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize('both', [False, True])
def test_slopes_of_maxima_take_no_more_maxima_where_blocks_are_large(both, w):
    """XLA computes each link of a chain of maxima anew where it is differentiated: p^2 of them for p places."""
    x, scale = jnp.ones((2, 14, 14, 2)), None if both else jnp.ones(len(w))  # maps of 12 x 12
    top = lambda w, pool: sum(end.sum() for end in pooled_drives(LAYER, w, x, pool, scale)[: 1 + both])  # noqa: E731
    maxima = lambda pool: jax.jit(jax.grad(top), static_argnums=1).lower(w, pool).compile().as_text().count('maximum(')  # noqa: E731
    assert 0 < maxima(6) <= maxima(2)


def test_of_equal_drives_the_first_has_the_slope(w):
    layer, x = dataclasses.replace(LAYER, patch_transform=patches.raw, output='weights'), jnp.ones((2, 7, 7, 2))
    highest = jax.jit(jax.grad(lambda x: pooled_drives(layer, w, x, 2, jnp.ones(len(w))).high.sum()))
    at_first = jax.jit(jax.grad(lambda x: drives(layer, w, x)[:, 0:4:2, 0:4:2].sum()))  # maps of 5 x 5
    np.testing.assert_allclose(highest(x), at_first(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('precision', ['highest', 'bfloat16'])
@pytest.mark.parametrize('spread', [0.02, 0.003])
def test_variance_is_right_of_drives_far_from_zero_whatever_they_are_rounded_to(precision, spread, w):
    """`mean(u^2) - mean(u)^2` would be wrong by a third of the smaller spread; float32's own drives are by 1e-3."""
    images = 0.9 + spread * jax.random.normal(jax.random.key(2), (60, 9, 9, 2))
    layer = dataclasses.replace(LAYER, patch_transform=patches.raw, output='weights', precision=precision)
    found = pooled(layer, abs(w), images, 3)
    mean, wanted = np.asarray(found.mean, float), patch_variance(images, abs(w))
    np.testing.assert_allclose(found.variance.mean(0) + mean.var(0), wanted, rtol=1e-3)


def patch_variance(images, w):
    """Variance of drives over all positions of all images, in float64."""
    x = np.asarray(patches.extract_patches(LAYER.window, images), float).reshape(-1, w.shape[1])
    return (x @ np.asarray(w, float).T).var(0)


def test_parts_that_commute_with_maxima_are_told_from_others():
    def parts(pre, **settings):
        layer = dataclasses.replace(LAYER, **settings)
        found = pooled_parts(layer, dataclasses.replace(HEADS['pooled'], pre=pre))
        return None if found is None else (found.norm is not None, found.pool, found.count)

    assert parts(HEADS['pooled'].pre) == (True, 2, 3)
    assert parts((BatchNorm(), activations.relu)) == (True, 1, 2)
    assert parts((max_pool(2),)) == (False, 2, 1)
    assert parts((BatchNorm(), jnp.abs, max_pool(2))) == (True, 1, 1)
    assert parts((BatchNorm(), avg_pool(2))) == (True, 1, 1)
    assert parts((standardise, max_pool(2))) == (False, 1, 0)
    for settings in (
        {'output': 'cosine'}, {'output': 'projection'}, {'bias': layers.initializers.zeros},
        {'post': (activations.relu,)}, {'homeostasis': layers.Homeostasis()},
    ):  # fmt: skip
        assert parts(HEADS['pooled'].pre, **settings) is None
    assert pooled_parts(LAYER, dataclasses.replace(HEADS['pooled'], window=layers.Window(2))) is None


def test_drives_of_any_size_fit_into_a_cache(images, w):
    """Each neuron has a scale of its own, from 1e-33 to 1e18: means of squares would not fit beyond it."""
    layer = dataclasses.replace(LAYER, patch_transform=patches.raw, output='weights')
    sizes = jnp.asarray([1e-33, 1e-9, 1.0, 7e5, 1e15, 1e18], jnp.float32)[:, None]
    state = init_layer(layer, jax.random.key(0), (9, 9, 2), sizes * w)
    for scale in (1.0, 1e-3, 256.0):
        x = np.float32(scale) * images
        found, wanted = cache_drives((layer,), (state,), x, 2), pooled(layer, state.w, x, 2)
        assert found.high.dtype == jnp.float16
        for name in ('high', 'low'):
            end, own = np.asarray(found.whole(getattr(found, name))), np.asarray(getattr(wanted, name))
            np.testing.assert_allclose(end, own, rtol=2.0**-11, atol=2.0**-24 * np.abs(own).max((0, 1)).min())
        np.testing.assert_allclose(found.variance, wanted.variance, rtol=1e-5)


@pytest.mark.parametrize('block', [1, 3, 7, 50])
def test_blocks_cover_every_row(block):
    rows = {'a': jnp.arange(7.0), 'b': jnp.arange(14).reshape(7, 2)}
    found = map_blocks(lambda some: (some['a'] * 2, some['b'].sum(1)), rows, block)
    np.testing.assert_array_equal(found[0], 2 * rows['a'])
    np.testing.assert_array_equal(found[1], rows['b'].sum(1))


def test_a_cache_passes_what_lies_below_and_compiles_once_for_equal_layers(images, compilations):
    below = layers.Layer(4, rules.hebb(), transforms.scale_by_rate(0.1), layers.Window(2))
    states = tuple(
        init_layer(layer, jax.random.key(1), shape) for layer, shape in ((below, (9, 9, 2)), (LAYER, (8, 8, 4)))
    )
    found = cache_drives((below, LAYER), states, images, 2)
    maps = forward(LAYER, states[1], forward(below, states[0], images))
    np.testing.assert_allclose(found.whole(found.high), max_pool(2)(maps).reshape(7, 9, 6), rtol=1e-3, atol=1e-4)
    del compilations[:]
    cache_drives((dataclasses.replace(below), dataclasses.replace(LAYER)), states, images, 2)
    assert not compilations


def test_a_pool_that_does_not_fit_is_refused(images, w):
    with pytest.raises(ValueError, match=r'max_pool\(8\) does not fit maps of 7 x 7; use a smaller block'):
        pooled(LAYER, w, images, 8)
