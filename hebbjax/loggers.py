"""Callbacks that write down and draw: JSON lines and CSV, TensorBoard event files, receptive fields."""

import csv
import io
import os
import pathlib

import numpy as np

from hebbjax import checks, distributions, files, visualize
from hebbjax.callbacks import check_every
from hebbjax.moment import Moment

COUNTERS = ('epoch', 'stage')  # metrics that say when, not what


class Log:
    """Write metrics and what was watched into a folder, one JSON line at a time.

    `metrics.jsonl` has every epoch's scalars, and `metrics.csv` the same as a table when training ends. `details.jsonl`
    has, every so many epochs, a line per layer: win shares, norms, a histogram of weights, activation statistics. A
    training takes up the files where it stands when it begins; what had been written beyond is dropped, all of it by
    one that begins anew.

    Args:
        folder: it has to exist when a training begins.
        epochs: details every so many, in the first one, and in the last.

    Raises:
        ValueError: if epochs is below 1.
    """

    METRICS, TABLE, DETAILS = 'metrics.jsonl', 'metrics.csv', 'details.jsonl'

    def __init__(self, folder: str | os.PathLike, *, epochs: int = 10):
        check_every(epochs)
        self._folder, self._epochs, self._begun = pathlib.Path(folder), epochs, False

    def begin(self, moment: Moment) -> None:
        """Take up the files with the next epoch; a training that fails before leaves them as they are.

        Raises:
            FileNotFoundError: if the folder is missing.
            ValueError: if the details that are there are damaged.
        """
        if not self._folder.is_dir():
            raise FileNotFoundError(f'{self._folder} is no folder to write a log into; make it first.')
        self.details()
        self._begun = False

    def __call__(self, moment: Moment) -> None:
        """Write this epoch's lines."""
        if not self._begun:
            files.write_lines(self._folder / self.METRICS, moment.history[:-1])
            files.write_lines(self._folder / self.DETAILS, [x for x in self.details() if x['epoch'] < moment.epoch])
            self._begun = True
        files.append_lines(self._folder / self.METRICS, [moment.metrics])
        if moment.due(self._epochs):
            files.append_lines(self._folder / self.DETAILS, details(moment))

    def finish(self, moment: Moment) -> None:
        """Write the table, and take back what an interrupted epoch had said."""
        files.write_lines(self._folder / self.METRICS, moment.history)
        names = list(dict.fromkeys(name for row in moment.history for name in row))
        text = io.StringIO()
        table = csv.DictWriter(text, names)
        table.writeheader()
        table.writerows(moment.history)
        files.write_whole(self._folder / self.TABLE, lambda file: file.write_text(text.getvalue()))

    def details(self) -> list[dict]:
        """Read the details that were written so far.

        Raises:
            ValueError: if a line is no details of an epoch.
        """
        path = self._folder / self.DETAILS
        rows = files.read_lines(path)
        for line, row in enumerate(rows, 1):
            if not isinstance(row, dict) or not checks.is_count(row.get('epoch')):
                raise ValueError(f'{path} is damaged: line {line} is of no epoch; delete the line, or the file.')
        return rows


def details(moment: Moment) -> list[dict]:
    """Give what is to be drawn of every layer, as plain JSON values; only weights where nothing was watched."""
    found = []
    for number, (state, told) in enumerate(zip(moment.state.layers, moment.told), 1):
        counts, edges = distributions.histogram(state.w)
        row = {'epoch': moment.epoch, 'layer': number, 'histogram': [counts.tolist(), edges.tolist()]}
        if told is not None and told.trace is not None:
            seen = told.trace.seen
            learned = {} if told.wins is None else {'share': told.trace.share.tolist()}
            row |= learned | {'norms': told.trace.norms.tolist(), 'step': told.trace.step.tolist()}
            row |= {name: getattr(seen, name).tolist() for name in ('converged', 'mean', 'variance', 'sparsity')}
        found.append(row)
    return found


class Pictures:
    """Draw every layer's receptive fields into a folder, every so many epochs: `layer1_epoch0010.png`.

    Those of epochs that a training has not reached when it begins are of another one, and go.

    Args:
        folder: made if it is missing.
        image_shape: (H, W, C) of the images.
        epochs: draw every so many, in the first one, and in the last.
        count: units per picture at most.
    """

    def __init__(self, folder: str | os.PathLike, image_shape: tuple[int, int, int], *, epochs: int = 10,
                 count: int | None = 100):  # fmt: skip
        check_every(epochs)
        if count is not None and not checks.is_count(count):
            raise ValueError(
                f'{checks.shown(count)} units make no picture; use a whole number, 1 or more, or None for all.'
            )
        self._folder, self._shape = pathlib.Path(folder), checks.check_image_shape(image_shape)
        self._epochs, self._count, self._begun = epochs, count, False

    def begin(self, moment: Moment) -> None:
        """Take up the folder with the next epoch."""
        self._begun = False

    def __call__(self, moment: Moment) -> None:
        """Draw, if it is time."""
        if not self._begun:
            for path in self._folder.glob('layer*_epoch*.png'):
                epoch = path.stem.rpartition('epoch')[2]
                if epoch.isdecimal() and int(epoch) >= moment.epoch:
                    path.unlink()
            self._begun = True
        if not moment.due(self._epochs):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for depth in range(1, len(moment.net) + 1):
            title = f'layer {depth}, epoch {moment.epoch}'
            figure = visualize.fields(
                moment.net, moment.state.layers, self._shape, depth=depth, count=self._count, title=title
            )
            files.write_whole(self._folder / f'layer{depth}_epoch{moment.epoch:04d}.png', figure.savefig)


class TensorBoard:
    """Write TensorBoard event files: scalars every epoch, weights as histograms and pictures now and then.

    Args:
        folder: made if it is missing.
        image_shape: (H, W, C) of the images, for receptive fields; None: no pictures.
        epochs: histograms and pictures every so many, in the first one, and in the last.

    Raises:
        ModuleNotFoundError: if tensorboardX is not installed.
    """

    def __init__(self, folder: str | os.PathLike, image_shape: tuple[int, int, int] | None = None, *, epochs: int = 10):
        check_every(epochs)
        image_shape = None if image_shape is None else checks.check_image_shape(image_shape)
        try:
            import tensorboardX
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "event files need tensorboardX, which is not installed; pip install 'hebbjax[tensorboard]'."
            ) from None
        self._module, self._folder, self._shape, self._epochs = tensorboardX, str(folder), image_shape, epochs
        self._writer = None

    def __enter__(self):
        return self

    def __call__(self, moment: Moment) -> None:
        """Write this epoch's events."""
        if self._writer is None:  # a resumed training's events replace those beyond its checkpoint
            self._writer = self._module.SummaryWriter(self._folder, purge_step=moment.epoch)
        for name, value in moment.metrics.items():
            if name not in COUNTERS:
                self._writer.add_scalar(name.replace('.', '/'), value, moment.epoch)
        if moment.due(self._epochs):
            for number, state in enumerate(moment.state.layers, 1):
                self._writer.add_histogram(f'layer{number}/w', np.asarray(state.w), moment.epoch)
                if self._shape is not None:
                    figure = visualize.fields(moment.net, moment.state.layers, self._shape, depth=number, count=100)
                    pixels = visualize.pixels(figure)
                    self._writer.add_image(f'layer{number}/fields', pixels, moment.epoch, dataformats='HWC')
        self._writer.flush()

    def __exit__(self, *error):
        if self._writer is not None:
            self._writer.close()
            self._writer = None
