"""Ridge regression in closed form: against scikit-learn, streamed or whole, and refusals."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import threadpoolctl
from sklearn.linear_model import Ridge

from hebbjax import data
from hebbjax.layers import activations
from hebbjax.readout import add_batch, fit_ridge, linear_accuracy, predict_linear


def problem(rng, count=500, inputs=12, classes=4):
    """Features far from zero, of very different sizes, and labels that depend on them."""
    x = rng.normal(size=(count, inputs)) * np.logspace(-2, 1, inputs)
    labels = (x @ rng.normal(size=(inputs, classes)) + rng.normal(size=(count, classes))).argmax(1)
    return jnp.asarray(x + 30, jnp.float32), jnp.asarray(labels, jnp.int32)


def parts(x, labels, size):
    """Batches, the last one smaller."""
    x, labels = np.asarray(x), np.asarray(labels)
    return [(x[i : i + size], labels[i : i + size]) for i in range(0, len(x), size)]


@pytest.mark.parametrize('penalty', [1e-3, 1.0, 300.0])
def test_it_is_scikit_learns_ridge(penalty, rng):
    x, labels = problem(rng)
    found = fit_ridge([(x, labels)], 4, penalty)
    targets = np.eye(4)[np.asarray(labels)]
    judge = Ridge(alpha=penalty).fit(np.asarray(x, np.float64), targets)
    scale = np.abs(judge.coef_).max()
    np.testing.assert_allclose(found.w, judge.coef_.T, atol=1e-4 * scale, rtol=1e-3)
    np.testing.assert_allclose(x @ found.w + found.b[None], judge.predict(np.asarray(x, np.float64)), atol=2e-3)


@pytest.mark.parametrize('size', [1, 7, 499])
def test_batches_add_up(size, rng):
    x, labels = problem(rng)
    whole, streamed = (fit_ridge(parts(x, labels, n), 4) for n in (500, size))
    np.testing.assert_allclose(streamed.w, whole.w, atol=1e-4)
    np.testing.assert_array_equal(predict_linear(streamed, x), predict_linear(whole, x))


def test_a_common_level_costs_no_digits(rng):
    """Features of 10,000 +- 1 in float32: the first batch's mean is subtracted before anything is multiplied."""
    x, labels = problem(rng)
    raised = jnp.round(x * 2**6) / 2**6 + 10_000
    same = fit_ridge([(raised - 10_000, labels)], 4)
    np.testing.assert_allclose(fit_ridge([(raised, labels)], 4).w, same.w, rtol=1e-3, atol=1e-5)


def test_it_reads_digits():
    images, labels = data.load('digits', 'train')
    x, labels = jnp.asarray(images.reshape(len(images), -1) / 255, jnp.float32), jnp.asarray(labels)
    found = fit_ridge(parts(x[:1000], labels[:1000], 300), 10)
    reached = linear_accuracy(found, parts(x[1000:], labels[1000:], 64))
    assert 0.85 < reached < 1
    assert reached == np.mean(np.asarray(predict_linear(found, x[1000:]) == labels[1000:]))


def test_the_number_of_classes_is_kept_where_one_never_occurs(rng):
    x, labels = problem(rng, classes=3)
    assert fit_ridge([(x, labels)], 5).w.shape == (12, 5)


