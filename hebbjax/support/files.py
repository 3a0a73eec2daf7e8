"""Files of results: checked before anything is computed, written whole or not at all; JSON and npz."""

import contextlib
import importlib
import io
import json
import os
import pathlib
import secrets
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from hebbjax.support.checks import require

NONSENSE = LookupError, TypeError, ValueError, AttributeError, ArithmeticError  # what content of no sense raises
DTYPES = 'dtypes'  # the entry of an npz file that names those which numpy's own format does not know, such as bfloat16


def check_writable(*paths: pathlib.Path | None) -> None:
    """Make sure, before anything is trained, that files can be written: new ones and old ones."""
    for path in filter(None, paths):
        folder, exists = pathlib.Path(os.path.realpath(path)).parent, path.exists()
        if not exists and not folder.is_dir():
            raise FileNotFoundError(f'{path} cannot be written: {folder} is no folder; make it first, or name another.')
        is_locked = exists and not path.stat().st_mode & stat.S_IWUSR  # what root could write all the same
        if exists and not path.is_file():
            raise PermissionError(f'{path} cannot be written: it is a folder, a pipe or a device; name a file.')
        if is_locked or not os.access(folder, os.W_OK) or (exists and not os.access(path, os.W_OK)):
            raise PermissionError(f'{path} cannot be written: it is read-only, or its folder is; name another file.')


def write_whole(path: pathlib.Path, fill: Callable[[pathlib.Path], object]) -> None:
    """Let `fill` write a file under another name, and rename it when it is whole, so that none is ever half-written.

    A file that is replaced hands on its mode and its ending, and a link goes on pointing.
    """
    check_writable(path)
    target = pathlib.Path(os.path.realpath(path))
    draft = target.with_name(f'.{target.stem[:40]}-{secrets.token_hex(6)}{target.suffix}')
    draft.touch(exist_ok=False)  # with the mode that new files have here
    try:
        if target.exists():
            draft.chmod(stat.S_IMODE(target.stat().st_mode))
        fill(draft)
        with draft.open('ab') as file:
            os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException:
        draft.unlink()
        raise


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], way: str, kinds: tuple = (Exception,)) -> Iterator[None]:
    """Make one sentence of what reading a file, and making sense of it, may raise: it is damaged, `way` is out."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except kinds as error:
        words = f'{error} is missing' if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ValueError(f'{path} is damaged ({" ".join(words.split())[:200].rstrip(".")}); {way}.') from None


@contextlib.contextmanager
def quiet_absl(level: int) -> Iterator[None]:
    """Drop what tensorflow-datasets and orbax log by absl, up to a level: what fails is said in one sentence."""
    from absl import logging as absl_logging

    is_severe = lambda record: record.levelno > level  # noqa: E731
    logger = absl_logging.get_absl_logger()
    logger.addFilter(is_severe)
    try:
        yield
    finally:
        logger.removeFilter(is_severe)


def write_json(path: pathlib.Path, content) -> None:
    """Write values as JSON; what it does not know as text (a path) or null (NaN, infinity)."""
    write_whole(path, lambda file: file.write_text(f'{_to_json(content, indent=1)}\n'))


def read_json(path: pathlib.Path, way: str = 'delete it', lines: bool = False):
    """Read JSON, or JSON lines, less one that was cut off in writing; `way` is out of damage."""
    with reading(path, way, (ValueError, RecursionError)):
        require(path.is_file() or not path.exists(), 'it is no regular file')  # a pipe would be waited for, for ever
        text = path.read_text()
        return [json.loads(line) for line in text.split('\n')[:-1]] if lines else json.loads(text)


def write_lines(path: pathlib.Path, rows: Iterable[dict]) -> None:
    """Write JSON lines, whole or not at all."""
    write_whole(path, lambda file: append_lines(file, rows))


def append_lines(path: pathlib.Path, rows: Iterable[dict]) -> None:
    """Add JSON lines to a file."""
    with path.open('a') as file:
        file.writelines(f'{_to_json(row)}\n' for row in rows)


def read_lines(path: pathlib.Path, way: str = 'delete it') -> list[dict]:
    """Read JSON lines; a missing file has none."""
    return read_json(path, way, lines=True) if path.exists() else []


def _to_json(content, indent: int | None = None) -> str:
    return json.dumps(json.loads(json.dumps(content, default=str), parse_constant=lambda name: None), indent=indent)


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of any dtype of jax; those that numpy's format does not know, as the bits they are."""
    foreign = {name: array.dtype.name for name, array in arrays.items() if array.dtype.isbuiltin == 2}
    known = {name: a.view(f'u{a.itemsize}') if name in foreign else a for name, a in arrays.items()}
    with path.open('wb') as file:
        np.savez(file, **known, **({DTYPES: np.array(json.dumps(foreign))} if foreign else {}))


def read_npz(content: bytes) -> dict[str, np.ndarray]:
    """Read what `write_npz`, or numpy, wrote; damage raises whatever the format's reader makes of it."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:  # entries as a whole, which alone are held against their sums
        entries = {name.removesuffix('.npy'): io.BytesIO(file.read(name)) for name in file.namelist()}
    arrays = {name: np.lib.format.read_array(entry, allow_pickle=False) for name, entry in entries.items()}
    foreign = json.loads(str(arrays.pop(DTYPES, '{}')))
    return {name: a.view(jnp.dtype(foreign[name])) if name in foreign else a for name, a in arrays.items()}


def import_extra(module: str, extra: str):
    """Import what an extra of hebbjax brings along, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        sentence = f"this needs {module.partition('.')[0]}, which is not there; pip install 'hebbjax[{extra}]'."
        raise ModuleNotFoundError(sentence) from None
