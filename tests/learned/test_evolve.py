"""Populations move to where an objective is low, whatever it does to some of them, by any strategy of ask and tell."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import layers, rules, transforms
from hebbjax.learned.evolve import Evolved, evolve_rule, gaussian
from hebbjax.learned.objectives import trajectory_error
from hebbjax.learned.unroll import run_steps

START = {'a': jnp.zeros(2), 'b': jnp.zeros(())}


def evolve_16(objective, theta, **how):
    """Evolve a small population."""
    return evolve_rule(objective, theta, jax.random.key(0), **{'population': 16} | how)


def bowl(theta, key=None):
    """Lowest, 0, at a = (1, -1), b = 2, in directions of very different slope."""
    return jnp.sum((theta['a'] - jnp.array([1.0, -1.0])) ** 2) + 25 * (theta['b'] - 2) ** 2


def test_a_population_finds_the_lowest_place_of_a_pytree():
    evolved = evolve_rule(bowl, START, jax.random.key(0), population=64, generations=40)
    assert bowl(evolved.theta) < 1e-6 and not evolved.interrupted
    np.testing.assert_allclose(bowl(evolved.best), evolved.fitness.min(), rtol=1e-4)
    assert evolved.fitness.shape == (40, 64) and evolved.fitness[0].min() > 1


def test_it_finds_it_in_noise_that_a_generation_shares():
    """The same key for all members, another one in every generation; without a slope the population stays wide."""
    noise = lambda theta, key: jax.random.normal(key)  # noqa: E731
    fitness = evolve_16(noise, START).fitness
    assert np.all(fitness == fitness[:, :1]) and len(np.unique(fitness)) == 20
    evolved = evolve_rule(
        lambda theta, key: bowl(theta) + 10 * noise(theta, key), START, jax.random.key(0), population=64
    )
    assert bowl(evolved.theta) < 0.01


def test_groups_are_the_same_population_and_one_program(compilations):
    whole = evolve_16(bowl, START, generations=5)
    before = len(compilations)
    seen = []
    parts = evolve_16(bowl, START, generations=5, at_once=4, watch=lambda *told: seen.append(told))
    few = len(compilations) - before
    np.testing.assert_allclose(whole.fitness, parts.fitness, rtol=1e-4)
    before = len(compilations)
    evolve_16(bowl, START, generations=9, at_once=4)
    assert len(compilations) - before <= few  # however many generations
    assert [number for number, _, _ in seen] == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(seen[-1][1], parts.fitness[-1])
    np.testing.assert_array_equal(seen[-1][2]['a'], parts.theta['a'])


def test_losses_that_are_not_finite_count_as_the_worst_and_are_told():
    """Half the plane is forbidden, by NaN or by an infinite reward."""
    for forbidden in (jnp.nan, -jnp.inf):
        loss = lambda theta, key, bad=forbidden: jnp.where(theta['b'] < 0, bad, bowl(theta))  # noqa: E731
        evolved = evolve_rule(loss, START, jax.random.key(0), population=64, generations=40)
        failed = (~np.isfinite(evolved.fitness)).sum(1)
        assert 10 < failed[0] < 54 and failed[-1] == 0
        assert bowl(evolved.theta) < 1e-4 and np.isfinite(bowl(evolved.best))
    plateau = lambda theta, key: jnp.where(theta['b'] < START['b'], jnp.nan, 1.0)  # noqa: E731  all others are alike
    best = [evolve_rule(plateau, START, jax.random.key(seed), population=8, generations=1).best for seed in range(6)]
    assert all(one['b'] >= START['b'] for one in best)
    with pytest.raises(ValueError, match='none of 16 losses of generation 0 is finite; start from a theta'):
        evolve_16(lambda theta, key: jnp.nan * theta['b'], START)


@pytest.mark.parametrize('kind', ['bfloat16', 'float32'])
def test_coefficients_keep_their_type(kind, x64):
    evolved = evolve_16(lambda theta, key: jnp.sum((theta - 3) ** 2), jnp.ones(2, kind))
    assert evolved.theta.dtype == kind
    np.testing.assert_allclose(evolved.theta.astype('f4'), 3, atol=0.1)


def test_ctrl_c_gives_what_was_reached():
    def interrupt(number, losses, theta):
        if number == 3:
            raise KeyboardInterrupt

    evolved = evolve_16(bowl, START, watch=interrupt)
    assert evolved.interrupted and evolved.fitness.shape == (3, 16)
    np.testing.assert_array_equal(evolved.theta['a'], evolve_16(bowl, START, generations=3).theta['a'])


class RandomSearch:
    """A stand-in with the face of evosax's distributions: jitted methods, params, a fitness that is minimised."""

    population_size, default_params = 16, {'spread': 1.0}

    @functools.partial(jax.jit, static_argnames='self')
    def init(self, key, mean, params):
        return {'mean': mean, 'lowest': jnp.inf}

    @functools.partial(jax.jit, static_argnames='self')
    def ask(self, key, state, params):
        a_key, b_key = jax.random.split(key)
        steps = {'a': jax.random.normal(a_key, (16, 2)), 'b': jax.random.normal(b_key, (16,))}
        return jax.tree.map(lambda leaf, z: leaf[None] + params['spread'] * z, state['mean'], steps), state

    @functools.partial(jax.jit, static_argnames='self')
    def tell(self, key, population, fitness, state, params):
        best = jnp.argmin(fitness)
        better = fitness[best] < state['lowest']
        move = lambda old, new: jnp.where(better, new[best], old)  # noqa: E731
        mean = jax.tree.map(move, state['mean'], population)
        return {'mean': mean, 'lowest': jnp.minimum(fitness[best], state['lowest'])}, {'best': best}

    def get_mean(self, state):
        return state['mean']


