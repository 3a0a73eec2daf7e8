"""What can be told of a bank of neurons, at the extremes above all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import diagnostics

ALIKE, NOBODY = np.full(8, 5, np.int32), np.zeros(8, np.int32)
MONOPOLY = 40 * np.eye(8, dtype=np.int32)[3]
win_share, win_entropy, distinct_winners, nearest_cosine = map(
    jax.jit, (diagnostics.win_share, diagnostics.win_entropy, diagnostics.distinct_winners, diagnostics.nearest_cosine)
)


def test_win_share_sums_to_1_and_is_0_where_nobody_won():
    np.testing.assert_allclose(win_share(jnp.array([1, 3, 0, 4])), [0.125, 0.375, 0, 0.5])
    np.testing.assert_array_equal(win_share(NOBODY), 0)
    np.testing.assert_allclose(win_share(jnp.array([2**30] * 4)), 0.25)  # their sum is beyond 32 bits


def test_win_entropy_is_1_for_equals_and_0_for_a_monopoly():
    np.testing.assert_allclose(win_entropy(ALIKE), 1, rtol=1e-6)
    assert win_entropy(MONOPOLY) == 0
    assert win_entropy(NOBODY) == 0
    assert win_entropy(jnp.array([7])) == 1
    half = win_entropy(jnp.array([2, 2, 0, 0]))
    np.testing.assert_allclose(half, 0.5, rtol=1e-6)


def test_distinct_winners_counts_who_ever_won():
    assert [int(distinct_winners(wins)) for wins in (ALIKE, MONOPOLY, NOBODY)] == [8, 1, 0]


def test_nearest_cosine_finds_copies_whatever_their_length():
    copies = nearest_cosine(jnp.array([[1.0, 2.0], [10.0, 20.0], [-2.0, 1.0]]))
    np.testing.assert_allclose(copies, [1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(nearest_cosine(jnp.array([[1.0, 0.0], [-1.0, 0.0]])), -1)
    assert np.isfinite(nearest_cosine(jnp.zeros((3, 4)))).all()


@pytest.mark.parametrize('p', [1.5, 2.0, 3, 4])
def test_unit_convergence_is_two_sided(rng, p):
    w = rng.normal(size=(6, 10)).astype(np.float32)
    w /= (np.abs(w) ** p).sum(1, keepdims=True) ** (1 / p)
    share = lambda w: float(diagnostics.unit_convergence(jnp.asarray(w), p))  # noqa: E731
    assert share(w) == 1
    assert share(0 * w) == 0
    assert share(1.2 * w) == 0
    assert share(0.8 * w) == 0
    assert share(np.concatenate([w[:3], 5 * w[3:]])) == 0.5


def test_measures_are_safe_under_jit_and_vmap(rng):
    wins, w = rng.integers(0, 9, (3, 8)).astype(np.int32), rng.normal(size=(3, 8, 5)).astype(np.float32)
    by_wins = (diagnostics.win_share, diagnostics.win_entropy, diagnostics.distinct_winners)
    by_weights = (diagnostics.nearest_cosine, diagnostics.unit_convergence)
    measure = lambda wins, w: [*(f(wins) for f in by_wins), *(f(w) for f in by_weights)]  # noqa: E731
    together, alone = jax.jit(jax.vmap(measure))(wins, w), measure(wins[1], w[1])
    for many, one in zip(together, alone):
        np.testing.assert_allclose(many[1], one, rtol=1e-5, atol=1e-6)
