"""Pictures hold what they should, at a common zero, and need no display."""

import io

import numpy as np
import pytest

from hebbjax import visualize


def sheet_of(figure):
    return np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)


def test_filters_lie_in_reading_order_each_scaled_to_its_own_largest_weight():
    w = np.stack([np.arange(4.0), -2 * np.arange(4.0), np.zeros(4)])
    figure = visualize.filters(w, (2, 2, 1), columns=2)
    sheet = sheet_of(figure)
    assert sheet.shape == (7, 7)
    np.testing.assert_allclose(sheet[1:3, 1:3], np.arange(4).reshape(2, 2) / 3)
    np.testing.assert_allclose(sheet[1:3, 4:6], -np.arange(4).reshape(2, 2) / 3)
    np.testing.assert_array_equal(sheet[4:6, 1:3], 0)
    assert np.isnan(sheet[0]).all() and np.isnan(sheet[:, 3]).all()
    assert figure.axes[0].images[0].get_clim() == (-1, 1)


def test_three_channels_are_colours_around_grey():
    figure = visualize.filters(np.array([[1.0, 0, -1]]), (1, 1, 3))
    np.testing.assert_allclose(sheet_of(figure)[1, 1], [1, 0.5, 0])


@pytest.mark.parametrize(('shape', 'sentence'), [((2, 3, 1), 'no filters of 2 x 3 x 1'), ((2, 1, 2), 'no colours')])
def test_weights_that_are_no_filters_are_refused(shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        visualize.filters(np.zeros((3, 4)), shape)


@pytest.mark.parametrize('channels', [1, 3])
def test_side_by_side_draws_as_many_units_of_every_bank(channels):
    banks = {'(a)': np.ones((30, 4 * channels)), '(b)': np.zeros((30, 4 * channels))}
    figure = visualize.side_by_side(banks, (2, 2, channels))
    assert [sum(len(axes.images) for axes in part.axes) for part in figure.subfigs] == [25, 25]
    figure.savefig(io.BytesIO(), format='png')


def test_curves_draw_a_line_for_each_part():
    figure = visualize.curves({'hebbian': {'train': [90, 95], 'test': [88, 89]}, 'backprop': {'test': [91, 92]}})
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert labels == ['hebbian, train', 'hebbian, test', 'backprop, test']
    assert figure.axes[0].lines[1].get_ydata().tolist() == [88, 89]
