"""Ridge regression in the dual: products of images in place of products of features, where features are the more.

    alpha = (Xc Xc' + penalty I)^(-1) Yc,    w = Xc' alpha,    b = mean(y) - mean(x) w

is what `ridge.solve_ridge` gives, of a Gram matrix [n, n] instead of one [F, F]. Its size does not grow with F, so
features come in blocks of columns that are never all stored. Products are of float32, on a GPU if there is one, and
the solution for them of float64; where features are the fewer, w errs by 1e-7 times `largest eigenvalue / penalty`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import linalg

from hebbjax.base import AnyArray, Array, Scalar
from hebbjax.readout import linear
from hebbjax.rules.products import matmul
from hebbjax.support import checks
from hebbjax.support.checks import check_count, check_labels, check_number, require, show
from hebbjax.support.moments import CHUNK, add_products, is_on_device, mirror, solve_refined

GRAM_BYTES = 8  # a pair of images: their product and their number in Cholesky's factor ...
ON_DEVICE_BYTES = 20  # ... and copies, where XLA makes some
Columns = Iterable[AnyArray] | Callable[[], Iterable[AnyArray]]  # blocks [n, f], gone through twice


def ridge_outputs(features: Array, targets: Array, others: Array, penalty: Scalar = 1.0) -> Array:
    """Fit ridge regression to features [b, F], targets [b, K], and give its outputs for others [n, F]. -> [n, K].

    `x w + b` of `readout.solve_ridge`, differentiable, in the features' precision: centred, by Cholesky of
    `Xc' Xc + penalty I`, or of `Xc Xc' + penalty I` where b < F. In float32 a penalty far below the features' variance
    times b leaves few digits, or NaN. On two cores jaxlib 0.10.2 may wait forever for two of these that `vmap` batches
    in one program; one is safe, as is `lax.map`.
    """
    check_number('penalty', penalty, above=0)
    shapes = [np.shape(a) for a in (features, targets, others)]
    fits = [*map(len, shapes)] == [2, 2, 2] and 0 not in shapes[0] and shapes[0] == (len(targets), shapes[2][1])
    came = f'features, targets and others of shapes {", ".join(map(str, shapes))} do not fit'
    require(fits, f'{came}; give [b, F], [b, K] and [n, F].')
    mean, level = features.mean(0, keepdims=True), targets.mean(0, keepdims=True)
    x, y = features - mean, targets - level  # [b, F], [b, K]
    is_dual = x.shape[0] < x.shape[1]
    gram = matmul(x, x.T) if is_dual else matmul(x.T, x)  # [b, b] or [F, F]
    factor = jnp.linalg.cholesky(gram + penalty * jnp.eye(len(gram), dtype=x.dtype))
    solve = lambda right: linalg.cho_solve((factor, True), right)  # noqa: E731
    w = matmul(x.T, solve(y)) if is_dual else solve(matmul(x.T, y))  # [F, K]
    return matmul(others - mean, w) + level


def check_gram(count: int) -> None:
    """Refuse so many images as the memory cannot hold the products of: those, and their factor, in float32."""
    each, memory = (ON_DEVICE_BYTES, checks.device_memory) if is_on_device() else (GRAM_BYTES, checks.host_memory)
    what, most = f'the Gram matrix of {count} images', int((memory() / each) ** 0.5)
    checks.check_memory(each * count**2, what, f'use {most} of them at most, or pool the features', memory())


def fit_dual(
    blocks: Columns, labels: AnyArray, classes: int, penalty: linear.Penalty = 1.0, held_out: int = 0
) -> linear.PenaltyChoice:
    """Fit ridge regression to features of n images that come in blocks of columns, [n, f] each, such as of neurons.

    Args:
        blocks: a list, or a function that gives them one by one: they are gone through twice, the second time for w.
        labels: [n] of 0 .. classes - 1.
        penalty: see `ridge.solve_ridge`; of a tuple, the held-out images choose one.
        held_out: so many images at the end are not fitted to, and tell the accuracies.

    Example:
        >>> features, labels = np.eye(4, 6, dtype=np.float32), [0, 1, 0, 1]
        >>> found = fit_dual([features[:, :3], features[:, 3:]], labels, 2)
        >>> found.model.w.shape, linear.predict_linear(found.model, features).tolist()
        ((6, 2), [0, 1, 0, 1])
    """
    penalties = linear.check_penalties(penalty, above=0)
    check_count('classes', classes)
    labels = np.asarray(check_labels(labels))
    count = len(labels)
    check_count('held_out', held_out, int(len(penalties) > 1), count - 1)
    check_gram(count)
    fitted = count - held_out
    check_labels(labels[:fitted], classes)
    y = np.eye(classes)[labels[:fitted]]
    level = y.mean(0)
    xp, add = (jnp, _add_on_device) if is_on_device() else (np, add_products)
    gram, means = xp.zeros((count, count), np.float32), []
    for x, mean in _centred(blocks, count, fitted):
        gram = add(gram, x)
        means.append(mean)
    require(means, 'ridge regression needs at least one block of features.')
    if xp is np:
        mirror(gram)
    largest = float(gram.diagonal().max())
    beyond = f'squares of these features add up to {largest:.1e}, beyond float32; divide them by their largest value'
    require(largest == 0 or 1e-30 < largest < 1e30, f'{beyond}.')
    # one factor at a time; what is kept of each penalty is alpha [n, K]
    own, others = gram[:fitted, :fitted], np.asarray(gram[fitted:, :fitted])
    alphas = [solve_refined(own, one, y - level) for one in penalties]
    hits = [(others @ (y if a is None else a) + level).argmax(1) == labels[fitted:] for a in alphas]
    del gram, own
    best, accuracies = 0, ()
    if held_out:
        best, accuracies = linear.choose_best(penalties, np.stack(hits), [a is not None for a in alphas])
    alpha = linear.require_solved(alphas[best], penalties[best])
    w = np.concatenate([_products(x[:fitted], alpha) for x, _ in _centred(blocks, count, fitted)])
    model = linear.LinearClassifier(w, level - np.concatenate(means) @ w)
    return linear.PenaltyChoice(model, penalties[best], accuracies)


def _centred(blocks, count, fitted) -> Iterator[tuple[Any, np.ndarray]]:
    """Give each block [n, f] less the means over images that are fitted to, and these means [f] in float64."""
    came = f'blocks are gone through twice, and {show(blocks)} is no list'
    fits = isinstance(blocks, list | tuple) or callable(blocks)
    require(fits, f'{came}; give a list, or a function that yields them anew.')
    each: Any = blocks() if callable(blocks) else blocks
    for block in each:
        shape = np.shape(block)
        fits = len(shape) == 2 and shape[0] == count and shape[1] > 0
        require(fits, f'a block of shape {shape} does not fit {count} labels; give [{count}, f], some columns of all.')
        linear.check_features(block, shape[1], stay=True)
        xp = jnp if is_on_device() else np
        x, mean = xp.asarray(block, xp.float32), np.zeros(shape[1])
        for _ in range(2):  # the second time, of what the rounding of the first left
            part = np.asarray(x[:fitted].mean(0, dtype=None if is_on_device() else np.float64), np.float64)
            x, mean = x - xp.asarray(part[None], xp.float32), mean + part.astype(np.float32).astype(np.float64)
        require(bool(xp.isfinite(x).all()), linear.NOT_FINITE)
        yield x, mean


_add_on_device = jax.jit(lambda gram, x: gram + matmul(x, x.T), donate_argnums=0)


def _products(x, alpha) -> np.ndarray:
    """Give `x' alpha` in float64. [n, f], [n, K] -> [f, K]."""
    cuts = (slice(i, i + CHUNK) for i in range(0, len(x), CHUNK))
    return np.sum([np.asarray(x[cut]).T.astype(np.float64) @ alpha[cut] for cut in cuts], 0)
