"""Files of results: checked before anything is computed, written whole or not at all."""

import contextlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping


def check_writable(*paths: pathlib.Path | None) -> None:
    """Make sure, before anything is trained, that files can be written.

    Raises:
        FileNotFoundError: if a folder does not exist.
        PermissionError: if it cannot be written to, or the path is a folder.
    """
    for path in paths:
        if path is None:
            continue
        folder = path.absolute().parent
        if not folder.is_dir():
            raise FileNotFoundError(f'{path} cannot be written: {folder} is no folder; make it first, or name another.')
        if path.is_dir():
            raise PermissionError(f'{path} cannot be written: it is a folder; name a file.')
        if not os.access(path if path.exists() else folder, os.W_OK) or not os.access(folder, os.W_OK):
            raise PermissionError(f'{path} cannot be written: no permission; name a file in a folder of yours.')


def write_whole(path: pathlib.Path, fill: Callable[[pathlib.Path], object]) -> None:
    """Write a file under another name and rename it when it is whole, so that none is ever half-written."""
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f'.{path.stem}-', suffix=path.suffix)
    os.close(handle)
    try:
        fill(pathlib.Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


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