def test_a_strategy_of_evosax_s_signatures_fits():
    evolved = evolve_16(bowl, START, generations=60, strategy=RandomSearch())
    assert isinstance(evolved, Evolved) and bowl(evolved.theta) == evolved.fitness.min() < 1


def test_the_rule_that_gradients_fit_is_found_by_evolution(rng):
    """Oja's leak out of trajectories of weights, through a Taylor rule in a whole training."""
    images = jnp.asarray(rng.normal(size=(10, 8, 4, 1, 1)), jnp.float32)
    w = jnp.asarray(0.5 * rng.normal(size=(2, 4)), jnp.float32)

    def trajectory(rule):
        net = (layers.Layer(2, rule, transforms.scale_by_rate(0.1), patch_transform=layers.raw),)
        state = layers.init(net, jax.random.key(0), (4, 1, 1), [w])
        return run_steps(net, state, images, keep=lambda state, infos: state.layers[0].w)[1]  # [T, N, D]

    target = jax.jit(trajectory, static_argnums=0)(rules.oja())

    def objective(theta, key):
        rule = rules.taylor(jnp.zeros((2, 3, 2)).at[1, 1, 0].set(1).at[0, 2, 1].set(theta['leak']))
        return trajectory_error(trajectory(rule), target, w)

    evolved = evolve_rule(objective, {'leak': jnp.zeros(())}, jax.random.key(0), population=32, at_once=8)
    np.testing.assert_allclose(evolved.theta['leak'], -1, atol=0.01)


class NoMean:
    """Half a strategy."""

    population_size, default_params, init, ask, tell = 16, None, None, None, None


@pytest.mark.parametrize(
    'how, says',
    [
        ({'at_once': 5}, 'a population of 16 does not divide into groups of at_once=5; use 4.'),
        ({'at_once': 32}, 'a population of 16 does not divide into groups of at_once=32; use 16.'),
        ({'at_once': 0}, 'at_once=0 is out of range'),
        ({'population': 3}, 'population=3 is out of range; use a whole number from 4 on.'),
        ({'generations': 0}, 'generations=0 is out of range'),
        ({'strategy': NoMean()}, 'no get_mean.'),
        ({'strategy': gaussian(32, START)}, 'a strategy of 32 members evolves no 16; use population=32.'),
        ({'theta': {'a': jnp.zeros(2), 'n': jnp.ones(2, jnp.int32)}}, 'a rule is learned by a pytree of floats'),
        ({'theta': ()}, 'a rule is learned by a pytree of floats, at least one'),
        ({'objective': lambda theta, key: theta['a']}, 'an objective gives one float, a loss, not'),
        ({'objective': lambda theta, key: jnp.argmax(theta['a'])}, 'an objective gives one float'),
        ({'objective': lambda theta, key: (theta['b'], theta['b'])}, 'an objective gives one float'),
        ({'key': 0}, 'jax.random.key(0)'),
    ],
)
def test_what_cannot_evolve_is_refused_in_one_sentence(how, says):
    with pytest.raises(ValueError) as refused:
        evolve_rule(**{'objective': bowl, 'theta': START, 'key': jax.random.key(0), 'population': 16} | how)
    assert says in str(refused.value) and '\n' not in str(refused.value)
