"""Chunks: every image once, in order, in as many parts as it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import chunks


@pytest.mark.parametrize('size', [1, 2, 3, 7, 100])
def test_every_image_is_seen_once_with_its_own_teacher(size):
    images, teacher = jnp.arange(7.0), {'label': jnp.arange(7.0) * 10}

    def add(total, number, some, truth):
        return total + some.sum() + 100 * jnp.asarray(number, jnp.float32), some + truth['label']

    total, sent = jax.jit(lambda i, t: chunks.fold(add, jnp.zeros(()), size, i, t))(images, teacher)
    parts = -(-7 // size)
    assert total == 21 + 100 * sum(range(parts))  # chunks are numbered in order
    np.testing.assert_array_equal(sent, images * 11)


def test_a_chunk_fits_and_divides_where_it_can():
    room = chunks.CACHE_FLOATS
    assert chunks.at_once(100, room // 6) == 5  # 6 fit, 5 divide
    assert chunks.at_once(101, room // 6) == 6  # nothing divides a prime
    assert chunks.at_once(4, room // 6) == 4
    assert chunks.at_once(100, 2 * room) == 1
    assert chunks.at_once(100, 1) == 100
