"""First weights: lengths, densities, and no neuron without a connection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import initial

key = lambda: jax.random.key(0)  # noqa: E731


def test_unit_rows_point_everywhere():
    w = initial.unit(key(), (500, 6))
    np.testing.assert_allclose(jnp.linalg.norm(w, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(w.mean(0), 0, atol=0.06)


@pytest.mark.parametrize('inputs', [4, 100])
def test_fan_in_draws_uniformly_between_bounds_that_shrink_with_the_inputs(inputs):
    w, bound = np.asarray(initial.fan_in(key(), (2000, inputs))), inputs**-0.5
    assert -bound <= w.min() < -0.99 * bound and 0.99 * bound < w.max() < bound
    np.testing.assert_allclose(w.std(), bound / 3**0.5, rtol=0.02)
    assert (initial.fan_in(jax.random.key(1), (2000, inputs)) != w).any()


def test_pruned_rows_have_the_density_asked_for_and_length_1():
    w = initial.pruned(0.05)(key(), (400, 900))
    np.testing.assert_allclose((w != 0).mean(), 0.05, rtol=0.02)
    np.testing.assert_allclose(jnp.linalg.norm(w, axis=1), 1, atol=1e-6)
    assert (initial.pruned(1.0)(key(), (20, 30)) != 0).all()


def test_every_neuron_keeps_a_connection():
    """Of 20 inputs at 1 %, four neurons in five would have none."""
    w = initial.pruned(0.01)(key(), (1000, 20))
    counts = np.asarray(w != 0).sum(1)
    assert counts.min() == 1
    assert 0.75 < (counts == 1).mean() < 1
    np.testing.assert_allclose(jnp.linalg.norm(w, axis=1), 1, atol=1e-6)


def test_every_key_has_its_own_pattern():
    a, b = (initial.pruned(0.3)(jax.random.key(seed), (10, 40)) != 0 for seed in (1, 2))
    assert (a != b).any()


@pytest.mark.parametrize('density', [0, -0.1, 1.5, float('nan')])
def test_a_density_that_leaves_nothing_is_refused(density):
    with pytest.raises(ValueError, match=rf'density of {density} leaves no connections'):
        initial.pruned(density)
