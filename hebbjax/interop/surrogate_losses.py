"""Losses whose gradient is the Hebbian change, for layers of a user's own model (Miconi 2021, section 2.1, appendix).

`-1/2 sum s^2`, where s takes the value y and keeps its own gradient, has `-grad = sum over patches of y_i ds_i/dw_i`:
the `dw` of `rules` reduced by `rules.sum_over_patches`, so that `optax.sgd(rate)` on the loss moves by `rate dw`.
`stop_gradient` the layer's input, or layers below learn from the layers above.
"""

import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array
from hebbjax.support.checks import require


def hebb_loss(u: Array, y: Array, kernel: Array) -> Array:
    """Give the loss with `-grad = sum of y_i x`, Hebb's rule: `s = u`.

    Args:
        u: drives [..., N] of all patches, neurons last, as the model computed them, without thresholds.
        y: what the neurons did, of the same shape; no gradient flows through it.
        kernel: the weights that gave u, neurons last: [D, N], or flax's [kh, kw, C, N].

    Example:
        >>> import jax
        >>> x, kernel, y = jnp.array([[1.0, 2.0]]), jnp.ones((2, 1)), jnp.array([[3.0]])
        >>> -jax.grad(lambda kernel: hebb_loss(x @ kernel, y, kernel))(kernel).T
        Array([[3., 6.]], dtype=float32)
    """
    return _loss(u, y, kernel, 0 * y)


def instar_loss(u: Array, y: Array, kernel: Array) -> Array:
    """Give the loss with `-grad = sum of y_i (x - w_i)`, Grossberg's instar: `s = u - |w|^2 / 2`; as `hebb_loss`."""
    return _loss(u, y, kernel, 0 * y + 1)


def oja_loss(u: Array, y: Array, kernel: Array) -> Array:
    """Give the loss with `-grad = sum of y_i (x - y_i w_i)`, Oja's rule: `s = u - y |w|^2 / 2`; as `hebb_loss`."""
    return _loss(u, y, kernel, y)


def _loss(u, y, kernel, shrink):
    """Build `-1/2 sum s^2`, `s = u - shrink |w|^2 / 2`, with y in the place of s's value."""
    shapes = f'drives {u.shape}, credit {y.shape} and a kernel {kernel.shape}'
    fits = y.shape == u.shape and u.shape[-1:] == kernel.shape[-1:]
    require(fits, f'{shapes} do not fit; drives and credit have one shape, and neurons come last in all three.')
    square = jnp.sum(kernel * kernel, axis=tuple(range(kernel.ndim - 1)))  # [N]
    s = u - lax.stop_gradient(shrink) * jnp.expand_dims(square, tuple(range(u.ndim - 1))) / 2
    s = lax.stop_gradient(y) + (s - lax.stop_gradient(s))  # in this order y keeps all its digits
    return -jnp.sum(s**2) / 2
