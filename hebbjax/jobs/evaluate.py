"""Judge a run: a classifier on what its network answers, beside the same network untrained and trained by backprop."""

import dataclasses
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from hebbjax import callbacks, data, evaluation, files, runs
from hebbjax.evaluation import Read
from hebbjax.jobs import recipes, report
from hebbjax.jobs.recipes import Subject, Watched
from hebbjax.jobs.report import Report, Row
from hebbjax.jobs.settings import refuse_unknown
from hebbjax.layers import LayerState
from hebbjax.loop import Position
from hebbjax.progress import bar

CONTROLS = ('untrained', 'hebbian', 'backprop')


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Judge a run by a classifier on what its network answers, beside controls; the test split is read at the end.

    Rows: untrained (the network as it began), hebbian (as trained), backprop (a copy of the network as it began, all
    layers and a head trained by gradient; it takes the longest, so it has to be asked for).
    """

    folder: tyro.conf.Positional[pathlib.Path]
    """The run."""
    epoch: int | None = None
    """Which checkpoint; left out: the last."""
    rows: tuple[str, ...] = ('untrained', 'hebbian')
    """Which networks: untrained, hebbian, backprop."""
    readout: str | None = None
    """ridge or gradient; left out: the run's own."""
    head_epochs: int | None = None
    """Of classifiers trained by gradient; left out: the run's own."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""


def load(folder: pathlib.Path, epoch: int | None, data_dir: pathlib.Path | None, **changed):
    """Read a run's settings, its subject as it began, the layers of a checkpoint, and where it stood.

    Raises:
        ValueError: if the folder or a checkpoint is damaged or of another network.
        OSError: if it is no run folder, or has no such checkpoint.
    """
    config = recipes.rebuild(runs.config_of(folder), folder, data_dir)
    config = dataclasses.replace(config, **{name: value for name, value in changed.items() if value is not None})
    config.check()
    if not (folder / runs.CHECKPOINTS).is_dir():
        raise FileNotFoundError(f'{folder} has no checkpoints; go on with `hebbjax train --resume {folder}`.')
    subject = config.subject()
    state, position = callbacks.resume(callbacks.Checkpoints(folder / runs.CHECKPOINTS), subject.state, epoch)
    return config, subject, state.layers, position


def run(config: Evaluate, console: Console | None = None) -> Report:
    """Fit the classifiers, then read the test split, report, and write evaluation.json into the run folder.

    Raises:
        ValueError: if a setting or the run does not fit.
        OSError: if the run or data cannot be read, or results not written.
    """
    console = console or Console(quiet=True)
    for row in config.rows:
        refuse_unknown('rows', row, CONTROLS)
    path = config.folder / runs.EVALUATION
    settings, subject, trained, position = load(
        config.folder, config.epoch, config.data_dir, readout=config.readout, head_epochs=config.head_epochs
    )
    files.check_writable(path)
    reads = {}
    with bar(console, 'fitting classifiers', len(config.rows)) as tick:
        for row in config.rows:
            started = time.perf_counter()
            read = fit(row, settings, subject, trained)
            reads[row] = read, time.perf_counter() - started
            tick(row)
    result = judge(reads, settings, subject, position)
    report.show(result, f'{config.folder}, epoch {len(position.history)}, accuracy in percent', {}, console)
    files.write_json(path, result.as_json())
    return result


def fit(row: str, settings: Watched, subject: Subject, trained: tuple[LayerState, ...]) -> Read:
    """Fit the classifier of one row."""
    settings = dataclasses.replace(settings, readout='gradient') if row == 'backprop' else settings
    readout = settings.read_out(int(subject.labels.max()) + 1, 0 if row == 'backprop' else None)
    states = trained if row == 'hebbian' else subject.state.layers
    key = jax.random.fold_in(jax.random.key(settings.seed), 0xE7A1)
    return readout(subject.net, states, key, (subject.images, subject.labels), subject.validation)


def judge(reads: dict[str, tuple[Read, float]], settings: Watched, subject: Subject, position: Position) -> Report:
    """Read the test split with classifiers that are finished: no choice is left to make."""
    images, labels = data.load(settings.dataset, 'test', data_dir=settings.data_dir)
    data.check_images(images)
    test = jnp.asarray(images), labels
    result = Report(settings.as_json() | {'epoch': len(position.history)})
    for name, (read, seconds) in reads.items():
        row = Row(name, seconds=seconds)
        row.test_accuracy.append(evaluation.accuracy(read, *test))
        row.train_accuracy.append(evaluation.accuracy(read, subject.images, subject.labels))
        row.more['validation_accuracy'] = [evaluation.accuracy(read, *subject.validation)]
        row.more['confusion'] = evaluation.confusion(read, *test, int(np.max(labels)) + 1).tolist()
        if read.curve:
            parts = {'train': [one.train for one in read.curve], 'validation': [one.validation for one in read.curve]}
            row.more['curve'] = {part: [100 * value for value in values] for part, values in parts.items()}
        result.rows.append(row)
    return result
