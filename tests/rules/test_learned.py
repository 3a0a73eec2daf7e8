"""Rules with coefficients: who takes no part adds nothing, gradients and maps go through, wrong shapes are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table import THETAS, change, drives

from hebbjax import rules

PARAMS = tuple(np.random.default_rng(3).normal(size=shape).astype(np.float32) for shape in ((5, 4), (4,), (4,)))
EVERYTHING = np.ones((3, 3, 3), np.float32)
BUILD = {
    'taylor': lambda: rules.taylor(EVERYTHING),
    'taylor-soft_wta': lambda: rules.taylor(EVERYTHING, rules.soft_wta(0.5)),
    'mlp': lambda: rules.mlp(PARAMS, 2),
}


@pytest.mark.parametrize('name', BUILD)
def test_who_takes_no_part_adds_nothing_not_even_by_the_zeroth_power(name, rng):
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (5, 4)))
    rule, taught = BUILD[name](), np.array([[1, 1, 0, 1, 0]], np.float32).repeat(6, 0)
    for how in ({'teacher': taught}, {'threshold': np.where(taught[0] > 0, 0, np.inf).astype(np.float32)}):
        dw = np.asarray(change(rule, x, w, **how))
        np.testing.assert_array_equal(dw[[2, 4]], 0)
        assert np.abs(dw[[0, 1, 3]]).min() > 0
        alone = change(rule, x, w[[0, 1, 3]])
        np.testing.assert_allclose(dw[[0, 1, 3]], alone, rtol=1e-4, atol=1e-5)
    half = np.where(np.arange(6)[:, None] < 3, taught, 1).astype(np.float32)
    assert np.abs(np.asarray(change(rule, x, w, teacher=half))[[2, 4]]).min() > 0


def test_products_are_as_precise_as_those_of_other_rules():
    rule, w = rules.taylor(EVERYTHING), jnp.ones((3, 4))
    products = [
        e
        for e in jax.make_jaxpr(lambda s: rule.finalize(s, w, ()))(rule.init_stats(w)).eqns
        if e.primitive.name == 'dot_general'
    ]
    assert products and all(e.params['precision'] == (jax.lax.Precision.HIGHEST,) * 2 for e in products)


def test_coefficients_may_be_mapped_over_and_have_slopes(rng):
    """dw is linear in theta: its slope is the sum of powers itself."""
    x, w = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((6, 4), (5, 4)))

    def dw(theta):
        rule = rules.taylor(theta)
        return rule.update(jax.random.key(0), x, drives(rule, x, w), w, ())[0]

    thetas = jnp.asarray(rng.normal(size=(4, 2, 3, 2)), jnp.float32)
    together = jax.jit(jax.vmap(dw))(thetas)
    np.testing.assert_allclose(together[2], change(rules.taylor(thetas[2]), x, w), rtol=1e-5, atol=1e-5)
    slope = jax.jit(jax.jacobian(dw))(thetas[0])  # [N, D, A, B, C]
    u = x @ w.T
    np.testing.assert_allclose(slope[..., 1, 2, 1], (u**2).T @ x * w / len(x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(slope[..., 0, 0, 1], w, rtol=1e-5, atol=1e-5)


def test_a_small_network_starts_slowly_and_every_parameter_has_a_slope(rng):
    x, w = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((6, 4), (5, 4)))
    params = rules.mlp_params(jax.random.key(0), 6)

    @jax.jit
    @jax.value_and_grad
    def size(params):
        return jnp.sum(rules.mlp(params).update(jax.random.key(0), x, x @ w.T, w, ())[0] ** 2)

    moved, slopes = size(params)
    assert [a.shape for a in params] == [(5, 6), (6,), (6,)] and 0 < moved < 0.1 * jnp.sum(w**2)
    assert all(np.abs(slope).min() > 0 for slope in slopes)


def test_rules_of_equal_coefficients_are_equal():
    assert rules.taylor(EVERYTHING) == rules.taylor(EVERYTHING.copy()) != rules.taylor(2 * EVERYTHING)
    assert rules.mlp(PARAMS) == rules.mlp(PARAMS) != rules.mlp(PARAMS, 1)


@pytest.mark.parametrize('theta', [np.ones((3, 3)), np.ones((3, 3, 3, 1)), 1.0, np.ones((3, 0, 3)), [[1.0]]])
def test_coefficients_of_no_three_axes_are_refused(theta):
    with pytest.raises(ValueError, match=r'^theta has an axis of powers for each .* jnp\.zeros\(\(3, 3, 3\)\)'):
        rules.taylor(theta)
    if np.ndim(theta):  # traced or not
        with pytest.raises(ValueError, match=r'^theta has an axis'):
            jax.eval_shape(lambda theta: rules.taylor(theta) and 0, np.asarray(theta, np.float32))


@pytest.mark.parametrize('params', [PARAMS[:2], PARAMS[::-1], (PARAMS[0].T, *PARAMS[1:]), np.ones((5, 4)), 3])
def test_parameters_of_another_network_are_refused(params):
    with pytest.raises(ValueError, match=r'^params of a network are w_in .* make them with mlp_params'):
        rules.mlp(params)


def test_what_nobody_competes_by_is_refused():
    for build in (lambda: rules.taylor(THETAS[0], 'all'), lambda: rules.mlp(PARAMS, 2.5)):
        with pytest.raises(ValueError, match='by a competition, or by a number of winners'):
            build()
    with pytest.raises(ValueError, match='k=0 is out of range'):
        rules.taylor(THETAS[0], 0)
