"""Coefficients of a rule found by gradient: any loss of a training's outcome, any optax optimizer."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from hebbjax.base import Array, Key
from hebbjax.learned.objectives import check_floats, check_objective
from hebbjax.support import checks
from hebbjax.support.signals import compile_whole, listen, wait_until_ready


class RuleFit(NamedTuple):
    """Coefficients that were found, and how."""

    theta: Any
    losses: np.ndarray  # [steps], of theta before each step; less if the user ended it early
    skipped: int  # steps whose loss or gradient was not finite, and which changed nothing
    interrupted: bool


def fit_rule(
    objective: Callable[[Any, Key], Array], theta: Any, key: Key, *, steps: int,
    tx: optax.GradientTransformation | None = None, clip: float = 1.0, every: int = 50,
    watch: Callable[[int, float, Any], Any] | None = None,
) -> RuleFit:  # fmt: skip
    """Descend the gradient of an objective: `theta += tx(clip(d objective(theta, key_t) / d theta))`.

    A step whose loss or gradient is not finite leaves theta and optimizer as they are, with a warning in the end.

    Args:
        objective: (theta, key) -> a loss, the lower the better; `run_steps` and the losses beside it make one.
        theta: any pytree of floats, such as that of `rules.taylor` or `rules.mlp`.
        steps: of the optimizer `tx`, any of optax; None: `optax.adam(1e-2)`.
        clip: global norm at which gradients, steep through many steps, are clipped; large for a line search (`lbfgs`).
        every: steps that are one call of the compiled program; Ctrl-C gives what the last whole call had reached.
        watch: (steps so far, loss, theta), called after each of these, for a progress bar.

    Example:
        >>> fit = fit_rule(lambda theta, key: jnp.sum((theta - 3.0) ** 2), jnp.zeros(2), jax.random.key(0), steps=600)
        >>> fit.theta.round(1).tolist(), fit.skipped
        ([3.0, 3.0], 0)
    """
    checks.check_key(key)
    checks.check_count('steps', steps)
    checks.check_count('every', every)
    checks.check_number('clip', clip, above=0)
    check_floats(theta)
    check_objective(objective, theta, key)
    tx = optax.chain(optax.clip_by_global_norm(clip), optax.adam(1e-2) if tx is None else tx)
    tx = optax.apply_if_finite(tx, steps)  # so many in a row never come

    @jax.jit
    def descend(theta, opt, losses, steep, first, last):
        def step(number, carry):
            theta, opt, losses, steep = carry
            at = lambda theta: objective(theta, jax.random.fold_in(key, number))  # noqa: E731
            loss, slope = jax.value_and_grad(at)(theta)
            slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(loss), g, jnp.nan), slope)
            change, opt = tx.update(slope, opt, theta, value=loss, grad=slope, value_fn=at)  # line searches ask for it
            finite = jnp.where(opt.last_finite, loss, jnp.nan).astype(losses.dtype)
            steep |= jnp.array([jnp.any(g != 0) for g in jax.tree.leaves(slope)]).any()
            return optax.apply_updates(theta, change), opt, losses.at[number].set(finite), steep

        return lax.fori_loop(first, last, step, (theta, opt, losses, steep))

    theta = jax.tree.map(jnp.asarray, theta)
    reached, done, interrupted = (theta, tx.init(theta), jnp.full(steps, jnp.nan), False), 0, False
    program = compile_whole(descend, *reached, 0, 0)
    try:
        with listen() as check_interrupt:
            while done < steps:
                last = min(done + every, steps)
                reached = wait_until_ready(program(*reached, done, last))
                way = 'give one that is not, such as held_out_error, or search by evolution'
                checks.require(reached[3], f'the objective is flat: all of {last} gradients were zero; {way}.')
                done = last
                if watch is not None:
                    watch(done, float(reached[2][done - 1]), reached[0])
                check_interrupt()
    except KeyboardInterrupt:
        interrupted = True
    losses = np.asarray(reached[2][:done])
    skipped, way = int(np.isnan(losses).sum()), 'start smaller, lower the rates of the layers, or scale their images'
    came = f'{skipped} of {len(losses)} steps had a loss or gradient that was not finite'
    checks.require(not skipped or skipped < len(losses), f'{came}, and none had one that was; {way}.')
    if skipped:
        warnings.warn(f'{came}, and changed nothing; {way}.', stacklevel=2)
    return RuleFit(reached[0], losses, skipped, interrupted)
