"""Curves of what a training measured, from plain numbers, live or read back from JSON; None leaves a gap."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from hebbjax.support.checks import require

STYLES = {'train': '--', 'validation': ':', 'test': '-'}


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows when it is the last line of a cell."""

    def _repr_png_(self) -> bytes:
        self.savefig(file := io.BytesIO(), format='png')
        return file.getvalue()


def accuracy_curves(
    lines: Mapping[str, Mapping[str, Sequence[float]]], *, title: str = '', over: str = 'head epoch'
) -> Figure:
    """Draw accuracy over epochs: a colour per network, solid for test, dashed for training, dotted for validation.

    Args:
        lines: network -> {'train' | 'validation' | 'test': accuracy in percent, one per epoch}; {} leaves axes empty.
        over: below the axis of epochs (Talloen et al., figure 3).

    Example:
        >>> figure = accuracy_curves({'hebbian': {'train': [90, 95], 'test': [88, 89]}})
    """
    figure, axes = make_canvas(7.5, 4.5, title)
    for number, (name, parts) in enumerate(lines.items()):
        for part, values in parts.items():
            require(part in STYLES, f'{name}: {part!r} is no part of the data; there are {", ".join(STYLES)}.')
            style = {'color': f'C{number}', 'ls': STYLES[part], 'marker': '.' if len(values) == 1 else ''}
            draw_line(axes, f'{name}, {part}', range(1, len(values) + 1), values, **style)
    if axes.lines:
        figure.legend(loc='outside right upper', fontsize='small', handlelength=3)
    axes.set(xlabel=over, ylabel='accuracy (%)')
    return figure


def margin_curves(lines: Mapping[str, Mapping[float, Sequence[float]]], *, over: str, title: str = '') -> Figure:
    """Draw accuracies over sizes, means with sample standard deviations, so that margins between rows are seen.

    Args:
        lines: row -> {place: accuracies in percent, one per seed}, places of a wide range on a logarithmic axis.
        over: below the axis of places.

    Example:
        >>> figure = margin_curves({'learned': {8: [50, 51], 512: [70, 71]}}, over='neurons')
    """
    require(lines and all(lines.values()), 'there is no accuracy to draw; give each row one at least.')
    figure, axes = make_canvas(6.5, 4.5, title)
    deviation = lambda values: np.std(values, ddof=1) if len(values) > 1 else 0.0  # noqa: E731
    for name, line in lines.items():
        places = sorted(line)
        means, errors = ([float(f(line[place])) for place in places] for f in (np.mean, deviation))
        axes.errorbar(places, means, errors, label=name, marker='.', capsize=3)
    places = sorted({place for line in lines.values() for place in line})
    if places[0] > 0 and places[-1] >= 8 * places[0]:
        axes.set_xscale('log', base=2)
    axes.set_xticks(places, [f'{place:g}' for place in places])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set(xlabel=over, ylabel='accuracy (%)')
    axes.legend()
    return figure


def metric_curves(history: Sequence[Mapping[str, float]], names: Sequence[str], *, title: str = '') -> Figure:
    """Draw scalars over epochs, a panel each; `history`: {'epoch': number, name: value, ...}, one per epoch."""
    require(names, 'there is no name to draw; give at least one.')
    columns = min(3, len(names))
    rows, axes = -(-len(names) // columns), None
    figure = Figure(figsize=(max(5, 3.4 * columns), 2.6 * rows + 0.4), layout='constrained')
    figure.suptitle(as_text(title))
    for place, name in enumerate(names, 1):
        points = [(row['epoch'], row[name]) for row in history if 'epoch' in row and name in row]
        known = ', '.join(sorted({key for row in history for key in row} - {'epoch'})) or 'no scalars'
        require(points, f'{name!r} was measured at no epoch; there are {known}.')
        axes = figure.add_subplot(rows, columns, place, sharex=axes)
        values = draw_line(axes, name, *zip(*points)).get_ydata()
        axes.set(xlabel='epoch', title=name if np.isfinite(values).any() else f'{name}: never a number')
    return figure


def activation_curves(statistics: Mapping[str, Mapping[str, Sequence[float]]], *, title: str = '') -> Figure:
    """Draw mean, variance and sparsity of what layers send on over learning steps, a panel each.

    Args:
        statistics: layer -> {'step' | 'mean' | 'variance' | 'sparsity': one number per step measured}, all four.
    """
    require(statistics, 'there is no layer to draw; give at least one.')
    figure, panels = make_canvas(8, 6.5, title, 3, sharex=True)
    for axes, statistic in zip(panels, ('mean', 'variance', 'sparsity')):
        for name, series in statistics.items():
            draw_line(axes, f'{statistic} of {name}', *(series.get(k, ()) for k in ('step', statistic)), label=name)
        axes.set_ylabel(statistic)
    panels[-1].set_xlabel('step')
    figure.align_ylabels(panels)
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside right upper', fontsize='small')
    return figure


def make_canvas(
    width: float, height: float, title: str, rows: int = 1, columns: int = 1, **settings: Any
) -> tuple[Figure, Any]:
    """Make a figure of this size in inches, and its axes, or panels."""
    figure = Figure(figsize=(width, height), layout='constrained')
    panels = figure.subplots(rows, columns, **settings)
    (figure.suptitle if isinstance(panels, np.ndarray) else panels.set_title)(as_text(title))
    return figure, panels


def as_text(name: str) -> str:
    """Give a name as it is drawn: no formula between dollars, and what is no character replaced."""
    return name.encode(errors='replace').decode().replace('$', r'\$')


def draw_line(axes: Any, name: str, x: ArrayLike, y: ArrayLike, **style: Any) -> Line2D:
    """Draw a line over whole numbers; few points are marked, since one between gaps is no line."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    fits = x.ndim == 1 and x.shape == y.shape and x.size
    require(fits, f'{name}: {y.shape} values at {x.shape} places are no line; give as many, and at least one.')
    (line,) = axes.plot(x, y, **{'label': name, 'marker': '.' if len(x) <= 30 else ''} | style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    return line
