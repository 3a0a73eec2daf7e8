"""Data that the tests of readout share."""

import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope='session')
def bars():
    """Three classes: a bright row near the top, a bright column near the left, or both; and noise. 60 of 6 x 6."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.uniform(0, 0.5, (60, 6, 6, 1))
    images[labels != 1, 1] += 0.5
    images[labels != 0, :, 1] += 0.5
    return jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32)
