"""Products, and sums of winners' rows: in the precision that a layer asks for, in the form that suits the backend.

Which form is the fastest depends on where the arrays lie. That is known when a program is lowered, not when it is
traced, so both forms are traced and the backend's own one is compiled (`by_backend`).
"""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from hebbjax.base import Array, Scalar
from hebbjax.support import specs

PRECISIONS = ('highest', 'float32x3', 'tensorfloat32', 'bfloat16')
FEW, CONTENDED = 512, 32  # neurons at most, and patches for each at least, for a one-hot product on an accelerator

# of the layer that is computed, and what tests take for the backend; jax keeps programs of other values apart
_arithmetic, _assumed = jax.make_user_context(('highest', False)), jax.make_user_context(None)


def arithmetic(precision: str, deterministic: bool = False) -> contextlib.AbstractContextManager:
    """Give a context in which `matmul` is of this precision, and `add_rows` adds in the same order every time."""
    return _arithmetic((precision, deterministic))


def assumed_backend(backend: str | None) -> contextlib.AbstractContextManager:
    """Give a context in which programs take the forms of a backend that they are not compiled for, such as 'gpu'."""
    return _assumed(backend)


def backend_in_use() -> str:
    """Name the backend that what is traced now will run on: that of the mesh, or of the default device."""
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.config.jax_default_device
    return _assumed.value or getattr(device, 'platform', device) or jax.default_backend()


def by_backend(cpu: Callable, elsewhere: Callable, *args: Any, **settings: Any) -> Any:
    """Compute `cpu(*args, **settings)` where arrays lie on a CPU, `elsewhere(...)` elsewhere; one alone is compiled."""
    if cpu is elsewhere or _assumed.value is not None:
        return (cpu if _assumed.value in (None, 'cpu') else elsewhere)(*args, **settings)
    cpu, elsewhere = (functools.partial(form, **settings) for form in (cpu, elsewhere))
    return lax.platform_dependent(*args, cpu=cpu, default=elsewhere)


def matmul(a: Array, b: Array) -> Array:
    """Multiply by a matrix: in float32 throughout, on a GPU as well, or in the precision of the layer that is computed.

    [..., D], [D, N] -> [..., N], or [D] -> [...]. The slope over several leading axes leaves XLA's fast path on a CPU.
    """
    (precision, _), rows = _arithmetic.value, a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    if precision == 'bfloat16':
        kind = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
        # each on all devices that the other is divided over, so that JAX adds up the slopes of what these share
        beside = lambda x, other: jnp.where(False, jnp.sum(other, dtype=kind), x.astype(kind))  # noqa: E731
        u = _rounded(beside(rows, b), beside(b.reshape(len(b), math.prod(b.shape[1:])), rows))
    elif precision == 'float32x3' and a.dtype == b.dtype == jnp.float32:
        u = _three_passes(rows, b)
    else:
        u = jnp.matmul(rows, b, precision=lax.Precision.HIGH if precision == 'tensorfloat32' else lax.Precision.HIGHEST)
    return u.reshape(*a.shape[:-1], *b.shape[1:])


@specs.compiled_once()
@jax.custom_gradient
def _rounded(a, b):
    """Round operands, not their sum, and slopes. On a CPU all lies row by row: XLA turns products of what is transposed
    into float32, in twice the time of those of bfloat16, and cannot run those whose sum is transposed.
    """
    product = functools.partial(jnp.matmul, preferred_element_type=a.dtype)
    # programs that are exported may ask for no layout
    by_rows = lambda a: a if _assumed.value else with_layout_constraint(a, Layout((0, 1)))  # noqa: E731
    multiply = functools.partial(by_backend, lambda a, b: by_rows(product(by_rows(a), by_rows(b))), product)
    low = lambda a: a.astype(jnp.bfloat16)  # noqa: E731
    x, w = low(a), low(b)  # [P, D], [D, N]; of which training by gradient keeps copies
    return multiply(x, w), lambda g: (multiply(low(g), w.T), multiply(low(g.T), x).T)


@specs.compiled_once()
def _three_passes(a, b):
    kinds = lax.DotAlgorithmPreset.TF32_TF32_F32_X3, lax.Precision.HIGHEST
    passes, exact = (functools.partial(jnp.matmul, precision=kind) for kind in kinds)
    return exact(a, b) if _assumed.value is not None else lax.platform_dependent(a, b, cuda=passes, default=exact)


@specs.compiled_once()
def add_rows(sums: Array, winners: Array, credit: Sequence[Scalar], x: Array | None = None) -> Array:
    """Add patches x [P, D] to the rows of who won them: `sums_i += sum_p sum_j credit_j x_p where winners_pj = i`.

    Two forms (benchmarks/NOTES.md has their times). Rows are added one by one; or all by one product, `sums += y' x`,
    where y [P, N] holds the credits and zeros. On a GPU rows to one place wait for each other, and add up in any order,
    so that last bits differ from run to run; a product's do not, so a `deterministic` layer takes products there.

    Args:
        winners: [P, k] whose row each patch goes to; N, nobody's.
        credit: for each of the k places a number, or [P] numbers.
        x: None: credit itself is added, to sums [N].
    """
    few = len(sums) <= FEW and len(winners) >= CONTENDED * len(sums)
    elsewhere = add_by_product if few or _arithmetic.value[1] else add_one_by_one
    return by_backend(add_one_by_one, elsewhere, sums, winners, credit, x)


def add_one_by_one(sums: Array, winners: Array, credit: Sequence[Scalar], x: Array | None) -> Array:
    """Do what `add_rows` does, row by row."""
    for i, c in zip(winners.T, credit):  # [P]
        sums = sums.at[i].add(c if x is None else jnp.reshape(c, (-1, 1)) * x, mode='drop')
    return sums


def add_by_product(sums: Array, winners: Array, credit: Sequence[Scalar], x: Array | None) -> Array:
    """Do what `add_rows` does, by one product."""
    neuron = lax.broadcasted_iota(winners.dtype, (len(winners), len(sums)), 1)  # [P, N]
    won = ((winners[:, j, None] == neuron, jnp.reshape(c, (-1, 1))) for j, c in enumerate(credit))
    y = sum(jnp.where(mine, c, 0).astype(sums.dtype) for mine, c in won)  # [P, N]
    return sums + (jnp.sum(y, 0) if x is None else matmul(y.T, x)).astype(sums.dtype)
