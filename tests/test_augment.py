"""Images changed at random: mirrored, shifted; on the device, by a key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import augment, models, readout
from hebbjax.readout import Head

key = lambda: jax.random.key(0)  # noqa: E731


def test_flips_mirror_about_half_of_the_images(rng):
    images = jnp.asarray(rng.normal(size=(400, 2, 3, 1)))
    flipped = jax.jit(augment.flip)(key(), images)
    same, mirrored = (np.asarray(flipped == other).all((1, 2, 3)) for other in (images, images[:, :, ::-1]))
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250
    assert (augment.flip(jax.random.key(1), images) != flipped).any()


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_shifts_move_each_image_by_its_own_pixels_and_let_zeros_in(dtype, rng):
    images = rng.integers(1, 256, (300, 4, 5, 2)).astype(dtype)
    shifted = np.asarray(jax.jit(augment.shift(2))(key(), jnp.asarray(images)))
    assert shifted.dtype == dtype
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for image, wide in zip(shifted, padded):
        found = [(i, j) for i in range(5) for j in range(5) if np.array_equal(wide[i : i + 4, j : j + 5], image)]
        assert len(found) == 1, 'an image is one of its 25 shifts'
        seen.update(found)
    assert len(seen) == 25
    assert (np.asarray(augment.shift(2)(jax.random.key(1), jnp.asarray(images))) != shifted).any()


def test_no_shift_leaves_images_and_a_negative_one_is_refused(rng):
    images = jnp.asarray(rng.normal(size=(3, 4, 4, 1)))
    np.testing.assert_array_equal(augment.shift(0)(key(), images), images)
    with pytest.raises(ValueError, match='images cannot be shifted by at most -1 pixels; use a whole number'):
        augment.shift(-1)


def test_an_augmented_model_trains_on_changed_images_and_answers_to_them_as_they_are(rng):
    images = jnp.asarray(rng.uniform(size=(6, 4, 4, 1)), jnp.float32)
    plain = models.on_pixels(Head(3, norm=False, power=None), (4, 4, 1))
    model = models.augmented(plain, augment.shift(1))
    assert models.augmented(plain, augment.shift(1)) is model, 'the same question gets the same model'
    params, norm = model.init(key())
    np.testing.assert_array_equal(model.apply(params, norm, images)[0], plain.apply(params, norm, images)[0])
    trained, _ = model.apply(params, norm, images, key())
    moved = augment.shift(1)(jax.random.split(key())[1], images)
    expected, _ = readout.apply(Head(3, norm=False, power=None), params, norm, models.flat(moved))
    np.testing.assert_allclose(trained, expected, rtol=1e-5)
    assert np.abs(np.asarray(trained) - np.asarray(plain.apply(params, norm, images)[0])).max() > 1e-3
