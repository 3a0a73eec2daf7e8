"""Many trainings in one program: the same network under several keys, side by side or one after the other."""

from collections.abc import Callable

import jax
from jax import lax

from hebbjax import checks, patches
from hebbjax.train import Network, TrainState, init
from hebbjax.types import Array


def init_seeds(net: Network, keys: Array, image_shape: tuple[int, int, int]) -> TrainState:
    """Make one first state per key [S]: every array has a leading axis S. See `train.init`.

    Raises:
        ValueError: if keys are no array of them, or as `train.init`.
    """
    if not isinstance(keys, jax.Array) or keys.ndim != 1 or not jax.dtypes.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ValueError(f'keys are an array of them, such as jax.random.split(key, 3), not {checks.shown(keys)}.')
    return jax.vmap(lambda key: init(net, key, image_shape))(keys)


def over_seeds(f: Callable, at_once: int, *, donate: bool = False) -> Callable:
    """Build the jitted `(states, *data) -> f(state, *data)` for all states, which share the data.

    Args:
        f: (state, *data) -> pytree, such as an epoch of `make_train_epoch`.
        at_once: states that are mapped together by `vmap`; groups of them follow each other. On an accelerator all that
            fit; on a CPU 1 is fastest (its products are large already, and one seed's numbers fill its cache).
        donate: let the new states be written over the old ones, which are then gone.

    Raises:
        ValueError: if at_once is below 1.
    """
    if not checks.is_count(at_once):
        raise ValueError(f'{checks.shown(at_once)} seeds at once train nothing; use 1 or more.')

    def everyone(states, *data):
        return lax.map(lambda state: f(state, *data), states, batch_size=None if at_once == 1 else at_once)

    return jax.jit(everyone, donate_argnums=0 if donate else ())


def seeds_at_once(net: Network, image_shape: tuple[int, int, int], batch: int, count: int) -> int:
    """Say how many of `count` seeds to train side by side: one on a CPU, else as many as half the memory holds.

    A seed's memory is taken to be that of its largest layer's patches and drives for a batch, and five times its
    weights.
    """
    if jax.default_backend() == 'cpu':
        return 1
    states = jax.eval_shape(lambda key: init(net, key, image_shape), jax.random.key(0))
    weights = sum(5 * 4 * state.w.size for state in states.layers)
    maps, shape = 0, image_shape
    for layer in net:
        g = patches.grid(layer.window, shape)
        maps = max(maps, 4 * batch * g.out[0] * g.out[1] * (g.inputs + layer.features))
        sent = jax.eval_shape(
            lambda x, layer=layer: x if layer.pool is None else layer.pool(x),
            jax.ShapeDtypeStruct((1, *g.out, layer.features), 'float32'),
        )
        shape = sent.shape[1:]
    stats = jax.devices()[0].memory_stats() or {}
    room = stats.get('bytes_limit', 8 * 2**30) // 2
    return max(1, min(count, room // (weights + maps)))