def test_what_cannot_be_fitted_is_refused(rng):
    x, labels = problem(rng)
    with pytest.raises(ValueError, match='at least one batch'):
        fit_ridge([], 4)
    with pytest.raises(ValueError, match='at least one batch'):
        linear_accuracy(fit_ridge([(x, labels)], 4), [])
    with pytest.raises(ValueError, match='labels run from 0 to 3 and there are 3 classes; use 0 to 2'):
        fit_ridge([(x, labels)], 3)
    with pytest.raises(ValueError, match='499 labels do not fit 500 images'):
        fit_ridge([(x, labels[1:])], 4)
    with pytest.raises(ValueError, match='NaN or infinite'):
        fit_ridge([(x.at[3, 2].set(jnp.nan), labels)], 4)
    x = jnp.round(64 * x) / 64  # sums of these are exact
    for more in (jnp.zeros_like(x), x, 10 - x.sum(1, keepdims=True)):
        with pytest.raises(ValueError, match='at penalty 0 the features depend on each other'):
            fit_ridge([(jnp.concatenate([x, more], 1), labels)], 4, 0)
    with pytest.raises(ValueError, match=r'features of shape \(500, 11\) .* wanted \[b, 12\]'):
        fit_ridge([(x, labels), (x[:, 1:], labels)], 4)
    with pytest.raises(ValueError, match=r'features of shape \(0, 12\) .* b >= 1'):
        fit_ridge([(x[:0], labels[:0])], 4)


def test_half_precision_is_added_up_in_full(rng):
    x, labels = problem(rng, count=3000)
    half = (x - 30).astype(jnp.bfloat16)
    found, exact = add_batch(None, half, labels, 4), np.asarray(half, np.float64)
    np.testing.assert_allclose(found.y * 3000, np.bincount(labels, minlength=4), rtol=1e-12)
    np.testing.assert_allclose(found.x + found.origin, exact.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.xx, 3000 * np.cov(exact.T, bias=True), rtol=1e-9, atol=1e-9 * found.xx.max())


# Against float64


def in_float64(x, labels, classes, penalty):
    """Weights and intercept of ridge regression by QR of the data themselves: nothing is squared, so little is lost."""
    targets, mean = np.eye(classes)[labels], x.mean(0)
    centred = np.where((x == x[0]).all(0), 0, x - mean)  # rounding would leave something of a constant column
    rows = np.concatenate([centred, penalty**0.5 * np.eye(x.shape[1])])
    q, r = np.linalg.qr(rows)
    w = np.linalg.solve(r, q[: len(x)].T @ (targets - targets.mean(0)))
    return w, targets.mean(0) - mean @ w


