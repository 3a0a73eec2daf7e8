"""Normalisation: of each image, which any scale survives; over the batch, held to numpy and to flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax.layers import normalization
from hebbjax.layers.chain import PartState
from hebbjax.layers.normalization import BatchNorm, NormParams, NormStats

NORM = BatchNorm(epsilon=0.1)  # so large that its place is seen


def state_of(rng):
    """Scales, one of them negative, shifts and running averages of five neurons."""
    scale, shift, mean = (jnp.asarray(rng.normal(size=5), jnp.float32) for _ in range(3))
    var = jnp.asarray(rng.uniform(0.5, 2, 5), jnp.float32)
    return PartState(NormParams(scale.at[0].set(-0.7), shift), NormStats(mean, var, jnp.ones(())))


def maps_of(rng, count=3):
    """Maps of 2 x 2 positions."""
    return jnp.asarray(rng.normal(1, 2, (count, 2, 2, 5)), jnp.float32)


def test_learning_normalises_by_the_batch_and_moves_the_averages_by_the_unbiased_variance(rng):
    state, x = state_of(rng), maps_of(rng)
    sent, moved = NORM.apply(state, x, train=True)
    rows, (scale, shift, mean, var) = np.asarray(x, float).reshape(-1, 5), map(np.asarray, jax.tree.leaves(state)[:4])
    z = scale * (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 0.1) + shift
    np.testing.assert_allclose(sent.reshape(-1, 5), z, atol=1e-5)
    np.testing.assert_allclose(moved.stats.mean, 0.9 * mean + 0.1 * rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(moved.stats.var, 0.9 * var + 0.1 * rows.var(0, ddof=1), rtol=1e-5)
    assert moved.params is state.params


def test_answering_normalises_by_the_running_averages(rng):
    state, x = state_of(rng), maps_of(rng)
    scale, shift, mean, var = map(np.asarray, jax.tree.leaves(state)[:4])
    z = scale * (np.asarray(x).reshape(-1, 5) - mean) / np.sqrt(var + 0.1) + shift
    np.testing.assert_allclose(NORM.apply(state, x)[0].reshape(-1, 5), z, atol=1e-5)
    alone = NORM.apply(state, x[1:2])[0]
    np.testing.assert_allclose(alone, NORM.apply(state, x)[0][1:2], rtol=1e-6)


def test_it_is_flaxs_but_for_the_unbiased_variance(rng, relaxed):
    state, x = state_of(rng), maps_of(rng)
    flaxs = nn.BatchNorm(momentum=0.9, epsilon=0.1, use_fast_variance=False)
    given = {
        'params': {'scale': state.params.scale, 'bias': state.params.shift},
        'batch_stats': {'mean': state.stats.mean, 'var': state.stats.var},
    }
    theirs, after = flaxs.apply(given, x, use_running_average=False, mutable='batch_stats')
    sent, moved = NORM.apply(state, x, train=True)
    np.testing.assert_allclose(sent, theirs, atol=1e-5)
    np.testing.assert_allclose(moved.stats.mean, after['batch_stats']['mean'], atol=1e-6)
    biased = after['batch_stats']['var'] - 0.9 * state.stats.var
    np.testing.assert_allclose(moved.stats.var - 0.9 * state.stats.var, biased * 12 / 11, rtol=1e-4)
    np.testing.assert_allclose(
        NORM.apply(state, x)[0], flaxs.apply(given, x, use_running_average=True), rtol=1e-5, atol=1e-5
    )


def test_one_sample_has_no_variance_and_no_division_by_zero():
    state = BatchNorm().init(jax.random.key(0), (1, 1, 5))
    sent, moved = BatchNorm().apply(state, jnp.full((1, 1, 1, 5), 3.0), train=True)
    np.testing.assert_array_equal(sent, 0)
    np.testing.assert_allclose(moved.stats.var, 0.9, rtol=1e-6)


def test_gradients_flow_through_the_batchs_statistics_and_not_through_running_averages(rng):
    """What is normalised by the batch does not feel a shift of the batch, so its slopes sum to nothing."""
    state, x = state_of(rng), maps_of(rng)
    c = maps_of(rng)
    slope = jax.grad(lambda x: jnp.sum(c * NORM.apply(state, x, train=True)[0]))(x)
    np.testing.assert_allclose(slope.sum((0, 1, 2)), 0, atol=1e-4)
    assert jnp.abs(slope).max() > 0.1
    held = jax.grad(lambda x: jnp.sum(c * NORM.apply(state, x)[0]))(x)
    assert jnp.abs(held.sum((0, 1, 2))).min() > 0.1
    moved = jax.grad(lambda x: sum(a.sum() for a in NORM.apply(state, x, train=True)[1].stats))(x)
    np.testing.assert_array_equal(moved, 0)


def test_scales_start_at_one_or_are_drawn_between_0_and_1():
    first = BatchNorm(shift=-1.5).init(jax.random.key(0), (3, 3, 500))
    for a, value in zip(jax.tree.leaves(first), (1, -1.5, 0, 1, 1)):
        np.testing.assert_array_equal(a, np.full(a.shape, value))
    drawn = [BatchNorm(normalization.uniform).init(jax.random.key(seed), (500,)).params.scale for seed in (0, 1)]
    assert 0 <= drawn[0].min() < 0.02 and 0.98 < drawn[0].max() < 1
    assert not np.array_equal(*drawn)


def test_averages_that_begin_empty_are_those_of_the_batches_seen(rng):
    """After one batch they are the batch's own; before any, channels pass as they are."""
    norm, x = BatchNorm(momentum=0.99, debias=True), maps_of(rng, 4)
    state = norm.init(jax.random.key(0), (2, 2, 5))
    np.testing.assert_allclose(norm.apply(state, x)[0], x, rtol=1e-4)
    _, once = norm.apply(state, x, train=True)
    rows = np.asarray(x, float).reshape(-1, 5)
    mean, var = norm.averages(once.stats)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(var, rows.var(0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(norm.averages(norm.apply(once, x, train=True)[1].stats)[0], rows.mean(0), rtol=1e-4)


@pytest.mark.parametrize(
    'settings, says',
    [
        ({'momentum': 1.0}, r'momentum=1.0 is out of range; use a finite number >= 0 and < 1'),
        ({'momentum': -0.1}, 'momentum=-0.1'),
        ({'epsilon': 0.0}, r'epsilon=0.0 is out of range; use a finite number > 0'),
        ({'epsilon': float('nan')}, 'epsilon=nan'),
    ],
)
def test_a_norm_that_cannot_be_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        BatchNorm(**settings)


# Of each image by itself


def test_standardise_gives_every_image_mean_0_and_deviation_1_at_any_scale(rng):
    images = rng.normal(size=(5, 4, 4, 3)).astype(np.float32) + np.float32(14)
    standardise = jax.jit(normalization.standardise)
    standard = np.asarray(standardise(images), np.float64)
    np.testing.assert_allclose(standard.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(standard.std((1, 2, 3), ddof=1), 1, rtol=1e-4)
    for scale in (1e-32, 1e-20, 1e-3, 1e15, 1e36):
        np.testing.assert_allclose(standardise(np.float32(scale) * images), standard, atol=1e-4)


def test_a_constant_image_becomes_zero_with_a_slope_of_zero_and_not_noise():
    standardise = jax.jit(normalization.standardise)
    for level in (0.0, 0.3, 1.0, -2.7, 1e4):
        images = np.full((2, 32, 32, 3), level, np.float32)
        images[1, 0, 0, 0] += 0.5 + 0.1 * abs(level)
        standard = standardise(images)
        np.testing.assert_array_equal(standard[0], 0)
        np.testing.assert_allclose(np.std(standard[1]), 1, rtol=1e-2)
    slope = jax.jit(jax.grad(lambda x: (normalization.standardise(x) ** 2).sum()))(
        np.full((1, 4, 4, 3), 0.3, np.float32)
    )
    np.testing.assert_array_equal(slope, 0)
