"""Images changed at random: mirrored, shifted; on the device, by a key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import layers, readout
from hebbjax.data import random_flip, random_shift
from hebbjax.readout.hybrid import NetworkModel

key = lambda: jax.random.key(0)  # noqa: E731


def test_flips_mirror_about_half_of_the_images(rng):
    images, flip = rng.normal(size=(400, 2, 3, 1)).astype(np.float32), jax.jit(random_flip)
    flipped = np.asarray(flip(key(), images))
    same, mirrored = ((flipped == other).all((1, 2, 3)) for other in (images, images[:, :, ::-1]))
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250
    assert (np.asarray(flip(jax.random.key(1), images)) != flipped).any()


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_shifts_move_each_image_by_its_own_pixels_and_let_zeros_in(dtype, rng):
    images = rng.integers(1, 256, (300, 4, 5, 2)).astype(dtype)
    shift = jax.jit(random_shift(2))
    shifted = np.asarray(shift(key(), images))
    assert shifted.dtype == dtype
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for image, wide in zip(shifted, padded):
        places = [(i, j) for i in range(5) for j in range(5) if np.array_equal(wide[i : i + 4, j : j + 5], image)]
        assert len(places) == 1, 'an image is one of its 25 shifts'
        seen.update(places)
    assert len(seen) == 25
    assert (np.asarray(shift(jax.random.key(1), images)) != shifted).any()


def test_no_shift_leaves_images_and_a_negative_one_is_refused(rng):
    images = jnp.asarray(rng.normal(size=(3, 4, 4, 1)))
    np.testing.assert_array_equal(jax.jit(random_shift(0))(key(), images), images)
    with pytest.raises(ValueError, match='most=-1 is out of range; use a whole number from 0 on'):
        random_shift(-1)


def test_an_augmented_model_trains_on_changed_images_and_answers_to_them_as_they_are(rng):
    images = jnp.asarray(rng.uniform(size=(6, 4, 4, 1)), jnp.float32)
    head = readout.linear_head(3, norm=False, power=None)
    plain, model = (NetworkModel((head,), 0, 0, augment) for augment in (None, random_shift(1)))
    assert model == NetworkModel((head,), 0, 0, random_shift(1)) != plain
    params, stats = model.init((layers.init_layer(head, key(), (4, 4, 1)),))
    apply = jax.jit(lambda images, key=None: model.apply(params, stats, images, key)[0])
    plainly = jax.jit(lambda images: plain.apply(params, stats, images)[0])
    np.testing.assert_array_equal(apply(images), plainly(images))
    trained, moved = apply(images, key()), jax.jit(random_shift(1))(jax.random.split(key())[1], images)
    np.testing.assert_allclose(trained, plainly(moved), rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(trained) - np.asarray(plainly(images))).max() > 1e-3
