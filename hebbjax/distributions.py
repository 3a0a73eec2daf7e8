"""Charts of how something is spread: weights, norms, wins, mistakes. One function each, a matplotlib Figure returned.

They take plain sequences and mappings, live or read back from JSON.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import PowerNorm

from hebbjax import charts, measures
from hebbjax.charts import Figure
from hebbjax.types import Array


def convergence(
    shares: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    tolerance: float = 0.1,
    norms: Mapping[str, Sequence[float]] | None = None,
    title: str = '',
) -> Figure:
    """Draw how many units have reached norm 1 (`measures.unit_convergence`) and where the norms of all have ended.

    Args:
        shares: name -> (epochs, share in 0..1 of units whose sum of `|w|^p` is less than the tolerance away from 1).
        tolerance: of these shares.
        norms: name -> sums of `|w|^p` of the last epoch [N], drawn beside in order of size; names as in shares.
        title: above the axes.

    Raises:
        ValueError: if there are no shares, not as many as epochs, one is not in 0..1, a norm is negative, or norms
            have a name without shares.
    """
    charts.refuse_none('share', shares)
    if alone := sorted(set(norms or ()) - set(shares)):
        raise ValueError(f'norms of {", ".join(alone)} have no shares; there are {", ".join(shares)}.')
    figure, panels = charts.canvas(10 if norms else 6.5, 4, title, 1, 2 if norms else 1, squeeze=False)
    axes = panels[0, 0]
    for name, (epochs, share) in shares.items():
        y = charts.line(axes, name, epochs, share).get_ydata()
        if ((y < 0) | (y > 1)).any():
            raise ValueError(f'{name}: shares of {np.nanmin(y):g} to {np.nanmax(y):g} are no shares; give 0 to 1.')
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel('epoch')
    axes.set_ylabel(f'share of units with norm within 1 ± {tolerance:g}')
    axes.legend(fontsize='small')
    if norms:
        axes = panels[0, 1]
        axes.axhspan(1 - tolerance, 1 + tolerance, color='0.85', label=f'1 ± {tolerance:g}')
        for name, sums in norms.items():
            sums = np.sort(_amounts(f'norms of {name}', sums, finite=False))  # what diverged comes last, as a gap
            _ordered(axes, name, sums, color=f'C{list(shares).index(name)}')
            if (sums > 10).any():
                axes.set_yscale('log')
        axes.set_xlabel('units in order of norm (share of all)')
        axes.set_ylabel(r'sum of $|w|^p$ at the last epoch')
        axes.legend(fontsize='small')
    return figure


def wins(shares: Mapping[str, Sequence[float]], *, title: str = '') -> Figure:
    """Draw each neuron's share of wins, largest first, in units of the share that all would have if all won alike.

    The legend tells the entropy (`measures.win_entropy`: 1 if all win alike) and how many never won.

    Args:
        shares: layer -> win share of each neuron [N]; numbers of wins do as well.
        title: above the axes.

    Raises:
        ValueError: if there is no layer, or a share is negative or no number.
    """
    charts.refuse_none('layer', shares)
    figure, axes = charts.canvas(7, 4.5, title)
    axes.axhline(1, color='0.4', lw=1, ls='--', label='all alike')
    for name, share in shares.items():
        share = np.sort(_amounts(f'shares of {name}', share))[::-1]
        entropy = abs(float(measures.win_entropy(jnp.asarray(share, jnp.float32))))  # no -0.00
        label = f'{name}: entropy {entropy:.2f}, {np.sum(share == 0)} of {len(share)} never won'
        relative = share * len(share) / (share.sum() or 1)
        _ordered(axes, label, relative)
        if (relative > 10).any() or ((relative > 0) & (relative < 0.1)).any():
            axes.set_yscale('log', nonpositive='mask')  # who never won has no place there: the line ends
    axes.set_xlabel('neurons in order of wins (share of all)')
    axes.set_ylabel('win share / uniform share')
    axes.legend(fontsize='small')
    return figure


def histogram(w: Array, bins: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Count weights in bins of equal width, as many below zero as above.

    Args:
        w: weights of any shape; those that are no finite numbers are left out.
        bins: how many; an odd one has a bin around zero.

    Returns:
        Counts [bins] and edges [bins + 1], up to the largest absolute weight; up to 1 where that is zero.

    Raises:
        ValueError: if there is no bin.
    """
    if bins < 1:
        raise ValueError(f'{bins} bins count nothing; use 1 or more.')
    w = np.asarray(w, float)
    w = w[np.isfinite(w)]
    limit = np.abs(w).max(initial=0) or 1.0
    return np.histogram(w, bins, (-limit, limit))