def drawn(rng, inputs):
    """A ridge problem: features of any scale and level, some of them powers, copies, sums, constants."""
    count, latent = int(rng.integers(60, 1500)), int(rng.integers(2, inputs + 1))
    causes = rng.normal(size=(count, latent))
    x = causes @ rng.normal(size=(latent, inputs)) if rng.random() < 0.4 else rng.normal(size=(count, inputs))
    x = (x, np.maximum(x + rng.normal(size=inputs), 0), np.maximum(x, 0) ** 4.5)[rng.integers(3)]
    x = (x + rng.choice([0, 1, 30])) * 10 ** rng.uniform(-4, 4, rng.choice([1, inputs]))
    for place in rng.integers(0, inputs, inputs // 10):
        x[:, rng.integers(inputs)] = rng.choice([1, 3, 0.1]) * x[:, place]
    x[:, rng.integers(0, inputs, 2)] = 10 ** rng.uniform(-4, 4), 0
    labels = (causes @ rng.normal(size=(latent, 4)) + rng.normal(size=(count, 4))).argmax(1)
    return x.astype(np.float32), labels, 10 ** rng.uniform(-6, 3)


@threadpoolctl.threadpool_limits.wrap(1)  # threads of small products wait for each other, on a busy machine for long
def test_drawn_problems_have_the_answer_of_float64_or_are_refused(rng):
    """Those refused are answered at the penalty that the refusal names."""
    refused = 0
    for inputs in [*np.exp(rng.uniform(np.log(3), np.log(150), 30)).astype(int), 400]:
        x, labels, penalty = drawn(rng, inputs)
        half, size = len(x) // 2, int(rng.integers(7, 500))
        seen = parts(x[:half], labels[:half], size)
        try:
            found = fit_ridge(seen, 4, penalty)
        except ValueError as error:
            assert 'depend on each other to the last digit' in str(error)
            penalty = float(re.search(r'use a penalty of (\S+) or more', str(error))[1])
            found, refused = fit_ridge(seen, 4, penalty), refused + 1
        x = x.astype(np.float64)
        w, b = in_float64(x[:half], labels[:half], 4, penalty)
        assert np.linalg.norm(found.w - w) <= 1e-3 * np.linalg.norm(w)
        right = np.mean((x[half:] @ w + b).argmax(1) == labels[half:])
        assert abs(linear_accuracy(found, [(x[half:].astype(np.float32), labels[half:])]) - right) <= 3e-3
    assert 0 < refused < 10


@pytest.mark.parametrize('scale', [1 / 255, 1, 257, 1e4])
def test_powers_of_large_drives_read_digits_as_those_of_small_ones_do(scale, rng):
    images, labels = data.load('digits')
    drives = images.reshape(-1, 64) * np.float32(scale) @ rng.normal(size=(50, 64)).astype('f4').T
    x = activations.repu(4.5)(jnp.asarray(drives))
    found = linear_accuracy(fit_ridge([(x[:600], labels[:600])], 10), [(x[600:], labels[600:])])
    assert abs(found - (0.687 if scale < 1 else 0.693)) <= 2e-3


@pytest.mark.parametrize('scale', [1e-30, 1e-15, 1e15, 1e30, 1e37])
def test_scales_at_the_ends_of_float32_have_an_answer(scale, rng):
    """The penalty is in squared units of the features."""
    x, labels = problem(rng)
    x = np.asarray(x - 30, np.float32)
    one, other = (fit_ridge([(s * x, labels)], 4, 0.1 * float(s) ** 2) for s in (np.float32(1), np.float32(scale)))
    np.testing.assert_allclose(other.w * scale, one.w, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(predict_linear(other, np.float32(scale) * x), predict_linear(one, x))


def test_what_is_beyond_float64_is_refused(rng):
    x = rng.choice([-1e200, 1e200], (20, 3))
    with pytest.raises(ValueError, match='squares of these features are beyond float64; divide'):
        fit_ridge([(x, np.arange(20) % 2)], 2)


@pytest.mark.parametrize(
    'features, says',
    [
        (np.ones(12), r'features of shape \(12,\) do not fit; wanted \[b, 12\]'),
        (np.ones((2, 3, 4)), r'features of shape \(2, 3, 4\)'),
        (np.ones((2, 13)), r'features of shape \(2, 13\)'),
        (np.full((2, 12), np.inf), 'NaN or infinite'),
        (np.full((2, 12), 'a'), 'features are numbers, not <U1'),
        (np.ones((2, 12), complex), 'features are numbers, not complex128'),
    ],
)
def test_features_that_a_model_does_not_know_are_refused(features, says, rng):
    model = fit_ridge([problem(rng)], 4)
    for call in (lambda: predict_linear(model, features), lambda: linear_accuracy(model, [(features, [0, 1])])):
        with pytest.raises(ValueError, match=says):
            call()


def test_what_is_no_setting_or_batch_is_refused(rng):
    x, labels = problem(rng)
    with pytest.raises(ValueError, match='stats of 4 classes take no batch of 5; say how many there are in all'):
        add_batch(add_batch(None, x, labels, 4), x, labels, 5)
    with pytest.raises(ValueError, match='labels run from 4 to 4 and there are 4 classes'):
        linear_accuracy(fit_ridge([(x, labels)], 4), [(x, np.full(len(x), 4))])
    with pytest.raises(ValueError, match=r'batches are pairs .* give a single one as \[\(features, labels\)\]'):
        fit_ridge((x, labels), 4)
    with pytest.raises(ValueError, match='on the host; call them outside of jit'):
        jax.jit(lambda x: predict_linear(fit_ridge([(x, labels)], 4), x))(x)
    with pytest.raises(ValueError, match=r'ridge regression on 10000000 features takes \d+ GiB .* pool the features'):
        fit_ridge([(np.zeros((1, 10_000_000), np.float32), [0])], 4)
