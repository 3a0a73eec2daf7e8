"""Callbacks that write down and draw: JSON lines, TensorBoard event files, receptive fields.

Of a training of many seeds they show the first one's layers; its scalars are means over all.
"""

import pathlib
from collections.abc import Iterator
from typing import Self

import jax
import numpy as np

from hebbjax.base import AnyPath
from hebbjax.layers.chain import Shape
from hebbjax.support import files
from hebbjax.support.checks import check_count, check_image_shape, is_count, require
from hebbjax.training.loop import CallbackContext
from hebbjax.training.parallel import count_seeds, take_seed

COUNTERS = ('epoch', 'stage')  # metrics that say when, not what


class Log:
    """Write metrics and what was watched into a folder, which has to exist, one JSON line at a time.

    `metrics.jsonl` has every epoch's scalars. `details.jsonl` has, when it `is_due`, a line per layer: win shares,
    norms, a histogram of weights, activation statistics. A resumed training drops what was written beyond it.
    """

    first_only = True
    METRICS, DETAILS = 'metrics.jsonl', 'details.jsonl'

    def __init__(self, folder: AnyPath, *, every: int = 10):
        check_count('every', every)
        self._metrics, self._details = (pathlib.Path(folder, name) for name in (self.METRICS, self.DETAILS))
        self._every = every

    def begin(self, context: CallbackContext) -> None:
        """Read earlier details, and refuse files that cannot be written or are damaged."""
        files.check_writable(self._metrics, self._details)
        rows = files.read_lines(self._details)
        fits = all(isinstance(row, dict) and is_count(row.get('epoch')) for row in rows)
        require(fits, f'{self._details} is damaged: a line is of no epoch; delete it, or the file.')
        self._earlier = [row for row in rows if row['epoch'] <= context.epoch]

    def __call__(self, context: CallbackContext) -> None:
        if self._earlier is not None:
            files.write_lines(self._metrics, context.history[:-1])
            files.write_lines(self._details, self._earlier)
            self._earlier = None
        files.append_lines(self._metrics, [context.metrics])
        if not context.is_due(self._every):
            return
        from hebbjax.plots.distributions import weight_histogram  # late: matplotlib takes long to import

        rows = []
        for number, (state, info) in enumerate(zip(*first_seed(context)), 1):
            values, trace = {'histogram': weight_histogram(state.w)}, getattr(info, 'trace', None)
            if trace is not None:
                values |= {'norms': trace.norms, 'step': trace.observed_steps, **trace.observations._asdict()}
                if info.win_counts is not None:  # who did not learn has none
                    values['win_share'] = trace.win_share
            plain = jax.tree.map(lambda a: np.asarray(a).tolist(), values)
            rows.append({'epoch': context.epoch, 'layer': number, **plain})
        files.append_lines(self._details, rows)

    def finish(self, context: CallbackContext) -> None:
        """Take back what an interrupted epoch had said, if any has said something."""
        if self._earlier is None:
            files.write_lines(self._metrics, context.history)
            whole = [row for row in files.read_lines(self._details) if row['epoch'] <= context.epoch]
            files.write_lines(self._details, whole)


def first_seed(context: CallbackContext) -> tuple:
    """Give states and infos of the layers; of many seeds, the first one's."""
    layers, info = context.state.layers, context.info
    return (layers, info) if count_seeds(context.state) is None else take_seed((layers, info), 0)


def draw_fields(context: CallbackContext, image_shape: Shape, count: int | None) -> Iterator:
    """Draw every layer's receptive fields, `count` units at most: gives (number, figure) one by one."""
    from hebbjax.plots.filters import receptive_field_grid

    for depth in range(1, len(context.net) + 1):
        how = {'depth': depth, 'count': count, 'title': f'layer {depth}, epoch {context.epoch}'}
        yield depth, receptive_field_grid(context.net, first_seed(context)[0], image_shape, **how)


class Pictures:
    """Draw every layer's receptive fields, `count` at most, into a folder when it `is_due`: `layer1_epoch0010.png`.

    `image_shape` is (H, W, C) of the images.
    """

    first_only = True

    def __init__(self, folder: AnyPath, image_shape: Shape, *, every: int = 10, count: int | None = 100):
        check_count('every', every)
        self._folder, self._every, self._count = pathlib.Path(folder), every, count
        self._shape = check_image_shape(image_shape)

    def __call__(self, context: CallbackContext) -> None:
        if context.is_due(self._every):
            self._folder.mkdir(parents=True, exist_ok=True)
            for depth, figure in draw_fields(context, self._shape, self._count):
                files.write_whole(self._folder / f'layer{depth}_epoch{context.epoch:04d}.png', figure.savefig)


class TensorBoard:
    """Write TensorBoard event files: scalars every epoch, histograms of weights and pictures when it `is_due`.

    `image_shape` is (H, W, C) of the images, for receptive fields; None: no pictures.
    """

    first_only = True

    def __init__(self, folder: AnyPath, image_shape: Shape | None = None, *, every: int = 10):
        check_count('every', every)
        self._shape = None if image_shape is None else check_image_shape(image_shape)
        self._folder, self._every, self._writer = str(folder), every, None
        self._make_writer = files.import_extra('tensorboardX', 'tensorboard').SummaryWriter

    def __enter__(self) -> Self:
        return self

    def __call__(self, context: CallbackContext) -> None:
        epoch, is_due = context.epoch, context.is_due(self._every)
        if self._writer is None:  # a resumed training's events replace those beyond its checkpoint
            self._writer = self._make_writer(self._folder, purge_step=epoch)
        for name in [name for name in context.metrics if name not in COUNTERS]:
            self._writer.add_scalar(name.replace('.', '/'), context.metrics[name], epoch)
        for number, state in enumerate(first_seed(context)[0] if is_due else (), 1):
            self._writer.add_histogram(f'layer{number}/w', np.asarray(state.w), epoch)
        for number, figure in draw_fields(context, self._shape, 100) if is_due and self._shape is not None else ():
            self._writer.add_figure(f'layer{number}/fields', figure, epoch)
        self._writer.flush()

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
