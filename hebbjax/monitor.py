"""What is watched while a network learns: computed inside the scanned epoch, told in its info, never in the state.

By-products of every step are kept for every step; what costs something is looked at every n-th step, on a few images.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax import checks, layers, measures, norms, patches
from hebbjax.layers import Layer, LayerState
from hebbjax.types import Array, Told


class Monitor(NamedTuple):
    """How often to look, and at what.

    Attributes:
        every: steps from look to look, the first step of an epoch included.
        windows: that a look shows the lowest layer: as many images of the step's batch, before any augmentation, as
            have so many windows; at least one, at most the batch.
        p: norms are `sum_d |w_id|^p`; Krotov and Hopfield's rule has its fixed point at 1 of its own p.
        tolerance: how near to 1 a norm counts as converged.
    """

    every: int = 20
    windows: int = 500
    p: float = 2.0
    tolerance: float = 0.1

    def check(self) -> None:
        """Refuse what cannot be looked at.

        Raises:
            ValueError: naming the setting, its value and what would do.
        """
        for name in ('every', 'windows'):
            if not checks.is_count(getattr(self, name)):
                raise ValueError(
                    f'a monitor with {name}={checks.shown(getattr(self, name))} sees nothing; use 1 or more.'
                )
        for name in ('p', 'tolerance'):
            if checks.misfits(getattr(self, name), lambda number: number > 0):
                raise ValueError(
                    f'a monitor with {name}={checks.shown(getattr(self, name))} judges nothing; use more than 0.'
                )


class Glance(NamedTuple):
    """One look at one layer, before the step; in a `Trace` with a leading axis of looks, L."""

    norms: Array  # [N] sum_d |w_id|^p
    converged: Array  # share of neurons whose norm is within the tolerance of 1, from above or below
    mean: Array  # of the layer's answers fire(u - threshold), before pooling and norm, over images, positions, neurons
    variance: Array  # of the same
    sparsity: Array  # share of them that are exactly 0


class Trace(NamedTuple):
    """What was watched of one layer over an epoch of S steps, L of them looked at."""

    share: Array  # [N] of all wins of the epoch; zeros in a layer that does not learn
    entropy: Array  # of these shares: 1 if all win alike, 0 if one wins everything
    dead: Array  # int: neurons that won nothing in the whole epoch
    norms: Array  # [N] sum_d |w_id|^p when the epoch is over
    converged: Array  # share of neurons whose norm is then within the tolerance of 1, from above or below
    change: Array  # [S] largest absolute weight change of each step
    step_entropy: Array  # [S] entropy of each step's win shares
    step: Array  # [L] number of the step that was looked at, counted over the whole training
    seen: Glance


def look(monitor: Monitor, net: Sequence[Layer], states: Sequence[LayerState], images: Array) -> tuple[Glance, ...]:
    """Look at every layer, which is shown images [b, H, W, C]."""
    x, seen = layers.intensities(images), []
    for layer, state in zip(net, states):
        y = layers.respond(dataclasses.replace(layer, pool=None, norm=None), state, x)  # [b, H', W', N]
        seen.append(Glance(*of_norms(monitor, state.w), jnp.mean(y), jnp.var(y), jnp.mean(y == 0)))
        x = y if layer.pool is None else layer.pool(y)
        x = x if layer.norm is None else norms.apply(layer.norm, state.norm, x)
    return tuple(seen)


def of_norms(monitor: Monitor, w: Array) -> tuple[Array, Array]:
    """Give norms `sum_d |w_id|^p` and the share of those that have converged. [N, D] -> [N], scalar."""
    lengths = jnp.sum(jnp.abs(w) ** monitor.p, axis=1)
    return lengths, measures.unit_convergence(w, monitor.p, monitor.tolerance)


def now_and_then(
    monitor: Monitor, net: Sequence[Layer], number: Array, states: Sequence[LayerState], images: Array, chosen: Array
) -> tuple[Glance, ...]:
    """Look in steps 0, n, 2n ... of an epoch, at the first few of the `chosen` images; else zeros (see `trace`)."""

    def at(states, chosen):
        return look(monitor, net, states, images[chosen])

    positions = math.prod(patches.grid(net[0].window, images.shape[1:]).out)
    chosen = chosen[: -(-monitor.windows // positions)]
    if monitor.every == 1:
        return at(states, chosen)
    blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(at, states, chosen))
    return lax.cond(number % monitor.every == 0, at, lambda *_: blank, states, chosen)


def trace(monitor: Monitor, told: Told | None, seen: Glance, first: Array, w: Array) -> Trace:
    """Put an epoch's looks together.

    Args:
        monitor: how often it looked.
        told: of every step, a leading axis S; None for a layer that does not learn.
        seen: of every step; only each n-th was looked at.
        first: number of the epoch's first step.
        w: weights when the epoch is over [N, D].
    """
    steps = seen.converged.shape[0]
    if told is None:  # nobody won, nothing changed
        wins, change = jnp.zeros((steps, len(w)), jnp.int32), jnp.zeros(steps, seen.norms.dtype)
    else:
        wins, change = told.wins, told.change
    everything = wins.sum(0)  # [N]
    return Trace(
        measures.win_share(everything),
        measures.win_entropy(everything),
        len(w) - measures.distinct_winners(everything),
        *of_norms(monitor, w),
        change,
        jax.vmap(measures.win_entropy)(wins),
        first + jnp.arange(0, steps, monitor.every, dtype=first.dtype),
        jax.tree.map(lambda a: a[:: monitor.every], seen),
    )
