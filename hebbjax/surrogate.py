"""Losses whose gradient is the Hebbian change, for layers of a user's own model (Miconi 2021, section 2.1, appendix).

A drive `u_i = w_i . x` has the gradient x, so the gradient of `-1/2 sum s^2` is `-s ds/dw`: with `s = u` Hebb's rule.
What a neuron really does, `y` (a winner's 1, anything at all, differentiable or not), takes the place of s's value and
leaves its gradient alone (`substitute`). Then

    -grad loss = sum over patches of y_i ds_i/dw_i

which is the `dw` of `rules`, reduced by `rules.total`. An optimizer descends, so `optax.sgd(rate)` on the loss is
`plasticity.ascend(rate)` on the change.

These functions take what a model computes: drives (from any convolution or linear layer without bias) and the kernel
they were computed with. The gradient also flows into the layer's input: `stop_gradient` the input, or layers below
learn from the layers above. Inside the library the same sums are made without automatic differentiation, and faster.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from hebbjax.types import Array

Loss = Callable[[Array, Array, Array], Array]  # (u [..., N], y [..., N], kernel [..., N]) -> scalar


def substitute(s: Array, y: Array) -> Array:
    """Give `y` the gradient of `s`: the value is y, the derivative ds."""
    return lax.stop_gradient(y) + (s - lax.stop_gradient(s))  # in this order y keeps all its digits


def hebb(u: Array, y: Array, kernel: Array) -> Array:
    """Give the loss with `-grad = sum of y_i x`, Hebb's rule: `s = u`.

    Args:
        u: drives [..., N] of all patches, neurons last, as the model computed them, without thresholds.
        y: what the neurons did, of the same shape; no gradient flows through it.
        kernel: the weights that gave u, neurons last: [D, N], or flax's [kh, kw, C, N].

    Raises:
        ValueError: if shapes do not fit.
    """
    return _loss(u, y, kernel, lambda y: 0 * y)


def instar(u: Array, y: Array, kernel: Array) -> Array:
    """Give the loss with `-grad = sum of y_i (x - w_i)`, Grossberg's instar: `s = u - |w|^2 / 2`. Else as `hebb`."""
    return _loss(u, y, kernel, lambda y: 0 * y + 1)


def oja(u: Array, y: Array, kernel: Array) -> Array:
    """Give the loss with `-grad = sum of y_i (x - y_i w_i)`, Oja's rule: `s = u - y |w|^2 / 2`. Else as `hebb`."""
    return _loss(u, y, kernel, lambda y: y)


def _loss(u, y, kernel, shrink):
    """Build `-1/2 sum s^2`, `s = u - shrink(y) |w|^2 / 2`, with y in the place of s's value."""
    if y.shape != u.shape or u.shape[-1:] != kernel.shape[-1:]:
        raise ValueError(
            f'drives {u.shape}, credit {y.shape} and a kernel {kernel.shape} do not fit; '
            'drives and credit have one shape, and neurons come last in all three.'
        )
    square = jnp.sum(kernel * kernel, axis=tuple(range(kernel.ndim - 1)))  # [N]
    s = u - lax.stop_gradient(shrink(y)) * jnp.expand_dims(square, tuple(range(u.ndim - 1))) / 2
    return -jnp.sum(substitute(s, y) ** 2) / 2


RULES: dict[str, Loss] = {'hebb': hebb, 'instar': instar, 'oja': oja}
