"""Means and products of deviations in float64, added up block by block: all that ridge regression and whitening need.

They are added up where that is fast: by numpy on a CPU, whose products of float64 take a quarter of XLA's time; on a
GPU, and on a mesh, on the devices, each from its own rows and in one program a block. TPUs have no float64 worth the
name, so there it is the host that adds up. On the host, products of more than `WIDE` inputs are of float32, of
deviations from each chunk's means, and their sums of float64: half the time, for 1e-6 of the largest product.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.sharding import Mesh

from hebbjax.support import devices
from hebbjax.support.checks import device_memory

CHUNK, PANEL = 4096, 1024  # rows in float64 at once; in products and factors, for BLAS crashes at some above 2 GiB
WIDE = 4000  # inputs; the eigenvectors of more take minutes
REFINEMENTS, RESIDUAL = 30, 1e-8  # at most so many, until so much of the right side is left
ON_DEVICE = 'gpu', 'cuda', 'rocm'  # platforms where float64 is faster than on their host


class Moments(NamedTuple):
    """What rows x [n, F] and y [n, K] have added up to, in float64: its size does not grow with their number.

    On devices each array has a leading axis of them; `gather_moments` makes one of all.
    """

    origin: Any  # [F] the first x; of all that follow it is subtracted, so a constant one becomes 0
    count: Any  # pyright: ignore[reportIncompatibleMethodOverride]  no tuple is searched for values
    x: Any  # [F] mean of x less the origin
    y: Any  # [K] and of y
    xx: Any  # [F, F] sum of products of deviations of x from their mean: on the host the lower triangle, until gathered
    xy: Any  # [F, K] and of those with deviations of y


def is_on_device(mesh: Mesh | None = None) -> bool:
    """Say whether float64 is added up on the devices of a mesh, or the default one; else on the host."""
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return platform in ON_DEVICE or (mesh is not None and platform == 'cpu')


def add_moments(
    moments: Moments | None, x: Any, y: Any, mesh: Mesh | None = None, rows: slice = slice(None)
) -> Moments:
    """Add rows x [b, F], y [b, K] to moments, which are written over; None: these are the first, added up on `mesh`.

    `rows` are those of x that count, and have a y; so blocks that are filled up can be of one size, and one program's.
    """
    shape = x.shape[1], y.shape[1]
    if moments is None and not is_on_device(mesh):
        zeros = (np.zeros(sides) for sides in (shape[:1], shape[1:], (shape[0],) * 2, shape))
        moments = Moments(np.asarray(x[0], np.float64), 0, *zeros)
    if moments is not None and isinstance(moments.xx, np.ndarray):
        return _add_on_host(moments, np.asarray(x)[rows], y)
    with jax.enable_x64(True):
        moments = _zeros(mesh, *shape) if moments is None else moments
        mesh = getattr(moments.xx.sharding, 'mesh', None)
        counts, of_all = np.zeros(len(x), bool), np.zeros((len(x), shape[1]))
        counts[rows], of_all[rows] = True, y
        return _add_on_device(mesh, moments, *devices.fill_rows((x, of_all, counts), mesh))


def gather_moments(moments: Moments) -> Moments:
    """Give moments on the host, those of all devices as one."""
    if not isinstance(moments.xx, np.ndarray):
        with jax.enable_x64(True):
            moments = jax.device_get(_merge(getattr(moments.xx.sharding, 'mesh', None), moments))
    moments = Moments(*(np.require(a, requirements='W') for a in moments))  # a copy of what cannot be written to
    mirror(moments.xx)
    return moments._replace(count=int(moments.count))


def eigh(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the eigenvalues, ascending, and eigenvectors of a symmetric matrix in float64: by the GPU where it fits."""
    if not is_on_device() or 64 * a.size > device_memory():  # a few copies of 8 bytes a value
        return np.linalg.eigh(a)
    with jax.enable_x64(True):
        return jax.device_get(jax.jit(jnp.linalg.eigh)(a))


