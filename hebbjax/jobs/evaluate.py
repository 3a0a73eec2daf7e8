"""Judge a run: a classifier on what its network answers, beside the same network untrained and trained by backprop."""

import dataclasses
import pathlib
import time
from typing import Literal, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from hebbjax import callbacks, data, evaluation, files, runs
from hebbjax.evaluation import Read
from hebbjax.jobs import recipes, report
from hebbjax.jobs.report import Report, Row
from hebbjax.jobs.schema import Count, CountOrZero, check_settings, read_file
from hebbjax.jobs.settings import refuse_unknown
from hebbjax.jobs.watched import Described, Subject, Watched
from hebbjax.layers import LayerState
from hebbjax.moment import Position
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
    epoch: CountOrZero | None = None
    """Which checkpoint; left out: the last."""
    rows: tuple[str, ...] = ('untrained', 'hebbian')
    """Which networks: untrained, hebbian, backprop."""
    readout: str | None = None
    """ridge or gradient; left out: the run's own."""
    head_epochs: Count | None = None
    """Of classifiers trained by gradient; left out: the run's own."""
    out: pathlib.Path | None = None
    """Folder for evaluation.json, made if it is missing; left out: the run's own."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""


class Judged(TypedDict):
    """What `evaluation.json` holds of a network, as far as it is read back."""

    row: Literal[CONTROLS]
    confusion: list[list[float]]
    curve: NotRequired[dict[str, list[float | None]]]


class Evaluation(TypedDict):
    """What `evaluation.json` holds, as far as it is read back."""

    rows: list[Judged]


def read_evaluation(path: pathlib.Path) -> dict | None:
    """Read what was found out before; None, if nothing was.

    Raises:
        ValueError: if it is damaged.
    """
    return read_file(path, Evaluation, 'delete it, and evaluate the run again') if path.is_file() else None


def run_of(folder: pathlib.Path, data_dir: pathlib.Path | None) -> tuple[Watched, Described, callbacks.Checkpoints]:
    """Read a run's settings, what is known of its data, and its checkpoints.

    Raises:
        ValueError: if the folder is damaged.
        OSError: if it is no run folder, or has no checkpoint.
    """
    about = runs.config_of(folder)
    settings = recipes.rebuild(about, folder, data_dir)
    kept = callbacks.Checkpoints(folder / runs.CHECKPOINTS)
    if not kept.epochs():
        raise FileNotFoundError(f'{folder} has no checkpoints to look at; train with --callbacks ... checkpoint.')
    return settings, about['data'], kept


def run(config: Evaluate, console: Console | None = None) -> Report:
    """Fit the classifiers, then read the test split, report, and write evaluation.json.

    Raises:
        ValueError: if a setting or the run does not fit.
        OSError: if the run or data cannot be read, or results not written.
    """
    console = console or Console(quiet=True)
    check_settings(config)
    for row in config.rows:
        refuse_unknown('rows', row, CONTROLS)
    if not config.rows:
        raise ValueError(f'--rows names no network; name some of {", ".join(CONTROLS)}.')
    settings, known, kept = run_of(config.folder, config.data_dir)
    path = runs.check_place(config.out or config.folder) / runs.EVALUATION
    if path.exists():
        files.check_writable(path)
    before = read_evaluation(path) or {}
    asked = {'readout': config.readout, 'head_epochs': config.head_epochs}
    settings = dataclasses.replace(settings, **{name: value for name, value in asked.items() if value is not None})
    settings.check()
    subject = settings.subject(known)
    state, position = callbacks.resume(kept, subject.state, config.epoch)
    reads = {}
    with bar(console, 'fitting classifiers', len(config.rows)) as tick:
        for row in config.rows:
            started = time.perf_counter()
            read = fit(row, settings, subject, state.layers)
            reads[row] = read, time.perf_counter() - started
            tick(row)
    result = judge(reads, settings, subject, position)
    report.show(result, f'{config.folder}, epoch {len(position.history)}, accuracy in percent', {}, console)
    content = result.as_json()
    if before.get('config') == content['config']:  # others stay
        new = {row['row']: row for row in content['rows']}
        content['rows'] = list({**{row['row']: row for row in before['rows']}, **new}.values())
    path.parent.mkdir(exist_ok=True)
    files.write_json(path, content)
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
        counts = evaluation.confusion(read, *test, int(np.max(labels)) + 1)
        row.test_accuracy.append(100 * float(np.trace(counts)) / len(labels))
        row.train_accuracy.append(evaluation.accuracy(read, subject.images, subject.labels))
        row.more['validation_accuracy'] = [evaluation.accuracy(read, *subject.validation)]
        row.more['confusion'] = counts.tolist()
        if read.curve:
            parts = {'train': [one.train for one in read.curve], 'validation': [one.validation for one in read.curve]}
            row.more['curve'] = {part: [100 * value for value in values] for part, values in parts.items()}
        result.rows.append(row)
    return result
