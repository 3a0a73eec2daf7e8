"""Train a network into a run folder, watched, from the beginning or from its last checkpoint."""

import contextlib
import dataclasses
import errno
import functools
import pathlib
import shlex
from collections.abc import Iterator
from typing import NamedTuple, TypedDict

from rich.console import Console

from hebbjax import callbacks, checkpoint, loggers, loop, runs, stages
from hebbjax.jobs import picture, recipes, report
from hebbjax.jobs.schema import CountOrZero, check_settings, read_file
from hebbjax.jobs.watched import CALLBACKS, Subject, Watched
from hebbjax.loop import Callback, Outcome
from hebbjax.moment import Position


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with a run that was interrupted, from its last checkpoint, as if it had never been."""

    resume: pathlib.Path
    """Its folder."""
    epoch: CountOrZero | None = None
    """Checkpoint to go on from; later ones are deleted, since training makes them anew. Left out: the last."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""


class Surroundings(TypedDict):
    """What `versions.json` holds of a run."""

    versions: dict[str, str | None]
    device: str


class Trained(NamedTuple):
    """What a run ended with."""

    folder: pathlib.Path
    outcome: Outcome

    @property
    def interrupted(self) -> bool:
        """Whether the user ended it early."""
        return self.outcome.interrupted


def run(config: Watched, console: Console | None = None) -> Trained:
    """Train a network into a new run folder.

    Args:
        config: the settings; those left out take the data set's own.
        console: where to print; None: nowhere.

    Returns:
        The folder and the outcome; after Ctrl-C that of the last whole epoch, which a checkpoint keeps.

    Raises:
        ValueError, ModuleNotFoundError: if a setting, the data or a shape does not fit.
        OSError: if data cannot be read, or the folder exists or cannot be written.
    """
    console = console or Console(quiet=True)
    config = config.resolve()
    if config.run is not None:
        runs.check_new(config.run)
    subject = config.subject()
    config.refuse_misfits(subject)
    about = config.as_json() | {'data': subject.data}, report.surroundings()
    if config.run is not None:
        folder = runs.create(config.run, *about)
    else:
        folder = runs.create_free(pathlib.Path('runs'), f'{config.NAME}-{config.dataset}', *about)
    with runs.tentative(folder), resumable(folder), runs.held(folder):
        if subject.whitening is not None:
            checkpoint.save(folder / runs.WHITENING, subject.whitening)
        return go_on(config, subject, folder, Position(), console)


def resume(config: Resume, console: Console | None = None) -> Trained:
    """Go on with a run from a checkpoint; from the beginning, if it has none yet.

    Raises:
        ValueError: if the folder is damaged, or its checkpoint is of another network.
        OSError: if it is no run folder, another process trains into it, or it cannot be written.
    """
    console, folder = console or Console(quiet=True), config.resume
    check_settings(config)
    about = runs.config_of(folder)
    settings = recipes.rebuild(about, folder, config.data_dir)
    with resumable(folder), runs.held(folder):
        then = read_file(folder / runs.VERSIONS, Surroundings, 'train anew in another folder')
        if 'log' in settings.callbacks:  # which goes on in it
            picture.details_of(folder)
        if then != report.surroundings():
            console.print('versions or device are not those that the run began with: it may go on in other bits')
        subject, position = settings.subject(about['data']), Position()
        kept = callbacks.Checkpoints(folder / runs.CHECKPOINTS, keep=settings.keep)
        if kept.epochs():
            state, position = callbacks.resume(kept, subject.state, config.epoch)
            kept.forget(len(position.history))
            subject = subject._replace(state=state)
        return go_on(settings, subject, folder, position, console)


@contextlib.contextmanager
def resumable(folder: pathlib.Path) -> Iterator[None]:
    """Say how to go on, where a run that has a folder is interrupted or the disk is full."""
    how = f'go on with: {command("train --resume", folder)}'
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise type(error)(f'{error}; make room, and {how}') from None


def command(what: str, folder: pathlib.Path) -> str:
    """Spell a command on a run folder, so that it can be pasted into a shell."""
    return f'hebbjax {what} {shlex.quote(str(folder))}'


def go_on(config: Watched, subject: Subject, folder: pathlib.Path, position: Position, console: Console) -> Trained:
    """Train on from where a run stands."""
    plan = stages.plan(config.plan, subject.net, config.epochs)
    total = sum(stage.epochs for stage in plan)
    begun = f', from epoch {len(position.history)} on' if position.history else ''
    console.print(f'{folder}: {total} epochs of {len(subject.images)} images{begun}', highlight=False, soft_wrap=True)
    bar = callbacks.Progress(console, total, len(subject.images), done=len(position.history))
    outcome = loop.fit(
        subject.net,
        subject.state,
        subject.images,
        subject.labels,
        stages=plan,
        batch=config.batch,
        callbacks=[*watchers(config, subject, folder), bar],
        watch=config.monitor(),
        augment=config.augment(),
        position=position,
    )
    say(config, folder, outcome, total, console)
    return Trained(folder, outcome)


def watchers(config: Watched, subject: Subject, folder: pathlib.Path) -> list[Callback]:
    """Build the callbacks that were asked for, in the order in which they build on each other."""
    shape, classes = subject.images.shape[1:], int(subject.labels.max()) + 1
    make = {
        'evaluate': lambda: callbacks.evaluate(
            (subject.images, subject.labels), subject.validation, config.read_out(classes), epochs=config.every
        ),
        'early_stop': lambda: callbacks.early_stop(config.metric, config.patience),
        'log': lambda: loggers.Log(folder, epochs=config.every),
        'picture': lambda: loggers.Pictures(folder / runs.PICTURES, shape, epochs=config.every),
        'tensorboard': lambda: loggers.TensorBoard(folder / runs.TENSORBOARD, shape, epochs=config.every),
        'checkpoint': lambda: callbacks.Checkpoint(
            folder / runs.CHECKPOINTS, epochs=config.save_every, keep=config.keep, best=config.best
        ),
    }
    return [make[name]() for name in CALLBACKS if name in config.callbacks]


def say(config: Watched, folder: pathlib.Path, outcome: Outcome, total: int, console: Console) -> None:
    """Say what was reached, and what to do next."""
    line = functools.partial(console.print, highlight=False, soft_wrap=True)
    reached = {name: value for row in outcome.history for name, value in row.items()}
    told = [f'{name} {reached[name]:.4g}' for name in ('validation_accuracy', 'layer1.win_entropy') if name in reached]
    line(', '.join([f'{len(outcome.history)} of {total} epochs', *told, f'{outcome.seconds:.1f} s']))
    if outcome.interrupted and 'checkpoint' in config.callbacks:
        line(f'interrupted; go on with: {command("train --resume", folder)}')
    elif outcome.interrupted:
        line('interrupted; no checkpoint was asked for, so there is nothing to go on from')
    elif 'checkpoint' in config.callbacks:
        line(f'next: {command("evaluate", folder)}, {command("picture", folder)}')
