"""Softmax regression on the features of all images: where features are many it reads more images than ridge regression.

    min over w, b:  - sum over images of log softmax(x w + b)[y] + penalty |w|^2 / 2

is convex, so that all images together lead to its least, without rate, batches and epochs: by L-BFGS in `v = L' w`,
where `L L' = X' X / 4 + penalty I` is about the largest curvature there is (Böhning 1992), by blocks of 4,096 features.
A step goes through the features twice, and some twenty suffice. They lie on the device, or on a mesh, in float32, with
`jax_enable_x64` in float64.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.scipy import linalg
from jax.sharding import Mesh, NamedSharding

from hebbjax.base import AnyArray, Array, Labelled, Scalar
from hebbjax.readout import linear
from hebbjax.rules.products import matmul
from hebbjax.support import checks, devices

BLOCK_COLUMNS = 4096  # features whose products are known to each other
STEPS, LEFT = 200, 1e-5  # at most so many; until half the squared slope, in units of L, is so small beside the loss
JITTER = 1.2e-7  # of a feature's own square, and for each feature, added to it: what float32 can just factor


class Rows(NamedTuple):
    """Features that lie on their device, those of a block [b, F] beside each other, so that devices divide each."""

    x: Array  # [b, blocks, F], less their mean; zeros where a row does not count, and in columns that fill up
    labels: Array  # [b, blocks]; -1 where a row does not count
    mean: Array  # [F]
    width: int  # F without columns that fill up


def plan_columns(width: int) -> tuple[int, int]:
    """Give the number of blocks of columns, and the width of each."""
    blocks = -(-width // BLOCK_COLUMNS)
    return blocks, -(-width // blocks)


def check_rows(count: int, width: int, mesh: Mesh | None = None) -> None:
    """Refuse so many images and features as the memory cannot hold: once, one block of columns again, and products."""
    (blocks, columns), each = plan_columns(width), jnp.zeros(()).dtype.itemsize
    row, products, room = each * columns * (blocks + 1), 6 * each * blocks * columns**2, checks.device_memory()
    room *= devices.local_count(mesh)
    way = f'use {int((room - products) / row)} images at most, or pool' if room > products + row else 'pool'
    size, what = count * row + products, f'softmax regression on {width} features of {count} images'
    checks.check_memory(size, what, f'{way} the features', room)


def stack_rows(
    parts: Iterable[tuple[Any, np.ndarray, slice]], blocks: int, width: int, mesh: Mesh | None = None
) -> Rows:
    """Lay blocks of features [b, F], all of one size, on their device; of each the slice counts that has labels."""
    columns = int(np.prod(plan_columns(width)))
    x, every = None, []
    for number, (features, labels, new) in enumerate(parts):
        if x is None:
            sharding = None if mesh is None else NamedSharding(mesh, devices.ROWS)
            x = jnp.zeros((len(features), blocks, columns), device=sharding)
        x = _put(x, features, number)
        every.append(np.full(len(features), -1, np.int32))
        every[-1][new] = labels
    checks.require(x is not None, 'softmax regression needs at least one image.')
    labels = devices.lay(jnp.asarray(np.stack(every, 1)), mesh, devices.ROWS)
    x, mean = _centre(x, labels)
    checks.require(bool(jnp.isfinite(mean).all()), linear.NOT_FINITE)
    return Rows(x, labels, mean, width)


def solve_softmax(rows: Rows, classes: int, penalties: Sequence[float]) -> list[linear.LinearClassifier | None]:
    """Fit a classifier for each penalty, beginning with that of the next larger one; None: it is lost in rounding."""
    unit, products = _products(rows.x, plan_columns(rows.width))
    beyond = 'squares of these features are beyond float32; divide them by their largest value.'
    checks.require(bool(jnp.isfinite(products).all()), beyond)
    models: dict = {}
    w, b = jnp.zeros((classes, rows.x.shape[2])), jnp.zeros(classes)
    for penalty in sorted(set(penalties), reverse=True):
        w, b = _solve(rows.x, rows.labels, unit, products, w, b, penalty)
        own, level, mean = (np.asarray(part, np.float64) for part in (w, b, rows.mean))
        own, mean = own[:, : rows.width].T, mean[: rows.width]
        models[penalty] = linear.LinearClassifier(own, level - mean @ own) if np.isfinite(own).all() else None
    return [models[penalty] for penalty in penalties]


def fit_softmax(
    features: AnyArray, labels: AnyArray, classes: int, penalty: linear.Penalty = 10.0,
    held_out: Labelled | None = None, mesh: Mesh | None = None,
) -> linear.PenaltyChoice:  # fmt: skip
    """Fit softmax regression to features [n, F] and labels [n] of 0 .. classes - 1.

    Args:
        penalty: above 0, see this module; of a tuple, held-out features and labels choose one.
        held_out: (features, labels) that are not fitted to, and choose one of several penalties.
        mesh: devices over which rows are divided, of one process.

    Example:
        >>> features = np.array([[0.0, 1.0], [1.0, 0.0], [0.1, 0.9], [0.9, 0.2]])
        >>> found = fit_softmax(features, [0, 1, 0, 1], 2, penalty=0.1)
        >>> linear.predict_linear(found.model, features).tolist()
        [0, 1, 0, 1]
    """
    penalties = linear.check_penalties(penalty, above=0)
    checks.check_count('classes', classes)
    mesh = check_one_process(mesh)
    x = linear.check_features(features, None)
    labels = np.asarray(checks.check_labels(labels, classes, len(x)))
    check_rows(*x.shape, mesh)
    more = -len(x) % devices.local_count(mesh)
    rows = stack_rows([(np.pad(x, ((0, more), (0, 0))), labels, slice(len(x)))], 1, x.shape[1], mesh)
    return choose_softmax(rows, classes, penalties, None if held_out is None else [held_out])


def choose_softmax(
    rows: Rows, classes: int, penalties: tuple[float, ...], held_out: Iterable[Labelled] | None
) -> linear.PenaltyChoice:
    """Fit a classifier for each of the penalties, and choose the one by which most held-out images are read right."""
    is_one = len(penalties) == 1
    checks.require(is_one or held_out is not None, 'of several penalties held-out images choose; give some.')
    models = solve_softmax(rows, classes, penalties)
    best, accuracies = (0, ()) if is_one else linear.choose(models, penalties, held_out)
    return linear.PenaltyChoice(linear.require_solved(models[best], penalties[best]), penalties[best], accuracies)


def check_one_process(mesh: Any) -> Mesh | None:
    """Return a mesh, or None, or refuse one of several processes, whose features no device sees all of."""
    mesh = devices.check_mesh(mesh)
    way = 'use ridge regression, or a mesh of jax.local_devices()'
    checks.require(devices.host_count(mesh) == 1, f'softmax regression has no form for several processes; {way}.')
    return mesh


_put = jax.jit(lambda x, rows, at: x.at[:, at, : rows.shape[1]].set(rows.astype(x.dtype)), donate_argnums=0)


@functools.partial(jax.jit, donate_argnums=0)
def _centre(x, labels) -> tuple[Array, Array]:
    counts = (labels >= 0)[..., None]
    mean = jnp.where(counts, x, 0).sum((0, 1)) / counts.sum(dtype=x.dtype)
    return jnp.where(counts, x - mean[None, None], 0), mean


@functools.partial(jax.jit, static_argnums=1)
def _products(x, columns) -> tuple[Array, Array]:
    """Give the length of each feature over all rows, [blocks, f], and products in these units, [blocks, f, f]."""
    blocks, width = columns

    def of_block(number):
        part = lax.dynamic_slice_in_dim(x, number * width, width, 2).reshape(-1, width)
        return matmul(part.T, part)

    sums = lax.map(of_block, jnp.arange(blocks))
    unit = jnp.sqrt(jnp.diagonal(sums, axis1=1, axis2=2))  # [blocks, f]
    unit = jnp.where(unit > 0, unit, 1)
    return unit, sums / unit[:, :, None] / unit[:, None]


@jax.jit
def _solve(x, labels, unit, products, w, b, penalty: Scalar) -> tuple[Array, Array]:
    """Give the best w [K, F] and b [K], beginning with these.

    Rows of w and v are classes, so that slopes are products of rows: on a CPU in a quarter of the time.
    """
    x, labels, classes = x.reshape(-1, x.shape[2]), labels.reshape(-1), len(b)
    counts = labels >= 0
    bias_unit = 2 / jnp.sqrt(counts.sum(dtype=x.dtype))
    by_block = lambda a: a.reshape(classes, *unit.shape).swapaxes(0, 1)  # noqa: E731  [blocks, K, f]
    back = lambda a: a.swapaxes(0, 1).reshape(classes, -1)  # noqa: E731
    times = functools.partial(jnp.einsum, 'kci,kij->kcj', precision='highest')

    def factor(part):  # one at a time: two side by side may wait forever in jaxlib 0.10.2
        lower = jnp.linalg.cholesky(part[0] / 4 + jnp.diag(part[1]))
        return lower, linalg.solve_triangular(lower, jnp.eye(len(lower)), lower=True)

    # in units of features, and so that the loss is a sum over images
    factors, inverses = lax.map(factor, (products, penalty / unit**2 + max(1e-6, JITTER * unit.shape[1])))
    weights = lambda v: back(times(by_block(v), inverses) / unit[:, None])  # noqa: E731  L'^-1 v, in rows

    def loss(point):
        w = weights(point[0])
        outputs = jnp.einsum('nf,cf->nc', x, w, precision='highest') + (bias_unit * point[1])[None]
        each = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.maximum(labels, 0))
        return jnp.where(counts, each, 0).sum() + penalty / 2 * (w**2).sum()

    def step(carry):
        point, state, number, _ = carry
        value, slope = value_and_slope(point, state=state)
        change, state = search.update(slope, state, point, value=value, grad=slope, value_fn=loss)
        slope: Any = optax.tree.get(state, 'grad')
        left = sum((part**2).sum() for part in slope) / 2 / optax.tree.get(state, 'value')
        return optax.apply_updates(point, change), state, number + 1, left

    search, value_and_slope = optax.lbfgs(), optax.value_and_grad_from_state(loss)
    point = back(times(by_block(w) * unit[:, None], factors)), b / bias_unit
    again = lambda carry: (carry[2] < STEPS) & (carry[3] > LEFT)  # noqa: E731
    last: Any = lax.while_loop(again, step, (point, search.init(point), 0, jnp.inf))
    return weights(last[0][0]), bias_unit * last[0][1]
