"""One program on many devices: each does its rows of a batch, and what they add up is added up over all of them.

A divided program is a `jax.shard_map` over the axis 'data' of a mesh, `jax.make_mesh((jax.device_count(),),
('data',))`. States are the same on all devices, rows of images are each device's own. What adds up over a batch asks
here for the sum over all devices. Whether there are several, the program says that is being traced: where nothing is
divided, everything is left as it is.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hebbjax.support.checks import require, show

DATA, SEED = 'data', 'seed'  # axes of a mesh: rows of a batch, and runs, are divided along them
SAME, ROWS, SEEDS = PartitionSpec(), PartitionSpec(DATA), PartitionSpec(SEED)  # on all devices; divided
LOW = 1 << 16  # a sum of integers goes as two of floats, exact for as many devices


def check_mesh(mesh: Any, axis: str = DATA) -> Mesh | None:
    """Return a mesh, or None, as the library uses it, or refuse one that has not this axis alone."""
    if mesh is None:
        return None
    way = f'use jax.make_mesh((jax.device_count(),), ({axis!r},))'
    require(isinstance(mesh, Mesh), f'devices are given as a jax.sharding.Mesh, not {show(mesh)}; {way}.')
    require(mesh.axis_names == (axis,), f'a mesh of axes {mesh.axis_names} has not the one axis {axis!r}; {way}.')
    return Mesh(mesh.devices, mesh.axis_names)  # its types Auto, so that inputs may lie as they come


def check_divides(what: str, count: int, mesh: Mesh | None) -> None:
    """Refuse so many rows as each device cannot have the same share of."""
    size = 1 if mesh is None else mesh.size
    near = ' or '.join(str(n) for n in (count // size * size, -(-count // size) * size) if n)
    require(count % size == 0, f'{what} of {count} does not divide over {size} devices; use {near}.')


def device_count() -> int:
    """Say over how many devices the program that is being traced is divided."""
    return lax.axis_size(DATA) if _is_divided() else 1


def is_divided(array: Any, mesh: Mesh) -> bool:
    """Say whether an array's rows lie divided over a mesh, or are traced, which says nothing about where they lie."""
    return isinstance(array, jax.core.Tracer) or getattr(array, 'sharding', None) == NamedSharding(mesh, ROWS)


def _is_divided() -> bool:
    return DATA in jax.sharding.get_abstract_mesh().manual_axes


def sum_over_devices(tree: Any) -> Any:
    """Add up floats and integers over devices, all in one collective."""
    if not _is_divided():
        return tree
    leaves, structure = jax.tree.flatten(tree)
    kind = next((leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)), jnp.float32)
    is_float = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    halves = lambda n: ((n // LOW).astype(kind), (n % LOW).astype(kind))  # noqa: E731
    summed = lax.psum([a if f else halves(a.astype(jnp.int32)) for a, f in zip(leaves, is_float)], DATA)
    joined = [a if f else a[0].astype(jnp.int32) * LOW + a[1].astype(jnp.int32) for a, f in zip(summed, is_float)]
    return jax.tree.unflatten(structure, joined)


def moments_over_devices(mean: jax.Array, var: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Make of means and variances of equal numbers of values on each device those of all values, in one collective."""
    if not _is_divided():
        return mean, var
    size = device_count()
    own = jnp.zeros((size, 2, *mean.shape), mean.dtype).at[lax.axis_index(DATA)].set(jnp.stack([mean, var]))
    means, variances = jnp.moveaxis(lax.psum(own, DATA), 1, 0)  # [devices, ...] each
    mean = means.mean(0)
    return mean, variances.mean(0) + jnp.square(means - mean[None]).mean(0)


def own_key(key: Any) -> Any:
    """Give each device a key of its own, for what is drawn for its rows; where there is one, the key itself."""
    return jax.random.fold_in(key, lax.axis_index(DATA)) if device_count() > 1 else key


def own(tree: Any) -> Any:
    """Let arrays that are the same on all devices become each device's own, such as sums that begin at zero."""
    return jax.tree.map(lambda a: lax.pcast(a, DATA, to='varying'), tree) if _is_divided() else tree


def divide(f: Callable, mesh: Mesh | None, *specs: PartitionSpec, out: Any = SAME) -> Callable:
    """Divide a function of arrays over a mesh: `specs` say of each argument, `out` of what is returned, which axis."""
    return f if mesh is None else jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=out)


def divide_seeds(f: Callable, mesh: Mesh | None, shared: int) -> Callable:
    """Divide a function of states with a leading axis of seeds, and of so many arrays that they share."""
    specs = SEEDS, *(SAME,) * shared
    # nothing is added up over devices here, so nothing has to be said of what differs between them
    return f if mesh is None else jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=SEEDS, check_vma=False)


def lay(tree: Any, mesh: Mesh | None, spec: PartitionSpec = SAME) -> Any:
    """Lay arrays on the devices of a mesh, the same on each if no axis is named; what is traced stays where it is."""
    return tree if mesh is None else jax.tree.map(functools.partial(_lay, mesh, spec), tree)


def divide_rows(tree: Any, mesh: Mesh | None) -> Any:
    """Lay rows of arrays [n, ...] on a mesh: every device gets `n // devices` that follow each other; where n does not
    divide, the first ones get one more, and the others zeros in its place. -> [devices ceil(n / devices), ...].
    """
    return tree if mesh is None else lay(jax.tree.map(lambda a: _even(a, mesh.size), tree), mesh, ROWS)


def own_rows(count: int | None, rows: int) -> jax.Array:
    """Say how many of a device's rows are those of the `count` in all that `divide_rows` laid out; None: all."""
    if count is None or not _is_divided():
        return jnp.int32(rows)
    return count // device_count() + (lax.axis_index(DATA) < count % device_count()).astype(jnp.int32)


def _even(a, size):
    missing = -len(a) % size
    if not missing or isinstance(a, jax.core.Tracer):
        return a
    most = (len(a) + missing) // size
    filled = [np.pad(part, ((0, most - len(part)), *((0, 0),) * (a.ndim - 1))) for part in np.array_split(a, size)]
    return np.concatenate(filled)


def _lay(mesh, spec, a):
    return a if isinstance(a, jax.core.Tracer) else jax.device_put(a, NamedSharding(mesh, spec))
