"""States on disk: in one file (`save_state`), and along a training, in a folder that orbax-checkpoint writes.

A state is any pytree of arrays and typed keys, read into another one of the same leaves, shapes and dtypes. Order and
draws of every epoch follow from its key and step, so a training goes on as if it had never been interrupted.
"""

import json
import logging
import math
import pathlib
import shutil
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hebbjax.base import AnyPath, State
from hebbjax.layers.network import TrainState
from hebbjax.support import files
from hebbjax.support.checks import check_count, is_key, require
from hebbjax.support.devices import own_copy
from hebbjax.support.signals import hold_signals
from hebbjax.training.loop import CallbackContext, Position

SUMS = 'checksums.json'  # of a checkpoint's files
# orbax's: about to be deleted; not yet renamed into place
DISCARDED, UNFINISHED = '.discarded', '.orbax-checkpoint-tmp'


def save_state(path: AnyPath, state: State) -> None:
    """Write a state to one npz file, keys included; an old file is replaced only when the new one is whole."""
    leaves = leaf_arrays(state)
    names = np.array(json.dumps({'format': 'hebbjax state 1', 'leaves': list(leaves)}))
    arrays = {f'{number}': leaf for number, leaf in enumerate(leaves.values())} | {'names': names}
    files.write_whole(pathlib.Path(path), lambda file: files.write_npz(file, arrays))


def load_state(path: AnyPath, like: State) -> State:
    """Read a state back from a file of `save_state`, into the structure of another one, such as a fresh `init`'s."""
    content = pathlib.Path(path).read_bytes()
    with files.reading(path, 'save it again'):
        arrays = files.read_npz(content)
        saved = {name: arrays[f'{n}'] for n, name in enumerate(json.loads(str(arrays['names']))['leaves'])}
    return rebuild_state(path, saved, like)


class Checkpoints:
    """A callback that keeps a training in a folder, by orbax: the last `keep` of its checkpoints, and the best.

    One is written `every` so many epochs, when the metric `best` has its `largest`, or else smallest, value so far,
    where a stage ends, and when training is interrupted; after all other callbacks, so that what they said is in it.
    It is renamed into place when it is whole, so a process may be killed at any time; who reads changes nothing.
    """

    after_all, first_only = True, True  # and Ctrl-C waits, so that what is kept is a whole epoch

    def __init__(self, folder: AnyPath, *, every: int = 1, keep: int = 2,
                 best: str | None = None, largest: bool = True):  # fmt: skip
        check_count('every', every)
        check_count('keep', keep)
        self.folder: pathlib.Path = pathlib.Path(folder).absolute()
        self._manager, self._every, self._keep = None, every, keep
        self._best, self._sign = best, 1 if largest else -1

    def begin(self, context: CallbackContext) -> None:
        """Make the folder ready, and refuse to keep a training among the later epochs of another one."""
        self._clear()
        last, now, self._manager = max(self.epochs(), default=0), context.epoch, None  # which remembers what is gone
        way = f'go on from it with training.resume, delete it with Checkpoints.forget({now}), or name another folder'
        stands = f'{self.folder} holds a checkpoint of epoch {last}, and this training stands at {now}'
        require(last <= now, f'{stands}; {way}.')

    def __call__(self, context: CallbackContext) -> None:
        if self._best is not None:
            context.values_of(self._best)  # refuses one that is unknown
        if context.is_due(self._every) or self._best_epoch(context.history) == context.epoch:
            self.save(context)

    def finish(self, context: CallbackContext) -> None:
        """Save the last whole epoch, if that has not been done."""
        if context.epoch > max(self.epochs(), default=-1):
            self.save(context)

    def save(self, context: CallbackContext) -> None:
        """Save now, Ctrl-C waits; where that cannot be done (OSError), what was kept before stays."""
        arrays, kept = {name: leaf for name, leaf in leaf_arrays(context.state).items() if leaf.size}, self.epochs()
        path, self._history = self.folder / str(context.epoch), context.history
        with hold_signals(), files.quiet_absl(logging.ERROR):  # orbax's threads say at length what is said below
            try:
                manager, args = self._open()
                parts = {'state': args.StandardSave(arrays), 'record': args.JsonSave(context.position._asdict())}
                manager.save(context.epoch, args=args.Composite(**parts))
                files.write_json(path / SUMS, file_sums(path))
            except Exception as error:  # orbax and its writers raise anything
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200].rstrip('.')
                reason = 'No space left on device' if 'No space left' in str(error) else reason
                raise OSError(f'{path} could not be written ({reason}); epochs {kept} are kept.') from None
            finally:
                self._clear()

    def epochs(self) -> list[int]:
        """Give the epochs that are kept, in order."""
        return sorted(int(path.name) for path in self.folder.glob('*') if path.name.isdecimal())

    def _best_epoch(self, rows) -> int | None:
        """Give the first epoch with the best metric; None where none was judged."""
        scores = {row['epoch']: self._sign * row.get(self._best, math.nan) for row in rows}
        return max((epoch for epoch in scores if math.isfinite(scores[epoch])), key=scores.get, default=None)

    def forget(self, after: int) -> None:
        """Delete the checkpoints of later epochs, so that a training can go on from an earlier one."""
        for epoch in self.epochs():
            if epoch > after:
                self._open()[0].delete(epoch)
        self._clear()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Say which to keep, as orbax asks it; its own policies fail where one checkpoint of many is damaged."""
        epochs = [checkpoint.step for checkpoint in checkpoints]
        best = self._best_epoch(row for row in self._history if row['epoch'] in epochs)
        return [epoch in (*epochs[-self._keep :], best) for epoch in epochs]

    def _open(self):
        from orbax import checkpoint as ocp  # late: it takes longer to import than all of jax

        if self._manager is None:
            how = {'enable_async_checkpointing': False, 'create': False, 'lightweight_initialize': True}
            if jax.process_count() > 1:  # states are whole on every process, and one that writes waits for no other
                own = jax.process_index()
                alone = {'primary_host': own, 'active_processes': {own}, 'barrier_sync_key_prefix': f'{own}'}
                how['multiprocessing_options'] = ocp.options.MultiprocessingOptions(**alone)
            options = ocp.CheckpointManagerOptions(preservation_policy=self, todelete_subdir=DISCARDED, **how)
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager, ocp.args

    def _clear(self):
        """Make the folder, and clear away what a process that was killed left in it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f'{error.strerror}); name a folder of yours.'
            raise type(error)(f'checkpoints cannot be kept in {self.folder} ({reason}') from None
        for leftover in (self.folder / DISCARDED, *self.folder.glob(f'*{UNFINISHED}*')):
            shutil.rmtree(leftover, ignore_errors=True)


