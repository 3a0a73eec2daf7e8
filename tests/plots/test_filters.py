"""Pictures hold what they should, at a common zero; receptive fields are what a linear network answers to, exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import Layer, Window, init, layers, rules
from hebbjax.layers import avg_pool, identity, patches
from hebbjax.plots import filters
from hebbjax.plots.filters import receptive_fields
from hebbjax.readout import quadrants
from hebbjax.transforms import scale_by_rate


def sheet_of(figure):
    """The grid that a figure shows."""
    return np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)


def png_of(figure):
    """The bytes of a figure as a picture, as a notebook asks for it."""
    return figure._repr_png_()


def test_filters_lie_in_reading_order_each_scaled_to_its_own_largest_weight():
    w = np.stack([np.arange(4.0), -2 * np.arange(4.0), np.zeros(4)])
    figure = filters.filter_grid(w, (2, 2, 1))
    sheet = sheet_of(figure)
    assert sheet.shape == (7, 7)
    np.testing.assert_allclose(sheet[1:3, 1:3], np.arange(4).reshape(2, 2) / 3)
    np.testing.assert_allclose(sheet[1:3, 4:6], -np.arange(4).reshape(2, 2) / 3)
    np.testing.assert_array_equal(sheet[4:6, 1:3], 0)
    assert np.isnan(sheet[0]).all() and np.isnan(sheet[:, 3]).all()
    for bank in (w, np.ones((1, 4))):
        (image,) = filters.filter_grid(bank, (2, 2, 1)).axes[0].images
        assert image.get_clim() == (-1, 1)  # zero is white in every figure


def test_three_channels_are_colours_around_grey():
    figure = filters.filter_grid(np.array([[1.0, 0, -1]]), (1, 1, 3))
    np.testing.assert_allclose(sheet_of(figure)[1, 1], [1, 0.5, 0])


def test_of_many_filters_some_are_drawn_evenly_spaced():
    w = np.stack([np.r_[np.ones(8), np.arange(8) < i, np.zeros(9)] for i in range(9)])  # filter i counts to i
    figure = filters.filter_grid(w, (5, 5, 1), count=5)
    sheet = sheet_of(figure)
    assert sheet.shape == (13, 19)
    cells = [sheet[6 * (i // 3) + 1 :, 6 * (i % 3) + 1 :][:5, :5].sum() for i in range(5)]
    assert [cell - 8 for cell in cells] == [0, 2, 4, 6, 8]
    assert figure.axes[0].get_title() == '5 of 9 filters, 5 x 5 x 1'
    assert sheet_of(filters.filter_grid(w, (5, 5, 1), count=100)).shape == (19, 19)
    assert sheet_of(filters.filter_grid(w[:1], (5, 5, 1), count=1)).shape == (7, 7)


@pytest.mark.parametrize('channels', [1, 3])
def test_a_sheet_of_a_hundred_filters_is_a_small_picture(channels, rng):
    assert len(png_of(filters.filter_grid(rng.normal(size=(100, 25 * channels)), (5, 5, channels)))) < 150 * 1024


@pytest.mark.parametrize('channels', [1, 3])
def test_what_diverged_is_blank_and_spoils_no_other_filter(channels):
    w = np.tile(np.array([[np.nan, -2], [np.inf, 4], [1, -4]]), channels)
    figure = filters.filter_grid(w, (1, 2, channels))
    sheet = sheet_of(figure).reshape(5, 7, channels)[..., 0]
    blank, values = (np.nan, [-1, 1, 0.25, -1]) if channels == 1 else (1, [0, 1, 0.625, 0])
    np.testing.assert_allclose(sheet[1, [1, 4]], blank)
    np.testing.assert_allclose([sheet[1, 2], sheet[1, 5], sheet[3, 1], sheet[3, 2]], values)
    png_of(figure)


@pytest.mark.parametrize(
    ('w', 'shape', 'more', 'sentence'),
    [
        (np.zeros((3, 4)), (2, 3, 1), {}, 'no filters of 2 x 3 x 1'),
        (np.zeros((3, 4)), (2, 1, 2), {}, 'no colours'),
        (np.zeros((0, 4)), (2, 2, 1), {}, r'shape \(0, 4\) are no filters|count=0 is out of range'),
        (np.zeros((3, 4)), (2, 2, 1), {'count': 0}, 'count=0 is out of range'),
    ],
)
def test_weights_that_are_no_filters_are_refused(w, shape, more, sentence):
    with pytest.raises(ValueError, match=sentence):
        filters.filter_grid(w, shape, **more)
    if not more:
        with pytest.raises(ValueError, match=sentence):
            filters.filters_side_by_side({'a bank': w}, shape)


@pytest.fixture(scope='module')
def network():
    """Two linear layers with pooling between them, and weights for images of three channels."""
    net = (linear(3, Window(3), avg_pool(2)), linear(4, Window(2)))
    return net, states_of(net, [normal(3, 27), normal(4, 12)], (12, 12, 3))


def test_fields_are_drawn_as_they_are_seen_from_the_image(network):
    net, states = network
    sheet = sheet_of(figure := filters.receptive_field_grid(net, states, (12, 12, 3), count=1))
    (field, *_) = filters.receptive_fields(net, states, (12, 12, 3))
    assert field.shape == (6, 6, 3) and sheet.shape[:2] == (8, 8)
    np.testing.assert_allclose(sheet[1:7, 1:7], 0.5 + 0.5 * field / np.abs(field).max(), atol=1e-6)
    assert figure.axes[0].get_title() == 'receptive fields of layer 2, 6 x 6 pixels'
    first = sheet_of(filters.receptive_field_grid(net, states, (12, 12, 3), depth=1))
    np.testing.assert_allclose(first, sheet_of(filters.filter_grid(states[0].w, (3, 3, 3))), rtol=1e-6)


@pytest.mark.parametrize('depth', [0, 3, True])
def test_fields_of_layers_that_are_not_there_are_refused(depth, network):
    with pytest.raises(ValueError, match=f'depth={depth} is out of range; use a whole number from 1 to 2'):
        filters.receptive_field_grid(*network, (12, 12, 3), depth=depth)


@pytest.mark.parametrize('channels', [1, 3])
def test_side_by_side_draws_as_many_units_of_every_bank(channels):
    banks = {'(a)': np.ones((30, 4 * channels)), '(b)': np.full((9, 4 * channels), np.nan)}
    figure = filters.filters_side_by_side(banks, (2, 2, channels), count=16)
    assert [axes.get_title() for axes in figure.axes] == ['(a)', '(b)']
    many, few = (np.ma.filled(axes.images[0].get_array(), np.nan).shape[:2] for axes in figure.axes)
    assert (many, few) == ((13, 13), (10, 10))
    assert png_of(figure).startswith(b'\x89PNG')


def test_large_filters_stand_apart():
    assert sheet_of(filters.filter_grid(np.ones((4, 28 * 28)), (28, 28, 1))).shape == (65, 65)


# Receptive fields


def linear(features, window, *post):
    """A layer that sends its drives, pooled or not."""
    return Layer(features, rules.instar(), scale_by_rate(0.1), window, patch_transform=patches.raw, post=post)


def normal(*shape):
    """Draw weights on the host, where nothing is compiled."""
    return jnp.asarray(np.random.default_rng(shape).normal(size=shape), jnp.float32)


def states_of(net, w, shape):
    return init(net, jax.random.key(0), shape, w).layers


NET = (
    linear(2, Window(3, 2), identity, layers.BatchNorm(), avg_pool(2)),
    dataclasses.replace(linear(3, Window((2, 3))), pre=(layers.standardise, avg_pool(2))),
)
SHAPE = (23, 25, 2)


def test_a_field_is_the_slope_of_a_linear_networks_drive():
    """Normalisation, and other parts that keep the shape of maps, are left out of the fields."""
    w = [normal(2, 18), normal(3, 12)]
    bare = (dataclasses.replace(NET[0], post=(avg_pool(2),)), dataclasses.replace(NET[1], pre=(avg_pool(2),)))
    states = states_of(bare, w, SHAPE)

    @jax.jit
    def slopes(image):
        def drives(image):
            x, drives = image[None], []
            for layer, state in zip(bare, states):
                drives.append(layers.forward(layer, state, x, parts=0)[0, 0, 0])  # the first position
                x = layers.forward(layer, state, x)
            return drives

        return jax.jacobian(drives)(image)  # [N, H, W, C] of each layer

    states_of_all = states_of(NET, w, SHAPE)
    for depth, slope in enumerate(slopes(jnp.zeros(SHAPE)), 1):
        fields = receptive_fields(NET[:depth], states_of_all[:depth], SHAPE)
        rows, columns = fields.shape[1:3]
        np.testing.assert_allclose(slope[:, :rows, :columns], fields, atol=1e-5)
        np.testing.assert_array_equal(slope.at[:, :rows, :columns].set(0), 0)
        assert np.abs(fields[:, -1]).max() > 0 and np.abs(fields[:, :, -1]).max() > 0


def test_miconis_fields_are_5_10_and_20_pixels_wide():
    net = tuple(linear(n, Window(k), avg_pool(2)) for n, k in ((4, 5), (5, 3), (6, 3)))
    states = states_of(net, [normal(4, 75), normal(5, 36), normal(6, 45)], (32, 32, 3))
    shapes = [receptive_fields(net[:depth], states[:depth], (32, 32, 3)).shape for depth in (1, 2, 3)]
    assert shapes == [(4, 5, 5, 3), (5, 10, 10, 3), (6, 20, 20, 3)]


def test_a_single_connection_shows_the_field_below_at_its_place():
    net, below = (linear(2, Window(2)), linear(1, Window(2))), jnp.arange(8.0).reshape(2, 4)
    states = states_of(
        net, [below, jnp.zeros((1, 8)).at[0, 2 * 2 + 1].set(3.0)], (5, 5, 1)
    )  # row 1, column 0, channel 1
    np.testing.assert_allclose(receptive_fields(net[:1], states[:1], (5, 5, 1)), below.reshape(2, 2, 2, 1))
    (field,) = receptive_fields(net, states, (5, 5, 1))
    np.testing.assert_array_equal(field[..., 0], [[0, 0, 0], [12, 15, 0], [18, 21, 0]])


def test_what_fields_cannot_see_through_is_refused():
    net = (linear(2, Window(3, 2), quadrants), linear(3, Window(1)))
    states = [layers.LayerState(w, (), (), post=(layers.PartState(),)) for w in (normal(2, 18), normal(3, 8))]
    with pytest.raises(ValueError, match='1 states do not fit 2 layers'):
        receptive_fields(net, states[:1], SHAPE)
    for part, says in ((lambda x: x[:, ::2], r'layer 1 makes maps \(6, 12, 2\) of \(11, 12, 2\)'), (quadrants, 'of')):
        strange = (dataclasses.replace(net[0], post=(part,)), net[1])
        with pytest.raises(ValueError, match=f'{says}.* see through pooling alone; draw the layers below it'):
            receptive_fields(strange, states, SHAPE)
