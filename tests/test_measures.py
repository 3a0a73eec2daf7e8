"""What can be told of a bank of neurons, at the extremes above all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import measures

ALIKE, ONE, NOBODY = jnp.full(8, 5), jnp.zeros(8, jnp.int32).at[3].set(40), jnp.zeros(8, jnp.int32)


def test_win_share_sums_to_1_and_is_0_where_nobody_won():
    np.testing.assert_allclose(measures.win_share(jnp.array([1, 3, 0, 4])), [0.125, 0.375, 0, 0.5])
    np.testing.assert_array_equal(measures.win_share(NOBODY), 0)


def test_win_entropy_is_1_for_equals_and_0_for_a_monopoly():
    np.testing.assert_allclose(measures.win_entropy(ALIKE), 1, rtol=1e-6)
    assert measures.win_entropy(ONE) == 0
    assert measures.win_entropy(NOBODY) == 0
    assert measures.win_entropy(jnp.array([7])) == 1
    half = measures.win_entropy(jnp.array([2, 2, 0, 0]))
    np.testing.assert_allclose(half, 0.5, rtol=1e-6)


def test_distinct_winners_counts_who_ever_won():
    assert [int(measures.distinct_winners(wins)) for wins in (ALIKE, ONE, NOBODY)] == [8, 1, 0]


def test_nearest_cosine_finds_copies_whatever_their_length():
    copies = measures.nearest_cosine(jnp.array([[1.0, 2.0], [10.0, 20.0], [-2.0, 1.0]]))
    np.testing.assert_allclose(copies, [1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(measures.nearest_cosine(jnp.array([[1.0, 0.0], [-1.0, 0.0]])), -1)
    assert np.isfinite(measures.nearest_cosine(jnp.zeros((3, 4)))).all()


@pytest.mark.parametrize('p', [1.5, 2.0, 3, 4])
def test_unit_convergence_is_two_sided(rng, p):
    w = rng.normal(size=(6, 10)).astype(np.float32)
    w /= (np.abs(w) ** p).sum(1, keepdims=True) ** (1 / p)
    share = lambda w: float(measures.unit_convergence(jnp.asarray(w), p))  # noqa: E731
    assert share(w) == 1
    assert share(0 * w) == 0
    assert share(1.2 * w) == 0
    assert share(0.8 * w) == 0
    assert share(np.concatenate([w[:3], 5 * w[3:]])) == 0.5


def test_measures_are_the_same_under_jit_and_vmap(rng):
    wins, w = jnp.asarray(rng.integers(0, 9, (3, 8))), jnp.asarray(rng.normal(size=(3, 8, 5)), jnp.float32)
    for measure, over in (
        (measures.win_share, wins),
        (measures.win_entropy, wins),
        (measures.distinct_winners, wins),
        (measures.nearest_cosine, w),
        (measures.unit_convergence, w),
    ):
        together = jax.vmap(jax.jit(measure))(over)
        for one, expected in zip(together, map(measure, over)):
            np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-6)
