"""First weights: lengths, densities, and no neuron without a connection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax.layers import initializers

key = lambda: jax.random.key(0)  # noqa: E731


@pytest.mark.parametrize('inputs', [4, 100])
def test_fan_in_draws_uniformly_between_bounds_that_shrink_with_the_inputs(inputs):
    w, bound = np.asarray(initializers.fan_in(key(), (2000, inputs))), inputs**-0.5
    assert -bound <= w.min() < -0.99 * bound and 0.99 * bound < w.max() < bound
    np.testing.assert_allclose(w.std(), bound / 3**0.5, rtol=0.02)
    np.testing.assert_array_equal(initializers.zeros(key(), (2, inputs)), np.zeros((2, inputs)))


def draw(density, shape, seed=0):
    """Sparse directions, by one program."""
    return np.asarray(jax.jit(initializers.pruned(density), static_argnums=1)(jax.random.key(seed), shape))


def test_scaled_normal_rows_have_the_expected_length():
    w = initializers.scaled_normal(25.0)(jax.random.key(0), (200, 300))
    np.testing.assert_allclose(jnp.linalg.norm(w, axis=1).mean(), 25, rtol=0.02)
    np.testing.assert_allclose(w.mean(), 0, atol=0.03)


def test_pruned_rows_have_the_density_asked_for_and_length_1():
    w = draw(0.05, (400, 900))
    np.testing.assert_allclose((w != 0).mean(), 0.05, rtol=0.02)
    np.testing.assert_allclose(np.linalg.norm(w, axis=1), 1, atol=1e-6)
    assert (draw(1.0, (20, 30)) != 0).all()


def test_every_neuron_keeps_a_connection_and_every_key_has_its_own_pattern():
    """Of 20 inputs at 1 %, four neurons in five would have none."""
    w = draw(0.01, (1000, 20))
    counts = (w != 0).sum(1)
    assert counts.min() == 1
    assert 0.75 < (counts == 1).mean() < 1
    np.testing.assert_allclose(np.linalg.norm(w, axis=1), 1, atol=1e-6)
    assert ((draw(0.01, (1000, 20), seed=1) != 0) != (w != 0)).any()


@pytest.mark.parametrize('density', [0, -0.1, 1.5, float('nan')])
def test_a_density_that_leaves_nothing_is_refused(density):
    with pytest.raises(ValueError, match=f'density={density} is out of range; use a finite number > 0 and <= 1'):
        initializers.pruned(density)
