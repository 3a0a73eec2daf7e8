"""Self-organising maps: neurons on a lattice, where the winner's neighbours learn with it (Kohonen 1982)."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from hebbjax import checks, prototypes, rules
from hebbjax.types import Array, LearningRule, Sums

SHARPEST = 0.1  # lattice steps: a neighbour gets exp(-50) of a gaussian


def _centred(kernel: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """Subtract a wider kernel: `2 K - sqrt(K)`, 1 at the winner, below 0 further away."""

    def difference(d: Array, s: Array) -> Array:
        k = kernel(d, s)
        return 2 * k - jnp.sqrt(k)

    return difference


def gaussian(d: Array, s: Array) -> Array:
    """Give what a neuron at distance d of the winner learns: `exp(-d^2 / (2 s^2))`."""
    return jnp.exp(-d * d / (2 * s * s))


def exponential(d: Array, s: Array) -> Array:
    """Give what a neuron at distance d of the winner learns: `exp(-d / s)`."""
    return jnp.exp(-d / s)


KERNELS = {
    'gaussian': gaussian,
    'exponential': exponential,
    'dog': _centred(gaussian),
    'doe': _centred(exponential),
}
"""Name -> (distance d, radius s) -> share in [-1, 1]; dog and doe are differences of gaussians and of exponentials."""


def lattice(shape: int | tuple[int, ...]) -> Array:
    """Measure how far neurons are apart on a lattice: `d_ij = max over axes |a_i - a_j|`, a their places.

    Args:
        shape: neurons along each axis, such as 30, (8, 12) or (4, 4, 6); the last axis runs fastest.

    Returns:
        [N, N] int32, N the product of the shape.

    Raises:
        ValueError: if the shape is empty or an axis has no neuron.
    """
    shape = _shape(shape)
    places = [axis.reshape(-1) for axis in jnp.indices(shape)]
    apart = jnp.stack([jnp.abs(a[:, None] - a[None]) for a in places])  # [axes, N, N]
    return apart.max(0)


def som(
    shape: int | tuple[int, ...],
    kernel: str = 'gaussian',
    radius: float | Callable[[Array], Array] | None = None,
    tau: float = 1000,
    *,
    by: str = 'angle',
    reduce: rules.Reduction = rules.weighted,
) -> LearningRule:
    """Build a self-organising map: the neuron nearest to a patch wins it, and its neighbours learn with it.

    With `r_pi = K[j_p, i]` in [-1, 1], the share of neuron i where j_p won patch p, and `t` the steps learned:

        K  = kernel(d, s)          s = s0 max(1 - t / tau, 0), not below SHARPEST lattice steps: the winner alone
        dw_i = sum_p |r_pi| |r_pi| (sign(r_pi) x_p - w_i) / sum_p |r_pi|      reduce = weighted; see prototypes.nearest

    Only what each neuron won is added up over patches, S [N, D] and n [N]; the neighbours' shares are products of K
    with these, once a step. The told credit is n. Amato et al. 2019 in the authors' code, where the radius is
    `s0^(1 - t / tau)`, 1 at tau and falling on: `radius=lambda t: s0 ** (1 - t / tau)`. Their rate falls as well:

        plasticity.ascend(optax.exponential_decay(0.1, 1, decay_rate=math.exp(-1 / 1000), end_value=0.01))

    Args:
        shape: neurons along each axis of the lattice, as for `lattice`.
        kernel: 'gaussian', 'exponential', or their centred 'dog', 'doe', `2 K - sqrt(K)`: a farther ring unlearns.
        radius: s0, in lattice steps; or a schedule t -> s; None: half the widest axis, and at least 1.
        tau: steps until the neighbourhood is gone. Schedules do not ask for it.
        by: 'angle', 'distance' or 'drive', as for `prototypes.nearest`.
        reduce: weighted, total or mean.

    Raises:
        ValueError: for an unknown kernel, a bad shape, a radius or tau not above 0; in `init`, if the lattice has
            another number of neurons than the layer.
    """
    shape = _shape(shape)
    if not isinstance(kernel, str) or kernel not in KERNELS:
        raise ValueError(f'kernel {checks.shown(kernel)} is unknown; there are {", ".join(KERNELS)}.')
    s0 = max((max(shape) - 1) // 2, 1) if radius is None else radius
    if not callable(s0) and checks.misfits(s0, lambda s0: s0 > 0):
        raise ValueError(f'a neighbourhood of radius {checks.shown(s0)} reaches nobody; use a radius above 0.')
    if checks.misfits(tau, lambda tau: tau > 0):
        raise ValueError(f'a neighbourhood cannot shrink over {checks.shown(tau)} steps; use a tau above 0.')
    winner = prototypes.nearest(1, by=by, reduce=reduce)
    product = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)  # noqa: E731

    def init(w: Array) -> Array:
        if len(w) != math.prod(shape):
            raise ValueError(
                f'a lattice of shape {shape} has {math.prod(shape)} neurons and the layer {len(w)}; '
                'use a shape whose product is the number of neurons.'
            )
        return jnp.zeros((), jnp.int32)

    def change(sums: Sums, w: Array, t: Array) -> tuple[Array, Array]:
        s = s0(t) if callable(s0) else s0 * jnp.maximum(1 - t.astype(w.dtype) / tau, 0)
        k = KERNELS[kernel](lattice(shape).astype(w.dtype), jnp.maximum(s, SHARPEST).astype(w.dtype))  # [N, N]
        size, won = jnp.abs(k), sums.weight
        step = size if reduce is rules.weighted else 1
        pull, leak = product((step * k).T, sums.pull), product((step * size).T, won)  # [N, D], [N]
        moved = sums._replace(pull=pull, leak=leak, weight=product(size.T, won))
        return reduce(pull - leak[:, None] * w, moved), t + 1

    return winner._replace(init=init, change=change)


def _shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    shape = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not shape or not all(map(checks.is_count, shape)):
        raise ValueError(
            f'a lattice of shape {checks.shown(shape)} has no neurons; use at least one axis, of 1 or more.'
        )
    return shape
