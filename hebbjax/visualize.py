"""Pictures of weights: one function each, a matplotlib Figure returned, nothing shown and no display needed."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from hebbjax import checks, receptive, train
from hebbjax.charts import Figure
from hebbjax.layers import Layer, LayerState, check_network
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


def filters(
    w: Array, shape: tuple[int, int, int], *, columns: int | None = None, title: str = '', count: int | None = None
) -> Figure:
    """Draw receptive fields as a grid.

    One channel: a signed colour map, blue negative, red positive, white at zero, each filter scaled to its own
    largest absolute weight. Three channels: RGB, mid-grey at zero. A weight that is no number looks like the frame.

    Args:
        w: weights [N, D].
        shape: (kh, kw, C) of a receptive field.
        columns: filters per row; None: about a square.
        title: above the grid.
        count: draw this many of them, evenly spaced from the first neuron to the last; None: all. Of fewer: all.

    Raises:
        ValueError: if D is not kh kw C, C is neither 1 nor 3, there is no neuron, or columns or count are below 1.
    """
    w, (kh, kw, channels) = _bank(w, shape), shape
    _refuse_colourless(channels)
    for name, value in (('columns', columns), ('count', count)):
        if value is not None and not checks.is_count(value):
            raise ValueError(f'{name}={value} leaves nothing to draw; use 1 or more, or None.')
    there = len(w)
    w = w[np.linspace(0, there - 1, min(count or there, there)).round().astype(int)]
    columns = columns or int(np.ceil(len(w) ** 0.5))
    rows = -(-len(w) // columns)
    # one picture with a one-pixel frame around every filter, rather than hundreds of axes
    sheet = np.full((rows * (kh + 1) + 1, columns * (kw + 1) + 1, channels), np.nan, np.float32)
    for i, one in enumerate(_scaled(w).reshape(-1, kh, kw, channels)):
        top, left = i // columns * (kh + 1) + 1, i % columns * (kw + 1) + 1
        sheet[top : top + kh, left : left + kw] = one
    width = max(6.0, columns * (kw + 1) / 40)  # inches; every weight gets more than 2 dots, or frames come and go
    shape = rows * (kh + 1) / (columns * (kw + 1))
    drawn_width = width * (0.8 if channels == 1 else 1.0)  # the colour bar takes the rest
    figure = Figure(figsize=(width, drawn_width * shape + 0.4), layout='constrained')
    axes = figure.subplots()
    if channels == 1:
        drawn = axes.imshow(np.ma.masked_invalid(sheet[..., 0]), cmap='bwr', vmin=-1, vmax=1, interpolation='nearest')
        figure.colorbar(drawn, ax=axes, shrink=0.8, label='weight / largest of its filter')
        axes.set_facecolor('0.8')
    else:
        axes.imshow(_colours(sheet), interpolation='nearest')
    axes.set_xticks([])
    axes.set_yticks([])
    shown = str(there) if len(w) == there else f'{len(w)} of {there}'
    axes.set_title(title or f'{shown} filter{"s" * (there > 1)}, {kh} x {kw} x {channels}')
    return figure


def fields(
    net: Sequence[Layer],
    states: Sequence[LayerState],
    image_shape: tuple[int, int, int],
    *,
    depth: int | None = None,
    count: int | None = None,
    title: str = '',
) -> Figure:
    """Draw what the neurons of one layer look for in the image, through all layers below (`receptive.fields`).

    Args:
        net: the layers, bottom first.
        states: their states, such as `TrainState.layers`.
        image_shape: (H, W, C) of the images.
        depth: number of the layer, from 1; None: the last.
        count: draw this many neurons, evenly spaced; None: all.
        title: above the grid.

    Raises:
        ValueError: if there is no such layer, images have neither 1 nor 3 channels, or the fields cannot be told.
    """
    net = check_network(net)
    train.check_states(net, states)
    image_shape = checks.check_image_shape(image_shape)
    depth = len(net) if depth is None else depth
    if not checks.is_count(depth) or depth > len(net):
        there = f'there is no layer {checks.shown(depth)} in a network of {len(net)}'
        raise ValueError(f'{there}; use depth 1 to {len(net)}, or None.')
    _refuse_colourless(image_shape[2])
    found = receptive.fields(net[:depth], [state.w for state in states], image_shape)  # [N, rh, rw, C]
    title = title or f'receptive fields of layer {depth}, {found.shape[1]} x {found.shape[2]} pixels'
    return filters(found.reshape(len(found), -1), found.shape[1:], count=count, title=title)


def side_by_side(banks: Mapping[str, Array], shape: tuple[int, int, int], *, count: int = 25, seed: int = 0) -> Figure:
    """Draw the same number of randomly chosen units of several banks next to each other (Talloen et al., figure 2).

    Args:
        banks: title -> weights [N, D].
        shape: (kh, kw, C) of a receptive field.
        count: units of each bank.
        seed: which.

    Raises:
        ValueError: if there is no bank, one has no neuron or another D than kh kw C, or count is below 1.
    """
    if not banks or count < 1:
        raise ValueError(f'{count} units of {len(banks)} banks leave nothing to draw; give 1 or more of each.')
    banks = {title: _bank(w, shape) for title, w in banks.items()}
    generator = np.random.default_rng(seed)
    figure = Figure(figsize=(5 * len(banks), 5.4), layout='constrained')
    for part, (title, w) in zip(figure.subfigures(1, len(banks), squeeze=False)[0], banks.items()):
        chosen = np.sort(generator.choice(len(w), min(count, len(w)), replace=False))
        side = int(np.ceil(len(chosen) ** 0.5))
        part.suptitle(title)
        for axes in (grid := part.subplots(side, side, squeeze=False)).flat:
            axes.set_axis_off()
        for axes, field in zip(grid.flat, _scaled(w[chosen]).reshape(-1, *shape)):
            if shape[2] == 3:
                axes.imshow(_colours(field), interpolation='nearest')
            else:
                axes.imshow(field.mean(2), cmap='bwr', vmin=-1, vmax=1, interpolation='nearest')
    return figure


def _refuse_colourless(channels):
    if channels not in (1, 3):
        raise ValueError(f'filters of {channels} channels have no colours; draw 1 (signed) or 3 (RGB).')


def _bank(w, shape):
    """Make an array [N, D] of weights, N >= 1, whose D fits the shape."""
    w, (kh, kw, channels) = np.asarray(w, np.float32), shape
    if w.ndim != 2 or w.shape[1] != kh * kw * channels:
        raise ValueError(f'weights of shape {w.shape} are no filters of {kh} x {kw} x {channels}; wanted [N, D].')
    if not w.size:
        raise ValueError(f'weights of shape {w.shape} have nothing to draw; give at least one neuron.')
    return w


def _scaled(w):
    """Divide each filter by its own largest absolute weight; zeros stay, and what is no number does not count."""
    largest = np.abs(np.where(np.isfinite(w), w, 0)).max(axis=1, keepdims=True)
    return w / np.where(largest > 0, largest, 1)


def _colours(scaled):
    """Make RGB of -1 to 1: mid-grey at zero, white where there is no number."""
    return np.where(np.isfinite(scaled), 0.5 + 0.5 * scaled, 1)


def pixels(figure: Figure) -> np.ndarray:
    """Draw a figure into an array [rows, columns, RGB] of uint8, for those who do not want a file."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
