"""Many trainings in one program: the same network under several keys, side by side or one after the other."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from hebbjax.base import Array, State
from hebbjax.layers.chain import Shape
from hebbjax.layers.network import Network, TrainState, init
from hebbjax.support import checks, devices
from hebbjax.training.step import Program, check_inputs


def init_seeds(net: Network, keys: Array, image_shape: Shape) -> TrainState:
    """Make one first state per key [S]: every array has a leading axis S. See `init`."""
    fits = checks.is_key(keys) and keys.ndim == 1 and len(keys) > 0
    checks.require(fits, f'keys are an array of them, such as jax.random.split(key, 3), not {checks.show(keys)}.')
    return jax.vmap(lambda key: init(net, key, image_shape))(keys)


def count_seeds(state: TrainState) -> int | None:
    """Say how many seeds a state holds; None: it is one without an axis of them."""
    return state.step.shape[0] if isinstance(state, TrainState) and state.step.ndim else None


def take_seed(states: State, number: int) -> State:
    """Give one seed's part of a pytree in which every array has a leading axis of seeds."""
    if not checks.is_traced(number):
        checks.check_count('number of a seed', number, 0, _length(states) - 1)
    return _take_seed(states, number)


def _length(states) -> int:
    shape = jnp.shape(jax.tree.leaves(states)[0])
    checks.require(shape, 'states of many seeds have an axis of them in front, as init_seeds makes; this has none.')
    return shape[0]


_take_seed = jax.jit(lambda states, number: jax.tree.map(lambda a: a[number], states))


def over_seeds(f: Callable, at_once: int, mesh: Mesh | None = None, donate: bool = False) -> Callable:
    """Build the jitted `(states, *data) -> f(state, *data)`, such as an epoch's, for all states, which share the data.

    `at_once` of them are mapped together by `vmap`; groups follow each other. A mesh of one axis 'seed' divides the
    states: every device goes through its own. `donate`: the new states are written over the old ones, which are gone.
    """
    checks.check_count('at_once', at_once)
    settings = f, at_once, devices.check_mesh(mesh, devices.SEED)

    def mapped(states, *data):
        if isinstance(f, Program):  # where it is mapped, it sees no values
            one = jax.eval_shape(lambda states: take_seed(states, 0), states)
            data = check_inputs(f.net, one, *[*data, None][:2], look=f.batch is not None)[: len(data)]
        return _OVER_SEEDS[donate](*settings, states, *data)

    mapped.lower = functools.partial(_OVER_SEEDS[donate].lower, *settings)  # ahead of time, as `jax.jit` does
    return mapped


def _over_seeds(f, at_once, mesh, states, *data):
    devices.check_divides('a number of seeds', _length(states), mesh)
    size = None if at_once == 1 else at_once
    run = lambda states, *data: lax.map(lambda state: f(state, *data), states, batch_size=size)  # noqa: E731
    shared = (devices.SAME,) * len(data)
    return devices.divide(run, mesh, devices.SEEDS, *shared, out=devices.SEEDS, adds=False)(states, *data)


_OVER_SEEDS = [jax.jit(_over_seeds, static_argnums=(0, 1, 2), donate_argnums=(3,)[:donate]) for donate in (0, 1)]
