"""A training as one differentiable function: scanned steps, each computed once more where its gradient is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array
from hebbjax.layers.network import Network, TrainState, check_network
from hebbjax.support import checks
from hebbjax.training.step import check_inputs, sweep


def run_steps(
    net: Network, state: TrainState, images: Array, labels: Array | None = None, *,
    keep: Callable[[TrainState, tuple], Any] | None = None, remat: bool = True,
) -> tuple[TrainState, Any]:  # fmt: skip
    """Take T learning steps, those of `train_step`, so that gradients and `vmap` go through them.

    Args:
        net, state: rules and rates of the layers may be traced: they are what is learned.
        images: [T, B, H, W, C], a batch for each step, or of sequences one axis more.
        labels: integers [T, B], for layers with a teacher.
        keep: (state, infos) after a step -> any pytree, stacked over steps; None: nothing.
        remat: of each step, hold on to its first state alone, and compute the rest again for its gradient.

    -> The last state, and what was kept, [T, ...].

    Example:
        >>> from hebbjax import layers, rules, transforms
        >>> net = (layers.Layer(2, rules.oja(), transforms.scale_by_rate(0.1)),)
        >>> state, images = layers.init(net, jax.random.key(0), (2, 2, 1)), jnp.ones((5, 3, 2, 2, 1))
        >>> state, w = run_steps(net, state, images, keep=lambda state, infos: state.layers[0].w)
        >>> int(state.step), w.shape
        (5, (5, 2, 4))
    """
    net = check_network(net)
    shape, way = jnp.shape(images), 'images[None] are those of a single step'
    checks.require(len(shape) >= 5 and shape[0] > 0, f'images are [T, B, H, W, C], T steps, not of {shape}; {way}.')
    given = None if labels is None else jnp.asarray(labels)  # of another shape than [T, B] they are refused as they are
    given = given.reshape(-1) if given is not None and given.shape == shape[:2] else given
    _, flat = check_inputs(net, state, images.reshape(-1, *shape[2:]), given)

    def step(state, batch):
        state, infos = sweep(net, state, *batch, None)
        return state, None if keep is None else keep(state, infos)

    # a loop's body, in which XLA finds nothing to merge with the first time it was computed
    step = jax.checkpoint(step, prevent_cse=False) if remat else step
    return lax.scan(step, state, (images, None if flat is None else flat.reshape(shape[:2])))
