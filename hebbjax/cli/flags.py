"""Flags are fields of dataclasses, whose type hints say what a value may be, as a flag and in a run folder alike."""

import dataclasses
import functools
import os
import pathlib
import types
import typing
from typing import Annotated, Any

from hebbjax.support import checks

MOST = 10**6  # of anything that is counted: more epochs, images or neurons than anybody trains
LARGEST = 1e30  # of other numbers: beyond it float32 overflows before long, and below its inverse all is 0
# settings that say where, not what
PLACES = ('json', 'markdown', 'figure', 'figures', 'curves', 'data_dir', 'run', 'weights')


def choice(*known: str):
    """Give the type hint of a name among those that are known."""
    return Annotated[str, functools.partial(checks.check_choice, known=known)]


def whole(low: int, high: int = MOST):
    """Give the type hint of a whole number from `low` to `high`."""
    return Annotated[int, functools.partial(checks.check_count, least=low, most=high)]


def number(**bounds: float):
    """Give the type hint of a number within `bounds`, see `checks.check_number`."""
    most = {} if 'below' in bounds else {'most': LARGEST}
    return Annotated[float, functools.partial(checks.check_number, **most | bounds)]


Count, CountOrZero, Rank, Seeds, Seed = whole(1), whole(0), whole(2), whole(1, 1000), whole(0, 2**32 - 1)
Rate, Amount, NormExponent, Part = number(least=1 / LARGEST), number(least=0), number(above=1), number(above=0, below=1)


def check(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not what a hint says: text, a path, a switch, a hint above, `X | None`, or a tuple."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is not None:
            check(name, value, args[0])
    elif origin is tuple:
        is_open = args[-1] is Ellipsis
        fits = isinstance(value, list | tuple) and (is_open or len(value) == len(args))
        checks.require(fits, f'{name}={checks.show(value)} is no list{"" if is_open else f" of {len(args)} values"}.')
        for place, part in enumerate(value):
            check(f'{name}[{place}]', part, args[0 if is_open else place])
    elif origin is Annotated and isinstance(args[1], functools.partial):
        args[1](name, value)
    else:
        hint = args[0] if origin is Annotated else hint  # what tyro marks as positional
        kind, words = {pathlib.Path: (str | os.PathLike, 'path'), bool: (bool, 'switch')}.get(hint, (hint, 'text'))
        checks.require(isinstance(value, kind), f'{name}={checks.show(value)} is no {words}; give one.')


def check_settings(settings: Any) -> None:
    """Refuse settings, a dataclass, of which one is not what its type hint says, naming the flag."""
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        check(flag(field.name), getattr(settings, field.name), hints[field.name])


def flag(name: str) -> str:
    """Give a setting as it is written on the command line."""
    return f'--{name.replace("_", "-")}'


def settings_json(settings: Any) -> dict:
    """Give all settings of a dataclass but those that say where, as plain JSON values; of a file its name."""
    plain = lambda value: [*map(plain, value)] if isinstance(value, tuple) else getattr(value, 'name', value)  # noqa: E731
    return {name: plain(value) for name, value in dataclasses.asdict(settings).items() if name not in PLACES}
