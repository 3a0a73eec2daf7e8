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
import itertools
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
    check_new(folder)
    folder = folder.absolute()
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
        check_new(folder)  # another process may have come first
        raise type(error)(f'{folder} cannot be written ({error.strerror}); name a folder of yours.') from None
    return folder


def check_new(folder: pathlib.Path) -> None:
    """Refuse what is no new folder, nor an empty one.

    Raises:
        FileExistsError: naming it.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f'{folder} is a file; name a new folder with --run.')
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f'{folder} exists and is not empty; name a new folder with --run, or go on there with --resume.'
        )


def create_free(parent: pathlib.Path, name: str, config: dict, versions: dict) -> pathlib.Path:
    """Make a run folder of the first name that is not taken yet: `name-1`, `name-2`, ...; see `create`."""
    for number in itertools.count(1):
        folder = parent / f'{name}-{number}'
        if not folder.exists():
            with contextlib.suppress(FileExistsError):  # another process came first
                return create(folder, config, versions)


@contextlib.contextmanager
def tentative(folder: pathlib.Path | None) -> Iterator[None]:
    """Take a run folder that was made just now away again where a refusal comes before anything was reached.

    Args:
        folder: None: nothing is done.
    """
    try:
        yield
    except ValueError:
        made = [] if folder is None else [path.name for path in folder.rglob('*') if path.is_file()]
        if made and {*made} <= {CONFIG, VERSIONS, LOCK, WHITENING}:
            shutil.rmtree(folder)
        raise


def check_place(folder: pathlib.Path) -> pathlib.Path:
    """Make sure that what is found out about a run can be written into a folder, or that it can be made.

    Raises:
        OSError: naming the folder and the flag for another one.
    """
    nearest = folder if folder.exists() else folder.absolute().parent
    if not nearest.is_dir():
        raise NotADirectoryError(f'{nearest} is no folder; name another one with --out.')
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f'{nearest} may not be written to; name another folder with --out.')
    return folder


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
