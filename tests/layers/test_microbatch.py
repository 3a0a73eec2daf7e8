"""Microbatches: every image once, in order, in as many parts as it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax.layers import microbatch


@pytest.mark.parametrize('size', [1, 3, 7])
def test_every_image_is_seen_once_with_its_own_teacher(size):
    images, teacher = np.arange(7, dtype=np.float32), {'label': np.arange(7, dtype=np.float32) * 10}

    def add(total, number, images, teacher):
        return total + images.sum() + 100 * jnp.asarray(number, jnp.float32), images + teacher['label']

    scan = jax.jit(lambda i, t: microbatch.scan_microbatches(add, jnp.zeros(()), size, i, t))
    total, sent = scan(images, teacher)
    parts = -(-7 // size)
    assert total == 21 + 100 * sum(range(parts))  # microbatches are numbered in order
    np.testing.assert_array_equal(sent, images * 11)
