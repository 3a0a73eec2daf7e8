"""Flags are fields of dataclasses, whose type hints say what a value may be, as a flag and in a run folder alike."""

import dataclasses
import numbers
import os
import pathlib
import types
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple

from hebbjax.support.checks import require, show

MOST = 10**6  # of anything that is counted: more epochs, images or neurons than anybody trains
LARGEST = 1e30  # of other numbers: beyond it float32 overflows before long, and below its inverse all is 0
PLACES = ('json', 'markdown', 'figure', 'figures', 'curves', 'data_dir', 'run')  # settings that say where, not what


class Fits(NamedTuple):
    """What a value has to be, beside its type."""

    words: str
    test: Callable[[Any], bool]


def choice(*known: str):
    """Give the type hint of a name among those that are known."""
    return Annotated[str, Fits(', '.join(known), known.__contains__)]


def whole(low: int, high: int = MOST):
    """Give the type hint of a whole number from `low` to `high`."""
    return Annotated[int, Fits(f'a whole number from {low} to {high}', lambda value: low <= value <= high)]


Count, CountOrZero, Rank, Seeds, Seed = whole(1), whole(0), whole(2), whole(1, 1000), whole(0, 2**32 - 1)
Rate = Annotated[float, Fits(f'a number from {1 / LARGEST:g} to {LARGEST:g}', lambda value: value >= 1 / LARGEST)]
Amount = Annotated[float, Fits(f'a number from 0 to {LARGEST:g}', lambda value: value >= 0)]
Power = Annotated[float, Fits(f'a number from 1 to {LARGEST:g}', lambda value: value >= 1)]
NormExponent = Annotated[float, Fits(f'a number above 1, up to {LARGEST:g}', lambda value: value > 1)]
Part = Annotated[float, Fits('a number above 0 and below 1', lambda value: 0 < value < 1)]
PartOrZero = Annotated[float, Fits('a number from 0 on, below 1', lambda value: 0 <= value < 1)]
KINDS = {int: (numbers.Integral, 'a whole number'), float: (numbers.Real, f'a number from {-LARGEST:g} to {LARGEST:g}'),
         str: (str, 'text'), pathlib.Path: (str | os.PathLike, 'a path')}  # fmt: skip


def check(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not what a hint says: a scalar, which may have a `Fits`, `X | None`, or tuples of them."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    is_word = isinstance(value, str) and value.isprintable() and 0 < len(value) <= 60
    came = value if is_word else show(value)
    if origin in (types.UnionType, typing.Union):
        if value is not None:
            check(name, value, args[0])
    elif origin is tuple:
        is_open = args[-1] is Ellipsis
        fits = isinstance(value, list | tuple) and (is_open or len(value) == len(args))
        require(fits, f'{name} {came} does not fit; use a list{"" if is_open else f" of {len(args)}"}.')
        for place, part in enumerate(value):
            check(f'{name}[{place}]', part, args[0 if is_open else place])
    else:
        kind = args[0] if origin is Annotated else hint
        accepted, words = KINDS[kind]
        bounds = next((mark for mark in args[1:] if isinstance(mark, Fits)), Fits(words, lambda value: True))
        fits = isinstance(value, accepted) and not isinstance(value, bool)  # a subclass of int, in Python
        fits = fits and (kind is not float or abs(value) <= LARGEST) and bounds.test(value)
        way = 'is unknown; there are' if kind is str else 'does not fit; use'
        require(fits, f'{name} {came} {way} {bounds.words}.')


def check_settings(settings: Any) -> None:
    """Refuse settings, a dataclass, of which one is not what its type hint says, naming the flag."""
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        check(flag(field.name), getattr(settings, field.name), hints[field.name])


def refuse_unknown(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse the value of a setting that is none of those that are known."""
    check(flag(name), value, choice(*known))


def flag(name: str) -> str:
    """Give a setting as it is written on the command line."""
    return f'--{name.replace("_", "-")}'


def settings_json(settings: Any) -> dict:
    """Give all settings of a dataclass but the names of files, as plain JSON values."""
    values = {name: value for name, value in dataclasses.asdict(settings).items() if name not in PLACES}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
