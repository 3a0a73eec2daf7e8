"""Rules with coefficients that are learned themselves, by gradient or by evolution; these may be traced.

Both look at a batch through sums of powers, `sum_p x_pd^a y_pi^b`: what a synapse can know, and what parts can add up.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hebbjax.base import Array, Competing, Key, LearningRule, UpdateStats, zero_stats
from hebbjax.rules.competition import competing_drives, zero_absent
from hebbjax.rules.local import Reduction, add_dense, as_competition, mean_over_patches
from hebbjax.rules.products import matmul
from hebbjax.support import checks


def taylor(theta: Array, compete: Competing = None, *, reduce: Reduction = mean_over_patches) -> LearningRule:
    """Build the rule whose coefficients are `theta` [A, B, C], over powers of input, credit and weight:

        dw_id = reduce sum_p sum_abc theta[a, b, c] x_pd^a y_pi^b w_id^c

    Hebb is `theta[1, 1, 0] = 1`; Oja that and `theta[0, 2, 1] = -1`; the instar that and `theta[0, 1, 1] = -1`. Theta
    may be traced: differentiate, or map over it. One product sums all powers, A B times as large as Hebb's. A neuron
    that takes no part in a patch adds nothing, not even by `y^0`. `compete`: a competition, or so many winners; None:
    everyone by their drive. Such series are learned by Mehta et al. (MetaLearnPlasticity).

    Example:
        >>> theta = jnp.zeros((2, 3, 2)).at[1, 1, 0].set(1).at[0, 2, 1].set(-1)  # y (x - y w), Oja's
        >>> rule, x, w = taylor(theta), jnp.array([[1.0, 2.0]]), jnp.array([[0.5, 0.25]])
        >>> jax.jit(rule.update)(jax.random.key(0), x, x @ w.T, w, ())[0]
        Array([[0.5 , 1.75]], dtype=float32)
    """
    shape = np.shape(theta)
    way = 'give [A, B, C], such as jnp.zeros((3, 3, 3)) for powers from 0 to 2 of each'
    fits = len(shape) == 3 and 0 not in shape
    checks.require(fits, f'theta has an axis of powers for each of x, y and w, and not the shape {shape}; {way}.')

    def finalize(stats: UpdateStats, w: Array, state):
        sums = stats.pull.reshape(shape[1], len(w), shape[0], -1)  # [B, N, A, D]
        of_weights = powers(w, shape[2], 0)  # [C, N, D]
        dw = jnp.einsum('abc,bnad,cnd->nd', jnp.asarray(theta, w.dtype), sums, of_weights, precision='highest')
        return reduce(dw, stats), state

    return sums_of_powers(*shape[:2], compete)._replace(finalize=finalize)


class MlpParams(NamedTuple):
    """The small network of a synapse, with H hidden units."""

    w_in: Array  # [5, H]
    b: Array  # [H]
    w_out: Array  # [H]


def mlp_params(key: Key, hidden: int = 8) -> MlpParams:
    """Draw the network of `mlp`, so small that weights hardly move by it at first."""
    checks.check_count('hidden', hidden)
    in_key, out_key = jax.random.split(key)
    w_in, w_out = jax.random.normal(in_key, (5, hidden)), jax.random.normal(out_key, (hidden,))
    return MlpParams(w_in / 5**0.5, jnp.zeros(hidden), 0.1 * w_out / hidden**0.5)


def mlp(params: MlpParams, compete: Competing = None) -> LearningRule:
    """Build the rule that a network computes, the same at every synapse, of what this can know of a batch:

        dw_id = f(<y_i x_d>, <y_i>, <y_i^2>, <x_d>, w_id),   f(z) = w_out . tanh(w_in' z + b)

    `<.>` is the mean over patches; who takes part in a share of them moves by as large a share. `compete`: as `taylor`.
    """
    shapes = tuple(map(np.shape, params)) if isinstance(params, tuple | list) else np.shape(params)
    fits = len(shapes) == 3 and shapes == ((5, *shapes[2]), shapes[2], shapes[2]) and len(shapes[2]) == 1
    way = 'make them with mlp_params(key, hidden)'
    checks.require(fits, f'params of a network are w_in [5, H], b [H], w_out [H], not of shapes {shapes}; {way}.')

    def finalize(stats: UpdateStats, w: Array, state):
        w_in, b, w_out = (jnp.asarray(a, w.dtype) for a in params)
        mean = mean_over_patches(stats.pull, stats).reshape(3, len(w), 2, -1)  # [B, N, A, D]
        z = jnp.stack([mean[1, :, 1], mean[1, :, 0], mean[2, :, 0], mean[0, :, 1], w], -1)  # [N, D, 5]
        return mean[0, :, 0] * matmul(jnp.tanh(matmul(z, w_in) + b[None, None]), w_out), state

    return sums_of_powers(2, 3, compete)._replace(finalize=finalize)


def powers(z: Array, count: int, axis: int) -> Array:
    """Stack `z^0, z^1, ..., z^(count - 1)` along a new axis."""
    return jnp.stack([z**k for k in range(count)], axis)


def sums_of_powers(x_powers: int, y_powers: int, compete: Competing) -> LearningRule:
    """Build the rule that adds up `sum_p y_pi^b x_pd^a`, as `pull` [B N, A D], and makes no change of it yet."""
    compete = as_competition(compete)

    def init_stats(w: Array) -> UpdateStats:
        return zero_stats(w)._replace(pull=jnp.zeros((y_powers * len(w), x_powers * w.shape[1]), w.dtype))

    def accumulate(stats: UpdateStats, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> UpdateStats:
        v = competing_drives(u, teacher, threshold)  # [P, N]
        y = zero_absent(compete(key, v), v)
        xs, ys = powers(x, x_powers, 1), powers(y, y_powers, 1)  # [P, A, D], [P, B, N]
        ys = zero_absent(ys, v[:, None])  # 0^0 is 1, and who takes no part adds nothing
        return add_dense(stats, xs.reshape(len(x), -1), v, ys.reshape(len(y), -1), 0, jnp.abs(y).sum(0), shown=x)

    return LearningRule(lambda w: (), lambda w: w, accumulate, lambda stats, w, state: (0 * w, state), init_stats)
