"""Specs compare, hash and pickle by value, functions among them: two layers of the same settings are the same layer.

Rules, optimizers and activations are built by functions that return functions, which Python compares by identity and
refuses to pickle. What such a function does follows from its code and from what it closes over, so these are its value.
"""

import dataclasses
import dis
import functools
import hashlib
import io
import sys
import types
from collections.abc import Hashable
from typing import Any

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np

from hebbjax.checks import is_traced

PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    np.generic,
    np.dtype,
    type,
    types.ModuleType,
    types.CodeType,
)


class Itself:
    """A thing that is equal to itself alone."""

    def __init__(self, thing):
        self.thing = thing  # kept, so that nothing else ever has its place in memory

    def __eq__(self, other):
        return isinstance(other, Itself) and self.thing is other.thing

    def __hash__(self):
        return id(self.thing)


def value_of(thing: Any, within: tuple = ()) -> Hashable:
    """Give what two settings have in common if and only if they are the same.

    Functions of a module are themselves. Others (closures, lambdas, what a notebook defines) are their code, defaults,
    and what they refer to outside. Arrays are their contents; what is traced, or anything unknown, is only itself.

    Args:
        thing: a setting.
        within: functions that this one was met in, so that one that refers to itself comes to an end.
    """
    if isinstance(thing, PLAIN):
        return type(thing), thing  # 1, 1.0 and True compile differently
    inner = functools.partial(value_of, within=(*within, thing))
    if any(thing is outer for outer in within):
        return 'recursion', next(depth for depth, outer in enumerate(within) if thing is outer)
    if isinstance(thing, tuple | list):
        return type(thing), *map(inner, thing)
    if isinstance(thing, dict):
        return dict, *((inner(key), inner(value)) for key, value in thing.items())
    if isinstance(thing, np.ndarray | jax.Array) and not is_traced(thing):
        return _contents(thing)
    if isinstance(thing, functools.partial):
        return functools.partial, inner(thing.func), inner(thing.args), inner(thing.keywords)
    if isinstance(thing, types.MethodType):
        return types.MethodType, thing.__func__.__qualname__, inner(thing.__self__)
    if _has_a_name(thing):
        return Itself(thing)
    if isinstance(thing, types.FunctionType):
        return _function(thing, inner)
    if dataclasses.is_dataclass(thing):
        return type(thing), *(inner(getattr(thing, field.name)) for field in dataclasses.fields(thing))
    return Itself(thing)


def _contents(array) -> Hashable:
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.ascontiguousarray(array)
    return array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).digest()


def _has_a_name(thing) -> bool:
    """Say whether a thing is what its module knows by its name, so that the name says it all; `__main__` may change."""
    module, name = getattr(thing, '__module__', None), getattr(thing, '__qualname__', None)
    if not isinstance(module, str) or not isinstance(name, str) or module == '__main__':
        return False
    found = sys.modules.get(module)
    for part in name.split('.'):
        found = getattr(found, part, None)
    return found is thing


def _function(f: types.FunctionType, inner) -> Hashable:
    cells = []
    for cell in f.__closure__ or ():
        try:
            cells.append(inner(cell.cell_contents))
        except ValueError:  # not filled yet
            cells.append('empty')
    outside = {name: f.__globals__[name] for name in _names(f.__code__) if name in f.__globals__}
    return f.__module__, f.__code__, inner(f.__defaults__), inner(f.__kwdefaults__), inner(outside), *cells


def _names(code: types.CodeType) -> list[str]:
    """Name the globals that a function's code refers to, and that of functions within it."""
    names = [one.argval for one in dis.get_instructions(code) if one.opname in ('LOAD_GLOBAL', 'LOAD_NAME')]
    within = [name for part in code.co_consts if isinstance(part, types.CodeType) for name in _names(part)]
    return list(dict.fromkeys((*names, *within)))


class _Pickler(cloudpickle.Pickler):
    """A pickler of functions of any kind, by name wherever they have one: jitted ones too."""

    def reducer_override(self, thing):
        if thing is jax.Array:  # annotations name it, and its own name is not where it lies
            return getattr, (jax, 'Array')
        if callable(thing) and not isinstance(thing, type) and _has_a_name(thing):
            return thing.__qualname__
        return super().reducer_override(thing)


# What NamedTuples and dataclasses take as `__eq__`, `__hash__` and `__reduce__`, to go by the values of their fields.


def same(spec, other) -> bool:
    """Say whether two specs have the same settings."""
    if spec is other:
        return True
    return _value(spec) == _value(other) if type(spec) is type(other) else NotImplemented


def hashed(spec) -> int:
    """Hash a spec by its settings."""
    return hash(_value(spec))


def reduced(spec):
    """Take a spec apart for pickle, and for copy."""
    file = io.BytesIO()
    _Pickler(file).dump(_settings(spec))
    return _rebuilt, (type(spec), file.getvalue())


def _rebuilt(kind: type, settings: bytes):
    return kind(*cloudpickle.loads(settings))


def _settings(spec) -> tuple:
    return (
        tuple(spec) if isinstance(spec, tuple) else tuple(getattr(spec, one.name) for one in dataclasses.fields(spec))
    )


def _value(spec) -> Hashable:
    if isinstance(spec, tuple):
        return value_of(tuple(spec))
    if '_value' not in vars(spec):  # a frozen dataclass stays what it is
        object.__setattr__(spec, '_value', value_of(_settings(spec)))
    return vars(spec)['_value']


def compiled_once(*specs: str):
    """Build a decorator: a function that is called outside of `jax.jit` compiles for new specs and shapes alone.

    Loops in it would be compiled anew at every call, since their bodies are new functions each time. Inside of
    `jax.jit` it is part of that program, as if it stood there.

    Args:
        specs: names of the arguments that are no arrays, such as a network; they are told apart by value.
    """

    def decorate(f):
        return functools.wraps(f)(jax.jit(f, static_argnames=specs, inline=True))

    return decorate
