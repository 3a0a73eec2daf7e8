"""Pictures hold what they should, at a common zero, and need no display."""

import jax
import numpy as np
import pytest

import hebbjax
from hebbjax import Window, activations, patches, receptive, rules, train, visualize
from hebbjax.plasticity import ascend


def sheet_of(figure):
    """The grid that a figure shows."""
    return np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)


def png_of(figure):
    """The bytes of a figure as a picture, as a notebook asks for it."""
    return figure._repr_png_()


def test_filters_lie_in_reading_order_each_scaled_to_its_own_largest_weight():
    w = np.stack([np.arange(4.0), -2 * np.arange(4.0), np.zeros(4)])
    figure = visualize.filters(w, (2, 2, 1), columns=2)
    sheet = sheet_of(figure)
    assert sheet.shape == (7, 7)
    np.testing.assert_allclose(sheet[1:3, 1:3], np.arange(4).reshape(2, 2) / 3)
    np.testing.assert_allclose(sheet[1:3, 4:6], -np.arange(4).reshape(2, 2) / 3)
    np.testing.assert_array_equal(sheet[4:6, 1:3], 0)
    assert np.isnan(sheet[0]).all() and np.isnan(sheet[:, 3]).all()
    for bank in (w, np.ones((1, 4))):
        (image,) = visualize.filters(bank, (2, 2, 1)).axes[0].images
        assert image.get_clim() == (-1, 1)  # zero is white in every figure


def test_three_channels_are_colours_around_grey():
    figure = visualize.filters(np.array([[1.0, 0, -1]]), (1, 1, 3))
    np.testing.assert_allclose(sheet_of(figure)[1, 1], [1, 0.5, 0])


def test_of_many_filters_some_are_drawn_evenly_spaced():
    w = np.stack([np.r_[np.ones(8), np.arange(8) < i, np.zeros(9)] for i in range(9)])  # filter i counts to i
    figure = visualize.filters(w, (5, 5, 1), count=5, columns=5)
    sheet = sheet_of(figure)
    assert sheet.shape == (7, 31)
    assert [np.nansum(sheet[:, 6 * i + 1 : 6 * i + 6]) - 8 for i in range(5)] == [0, 2, 4, 6, 8]
    assert figure.axes[0].get_title() == '5 of 9 filters, 5 x 5 x 1'
    assert sheet_of(visualize.filters(w, (5, 5, 1), count=100)).shape == (19, 19)
    one = visualize.filters(w[:1], (5, 5, 1), count=1)
    assert sheet_of(one).shape == (7, 7) and one.axes[0].get_title() == '1 filter, 5 x 5 x 1'


@pytest.mark.parametrize('channels', [1, 3])
def test_a_sheet_of_a_hundred_filters_is_a_small_picture(channels, rng):
    assert len(png_of(visualize.filters(rng.normal(size=(100, 25 * channels)), (5, 5, channels)))) < 150 * 1024


@pytest.mark.parametrize('channels', [1, 3])
def test_what_diverged_is_blank_and_spoils_no_other_filter(channels):
    w = np.tile(np.array([[np.nan, -2], [np.inf, 4], [1, -4]]), channels)
    figure = visualize.filters(w, (1, 2, channels), columns=3)
    sheet = sheet_of(figure).reshape(3, 10, channels)[1, :, 0]
    blank, values = (np.nan, [-1, 1, 0.25, -1]) if channels == 1 else (1, [0, 1, 0.625, 0])
    np.testing.assert_allclose(sheet[[1, 4]], blank)
    np.testing.assert_allclose(sheet[[2, 5, 7, 8]], values)
    png_of(figure)
    png_of(visualize.side_by_side({'diverged': w}, (1, 2, channels)))


@pytest.mark.parametrize(
    ('w', 'shape', 'more', 'sentence'),
    [
        (np.zeros((3, 4)), (2, 3, 1), {}, 'no filters of 2 x 3 x 1'),
        (np.zeros((3, 4)), (2, 1, 2), {}, 'no colours'),
        (np.zeros((0, 4)), (2, 2, 1), {}, 'nothing to draw'),
        (np.zeros((3, 4)), (2, 2, 1), {'count': 0}, 'count=0 leaves nothing to draw'),
        (np.zeros((3, 4)), (2, 2, 1), {'columns': 0}, 'columns=0 leaves nothing to draw'),
    ],
)
def test_weights_that_are_no_filters_are_refused(w, shape, more, sentence):
    with pytest.raises(ValueError, match=sentence):
        visualize.filters(w, shape, **more)


def network(channels):
    """Two linear layers with pooling between them, and their first states."""
    net = tuple(
        hebbjax.Layer(n, rules.instar(), ascend(0.1), window, patch=patches.raw, fire=activations.identity, pool=pool)
        for n, window, pool in ((3, Window(3), hebbjax.avg_pool(2)), (4, Window(2), None))
    )
    return net, train.init(net, jax.random.key(0), (12, 12, channels)).layers


@pytest.mark.parametrize('channels', [1, 3])
def test_fields_are_those_of_the_receptive_module_seen_from_the_image(channels):
    net, states = network(channels)
    sheet = sheet_of(figure := visualize.fields(net, states, (12, 12, channels), count=1))
    (field, *_) = np.asarray(receptive.fields(net, [state.w for state in states], (12, 12, channels)))
    scaled = field / np.abs(field).max()
    wanted = scaled[..., 0] if channels == 1 else 0.5 + 0.5 * scaled
    assert field.shape == (6, 6, channels)
    assert sheet.shape[:2] == (8, 8)
    np.testing.assert_allclose(sheet[1:7, 1:7], wanted, atol=1e-6)
    assert figure.axes[0].get_title() == 'receptive fields of layer 2, 6 x 6 pixels'
    png_of(figure)


def test_fields_of_the_first_layer_are_its_filters():
    net, states = network(1)
    of_filters = sheet_of(visualize.filters(states[0].w, (3, 3, 1)))
    np.testing.assert_allclose(sheet_of(visualize.fields(net, states, (12, 12, 1), depth=1)), of_filters, rtol=1e-6)
    assert sheet_of(visualize.fields(net, states, (12, 12, 1), depth=2)).shape == (15, 15)


@pytest.mark.parametrize(
    ('channels', 'depth', 'sentence'), [(1, 0, 'no layer 0'), (1, 3, 'use depth 1 to 2'), (2, 1, 'no colours')]
)
def test_fields_that_cannot_be_drawn_are_refused(channels, depth, sentence):
    net, states = network(channels)
    with pytest.raises(ValueError, match=sentence):
        visualize.fields(net, states, (12, 12, channels), depth=depth)


@pytest.mark.parametrize('channels', [1, 3])
def test_side_by_side_draws_as_many_units_of_every_bank(channels):
    banks = {'(a)': np.ones((30, 4 * channels)), '(b)': np.zeros((30, 4 * channels))}
    figure = visualize.side_by_side(banks, (2, 2, channels))
    assert [sum(len(axes.images) for axes in part.axes) for part in figure.subfigs] == [25, 25]
    assert png_of(figure).startswith(b'\x89PNG')
