"""What happens to a raw change `dw` before it reaches the weights: optax transformations, chained by `optax.chain`.

Rules say what a synapse can know; rates, schedules, scaling and constraints are the economy around it. Everything
here ascends: `w + change` is the new weight.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hebbjax import checks
from hebbjax.types import Array

PROBE = np.array([[0.5, 0.1, 0.8], [0.2, 0.9, 0.4]], np.float32)  # weights that no transformation treats specially


def check_ascends(tx: optax.GradientTransformation) -> None:
    """Refuse a transformation by which weights go against a change that a rule asks for, as `optax.sgd` has it.

    It is asked for one step of a few weights. What moves nothing yet (a burn-in, a frozen layer) passes, and so does
    what cannot be asked outside of its own network.

    Raises:
        ValueError: if it descends.
    """
    try:
        with jax.ensure_compile_time_eval():
            w = jnp.asarray(PROBE)
            change = tx.update(jnp.ones_like(w), tx.init(w), w)[0]
        along = 0.0 if checks.is_traced(change) else float(np.sum(change))  # with dw = 1, the inner product with it
    except Exception:  # made for weights of one shape, say
        return
    if along < 0:
        raise ValueError(
            'tx descends, as optimizers of losses do, and a rule says where to go: it would unlearn; end it with '
            'plasticity.ascend(rate), or chain optax.scale(-1) behind it.'
        )


def ascend(rate) -> optax.GradientTransformation:
    """Multiply by a rate, or by a schedule of the step count, going up: `change = rate dw`.

    Args:
        rate: number, traced number or optax schedule. In weight units per update behind `scale_by_max_abs`, where it
            is the largest change of any one weight.

    Raises:
        ValueError: if the rate is a negative number.
    """
    if not callable(rate) and checks.misfits(rate, lambda rate: rate >= 0):
        raise ValueError(f'learning rate {checks.shown(rate)} would unlearn; use a finite rate >= 0, or a schedule.')
    return optax.scale_by_learning_rate(rate, flip_sign=False)


def anneal(rate, epochs: int, steps_per_epoch: int) -> Callable[[Array], Array]:
    """Build Krotov and Hopfield's schedule: constant within an epoch, falling linearly between epochs.

    `rate (1 - e / E)` in epoch `e = step // steps_per_epoch` of E: the first epoch runs at `rate`, the last one at
    `rate / E`, none at 0.

    Raises:
        ValueError: if epochs or steps_per_epoch is below 1.
    """
    if not checks.is_count(epochs) or not checks.is_count(steps_per_epoch):
        raise ValueError(
            f'{checks.shown(epochs)} epochs of {checks.shown(steps_per_epoch)} steps cannot be annealed over; '
            'use at least 1 of each.'
        )
    if checks.misfits(rate, lambda rate: rate >= 0):
        raise ValueError(f'learning rate {checks.shown(rate)} cannot be annealed; use a finite rate >= 0.')
    return lambda step: rate * (1 - jnp.minimum(step // steps_per_epoch, epochs - 1) / epochs)


def scale_by_max_abs(per: str = 'layer', floor: float = 1e-30) -> optax.GradientTransformation:
    """Divide by the largest absolute entry: `dw / max(max|dw|, floor)`, so that the rate alone sets the step.

    Args:
        per: 'layer' takes one maximum over all neurons, as Krotov and Hopfield do: an outlier slows everyone down;
            'unit' one per neuron (row), which is local.
        floor: what a change is divided by when everything is smaller, so that no change stays no change.

    Raises:
        ValueError: if `per` is something else.
    """
    axes = {'layer': None, 'unit': -1}
    if per not in axes:
        raise ValueError(f"the maximum is taken per 'layer' or per 'unit', not per {per!r}.")
    if checks.misfits(floor, lambda floor: floor > 0):
        raise ValueError(f'a floor of {checks.shown(floor)} may divide by zero; use a finite number above 0.')

    def scale(dw):
        return dw / jnp.maximum(jnp.max(jnp.abs(dw), axis=axes[per], keepdims=True), floor)

    return optax.stateless(lambda updates, params: jax.tree.map(scale, updates))


def unit_rows() -> optax.GradientTransformation:
    """End every step on the unit sphere: `change = (w + dw) / |w + dw|_2 - w`, row by row. Last in a chain.

    A row that would become all zero stays where it is.

    Raises:
        ValueError: in its update, if that is given no weights.
    """

    def project(dw, w):
        length = jnp.linalg.norm(w + dw, axis=-1, keepdims=True)
        # a NaN length passes, so that NaN reaches the weights and is found there
        return jnp.where(length == 0, 0, (w + dw) / jnp.where(length == 0, 1, length) - w)

    def update(updates, params):
        if params is None:
            raise ValueError('unit_rows() projects weights, so its update needs them; call update(dw, state, w).')
        return jax.tree.map(project, updates, params)

    return optax.stateless(update)


def masked() -> optax.GradientTransformation:
    """Keep pruned connections pruned: `change = m dw`, `m = 1 where the first w is not 0`. Before `unit_rows`.

    The pattern is read from the weights that the transformation is initialised with (`initial.pruned`), so masks are
    data: under vmap every seed has its own. Miconi 2021, section 2.3.
    """

    def keep(dw, exists):
        return jnp.where(exists, dw, 0)

    return optax.GradientTransformation(
        lambda params: jax.tree.map(lambda w: w != 0, params),
        lambda updates, state, params=None: (jax.tree.map(keep, updates, state), state),
    )


def after(steps: int, rate) -> Callable[[Array], Array]:
    """Build the schedule of a burn-in: rate 0 for so many steps, `rate` from there on.

    Thresholds settle meanwhile. Miconi's notebook waits 201 batches.

    Raises:
        ValueError: if steps is negative.
    """
    if not checks.is_count(steps, 0):
        raise ValueError(f'a burn-in of {checks.shown(steps)} steps cannot be waited for; use 0 or more.')
    if checks.misfits(rate, lambda rate: rate >= 0):
        raise ValueError(f'learning rate {checks.shown(rate)} would unlearn; use a finite rate >= 0.')
    return lambda step: jnp.where(step < steps, 0.0, rate)
