"""What settings and files may hold, said by type hints: flags and what lies on disk are checked by one function."""

import dataclasses
import numbers
import os
import pathlib
import reprlib
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

from hebbjax import files

MOST = 10**6  # of anything that is counted: more epochs, images or neurons than anybody trains
LARGEST = 1e30  # of other numbers: beyond it float32 overflows before long
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


class Fits(NamedTuple):
    """What a number has to be, beside its type."""

    words: str
    test: Callable[[Any], bool]

    def __repr__(self) -> str:  # as tyro shows it where a flag cannot be read
        return self.words


Count = Annotated[int, Fits(f'a whole number from 1 to {MOST}', lambda value: 1 <= value <= MOST)]
CountOrZero = Annotated[int, Fits(f'a whole number from 0 to {MOST}', lambda value: 0 <= value <= MOST)]
Seeds = Annotated[int, Fits('a whole number from 1 to 1000', lambda value: 1 <= value <= 1000)]
Seed = Annotated[int, Fits(f'a whole number from 0 to {2**32 - 1}', lambda value: 0 <= value < 2**32)]
Rank = Annotated[int, Fits(f'a whole number from 2 to {MOST}', lambda value: 2 <= value <= MOST)]
# smaller ones are 0 in float32, or will be
Rate = Annotated[float, Fits(f'a number from {1 / LARGEST:g} to {LARGEST:g}', lambda value: value >= 1 / LARGEST)]
Amount = Annotated[float, Fits(f'a number from 0 to {LARGEST:g}', lambda value: value >= 0)]
Power = Annotated[float, Fits(f'a number from 1 to {LARGEST:g}', lambda value: value >= 1)]
NormExponent = Annotated[float, Fits(f'a number above 1, up to {LARGEST:g}', lambda value: value > 1)]
Part = Annotated[float, Fits('a number above 0 and below 1', lambda value: 0 < value < 1)]
PartOrZero = Annotated[float, Fits('a number from 0 on, below 1', lambda value: 0 <= value < 1)]

SCALARS = {
    bool: (bool, 'true or false'),
    int: (numbers.Integral, 'a whole number'),
    float: (numbers.Real, 'a finite number'),
    str: (str, 'text'),
    pathlib.Path: (str | os.PathLike, 'a path'),
    dict: (dict, 'an object'),
}


def check(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not what a type hint says, at any depth.

    Hints are those of settings and of JSON: scalars, `X | None`, Literal, lists, tuples, NamedTuples (lists in JSON),
    dicts with string keys, TypedDicts; numbers may have a `Fits` beside their type.

    Args:
        name: of the value, for the sentence.
        value: a Python, numpy or JSON value.
        hint: its type.

    Raises:
        ValueError: naming the first value that does not fit, and what would.
    """
    kind, args = typing.get_origin(hint), typing.get_args(hint)
    if kind is NotRequired:
        check(name, value, args[0])
    elif kind is Annotated:
        for fits in (mark for mark in args[1:] if isinstance(mark, Fits)):
            if not _is_scalar(value, args[0]) or not fits.test(value):
                raise _misfit(name, value, fits.words)
        check(name, value, args[0])
    elif kind in (types.UnionType, typing.Union):
        if value is not None:
            check(name, value, next(one for one in args if one is not type(None)))
    elif kind is Literal:
        if value not in args:
            raise _misfit(name, value, ' or '.join(map(str, args)))
    elif kind is dict or typing.is_typeddict(hint):
        if not isinstance(value, dict):
            raise _misfit(name, value, 'an object')
        hints = dict.fromkeys(value, args[-1]) if kind else typing.get_type_hints(hint, include_extras=True)
        for key, own in hints.items():
            if key in value:
                check(f'{name}[{shown(key)}]', value[key], own)
            elif key in hint.__required_keys__:
                raise ValueError(f'{name} lacks {key!r}.')
    elif kind in (list, tuple) or (isinstance(hint, type) and issubclass(hint, tuple)):
        if not kind:
            args = tuple(typing.get_type_hints(hint, include_extras=True).values())
        some = kind is list or args[1:] == (Ellipsis,)
        if not isinstance(value, list | tuple) or not (some or len(value) == len(args)):
            raise _misfit(name, value, 'a list' if some else f'a list of {len(args)}')
        for place, (one, own) in enumerate(zip(value, [args[0]] * len(value) if some else args)):
            check(f'{name}[{place}]', one, own)
    elif not _is_scalar(value, hint):
        raise _misfit(name, value, SCALARS[hint][1])


def _is_scalar(value, hint) -> bool:
    if isinstance(value, bool) and hint is not bool:  # a subclass of int, in Python
        return False
    return isinstance(value, SCALARS[hint][0]) and not (hint is float and not abs(value) <= LARGEST)


def _misfit(name, value, wanted) -> ValueError:
    return ValueError(f'{name} {shown(value)} does not fit; use {wanted}.')


def shown(value: Any) -> str:
    """Show a value in a few words, on one line."""
    plain = isinstance(value, str) and value.isprintable() and 0 < len(value) <= _short.maxstring
    return value if plain else _short.repr(value)


def check_settings(config: Any) -> None:
    """Refuse settings, a dataclass, of which one is not what its type hint says.

    Raises:
        ValueError: naming the flag, its value and what would do.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        check(flag(field.name), getattr(config, field.name), hints[field.name])


def flag(name: str) -> str:
    """Give a setting as it is written on the command line."""
    return '--' + name.replace('_', '-')


def read_file(path: pathlib.Path, hint: Any, way: str, reader: Callable[[pathlib.Path], Any] = files.read_json) -> Any:
    """Read a file of JSON, and check it against its type.

    Args:
        path: of the file.
        hint: what it has to hold.
        way: out, for the sentence about another content.
        reader: `files.read_json`, or `files.read_lines`, which gives a list.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    found = reader(path)
    try:
        check('its content' if reader is files.read_json else 'lines', found, hint)
    except ValueError as error:
        raise ValueError(f'{path} is damaged ({without_stop(error)}); {way}.') from None
    return found


def without_stop(error: Exception) -> str:
    """Give an error's sentence to stand within another one."""
    return str(error).rstrip('.')
