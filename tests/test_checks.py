"""The door: every kind of thing that comes in from outside is understood, or met with one sentence."""

import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import checks


def sentence(error):
    """The message, which is one sentence."""
    said = str(error.value)
    assert said.endswith('.') and '\n' not in said and len(said) < 400, said
    return said


@pytest.mark.parametrize('dtype', [jnp.uint8, jnp.uint16, jnp.bool_, jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize('xp', [np, jnp])
def test_images_of_a_known_range_pass_as_they_are(xp, dtype):
    images = xp.ones((2, 3, 3, 1), dtype)
    assert checks.check_images(images) is images
