"""Windows hold what an explicit loop cuts out; transforms do what their equations say, at the edges too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from hebbjax.layers import patches
from hebbjax.layers.patches import Window

WINDOWS = [
    ((5, 6), 3, (2, 3), (1, 1), (0, 0)),
    ((5, 6), 3, (3, 2), (2, 1), (1, 2)),
    ((6, 5), 2, (1, 1), (1, 1), (0, 0)),
    ((7, 7), 3, (3, 3), (2, 2), (1, 1)),
    ((4, 4), 3, (4, 4), (1, 1), (0, 0)),
    ((4, 4), 3, (4, 4), (1, 1), (1, 1)),
    ((4, 5), 2, (3, 3), (5, 5), (0, 0)),
    ((3, 3), 2, (5, 4), (1, 2), (1, 2)),
]


def numbered(shape):
    """Pixels that are all different, so that a pixel in the wrong place shows."""
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


@pytest.mark.parametrize('image, channels, size, stride, padding', WINDOWS)
def test_patches_equal_the_loop_and_a_convolution_is_patches_times_weights(rng, image, channels, size, stride, padding):
    """`w[i].reshape(kh, kw, C)` is a receptive field: the same numbers are a kernel HWIO."""
    images, window = numbered((2, *image, channels)), Window(size, stride, padding)
    w = rng.normal(size=(4, size[0] * size[1] * channels)).astype(np.float32)

    @jax.jit
    def both(images):
        kernel, pad = w.reshape(4, *size, channels).transpose(1, 2, 3, 0), [(p, p) for p in padding]
        convolved = lax.conv_general_dilated(
            images, kernel, stride, pad, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision=lax.Precision.HIGHEST
        )
        return patches.extract_patches(window, images), convolved

    x, convolved = both(images)
    np.testing.assert_array_equal(x, reference.patches(images, size, stride, padding))
    np.testing.assert_allclose(x @ w.T, convolved, rtol=1e-4, atol=1e-3)
    g = patches.lay_grid(window, images.shape[1:])
    assert x.shape == (2, *g.out, g.inputs)


def test_mirrored_edges_are_those_of_a_mirrored_image(rng):
    """In whole images, in bands and in windows that are drawn; more than an image has inside is refused."""
    images = jnp.asarray(rng.normal(size=(2, 6, 5, 3)), jnp.float32)
    mirrored = jnp.pad(images, ((0, 0), (2, 2), (1, 1), (0, 0)), mode='reflect')
    window, plain = Window((3, 2), (1, 2), (2, 1), 'reflect'), Window((3, 2), (1, 2))
    wanted = patches.extract_patches(plain, mirrored)
    np.testing.assert_array_equal(patches.extract_patches(window, images), wanted)
    banded, bands = patches.cut_bands(window, images, 4)
    found = [patches.extract_patches(banded, band) for band in bands]
    np.testing.assert_array_equal(jnp.concatenate(found, axis=1), wanted)
    drawn = patches.sample_patches(jax.random.key(0), window, images, 7)
    np.testing.assert_array_equal(drawn, patches.sample_patches(jax.random.key(0), plain, mirrored, 7))
    with pytest.raises(ValueError, match='more than images of 6 x 5 have inside; use a smaller padding'):
        patches.extract_patches(Window(3, 1, 5, 'reflect'), images)
    with pytest.raises(ValueError, match="edges='mirror' is unknown; there are zeros, reflect"):
        patches.extract_patches(Window(3, 1, 1, 'mirror'), images)


def test_whole_numbers_stand_for_squares_and_none_for_the_whole_image():
    images = jnp.asarray(numbered((2, 5, 6, 3)))
    np.testing.assert_array_equal(
        patches.extract_patches(Window(3, 2, 1), images),
        patches.extract_patches(Window((3, 3), (2, 2), (1, 1)), images),
    )
    whole = patches.extract_patches(Window(), images)
    assert whole.shape == (2, 1, 1, 90)
    np.testing.assert_array_equal(whole.reshape(2, -1), images.reshape(2, -1))


def test_patches_keep_the_dtype():
    for dtype in (jnp.uint8, jnp.float32, jnp.bfloat16):
        images = jax.ShapeDtypeStruct((1, 3, 3, 2), dtype)
        assert jax.eval_shape(lambda x: patches.extract_patches(Window(2, 1, 1), x), images).dtype == dtype


def test_samples_are_true_windows_of_the_right_image():
    images = numbered((3, 6, 5, 2))
    size, stride, padding = (3, 2), (2, 3), (1, 1)
    found = np.asarray(
        patches.sample_patches(jax.random.key(0), Window(size, stride, padding), jnp.asarray(images), 40)
    )
    assert found.shape == (120, 12)
    there = reference.patches(images, size, stride, padding).reshape(3, -1, 12)
    for image in range(3):
        own = {tuple(row) for row in there[image]}
        drawn = {tuple(row) for row in found[40 * image : 40 * (image + 1)]}
        assert drawn <= own
        assert len(drawn) > len(own) / 2  # 40 draws from 6 places see most of them


def test_samples_are_drawn_uniformly_and_apart_for_each_image():
    images = jnp.tile(jnp.asarray(numbered((1, 4, 4, 1))), (500, 1, 1, 1))
    found = np.asarray(patches.sample_patches(jax.random.key(1), Window(3), images, 4))
    counts = np.unique(found[:, 0], return_counts=True)[1]
    assert len(counts) == 4
    assert abs(counts / 2000 - 0.25).max() < 0.05
    by_image = found[:, 0].reshape(500, 4)
    assert len(np.unique(by_image, axis=0)) > 100
    assert not np.array_equal(found, patches.sample_patches(jax.random.key(2), Window(3), images, 4))


@pytest.mark.parametrize(
    'window, match',
    [
        (Window(5), r'window \(5, 5\) with padding \(0, 0\) does not fit images of 4 x 4'),
        (Window((3, 7), 1, 1), r'window \(3, 7\) with padding \(1, 1\) does not fit'),
        (Window(0), 'sizes and strides from 1'),
        (Window(2, 0), 'sizes and strides from 1'),
        (Window(2, 1, -1), 'a padding from 0'),
    ],
)
def test_a_window_that_does_not_fit_is_refused(window, match):
    with pytest.raises(ValueError, match=match):
        patches.extract_patches(window, jnp.zeros((1, 4, 4, 1)))
    with pytest.raises(ValueError, match=match):
        patches.sample_patches(jax.random.key(0), window, jnp.zeros((1, 4, 4, 1)), 2)


@jax.jit
def transformed(x):
    """What every transform makes of rows, and the slope of its sum: one program for all tests of a shape."""
    slope = lambda f: jax.grad(lambda x: f(x).sum())  # noqa: E731
    return {name: (f(x), slope(f)(x)) for name, f in patches.PATCH_TRANSFORMS.items()}


def test_transforms_equal_their_equations(rng):
    x = rng.uniform(size=(7, 12)).astype(np.float32)
    middle = x - x.mean(1, keepdims=True)
    expected = {
        'raw': x,
        'centred': middle,
        'l2': x / np.linalg.norm(x, axis=1, keepdims=True),
        'centred_l2': middle / np.linalg.norm(middle, axis=1, keepdims=True),
        'contrast': middle / np.sqrt((middle**2).sum(1, keepdims=True) + 0.01),
    }
    assert expected.keys() == patches.PATCH_TRANSFORMS.keys()
    stacked = transformed(x.reshape(1, 7, 1, 12))  # rows stand last, whatever stands before them
    for name, (rows, _) in transformed(x).items():
        np.testing.assert_allclose(rows, expected[name], atol=1e-6)
        np.testing.assert_allclose(stacked[name][0].reshape(7, 12), expected[name], atol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_an_all_zero_patch_stays_all_zero_with_a_finite_slope(dtype):
    for rows, slope in transformed(jnp.zeros((7, 12), dtype)).values():
        assert rows.dtype == dtype
        assert not np.any(rows)
        assert np.isfinite(slope.astype(float)).all()


def test_no_transform_hides_what_is_no_number():
    x = np.ones((7, 12), np.float32)
    x[[2, 3, 4], 5] = np.nan, np.inf, -np.inf
    for rows, _ in transformed(x).values():
        np.testing.assert_array_equal(np.isfinite(rows).all(1), [True, True, False, False, False, True, True])


@pytest.mark.parametrize('inputs', [9, 25, 75])
def test_a_constant_patch_has_no_shape(inputs):
    """What rounding leaves behind the mean must not be blown up to length 1."""
    flat = np.repeat(np.array([0.1, 1 / 3, 0.7, 1.0], np.float32)[:, None], inputs, axis=1)
    rows = {name: np.asarray(of_name[0]) for name, of_name in transformed(flat).items()}
    assert not rows['centred_l2'].any()
    assert max(abs(rows['centred']).max(), abs(rows['contrast']).max()) < 1e-4
    np.testing.assert_allclose(np.linalg.norm(rows['l2'], axis=1), 1, rtol=1e-5)


def test_a_patch_of_one_grey_step_has_a_shape():
    x = jnp.full((1, 25), 0.5).at[0, 3].add(1 / 255)
    np.testing.assert_allclose(jnp.linalg.norm(patches.centred_l2(x)), 1, rtol=1e-3)


@settings(max_examples=6)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    more=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    channels=st.integers(1, 3),
)
def test_any_window_cuts_what_loops_cut(size, stride, padding, more, channels):
    h, w = (max(1, k - 2 * pad) + extra for k, pad, extra in zip(size, padding, more))
    images = np.random.default_rng(0).normal(size=(2, h, w, channels)).astype(np.float32)
    x = jax.jit(lambda x: patches.extract_patches(Window(size, stride, padding), x))(images)
    np.testing.assert_array_equal(x, reference.patches(images, size, stride, padding))


def test_a_window_of_a_thousand_pixels_is_cut_by_as_many_slices_as_it_has_rows_and_columns():
    """Slices of one pixel each would take XLA minutes: 107 s for these."""
    program = jax.make_jaxpr(lambda x: patches.extract_patches(Window(31), x))(jnp.ones((2, 40, 40, 1)))
    counted = str(program).count('slice[')
    assert 31 < counted <= 62
