"""Charts show the numbers they are given, refuse in a sentence what they cannot show, and need no display."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from hebbjax import diagnostics
from hebbjax.plots import curves, distributions

NAN = float('nan')


def saved(figure):
    """Check that a figure can be laid out and drawn."""
    figure.draw_without_rendering()
    return figure


def drawn(axes):
    """The lines of axes: label -> points."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def legend(owner):
    """The words of a legend."""
    return [text.get_text() for text in (owner.legends[0] if hasattr(owner, 'legends') else owner.get_legend()).texts]


def test_curves_draw_a_line_for_each_part():
    figure = saved(
        curves.accuracy_curves({'hebbian': {'train': [90, 95], 'test': [88, 89]}, 'backprop': {'test': [91, 92]}})
    )
    (axes,) = figure.axes
    assert drawn(axes) == {
        'hebbian, train': [[1, 90], [2, 95]],
        'hebbian, test': [[1, 88], [2, 89]],
        'backprop, test': [[1, 91], [2, 92]],
    }
    assert [line.get_linestyle() for line in axes.lines] == ['--', '-', '-']
    assert [line.get_color() for line in axes.lines] == ['C0', 'C0', 'C1']
    assert legend(figure) == ['hebbian, train', 'hebbian, test', 'backprop, test']


def test_a_single_epoch_is_a_mark_at_a_whole_number():
    figure = saved(curves.accuracy_curves({'a': {'test': [50.0]}}, title='a run'))
    (axes,) = figure.axes
    assert axes.lines[0].get_marker() == '.' and axes.get_title() == 'a run'
    assert all(tick == round(tick) for tick in axes.get_xticks())
    empty = curves.accuracy_curves({})  # a comparison that was interrupted early
    assert empty._repr_png_().startswith(b'\x89PNG')  # as a notebook asks for it


def test_metrics_skip_epochs_without_a_value_and_leave_gaps_for_what_is_no_number():
    history = [{'epoch': 1, 'a': 3, 'b': None}, {'epoch': 2, 'b': 7.0}, {'epoch': 4, 'a': 5, 'b': NAN, 'c': NAN}]
    figure = saved(curves.metric_curves(history, ['b', 'a', 'c', 'a'], title='run'))
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == ['b', 'a', 'c: never a number', 'a']
    assert drawn(panels[1])['a'] == [[1, 3], [4, 5]]
    np.testing.assert_array_equal(drawn(panels[0])['b'], [[1, NAN], [2, 7], [4, NAN]])
    assert panels[0].lines[0].get_marker() == '.'  # a line of one number would not be seen
    assert len({axes.get_xlim() for axes in panels}) == 1


def test_activations_have_a_panel_for_each_statistic():
    longer = {'step': [0, 100], 'mean': [1, 2], 'variance': [3, 4], 'sparsity': [0.5, 0.6]}
    shorter = {'step': [0], 'mean': [7], 'variance': [8], 'sparsity': [9]}
    figure = saved(curves.activation_curves({'layer 1': longer, 'layer 2': shorter}))
    assert [axes.get_ylabel() for axes in figure.axes] == ['mean', 'variance', 'sparsity']
    assert drawn(figure.axes[1]) == {'layer 1': [[0, 3], [100, 4]], 'layer 2': [[0, 8]]}
    assert drawn(figure.axes[2])['layer 1'] == [[0, 0.5], [100, 0.6]]
    assert legend(figure) == ['layer 1', 'layer 2']


def test_convergence_lies_between_0_and_1():
    (axes,) = saved(distributions.convergence_plot({'a': ([1, 2], [0.25, NAN]), 'b': ([1, 2], [0, 1])})).axes
    np.testing.assert_array_equal(drawn(axes)['a'], [[1, 0.25], [2, NAN]])
    assert -0.1 < axes.get_ylim()[0] < 0 and 1 < axes.get_ylim()[1] < 1.1  # whatever the shares


