"""Pictures: one function each, a matplotlib Figure returned, nothing shown and no display needed."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from hebbjax.types import Array


def check_format(*paths: pathlib.Path | None) -> None:
    """Make sure that pictures can be drawn in the formats that file names ask for.

    Raises:
        ValueError: naming the file and what there is.
    """
    known = FigureCanvasBase.get_supported_filetypes()
    for path in paths:
        if path is not None and path.suffix.lstrip('.').lower() not in known:
            raise ValueError(
                f'{path} cannot be drawn: {path.suffix or "no ending"} is no picture; use .png, .pdf or .svg.'
            )


def filters(w: Array, shape: tuple[int, int, int], *, columns: int | None = None, title: str = '') -> Figure:
    """Draw receptive fields as a grid.

    One channel: a signed colour map, blue negative, red positive, white at zero, each filter scaled to its own
    largest absolute weight. Three channels: RGB, mid-grey at zero.

    Args:
        w: weights [N, D].
        shape: (kh, kw, C) of a receptive field.
        columns: filters per row; None: about a square.
        title: above the grid.

    Raises:
        ValueError: if D is not kh kw C, or C is neither 1 nor 3.
    """
    w = np.asarray(w, np.float32)
    kh, kw, channels = shape
    if w.ndim != 2 or w.shape[1] != kh * kw * channels:
        raise ValueError(f'weights of shape {w.shape} are no filters of {kh} x {kw} x {channels}; wanted [N, D].')
    if channels not in (1, 3):
        raise ValueError(f'filters of {channels} channels have no colours; draw 1 (signed) or 3 (RGB).')
    columns = columns or int(np.ceil(len(w) ** 0.5))
    rows = -(-len(w) // columns)
    largest = np.abs(w).max(axis=1, keepdims=True)
    scaled = (w / np.where(largest > 0, largest, 1)).reshape(-1, kh, kw, channels)
    # one picture with a one-pixel frame around every filter, rather than hundreds of axes
    sheet = np.full((rows * (kh + 1) + 1, columns * (kw + 1) + 1, channels), np.nan, np.float32)
    for i, one in enumerate(scaled):
        top, left = i // columns * (kh + 1) + 1, i % columns * (kw + 1) + 1
        sheet[top : top + kh, left : left + kw] = one
    width = max(6.0, columns * (kw + 1) / 40)  # inches; every weight gets more than 2 dots, or frames come and go
    figure = Figure(figsize=(width, width * rows * (kh + 1) / (columns * (kw + 1)) + 0.5), layout='constrained')
    axes = figure.subplots()
    if channels == 1:
        drawn = axes.imshow(np.ma.masked_invalid(sheet[..., 0]), cmap='bwr', vmin=-1, vmax=1, interpolation='nearest')
        figure.colorbar(drawn, ax=axes, shrink=0.6, label='weight / largest of its filter')
        axes.set_facecolor('0.8')
    else:
        axes.imshow(np.nan_to_num(0.5 + 0.5 * sheet, nan=1.0), interpolation='nearest')
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title or f'{len(w)} filters, {kh} x {kw} x {channels}')
    return figure


def side_by_side(banks: Mapping[str, Array], shape: tuple[int, int, int], *, count: int = 25, seed: int = 0) -> Figure:
    """Draw the same number of randomly chosen units of several banks next to each other (Talloen et al., figure 2).

    Args:
        banks: title -> weights [N, D].
        shape: (kh, kw, C) of a receptive field.
        count: units of each bank.
        seed: which.
    """
    generator = np.random.default_rng(seed)
    figure = Figure(figsize=(5 * len(banks), 5.4), layout='constrained')
    for part, (title, w) in zip(figure.subfigures(1, len(banks), squeeze=False)[0], banks.items()):
        chosen = np.sort(generator.choice(len(w), min(count, len(w)), replace=False))
        side = int(np.ceil(len(chosen) ** 0.5))
        part.suptitle(title)
        for axes in (grid := part.subplots(side, side, squeeze=False)).flat:
            axes.set_axis_off()
        for axes, unit in zip(grid.flat, np.asarray(w)[chosen]):
            limit = np.abs(unit).max() or 1.0
            field = unit.reshape(shape)
            if shape[2] == 3:
                axes.imshow(0.5 + 0.5 * field / limit, interpolation='nearest')
            else:
                axes.imshow(field.mean(2), cmap='bwr', vmin=-limit, vmax=limit, interpolation='nearest')
    return figure


def curves(lines: Mapping[str, Mapping[str, Sequence[float]]], *, title: str = '') -> Figure:
    """Draw accuracy over epochs: a colour per network, solid for test, dashed for training, dotted for validation.

    Args:
        lines: network -> {'train' | 'validation' | 'test': accuracy in percent, one per epoch}.
        title: above the axes (Talloen et al., figure 3).
    """
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    styles = {'train': '--', 'validation': ':', 'test': '-'}
    for colour, (name, parts) in enumerate(lines.items()):
        for part, values in parts.items():
            epochs = np.arange(1, len(values) + 1)
            axes.plot(epochs, values, styles[part], color=f'C{colour}', label=f'{name}, {part}')
    axes.set_xlabel('head epoch')
    axes.set_ylabel('accuracy (%)')
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize='small')
    return figure
