"""Images on their way to a training: an array, which lies on the device, or parts of what does not fit, one by one."""

import itertools
from collections.abc import Generator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hebbjax.base import AnyArray
from hebbjax.layers.network import TrainState
from hebbjax.support import devices
from hebbjax.support.checks import require
from hebbjax.support.shards import Shards, draw_order, read_ahead
from hebbjax.training.parallel import count_seeds, take_seed
from hebbjax.training.step import Program, check_inputs


def stream_parts(
    program: Program, state: TrainState, images: AnyArray | Shards, labels: AnyArray | None, epochs: int,
    seed_mesh: Mesh | None = None,
) -> tuple[Program, Any, int, Generator[Any]]:  # fmt: skip
    """Lay images and labels of so many epochs on the devices, checked, part by part; an array is one part.

    The order of an epoch's parts is drawn by the state's key, of many seeds the first one's, and the number of the step
    that it begins with: a resumed training sees the same. -> the program, their shapes, how many are an epoch, all.
    """
    shards, like = images if isinstance(images, Shards) else [(images, labels)], state
    require(shards is not images or labels is None, 'Shards bring labels of their own; leave the others out.')
    if isinstance(state, TrainState):
        like = jax.eval_shape(lambda state: state if count_seeds(state) is None else take_seed(state, 0), state)

    def place(number: int) -> tuple[Program, Any]:
        placed, _, data = program.place((), *check_inputs(program.net, like, *shards[number], look=True))
        data = devices.lay(data, seed_mesh) if program.mesh or seed_mesh else jax.device_put(data)
        return placed, jax.block_until_ready(data)

    placed, data = place(0)  # what does not fit is refused before anything is computed
    like_data = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), data)
    if len(shards) == 1:
        return placed, like_data, 1, (data for _ in itertools.count())
    key, first = np.asarray(jax.random.key_data(state.key)), np.ravel(state.step)[0]
    steps = len(shards) * (images.shape[0] // len(shards) * devices.host_count(program.mesh) // program.batch)
    orders = (draw_order(key, first + steps * epoch, len(shards)) for epoch in range(epochs))
    parts = read_ahead(lambda number: place(number)[1], itertools.chain.from_iterable(orders))
    return placed, like_data, len(shards), parts
