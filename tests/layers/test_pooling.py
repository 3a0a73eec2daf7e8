"""Pooling: blocks, their rest, quadrants."""

import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import readout
from hebbjax.layers import pooling


@pytest.mark.parametrize('pool, of', [(pooling.max_pool, np.max), (pooling.avg_pool, np.mean)])
def test_pooling_takes_one_number_of_each_whole_block(pool, of, rng):
    maps = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    pooled = np.asarray(pool(2)(jnp.asarray(maps)))
    assert pooled.shape == (2, 2, 3, 3)  # the fifth row and the seventh column fill no block
    for i in range(2):
        for j in range(3):
            block = maps[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            np.testing.assert_allclose(pooled[:, i, j], of(block, axis=(1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pool(1)(jnp.asarray(maps)), maps)


@pytest.mark.parametrize('pool, of, around', [(pooling.max_pool, np.max, -np.inf), (pooling.avg_pool, np.mean, 0.0)])
@pytest.mark.parametrize('size, stride, padding', [(4, 2, 1), (3, 1, 0), (2, 3, 1)])
def test_blocks_overlap_and_reach_over_the_edge(pool, of, around, size, stride, padding, rng):
    maps = rng.normal(size=(2, 5, 7, 3)).astype(np.float32) - 3  # all below the zeros around means
    pooled = np.asarray(pool(size, stride, padding)(jnp.asarray(maps)))
    padded = np.full((2, 5 + 2 * padding, 7 + 2 * padding, 3), around, np.float32)
    padded[:, padding : padding + 5, padding : padding + 7] = maps
    assert pooled.shape[1:3] == tuple((side + 2 * padding - size) // stride + 1 for side in (5, 7))
    for i in range(pooled.shape[1]):
        for j in range(pooled.shape[2]):
            block = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
            np.testing.assert_allclose(pooled[:, i, j], of(block, axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_blocks_side_by_side_and_as_any_others_are_the_same(rng):
    maps = jnp.asarray(rng.normal(size=(1, 4, 6, 2)), jnp.float32)
    for pool, around in ((pooling.max_pool, -np.inf), (pooling.avg_pool, 0.0)):
        padded = jnp.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=around)
        np.testing.assert_allclose(pool(2, 2, 1)(maps), pool(2)(padded), rtol=1e-6)
    assert pooling.max_pool(2) == pooling.max_pool(2, 2) and not pooling.max_pool(2, 1).tiles


def test_a_kind_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match=r"kind='mean' is unknown; there are max, avg\."):
        pooling.Pool(2, 'mean')


def test_padding_of_more_than_half_a_block_is_refused():
    with pytest.raises(ValueError, match='padding=2 is out of range; use a whole number from 0 to 1'):
        pooling.max_pool(3, 1, 2)


@pytest.mark.parametrize('pool', [pooling.max_pool, pooling.avg_pool])
def test_blocks_that_do_not_fit_are_refused(pool):
    name = pool.__name__
    with pytest.raises(ValueError, match=rf'{name}\(6\) does not fit maps of 5 x 7; use a smaller one'):
        pool(6)(jnp.zeros((2, 5, 7, 3)))


@pytest.mark.parametrize('stride', [1, 2, 3])
def test_a_gaussian_is_laid_around_every_few_positions(stride, rng):
    maps = rng.normal(size=(2, 7, 10, 3)).astype(np.float32)
    pooled = np.asarray(pooling.gauss_pool(stride)(jnp.asarray(maps)))
    assert pooled.shape == (2, 6 // stride + 1, 9 // stride + 1, 3)
    near = range(-stride, stride + 1)
    weigh = lambda *steps: np.exp(-sum(step**2 for step in steps) / (2 * (stride / 2**0.5) ** 2))  # noqa: E731
    whole = sum(weigh(di, dj) for di in near for dj in near)
    for i, j in np.ndindex(pooled.shape[1:3]):
        mean = 0
        for di in near:
            for dj in near:
                if 0 <= (y := i * stride + di) < 7 and 0 <= (x := j * stride + dj) < 10:
                    mean += weigh(di, dj) / whole * maps[:, y, x]
        np.testing.assert_allclose(pooled[:, i, j], mean, atol=1e-5)
    with pytest.raises(
        ValueError, match=r'gauss_pool\(4\) looks at 9 x 9 positions, and maps are 7 x 10; use a smaller'
    ):
        pooling.gauss_pool(4)(jnp.asarray(maps))


def test_quadrants_average_each_corner():
    maps = jnp.arange(5 * 4, dtype=jnp.float32).reshape(1, 5, 4, 1) * jnp.array([[[[1.0, -10.0]]]])
    found = readout.quadrants(maps)
    whole = np.asarray(maps[0])
    corners = [whole[:2, :2], whole[:2, 2:], whole[2:, :2], whole[2:, 2:]]
    np.testing.assert_allclose(found, np.concatenate([corner.mean((0, 1)) for corner in corners])[None])
    np.testing.assert_array_equal(readout.quadrants(maps[:, :2, :2]), maps[:, :2, :2].reshape(1, -1))
    with pytest.raises(ValueError, match='maps of 1 x 4 have no quadrants'):
        readout.quadrants(maps[:, :1])
