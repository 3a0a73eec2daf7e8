"""Rules with memory: of what a neuron answered to the frames before, or of how much it answers on the whole."""

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array, Competing, Credit, Key, LearningRule, Scalar, State, UpdateStats
from hebbjax.rules.competition import competing_drives, zero_absent
from hebbjax.rules.local import Reduction, add_dense, as_competition, from_leak, local, mean_over_patches
from hebbjax.support import checks


def running_trace(y: Array, eta: Scalar) -> Array:
    """Let answers linger: `ybar_t = (1 - eta) ybar_{t-1} + eta y_t`, `ybar_0 = 0` before the first. [S, T, N] alike."""

    def step(trace: Array, y: Array) -> tuple[Array, Array]:
        trace = (1 - eta) * trace + eta * y  # [S, N]
        return trace, trace

    return jnp.swapaxes(lax.scan(step, jnp.zeros_like(y[:, 0]), jnp.swapaxes(y, 0, 1))[1], 0, 1)


def trace(compete: Competing = 1, eta: Scalar = 0.2, *, reduce: Reduction = mean_over_patches) -> LearningRule:
    """Földiák's trace rule: who answered the frames before learns what comes next, as if it were the same thing.

        dw_i = ybar_i (x - w_i)          ybar_t = (1 - eta) ybar_{t-1} + eta y_t

    It learns from sequences of images (`train_step`): frames that follow each other get the same neurons, which come to
    answer what changes slowly, such as an orientation, and not what changes fast, such as a position. The trace begins
    at 0 with every sequence, at every place of the image, and ends with it: no state of the layer. `eta` in (0, 1] is
    the share of it that a frame renews; at 1 the rule is the instar. Földiák 1991.

    Example:
        >>> import jax
        >>> x, w = jnp.eye(2)[None], jnp.array([[1.0, 0.0], [0.0, 0.2]])  # one sequence of two frames, a winner each
        >>> jax.jit(trace(1, 0.5).update)(jax.random.key(0), x, x @ w.T, w, ())[0]  # the first is drawn on to the next
        Array([[-0.125,  0.125],
               [ 0.   ,  0.2  ]], dtype=float32)
    """
    checks.check_number('eta', eta, above=0, most=1)
    instar = from_leak(compete, lambda y: y, reduce=reduce)

    def accumulate(stats: UpdateStats, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> UpdateStats:
        def credit(_, y: Array) -> Credit:
            ybar = running_trace(y.reshape(u.shape), eta).reshape(y.shape)  # [P, N] by way of [S, T, N]
            return Credit(ybar, ybar, jnp.abs(ybar))

        x, drive, teacher = jax.tree.map(lambda a: a.reshape(-1, a.shape[-1]), (x, u, teacher))  # [P, ...]
        return local(as_competition(compete), credit).accumulate(stats, key, x, drive, teacher, threshold)

    return instar._replace(accumulate=accumulate, sequential=True)


def bcm(eta: Scalar = 0.1, *, reduce: Reduction = mean_over_patches) -> LearningRule:
    """Bienenstock, Cooper and Munro's rule: what drives a neuron above its threshold strengthens, below it weakens.

        dw_i = y_i (y_i - theta_i) x          theta_i += eta (<y_i^2> - theta_i)          y = max(w x, 0)

    The threshold slides with the neuron's own activity, from 0, so that weights are bounded without a leak; it is the
    rule's state [N]. Each neuron alone becomes selective: of K linearly independent patterns it comes to answer one, by
    K. Thresholds have to be faster than weights. Bienenstock, Cooper & Munro 1982; `theta = E[y^2]`: Intrator & Cooper
    1992. <y^2> is a step's mean over patches. A layer's own thresholds add to theta; who is not signalled answers 0.

    Example:
        >>> import jax
        >>> x, w, theta = jnp.eye(2), jnp.array([[2.0, 0.5]]), jnp.array([1.0])
        >>> jax.jit(bcm(0.5).update)(jax.random.key(0), x, x @ w.T, w, theta)
        (Array([[ 1.   , -0.125]], dtype=float32), Array([1.5625], dtype=float32))
    """
    checks.check_number('eta', eta, above=0, most=1)

    def accumulate(stats: UpdateStats, key: Key, x: Array, u: Array, teacher=None, threshold=None) -> UpdateStats:
        v = competing_drives(u, teacher, threshold)  # [P, N] u - theta
        y = zero_absent(jnp.maximum(u, 0), v)  # [P, N]
        pull = y * zero_absent(v, v)  # where y is not 0, v is y - theta
        return add_dense(stats, x, v, pull, (y * y).sum(0), y.sum(0))

    def finalize(stats: UpdateStats, w: Array, theta: State) -> tuple[Array, State]:
        return reduce(stats.pull, stats), theta + eta * (stats.leak / stats.patches.astype(w.dtype) - theta)

    bias = lambda key, w, theta: theta  # noqa: E731
    return LearningRule(lambda w: jnp.zeros_like(w[:, 0]), lambda w: w, accumulate, finalize, competition_bias=bias)