def test_wins_are_sorted_in_units_of_the_uniform_share():
    figure = saved(distributions.win_share_plot({'layer 1': [0.2, 0.5, 0, 0.3], 'layer 2': [0, 3, 1, 0]}))
    (axes,) = figure.axes
    lines = list(drawn(axes).values())
    assert [y for _, y in lines[0]] == [1, 1]
    np.testing.assert_allclose(lines[1], [[0.125, 2], [0.375, 1.2], [0.625, 0.8], [0.875, 0]])
    np.testing.assert_allclose(lines[2], [[0.125, 3], [0.375, 1], [0.625, 0], [0.875, 0]])
    entropy = diagnostics.win_entropy(jnp.array([5, 3, 2, 0]))
    assert legend(axes)[1] == f'layer 1: entropy {entropy:.2f}, 1 of 4 never won'
    assert axes.get_yscale() == 'linear'


def test_wins_of_one_dead_or_very_uneven_neurons():
    (axes,) = saved(distributions.win_share_plot({'nobody': [0, 0, 0, 0], 'one': [1]})).axes
    assert legend(axes)[1:] == ['nobody: entropy 0.00, 4 of 4 never won', 'one: entropy 1.00, 0 of 1 never won']
    (axes,) = saved(distributions.win_share_plot({'uneven': [0.999, 0.001, 0, 0]})).axes
    assert axes.get_yscale() == 'log'
    assert axes.yaxis.get_transform().transform([0.0]) == -np.inf  # no place: the line ends, and does not fall


def test_a_histogram_is_symmetric_and_counts_finite_weights():
    counts, edges = distributions.weight_histogram(
        np.array([[-1.0, 0.2], [4.0, NAN], [np.inf, -3.9]], np.float32), bins=4
    )
    assert counts.tolist() == [1, 1, 1, 1] and edges.tolist() == [-4, -2, 0, 2, 4]
    for nothing, total in ((np.zeros(3), 3), (jnp.full(2, NAN), 0), (np.zeros(0), 0)):
        counts, edges = distributions.weight_histogram(nothing, bins=3)
        assert counts.tolist() == [0, total, 0] and edges[[0, -1]].tolist() == [-1, 1]
    tiny = np.float32(1e-45)
    assert distributions.weight_histogram(np.array([-tiny, tiny]))[0][[0, -1]].tolist() == [1, 1]


def test_histograms_are_outlines_of_density_the_oldest_behind_and_above():
    histograms = {10: ([1, 3], [-1, 0, 1]), 2: ([2, 4, 1], [-2, -1, 1, 2])}
    (axes,) = saved(distributions.weight_histograms(histograms)).axes
    (old_y, old_x, old_base), (new_y, _, new_base) = (patch.get_data() for patch in axes.patches)
    assert (old_base, new_base) == (1, 0) and axes.patches[0].get_zorder() < axes.patches[1].get_zorder()
    np.testing.assert_allclose(old_y - 1, (old_y[0] - 1) * np.array([1, 1, 0.5]))  # the middle bin is twice as wide
    np.testing.assert_allclose(new_y / new_y[1], [1 / 3, 1])
    assert old_y[0] - 1 == new_y[1] > 1 and old_x.tolist() == [-2, -1, 1, 2]
    labels = dict(zip(axes.get_yticks(), (text.get_text() for text in axes.get_yticklabels())))
    assert labels == {1: '2', 0: '10'}


def test_of_many_epochs_thirty_are_drawn_and_json_serves_as_well():
    histograms = {epoch: distributions.weight_histogram(np.full(3, epoch), bins=5) for epoch in range(101)}
    read = json.loads(json.dumps({epoch: [part.tolist() for part in pair] for epoch, pair in histograms.items()}))
    for given in (histograms, read):
        (axes,) = distributions.weight_histograms(given).axes
        labels = [int(text.get_text()) for text in axes.get_yticklabels()]
        assert len(axes.patches) == len(labels) == 30 and (labels[0], labels[-1]) == (100, 0)
        assert set(np.diff(labels)) == {-3, -4}
    saved(
        distributions.weight_histograms(
            {0: distributions.weight_histogram(np.zeros(2)), 1: distributions.weight_histogram(np.full(2, NAN))}
        )
    )


