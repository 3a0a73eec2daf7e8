"""What happens to `dw` before it reaches the weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from table import change

from hebbjax import rules, transforms
from hebbjax.layers import Layer, init

WAITING = optax.join_schedules([optax.constant_schedule(0.0), optax.constant_schedule(0.5)], [2])
DW = np.array([[1.0, -4.0], [0.5, 0.25]], np.float32)


def once(tx, dw, w=None):
    """The change that a transformation makes of one dw."""
    w = 0 * dw if w is None else w
    return tx.update(dw, tx.init(w), w)[0]


def rates(schedule, steps):
    """A schedule's rates, and those that its transformation goes by, step by step."""
    tx = transforms.scale_by_rate(schedule)
    step = lambda state, _: tx.update(jnp.ones(()), state)[::-1]  # noqa: E731
    return jax.jit(lambda: (schedule(jnp.arange(steps)), jax.lax.scan(step, tx.init(jnp.ones(())), None, steps)[1]))()


def test_scale_by_rate_goes_up():
    np.testing.assert_allclose(once(transforms.scale_by_rate(0.5), DW), 0.5 * DW)
    np.testing.assert_array_equal(once(transforms.scale_by_rate(0), DW), 0)


def test_linear_by_epoch_starts_at_the_rate_and_ends_at_its_share():
    """Constant within an epoch, `rate (1 - e / E)` in epoch e, `rate / E` in the last one and ever after."""
    values, followed = rates(transforms.linear_by_epoch(0.02, epochs=10, steps_per_epoch=3), 36)
    expected = np.repeat(0.02 * (1 - np.minimum(np.arange(12), 9) / 10), 3)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(followed, values, rtol=1e-6)


def test_a_schedule_of_optax_lets_a_rate_wait():
    values, followed = rates(WAITING, 4)
    np.testing.assert_allclose(values, [0, 0, 0.5, 0.5])
    np.testing.assert_array_equal(followed, values)


def test_the_falling_rate_of_published_maps_is_optax_own():
    """Amato et al. 2019 in the authors' code: times exp(-1/1000) an update, not below 0.01. See `som.som`."""
    rate = optax.exponential_decay(0.1, 1, decay_rate=math.exp(-1 / 1000), end_value=0.01)
    np.testing.assert_allclose(
        rate(np.array([0, 1250, 2500, 10**6])), [0.1, 0.1 * np.exp(-1.25), 0.01, 0.01], rtol=1e-4
    )


@pytest.mark.parametrize(
    'build, says',
    [
        (lambda: transforms.scale_by_rate(-0.1), r'rate=-0\.1 is out of range; use a finite number >= 0'),
        (lambda: transforms.scale_by_max_abs('neuron'), "per='neuron' is unknown; there are layer, unit"),
        (lambda: transforms.scale_by_max_abs(floor=0), 'floor=0 is out of range; use a finite number > 0'),
    ],
)
def test_transformations_that_cannot_be_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()


def test_scale_by_max_abs_divides_by_one_maximum_or_by_one_per_unit():
    np.testing.assert_allclose(once(transforms.scale_by_max_abs(), DW), [[0.25, -1], [0.125, 0.0625]])
    np.testing.assert_allclose(once(transforms.scale_by_max_abs('unit'), DW), [[0.25, -1], [1, 0.5]])


def test_neurons_slow_down_as_their_lengths_come_to_the_radius():
    w = np.array([[3.0, 4.0], [0.6, 0.8], [0.0, 0.0]], np.float32)  # of length 5, 1, 0
    moved = once(transforms.scale_by_norm_gap(), np.ones((3, 2), np.float32), w)
    np.testing.assert_allclose(moved[:, 0], [2, 1e-5, 1], rtol=1e-5, atol=4e-4)
    moved = once(transforms.scale_by_norm_gap(radius=2.0, power=2.0), np.ones((3, 2), np.float32), w)
    np.testing.assert_allclose(moved[:, 0], [9, 1, 4], rtol=1e-5)
    with pytest.raises(ValueError, match='needs the weights'):
        transforms.scale_by_norm_gap().update(DW, ())


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_no_change_stays_no_change(dtype):
    for per in ('layer', 'unit'):
        change = once(transforms.scale_by_max_abs(per), np.zeros((2, 2), dtype))
        assert change.dtype == dtype
        np.testing.assert_array_equal(change.astype(float), 0)


def test_the_floor_is_what_small_changes_are_divided_by():
    np.testing.assert_allclose(once(transforms.scale_by_max_abs(floor=8.0), DW), DW / 8)
    np.testing.assert_allclose(once(transforms.scale_by_max_abs(floor=2.0), DW), DW / 4)
    mixed = once(transforms.scale_by_max_abs('unit', floor=2.0), DW)
    np.testing.assert_allclose(mixed, [[0.25, -1], [0.25, 0.125]])


def test_project_unit_rows_ends_every_step_on_the_sphere(rng):
    """A row that would vanish stays where it is, and NaN passes, to be found in the weights."""
    w, dw = (rng.normal(size=(6, 4)).astype(np.float32) for _ in range(2))
    w[1], w[2], w[3], dw[1], dw[2:] = [3, 4, 0, 0], 0, [0, 2, 0, 0], [-3, -4, 0, 0], 0
    dw[5, 2] = np.nan
    moved = w + np.asarray(jax.jit(lambda dw, w: once(transforms.project_unit_rows(), dw, w))(dw, w))
    expected = (w + dw) / np.maximum(np.linalg.norm(w + dw, axis=1, keepdims=True), 1e-9)
    expected[1] = w[1]
    np.testing.assert_allclose(moved[:5], expected[:5], atol=1e-6)
    assert np.isnan(moved[5]).any()
    with pytest.raises(ValueError, match='needs the weights it projects; call update'):
        transforms.project_unit_rows().update(dw, optax.EmptyState())


