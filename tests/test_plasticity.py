"""What happens to `dw` before it reaches the weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hebbjax
from hebbjax import plasticity

DW = jnp.array([[1.0, -4.0], [0.5, 0.25]])


def once(tx, dw, w=None):
    """The change that a transformation makes of one dw."""
    w = jnp.zeros_like(dw) if w is None else w
    return tx.update(dw, tx.init(w), w)[0]


def test_ascend_goes_up():
    np.testing.assert_allclose(once(plasticity.ascend(0.5), DW), 0.5 * DW)
    np.testing.assert_array_equal(once(plasticity.ascend(0), DW), 0)


def test_a_negative_rate_is_refused():
    with pytest.raises(ValueError, match=r'learning rate -0\.1 would unlearn; use a finite rate >= 0, or a schedule'):
        plasticity.ascend(-0.1)
    with pytest.raises(ValueError, match='learning rate nan'):
        plasticity.ascend(float('nan'))


def test_anneal_starts_at_the_rate_and_ends_at_its_share():
    """Constant within an epoch, `rate (1 - e / E)` in epoch e, `rate / E` in the last one and ever after."""
    schedule = plasticity.anneal(0.02, epochs=10, steps_per_epoch=3)
    values = np.array([schedule(jnp.asarray(step)) for step in range(36)])
    np.testing.assert_allclose(values[:3], 0.02)
    np.testing.assert_allclose(
        values[:30].reshape(10, 3), np.tile(0.02 * (1 - np.arange(10) / 10), (3, 1)).T, rtol=1e-5
    )
    np.testing.assert_allclose(values[27:], 0.002, rtol=1e-5)
    np.testing.assert_allclose(plasticity.anneal(0.02, 1, 5)(jnp.asarray(4)), 0.02)


def test_ascend_follows_a_schedule_step_by_step():
    tx = plasticity.ascend(plasticity.anneal(1.0, epochs=2, steps_per_epoch=2))
    state, found = tx.init(DW), []
    for _ in range(4):
        change, state = tx.update(DW, state)
        found.append(float(change[0, 0]))
    np.testing.assert_allclose(found, [1, 1, 0.5, 0.5])


@pytest.mark.parametrize('epochs, steps', [(0, 5), (5, 0)])
def test_nothing_cannot_be_annealed_over(epochs, steps):
    with pytest.raises(ValueError, match='cannot be annealed over'):
        plasticity.anneal(0.1, epochs, steps)


def test_scale_by_max_abs_divides_by_one_maximum_or_by_one_per_unit():
    np.testing.assert_allclose(once(plasticity.scale_by_max_abs(), DW), [[0.25, -1], [0.125, 0.0625]])
    np.testing.assert_allclose(once(plasticity.scale_by_max_abs('unit'), DW), [[0.25, -1], [1, 0.5]])
    with pytest.raises(ValueError, match="per 'layer' or per 'unit', not per 'neuron'"):
        plasticity.scale_by_max_abs('neuron')


@pytest.mark.parametrize('per', ['layer', 'unit'])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_no_change_stays_no_change(per, dtype):
    change = once(plasticity.scale_by_max_abs(per), jnp.zeros((3, 4), dtype))
    assert change.dtype == dtype
    np.testing.assert_array_equal(change.astype(float), 0)


def test_the_floor_is_what_small_changes_are_divided_by():
    np.testing.assert_allclose(once(plasticity.scale_by_max_abs(floor=8.0), DW), DW / 8)
    np.testing.assert_allclose(once(plasticity.scale_by_max_abs(floor=2.0), DW), DW / 4)
    mixed = once(plasticity.scale_by_max_abs('unit', floor=2.0), DW)
    np.testing.assert_allclose(mixed, [[0.25, -1], [0.25, 0.125]])


def test_unit_rows_ends_every_step_on_the_sphere(rng):
    w, dw = (jnp.asarray(rng.normal(size=(4, 6)), jnp.float32) for _ in range(2))
    moved = w + once(plasticity.unit_rows(), dw, w)
    np.testing.assert_allclose(jnp.linalg.norm(moved, axis=1), 1, rtol=1e-6)
    expected = np.asarray(w + dw) / np.linalg.norm(w + dw, axis=1, keepdims=True)
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_unit_rows_leaves_a_row_that_would_vanish():
    w = jnp.array([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]])
    dw = jnp.array([[-3.0, -4.0], [0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(w + once(plasticity.unit_rows(), dw, w), [[3, 4], [0, 0], [0, 1]])
    with pytest.raises(ValueError, match='its update needs them'):
        plasticity.unit_rows().update(dw, plasticity.unit_rows().init(w))


def test_nan_passes_the_sphere_and_is_found_in_the_weights():
    w = jnp.eye(3)
    moved = w + once(plasticity.unit_rows(), jnp.zeros((3, 3)).at[1, 2].set(jnp.nan), w)
    np.testing.assert_array_equal(jnp.isnan(moved).any(1), [False, True, False])


def test_pruned_connections_stay_pruned_and_rows_stay_at_length_1(rng):
    w = jnp.asarray(rng.normal(size=(5, 12)) * (rng.random((5, 12)) < 0.3), jnp.float32).at[:, 0].set(1)
    exists = w != 0
    tx = optax.chain(plasticity.ascend(0.3), plasticity.masked(), plasticity.unit_rows())
    state = tx.init(w)
    for _ in range(20):
        change, state = tx.update(jnp.asarray(rng.normal(size=(5, 12)), jnp.float32), state, w)
        w = w + change
    np.testing.assert_array_equal(w != 0, exists)
    np.testing.assert_allclose(jnp.linalg.norm(w, axis=1), 1, atol=1e-6)


def test_masks_are_data_under_vmap(rng):
    w = jnp.asarray(rng.normal(size=(3, 4, 6)) * (rng.random((3, 4, 6)) < 0.5))
    dw = jnp.ones((4, 6))
    moved = jax.vmap(lambda w: once(plasticity.masked(), dw, w))(w)
    np.testing.assert_array_equal(moved, w != 0)


def test_the_falling_rate_of_published_maps_is_optax_own():
    """Amato et al. 2019 in the authors' code: times exp(-1/1000) an update, not below 0.01. See `maps.som`."""
    rate = optax.exponential_decay(0.1, 1, decay_rate=math.exp(-1 / 1000), end_value=0.01)
    found = [rate(jnp.asarray(step)) for step in (0, 1250, 2500, 10**6)]
    np.testing.assert_allclose(found, [0.1, 0.1 * np.exp(-1.25), 0.01, 0.01], rtol=1e-4)