def test_confusion_colours_shares_of_the_true_class_and_writes_counts():
    axes = saved(distributions.confusion_plot([[6, 2, 0], [0, 5, 0], [0, 0, 0]], title='test')).axes[0]
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert image.get_clim() == (0, 1)
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[1, 0] == '2' and texts[0, 0] == '6' and len(texts) == 9  # x is the predicted class
    assert to_rgba(axes.texts[0].get_color()) != to_rgba(axes.texts[1].get_color())  # readable on dark and on light
    assert axes.get_title() == 'test: accuracy 84.62 %' and list(axes.get_xticks()) == [0, 1, 2]


@pytest.mark.parametrize('name', ['US$_$', b'\xff\xfe'.decode(errors='surrogateescape')])
def test_names_are_drawn_as_they_are_and_not_as_formulas(name):
    axes = saved(distributions.confusion_plot([[6, 2], [0, 5]], [name, 'other'], title=name)).axes[0]
    drawn = name.encode(errors='replace').decode()
    assert axes.get_xticklabels()[0].get_text().replace('\\$', '$') == drawn and drawn in axes.get_title().replace(
        '\\$', '$'
    )


def test_confusion_of_a_single_class_and_of_many():
    single = saved(distributions.confusion_plot(jnp.array([[3]]))).axes[0]
    assert single.get_title() == 'accuracy 100.00 %' and [text.get_text() for text in single.texts] == ['3']
    many = saved(distributions.confusion_plot(np.eye(50))).axes[0]
    assert not many.texts and len(many.get_xticks()) < 20


STEP = {'step': [1], 'mean': [1], 'variance': [1], 'sparsity': [1]}


@pytest.mark.parametrize(
    ('chart', 'given', 'sentence'),
    [
        (curves.accuracy_curves, {'lines': {'a': {'tset': [1]}}}, "a: 'tset' is no part of the data; there are train"),
        (curves.accuracy_curves, {'lines': {'a': {'test': []}}}, 'a, test: .* are no line'),
        (curves.accuracy_curves, {'lines': {'a': {'test': [[1, 2]]}}}, r'\(1, 2\) values at \(1,\) places'),
        (curves.metric_curves, {'history': [{'epoch': 1}], 'names': []}, 'no name to draw'),
        (curves.metric_curves, {'history': [{'epoch': 1, 'b': 2}], 'names': ['a']}, "'a' was measured .* there are b"),
        (curves.metric_curves, {'history': [], 'names': ['a']}, 'there are no scalars'),
        (curves.metric_curves, {'history': [{'epoch': 1, 'a': [1, 2]}], 'names': ['a']}, 'are no line'),
        (curves.activation_curves, {'statistics': {}}, 'no layer to draw'),
        (curves.activation_curves, {'statistics': {'l': {'step': [1], 'mean': [1]}}}, r'variance of l: \(0,\) values'),
        (curves.activation_curves, {'statistics': {'l': STEP | {'mean': [1, 2]}}}, 'mean of l: .* are no line'),
        (distributions.convergence_plot, {'shares': {}}, 'no share to draw'),
        (distributions.convergence_plot, {'shares': {'a': ([1, 2], [1])}}, 'a: .* are no line'),
        (distributions.convergence_plot, {'shares': {'a': ([1, 2], [30, 97])}}, 'shares of a hold .* from 0 to 1'),
        (distributions.win_share_plot, {'shares': {}}, 'no layer to draw'),
        (distributions.win_share_plot, {'shares': {'a': []}}, r'of shape \(0,\) cannot be drawn; give \[N\]'),
        (distributions.win_share_plot, {'shares': {'a': [[1]]}}, r'shares of a of shape \(1, 1\) cannot be drawn'),
        (distributions.win_share_plot, {'shares': {'a': [1, -2]}}, 'shares of a hold'),
        (distributions.weight_histograms, {'histograms': {}}, 'no epoch to draw'),
        (distributions.confusion_plot, {'counts': [[1, 2]]}, r'shape \(1, 2\) .*; give \[K, K\]'),
        (distributions.confusion_plot, {'counts': [1, 2]}, r'counts of shape \(2,\) cannot be drawn; give \[K, K\]'),
        (distributions.confusion_plot, {'counts': np.zeros((2, 2))}, '0 images'),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(chart, given, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        chart(**given)
    assert str(caught.value).endswith('.') and '\n' not in str(caught.value)
