"""Specs compare, hash and pickle by value, functions among them: two layers of the same settings are the same layer.

Python compares functions that functions return by identity, and refuses to pickle them. What such a function does
follows from its code and from what it closes over, so these are its value.
"""

import dataclasses
import dis
import functools
import hashlib
import io
import sys
import types
from collections.abc import Callable, Hashable
from typing import Any

import cloudpickle
import jax
import numpy as np

from hebbjax.support.checks import is_key, is_traced

_PLAIN = (type(None), int, float, complex, str, bytes, np.generic, np.dtype, type, types.ModuleType, types.CodeType,
          jax.sharding.Mesh)  # which keeps what it was asked among its attributes  # fmt: skip


class _Itself:
    """What is equal to itself alone; it is held on to, so that nothing else ever has its place in memory."""

    def __init__(self, thing):
        self.thing = thing

    def __eq__(self, other):
        return isinstance(other, _Itself) and self.thing is other.thing

    def __hash__(self):
        return id(self.thing)


def value_of(thing: Any, within: tuple = (), known: set | None = None) -> Hashable:
    """Give what two settings, met in what is `within`, have in common if and only if they are the same.

    Functions of a module are themselves. Others (closures, lambdas, what a notebook defines) are their code, defaults,
    and what they refer to outside. Arrays are their contents; what is traced is only itself, and anything unknown is
    itself with its attributes as they are now: a function may close over what is changed in place.
    """
    if isinstance(thing, _PLAIN):
        return type(thing), thing  # 1, 1.0 and True compile differently
    for depth, outer in enumerate(within):
        if thing is outer:
            return 'recursion', depth
    known = set() if known is None else known  # what its attributes are stands in the value already
    inner = functools.partial(value_of, within=(*within, thing), known=known)
    if isinstance(thing, tuple | list):
        return type(thing), *map(inner, thing)
    if isinstance(thing, dict | types.MappingProxyType):
        return dict, *map(inner, thing.items())
    if isinstance(thing, np.ndarray | jax.Array) and not is_traced(thing):
        array = np.ascontiguousarray(jax.random.key_data(thing) if is_key(thing) else thing)
        return array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).digest()
    if isinstance(thing, functools.partial):
        return functools.partial, *map(inner, (thing.func, thing.args, thing.keywords))
    if isinstance(thing, types.MethodType):
        return types.MethodType, thing.__func__.__qualname__, inner(thing.__self__)
    if isinstance(thing, types.FunctionType) and not _has_a_name(thing):
        around = thing.__globals__
        outside = {name: around[name] for name in sorted(_names(thing.__code__)) if name in around}
        cells = ['empty' if cell == types.CellType() else cell.cell_contents for cell in thing.__closure__ or ()]
        return thing.__module__, thing.__code__, *map(inner, (thing.__defaults__, thing.__kwdefaults__, outside, cells))
    if dataclasses.is_dataclass(thing):
        return type(thing), *map(inner, _settings(thing).values())
    itself = _Itself(thing)
    if is_traced(thing) or _has_a_name(thing) or itself in known:
        return itself
    known.add(itself)
    return itself, inner(getattr(thing, '__dict__', None))


def _has_a_name(thing) -> bool:
    """Say whether a thing is what its module knows by its name, so that the name says it all; `__main__` may change."""
    module, name = getattr(thing, '__module__', None), getattr(thing, '__qualname__', None)
    if not isinstance(module, str) or not isinstance(name, str) or module == '__main__':
        return False
    part_of = lambda owner, part: getattr(owner, part, None)  # noqa: E731
    return functools.reduce(part_of, name.split('.'), sys.modules.get(module)) is thing


def _names(code: types.CodeType) -> set[str]:
    """Name the globals that a function's code refers to, and that of functions within it."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ('LOAD_GLOBAL', 'LOAD_NAME')}
    return names.union(*(_names(part) for part in code.co_consts if isinstance(part, types.CodeType)))


def _settings(spec) -> dict[str, Any]:
    names = spec._fields if isinstance(spec, tuple) else [field.name for field in dataclasses.fields(spec)]
    return {name: getattr(spec, name) for name in names}


def _value(spec) -> Hashable:
    attributes = getattr(spec, '__dict__', {})  # a frozen dataclass stays what it is; a NamedTuple has none
    if '_value' not in attributes:
        attributes['_value'] = value_of(tuple(_settings(spec).values()))
    return attributes['_value']


class _Pickler(cloudpickle.Pickler):
    """A pickler of functions of any kind, by name wherever they have one: jitted ones too."""

    def reducer_override(self, obj):
        if obj is jax.Array:  # annotations name it, and its own name is not where it lies
            return getattr, (jax, 'Array')
        if callable(obj) and not isinstance(obj, type) and _has_a_name(obj):
            return obj.__qualname__
        return super().reducer_override(obj)


def specs_equal(self: Any, other: object, /) -> bool:
    """Say whether two specs, NamedTuples or dataclasses, have the same settings: their `__eq__`."""
    if self is other:
        return True
    return _value(self) == _value(other) if type(self) is type(other) else NotImplemented


def spec_hash(self: Any) -> int:
    """Hash a spec by its settings: its `__hash__`. A dataclass keeps it, since jit asks for it at every call."""
    attributes = getattr(self, '__dict__', {})
    if '_hash' not in attributes:
        attributes['_hash'] = hash(_value(self))
    return attributes['_hash']


def spec_reduce(self: Any) -> tuple[Any, ...]:
    """Take a spec apart for pickle, and for copy: its `__reduce__`."""
    _Pickler(file := io.BytesIO()).dump(_settings(self))
    return _rebuild, (type(self), file.getvalue())


def _rebuild(kind: type, settings: bytes):
    return kind(**cloudpickle.loads(settings))


@dataclasses.dataclass(frozen=True, eq=False)
class ByValue:
    """Anything, as a static argument of `jax.jit` that is compared by what it does."""

    thing: Any

    __eq__, __hash__ = specs_equal, spec_hash


def compiled_once(*specs: str) -> Callable:
    """Build a decorator: outside of `jax.jit`, a function compiles for new `specs`, arguments by name, and shapes."""
    return functools.partial(jax.jit, static_argnames=specs, inline=True)