def resume(checkpoints: Checkpoints, like: TrainState, epoch: int | None = None) -> tuple[TrainState, Position]:
    """Read a checkpoint, by default the last, for `fit(..., position=...)`, into the structure of another state."""
    kept, folder = checkpoints.epochs(), checkpoints.folder
    epoch = max(kept, default=None) if epoch is None else epoch
    if epoch not in kept:
        which = 'any epoch' if epoch is None else f'epoch {epoch}'
        raise FileNotFoundError(f'{folder} has no checkpoint of {which}; there are those of epochs {kept}.')
    path, others = folder / str(epoch), [other for other in kept if other != epoch]
    with files.reading(path, f'there are others, of epochs {others}' if others else 'there is no other'):
        # before orbax, which is loud about damage; a save that was killed at its end has written none
        if (path / SUMS).exists() and files.read_json(path / SUMS) != file_sums(path):
            raise ValueError('a checksum differs')
        manager, args = checkpoints._open()
        parts = {'state': args.StandardRestore(), 'record': args.JsonRestore()}
        content = manager.restore(epoch, args=args.Composite(**parts))
        position = Position(**content['record'] | {'history': tuple(content['record']['history'])})
    empty = {name: leaf for name, leaf in leaf_arrays(like).items() if not leaf.size}  # orbax writes none
    return rebuild_state(path, content['state'] | empty, like), position


def file_sums(folder: pathlib.Path) -> dict[str, int]:
    """Sum up every file of a checkpoint, so that a byte that has changed is noticed."""
    paths = [path for path in folder.rglob('*') if path.is_file() and path.name != SUMS]
    return {str(path.relative_to(folder)): zlib.crc32(path.read_bytes()) for path in paths}


def leaf_arrays(state) -> dict[str, np.ndarray]:
    """Give every leaf of a state as numbers, a key as its data: `.layers[0].w` -> array; refuse one that has none."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(own_copy(state)):
        name, array = jax.tree_util.keystr(path), np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        is_number = array.dtype.kind not in 'OSUMm'
        require(is_number, f'a state is made of arrays and keys, and leaf {name} is {array.dtype}; leave it out.')
        arrays[name] = array
    return arrays


def rebuild_state(path: AnyPath, saved: Mapping[str, np.ndarray], like):
    """Put leaves into the structure of a state, or refuse them by the first that differs; numpy's stay numpy's."""
    wanted, leaves = leaf_arrays(like), []
    for name in [*wanted, *saved]:
        came, fits = (f'{a[name].dtype}{[*a[name].shape]}' if name in a else 'none' for a in (saved, wanted))
        require(came == fits, f'{path} holds another network: leaf {name} is {came}, wanted {fits}.')
    for name, leaf in zip(wanted, jax.tree.leaves(like)):
        value = jnp.asarray(saved[name]) if isinstance(leaf, jax.Array) else saved[name]
        leaves.append(jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf)) if is_key(leaf) else value)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
