"""What stands around the synapses: two chains of parts, before windows are cut (`pre`) and after drives (`post`).

A part is a function of maps that treats every image by itself, such as `relu` or `max_pool(2)`; or it has `apply(state,
x, train, key) -> (x, state)`, and where it has a state `init(key, shape) -> PartState`, such as `BatchNorm()`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hebbjax.base import Array, Key
from hebbjax.support import checks

Shape = tuple[int, ...]


class PartState(NamedTuple):
    """What a part has."""

    params: Any = ()  # learned by gradient alone
    stats: Any = ()  # moved by whatever trains: running averages


@dataclasses.dataclass(frozen=True)
class Stateless:
    """A function of maps as a part."""

    f: Callable[[Array], Array]
    by_image = True

    def apply(self, state: PartState, x: Array, train: bool = False, key: Key | None = None):
        """Compute `f(x)`."""
        return self.f(x), state


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Silence a share of what passes while a layer learns by gradient, `x m / (1 - rate)`; else pass everything."""

    rate: float  # the share, in [0, 1)
    maps: bool = False  # draw for each channel of an image, rather than for each value
    by_image = True

    def __post_init__(self):
        fits = not checks.is_misfit(self.rate, lambda share: 0 <= share < 1)
        checks.require(fits, f'dropout {checks.show(self.rate)} leaves nothing to learn from; use 0 <= dropout < 1.')

    def apply(self, state: PartState, x: Array, train: bool = False, key: Key | None = None):
        """Draw anew for every batch, where there is a key to draw with."""
        if key is None or not train or self.rate == 0:
            return x, state
        shape = (len(x), *(1,) * (x.ndim - 2), x.shape[-1]) if self.maps else x.shape
        return x * jax.random.bernoulli(key, 1 - self.rate, shape).astype(x.dtype) / (1 - self.rate), state


def check_chain(name: str, parts) -> tuple:
    """Return a chain as a tuple, or refuse what is no part; a single part is a chain of one."""
    parts = tuple(parts) if isinstance(parts, tuple | list) else (parts,)
    for part in parts:
        wants = f'{name} of a layer is a tuple of parts, functions of maps such as relu or BatchNorm(); this is'
        checks.require(callable(part) or hasattr(part, 'apply'), f'{wants} {checks.show(part)}.')
    return parts


def as_part(part) -> Any:
    """Give a part in full; a function becomes one without a state."""
    return part if hasattr(part, 'apply') else Stateless(part)


def init_chain(parts: Sequence, key: Key, shape: Shape) -> tuple[PartState, ...]:
    """Make the first states of a chain for maps of one image of this shape, (H, W, C)."""
    states, drawn = [], 0
    for part in parts:
        state = PartState()
        if hasattr(part, 'init'):  # the first draws by the key itself
            state = part.init(jax.random.fold_in(key, drawn) if drawn else key, shape)
            drawn += 1
        states.append(state)
        shape = chain_shape((part,), (state,), shape)
    return tuple(states)


def chain_shape(parts: Sequence, states: Sequence[PartState], shape: Shape) -> Shape:
    """Say what a chain makes of maps of one image of this shape, without computing anything."""
    maps = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(lambda x, states: apply_chain(parts, states, x)[0], maps, tuple(states)).shape[1:]


def apply_chain(parts: Sequence, states: Sequence, x: Array, train: bool = False, key: Key | None = None):
    """Pass maps [B, H, W, C] through parts in order. -> maps, and the parts' states; a key: what dropout draws by."""
    moved = []
    for number, (part, state) in enumerate(zip(parts, states)):
        part_key = key if key is None or not number else jax.random.fold_in(key, number)
        x, state = as_part(part).apply(state, x, train, part_key)
        moved.append(state)
    return x, tuple(moved)


def count_by_image(parts: Sequence) -> int:
    """Say how many parts at the beginning treat every image by itself, so that a batch may come in microbatches."""
    return next((number for number, part in enumerate(parts) if not as_part(part).by_image), len(parts))
