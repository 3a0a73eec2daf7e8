"""A run folder: everything that is known of one training, made whole before it begins.

config.json       which job, all its settings, shape of its data
versions.json     of packages and Python, and the device
metrics.jsonl     scalars, a line per epoch; metrics.csv: the same, when training ends
details.jsonl     win shares, norms, histograms, activation statistics, a line per layer now and then
checkpoints/      the last few and the best
pictures/         receptive fields along the way, and all that `hebbjax picture` draws
tensorboard/      event files, where asked for
whitening.npz     what its network whitens by, where it does
evaluation.json   test accuracies, where `hebbjax evaluate` was run
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from hebbjax import files

CONFIG, VERSIONS, EVALUATION = 'config.json', 'versions.json', 'evaluation.json'
LOCK, WHITENING = '.lock', 'whitening.npz'
CHECKPOINTS, PICTURES, TENSORBOARD = 'checkpoints', 'pictures', 'tensorboard'


def create(folder: pathlib.Path, config: dict, versions: dict) -> pathlib.Path:
    """Make a run folder with its configuration: whole or not at all.

    Args:
        folder: a new one; missing parents are made, an empty folder is taken over.
        config: of the run, as plain JSON values.
        versions: of what it runs on.

    Returns:
        The folder.

    Raises:
        FileExistsError: if there is something already.
        OSError: if it cannot be made.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f'{folder} is a file; name a new folder with --run.')
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f'{folder} exists and is not empty; name a new folder with --run, or go on there with --resume.'
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f'.{folder.name}-'))
    except OSError as error:
        raise type(error)(f'{folder} cannot be made ({error.strerror}); name a folder of yours with --run.') from None
    try:
        files.write_json(made / CONFIG, config)
        files.write_json(made / VERSIONS, versions)
        made.chmod(0o755)
        os.replace(made, folder)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise type(error)(f'{folder} cannot be written ({error.strerror}); name a folder of yours.') from None
    return folder


def free(parent: pathlib.Path, name: str) -> pathlib.Path:
    """Find the first name that is not taken yet: `name-1`, `name-2`, ..."""
    number = 1
    while (parent / f'{name}-{number}').exists():
        number += 1
    return parent / f'{name}-{number}'


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Hold a run folder, so that no second process trains into it; the system lets go when this one ends.

    Raises:
        BlockingIOError: if another process holds it.
    """
    with (folder / LOCK).open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BlockingIOError(f'another process trains into {folder}; wait until it has ended.') from None
        yield


def config_of(folder: pathlib.Path) -> dict:
    """Read what a run was told.

    Raises:
        FileNotFoundError: if the folder is no run.
        ValueError: if its configuration is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f'{folder} is no run folder: it has no {CONFIG}; `hebbjax train` makes one.')
    found = files.read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get('settings'), dict) or 'job' not in found:
        raise ValueError(f'{path} is damaged; train anew in another folder.')
    return found