@pytest.mark.parametrize(
    'tx',
    [
        transforms.project_unit_rows(),
        transforms.scale_by_norm_gap(),
        transforms.scale_by_max_abs(),
        transforms.scale_by_max_abs('unit'),
    ],
)
def test_a_row_of_zeros_has_no_slope_in_place_of_nan(tx):
    w = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    slopes = jax.grad(lambda dw, w: once(tx, dw, w)[:, 0].sum(), (0, 1))(jnp.zeros((2, 2)), w)
    assert np.isfinite(slopes).all()


def test_what_is_not_finite_is_no_small_change():
    assert np.isnan(once(transforms.scale_by_max_abs(), np.where(DW == 0.5, np.nan, DW))).all()


def test_pruned_connections_stay_pruned_and_rows_stay_at_length_1(rng):
    """Masks are data: under vmap every seed has its own."""
    w = (rng.normal(size=(2, 5, 12)) * (rng.random((2, 5, 12)) < 0.3)).astype(np.float32)
    w[:, :, 0] = 1
    tx = optax.chain(transforms.scale_by_rate(0.3), transforms.keep_pruned(), transforms.project_unit_rows())

    def learn(w, steps):
        def step(carry, dw):
            change, state = tx.update(dw, carry[1], carry[0])
            return (carry[0] + change, state), None

        return jax.lax.scan(step, (w, tx.init(w)), steps)[0][0]

    learned = jax.jit(jax.vmap(learn))(w, rng.normal(size=(2, 20, 5, 12)).astype(np.float32))
    np.testing.assert_array_equal(learned != 0, w != 0)
    np.testing.assert_allclose(jnp.linalg.norm(learned, axis=2), 1, atol=1e-6)


def test_transformations_chain_and_may_be_traced():
    """Built inside the mapped function, a rate can be vmapped."""
    build = lambda rate: optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(rate))  # noqa: E731
    rates = np.array([0.1, 0.2, 0.4], np.float32)
    together = jax.vmap(lambda rate: once(build(rate), DW))(rates)
    np.testing.assert_allclose(together, DW / 4 * rates[:, None, None], rtol=1e-6)


def test_one_maximum_for_all_neurons_is_not_one_per_neuron(rng):
    """On what Krotov and Hopfield's rule asks for."""
    dw = change(rules.krotov(3, 0.4, 2.0), *(rng.normal(size=(n, 6)).astype(np.float32) for n in (40, 7)))
    layer, unit = (np.abs(once(transforms.scale_by_max_abs(per), dw)).max(1) for per in ('layer', 'unit'))
    moved = np.abs(dw).max(1) > 0
    assert moved.sum() > 3
    np.testing.assert_allclose(np.sort(layer)[-1], 1, rtol=1e-6)
    assert np.sort(layer)[-2] < 0.99
    np.testing.assert_allclose(unit[moved], 1, rtol=1e-6)


class Stubborn:
    """A shape that only one network has."""

    def __call__(self, updates, state, params=None):
        assert updates.shape == (7, 7)
        return updates, state


DESCEND = [
    optax.sgd(0.1),
    optax.chain(transforms.scale_by_max_abs(), optax.scale(-0.1)),
    optax.chain(optax.sgd(0.1), transforms.keep_pruned(), transforms.project_unit_rows()),
    optax.chain(optax.sgd(0.01), transforms.project_unit_rows()),  # to unit length is further than what it takes away
    optax.scale_by_learning_rate(lambda step: 0.1),
    transforms.scale_by_rate(lambda step: -0.1),
    optax.sgd(0.1, momentum=0.9, nesterov=True),
    optax.adam(1e-3),
]
ASCEND = [
    transforms.scale_by_rate(0.1),
    transforms.scale_by_rate(0),
    transforms.scale_by_rate(WAITING),
    optax.identity(),
    optax.set_to_zero(),
    optax.chain(transforms.scale_by_rate(9.0), transforms.keep_pruned(), transforms.project_unit_rows()),
    optax.chain(transforms.scale_by_max_abs('unit'), transforms.scale_by_rate(1e-3), transforms.project_unit_rows()),
    optax.chain(optax.sgd(0.1), optax.scale(-1)),
    optax.scale_by_adam(),
    optax.chain(transforms.scale_by_rate(0.001), optax.add_decayed_weights(-0.01)),
    optax.GradientTransformation(lambda w: (), Stubborn()),
]


@pytest.mark.parametrize('tx', DESCEND)
def test_what_goes_against_its_rule_is_refused(tx, relaxed):
    with pytest.raises(ValueError, match=r'^tx descends.*end it with transforms\.scale_by_rate\(rate\)'):
        transforms.check_ascends(tx)


@pytest.mark.parametrize('tx', ASCEND)
def test_what_goes_with_its_rule_passes(tx, relaxed):
    transforms.check_ascends(tx)


def test_it_is_refused_where_a_layer_starts():
    with pytest.raises(ValueError, match=r'^layer 1: tx descends'):
        init((Layer(3, rules.hebb(), optax.sgd(0.1)),), jax.random.key(0), (2, 2, 1))
