"""What tests of divided programs share: states in float64, how far trees lie apart, what devices send each other."""

import re

import jax
import jax.numpy as jnp
import numpy as np

import hebbjax


def doubles(net, shape):
    """A first state, in float64."""
    with jax.enable_x64(False):
        tree = hebbjax.init(net, jax.random.key(0), shape)
    is_float = lambda a: jnp.issubdtype(a.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda a: a.astype(jnp.float64) if is_float(a) else a, tree)


def largest_difference(a, b):
    """Of any leaf of two trees."""
    plain = lambda a: jax.random.key_data(a) if jnp.issubdtype(jnp.result_type(a), jax.dtypes.prng_key) else a  # noqa: E731
    leaves = zip(jax.tree.leaves(jax.tree.map(plain, a)), jax.tree.leaves(jax.tree.map(plain, b)), strict=True)
    return max(np.abs(np.asarray(p, float) - np.asarray(q, float)).max(initial=0) for p, q in leaves)


def collectives(compiled):
    """What a compiled program sends between devices."""
    kinds = 'all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter'
    return re.findall(rf'({kinds})(?:-start)?\(', compiled.as_text())
