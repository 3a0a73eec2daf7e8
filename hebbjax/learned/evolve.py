"""Rules that are evolved: a population, judged by one objective, moves to where they learn best; no gradient asked."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from hebbjax.base import Array, Key
from hebbjax.learned.objectives import check_floats, check_objective
from hebbjax.support import checks
from hebbjax.support.signals import compile_whole, listen, wait_until_ready


class Strategy(NamedTuple):
    """How a population moves, by evosax's signatures: `evosax.algorithms.Sep_CMA_ES(256, theta)` fits in its place."""

    population_size: int  # M
    init: Callable  # (key, theta, params) -> state
    ask: Callable  # (key, state, params) -> (members: theta with a leading axis [M], state)
    tell: Callable  # (key, members, losses [M], state, params) -> (state, metrics)
    get_mean: Callable  # state -> theta, where the population stands
    default_params: Any = None


class Evolved(NamedTuple):
    """What an evolution reached."""

    theta: Any  # where the population stands
    best: Any  # the member of the lowest loss of all generations, as lucky as it is good
    fitness: np.ndarray  # [generations, M] losses as they came, those that are not finite among them
    interrupted: bool


def evolve_rule(
    objective: Callable[[Any, Key], Array], theta: Any, key: Key, *, population: int = 256, generations: int = 20,
    strategy: Any = None, at_once: int | None = None, watch: Callable[[int, np.ndarray, Any], Any] | None = None,
) -> Evolved:  # fmt: skip
    """Evolve a rule: ask for members, train all of them in one program, tell their losses, and so on.

    A generation shares a key, so that no member is luckier than another; the next has its own, so that none fits one
    draw. A loss that is not finite counts as worse than all others, and is seen in `fitness`. Ctrl-C ends it early.

    Args:
        objective: as in `fit_rule`, differentiable or not. Bounds are its own: `jnp.exp(theta)` is positive.
        theta: any pytree of floats, around which the population starts.
        strategy: a `Strategy` of `population` members; None: `gaussian(population, theta)`.
        at_once: members that train side by side, a divisor of the population; None: all.
        watch: (generations so far, losses [M], theta), called after each.

    Example:
        >>> loss = lambda theta, key: (theta['rate'] - 2) ** 2
        >>> evolved = evolve_rule(loss, {'rate': jnp.array(1.0)}, jax.random.key(0), population=16)
        >>> round(float(evolved.theta['rate']), 2), evolved.fitness.shape
        (2.0, (20, 16))
    """
    checks.check_key(key)
    checks.check_count('generations', generations)
    strategy = gaussian(population, theta) if strategy is None else strategy
    at_once = population if at_once is None else at_once
    _check_evolution(objective, theta, key, population, strategy, at_once)
    (start_key, run_key), params = jax.random.split(key), strategy.default_params

    @jax.jit
    def advance(state, number):
        ask_key, objective_key, tell_key = jax.random.split(jax.random.fold_in(run_key, number), 3)
        members, state = strategy.ask(ask_key, state, params)
        judge = lambda member: objective(member, jax.random.clone(objective_key))  # noqa: E731
        losses = lax.map(judge, members, batch_size=at_once)  # [M]
        finite = jnp.isfinite(losses)
        worst = jnp.max(losses, initial=-jnp.inf, where=finite)
        ranked = jnp.where(finite, losses, worst + jnp.maximum(1, jnp.abs(worst)))
        state, _ = strategy.tell(tell_key, members, ranked, state, params)
        return state, losses, jax.tree.map(lambda leaf: leaf[jnp.argmin(ranked)], members)

    state, best, lowest, fitness = strategy.init(start_key, theta, params), theta, math.inf, []
    compiled = compile_whole(advance, state, 0)
    try:
        with listen() as check_interrupt:
            for number in range(generations):
                advanced, losses, leader = wait_until_ready(compiled(state, number))
                losses = np.asarray(losses)
                finite = losses[np.isfinite(losses)]
                way = 'start from a theta whose loss is finite, or with a smaller spread'
                checks.require(len(finite), f'none of {population} losses of generation {number} is finite; {way}.')
                state, best, lowest = advanced, leader if finite.min() < lowest else best, min(lowest, finite.min())
                fitness.append(losses)
                if watch is not None:
                    watch(number + 1, losses, strategy.get_mean(state))
                check_interrupt()
    except KeyboardInterrupt:
        if not fitness:
            raise
    return Evolved(strategy.get_mean(state), best, np.stack(fitness), len(fitness) < generations)


def _check_evolution(objective, theta, key, population, strategy, at_once) -> None:
    check_objective(objective, theta, key)
    parts, size = Strategy._fields, getattr(strategy, 'population_size', None)
    lacks = ', '.join(name for name in parts if not hasattr(strategy, name))
    checks.require(not lacks, f'a strategy has {", ".join(parts)}, and {checks.show(strategy)} no {lacks}.')
    checks.require(size == population, f'a strategy of {size} members evolves no {population}; use population={size}.')
    checks.check_count('at_once', at_once)
    divisor = next(n for n in range(min(at_once, population), 0, -1) if population % n == 0)
    misfit = f'a population of {population} does not divide into groups of at_once={at_once}'
    checks.require(divisor == at_once, f'{misfit}; use {divisor}.')


def gaussian(population: int, theta: Any, spread: float = 0.3) -> Strategy:
    """Build an evolution strategy with one width d per parameter: `theta_k = m + d z_k`, z standard normal.

    Of the better half, best first, by weights `v_k` that fall with the log of the rank and `1 / mu = sum_k v_k^2`:

        d^2 = (1 - c) d^2 + c sum_k v_k (theta_k - m)^2      m = sum_k v_k theta_k

    The rank-mu part of CMA-ES (Hansen 2016, arXiv 1604.00772), separable as in Ros & Hansen 2008, for populations well
    above the number of parameters. `spread` is d at first, in units of theta.
    """
    checks.check_count('population', population, 4)
    checks.check_number('spread', spread, above=0)
    check_floats(theta)
    flat, unravel = ravel_pytree(theta)
    n, weights = flat.size, np.maximum(math.log((population + 1) / 2) - np.log(np.arange(1, population + 1)), 0)
    v = jnp.asarray(weights / weights.sum(), flat.dtype)  # [M]
    mu = float(weights.sum() ** 2 / (weights**2).sum())  # of Python, which leaves the type of theta as it is
    c = min(1.0, (n + 2) / 3 * 2 * (mu - 2 + 1 / mu) / ((n + 2) ** 2 + mu))

    def ask(key: Key, state, params=None):
        m, d = state  # [n]
        return jax.vmap(unravel)(m[None] + d[None] * jax.random.normal(key, (population, n), m.dtype)), state

    def tell(key: Key, members: Any, losses: Array, state, params=None):
        m, d = state
        theta = jax.vmap(lambda member: ravel_pytree(member)[0])(members)[jnp.argsort(losses)]  # [M, n], best first
        return (v @ theta, jnp.sqrt((1 - c) * d**2 + c * (v @ (theta - m[None]) ** 2))), {}

    start = lambda key, theta, params=None: (ravel_pytree(theta)[0], jnp.full_like(flat, spread))  # noqa: E731
    return Strategy(population, start, ask, tell, lambda state: unravel(state[0]))
