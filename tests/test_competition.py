"""Who learns: each competition against its equation, ties, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from hebbjax import competition

KEY = jax.random.key(0)
U = jnp.array([[1.0, 3.0, -2.0, 0.5], [-1.0, -4.0, -3.0, -2.0]])
TIES = jnp.array([[2.0, 2.0, 2.0, 2.0], [1.0, 3.0, 3.0, 1.0]])


def test_linear_and_relu_credit_by_drive():
    np.testing.assert_array_equal(competition.linear()(KEY, U), U)
    np.testing.assert_array_equal(competition.relu()(KEY, U), [[1, 3, 0, 0.5], [0, 0, 0, 0]])


def test_hard_wta_credits_the_largest_drive_even_where_all_are_negative():
    np.testing.assert_array_equal(competition.hard_wta()(KEY, U), [[0, 1, 0, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize('k', [1, 2, 3, 4])
def test_k_wta_credits_the_k_largest(k):
    expected = [reference.winners(k)(list(map(float, row))) for row in U]
    np.testing.assert_array_equal(competition.k_wta(k)(KEY, U), expected)


def test_all_ties_may_win_and_only_above_zero():
    """Miconi's notebook: every equal of the k-th, and none that does not exceed its threshold."""
    compete = competition.k_wta(1, ties='all', above=0.0)
    np.testing.assert_array_equal(compete(KEY, TIES), [[1, 1, 1, 1], [0, 1, 1, 0]])
    np.testing.assert_array_equal(compete(KEY, U), [[0, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(competition.k_wta(3, ties='all')(KEY, TIES), [[1, 1, 1, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(competition.k_wta(2, above=0.9)(KEY, U), [[1, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(competition.k_wta(2, above=0.9)(KEY, TIES), [[1, 1, 0, 0], [0, 1, 1, 0]])
    with pytest.raises(ValueError, match="the 'first' or 'all' win, not 'none'"):
        competition.k_wta(1, ties='none')


def test_neurons_may_learn_as_they_fire():
    np.testing.assert_array_equal(competition.graded(jnp.abs)(KEY, U), jnp.abs(U))


@pytest.mark.parametrize('k', [1, 4, 5, 40])
def test_among_the_largest_is_who_k_wta_credits(k, rng):
    u = rng.integers(-9, 9, (30, 100)).astype(np.float32)
    order = np.argsort(-u, axis=1, kind='stable')
    expected = np.zeros((30, 100), bool)
    np.put_along_axis(expected, order[:, :k], True, axis=1)
    np.testing.assert_array_equal(jax.jit(competition.among, static_argnums=1)(jnp.asarray(u), k), expected)


def test_soft_wta_shares_one_unit():
    y = competition.soft_wta(1.0)(KEY, U)
    np.testing.assert_allclose(y, [reference.shared(np.asarray(row)) for row in U], rtol=1e-6)
    np.testing.assert_allclose(competition.soft_wta(1e-3)(KEY, U), competition.hard_wta()(KEY, U), atol=1e-6)
    np.testing.assert_allclose(competition.soft_wta(1e6)(KEY, U), 0.25, atol=1e-5)


def test_rank_credits_the_first_and_punishes_the_kth():
    np.testing.assert_allclose(competition.rank(2, 0.4)(KEY, U), [[-0.4, 1, 0, 0], [1, 0, 0, -0.4]])
    np.testing.assert_allclose(competition.rank(4, 0.4)(KEY, U), [[0, 1, -0.4, 0], [1, -0.4, 0, 0]])
    np.testing.assert_array_equal(competition.rank(3, 0.0)(KEY, U), competition.hard_wta()(KEY, U))


def test_of_equal_drives_the_first_neuron_wins():
    np.testing.assert_array_equal(competition.hard_wta()(KEY, TIES), [[1, 0, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(competition.k_wta(3)(KEY, TIES), [[1, 1, 1, 0], [1, 1, 1, 0]])
    np.testing.assert_allclose(competition.rank(2, 0.4)(KEY, TIES), [[1, -0.4, 0, 0], [0, 1, -0.4, 0]])
    np.testing.assert_array_equal(competition.largest(TIES, 4)[1], [[0, 1, 2, 3], [1, 2, 0, 3]])


@pytest.mark.parametrize('k', [1, 2, 4, 5, 7])
@pytest.mark.parametrize('neurons', [9, 150, 450, 451])  # sweeps, top_k and a tournament, groups full and not
@pytest.mark.parametrize('levels', [3, 50, 10**6])  # many equals, some, none
def test_the_largest_are_those_of_a_stable_sort(k, neurons, levels, rng):
    u = rng.integers(-levels, levels, (40, neurons)).astype(np.float32)
    order = np.argsort(-u, axis=1, kind='stable')[:, :k]
    values, found = jax.jit(competition.largest, static_argnums=1)(jnp.asarray(u), k)
    np.testing.assert_array_equal(found, order)
    np.testing.assert_array_equal(values, np.take_along_axis(u, order, 1))


@pytest.mark.parametrize('k', [1, 3, 7])
def test_a_nan_drive_names_some_neuron_and_stays_nan(k):
    u = jnp.ones((2, 500)).at[0, 3].set(jnp.nan)
    values, found = competition.largest(u, k)
    assert jnp.isnan(values[0, 0]) and ((found >= 0) & (found < 500)).all()
    assert jnp.isfinite(values[1]).all()


@pytest.mark.parametrize('compete', [competition.k_wta(2), competition.rank(3, 0.4), competition.soft_wta(0.5)])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_credit_has_the_dtype_of_the_drive_and_jit_changes_nothing(compete, dtype):
    u = U.astype(dtype)
    y = compete(KEY, u)
    assert y.dtype == dtype
    np.testing.assert_allclose(jax.jit(compete)(KEY, u).astype(float), y.astype(float), rtol=1e-2)


def test_temperature_and_delta_may_be_traced():
    temperatures, deltas = jnp.array([0.1, 1.0, 10.0]), jnp.array([0.0, 0.4, 1.0])
    soft = jax.vmap(lambda t: competition.soft_wta(t)(KEY, U))(temperatures)
    rank = jax.vmap(lambda d: competition.rank(2, d)(KEY, U))(deltas)
    for i in range(3):
        np.testing.assert_allclose(soft[i], competition.soft_wta(float(temperatures[i]))(KEY, U), rtol=1e-5)
        np.testing.assert_allclose(rank[i], competition.rank(2, float(deltas[i]))(KEY, U), rtol=1e-6)


def test_a_k_that_leaves_no_winner_is_refused():
    with pytest.raises(ValueError, match=r'k_wta\(k=0\) leaves no winner; use a whole number k >= 1'):
        competition.k_wta(0)
    with pytest.raises(ValueError, match=r'rank\(k=1\) would punish the winner itself; use a whole number'):
        competition.rank(1, 0.4)
    for compete in (competition.k_wta(5), competition.rank(5, 0.4)):
        with pytest.raises(ValueError, match='k=5 is more than the 4 neurons that compete; use k <= 4'):
            compete(KEY, U)


def test_who_takes_no_part_ranks_last_and_gets_no_credit():
    v = competition.permitted(U, jnp.array([[0.0, 0.0, 0.1, 1.0], [0.0, 0.0, 0.0, 0.0]]))
    inf = np.inf
    np.testing.assert_array_equal(v, [[-inf, -inf, -2, 0.5], [-inf, -inf, -inf, -inf]])
    assert competition.permitted(U, None) is U
    np.testing.assert_array_equal(competition.present(*competition.largest(v, 3), 4), [[3, 2, 4], [4, 4, 4]])
    for compete in (competition.k_wta(3), competition.k_wta(3, ties='all')):
        np.testing.assert_array_equal(competition.among_present(compete(KEY, v), v), [[0, 0, 1, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(competition.among_present(competition.linear()(KEY, v), v)[0], [0, 0, -2, 0.5])
    assert competition.among_present(competition.soft_wta(1.0)(KEY, v), v)[1].sum() == 0
    np.testing.assert_array_equal(competition.rank(3, 0.4)(KEY, v), [[0, 0, 0, 1], [0, 0, 0, 0]])
    np.testing.assert_allclose(competition.rank(2, 0.4)(KEY, v), [[0, 0, -0.4, 1], [0, 0, 0, 0]])
    nan = competition.permitted(U.at[0, 3].set(jnp.nan), jnp.ones((2, 1)))
    assert jnp.isnan(competition.among_present(competition.linear()(KEY, nan), nan)[0, 3])
