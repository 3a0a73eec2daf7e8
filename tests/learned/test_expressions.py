"""An expression, the Taylor rule it learns by, and the surrogate loss it makes are one change of weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import rules
from hebbjax.interop.surrogate_losses import expression_loss
from hebbjax.learned.expressions import Expression, draw_expression, expression_text, genetic, search_losses, to_theta

SHAPE = (3, 3, 3)
OJA = Expression(jnp.array([1.0, -0.5]), jnp.array([[1, 0, 1], [0, 1, 2]]))


def changes(expression, x, w):
    """By the Taylor rule, by the gradient of the loss: two ways to one dw [N, D]."""
    rule = rules.taylor(to_theta(expression, SHAPE), reduce=rules.sum_over_patches)
    u = x @ w.T
    by_rule = rule.update(jax.random.key(0), x, u, w, ())[0]
    return by_rule, -jax.grad(expression_loss(expression), argnums=2)(x, u, w.T).T


@pytest.mark.parametrize('seed', range(4))
def test_the_rule_and_the_loss_of_an_expression_make_the_same_change(seed, rng, x64):
    """Weights and inputs of either sign, and zeros, where powers are treacherous."""
    expression = draw_expression(jax.random.key(seed), 5, SHAPE)
    x, w = rng.normal(size=(7, 4)), rng.normal(size=(3, 4))
    x[0], w[1, 2] = 0, 0
    by_rule, by_loss = jax.jit(changes)(expression, x, w)
    assert np.abs(by_rule).max() > 0.1
    np.testing.assert_allclose(by_rule, by_loss, rtol=1e-11, atol=1e-11)


def test_oja_is_an_expression(rng):
    x, w = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((7, 4), (3, 4)))
    oja = rules.oja(reduce=rules.sum_over_patches).update(jax.random.key(0), x, x @ w.T, w, ())[0]
    for change in jax.jit(changes)(OJA, x, w):
        np.testing.assert_allclose(change, oja, rtol=1e-4, atol=1e-4)
    twice = Expression(jnp.concatenate([OJA.coefficients] * 2) / 2, jnp.concatenate([OJA.exponents] * 2))
    np.testing.assert_array_equal(to_theta(twice), to_theta(OJA))
    assert expression_text(twice) == expression_text(OJA) == 's = 1 x w - 0.5 y w^2'
    assert expression_text(Expression(jnp.array([-0.25]), jnp.array([[0, 0, 3]]))) == 's = -0.25 w^3'


def test_draws_and_children_fit_their_theta():
    """All exponents of the grammar come, none beyond; the best stay first, children are of their monomials mostly."""
    shape = (2, 4, 3)
    strategy = genetic(64, 4, shape, 8)
    init, tell = jax.jit(strategy.init), jax.jit(strategy.tell)
    members = init(jax.random.key(0), None)
    members = jax.tree.map(np.asarray, members)
    low, high = members.exponents.min((0, 1)), members.exponents.max((0, 1))
    assert low.tolist() == [0, 0, 1] and high.tolist() == [1, 2, 3]
    children, _ = tell(jax.random.key(1), members, np.arange(64.0, dtype=np.float32)[::-1], members)
    children = jax.tree.map(np.asarray, children)
    np.testing.assert_array_equal(children.coefficients[:8], members.coefficients[::-1][:8])
    np.testing.assert_array_equal(strategy.get_mean(children).exponents, members.exponents[-1])
    parents = members.exponents[-8:].reshape(8, 1, 4, 3)
    inherited = (children.exponents[None] == parents).all(3).any(0)[8:]  # [56, 4]
    assert 0.8 < inherited.mean() < 1
    assert np.all(children.exponents.min((0, 1)) >= low) and np.all(children.exponents.max((0, 1)) <= high)


def test_a_search_finds_the_loss_that_oja_descends():
    """By its theta alone, out of five terms, and the objective is that of every other search."""
    target = to_theta(OJA)
    objective = lambda theta, key: jnp.sum(jnp.abs(theta - target))  # noqa: E731
    found = search_losses(objective, jax.random.key(0), terms=3, population=256, generations=60)
    assert found.fitness[-1].min() < 0.3 < 1.5 < np.median(found.fitness[0])
    assert objective(to_theta(found.theta), None) < 0.3
    assert 'x w' in expression_text(found.theta) and 'y w^2' in expression_text(found.theta)


def test_what_fits_no_theta_is_refused():
    for wrong in ([3, 0, 1], [0, 2, 1], [1, 1, 0], [0, 0, 4], [-1, 0, 1]):
        with pytest.raises(
            ValueError, match=r'do not fit theta .* use x to the 0 to 2, y to the 0 to 1 and w to the 1'
        ):
            to_theta(Expression(jnp.ones(1), jnp.array([wrong])))
    for how in ({'terms': 0}, {'population': 2}, {'population': 16, 'at_once': 3}):
        with pytest.raises(ValueError, match=r'out of range|does not divide'):
            search_losses(lambda theta, key: jnp.sum(theta), jax.random.key(0), **how)
    for shape in ((3, 1, 3), (0, 2, 1), (3, 3), (3, 3.0, 3), 3, None):
        with pytest.raises(ValueError, match=r'have no y to learn by; give some of each, such as \(3, 3, 3\)'):
            search_losses(lambda theta, key: jnp.sum(theta), jax.random.key(0), shape=shape)
