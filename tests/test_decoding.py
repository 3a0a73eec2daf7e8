"""Ridge regression in closed form: against scikit-learn, streamed or whole, and refusals."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from hebbjax import data, decoding


def problem(rng, count=500, inputs=12, classes=4):
    """Features far from zero, of very different sizes, and labels that depend on them."""
    x = rng.normal(size=(count, inputs)) * np.logspace(-2, 1, inputs)
    labels = (x @ rng.normal(size=(inputs, classes)) + rng.normal(size=(count, classes))).argmax(1)
    return jnp.asarray(x + 30, jnp.float32), jnp.asarray(labels, jnp.int32)


def parts(x, labels, size):
    """Batches, the last one smaller."""
    return [(x[i : i + size], labels[i : i + size]) for i in range(0, len(x), size)]


@pytest.mark.parametrize('penalty', [1e-3, 1.0, 300.0])
def test_it_is_scikit_learns_ridge(penalty, rng):
    x, labels = problem(rng)
    found = decoding.ridge([(x, labels)], 4, penalty)
    targets = np.eye(4)[np.asarray(labels)]
    judge = Ridge(alpha=penalty).fit(np.asarray(x, np.float64), targets)
    scale = np.abs(judge.coef_).max()
    np.testing.assert_allclose(found.w, judge.coef_.T, atol=1e-4 * scale, rtol=1e-3)
    np.testing.assert_allclose(x @ found.w + found.b[None], judge.predict(np.asarray(x, np.float64)), atol=2e-3)


@pytest.mark.parametrize('size', [1, 7, 499])
def test_batches_add_up(size, rng):
    x, labels = problem(rng)
    whole, streamed = (decoding.ridge(parts(x, labels, n), 4) for n in (500, size))
    np.testing.assert_allclose(streamed.w, whole.w, atol=1e-4)
    np.testing.assert_array_equal(decoding.predict(streamed, x), decoding.predict(whole, x))


def test_a_common_level_costs_no_digits(rng):
    """Features of 10,000 +- 1 in float32: the first batch's mean is subtracted before anything is multiplied."""
    x, labels = problem(rng)
    raised = jnp.round(x * 2**6) / 2**6 + 10_000
    same = decoding.ridge([(raised - 10_000, labels)], 4)
    np.testing.assert_allclose(decoding.ridge([(raised, labels)], 4).w, same.w, rtol=1e-3, atol=1e-5)


def test_it_reads_digits():
    images, labels = data.load('digits', 'train')
    x, labels = jnp.asarray(images.reshape(len(images), -1) / 255, jnp.float32), jnp.asarray(labels)
    found = decoding.ridge(parts(x[:1000], labels[:1000], 300), 10)
    reached = decoding.accuracy(found, parts(x[1000:], labels[1000:], 64))
    assert 0.85 < reached < 1
    assert reached == np.mean(np.asarray(decoding.predict(found, x[1000:]) == labels[1000:]))


def test_the_number_of_classes_is_kept_where_one_never_occurs(rng):
    x, labels = problem(rng, classes=3)
    assert decoding.ridge([(x, labels)], 5).w.shape == (12, 5)


def test_what_cannot_be_fitted_is_refused(rng):
    x, labels = problem(rng)
    with pytest.raises(ValueError, match='at least one batch'):
        decoding.ridge([], 4)
    with pytest.raises(ValueError, match='at least one batch'):
        decoding.accuracy(decoding.ridge([(x, labels)], 4), [])
    with pytest.raises(ValueError, match=r'labels of 0 \.\. 3 do not fit 3 classes; wanted 0 \.\. 2'):
        decoding.ridge([(x, labels)], 3)
    with pytest.raises(ValueError, match=r'features \(500, 12\) and labels \(499,\) do not fit'):
        decoding.ridge([(x, labels[1:])], 4)
    with pytest.raises(ValueError, match='NaN or infinite'):
        decoding.ridge([(x.at[3, 2].set(jnp.nan), labels)], 4)
    with pytest.raises(ValueError, match='penalty of -1 would reward large weights'):
        decoding.ridge([(x, labels)], 4, -1)
    for more in (jnp.zeros_like(x), x, 10 - x.sum(1, keepdims=True)):
        with pytest.raises(ValueError, match='at penalty 0 the features depend on each other'):
            decoding.ridge([(jnp.concatenate([x, more], 1), labels)], 4, 0)
    with pytest.raises(ValueError, match=r'features \(500, 11\) .* wanted \[b, 12\]'):
        decoding.ridge([(x, labels), (x[:, 1:], labels)], 4)
    with pytest.raises(ValueError, match=r'features \(0, 12\) .* b >= 1'):
        decoding.ridge([(x[:0], labels[:0])], 4)


def test_half_precision_is_added_up_in_full(rng):
    x, labels = problem(rng, count=3000)
    found = decoding.add(None, (x - 30).astype(jnp.bfloat16), labels, 4)
    np.testing.assert_array_equal(found.y, np.bincount(labels, minlength=4))
    exact = np.asarray((x - 30).astype(jnp.bfloat16), np.float64) - found.origin
    np.testing.assert_allclose(found.xx, exact.T @ exact, rtol=1e-3, atol=1e-3 * np.abs(found.xx).max())
