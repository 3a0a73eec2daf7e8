"""A run folder: everything that is known of one training, made before it begins.

config.json, versions.json     all settings, the data; packages, Python and the device
metrics.jsonl, details.jsonl   scalars, a line per epoch; what is drawn of every layer, now and then
checkpoints/, tensorboard/     the last few and the best; event files, where asked for
pictures/, evaluation.json     what `hebbjax plot` draws; test accuracies, where `hebbjax evaluate` was run
"""

import contextlib
import fcntl
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator

import jax

from hebbjax.support import files
from hebbjax.support.checks import require

CONFIG, VERSIONS, EVALUATION, LOCK = 'config.json', 'versions.json', 'evaluation.json', '.lock'
CHECKPOINTS, PICTURES, EVENTS = 'checkpoints', 'pictures', 'tensorboard'


def create(folder: pathlib.Path, config: dict, versions: dict) -> pathlib.Path:
    """Make a run folder with its configuration, or nothing; missing parents are made. -> its absolute path."""
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True)
        files.write_json(folder / CONFIG, config)
        files.write_json(folder / VERSIONS, versions)
    except OSError as error:
        if not isinstance(error, FileExistsError):
            shutil.rmtree(folder, ignore_errors=True)
        way = 'name another folder with --run, or go on there with --resume'
        raise type(error)(f'{folder} cannot be made ({error.strerror}); {way}.') from None
    return folder


def create_numbered(stem: pathlib.Path, config: dict, versions: dict) -> pathlib.Path:
    """Make a run folder of the first name that is not taken yet: `STEM-1`, `STEM-2`, ...; see `create`."""
    stem.parent.mkdir(parents=True, exist_ok=True)  # where that fails, no number helps
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            return create(stem.with_name(f'{stem.name}-{number}'), config, versions)


def check_output(folder: pathlib.Path) -> None:
    """Refuse a folder that results can neither be written into, nor made."""
    nearest = folder if folder.exists() else folder.absolute().parent
    fits = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    require(fits, f'{nearest} is no folder that may be written to; name another one with --out.')


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Hold a run folder, so that nobody else trains into it; the system lets go when this process ends.

    Of several that train together the first one does so.
    """
    if jax.process_index():
        yield
        return
    with (folder / LOCK).open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BlockingIOError(f'another process trains into {folder}; wait until it has ended.') from None
        yield