def solve_well(a: np.ndarray, y: np.ndarray, least: float) -> np.ndarray | None:
    """Solve `a x = y` for a positive a [n, n] of float64, by Cholesky; None: 1 by its condition is below `least`."""
    factor, failed = scipy.linalg.lapack.dpotrf(a, lower=True)
    well, _ = (0, 0) if failed else scipy.linalg.lapack.dpocon(factor, np.linalg.norm(a, 1), uplo='L')
    return scipy.linalg.cho_solve((factor, True), y, check_finite=False) if well > least else None


def solve_refined(a: Any, shift: Any, y: np.ndarray, unit: Any = None) -> np.ndarray | None:
    """Solve `(a + diag(shift)) x = y` for a [n, n] of numpy or jax that is positive, by Cholesky; x is refined.

    The factor is of float32, unless a is of float64 and not wide; each refinement solves for what is left of y [n, K]
    in float64. `unit` [n], of a of numpy: it is factored in these. It takes 4 n^2 bytes beside a, 8 where the factor is
    of float64, and a fifteenth of the time of eigenvectors. None: its digits do not suffice for so small a shift.
    """
    xp = np if isinstance(a, np.ndarray) else jnp
    if not np.any(y):
        return np.zeros(y.shape)
    with jax.enable_x64(True):
        unit = (xp.ones(len(a)) if unit is None else unit)[:, None]
        # beyond 1e30, which is within float32, nothing is left to let through
        shift, y = xp.minimum(shift / unit[:, 0] ** 2, 1e30), xp.asarray(y, xp.float64) / unit
        kind, every = xp.float32 if len(a) > WIDE else a.dtype, xp.arange(len(a))
        try:
            if xp is np:
                shifted = np.empty(a.shape, kind)
                for start in range(0, len(a), PANEL):
                    shifted[start : start + PANEL] = a[start : start + PANEL] / unit.T / unit[start : start + PANEL]
                shifted[every, every] += shift
                solve = _cholesky(shifted)
            else:
                shifted = xp.array(a, kind).at[every, every].add(shift.astype(kind))
                factor = jax.scipy.linalg.cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
                solve = functools.partial(jax.scipy.linalg.cho_solve, factor, check_finite=False)
        except scipy.linalg.LinAlgError:
            return None
        x, rest, left = xp.zeros_like(y), y, 1.0
        for _ in range(REFINEMENTS):
            size = xp.abs(rest).max()
            x = x + size * solve((rest / size).astype(kind)).astype(xp.float64)
            products = [a[i : i + CHUNK].astype(xp.float64) @ (x / unit) for i in range(0, len(a), CHUNK)]
            rest = y - xp.concatenate(products) / unit - shift[:, None] * x
            before, left = left, float(xp.linalg.norm(rest) / xp.linalg.norm(y))
            if left <= RESIDUAL:
                return np.asarray(x / unit)
            if not left < before / 2:
                return None
    return None


def _cholesky(a: np.ndarray) -> Callable:
    """Factor the lower triangle of a [n, n], written over, by blocks of columns. -> y [n, K] -> x with `a x = y`."""
    cuts = [slice(start, start + PANEL) for start in range(0, len(a), PANEL)]
    solve = functools.partial(scipy.linalg.solve_triangular, lower=True, check_finite=False)
    for cut in cuts:
        a[cut.start :, cut] -= a[cut.start :, : cut.start] @ a[cut, : cut.start].T
        a[cut, cut] = scipy.linalg.cholesky(a[cut, cut], lower=True, check_finite=False)
        a[cut.stop :, cut] = solve(a[cut, cut], a[cut.stop :, cut].T).T

    def solve_both(y):
        x = y.copy()
        for cut in cuts:
            x[cut] = solve(a[cut, cut], x[cut] - a[cut, : cut.start] @ x[: cut.start])
        for cut in cuts[::-1]:
            x[cut] = solve(a[cut, cut], x[cut] - a[cut.stop :, cut].T @ x[cut.stop :], trans=1)
        return x

    return solve_both


def add_products(gram: np.ndarray, x: np.ndarray, unit: float = 1) -> np.ndarray:
    """Add `unit^2 x x'` to the lower triangle of a Gram matrix, which is written over."""
    for start in range(0, len(x), PANEL):
        gram[start : start + PANEL, : start + PANEL] += x[start : start + PANEL] @ x[: start + PANEL].T * unit**2
    return gram


