"""What a training is judged by, as differentiable functions: the lower the better, `held_out_accuracy` excepted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hebbjax import diagnostics
from hebbjax.base import Array, Key, Labelled, Scalar
from hebbjax.readout.dual import ridge_outputs
from hebbjax.support import checks


def check_objective(objective: Callable[[Any, Key], Array], theta: Any, key: Key) -> None:
    """Refuse what is no objective by its types: (theta, key) -> one float, a loss."""
    loss = jax.eval_shape(objective, theta, key)
    came = f'an objective gives one float, a loss, not {checks.show(loss)}'
    checks.require(checks.is_one_float(loss), f'{came}; give its mean, as a float.')


def check_floats(theta: Any) -> None:
    """Refuse what is no pytree of floats, one number at least: a rule is learned by nothing else."""
    leaves = jax.tree.leaves(theta)
    fits = any(map(jnp.size, leaves)) and all(jnp.issubdtype(jnp.result_type(a), jnp.floating) for a in leaves)
    checks.require(fits, f'a rule is learned by a pytree of floats, at least one, not by {checks.show(theta)}.')


def trajectory_error(w: Array, target: Array, start: Array) -> Array:
    """Give how far weights went astray, by how far they should go: `sum |w - target|^2 / sum |target - start|^2`.

    Trajectories [T, N, D], or [..., T, N, D] of many, from `start` [N, D], or [..., N, D].
    """
    fits = jnp.shape(w) == jnp.shape(target) and jnp.shape(start) == (*jnp.shape(w)[:-3], *jnp.shape(w)[-2:])
    shapes = ', '.join(str(jnp.shape(a)) for a in (w, target, start))
    checks.require(fits, f'trajectories are two of [..., T, N, D] and their start [..., N, D], not {shapes}.')
    return jnp.sum((w - target) ** 2) / jnp.sum((target - jnp.expand_dims(start, -3)) ** 2)


def win_inequality(win_rates: Array) -> Array:
    """Give `1 - entropy` of wins, as `diagnostics.win_entropy`: 0 if all neurons win alike, 1 if one does. [..., N]."""
    return 1 - jnp.mean(jax.vmap(diagnostics.win_entropy)(win_rates.reshape(-1, win_rates.shape[-1])))


def held_out_error(fitted: Labelled, held_out: Labelled, classes: int, penalty: Scalar = 1.0) -> Array:
    """Give the squared distance to one-hot labels, in mean over images that ridge regression was not fitted to.

    `fitted`, `held_out`: features [b, F] and labels [b], each. 1 - 1 / classes is about what knowing nothing gives.
    """
    outputs, labels = _read_out(fitted, held_out, classes, penalty)
    return jnp.mean(jnp.sum((outputs - jax.nn.one_hot(labels, classes, dtype=outputs.dtype)) ** 2, 1))


def held_out_accuracy(fitted: Labelled, held_out: Labelled, classes: int, penalty: Scalar = 1.0) -> Array:
    """Give the share of images in [0, 1] that `held_out_error`'s ridge regression classifies; its gradient is zero."""
    outputs, labels = _read_out(fitted, held_out, classes, penalty)
    return jnp.mean((jnp.argmax(outputs, 1) == labels).astype(outputs.dtype))


def _read_out(fitted, held_out, classes, penalty):
    """Give the outputs for what was held out, and its labels."""
    checks.check_count('classes', classes)
    pairs = ((jnp.asarray(x), checks.check_labels(y, classes, len(x))) for x, y in (fitted, held_out))
    (features, labels), (others, other_labels) = pairs
    targets = jax.nn.one_hot(labels, classes, dtype=features.dtype)
    return ridge_outputs(features, targets, others, penalty), other_labels
