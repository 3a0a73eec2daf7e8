"""Charts show the numbers they are given, refuse in a sentence what they cannot show, and need no display."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from hebbjax import charts, measures
from hebbjax import distributions as spread

NAN = float('nan')


def saved(figure):
    """Check that a figure becomes a picture, as a notebook asks for it."""
    assert figure._repr_png_().startswith(b'\x89PNG')
    return figure


def drawn(axes):
    """The lines of axes: label -> points."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def legend(owner):
    """The words of a legend."""
    return [text.get_text() for text in (owner.legends[0] if hasattr(owner, 'legends') else owner.get_legend()).texts]


def test_curves_draw_a_line_for_each_part():
    figure = saved(charts.curves({'hebbian': {'train': [90, 95], 'test': [88, 89]}, 'backprop': {'test': [91, 92]}}))
    (axes,) = figure.axes
    assert drawn(axes) == {
        'hebbian, train': [[1, 90], [2, 95]],
        'hebbian, test': [[1, 88], [2, 89]],
        'backprop, test': [[1, 91], [2, 92]],
    }
    assert [line.get_linestyle() for line in axes.lines] == ['--', '-', '-']
    assert [line.get_color() for line in axes.lines] == ['C0', 'C0', 'C1']
    assert legend(figure) == ['hebbian', 'backprop', 'train', 'test']


def test_curves_stand_at_the_epochs_they_were_read_at():
    figure = charts.curves({'a': {'test': [1, 2, 3]}, 'b': {'test': [4, 5]}}, epochs=[5, 10, 20])
    assert drawn(figure.axes[0]) == {'a, test': [[5, 1], [10, 2], [20, 3]], 'b, test': [[5, 4], [10, 5]]}


def test_a_single_epoch_is_a_mark_at_a_whole_number():
    figure = saved(charts.curves({'a': {'test': [50.0]}}, title='one'))
    (axes,) = figure.axes
    assert axes.lines[0].get_marker() == '.' and axes.get_title() == 'one'
    assert all(tick == round(tick) for tick in axes.get_xticks())
    saved(charts.curves({}))  # a comparison that was interrupted early


def test_metrics_skip_epochs_that_told_nothing_and_leave_gaps_for_what_is_no_number():
    history = [{'epoch': 1, 'a': 3, 'b': None}, {'epoch': 2, 'b': 7.0}, {'epoch': 4, 'a': 5, 'b': NAN, 'c': NAN}]
    figure = saved(charts.metrics(history, ['b', 'a', 'c', 'a'], title='run'))
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == ['b', 'a', 'c: never a number', 'a']
    assert drawn(panels[1])['a'] == [[1, 3], [4, 5]]
    np.testing.assert_array_equal(drawn(panels[0])['b'], [[1, NAN], [2, 7], [4, NAN]])
    assert panels[0].lines[0].get_marker() == '.'  # a line of one number would not be seen
    assert len({axes.get_xlim() for axes in panels}) == 1


def test_activations_have_a_panel_for_each_statistic():
    one = {'step': [0, 100], 'mean': [1, 2], 'variance': [3, 4], 'sparsity': [0.5, 0.6]}
    two = {'step': [0], 'mean': [7], 'variance': [8], 'sparsity': [9]}
    figure = saved(charts.activations({'layer 1': one, 'layer 2': two}))
    assert [axes.get_ylabel() for axes in figure.axes] == ['mean', 'variance', 'sparsity']
    assert drawn(figure.axes[1]) == {'layer 1': [[0, 3], [100, 4]], 'layer 2': [[0, 8]]}
    assert drawn(figure.axes[2])['layer 1'] == [[0, 0.5], [100, 0.6]]
    assert legend(figure) == ['layer 1', 'layer 2']


def test_convergence_lies_between_0_and_1_and_norms_beside_it_in_their_band():
    shares = {'a': ([1, 2], [0.25, NAN]), 'b': ([1, 2], [0, 1])}
    (axes,) = saved(spread.convergence(shares)).axes
    np.testing.assert_array_equal(drawn(axes)['a'], [[1, 0.25], [2, NAN]])
    (axes,) = spread.convergence({'a': ([1, 2], [0.4, 0.5])}).axes
    assert -0.1 < axes.get_ylim()[0] < 0 and 1 < axes.get_ylim()[1] < 1.1  # whatever the shares
    left, right = saved(spread.convergence(shares, tolerance=0.2, norms={'b': [1.5, 0.5, 1, NAN]})).axes
    np.testing.assert_array_equal(drawn(right)['b'], [[0.125, 0.5], [0.375, 1], [0.625, 1.5], [0.875, NAN]])
    assert to_rgba(right.lines[0].get_color()) == to_rgba(left.lines[1].get_color())
    (band,) = right.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == (0.8, 1.2)
    assert right.get_yscale() == 'linear'
    assert saved(spread.convergence(shares, norms={'a': [300.0], 'b': [1.0, 0]})).axes[1].get_yscale() == 'log'


