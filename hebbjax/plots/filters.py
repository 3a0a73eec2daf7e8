"""Pictures of weights, and of receptive fields in terms of the image."""

from collections.abc import Mapping, Sequence

import numpy as np

from hebbjax.base import AnyArray
from hebbjax.layers.chain import Shape, bind_weights, chain_shape
from hebbjax.layers.layer import Layer, LayerState
from hebbjax.layers.network import Network, check_network, check_states
from hebbjax.layers.patches import lay_grid
from hebbjax.layers.pooling import Pool
from hebbjax.plots.curves import Figure, make_canvas
from hebbjax.support.checks import check_count, check_image_shape, require, show


def filter_grid(w: AnyArray, shape: Shape, *, title: str = '', count: int | None = None) -> Figure:
    """Draw receptive fields of this shape, (kh, kw, C), as a grid that is about a square.

    One channel: a signed colour map, blue negative, red positive, white at zero, each filter scaled to its own
    largest absolute weight. Three channels: RGB, mid-grey at zero. A weight that is no number looks like the frame.

    Args:
        w: weights [N, D], D = kh kw C.
        count: draw at most this many of them, evenly spaced from the first neuron to the last; None: all.

    Example:
        >>> filter_grid(np.eye(4), (2, 2, 1)).axes[0].get_title()
        '4 of 4 filters, 2 x 2 x 1'
    """
    check_count('count', 1 if count is None else count)
    drawn = min(count or len(w), len(w))
    sheet = _sheet(np.asarray(w)[np.linspace(0, len(w) - 1, drawn).round().astype(int)], shape)
    # every weight gets more than 2 dots, or frames come and go; a colour bar takes a fifth
    width, share = max(6.0, sheet.shape[1] / 40), 0.8 if shape[2] == 1 else 1.0
    title = title or f'{drawn} of {len(w)} filters, {" x ".join(map(str, shape))}'
    figure, axes = make_canvas(width, share * width * sheet.shape[0] / sheet.shape[1] + 0.4, title)
    image = _show(axes, sheet)
    if shape[2] == 1:
        figure.colorbar(image, ax=axes, shrink=0.8, label='weight / largest of its filter')
    return figure


def receptive_field_grid(net: Network, states: Sequence[LayerState], image_shape: Shape, *, depth: int | None = None,
                         count: int | None = None, title: str = '') -> Figure:  # fmt: skip
    """Draw what neurons of layer `depth`, from 1, or the last, look for in the image, through all layers below."""
    net = check_network(net)
    check_states(net, states)
    depth = len(net) if depth is None else depth
    check_count('depth', depth, 1, len(net))
    fields = receptive_fields(net[:depth], states[:depth], image_shape)  # [N, rh, rw, C]
    title = title or f'receptive fields of layer {depth}, {fields.shape[1]} x {fields.shape[2]} pixels'
    return filter_grid(fields.reshape(len(fields), -1), fields.shape[1:], count=count, title=title)


def receptive_fields(net: Network, states: Sequence[LayerState], image_shape: Shape) -> np.ndarray:
    """Reconstruct what a network's last neurons look for, as pictures [N, rh, rw, C] (Miconi 2021, section 2.4).

    A neuron's picture is the sum of the pictures of the layer below, each at its place and times its weight:

        field_i[y s : y s + r, x s : x s + r] += w_i[y, x, c] field_c      (s: pixels between neighbours below)

    Pooling over q x q blocks makes of each field below the mean of its q x q shifted copies. Exact for a linear network
    with average pooling; all other parts that keep the shape of maps are left out, and maxima are taken for means.
    r grows by `(k - 1) s` per layer and `(q - 1) s` per pooling: 5, 10, 20 for Miconi's three layers.
    """
    check_states(check_network(net), states)
    shape, step = check_image_shape(image_shape), (1, 1)
    fields = np.eye(shape[2], dtype=np.float32)[:, None, None]  # [C, 1, 1, C]: one pixel of one channel
    for number, (layer, state) in enumerate(zip(net, states), 1):
        post = zip(bind_weights(layer.post, state.w), state.post) if number < len(net) else ()
        for part, part_state in (*zip(layer.pre, state.pre), (layer, state), *post):
            if isinstance(part, Layer):
                grid = lay_grid(part.window, shape)
                kernel = np.asarray(state.w).reshape(part.features, *grid.size, shape[2])  # [N, kh, kw, C]
                stride, after = grid.stride, (*grid.out, part.features)
            elif isinstance(part, Pool):
                mean = np.eye(shape[2], dtype=np.float32) / part.size**2  # [C, C]
                kernel = np.tile(mean[:, None, None], (1, part.size, part.size, 1))
                stride, after = (part.stride, part.stride), chain_shape((part,), (part_state,), shape)
            else:
                after = chain_shape((part,), (part_state,), shape)
                change = f'layer {number} makes maps {after} of {shape} by {show(part)}'
                require(after == shape, f'{change}, and fields see through pooling alone; draw the layers below it.')
                continue
            fields = _spread(kernel, fields, step)
            step, shape = (step[0] * stride[0], step[1] * stride[1]), after
    return fields


