"""One program on many devices: each does its rows of a batch, and what they add up is added up over all of them.

A divided program is a `jax.shard_map` over the axis 'data' of a mesh, `jax.make_mesh((jax.device_count(),),
('data',))`. States are the same on all devices, rows of images are each device's own. What adds up over a batch asks
here for the sum over all devices. Where the program that is being traced is not divided, nothing changes.

Devices may be those of several processes, on one host or many: each then brings rows of its own, equally many.
"""

import collections
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hebbjax.support.checks import require, show

DATA, SEED = 'data', 'seed'  # axes of a mesh: rows of a batch, and runs, are divided along them
SAME, ROWS, SEEDS = PartitionSpec(), PartitionSpec(DATA), PartitionSpec(SEED)  # on all devices; divided
LOW = 1 << 16  # a sum of integers goes as two of floats, exact for as many devices


def _is_divided() -> bool:
    return DATA in jax.sharding.get_abstract_mesh().manual_axes


def device_count() -> int:
    """Say over how many devices the program that is being traced is divided."""
    return lax.axis_size(DATA) if _is_divided() else 1


def device_number() -> jax.Array | int:
    """Say which of these devices a program runs on, from 0."""
    return lax.axis_index(DATA) if _is_divided() else 0


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


def mean_over_devices(tree: Any) -> Any:
    """Give the mean over devices of floats, all in one collective."""
    return jax.tree.map(lambda a: a / device_count(), sum_over_devices(tree)) if _is_divided() else tree


