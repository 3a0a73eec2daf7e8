"""What is watched while a network learns: computed in the scanned epoch, handed out in its info, never in the state.

By-products of every step are kept for every step; what costs something is looked at every n-th step, on a few images.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hebbjax import diagnostics
from hebbjax.base import Array, StepInfo
from hebbjax.layers.chain import apply_chain, bind_weights, lay_behind
from hebbjax.layers.layer import Layer, LayerState, forward, to_intensities
from hebbjax.layers.normalization import BatchNorm
from hebbjax.support import checks, devices


@dataclasses.dataclass(frozen=True)
class Monitor:
    """How often to look, and at what: as many images of a batch, before augmentation, as have so many windows."""

    every: int = 20  # steps from look to look, the first step of an epoch included
    windows: int = 500  # that a look shows the lowest layer; at least one image, at most the batch
    p: float = 2.0  # of norms `sum_d |w_id|^p`; Krotov and Hopfield's rule has its fixed point at 1 of its own p
    tolerance: float = 0.1  # how near to 1 a norm counts as converged

    def __post_init__(self) -> None:
        for name in ('every', 'windows'):
            checks.check_count(name, getattr(self, name))
        for name in ('p', 'tolerance'):
            checks.check_number(name, getattr(self, name), above=0)


class Observation(NamedTuple):
    """One look at one layer's activations before pooling and batch norm, over images, positions and neurons."""

    mean: Array
    variance: Array
    sparsity: Array  # share of them that are exactly 0


class Trace(NamedTuple):
    """What was watched of one layer over an epoch of S steps, L of them looked at."""

    win_share: Array  # [N] of all wins of the epoch; zeros in a layer that does not learn
    win_entropy: Array  # of these shares: 1 if all win alike, 0 if one wins everything
    dead: Array  # int: neurons that won nothing in the whole epoch
    norms: Array  # [N] sum_d |w_id|^p when the epoch is over
    converged: Array  # share of neurons whose norm is then within the tolerance of 1, from above or below
    max_update: Array  # [S] largest absolute weight change of each step
    observed_steps: Array  # [L] numbers of the steps that were looked at, counted over the whole training
    observations: Observation  # [L] each


def observe(net: Sequence[Layer], states: Sequence[LayerState], images: Array) -> tuple[Observation, ...]:
    """Look at every layer, which is shown images [b, H, W, C]."""
    x, observations = to_intensities(images), []
    for layer, state in zip(net, states):
        # the parts of `post` before the first that pools, or normalises over a batch what was activated
        ends = (n for n, part in enumerate(layer.post) if hasattr(part, 'pools') or (n and isinstance(part, BatchNorm)))
        parts = next(ends, len(layer.post))
        y = forward(layer, state, x, parts)  # [b, H', W', N]
        share = devices.mean_over_devices(jnp.mean(y == 0, dtype=y.dtype))
        observations.append(Observation(*devices.moments_over_devices(jnp.mean(y), jnp.var(y)), share))
        x, _ = apply_chain(bind_weights(layer.post[parts:], state.w), state.post[parts:], y)
    return tuple(observations)


def observe_every(
    monitor: Monitor, net: Sequence[Layer], number: Array, states: Sequence[LayerState], images: Array, chosen: Array
) -> tuple[Observation, ...]:
    """Look in steps 0, n, 2n ... of an epoch, at the first few of the `chosen` images; else give zeros."""
    of_frame = lay_behind(net[0].pre, net[0].window, images.shape[-3:]).out
    windows = math.prod(of_frame) * math.prod(images.shape[1:-3])  # of a sequence
    chosen = chosen[: -(-monitor.windows // (windows * devices.device_count()))]
    look = lambda states, chosen: observe(net, states, images[chosen].reshape(-1, *images.shape[-3:]))  # noqa: E731
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(look, states, chosen))
    return lax.cond(number % monitor.every == 0, look, lambda *_: zeros, states, chosen)


@jax.jit
def share_wins(wins: Array) -> tuple[Array, Array, Array]:
    """Give each neuron's share of wins [N], the shares' entropy, and the number of neurons that have none."""
    return diagnostics.win_share(wins), diagnostics.win_entropy(wins), len(wins) - diagnostics.distinct_winners(wins)


def join_traces(traces: Sequence[Trace], wins: np.ndarray | None) -> Trace:
    """Put together, on the host, what was watched over an epoch's parts; `wins` [N] are those of all, if any."""
    steps = jax.tree.map(lambda *parts: np.concatenate(parts, -1), *(trace[5:] for trace in traces))
    shares = traces[-1][:3]
    if wins is not None:  # or [S, N] of seeds
        each = [jax.device_get(share_wins(one)) for one in wins.reshape(-1, wins.shape[-1])]
        shares = each[0] if wins.ndim == 1 else [np.stack(of_all) for of_all in zip(*each)]
    return Trace(*shares, *traces[-1][3:5], *steps)


def trace_epoch(monitor: Monitor, info: StepInfo | None, observations: Observation, first: Array, w: Array) -> Trace:
    """Put together what an epoch's steps say of a layer, and each n-th look at it; `first` numbers the first step."""
    steps, wins = len(observations.mean), jnp.zeros(len(w), jnp.int32) if info is None else info.win_counts.sum(0)
    return Trace(
        *share_wins(wins),
        jnp.sum(jnp.abs(w) ** monitor.p, axis=1),
        diagnostics.unit_convergence(w, monitor.p, monitor.tolerance),
        jnp.zeros(steps, w.dtype) if info is None else info.max_update,
        first + jnp.arange(0, steps, monitor.every, dtype=first.dtype),
        jax.tree.map(lambda a: a[:: monitor.every], observations),
    )
