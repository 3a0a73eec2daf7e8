"""Associative memory: a dense layer whose inputs are its own outputs, N = D; pixel i teaches neuron i."""

import jax
import jax.numpy as jnp

from hebbjax.base import Array, Key, LearningRule, UpdateStats
from hebbjax.rules.competition import competing_drives, zero_absent
from hebbjax.rules.local import Reduction, add_dense, finalizer, mean_over_patches
from hebbjax.support import checks


def associate(kind: str = 'hebb', *, sequences: bool = False, reduce: Reduction = mean_over_patches) -> LearningRule:
    """Build a recurrent layer's rule: neuron i learns to answer t_i, its own pixel, to all others; `dw_ii = 0`.

        'hebb'    dw_i = t_i x                  Hopfield 1982, equation 2; holds 0.138 N random patterns of -1 and 1
        'oja'     dw_i = t_i (x - t_i w_i)      the same, bounded: ends at w_ij = mean of t_i x_j / mean of t_i^2
        'delta'   dw_i = (t_i - w_i . x) x      Widrow and Hoff 1960: what is answered right is left alone; holds N

    t = x, or in `sequences` (`train_step`) the frame that follows x; nothing follows the last. Start from zero weights
    (`init=jax.nn.initializers.zeros`): a connection of a neuron to itself would stay. Nobody competes; whom a teacher
    does not signal learns nothing. The delta rule needs rates below 2 over the largest eigenvalue of the mean of x x'.

    Example:
        >>> rule, x, w = associate(), jnp.array([[1.0, -1.0, 1.0]]), jnp.zeros((3, 3))
        >>> jax.jit(rule.update)(jax.random.key(0), x, x @ w.T, w, rule.init(w))[0]
        Array([[ 0., -1.,  1.],
               [-1.,  0., -1.],
               [ 1., -1.,  0.]], dtype=float32)
    """
    checks.check_choice('kind', kind, ('hebb', 'oja', 'delta'))

    def init(w: Array) -> tuple:
        came = f'an associative layer of {len(w)} neurons sees {w.shape[1]} pixels'
        checks.require(len(w) == w.shape[1], f'{came}; give it as many neurons as pixels.')
        return ()

    def accumulate(stats: UpdateStats, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> UpdateStats:
        y = (jnp.roll(x, -1, -2) if sequences else x) - (u if kind == 'delta' else 0)  # [P, N] or [S, T, N], N = D
        if sequences:
            y = y.at[:, -1].set(0)
            x, u, y, teacher = jax.tree.map(lambda rows: rows.reshape(-1, rows.shape[-1]), (x, u, y, teacher))
        v = competing_drives(u, teacher, threshold)  # [P, N]
        y = zero_absent(y, v)
        leak = jnp.sum(y * y, 0) if kind == 'oja' else jnp.zeros_like(y[0])  # [N]
        return add_dense(stats, x, v, y, leak, jnp.abs(y).sum(0))

    def finalize(stats: UpdateStats, w: Array, state):
        dw, state = finalizer(reduce)(stats, w, state)
        return jnp.where(jnp.eye(len(w), dtype=bool), 0, dw), state

    return LearningRule(init, lambda w: w, accumulate, finalize, sequential=bool(sequences))
