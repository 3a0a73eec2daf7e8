"""Receptive fields of higher layers: what a linear network answers to, exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbjax
from hebbjax import Window, activations, layers, patches, receptive, rules, train
from hebbjax.plasticity import ascend


def linear(features, window, pool=None):
    """A layer that sends its drives as they are."""
    return hebbjax.Layer(
        features, rules.instar(), ascend(0.1), window, patch=patches.raw, fire=activations.identity, pool=pool
    )


NET = (
    linear(4, Window(3, 2), hebbjax.avg_pool(2)),
    linear(5, Window((2, 3))),
    linear(3, Window(2, padding=1), hebbjax.avg_pool(2)),
)
SHAPE = (23, 25, 2)


def weights_of(net, shape):
    """First weights of a network."""
    return [state.w for state in train.init(net, jax.random.key(0), shape).layers]


@pytest.mark.parametrize('depth', [1, 2])
def test_a_field_is_the_slope_of_a_linear_networks_drive(depth, rng):
    net, w = NET[:depth], weights_of(NET, SHAPE)
    fields = receptive.fields(net, w, SHAPE)
    net = (*net[:-1], dataclasses.replace(net[-1], pool=None))

    def drive(image):
        x = image[None]
        for layer, one in zip(net, w):
            x = layers.respond(layer, layers.LayerState(one, (), ()), x)
        return x[0, 0, 0]  # the first position

    slope = jax.jacobian(drive)(jnp.zeros(SHAPE))  # [N, H, W, C]
    rows, columns = fields.shape[1:3]
    np.testing.assert_allclose(slope[:, :rows, :columns], fields, atol=1e-5)
    np.testing.assert_array_equal(slope.at[:, :rows, :columns].set(0), 0)
    assert np.abs(np.asarray(fields[:, -1])).max() > 0 and np.abs(np.asarray(fields[:, :, -1])).max() > 0


def test_miconis_fields_are_5_10_and_20_pixels_wide():
    net = tuple(linear(n, Window(k), hebbjax.avg_pool(2)) for n, k in ((4, 5), (5, 3), (6, 3)))
    w = weights_of(net, (32, 32, 3))
    for depth, side in ((1, 5), (2, 10), (3, 20)):
        assert receptive.fields(net[:depth], w, (32, 32, 3)).shape == (3 + depth, side, side, 3)
    np.testing.assert_allclose(receptive.fields(net[:1], w, (32, 32, 3)), w[0].reshape(4, 5, 5, 3), rtol=1e-6)


def test_a_single_connection_shows_the_field_below_at_its_place():
    net = (linear(2, Window(2)), linear(1, Window(2)))
    below = jnp.arange(8.0).reshape(2, 4)
    w = jnp.zeros((1, 8)).at[0, 2 * 2 + 1].set(3.0)  # row 1, column 0, channel 1
    (field,) = receptive.fields(net, [below, w], (5, 5, 1))
    np.testing.assert_array_equal(field[..., 0], [[0, 0, 0], [12, 15, 0], [18, 21, 0]])


def test_what_it_cannot_see_through_is_refused():
    w = weights_of(NET, SHAPE)
    with pytest.raises(ValueError, match='2 weights for 3 layers'):
        receptive.fields(NET, w[:2], SHAPE)
    strange = (dataclasses.replace(NET[0], pool=lambda x: x), NET[1])
    with pytest.raises(ValueError, match='layer 1 pools in an unknown way'):
        receptive.fields(strange, w, SHAPE)
