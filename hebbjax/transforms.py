"""What happens to a raw change `dw` before it reaches the weights: optax transformations, chained by `optax.chain`.

Rules say what a synapse can know, this is the economy around it. All ascend: `w + change` is the new weight. A rate
that waits while thresholds settle: `optax.join_schedules([constant_schedule(0.0), constant_schedule(rate)], [steps])`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hebbjax.base import Scalar
from hebbjax.support import checks, specs

GAP = 1e-10  # added to gaps of a norm, so that none stops a neuron for good


def scale_by_rate(rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Multiply by a rate (a number, traced or not) or by an optax schedule of the step count: `change = rate dw`."""
    if not callable(rate):
        checks.check_number('rate', rate, least=0)
    return optax.scale_by_learning_rate(rate, flip_sign=False)


def linear_by_epoch(rate: Scalar, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Build Krotov and Hopfield's schedule: constant within an epoch, falling linearly between epochs.

    `rate (1 - e / E)` in epoch `e = step // steps_per_epoch` of E: from `rate` to `rate / E`, at which it stays.

    Example:
        >>> schedule = linear_by_epoch(0.02, epochs=4, steps_per_epoch=100)
        >>> [round(float(schedule(step)), 3) for step in (0, 99, 100, 399)]
        [0.02, 0.02, 0.015, 0.005]
    """
    checks.check_number('rate', rate, least=0)
    checks.check_count('epochs', epochs)
    checks.check_count('steps_per_epoch', steps_per_epoch)
    return lambda step: rate * (1 - jnp.minimum(step // steps_per_epoch, epochs - 1) / epochs)


def scale_by_max_abs(per: str = 'layer', floor: float = 1e-30) -> optax.GradientTransformation:
    """Divide by the largest absolute entry: `dw / max(max|dw|, floor)`, so that the rate alone sets the step.

    `per` 'layer' takes one maximum over all neurons, as Krotov and Hopfield do: an outlier slows everyone down; 'unit'
    one per neuron (row), which is local. With the floor, no change stays no change.
    """
    axes = {'layer': None, 'unit': -1}
    checks.check_choice('per', per, axes)
    checks.check_number('floor', floor, above=0)

    def scale(dw, w):
        flat = (largest := jnp.max(jnp.abs(dw), axis=axes[per], keepdims=True)) <= floor
        return dw / jnp.where(flat, 1, largest) * jnp.where(flat, 1 / floor, 1)  # dw / floor has none

    return optax.stateless_with_tree_map(scale)


def scale_by_norm_gap(radius: float = 1.0, power: float = 0.5) -> optax.GradientTransformation:
    """Slow every neuron down as its weights come to a length: `change_i = (| |w_i|_2 - radius | + 1e-10)^power dw_i`.

    A pure function of the weights as they are. Journé et al. 2023, section 3 (radius 1, and in their code power 0.5).
    """
    checks.check_number('radius', radius, above=0)
    checks.check_number('power', power, above=0)

    def scale(dw, w):
        checks.require(w is not None, 'scale_by_norm_gap() needs the weights; call update(dw, state, w).')
        return (jnp.abs(optax.safe_norm(w, 0.0, axis=-1, keepdims=True) - radius) + GAP) ** power * dw

    return optax.stateless_with_tree_map(scale)


def project_unit_rows() -> optax.GradientTransformation:
    """End every step on the unit sphere: `change = (w + dw) / |w + dw|_2 - w`, by row; last in a chain."""

    def project(dw, w):
        checks.require(w is not None, 'project_unit_rows() needs the weights it projects; call update(dw, state, w).')
        length = optax.safe_norm(w + dw, 0.0, axis=-1, keepdims=True)
        # a row that would become all zero stays where it is, without a slope; NaN passes, to be found in the weights
        return jnp.where(length == 0, 0, (w + dw) / jnp.where(length == 0, 1, length) - w)

    return optax.stateless_with_tree_map(project)


def keep_pruned() -> optax.GradientTransformation:
    """Keep pruned connections pruned: `change = m dw`, `m = 1 where the first w is not 0`. Before `project_unit_rows`.

    The pattern is read from the weights that the transformation is initialised with (`initializers.pruned`), so masks
    are data: under vmap every seed has its own. Miconi 2021, section 2.3.
    """

    def update(updates, exists, params=None):
        return jax.tree.map(lambda dw, m: jnp.where(m, dw, 0), updates, exists), exists

    return optax.GradientTransformation(lambda params: jax.tree.map(lambda w: w != 0, params), update)


def check_ascends(tx: optax.GradientTransformation) -> None:
    """Refuse a transformation by which weights go against a change that a rule asks for, as `optax.sgd` has it.

    What moves nothing yet passes, and what cannot be asked for a step of other weights than its own.
    """
    try:
        descends = _descends(specs.ByValue(tx))
    except Exception:  # made for weights of one shape, say
        return
    way = 'end it with transforms.scale_by_rate(rate), or chain optax.scale(-1) behind it'
    what = 'tx descends, as optimizers of losses do, and a rule says where to go: it would unlearn'
    checks.require(not descends, f'{what}; {way}.')


@functools.lru_cache
def _descends(tx: specs.ByValue) -> bool:
    w = np.array([[0.5, 0.1, 0.8], [0.2, 0.9, 0.4]], np.float32)  # that no transformation treats specially
    change = lambda dw, w: tx.thing.update(dw, tx.thing.init(w), w)[0]  # noqa: E731
    # what dw = 1 adds to the change, along itself; one program, which runs where jax traces, too
    along = jax.jit(lambda w: jnp.sum(change(jnp.ones_like(w), w) - change(jnp.zeros_like(w), w)))
    return float(along.lower(w).compile()(w)) < 0