def test_wins_are_sorted_in_units_of_the_uniform_share():
    figure = saved(spread.wins({'layer 1': [0.2, 0.5, 0, 0.3], 'layer 2': [3, 1]}))
    (axes,) = figure.axes
    lines = list(drawn(axes).values())
    assert [y for _, y in lines[0]] == [1, 1]
    np.testing.assert_allclose(lines[1], [[0.125, 2], [0.375, 1.2], [0.625, 0.8], [0.875, 0]])
    np.testing.assert_allclose(lines[2], [[0.25, 1.5], [0.75, 0.5]])
    entropy = measures.win_entropy(jnp.array([5, 3, 2, 0]))
    assert legend(axes)[1] == f'layer 1: entropy {entropy:.2f}, 1 of 4 never won'
    assert axes.get_yscale() == 'linear'


def test_wins_of_one_dead_or_very_uneven_neurons():
    (axes,) = saved(spread.wins({'nobody': [0, 0], 'one': [1]})).axes
    assert legend(axes)[1:] == ['nobody: entropy 0.00, 2 of 2 never won', 'one: entropy 1.00, 0 of 1 never won']
    (axes,) = saved(spread.wins({'uneven': [0.999, 0.001, 0]})).axes
    assert axes.get_yscale() == 'log'
    assert axes.yaxis.get_transform().transform([0.0]) == -np.inf  # no place: the line ends, and does not fall


def test_a_histogram_is_symmetric_and_counts_finite_weights():
    counts, edges = spread.histogram(np.array([[-1.0, 0.2], [4.0, NAN], [np.inf, -3.9]], np.float32), bins=4)
    assert counts.tolist() == [1, 1, 1, 1] and edges.tolist() == [-4, -2, 0, 2, 4]
    for nothing, total in ((np.zeros(3), 3), (jnp.full(2, NAN), 0), (np.zeros(0), 0)):
        counts, edges = spread.histogram(nothing, bins=3)
        assert counts.tolist() == [0, total, 0] and edges[[0, -1]].tolist() == [-1, 1]
    tiny = np.float32(1e-45)
    assert spread.histogram(np.array([-tiny, tiny]))[0][[0, -1]].tolist() == [1, 1]


def test_histograms_are_outlines_of_density_the_oldest_behind_and_above():
    found = {10: ([1, 3], [-1, 0, 1]), 2: ([2, 4, 1], [-2, -1, 1, 2])}
    (axes,) = saved(spread.histograms(found)).axes
    (old_y, old_x, old_base), (new_y, _, new_base) = (patch.get_data() for patch in axes.patches)
    assert (old_base, new_base) == (1, 0) and axes.patches[0].get_zorder() < axes.patches[1].get_zorder()
    np.testing.assert_allclose(old_y - 1, (old_y[0] - 1) * np.array([1, 1, 0.5]))  # the middle bin is twice as wide
    np.testing.assert_allclose(new_y / new_y[1], [1 / 3, 1])
    assert old_y[0] - 1 == new_y[1] > 1 and old_x.tolist() == [-2, -1, 1, 2]
    labels = dict(zip(axes.get_yticks(), (text.get_text() for text in axes.get_yticklabels())))
    assert labels == {1: '2', 0: '10'}


def test_of_many_epochs_thirty_are_drawn_and_json_serves_as_well():
    found = {epoch: spread.histogram(np.full(3, epoch), bins=5) for epoch in range(101)}
    read = json.loads(json.dumps({epoch: [part.tolist() for part in pair] for epoch, pair in found.items()}))
    for given in (found, read):
        (axes,) = spread.histograms(given).axes
        labels = [int(text.get_text()) for text in axes.get_yticklabels()]
        assert len(axes.patches) == len(labels) == 30 and (labels[0], labels[-1]) == (0, 100)
        assert set(np.diff(labels)) == {3, 4}
    saved(spread.histograms({0: spread.histogram(np.zeros(2)), 1: spread.histogram(np.full(2, NAN))}))


def test_confusion_colours_shares_of_the_true_class_and_writes_counts():
    figure = saved(spread.confusion([[6, 2, 0], [0, 5, 0], [0, 0, 0]], names=['cat', 'dog', 'whale'], title='test'))
    axes = figure.axes[0]
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert image.get_clim() == (0, 1)
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[1, 0] == '2' and texts[0, 0] == '6' and len(texts) == 9  # x is the predicted class
    assert to_rgba(axes.texts[0].get_color()) != to_rgba(axes.texts[1].get_color())  # readable on dark and on light
    assert [text.get_text() for text in axes.get_yticklabels()] == ['cat', 'dog', 'whale']
    assert axes.get_title() == 'test: accuracy 84.62 %'