def mirror(gram: np.ndarray) -> None:
    """Write the lower triangle over the upper one."""
    for start in range(0, len(gram), PANEL):
        gram[:start, start : start + PANEL] = gram[start : start + PANEL, :start].T


def _add_on_host(moments, x, y) -> Moments:
    for start in range(0, len(x), CHUNK):
        # Means first, then products of deviations from them, so that no common level costs digits.
        part, count = y[start : start + CHUNK], moments.count
        with np.errstate(over='ignore', invalid='ignore'):  # whoever asks for moments looks at them
            rows = x[start : start + CHUNK].astype(np.float64) - moments.origin
            new, dx, dy = len(rows), rows.mean(0) - moments.x, part.mean(0) - moments.y
            # what the means differ by counts like one more sample
            share = (count * new / (count + new)) ** 0.5
            rows = np.concatenate([rows - rows.mean(0), share * dx[None]])
            part = np.concatenate([part - part.mean(0), share * dy[None]])
            moments.xy[:] += rows.T @ part
            unit = 1
            if rows.shape[1] > WIDE:
                largest = max(rows.max(), -rows.min())
                unit = 1 if 1e-12 < largest < 1e12 else largest or 1  # squares of others may leave float32's range
                rows = (rows / unit).astype(np.float32)
            add_products(moments.xx, rows.T, unit)
            moments.x[:] += dx * new / (count + new)
            moments.y[:] += dy * new / (count + new)
        moments = moments._replace(count=count + new)
    return moments


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(mesh, inputs, outputs) -> Moments:
    shapes = (inputs,), (), (inputs,), (outputs,), (inputs, inputs), (inputs, outputs)
    return devices.divide(lambda: Moments(*(jnp.zeros((1, *shape)) for shape in shapes)), mesh, out=devices.ROWS)()


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _add_on_device(mesh, moments, x, y, counts) -> Moments:
    """Do what `_add_on_host` does, on each device from its own rows."""

    def add(moments, x, y, counts):
        origin, count, mean_x, mean_y, xx, xy = (a[0] for a in moments)
        x, y = (jnp.where(counts[:, None], a.astype(jnp.float64), 0) for a in (x, y))
        origin = jnp.where(count == 0, x[0], origin)
        new = counts.sum(dtype=jnp.float64)
        total = jnp.maximum(count + new, 1)
        mean_of = lambda a: a.sum(0) / jnp.maximum(new, 1)  # noqa: E731
        x = jnp.where(counts[:, None], x - origin[None], 0)
        dx, dy = mean_of(x) - mean_x, mean_of(y) - mean_y
        x, y = (jnp.where(counts[:, None], a - mean_of(a)[None], 0) for a in (x, y))
        share = count * new / total
        xx += x.T @ x + share * jnp.outer(dx, dx)
        xy += x.T @ y + share * jnp.outer(dx, dy)
        grown = origin, count + new, mean_x + dx * new / total, mean_y + dy * new / total, xx, xy
        return Moments(*(a[None] for a in grown))

    return devices.divide(add, mesh, *(devices.ROWS,) * 4, out=devices.ROWS)(moments, x, y, counts)


@functools.partial(jax.jit, static_argnums=0)
def _merge(mesh, moments) -> Moments:
    """Make of each device's moments those of all, in one collective: what means differ by counts like more samples."""

    def merge(moments):
        origin, count, x, y, xx, xy = moments
        means = devices.beside_others(jnp.concatenate([count[:, None], origin, x, y], 1)[0])  # [devices, 1 + 2 F + K]
        means, xx, xy = devices.sum_over_devices((means, xx[0], xy[0]))
        count, origin, x, y = jnp.split(means, (1, 1 + origin.shape[1], 1 + 2 * origin.shape[1]), 1)
        x = x + (origin - origin[:1])
        weight, total = jnp.sqrt(count), count.sum()
        mean_x, mean_y = ((count * a).sum(0) / total for a in (x, y))
        dx, dy = weight * (x - mean_x[None]), weight * (y - mean_y[None])
        return Moments(origin[0], total, mean_x, mean_y, xx + dx.T @ dx, xy + dx.T @ dy)

    return devices.divide(merge, mesh, devices.ROWS)(moments)
