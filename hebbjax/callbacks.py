"""Callbacks for `loop.fit`: evaluate, stop early, keep checkpoints, show progress; `hebbjax.loggers` has the rest.

A callback is any function of a `Moment`; these are the ones that most people want.
"""

import math
import os
import time

import jax

from hebbjax import checks, evaluation, progress
from hebbjax.evaluation import Readout
from hebbjax.interrupt import undisturbed
from hebbjax.loop import Callback, pair
from hebbjax.moment import Moment, Position
from hebbjax.resume import Checkpoints
from hebbjax.train import TrainState
from hebbjax.types import Array

JUDGED = 10_000  # training images that an accuracy is told of


def every(epochs: int, callback: Callback) -> Callback:
    """Call another callback every so many epochs, in the first one, and in the last.

    Raises:
        ValueError: if epochs is below 1.
    """
    check_every(epochs)

    def call(moment: Moment) -> None:
        if moment.due(epochs):
            callback(moment)

    for name in ('begin', 'finish', 'after_all', '__enter__', '__exit__'):  # what else it has stays as it is
        if hasattr(callback, name):
            setattr(call, name, getattr(callback, name))
    return call


def check_every(epochs: int) -> None:
    """Refuse what is no number of epochs, 1 or more.

    Raises:
        ValueError: naming it.
    """
    if not checks.is_count(epochs):
        raise ValueError(f'every {checks.shown(epochs)} epochs is never; use a whole number, 1 or more.')


def evaluate(
    train: tuple[Array, Array],
    validation: tuple[Array, Array],
    readout: Readout | None = None,
    *,
    epochs: int = 1,
    name: str = 'accuracy',
) -> Callback:
    """Fit a fresh classifier to the answers of the weights as they are, and judge it on validation images.

    Adds `train_<name>` (of the first 10,000 images) and `validation_<name>`, in percent, and `evaluate_seconds`.

    Args:
        train: images and labels that the classifier is fitted to.
        validation: images and labels that it is judged by. Never the test set: its turn comes once, at the end.
        readout: `evaluation.ridge()` (None) or `evaluation.gradient(head, schedule)`.
        epochs: evaluate every so many, in the first one, and in the last.
        name: of the metric.

    Raises:
        ValueError: if epochs is below 1, or images and labels are none that belong together.
    """
    check_every(epochs)
    train, validation = pair('train', train), pair('validation', validation)
    readout = readout or evaluation.ridge()
    if not callable(readout):
        raise ValueError(f'a readout is one such as evaluation.ridge(), not {checks.shown(readout)}.')

    def call(moment: Moment) -> None:
        started = time.perf_counter()
        key = jax.random.fold_in(jax.random.fold_in(moment.state.key, moment.state.step), 0xE7A1)
        read = readout(moment.net, moment.state.layers, key, train, validation)
        seen = tuple(part[:JUDGED] for part in train)
        for split, (images, labels) in {'train': seen, 'validation': validation}.items():
            moment.metrics[f'{split}_{name}'] = evaluation.accuracy(read, images, labels)
        moment.metrics['evaluate_seconds'] = time.perf_counter() - started

    return every(epochs, call)


def early_stop(metric: str = 'validation_accuracy', patience: int = 3, *, largest: bool = True) -> Callback:
    """End a stage when a metric has not become better for so many of its measurements.

    Args:
        metric: its name; it has to be there in the first epoch, so the callback that adds it stands before this one.
        patience: measurements without a new best.
        largest: whether the best is the largest, not the smallest.

    Raises:
        ValueError: if patience is below 1; in the first epoch, if there is no such metric.
    """
    if not checks.is_count(patience):
        raise ValueError(
            f'a patience of {checks.shown(patience)} ends training before it begins; use a whole number, 1 or more.'
        )

    def call(moment: Moment) -> None:
        values = [_judged(value, largest) for value in moment.known(metric)]
        if metric in moment.metrics and len(values) - 1 - values.index(max(values)) >= patience:
            moment.stop()

    return call


def _judged(value: float, largest: bool) -> float:
    """Make the larger value the better one; one that is no number is the worst."""
    value = value if largest else -value
    return -math.inf if math.isnan(value) else value