def test_confusion_of_one_class_and_of_many():
    one = saved(spread.confusion(jnp.array([[3]]))).axes[0]
    assert one.get_title() == 'accuracy 100.00 %' and [text.get_text() for text in one.texts] == ['3']
    many = saved(spread.confusion(np.eye(50), names=[f'class {i}' for i in range(50)])).axes[0]
    assert saved(spread.confusion([[3, 1], [1, 3]])).axes[0].images[0].get_clim() == (0, 1)
    assert not many.texts and len(many.get_xticks()) < 20


STEP = {'step': [1], 'mean': [1], 'variance': [1], 'sparsity': [1]}


@pytest.mark.parametrize(
    ('chart', 'given', 'sentence'),
    [
        (charts.curves, {'lines': {'a': {'tset': [1]}}}, "a: 'tset' is no part of the data; there are train"),
        (charts.curves, {'lines': {'a': {'test': []}}}, 'a, test: .* are no line'),
        (charts.curves, {'lines': {'a': {'test': [1, 2]}}, 'epochs': [1]}, r'\(2,\) values at \(1,\) places'),
        (charts.metrics, {'history': [{'epoch': 1}], 'names': []}, 'no name to draw'),
        (charts.metrics, {'history': [{'epoch': 1, 'b': 2}], 'names': ['a']}, "'a' was told at no epoch; there are b"),
        (charts.metrics, {'history': [], 'names': ['a']}, 'there are no scalars'),
        (charts.metrics, {'history': [{'epoch': 1, 'a': [1, 2]}], 'names': ['a']}, 'are no line'),
        (charts.metrics, {'history': [{'epoch': 1, 'a': 'much'}], 'names': ['a']}, 'a holds more than plain numbers'),
        (charts.activations, {'found': {}}, 'no layer to draw'),
        (charts.activations, {'found': {'l': {'step': [1], 'mean': [1]}}}, 'l lacks variance, sparsity; give step'),
        (charts.activations, {'found': {'l': STEP | {'mean': [1, 2]}}}, 'l: .* are no line'),
        (spread.convergence, {'shares': {}}, 'no share to draw'),
        (spread.convergence, {'shares': {'a': ([1, 2], [1])}}, 'a: .* are no line'),
        (
            spread.convergence,
            {'shares': {'a': ([1, 2], [30, 97])}},
            'a: shares of 30 to 97 are no shares; give 0 to 1',
        ),
        (spread.convergence, {'shares': {'a': ([1], [1])}, 'norms': {'b': [1]}}, 'norms of b have no shares'),
        (
            spread.convergence,
            {'shares': {'a': ([1], [1])}, 'norms': {'a': [-1]}},
            'norms of a hold -1; give numbers',
        ),
        (spread.wins, {'shares': {}}, 'no layer to draw'),
        (spread.wins, {'shares': {'a': []}}, r'shares of a of shape \(0,\) cannot be drawn; give \[N\]'),
        (spread.wins, {'shares': {'a': [[1]]}}, r'shares of a of shape \(1, 1\) cannot be drawn'),
        (spread.wins, {'shares': {'a': [1, -2]}}, 'shares of a hold -2'),
        (spread.wins, {'shares': {'a': [1, NAN]}}, 'shares of a hold nan'),
        (spread.wins, {'shares': {'a': [1, np.inf]}}, 'shares of a hold inf'),
        (spread.histogram, {'w': np.ones(2), 'bins': 0}, '0 bins count nothing'),
        (spread.histograms, {'found': {}}, 'no epoch to draw'),
        (
            spread.histograms,
            {'found': {3: ([1, 2], [0, 1])}},
            r'epoch 3: edges \(2,\) for 2 counts; give one more',
        ),
        (spread.histograms, {'found': {3: ([1, 2], [0, 1, 1])}}, 'epoch 3: edges'),
        (spread.histograms, {'found': {3: ([1, -2], [0, 1, 2])}}, 'counts of epoch 3 hold -2'),
        (spread.confusion, {'counts': [[1, 2]]}, r'shape \(1, 2\); give \[K, K\]'),
        (spread.confusion, {'counts': [1, 2]}, r'counts of shape \(2,\) cannot be drawn; give \[K, K\]'),
        (spread.confusion, {'counts': np.zeros((2, 2))}, '0 images .* at least one image'),
        (spread.confusion, {'counts': [[1, -1], [0, 1]]}, 'counts hold -1'),
        (spread.confusion, {'counts': [[1]], 'names': ['a', 'b']}, '2 names for 1 classes'),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(chart, given, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        chart(**given)
    assert str(caught.value).endswith('.') and '\n' not in str(caught.value)
