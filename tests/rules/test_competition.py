"""Who learns: each competition against its equation, ties, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from hebbjax.rules import hard_wta, in_top_k, k_wta, krotov_ranks, linear, signed_soft_wta, soft_wta, top_k
from hebbjax.rules.competition import competing_drives, graded, zero_absent
from hebbjax.rules.top_k import drop_absent

KEY = jax.random.key(0)
U = np.array([[1.0, 3.0, -2.0, 0.5], [-1.0, -4.0, -3.0, -2.0]], np.float32)
TIES = np.array([[2.0, 2.0, 2.0, 2.0], [1.0, 3.0, 3.0, 1.0]], np.float32)
INF = np.inf

COMPETITIONS = {
    'linear': linear(),
    'graded': graded(jnp.abs),
    'hard_wta': hard_wta(),
    **{f'k_wta-{k}': k_wta(k) for k in (1, 2, 3, 4)},
    'miconi': k_wta(1, ties='all', above=0.0),
    'three of all ties': k_wta(3, ties='all'),
    'two above': k_wta(2, above=0.9),
    'soft_wta': soft_wta(1.0),
    'cold': soft_wta(1e-3),
    'hot': soft_wta(1e6),
    'signed': signed_soft_wta(1.0),
    **{f'ranks-{k}': krotov_ranks(k, 0.4) for k in (2, 3, 4)},
    'ranks-3-0': krotov_ranks(3, 0.0),
}
SLOPES = {'soft': soft_wta, 'signed': signed_soft_wta, 'ranks': lambda delta: krotov_ranks(2, delta)}


@jax.jit
def credit(u):
    """What every competition gives, and what is left of it for those who take part: one program for all tests."""
    y = {name: compete(KEY, u) for name, compete in COMPETITIONS.items()}
    return y, {name: zero_absent(one, u) for name, one in y.items()}


def test_competitions_equal_their_equations():
    y, _ = credit(U)
    np.testing.assert_array_equal(y['linear'], U)
    np.testing.assert_array_equal(y['graded'], abs(U))
    np.testing.assert_array_equal(y['hard_wta'], [[0, 1, 0, 0], [1, 0, 0, 0]])  # even where all are negative
    for k in (1, 2, 3, 4):
        np.testing.assert_array_equal(y[f'k_wta-{k}'], [reference.winners(k)(list(row)) for row in U])
    np.testing.assert_allclose(y['soft_wta'], list(map(reference.shared, U)), rtol=1e-6)
    signs = 2 * y['hard_wta'] - 1
    np.testing.assert_allclose(y['signed'], signs * y['soft_wta'], rtol=1e-6)
    np.testing.assert_allclose(y['cold'], y['hard_wta'], atol=1e-6)
    np.testing.assert_allclose(y['hot'], 0.25, atol=1e-5)
    np.testing.assert_allclose(y['ranks-2'], [[-0.4, 1, 0, 0], [1, 0, 0, -0.4]])
    np.testing.assert_allclose(y['ranks-4'], [[0, 1, -0.4, 0], [1, -0.4, 0, 0]])
    np.testing.assert_array_equal(y['ranks-3-0'], y['hard_wta'])


def test_of_equal_drives_the_first_neuron_wins_unless_all_may():
    """Miconi's notebook: every equal of the k-th, and none that does not exceed its threshold."""
    y, _ = credit(TIES)
    np.testing.assert_array_equal(y['hard_wta'], [[1, 0, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(y['k_wta-3'], [[1, 1, 1, 0], [1, 1, 1, 0]])
    np.testing.assert_allclose(y['ranks-2'], [[1, -0.4, 0, 0], [0, 1, -0.4, 0]])
    np.testing.assert_array_equal(y['miconi'], [[1, 1, 1, 1], [0, 1, 1, 0]])
    np.testing.assert_array_equal(y['three of all ties'], [[1, 1, 1, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(y['two above'], [[1, 1, 0, 0], [0, 1, 1, 0]])
    y, _ = credit(U)
    np.testing.assert_array_equal(y['miconi'], [[0, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(y['two above'], [[1, 1, 0, 0], [0, 0, 0, 0]])


def test_who_takes_no_part_ranks_last_and_gets_no_credit():
    teacher = np.array([[0.0, 0.0, 0.1, 1.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    assert competing_drives(U, None, None) is U
    np.testing.assert_array_equal(competing_drives(U, None, np.ones(4, np.float32)), U - 1)
    v = competing_drives(U, teacher, None)
    np.testing.assert_array_equal(v, [[-INF, -INF, -2, 0.5], [-INF, -INF, -INF, -INF]])
    np.testing.assert_array_equal(drop_absent(*top_k(v, 3), 4), [[3, 2, 4], [4, 4, 4]])
    raw, y = credit(v)
    for name in ('k_wta-3', 'three of all ties'):
        np.testing.assert_array_equal(y[name], [[0, 0, 1, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(y['linear'][0], [0, 0, -2, 0.5])
    assert y['soft_wta'][1].sum() == 0
    np.testing.assert_array_equal(raw['ranks-3'], [[0, 0, 0, 1], [0, 0, 0, 0]])
    np.testing.assert_allclose(raw['ranks-2'], [[0, 0, -0.4, 1], [0, 0, 0, 0]])
    nan = np.array([[1, 3, -2, np.nan], [0, 0, 0, 0]], np.float32)
    assert np.isnan(credit(competing_drives(nan, np.ones((2, 1), np.float32), None))[1]['linear'][0, 3])


def test_credit_has_the_dtype_of_the_drive():
    half, full = credit(jnp.asarray(U, jnp.bfloat16))[0], credit(U)[0]
    for name, y in half.items():
        assert (y.dtype, full[name].dtype) == (jnp.bfloat16, jnp.float32)
        np.testing.assert_allclose(y.astype(float), full[name], rtol=1e-2, atol=1e-3)


def test_temperature_and_delta_may_be_traced():
    temperatures, deltas = np.array([0.1, 1.0, 10.0], np.float32), np.array([0.0, 0.4, 1.0], np.float32)
    soft, ranks = jax.jit(jax.vmap(lambda t, d: (soft_wta(t)(KEY, U), krotov_ranks(2, d)(KEY, U))))(
        temperatures, deltas
    )
    y = credit(U)[0]
    np.testing.assert_allclose(soft[1], y['soft_wta'], rtol=1e-5)
    np.testing.assert_allclose(soft[2], list(map(reference.shared, U / 10)), rtol=1e-5)
    np.testing.assert_array_equal(ranks[0], y['hard_wta'])
    np.testing.assert_allclose(ranks[1], y['ranks-2'], rtol=1e-6)


@pytest.mark.parametrize(
    'k, neurons',  # sweeps, top_k and a tournament, groups full and not
    [(1, 9), (2, 451), (4, 150), (5, 9), (7, 150), (5, 451), (7, 450)],
)
def test_the_largest_are_those_of_a_stable_sort(k, neurons, rng):
    @jax.jit
    def both(u):
        return top_k(u, k), in_top_k(u, k)

    for levels in (3, 50, 10**6):  # many equals, some, none
        u = rng.integers(-levels, levels, (40, neurons)).astype(np.float32)
        order = np.argsort(-u, axis=1, kind='stable')[:, :k]
        (values, indices), inside = both(u)
        np.testing.assert_array_equal(indices, order)
        np.testing.assert_array_equal(values, np.take_along_axis(u, order, 1))
        np.testing.assert_array_equal(np.nonzero(inside)[1].reshape(40, k), np.sort(order, axis=1))
    u = np.ones((40, neurons), np.float32)
    u[0, 3] = np.nan  # names some neuron, and other patches stay what they are
    values, indices = both(u)[0]
    assert np.all((indices >= 0) & (indices < neurons)) and np.isfinite(values[1:]).all()


def test_competitions_that_cannot_be_are_refused():
    for build, says in (
        (lambda: k_wta(1, ties='none'), "ties='none' is unknown; there are first, all"),
        (lambda: k_wta(1, above=float('nan')), 'above=nan is out of range; use a finite number'),
        (lambda: krotov_ranks(1, 0.4), 'k=1 is out of range; use a whole number from 2 on'),
        (lambda: soft_wta(0), 'temperature=0 is out of range; use a finite number > 0'),
        (lambda: k_wta(5)(KEY, U), 'k=5 is more than the 4 neurons that compete'),
        (lambda: krotov_ranks(5, 0.4)(KEY, U), 'k=5 is more than the 4 neurons that compete'),
    ):
        with pytest.raises(ValueError, match=says):
            build()


@pytest.mark.parametrize('name', SLOPES)
@pytest.mark.parametrize('taught', [[1, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], ids=['three', 'one', 'nobody'])
def test_slopes_are_finite_where_neurons_take_no_part(name, taught):
    """Drives of -inf have the slope 0 * inf where nobody looks."""
    teacher = jnp.asarray([taught, [1, 1, 1, 1]], jnp.float32)
    v = competing_drives(jnp.asarray(U), teacher, None)
    weights = jnp.arange(8.0).reshape(2, 4)
    loss = jax.jit(lambda setting: jnp.sum(weights * zero_absent(SLOPES[name](setting)(KEY, v), v)))
    slope, h = jax.jit(jax.grad(loss))(0.7), 1e-2
    np.testing.assert_allclose(slope, (loss(0.7 + h) - loss(0.7 - h)) / (2 * h), rtol=1e-2, atol=1e-3)