class Checkpoint:
    """Keep checkpoints in a folder: every so many epochs, the best, when a stage ends, and when it is interrupted.

    Comes after all other callbacks, so that it keeps what they have said. `resume` reads it back.

    Args:
        folder: made if it is missing.
        epochs: save every so many, in the first one, and in the last.
        keep: how many of the last to keep.
        best: a metric whose best checkpoint is kept as well; None: none is.
        largest: whether the best is the largest, not the smallest.

    Raises:
        ValueError, OSError: as `resume.Checkpoints`; before the first epoch, if the folder holds later ones, of
            another training; in the first epoch, if there is no such metric.
    """

    after_all = True

    def __init__(self, folder: str | os.PathLike, *, epochs: int = 1, keep: int = 2, best: str | None = None,
                 largest: bool = True):  # fmt: skip
        check_every(epochs)
        self.kept = Checkpoints(folder, keep=keep, best=best, largest=largest)
        self.kept.begin()
        self._epochs, self._best, self._sign = epochs, best, 1 if largest else -1

    def begin(self, moment: Moment) -> None:
        """Refuse to keep a training among the later epochs of another one."""
        last = max(self.kept.epochs(), default=0)
        if last > moment.epoch:
            raise ValueError(
                f'{self.kept.folder} holds a checkpoint of epoch {last}, and this training stands at {moment.epoch}; '
                f'go on from it with callbacks.resume, delete it with kept.forget({moment.epoch}), or name another '
                'folder.'
            )

    def __call__(self, moment: Moment) -> None:
        """Save, if it is time, or if it is the best so far."""
        if self._is_best(moment) or moment.due(self._epochs):
            self.save(moment)

    def _is_best(self, moment: Moment) -> bool:
        if self._best is None:
            return False
        moment.known(self._best)  # refuses one that is unknown
        *before, now = [self._sign * row.get(self._best, math.nan) for row in moment.history]
        return math.isfinite(now) and all(now > earlier for earlier in before if math.isfinite(earlier))

    def finish(self, moment: Moment) -> None:
        """Save the last whole epoch, if that has not been done."""
        if moment.epoch > max(self.kept.epochs(), default=-1):
            self.save(moment)

    def save(self, moment: Moment) -> None:
        """Save now; Ctrl-C has to wait until it is done."""
        metrics = moment.metrics if moment.history else None
        with undisturbed():
            self.kept.save(moment.epoch, moment.state, moment.position._asdict(), metrics)


def resume(checkpoints: Checkpoints, like: TrainState, epoch: int | None = None) -> tuple[TrainState, Position]:
    """Read back where a training stood, for `loop.fit(..., position=...)`.

    Args:
        checkpoints: what `Checkpoint` kept.
        like: a fresh `train.init(...)` of the same network; its values are not used.
        epoch: which; None: the last.

    Raises:
        FileNotFoundError, ValueError: as `Checkpoints.restore`; if the checkpoint says nothing of a training.
    """
    state, record = checkpoints.restore(like, epoch)
    try:
        return state, Position(**record | {'history': tuple(record['history'])})
    except (KeyError, TypeError):
        raise ValueError(
            f'{checkpoints.folder} says nothing of where a training stood; read it with Checkpoints.restore.'
        ) from None


class Progress:
    """Show a bar with rate, time left and the last metrics; nothing where there is no terminal. A bar per training.

    Args:
        console: a rich console.
        total: epochs, over all stages.
        images: per epoch, for the rate.
        done: epochs that were trained before.
        shown: metrics to show; those that are missing are passed over.
    """

    SHOWN = ('layer1.change', 'validation_accuracy')

    def __init__(self, console, total: int, images: int, *, done: int = 0, shown: tuple[str, ...] = SHOWN):
        self._begun, self._images, self._shown = (console, 'epochs', total, done), images, shown

    def __enter__(self):
        self._bar = progress.bar(*self._begun)
        self._tick = self._bar.__enter__()
        return self

    def __call__(self, moment: Moment) -> None:
        """Move on."""
        latest = {name: row[name] for row in moment.history for name in self._shown if name in row}
        words = [f'{name.rpartition(".")[2]} {value:.4g}' for name, value in latest.items()]
        words = ', '.join([f'{self._images / moment.metrics["seconds"]:,.0f} images/s', *words])
        self._tick(words, moment.epochs)

    def __exit__(self, *error):
        return self._bar.__exit__(*error)
