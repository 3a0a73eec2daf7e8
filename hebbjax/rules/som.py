"""Self-organising maps: neurons on a lattice, where the winner's neighbours learn with it (Kohonen 1982)."""

import math
from collections.abc import Callable

import jax.numpy as jnp

from hebbjax.base import Array, LearningRule, UpdateStats
from hebbjax.rules.local import Reduction, mean_over_credit
from hebbjax.rules.products import matmul
from hebbjax.rules.prototypes import instar
from hebbjax.support import checks

SHARPEST = 0.1  # lattice steps: a neighbour gets exp(-50) of a gaussian
KERNELS = ('gaussian', 'exponential', 'dog', 'doe')


def neighbourhood(kernel: str, d: Array, s: Array) -> Array:
    """Give what neurons learn at distance d [N, N] of the winner where the radius is s, a share in [-1, 1].

    'gaussian': `K = exp(-d^2 / (2 s^2))`; 'exponential': `K = exp(-d / s)`; 'dog' and 'doe', their differences from a
    wider one: `2 K - sqrt(K)`, 1 at the winner and below 0 further away.
    """
    e = d * d / (2 * s * s) if kernel in ('gaussian', 'dog') else d / s
    return 2 * jnp.exp(-e) - jnp.exp(-e / 2) if kernel in ('dog', 'doe') else jnp.exp(-e)


def lattice(shape: int | tuple[int, ...]) -> Array:
    """Measure how far neurons are apart on a lattice: `d_ij = max over axes |a_i - a_j|`, a their places.

    `shape` counts neurons along each axis, such as 30, (8, 12) or (4, 4, 6), the last axis fastest. -> [N, N] int32.
    """
    shape = _check_lattice(shape)
    places = jnp.indices(shape).reshape(len(shape), -1)  # [axes, N]
    return jnp.abs(places[:, :, None] - places[:, None]).max(0)


def som(
    shape: int | tuple[int, ...], kernel: str = 'gaussian', radius: float | Callable[[Array], Array] | None = None,
    tau: float = 1000, *, metric: str = 'cosine', reduce: Reduction = mean_over_credit,
) -> LearningRule:  # fmt: skip
    """Build a self-organising map: the neuron nearest to a patch wins it, and its neighbours learn with it.

    With `r_pi = K[j_p, i]` in [-1, 1], the share of neuron i where j_p won patch p, and `t` the steps learned:

        K  = kernel(d, s)          s = s0 max(1 - t / tau, 0), not below SHARPEST lattice steps: the winner alone
        dw_i = sum_p |r_pi| |r_pi| (sign(r_pi) x_p - w_i) / sum_p |r_pi|      as `instar` with r imposed, any `reduce`

    Neighbours' shares are products of K with the sums over what each neuron won, once a step. In the code of Amato et
    al. 2019 the radius is `lambda t: s0 ** (1 - t / tau)`, and the rate
    `optax.exponential_decay(0.1, 1, decay_rate=math.exp(-1 / 1000), end_value=0.01)`.

    Args:
        shape: neurons along each axis, as for `lattice`.
        kernel: one of KERNELS, see `neighbourhood`; of the differences 'dog', 'doe' a farther ring unlearns.
        radius, tau: s0, in lattice steps (None: half way along the widest axis), and the steps until it is gone; or s.
        metric, reduce: as for `prototypes.instar`.
    """
    shape, size = _check_lattice(shape), math.prod(_check_lattice(shape))
    checks.check_choice('kernel', kernel, KERNELS)
    checks.check_number('tau', tau, above=0)
    s0 = max((max(shape) - 1) // 2, 1) if radius is None else radius
    if not callable(s0):
        checks.check_number('radius', s0, above=0)

    def init(w: Array) -> Array:
        has = f'a lattice of shape {shape} has {size} neurons and the layer {len(w)}'
        checks.require(len(w) == size, f'{has}; use a shape whose product is the number of neurons.')
        return jnp.zeros((), jnp.int32)

    def finalize(stats: UpdateStats, w: Array, t: Array) -> tuple[Array, Array]:
        s = s0(t) if callable(s0) else s0 * jnp.maximum(1 - t.astype(w.dtype) / tau, 0)
        r = neighbourhood(kernel, lattice(shape).astype(w.dtype), jnp.maximum(s, SHARPEST).astype(w.dtype))  # [N, N]
        step = jnp.abs(r) if reduce is mean_over_credit else 1
        pull, leak = matmul((step * r).T, stats.pull), matmul((step * jnp.abs(r)).T, stats.weight)  # [N, D], [N]
        shared = stats._replace(pull=pull, leak=leak, weight=matmul(jnp.abs(r).T, stats.weight))
        return reduce(pull - leak[:, None] * w, shared), t + 1

    return instar(1, metric=metric, reduce=reduce)._replace(init=init, finalize=finalize)


def _check_lattice(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    shape = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    empty = f'a lattice of shape {checks.show(shape)} has no neurons; use one axis or more, of 1 or more.'
    checks.require(shape and all(map(checks.is_count, shape)), empty)
    return shape
