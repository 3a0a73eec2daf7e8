"""How something is spread: weights, convergence, wins, mistakes."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import PowerNorm

from hebbjax.base import AnyArray
from hebbjax.diagnostics import win_entropy
from hebbjax.plots.curves import Figure, as_text, draw_line, make_canvas
from hebbjax.support.checks import require


def convergence_plot(shares: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str = '') -> Figure:
    """Draw how many units have reached norm 1 (`diagnostics.unit_convergence`).

    Args:
        shares: name -> (epochs, share in 0..1 of units whose sum of `|w|^p` is about 1, as `training.Monitor` has it).
    """
    require(shares, 'there is no share to draw; give at least one.')
    figure, axes = make_canvas(6.5, 4, title)
    for name, (epochs, share) in shares.items():
        draw_line(axes, name, epochs, _amounts(f'shares of {name}', share, most=1))
    axes.set(ylim=(-0.03, 1.03), xlabel='epoch', ylabel='share of units whose norm has come to 1')
    axes.legend(fontsize='small')
    return figure


def win_share_plot(shares: Mapping[str, Sequence[float]], *, title: str = '') -> Figure:
    """Draw each neuron's share of wins, largest first, in units of the share that all would have if all won alike.

    Args:
        shares: layer -> win shares, or numbers of wins [N]; the legend gives their entropy and how many never won.
    """
    require(shares, 'there is no layer to draw; give at least one.')
    figure, axes = make_canvas(7, 4.5, title)
    axes.axhline(1, color='0.4', lw=1, ls='--', label='all alike')
    for name, share in shares.items():
        share = np.sort(_amounts(f'shares of {name}', share))[::-1]
        entropy = abs(float(win_entropy(jnp.asarray(share, jnp.float32))))  # no -0.00
        label = f'{name}: entropy {entropy:.2f}, {np.sum(share == 0)} of {len(share)} never won'
        relative = share * len(share) / (share.sum() or 1)
        place = (np.arange(len(share)) + 0.5) / len(share)  # the middles of as many equal parts
        axes.plot(place, relative, label=label, marker='.' if len(share) <= 30 else '')
        if ((relative > 10) | (relative > 0) & (relative < 0.1)).any():
            axes.set_yscale('log', nonpositive='mask')  # zeros have no place there: the line ends
    axes.set(xlim=(0, 1), xlabel='neurons in order of wins (share of all)', ylabel='win share / uniform share')
    axes.grid(alpha=0.3)
    axes.legend(fontsize='small')
    return figure


def weight_histogram(w: AnyArray, bins: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Count finite weights in bins up to the largest absolute one, as many below zero as above: (counts, edges)."""
    w = np.asarray(w, float)
    w = w[np.isfinite(w)]
    limit = np.abs(w).max(initial=0) or 1.0
    return np.histogram(w, bins, (-limit, limit))


def weight_histograms(histograms: Mapping[int, tuple[Any, Any]], *, title: str = '') -> Figure:
    """Draw histograms of weights over time as a ridge: an outline per epoch, the oldest at the back, on top.

    Args:
        histograms: epoch -> (counts, edges) of `weight_histogram`; 30 epochs, evenly spaced, are drawn of more.
    """
    require(histograms, 'there is no epoch to draw; give at least one.')
    epochs = np.array(sorted(histograms, key=int))  # keys that come from JSON are strings
    epochs = epochs[np.linspace(0, len(epochs) - 1, min(30, len(epochs))).round().astype(int)].tolist()
    figure, axes = make_canvas(7, 3.5 + 0.16 * len(epochs), title)
    colours = colormaps['viridis'](np.linspace(0.9, 0.15, len(epochs)))
    for height, epoch, colour in zip(range(len(epochs))[::-1], epochs, colours):
        counts, edges = map(np.asarray, histograms[epoch])
        density = counts / np.diff(edges)
        outline = height + 2.2 * density / (density.max() or 1)  # the peak, in distances between epochs
        style = {'fill': True, 'fc': colour, 'ec': 'white', 'lw': 0.7, 'zorder': 2 + len(epochs) - height}
        axes.stairs(outline, edges, baseline=height, **style)
    axes.set_yticks(range(len(epochs)), epochs[::-1], fontsize='small')
    axes.margins(x=0)
    axes.grid(alpha=0.3)
    axes.set(xlabel='weight (height: density / its peak)', ylabel='epoch', ylim=(-0.5, None))
    return figure


def confusion_plot(counts: AnyArray, names: Sequence[str] = (), *, title: str = '') -> Figure:
    """Draw which classes are taken for which: shares of the true class as colours, counts in up to 20 x 20 cells.

    Args:
        counts: images [K, K], a row per true class, a column per predicted one.
        names: of the classes, shown where they are up to 20; (): their numbers.
    """
    counts = np.asarray(counts, float)
    classes, total = len(counts), counts.sum()
    fits = counts.shape == (classes, classes) and total > 0
    require(fits, f'{total:g} images in counts of shape {counts.shape} cannot be drawn; give [K, K].')
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side, accuracy = 4 + 0.3 * min(classes, 20), f'accuracy {100 * np.trace(counts) / total:.2f} %'
    figure, axes = make_canvas(side + 0.8, side, f'{title}: {accuracy}' if title else accuracy)
    # errors are few: on a straight scale all but the diagonal would be white
    image = axes.imshow(share, cmap='Blues', norm=PowerNorm(0.5, 0, 1), interpolation='nearest')
    figure.colorbar(image, ax=axes, shrink=0.7, label='share of the true class')
    if classes <= 20:
        shown = [as_text(str(name)[:20]) for name in names] if len(names) == classes else [*map(str, range(classes))]
        axes.set_yticks(range(classes), shown)
        axes.set_xticks(range(classes), shown, rotation=90 if max(map(len, shown)) > 2 else 0)
        for (row, column), count in np.ndenumerate(counts):
            style = {'color': 'white' if share[row, column] > 0.4 else 'black', 'ha': 'center', 'va': 'center'}
            axes.text(column, row, f'{count:g}', fontsize='small', **style)
    axes.set(xlabel='predicted class', ylabel='true class')
    return figure


def _amounts(what, values, most=np.inf):
    """Make an array of numbers from 0 to `most`, at least one; NaN stands for none."""
    values = np.asarray(values, float)
    require(values.ndim == 1 and values.size, f'{what} of shape {values.shape} cannot be drawn; give [N].')
    require(not ((values < 0) | (values > most)).any(), f'{what} hold numbers that are not from 0 to {most:g}.')
    return values