def test_after_a_burn_in_the_rate_begins():
    tx = plasticity.ascend(plasticity.after(2, 0.5))
    state, found = tx.init(DW), []
    for _ in range(4):
        change, state = tx.update(DW, state)
        found.append(float(change[0, 0]))
    np.testing.assert_allclose(found, [0, 0, 0.5, 0.5])
    with pytest.raises(ValueError, match='burn-in of -1 steps'):
        plasticity.after(-1, 0.5)


def test_transformations_chain_and_may_be_traced():
    """Built inside the mapped function, a rate can be vmapped."""

    def change(rate):
        return once(optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(rate)), DW)

    rates = jnp.array([0.1, 0.2, 0.4])
    for found, rate in zip(jax.vmap(change)(rates), rates):
        np.testing.assert_allclose(found, DW / 4 * rate, rtol=1e-6)


class Stubborn:
    """A shape that only one network has."""

    def __call__(self, updates, state, params=None):
        assert updates.shape == (7, 7)
        return updates, state


@pytest.mark.parametrize(
    'tx, descends',
    [
        (optax.sgd(0.1), True),
        (optax.chain(plasticity.scale_by_max_abs(), optax.scale(-0.1)), True),
        (optax.chain(optax.sgd(0.1), plasticity.unit_rows()), True),
        (optax.chain(optax.sgd(0.1), plasticity.masked(), plasticity.unit_rows()), True),
        (optax.scale_by_learning_rate(lambda step: 0.1), True),
        (plasticity.ascend(lambda step: -0.1), True),
        (optax.sgd(0.1, momentum=0.9, nesterov=True), True),
        (plasticity.ascend(0.1), False),
        (plasticity.ascend(0), False),
        (plasticity.ascend(plasticity.after(3, 0.1)), False),
        (optax.identity(), False),
        (optax.set_to_zero(), False),
        (optax.chain(plasticity.ascend(9.0), plasticity.masked(), plasticity.unit_rows()), False),
        (optax.chain(plasticity.scale_by_max_abs('unit'), plasticity.ascend(1e-3), plasticity.unit_rows()), False),
        (optax.chain(optax.sgd(0.1), optax.scale(-1)), False),
        (optax.scale_by_adam(), False),
        (optax.GradientTransformation(lambda w: (), Stubborn()), False),
    ],
)
def test_what_goes_against_its_rule_is_refused_where_a_layer_starts(tx, descends, relaxed):
    layer = hebbjax.Layer(3, hebbjax.rules.hebb(), tx)
    if not descends:
        assert hebbjax.init((layer,), jax.random.key(0), (2, 2, 1)).layers[0].w.shape == (3, 4)
        return
    with pytest.raises(ValueError, match=r'^layer 1: tx descends.*end it with plasticity\.ascend\(rate\)'):
        hebbjax.init((layer,), jax.random.key(0), (2, 2, 1))


def test_adam_descends_as_well(relaxed):
    with pytest.raises(ValueError, match='tx descends'):
        plasticity.check_ascends(optax.adam(1e-3))
