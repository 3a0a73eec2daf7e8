"""Batch normalisation: by the batch while learning, by running averages in answering; held to numpy and to flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import norms
from hebbjax.norms import BatchNorm, NormState

NORM = BatchNorm(epsilon=0.1)  # so large that its place is seen


def state_of(rng):
    """Scales, one of them negative, shifts and running averages of five neurons."""
    scale, shift, mean = (jnp.asarray(rng.normal(size=5), jnp.float32) for _ in range(3))
    return NormState(scale.at[0].set(-0.7), shift, mean, jnp.asarray(rng.uniform(0.5, 2, 5), jnp.float32))


def maps_of(rng, count=3):
    """Maps of 2 x 2 positions."""
    return jnp.asarray(rng.normal(1, 2, (count, 2, 2, 5)), jnp.float32)


def test_learning_normalises_by_the_batch_and_moves_the_averages_by_the_unbiased_variance(rng):
    state, x = state_of(rng), maps_of(rng)
    sent, moved = norms.learn(NORM, state, x)
    rows, (scale, shift, mean, var) = np.asarray(x, float).reshape(-1, 5), map(np.asarray, state)
    z = scale * (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 0.1) + shift
    np.testing.assert_allclose(sent.reshape(-1, 5), z, atol=1e-5)
    np.testing.assert_allclose(moved.mean, 0.9 * mean + 0.1 * rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(moved.var, 0.9 * var + 0.1 * rows.var(0, ddof=1), rtol=1e-5)
    assert moved.scale is state.scale and moved.shift is state.shift


def test_answering_normalises_by_the_running_averages(rng):
    state, x = state_of(rng), maps_of(rng)
    scale, shift, mean, var = map(np.asarray, state)
    z = scale * (np.asarray(x).reshape(-1, 5) - mean) / np.sqrt(var + 0.1) + shift
    np.testing.assert_allclose(norms.apply(NORM, state, x).reshape(-1, 5), z, atol=1e-5)
    alone = norms.apply(NORM, state, x[1:2])
    np.testing.assert_allclose(alone, norms.apply(NORM, state, x)[1:2], rtol=1e-6)


def test_it_is_flaxs_but_for_the_unbiased_variance(rng, relaxed):
    state, x = state_of(rng), maps_of(rng)
    flaxs = nn.BatchNorm(momentum=0.9, epsilon=0.1, use_fast_variance=False)
    given = {
        'params': {'scale': state.scale, 'bias': state.shift},
        'batch_stats': {'mean': state.mean, 'var': state.var},
    }
    theirs, after = flaxs.apply(given, x, use_running_average=False, mutable='batch_stats')
    sent, moved = norms.learn(NORM, state, x)
    np.testing.assert_allclose(sent, theirs, atol=1e-5)
    np.testing.assert_allclose(moved.mean, after['batch_stats']['mean'], atol=1e-6)
    biased = after['batch_stats']['var'] - 0.9 * state.var
    np.testing.assert_allclose(moved.var - 0.9 * state.var, biased * 12 / 11, rtol=1e-4)
    np.testing.assert_allclose(
        norms.apply(NORM, state, x), flaxs.apply(given, x, use_running_average=True), rtol=1e-5, atol=1e-5
    )


def test_one_sample_has_no_variance_and_no_division_by_zero():
    sent, moved = norms.learn(BatchNorm(), norms.init(BatchNorm(), jax.random.key(0), 5), jnp.full((1, 1, 1, 5), 3.0))
    np.testing.assert_array_equal(sent, 0)
    np.testing.assert_allclose(moved.var, 0.9, rtol=1e-6)


def test_gradients_flow_through_the_batchs_statistics_and_not_through_running_averages(rng):
    """What is normalised by the batch does not feel a shift of the batch, so its slopes sum to nothing."""
    state, x = state_of(rng), maps_of(rng)
    c = maps_of(rng)
    slope = jax.grad(lambda x: jnp.sum(c * norms.learn(NORM, state, x)[0]))(x)
    np.testing.assert_allclose(slope.sum((0, 1, 2)), 0, atol=1e-4)
    assert jnp.abs(slope).max() > 0.1
    held = jax.grad(lambda x: jnp.sum(c * norms.apply(NORM, state, x)))(x)
    assert jnp.abs(held.sum((0, 1, 2))).min() > 0.1
    moved = jax.grad(lambda x: sum(a.sum() for a in norms.learn(NORM, state, x)[1]))(x)
    np.testing.assert_array_equal(moved, 0)


def test_scales_start_at_one_or_are_drawn_between_0_and_1():
    first = norms.init(BatchNorm(), jax.random.key(0), 500)
    for a, value in zip(first, (1, 0, 0, 1)):
        np.testing.assert_array_equal(a, np.full(500, value))
    drawn = [norms.init(BatchNorm(norms.uniform), jax.random.key(seed), 500) for seed in (0, 1)]
    scale = np.asarray(drawn[0].scale)
    assert 0 <= scale.min() < 0.02 and 0.98 < scale.max() < 1
    assert not np.array_equal(scale, drawn[1].scale)
    for one, other in zip(drawn[0][1:], first[1:]):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    'settings, says',
    [
        ({'momentum': 1.0}, 'momentum 1.0 of running averages is out of range; use 0 <= momentum < 1'),
        ({'momentum': -0.1}, 'momentum -0.1'),
        ({'epsilon': 0.0}, 'epsilon=0.0 would divide by variances that are zero; use a number above 0'),
        ({'epsilon': float('nan')}, 'epsilon=nan'),
    ],
)
def test_a_norm_that_cannot_be_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        BatchNorm(**settings)
