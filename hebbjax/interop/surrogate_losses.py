"""Losses whose gradient is the Hebbian change, for layers of a user's own model (Miconi 2021, section 2.1, appendix).

`-1/2 sum s^2`, where s takes the value y and keeps its own gradient, has `-grad = sum over patches of y_i ds_i/dw_i`:
the `dw` of `rules` reduced by `rules.sum_over_patches`, so that `optax.sgd(rate)` on the loss moves by `rate dw`.
`stop_gradient` the layer's input, or layers below learn from the layers above.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array
from hebbjax.support.checks import is_one_float, require, show


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
    return _half_square(s, y)


def _half_square(s, y):
    s = lax.stop_gradient(y) + (s - lax.stop_gradient(s))  # in this order y keeps all its digits
    return -jnp.sum(s**2) / 2


def expression_loss(s: Callable[[Array, Array, Array], Array]) -> Callable[[Array, Array, Array], Array]:
    """Build the loss of an expression of one neuron and one patch: `-grad = sum of y_i ds/dw_i`; Oja's is one of them.

    Args:
        s: (x [D], y, w [D]) -> one float, differentiable in w; Miconi's "loss expressions", in the discussion.

    Returns:
        (x [..., D], y [..., N], kernel [D, N], or flax's [kh, kw, C, N]) -> the loss. Patches x are as
        `layers.extract_patches` cuts them, y is what the neurons did.

    Example:
        >>> x, kernel, y = jnp.array([[1.0, 2.0]]), jnp.ones((2, 1)), jnp.array([[3.0]])
        >>> loss = expression_loss(lambda x, y, w: x @ w - y * (w @ w) / 2)
        >>> -jax.grad(loss, argnums=2)(x, y, kernel).T  # y (x - y w)
        Array([[-6., -3.]], dtype=float32)
    """

    def loss(x: Array, y: Array, kernel: Array) -> Array:
        w = kernel.reshape(-1, kernel.shape[-1])  # [D, N]
        shapes = f'patches {x.shape}, credit {y.shape} and a kernel {kernel.shape} do not fit'
        fits = (*x.shape[:-1], w.shape[1]) == y.shape and x.shape[-1] == len(w)
        require(fits, f'{shapes}; they are [..., D], [..., N] and [D, N].')
        x, y = x.reshape(-1, len(w)), lax.stop_gradient(y).reshape(-1, w.shape[1])  # [P, D], [P, N]
        _check_expression(s, x[0], y[0, 0], w[:, 0])
        return _half_square(jax.vmap(jax.vmap(s, (None, 0, 1)), (0, 0, None))(x, y, w), y)

    return loss


def _check_expression(s, x, y, w):
    """Refuse what gives no number, or what has no derivative by w: JAX does not ask for that of its value then."""
    asked, value = [], jax.custom_jvp(lambda value: value)
    value.defjvp(lambda primals, tangents: asked.append(True) or (primals[0], tangents[0]))
    came = jax.eval_shape(s, x, y, w)
    wants = f'an expression s(x, y, w) of one neuron and one patch is one float, not {show(came)}'
    require(is_one_float(came), f'{wants}; sum over D.')
    try:
        jax.eval_shape(jax.grad(lambda w: value(s(x, y, w))), w)
    except (TypeError, ValueError) as error:
        raise ValueError(f's(x, y, w) cannot be differentiated by w: {show(str(error))}; write it otherwise.') from None
    require(asked, 's(x, y, w) has no derivative by w, and would change nothing; let it depend on w smoothly.')
