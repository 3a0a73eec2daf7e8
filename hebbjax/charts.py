"""Charts of what training told: one function each, a matplotlib Figure returned, nothing shown, no display needed.

They take plain sequences and mappings, live or read back from JSON; None stands for no number and leaves a gap.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

STYLES = {'train': '--', 'validation': ':', 'test': '-'}
STATISTICS = ('mean', 'variance', 'sparsity')


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows when it is the last line of a cell."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format='png')
        return file.getvalue()


def curves(
    lines: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    epochs: Sequence[float] | None = None,
    title: str = '',
    over: str = 'head epoch',
) -> Figure:
    """Draw accuracy over epochs: a colour per network, solid for test, dashed for training, dotted for validation.

    Args:
        lines: network -> {'train' | 'validation' | 'test': accuracy in percent, one per epoch}. Without any (all
            was interrupted) the axes stay empty.
        epochs: at which they were read; lines that end early take the first of them. None: 1, 2, ...
        title: above the axes (Talloen et al., figure 3).
        over: below the axis of epochs.

    Raises:
        ValueError: if a part is none of these, or has more accuracies than there are epochs.
    """
    figure, axes = canvas(7.5, 4.5, title)
    keys = []  # an entry per network and one per part: a dozen lines need no dozen entries
    for colour, (name, parts) in enumerate(lines.items()):
        keys.append(Line2D([], [], color=f'C{colour}', label=name))
        for part, values in parts.items():
            if part not in STYLES:
                raise ValueError(f'{name}: {part!r} is no part of the data; there are {", ".join(STYLES)}.')
            x = range(1, len(values) + 1) if epochs is None else epochs[: len(values)]
            marker = '.' if len(values) == 1 else ''
            line(axes, f'{name}, {part}', x, values, color=f'C{colour}', linestyle=STYLES[part], marker=marker)
    drawn = {part for parts in lines.values() for part in parts}
    keys += [Line2D([], [], color='0.3', linestyle=STYLES[part], label=part) for part in STYLES if part in drawn]
    if keys:
        figure.legend(handles=keys, loc='outside right upper', fontsize='small', handlelength=3)
    axes.set_xlabel(over)
    axes.set_ylabel('accuracy (%)')
    return figure


def metrics(history: Sequence[Mapping[str, float]], names: Sequence[str], *, title: str = '') -> Figure:
    """Draw scalars that were told over epochs, a panel each.

    Args:
        history: {'epoch': number, name: value, ...}, one per epoch; a name may be missing in some.
        names: which to draw.
        title: above the panels.

    Raises:
        ValueError: if there are no names, one was told at no epoch, or a value is no plain number.
    """
    refuse_none('name', names)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, grid = canvas(max(5, 3.4 * columns), 2.6 * rows + 0.4, title, rows, columns, sharex=True, squeeze=False)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names):
        told = [(one['epoch'], one[name]) for one in history if 'epoch' in one and name in one]
        if not told:
            there = sorted({key for one in history for key in one} - {'epoch'})
            raise ValueError(f'{name!r} was told at no epoch; there are {", ".join(there) or "no scalars"}.')
        values = line(axes, name, *zip(*told)).get_ydata()
        axes.set_title(name if np.isfinite(values).any() else f'{name}: never a number', fontsize='medium')
        axes.set_xlabel('epoch')
        axes.tick_params(labelbottom=True)  # below a panel there may be none
    return figure


def activations(found: Mapping[str, Mapping[str, Sequence[float]]], *, title: str = '') -> Figure:
    """Draw what layers send on over learning steps: mean, variance and sparsity, a panel each.

    Args:
        found: layer -> {'step' | 'mean' | 'variance' | 'sparsity': one number per step that was told}, all four.
        title: above the panels.

    Raises:
        ValueError: if there is no layer, one lacks a statistic, or has not as many numbers as steps.
    """
    refuse_none('layer', found)
    figure, panels = canvas(8, 6.5, title, len(STATISTICS), sharex=True)
    for name, told in found.items():
        if lacking := [key for key in ('step', *STATISTICS) if key not in told]:
            raise ValueError(f'{name} lacks {", ".join(lacking)}; give step, {", ".join(STATISTICS)}.')
        for axes, statistic in zip(panels, STATISTICS):
            line(axes, name, told['step'], told[statistic])
            axes.set_ylabel(statistic)
    panels[-1].set_xlabel('step')
    figure.align_ylabels(panels)
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside right upper', fontsize='small')
    return figure


def canvas(width, height, title, rows=1, columns=1, **how):
    figure = Figure(figsize=(width, height), layout='constrained')
    panels = figure.subplots(rows, columns, **how)
    if title:
        (figure.suptitle if isinstance(panels, np.ndarray) else panels.set_title)(title)
    return figure, panels


def line(axes, name, x, y, **how):
    """Draw a line over whole numbers; few points are marked, since one between gaps is no line."""
    try:
        x, y = np.asarray(x, float), np.asarray(y, float)
    except (TypeError, ValueError):
        raise ValueError(f'{name} holds more than plain numbers; give one number for each point.') from None
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise ValueError(f'{name}: {y.shape} values at {x.shape} places are no line; give as many, and at least one.')
    (line,) = axes.plot(x, y, label=name, **{'marker': '.' if len(x) <= 30 else ''} | how)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    return line


def refuse_none(what, found):
    if not len(found):
        raise ValueError(f'there is no {what} to draw; give at least one.')