def filters_side_by_side(banks: Mapping[str, AnyArray], shape: Shape, *, count: int = 25, seed: int = 0) -> Figure:
    """Draw `count` randomly chosen units of each of several banks [N, D] side by side (Talloen et al., figure 2)."""
    generator = np.random.default_rng(seed)
    figure, panels = make_canvas(5 * len(banks), 5.4, '', 1, len(banks), squeeze=False)
    for axes, (title, w) in zip(panels[0], banks.items()):
        chosen = np.sort(generator.choice(len(w), min(count, len(w)), replace=False))
        _show(axes, _sheet(np.asarray(w)[chosen], shape))
        axes.set_title(title)
    return figure


def _sheet(w, shape):
    """Lay filters out in rows, a frame around each, every one over its own largest absolute weight."""
    w, (kh, kw, channels) = np.asarray(w, np.float32), shape
    require(channels in (1, 3), f'filters of {channels} channels have no colours; draw 1 (signed) or 3 (RGB).')
    fits = w.size and w.shape[1:] == (kh * kw * channels,)
    require(fits, f'weights of shape {w.shape} are no filters of {kh} x {kw} x {channels}; give [N, D], N >= 1.')
    columns, frame = int(np.ceil(len(w) ** 0.5)), 1 + max(kh, kw) // 12  # pixels
    rows = -(-len(w) // columns)
    largest = np.abs(np.where(np.isfinite(w), w, 0)).max(axis=1, keepdims=True)
    filters = (w / np.where(largest > 0, largest, 1)).reshape(-1, *shape)
    before = ((0, rows * columns - len(w)), (frame, 0), (frame, 0), (0, 0))
    cells = np.pad(filters, before, constant_values=np.nan).reshape(rows, columns, frame + kh, frame + kw, channels)
    sheet = cells.swapaxes(1, 2).reshape(rows * (frame + kh), columns * (frame + kw), channels)
    return np.pad(sheet, ((0, frame), (0, frame), (0, 0)), constant_values=np.nan)


def _show(axes, sheet):
    """Draw [rows, columns, C] of -1 to 1: signed colours or RGB."""
    axes.set(xticks=[], yticks=[], facecolor='0.8')
    if sheet.shape[2] == 3:
        return axes.imshow(np.where(np.isfinite(sheet), 0.5 + 0.5 * sheet, 1), interpolation='nearest')
    return axes.imshow(np.ma.masked_invalid(sheet[..., 0]), cmap='bwr', vmin=-1, vmax=1, interpolation='nearest')


def _spread(kernel, below, step):
    """Add up `kernel[i, y, x, c] below[c]`, moved by (y, x) steps. [N, kh, kw, C], [C, r, r, Z] -> [N, R, R, Z]."""
    (neurons, kh, kw, _), (_, rows, columns, channels) = kernel.shape, below.shape
    out = np.zeros((neurons, rows + (kh - 1) * step[0], columns + (kw - 1) * step[1], channels), np.float32)
    for y, x in np.ndindex(kh, kw):
        i, j = y * step[0], x * step[1]
        out[:, i : i + rows, j : j + columns] += np.tensordot(kernel[:, y, x], below, 1)
    return out
