"""Miconi's search over losses: expressions in x, y and w, drawn, mated and selected; each learns as a Taylor rule."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hebbjax.base import Array, Key
from hebbjax.learned.evolve import Evolved, Strategy, evolve_rule
from hebbjax.support import checks


class Expression(NamedTuple):
    """A sum of K monomials, of one neuron and one patch: `s(x, y, w) = sum_k c_k sum_d x_d^a y^b w_d^c`."""

    coefficients: Array  # [K] c_k
    exponents: Array  # [K, 3] whole numbers a, b and c of each; of c = 0 nothing is learned

    def __call__(self, x: Array, y: Array, w: Array) -> Array:
        a, b, c = self.exponents.T[:, :, None].astype(w.dtype)  # [K, 1]
        return jnp.sum(self.coefficients[:, None] * x[None] ** a * jnp.reshape(y, (1, 1)) ** b * w[None] ** c)


def to_theta(expression: Expression, shape: tuple[int, int, int] = (3, 3, 3)) -> Array:
    """Give the theta [A, B, C] of `rules.taylor` that learns by an expression, `dw = y ds/dw`.

        theta[a, b + 1, c - 1] = sum of c_k c over all monomials x^a y^b w^c

    Example:
        >>> oja = Expression(jnp.array([1.0, -0.5]), jnp.array([[1, 0, 1], [0, 1, 2]]))
        >>> expression_text(oja), to_theta(oja)[1, 1, 0].item(), to_theta(oja)[0, 2, 1].item()
        ('s = 1 x w - 0.5 y w^2', 1.0, -1.0)
    """
    values, (a, b, c), last = expression.coefficients, expression.exponents.T, (shape[0] - 1, shape[1] - 2, shape[2])
    if not checks.is_traced(expression.exponents):
        fits = np.all((np.asarray(expression.exponents) >= (0, 0, 1)) & (np.asarray(expression.exponents) <= last))
        room = 'x to the 0 to {}, y to the 0 to {} and w to the 1 to {}'.format(*last)
        checks.require(fits, f'exponents {checks.show(expression.exponents)} do not fit theta {shape}; use {room}.')
    return jnp.zeros(shape, values.dtype).at[a, b + 1, c - 1].add(values * c.astype(values.dtype))


def expression_text(expression: Expression) -> str:
    """Write an expression as text, like monomials together; the sum over inputs d goes without saying."""
    total = {}
    for value, exponents in zip(expression.coefficients.tolist(), map(tuple, expression.exponents.tolist())):
        total[exponents] = total.get(exponents, 0) + value
    text = ''
    for exponents, value in sorted(total.items(), reverse=True):
        sign = (' - ' if value < 0 else ' + ') if text else '-' if value < 0 else ''
        names = [name if n == 1 else f'{name}^{n}' for name, n in zip('xyw', exponents) if n]
        text += sign + ' '.join([f'{abs(value):.3g}', *names])
    return f's = {text}'


def draw_expression(key: Key, terms: int, shape: tuple[int, int, int]) -> Expression:
    """Draw so many monomials for a theta [A, B, C]: uniform exponents, standard normal coefficients."""
    value_key, exponent_key = jax.random.split(key)
    end = jnp.array([[shape[0], shape[1] - 1, shape[2] + 1]])
    exponents = jax.random.randint(exponent_key, (terms, 3), jnp.array([[0, 0, 1]]), end)
    return Expression(jax.random.normal(value_key, (terms,)), exponents)


def genetic(population: int, terms: int, shape: tuple[int, int, int], parents: int) -> Strategy:
    """Build a strategy over expressions: the best stay and are judged again, and the rest are their children.

    A child has each monomial from one of two parents, or, with probability 0.1, a new one; then all coefficients are
    multiplied by `1 + 0.3 z`, z standard normal.
    """

    def breed(key: Key, elite: Expression) -> Expression:
        pair_key, coin_key, new_key, move_key = jax.random.split(key, 4)
        one, other = (jax.tree.map(lambda a, n=n: a[n], elite) for n in jax.random.randint(pair_key, (2,), 0, parents))
        coin, z = jax.random.uniform(coin_key, (terms,)), jax.random.normal(move_key, (terms,))
        new = draw_expression(new_key, terms, shape)
        pick = lambda new, one, other: jnp.select([coin < 0.1, coin < 0.55], [new, one], other)  # noqa: E731
        exponents = jax.vmap(pick, 1, 1)(new.exponents, one.exponents, other.exponents)
        return Expression(pick(new.coefficients, one.coefficients, other.coefficients) * (1 + 0.3 * z), exponents)

    def tell(key: Key, members: Expression, losses: Array, state: Expression, params=None):
        elite = jax.tree.map(lambda a: a[jnp.argsort(losses)[:parents]], members)
        children = jax.vmap(breed, (0, None))(jax.random.split(key, population - parents), elite)
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), elite, children), {}

    draw = functools.partial(draw_expression, terms=terms, shape=shape)
    start = lambda key, theta, params=None: jax.vmap(draw)(jax.random.split(key, population))  # noqa: E731
    first = lambda state: jax.tree.map(lambda a: a[0], state)  # noqa: E731
    return Strategy(population, start, lambda key, state, params=None: (state, state), tell, first)


def search_losses(
    objective: Callable[[Array, Key], Array], key: Key, *, terms: int = 4, shape: tuple[int, int, int] = (3, 3, 3),
    population: int = 256, generations: int = 20, **how: Any,
) -> Evolved:  # fmt: skip
    """Search for the expression by which a rule learns best (Miconi 2021, discussion): `-1/2 sum s^2` is its loss.

    `objective` is that of `fit_rule` and `evolve_rule`, over theta [A, B, C] of this shape; `how` as `evolve_rule`.
    `Evolved.theta` is the expression that was best in the last generation, `to_theta` and `expression_text` read it.
    """
    checks.check_count('terms', terms)
    checks.check_count('population', population, 4)
    fits, came = np.shape(shape) == (3,) and all(map(checks.is_count, shape, (1, 2, 1))), checks.show(shape)
    checks.require(fits, f'expressions of powers {came} have no y to learn by; give some of each, such as (3, 3, 3).')
    strategy = genetic(population, terms, shape, population // 8 + 1)
    start = Expression(jnp.zeros(terms), jnp.ones((terms, 3), jnp.int32))
    judge = lambda expression, key: objective(to_theta(expression, shape), key)  # noqa: E731
    return evolve_rule(judge, start, key, population=population, generations=generations, strategy=strategy, **how)