def histograms(found: Mapping[int, tuple[Sequence[float], Sequence[float]]], *, title: str = '') -> Figure:
    """Draw histograms of weights over time as a ridge: an outline per epoch, the oldest at the back, on top.

    An outline is the density of weights over its own peak: beside weights that shrink tenfold, others would be flat.

    Args:
        found: epoch -> (counts [bins], edges [bins + 1]), as `histogram` gives them. Of more than 30 epochs, 30 are
            drawn, evenly spaced from the first to the last.
        title: above the axes.

    Raises:
        ValueError: if there is no epoch, or counts are negative, or edges do not fit them or do not rise.
    """
    charts.refuse_none('epoch', found)
    epochs = sorted(found, key=int)  # keys that come from JSON are strings
    epochs = [epochs[i] for i in np.linspace(0, len(epochs) - 1, min(30, len(epochs))).round().astype(int)]
    figure, axes = charts.canvas(7, 3.5 + 0.16 * len(epochs), title)
    places = range(len(epochs))[::-1]
    colours = colormaps['viridis'](np.linspace(0.9, 0.15, len(epochs)))
    for epoch, place, colour in zip(epochs, places, colours):
        counts, edges = _amounts(f'counts of epoch {epoch}', found[epoch][0]), np.asarray(found[epoch][1], float)
        if edges.shape != (len(counts) + 1,) or not (np.diff(edges) > 0).all():
            raise ValueError(f'epoch {epoch}: edges {edges.shape} for {len(counts)} counts; give one more, rising.')
        density = counts / np.diff(edges)
        outline = place + 2.2 * density / (density.max() or 1)  # the peak, in distances between epochs
        how = {'facecolor': colour, 'edgecolor': 'white', 'linewidth': 0.7, 'zorder': 2 + len(epochs) - place}
        axes.stairs(outline, edges, baseline=place, fill=True, **how)
    axes.set_yticks(places, epochs, fontsize='small')
    axes.set_ylim(bottom=-0.5)
    axes.margins(x=0)
    axes.grid(alpha=0.3)
    axes.set_xlabel('weight (height: density / its peak)')
    axes.set_ylabel('epoch')
    return figure


def confusion(counts: Array, *, names: Sequence[str] | None = None, title: str = '') -> Figure:
    """Draw which classes are taken for which: shares of the true class as colours, counts in up to 20 x 20 cells.

    Args:
        counts: images [K, K], a row per true class, a column per predicted one.
        names: of the classes; None: 0, 1, ... Of more than 40, which nobody could read, some numbers are written.
        title: above the matrix, before the accuracy.

    Raises:
        ValueError: if counts are not square, negative or all zero, or names are not as many as classes.
    """
    counts = _amounts('counts', counts, dimensions=2)
    size, total = len(counts), counts.sum()
    if counts.shape != (size, size) or not total:
        raise ValueError(f'{total:g} images in counts of shape {counts.shape}; give [K, K] and at least one image.')
    if names is not None and len(names) != size:
        raise ValueError(f'{len(names)} names for {size} classes; give one for each, or None.')
    images = counts.sum(1, keepdims=True)
    share = counts / np.where(images > 0, images, 1)
    accuracy = f'accuracy {100 * np.trace(counts) / total:.2f} %'
    side = 4 + 0.3 * min(size, 20)
    figure, axes = charts.canvas(side + 0.8, side, f'{title}: {accuracy}' if title else accuracy)
    # errors are few: on a straight scale all but the diagonal would be white
    drawn = axes.imshow(share, cmap='Blues', norm=PowerNorm(0.5, 0, 1), interpolation='nearest')
    figure.colorbar(drawn, ax=axes, shrink=0.7, label='share of the true class')
    if size <= 20:
        for (row, column), number in np.ndenumerate(counts):
            colour = 'white' if share[row, column] > 0.4 else 'black'
            axes.text(column, row, f'{number:g}', color=colour, ha='center', va='center', fontsize='small')
    if size <= 40:
        labels = [str(name) for name in (range(size) if names is None else names)]
        axes.set_xticks(range(size), labels, rotation=90 if max(map(len, labels)) > 3 else 0, fontsize='small')
        axes.set_yticks(range(size), labels, fontsize='small')
    axes.set_xlabel('predicted class')
    axes.set_ylabel('true class')
    return figure


def _ordered(axes, name, values, **how):
    """Draw sorted values, from 0 to 1: the middles of as many equal parts."""
    x = (np.arange(len(values)) + 0.5) / len(values)
    axes.plot(x, values, label=name, marker='.' if len(values) <= 30 else '', **how)
    axes.set_xlim(0, 1)
    axes.grid(alpha=0.3)


def _amounts(what, values, dimensions=1, finite=True):
    """Make an array of numbers that are not negative, at least one."""
    values = np.asarray(values, float)
    if values.ndim != dimensions or not values.size:
        wanted = '[N]' if dimensions == 1 else '[K, K]'
        raise ValueError(f'{what} of shape {values.shape} cannot be drawn; give {wanted}, not empty.')
    wrong = values[(values < 0) | (finite & ~np.isfinite(values))]
    if wrong.size:
        raise ValueError(f'{what} hold {wrong[0]:g}; give numbers of 0 or more.')
    return values
