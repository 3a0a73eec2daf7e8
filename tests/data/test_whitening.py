"""Whitening: what it is for, the published settings, and refusals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax.data import WHITENING_SETTINGS, fit_whitening, whiten


def correlated(rng, count=4000, shape=(3, 2, 2)):
    """Images whose values depend on each other, and have means of their own."""
    inputs = int(np.prod(shape))
    mixing = rng.normal(size=(inputs, inputs))
    images = rng.normal(size=(count, inputs)) @ mixing + rng.normal(size=inputs)
    return images.reshape(count, *shape).astype(np.float32)


def test_whitened_images_have_unit_covariance(rng):
    images = correlated(rng)
    zca = fit_whitening(images, epsilon=1e-8)
    x = np.asarray(jax.jit(partial(whiten, zca))(images), np.float64).reshape(len(images), -1)
    np.testing.assert_allclose(np.cov(x.T, bias=True), np.eye(12), atol=2e-3)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(zca.matrix, zca.matrix.T, atol=1e-6)  # zero-phase: whitened images look like images


def test_patches_are_whitened_as_rows(rng):
    x = correlated(rng, 4000, (18,)).reshape(40, 10, 10, 18)  # as maps of patches
    rows = x.reshape(-1, 18)
    zca = fit_whitening(rows, epsilon=1e-6)
    white = whiten(zca, jnp.asarray(x))
    assert white.shape == x.shape
    np.testing.assert_allclose(np.cov(np.asarray(white).reshape(-1, 18).T), np.eye(18), atol=5e-3)
    np.testing.assert_allclose(white[0, 0, 0], whiten(zca, rows[:1])[0], atol=1e-4)


def test_the_published_settings_are_what_they_say(rng):
    images = correlated(rng, 50)
    x = np.asarray(images, np.float64).reshape(50, -1)
    x = x.astype(np.float32).astype(np.float64)

    def by_hand(second, epsilon):
        values, vectors = np.linalg.eigh(second)
        return vectors @ np.diag(1 / np.sqrt(values + epsilon)) @ vectors.T

    centred = x - x.mean(0)
    expected = {
        'miconi_paper': (by_hand(centred.T @ centred / 50, 1e-3), x.mean(0)),
        'miconi_notebook': (by_hand(x.T @ x / 12, 1e-3), np.zeros(12)),
        'amato': (by_hand(centred.T @ centred / 50, 0.1), np.zeros(12)),
    }
    assert set(expected) == set(WHITENING_SETTINGS)
    for name, (matrix, mean) in expected.items():
        zca = fit_whitening(images, **WHITENING_SETTINGS[name])
        np.testing.assert_allclose(zca.matrix, matrix, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(zca.mean.ravel(), mean, rtol=1e-5, atol=1e-6)


def test_any_scale_is_whitened_where_epsilon_follows(rng):
    """Epsilon is in squared units of the values; so is what is divided by."""
    x = correlated(rng, 200).reshape(200, 12)
    zca = fit_whitening(x, epsilon=0.01)
    for scale in (1e-18, 1e-3, 1e4, 1e18, 1e28):
        scaled = np.float32(scale) * x
        other = fit_whitening(scaled, epsilon=0.01 * float(np.float32(scale)) ** 2)
        np.testing.assert_allclose(np.float64(other.matrix) * scale, zca.matrix, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(whiten(other, jnp.asarray(scaled)), whiten(zca, jnp.asarray(x)), atol=1e-3)


@pytest.mark.parametrize('level', [0.1, 1e20])
def test_what_never_varies_is_left_alone_at_any_level(level, rng):
    x = np.concatenate([rng.normal(size=(101, 3)), np.full((101, 1), level)], 1).astype(np.float32)
    zca, bare = fit_whitening(x, epsilon=0.01), fit_whitening(x[:, :3], epsilon=0.01)
    np.testing.assert_allclose(zca.matrix[:3, :3], bare.matrix, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(zca.matrix[3], [0, 0, 0, 10], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(whiten(zca, jnp.asarray(x))[:, 3], 0)


def test_integers_have_another_range_than_layers_whiten(rng):
    for shape in ((20, 3, 2, 1), (20, 6)):
        zca = fit_whitening(rng.normal(size=shape))
        for dtype in (np.uint8, np.int64, bool):
            x = rng.integers(0, 2, shape).astype(dtype)
            for call in (fit_whitening, partial(whiten, zca)):
                with pytest.raises(ValueError, match=f'takes intensities as floats, not {np.dtype(dtype)}; divide'):
                    call(x)


@pytest.mark.parametrize(
    'scale, says', [(1e-20, 'leave values'), (1e-6, 'leave values'), (1e8, 'blow up the rounding of')]
)
def test_an_epsilon_of_another_scale_is_refused(scale, says, rng):
    """Twelve values that eleven sums make: their last eigenvalue is rounding."""
    x = rng.normal(size=(50, 11)) @ rng.normal(size=(11, 12))
    with pytest.raises(ValueError, match=rf'epsilon=0.001 would {says} .* standardise them first') as error:
        fit_whitening((scale * x).astype(np.float32))
    enough = float(str(error.value).split()[-1].rstrip('.'))
    assert np.isfinite(fit_whitening((scale * x).astype(np.float32), epsilon=enough).matrix).all()


def test_directions_without_variance_do_no_harm(rng):
    """Standardised images have none along their mean, and 5 images span 4 dimensions of 12."""
    x = correlated(rng, 5)
    zca = fit_whitening(x - x.mean((1, 2, 3), keepdims=True), epsilon=1e-3)
    assert np.isfinite(zca.matrix).all()
    assert np.linalg.norm(zca.matrix, 2) < 1.001 / np.sqrt(1e-3)


def test_it_is_a_pytree_and_fits_in_parts(rng):
    images = correlated(rng, 100)
    zca = fit_whitening(images)
    assert [leaf.shape for leaf in jax.tree.leaves(zca)] == [(3, 2, 2), (12, 12)]
    for centre in (True, False):
        whole, streamed = (fit_whitening(x, centre=centre) for x in (images, np.split(images, (7, 50))))
        for a, b in zip(whole, streamed):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_other_dimensions_are_refused(rng):
    zca = fit_whitening(correlated(rng, 20))
    for shape in ((4, 3, 3, 2), (4, 2, 2, 3), (4, 12), (4, 5, 5, 12)):  # as many numbers are not the same dimensions
        with pytest.raises(ValueError, match=r'fitted to inputs of shape \(3, 2, 2\) does not fit shape \(4, '):
            whiten(zca, jnp.zeros(shape))
    rows = fit_whitening(rng.normal(size=(20, 12)))
    with pytest.raises(ValueError, match=r'fitted to inputs of shape \(12,\) does not fit shape \(4, 11\)'):
        jax.jit(partial(whiten, rows))(jnp.zeros((4, 11)))


@pytest.mark.parametrize(
    'x, settings, match',
    [
        (np.zeros((4, 3)), {'epsilon': 0}, 'epsilon=0 is out of range; use a finite number > 0'),
        (np.zeros((4, 3)), {'per': 'pixel'}, "per='pixel' is unknown; there are sample, input"),
        (np.zeros((1, 224, 224, 3)), {}, r'inputs of 150528 values takes \d+ GiB .* whiten patches instead of images'),
        (np.array([[1e34, 1], [0, 1]]), {}, 'blow up the rounding of values .* standardise them first'),
        ([], {}, 'one image or row at least, and there are none'),
        (None, {}, 'whitening takes images, not None'),
        ([np.ones((3, 4)), np.ones((3, 5))], {}, r'blocks of \(4,\) and of \(5,\) are not of one kind'),
        ([[1.0, 2.0], [3.0, 4.0]], {}, 'intensities as floats, not list'),
        (np.zeros((0, 3)), {}, r'not to shape \(0, 3\)'),
        (np.zeros((4, 3, 3)), {}, r'images \[n, H, W, C\] or rows \[n, D\], not to shape \(4, 3, 3\)'),
        (np.full((5, 2, 2, 1), 0.25), {}, 'values that never vary; check the images'),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), {}, 'NaN or infinite values; check the images'),
    ],
)
def test_what_cannot_be_fitted_is_refused(x, settings, match):
    with pytest.raises(ValueError, match=match):
        fit_whitening(x, **settings)
