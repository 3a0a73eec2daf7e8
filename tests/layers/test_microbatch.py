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


def test_a_microbatch_fits_and_divides_where_it_can():
    room = microbatch.CACHE_FLOATS
    assert microbatch.microbatch_size(100, room // 6) == 5  # 6 fit, 5 divide
    assert microbatch.microbatch_size(101, room // 6) == 6  # nothing divides a prime
    assert microbatch.microbatch_size(4, room // 6) == 4
    assert microbatch.microbatch_size(100, 2 * room) == 1
    assert microbatch.microbatch_size(100, 1) == 100


def test_a_device_holds_something():
    assert microbatch.device_memory() > 2**20
