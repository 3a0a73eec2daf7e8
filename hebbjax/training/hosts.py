"""Several processes that train one network together: they begin alike, and every epoch ends alike for all of them.

What every process has of `jax.distributed` is all there is to it; each reads its own part of the data, has the whole
state, and calls every callback but those that are `first_only`, which write.
"""

import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather
from jax.sharding import Mesh

from hebbjax.data.forms import part_of
from hebbjax.support.checks import is_key
from hebbjax.support.devices import host_count
from hebbjax.support.signals import Listener

TEXT_SIZE = 4096  # bytes that texts are filled up to, so that those of all epochs are sent by one program
BROKEN = 'Gloo ', 'NCCL ', 'RCCL ', 'oordination', 'UNAVAILABLE', 'DEADLINE_EXCEEDED'  # in what jax raises then


def check_agree(mesh: Mesh | None, settings: Mapping[str, Any]) -> None:
    """Refuse, on all processes of a mesh, what is not the same on all of them: name -> text, or pytree of arrays."""
    if host_count(mesh) == 1:
        return
    bytes_of = lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf).tobytes()  # noqa: E731
    contents = (b''.join(map(bytes_of, jax.tree.leaves(value))) for value in settings.values())
    with losing_none(mesh):
        of_all = process_allgather(np.array([*map(zlib.crc32, contents)], np.uint32))
    differ = (of_all != of_all[0]).any(0)  # [settings]
    if differ.any():
        (name, value), others = [*settings.items()][differ.argmax()], (of_all != of_all[0])[:, differ.argmax()]
        here = f' ({value} here)' if isinstance(value, str) and len(value) < 200 else ''
        what = f'process {others.argmax()} and process 0 differ in {name}{here}'
        raise ValueError(f'{what}; start all with the same settings, and with parts of the data of equal size.')


def take_part(arrays: Sequence[Any], mesh: Mesh | None) -> Sequence[Any]:
    """Give a process of a mesh its part of arrays that all of them have; None stays None."""
    if host_count(mesh) == 1:
        return arrays
    rows = part_of((jax.process_index(), jax.process_count()), len(arrays[0]))
    return [None if array is None else array[rows] for array in arrays]


def from_first(content: Any) -> Any:
    """Give all processes what the first one has, anything that JSON can hold."""
    text = np.frombuffer(json.dumps(content).encode(), np.uint8)
    size = int(broadcast_one_to_all(np.int32(-(-len(text) // TEXT_SIZE) * TEXT_SIZE)))
    padded = np.full(max(size, len(text)), ord(' '), np.uint8)
    padded[: len(text)] = text
    return json.loads(broadcast_one_to_all(padded[:size]).tobytes())


def agree(context: Any, listener: Listener) -> None:
    """End an epoch alike on all: with the first one's metrics and `stop`, and by a signal that any of them heard."""
    metrics, ended = from_first((context.metrics, context.position.ended))
    context.metrics.update(metrics)
    context.position = context.position._replace(ended=ended)
    if heard := int(process_allgather(np.int32(listener.heard or 0)).max()):
        listener.heard, listener.waits = heard, False


@contextlib.contextmanager
def losing_none(mesh: Mesh | None) -> Iterator[None]:
    """Make one sentence of what jax raises when another process of a mesh has ended."""
    try:
        yield
    except (ValueError, RuntimeError) as error:  # gloo's are ValueErrors
        if host_count(mesh) == 1 or not any(word in str(error) for word in BROKEN):
            raise
        reason = ' '.join(str(error).split())[:100].partition(' [')[0].rstrip(':.')
        way = 'start all of them again, from the last checkpoint if there is one'
        raise ConnectionError(f'another process has ended, and training ends with it ({reason}); {way}.') from None
