"""What stands around the synapses: two chains of parts, before windows are cut (`pre`) and after drives (`post`).

A part is a function of maps that treats every image by itself, such as `relu` or `max_pool(2)`; or it has `apply(state,
x, train, key) -> (x, state)`, and where it has a state `init(key, shape) -> PartState`, such as `BatchNorm()`. What has
an `apply` sees a batch as a whole, unless its attribute `by_image` is True and it has no `init`. On a mesh it sees a
device's share, of which `mean_over_devices` and `moments_over_devices` make the whole; what a state keeps has to be
that. What goes by the layer's weights, in `post` alone, has `bind(w) -> part` instead, such as `Decorrelate()`. A class
of your own is best a frozen dataclass, equal by its settings: equal layers share their compiled programs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hebbjax.base import Array, Key
from hebbjax.layers.patches import Grid, Window, lay_grid

Shape = tuple[int, ...]


class PartState(NamedTuple):
    """What a part has."""

    params: Any = ()  # learned by gradient alone
    stats: Any = ()  # moved by whatever trains: running averages


def init_chain(parts: Sequence[Any], key: Key, shape: Shape) -> tuple[PartState, ...]:
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


def chain_shape(parts: Sequence[Any], states: Sequence[PartState], shape: Shape) -> Shape:
    """Say what a chain makes of maps of one image of this shape, without computing anything."""
    maps = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(lambda x, states: apply_chain(parts, states, x)[0], maps, tuple(states)).shape[1:]


def lay_behind(parts: Sequence[Any], window: Window, image_shape: Shape) -> Grid:
    """Lay a window over what a chain makes of images (H, W, C)."""
    states = jax.eval_shape(lambda: init_chain(parts, jax.random.key(0), image_shape))
    return lay_grid(window, chain_shape(parts, states, image_shape))


def bind_weights(parts: Sequence[Any], w: Array) -> tuple[Any, ...]:
    """Give a chain whose parts know the layer's weights [N, D], as far as they go by them; once for all of a batch."""
    return tuple(part.bind(w) if hasattr(part, 'bind') else part for part in parts)


def apply_chain(
    parts: Sequence[Any], states: Sequence[PartState], x: Array, train: bool = False, key: Key | None = None
) -> tuple[Array, tuple[PartState, ...]]:
    """Pass maps [B, H, W, C] through parts in order. -> maps, and the parts' states; a key: what dropout draws by."""
    moved = []
    for number, (part, state) in enumerate(zip(parts, states)):
        if hasattr(part, 'apply'):
            part_key = key if key is None or not number else jax.random.fold_in(key, number)
            x, state = part.apply(state, x, train, part_key)
        else:
            x = part(x)
        moved.append(state)
    return x, tuple(moved)


def count_by_image(parts: Sequence[Any]) -> int:
    """Say how many parts at the beginning treat every image by itself, so that a batch may come in microbatches."""
    by_image = lambda part: getattr(part, 'by_image', False) and not hasattr(part, 'init')  # noqa: E731
    return [*(by_image(part) or not hasattr(part, 'apply') for part in parts), False].index(False)
