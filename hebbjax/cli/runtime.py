"""How a command runs, whatever it does: where compiled programs are kept, and whether there is a device."""

import dataclasses
import os
import pathlib
from typing import Annotated

import jax
import tyro
from tyro.constructors import PrimitiveConstructorSpec

FOLDER = Annotated[
    pathlib.Path | None,
    PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar='[FOLDER]',
        instance_from_str=lambda words: pathlib.Path(*words) if words else default_cache(),
        is_instance=lambda value: value is None or isinstance(value, pathlib.Path),
        str_from_instance=lambda value: ['off' if value is None else str(value)],
    ),
]


def with_cache(kind: type) -> type:
    """Give a dataclass of flags with `--compilation-cache [FOLDER]` behind all others."""
    help_text = 'Keep compiled programs for later runs, in ~/.cache/hebbjax where no FOLDER is named; left out: nowhere'
    cache = Annotated[FOLDER, tyro.conf.arg(help=help_text)]
    field = 'compilation_cache', cache, dataclasses.field(default=None, kw_only=True)
    same = {name: getattr(kind, name) for name in ('__doc__', '__module__', '__qualname__')}  # where help is read from
    frozen = kind.__dataclass_params__.frozen
    return dataclasses.make_dataclass(kind.__name__, [field], bases=(kind,), frozen=frozen, namespace=same)


def default_cache() -> pathlib.Path:
    """Give the folder in which compiled programs are kept where none is named."""
    return pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'hebbjax'


def keep_programs(folder: pathlib.Path) -> None:
    """Keep all compiled programs in a folder, made where there is none, and take those that are there."""
    folder = folder.expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f'{folder} cannot be written; name another folder behind --compilation-cache.')
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)  # else nothing small is kept
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def missing_device() -> str | None:
    """Say that what JAX_PLATFORMS asks for is not there; None: it is."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # jax 0.10 asserts it of a platform that it has no plugin for
        asked = f'JAX_PLATFORMS={jax.config.jax_platforms}'
        return f'{asked} names no device that jax finds; install what it needs, such as jax[cuda], or leave it out.'
    return None