def moments_over_devices(mean: jax.Array, var: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Make of means and variances of equal numbers of values on each device those of all values, in one collective."""
    if not _is_divided():
        return mean, var
    means, variances = jnp.moveaxis(lax.psum(beside_others(jnp.stack([mean, var])), DATA), 1, 0)  # [devices, ...] each
    mean = means.mean(0)
    return mean, variances.mean(0) + jnp.square(means - mean[None]).mean(0)


def beside_others(array: jax.Array) -> jax.Array:
    """Put an array where its sum over devices will have each one's beside the others'. -> [devices, ...], else 0."""
    return jnp.zeros((device_count(), *array.shape), array.dtype).at[device_number()].set(array)


def own(tree: Any) -> Any:
    """Let arrays that are the same on all devices become each device's own, such as sums that begin at zero."""
    return jax.tree.map(lambda a: lax.pcast(a, DATA, to='varying'), tree) if _is_divided() else tree


def own_key(key: Any) -> Any:
    """Give each device a key of its own, for what is drawn for its rows; where there is one, the key itself."""
    return jax.random.fold_in(key, device_number()) if device_count() > 1 else key


def own_order(key: Any, rows: int, count: int | None = None, hosts: int = 1) -> jax.Array:
    """Shuffle a device's rows, by a key of its own; of `count` in all, that `fill_rows` laid out evenly from so many
    hosts, what fills its rows up comes last. -> [rows].
    """
    order = jax.random.permutation(own_key(key), rows)
    if count in (None, rows * device_count()):
        return order
    count, size = count // hosts, device_count() // hosts  # of each process
    whole = count // size + jnp.asarray(device_number() % size < count % size, order.dtype)
    return order[jnp.argsort(order >= whole, stable=True)]


def check_mesh(mesh: Any, axis: str = DATA) -> Mesh | None:
    """Return a mesh, or None, as the library uses it, or refuse one that has not this axis alone."""
    if mesh is None:
        return None
    way = f'use jax.make_mesh((jax.device_count(),), ({axis!r},))'
    require(isinstance(mesh, Mesh), f'devices are given as a jax.sharding.Mesh, not {show(mesh)}; {way}.')
    require(mesh.axis_names == (axis,), f'a mesh of axes {mesh.axis_names} has not the one axis {axis!r}; {way}.')
    ordered = sorted(mesh.devices.flat, key=lambda device: device.process_index)  # those of a process side by side
    counts = collections.Counter(device.process_index for device in ordered)
    fits = {*counts} == {jax.process_index()} or (len(counts) == jax.process_count() and len({*counts.values()}) == 1)
    what = f'a mesh of {dict(counts)} devices by process has not as many of each of {jax.process_count()} processes'
    require(fits, f'{what}, nor those of this one alone; {way}.')
    way = 'give each process seeds of its own, and a mesh of jax.local_devices()'
    require(axis == DATA or len(counts) == 1, f'seeds are not divided over processes; {way}.')
    return Mesh(np.array(ordered), mesh.axis_names)  # its types Auto, so that inputs may lie as they come


def check_divides(what: str, count: int, mesh: Mesh | None) -> None:
    """Refuse so many rows as each device cannot have the same share of."""
    size = 1 if mesh is None else mesh.size
    near = ' or '.join(str(n) for n in (count // size * size, -(-count // size) * size) if n)
    require(count % size == 0, f'{what} of {count} does not divide over {size} devices; use {near}.')


def host_count(mesh: Mesh | None) -> int:
    """Say of how many processes a mesh has devices."""
    return jax.process_count() if mesh is not None and mesh.is_multi_process else 1


def local_count(mesh: Mesh | None) -> int:
    """Say how many devices of a mesh are this process's own; None: one."""
    return 1 if mesh is None else len(mesh.local_devices)


def divide(
    f: Callable, mesh: Mesh | None, *specs: PartitionSpec, out: PartitionSpec = SAME, adds: bool = True
) -> Callable:
    """Divide a function of arrays over a mesh: `specs` say of each argument, `out` of what is returned, which axis.

    Where nothing `adds` up over devices, nothing has to be said of what differs between them.
    """
    return f if mesh is None else jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=out, check_vma=adds)


def by_rows(f: Callable) -> Callable:
    """Let a jitted `f(spec, same, rows, ...)` of rows, a pytree of [n, ...], take a `mesh` on which each device
    computes what becomes of its own rows; a number that does not divide is filled up, and cut again.

    Of several processes each gives rows of its own, equally many, and has what becomes of these.
    """

    def place(spec, same, rows, *how, mesh=None, **more):
        if mesh is None:
            return f, (spec, same, rows, *how), more
        mesh = check_mesh(mesh)
        return _by_rows, (f, mesh, spec, how, tuple(more.items()), lay(same, mesh), fill_rows(rows, mesh)), {}

    def call(spec, same, rows, *how, mesh=None, **more):
        run, given, more = place(spec, same, rows, *how, mesh=mesh, **more)
        outcome, first = run(*given, **more), jax.tree.leaves(rows)[0]
        if mesh is None or _is_on_hosts(first):
            return outcome
        outcome = local_rows(outcome, mesh)
        return outcome if len(first) % local_count(mesh) == 0 else jax.tree.map(lambda a: a[: len(first)], outcome)

    def lower(*how, **more):  # ahead of time, as `jax.jit` does
        run, how, more = place(*how, **more)
        return run.lower(*how, **more)

    call.lower = lower
    return functools.update_wrapper(call, f)


@functools.partial(jax.jit, static_argnums=range(5))
def _by_rows(f, mesh, spec, how, more, same, rows):
    run = lambda same, rows: f(spec, same, rows, *how, **dict(more))  # noqa: E731
    return divide(run, mesh, SAME, ROWS, out=ROWS, adds=False)(same, rows)


def lay(tree: Any, mesh: Mesh | None, spec: PartitionSpec = SAME) -> Any:
    """Lay arrays on the devices of a mesh, the same on each if no axis is named; what is traced stays where it is.

    Of several processes each has all that is the same, and gives rows of its own for its devices.
    """

    def place(a):
        if isinstance(a, jax.core.Tracer):
            return a
        if mesh.is_multi_process and getattr(a, 'is_fully_addressable', True):
            return multihost_utils.host_local_array_to_global_array(a, mesh, spec)
        return jax.device_put(a, NamedSharding(mesh, spec))

    return tree if mesh is None else jax.tree.map(place, tree)


def fill_rows(tree: Any, mesh: Mesh | None, evenly: bool = False) -> Any:
    """Lay rows of arrays [n, ...] on a mesh in their order, zeros behind them where n does not divide; or `evenly`:
    the first devices get one more than the others, which get zeros in its place. -> [devices ceil(n / devices), ...].

    Of several processes each gives as many rows of its own, for its devices.
    """
    size = local_count(mesh)

    def fill(a):
        if len(a) % size == 0 or _is_on_hosts(a):
            return a
        xp = jnp if isinstance(a, jax.core.Tracer) else np
        parts, sides = xp.array_split(a, size) if evenly else [a], ((0, 0),) * (a.ndim - 1)
        most = -(-len(a) // size) * size // len(parts)
        return xp.concatenate([xp.pad(part, ((0, most - len(part)), *sides)) for part in parts])

    return lay(jax.tree.map(fill, tree), mesh, ROWS)


def lies_divided(array: Any, mesh: Mesh) -> bool:
    """Say whether an array's rows lie divided over a mesh, or are traced, which says nothing about where they lie."""
    return isinstance(array, jax.core.Tracer) or getattr(array, 'sharding', None) == NamedSharding(mesh, ROWS)


def _is_on_hosts(a) -> bool:
    return not isinstance(a, jax.core.Tracer) and not getattr(a, 'is_fully_addressable', True)


def own_copy(tree: Any) -> Any:
    """Give a process a copy of its own of arrays that lie on the devices of several; others stay as they are.

    All processes have to ask for what is divided over them.
    """
    same = lambda a: jax.device_put(a, NamedSharding(a.sharding.mesh, SAME))  # noqa: E731
    return jax.tree.map(lambda a: same(a).addressable_data(0) if _is_on_hosts(a) else a, tree)


def local_rows(tree: Any, mesh: Mesh) -> Any:
    """Give a process its own rows of arrays that are divided over several; others stay as they are."""
    return multihost_utils.global_array_to_host_local_array(tree, mesh, ROWS)


def from_hosts(value: Any, mesh: Mesh | None) -> np.ndarray:
    """Give what each process of a mesh has of a value. -> [processes, ...]."""
    value = np.asarray(value)
    return value[None] if host_count(mesh) == 1 else np.asarray(multihost_utils.process_allgather(value))
