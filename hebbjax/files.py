"""Files of results: checked before anything is computed, written whole or not at all."""

import contextlib
import json
import math
import os
import pathlib
import secrets
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping


def check_writable(*paths: pathlib.Path | None) -> None:
    """Make sure, before anything is trained, that files can be written: new ones, old ones, and character devices.

    Raises:
        FileNotFoundError: if a folder does not exist.
        PermissionError: if it cannot be written to, or the path is a folder, a read-only file, a pipe or the like.
    """
    for path in paths:
        if path is None:
            continue
        mode, folder = _mode(path), _target(path).parent
        if not mode and not folder.is_dir():
            raise FileNotFoundError(f'{path} cannot be written: {folder} is no folder; make it first, or name another.')
        if stat.S_ISDIR(mode):
            raise PermissionError(f'{path} cannot be written: it is a folder; name a file.')
        if _is_stream(path):
            continue
        if mode and not stat.S_ISREG(mode):
            raise PermissionError(f'{path} cannot be written: it is a pipe, a socket or a disk; name a file.')
        if mode and not mode & stat.S_IWUSR:  # what root could write all the same
            raise PermissionError(f'{path} cannot be written: it is read-only; change its mode, or name another file.')
        if not os.access(path if mode else folder, os.W_OK) or not os.access(folder, os.W_OK):
            raise PermissionError(f'{path} cannot be written: no permission; name a file in a folder of yours.')


def write_whole(path: pathlib.Path, fill: Callable[[pathlib.Path], object]) -> None:
    """Write a file under another name and rename it when it is whole, so that none is ever half-written.

    A file that is replaced hands on its mode and owner, and a link goes on pointing. Devices are written to.

    Args:
        path: of the file.
        fill: writes what is to be in it into the file that it is given, which is there and has the same ending.

    Raises:
        OSError: if it cannot be written, see `check_writable`.
    """
    check_writable(path)
    if _is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            fill(made := pathlib.Path(folder, f'made{path.suffix}'))
            number = _printed_to(path)
            sys.stdout.flush()
            with open(path if number is None else os.dup(number), 'wb') as stream:
                stream.write(made.read_bytes())
        return
    target = _target(path)
    made = target.with_name(f'.{target.stem[:40]}-{secrets.token_hex(6)}{target.suffix}')
    made.touch(exist_ok=False)  # with the mode that new files have here
    try:
        if target.exists():
            before = target.stat()
            with contextlib.suppress(OSError):  # only root gives files away
                os.chown(made, before.st_uid, before.st_gid)
            made.chmod(stat.S_IMODE(before.st_mode))
        fill(made)
        with made.open('ab') as file:
            os.fsync(file.fileno())
        os.replace(made, target)
    except BaseException:
        made.unlink()
        raise


def _target(path) -> pathlib.Path:
    """Give what a link points to, or a path that is none, absolute."""
    return pathlib.Path(os.path.realpath(path))


def _mode(path) -> int:
    """Give the type and permissions of a file, through links; 0 where there is none yet."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_stream(path) -> bool:
    """Say whether a path cannot be replaced and is written to: a terminal, /dev/null, what this process prints to."""
    return stat.S_ISCHR(_mode(path)) or _printed_to(path) is not None


def _printed_to(path) -> int | None:
    """Give the number, 1 or 2, under which a path is open already as the output of this process, if it is."""
    for number in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(number)):
                return number
    return None


def write_json(path: pathlib.Path, content) -> None:
    """Write values as JSON, whole or not at all; what JSON does not know as text (a path) or null (NaN, infinity)."""
    text = json.dumps(_known(content), indent=1, default=str, allow_nan=False) + '\n'
    write_whole(path, lambda file: file.write_text(text))


def read_json(path: pathlib.Path):
    """Read plain values.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    return _parsed(path, json.loads)


def read_lines(path: pathlib.Path) -> list[dict]:
    """Read JSON lines; one that was cut off in writing is passed over, a missing file has none.

    Raises:
        ValueError: if another line is damaged.
    """
    if not path.exists():
        return []
    return _parsed(path, lambda text: [json.loads(line) for line in text.split('\n')[:-1]])


def _parsed(path, parse):
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
            raise ValueError('it is no regular file')
        return parse(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is damaged ({error}).') from None


def write_lines(path: pathlib.Path, rows: Iterable[dict]) -> None:
    """Write JSON lines, whole or not at all."""
    write_whole(path, lambda file: file.write_text(_lines(rows)))


def append_lines(path: pathlib.Path, rows: Iterable[dict]) -> None:
    """Add JSON lines to a file, all of them or none.

    Raises:
        OSError: if they cannot be written, naming the file.
    """
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open('a') as file:
            file.write(_lines(rows))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise type(error)(error.errno, error.strerror, str(path)) from None


def _lines(rows) -> str:
    return ''.join(json.dumps(_known(row), allow_nan=False) + '\n' for row in rows)


def _known(value):
    """Put None in the place of numbers that JSON does not know, NaN and infinities."""
    if isinstance(value, Mapping):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
