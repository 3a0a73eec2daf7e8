"""Checkpoints along a training, written by orbax-checkpoint, from which it goes on as if it had never been interrupted.

The whole state is kept, keys included, with a record of where the training stood. Order and draws of every epoch follow
from the key and the step, so the state says where in the data the training is.
"""

import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hebbjax import checks, files
from hebbjax.checkpoint import compare, kind, numbers, rebuild

FORMAT = 'hebbjax checkpoint 1'
DISCARDED = '.discarded'  # where orbax moves what is to be deleted
SUMS = 'checksums.json'  # of a checkpoint's files
UNFINISHED = '.orbax-checkpoint-tmp'  # in the name of what it has not yet renamed into place


class Checkpoints:
    """A folder of states along a training, written by orbax: the last few, and the best.

    A checkpoint is renamed into place when it is whole, and out of it before it is deleted, so that a process may be
    killed at any moment. Checksums of every leaf and file are kept beside it. Who only reads changes nothing, so that a
    training that is still going on can be looked at.

    Args:
        folder: made by the first save, if it is missing.
        keep: how many of the last to keep.
        best: name of a metric whose best checkpoint is kept as well, the first of equals; None: none is.
        largest: whether the best is the largest, not the smallest.

    Raises:
        ValueError: if keep is below 1.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int = 2, best: str | None = None, largest: bool = True):
        if not checks.is_count(keep):
            raise ValueError(f'keep={checks.shown(keep)} checkpoints leaves none to go on from; use 1 or more.')
        self.folder = pathlib.Path(folder).absolute()
        self._keep, self._best, self._sign = keep, best, 1 if largest else -1
        self._manager, self._writes, self._scores = None, False, {}

    def begin(self) -> None:
        """Make the folder ready to be written to, and clear away what a process that was killed left in it.

        Raises:
            OSError: if it cannot be made or written to.
        """
        self._open(write=True)

    def _open(self, write: bool = False):
        """Give orbax's manager of the folder; None where there is no folder to read."""
        from orbax import checkpoint as ocp  # late: it takes longer to import than all of jax

        self._args = ocp.args
        if write and not self._writes:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._discard()
            except OSError as error:
                raise type(error)(
                    f'checkpoints cannot be kept in {self.folder} ({error.strerror}); name a folder of yours.'
                ) from None
        if self._manager is None and self.folder.is_dir():
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self, enable_async_checkpointing=False, create=False, todelete_subdir=DISCARDED
            )
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._writes = self._writes or write
        return self._manager

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Say which checkpoints to keep, as orbax asks it."""
        epochs = [checkpoint.step for checkpoint in checkpoints]
        wanted = {*epochs[-self._keep :], self._best_of(epochs)}
        return [epoch in wanted for epoch in epochs]

    def _discard(self) -> None:
        for left in (self.folder / DISCARDED, *self.folder.glob(f'*{UNFINISHED}*')):
            shutil.rmtree(left, ignore_errors=True)

    def epochs(self) -> list[int]:
        """Give the epochs that are kept, in order."""
        manager = self._open()
        return [] if manager is None else sorted(manager.all_steps())

    def best(self) -> int | None:
        """Give the epoch with the best metric among those kept; None where none was judged."""
        return self._best_of(self.epochs())

    def _best_of(self, epochs):
        scores = {epoch: score for epoch in epochs if (score := self._score(epoch)) is not None}
        return max(scores, key=lambda epoch: self._sign * scores[epoch]) if scores else None

    def _score(self, epoch):
        if self._best is not None and epoch not in self._scores:
            try:
                self._scores[epoch] = self._record(epoch)['metrics'].get(self._best)
            except ValueError:  # damaged: nothing to be proud of
                self._scores[epoch] = None
        return self._scores.get(epoch)

    def forget(self, after: int) -> None:
        """Delete the checkpoints of later epochs, so that a training can go on from an earlier one."""
        for epoch in self.epochs():
            if epoch > after:
                shutil.rmtree(self.folder / str(epoch))
        self._manager = None

    def save(self, epoch: int, state, record: Any = None, metrics: Mapping[str, float] | None = None) -> None:
        """Write a checkpoint, and delete those that are neither among the last nor the best.

        Args:
            epoch: its number, larger than all before.
            state: any pytree of arrays and typed keys.
            record: what else is to be known, as plain JSON values.
            metrics: of this epoch; one that is no number counts as not measured.

        Raises:
            ValueError: if the epoch is not after those that are kept, or a leaf is no array.
            OSError: if it cannot be written; what was kept before stays.
        """
        if not checks.is_count(epoch, 0):
            raise ValueError(f'epoch {checks.shown(epoch)} is no whole number from 0 on; count epochs.')
        leaves, manager = numbers(state), self._open(write=True)
        if self.epochs() and epoch <= self.epochs()[-1]:
            raise ValueError(
                f'epoch {epoch} does not come after {self.epochs()[-1]}, which {self.folder} already holds.'
            )
        kinds = {name: [kind(leaf), zlib.crc32(leaf.tobytes())] for name, leaf in leaves.items()}
        judged = {name: float(v) for name, v in (metrics or {}).items() if not checks.misfits(v, lambda _: True)}
        content = {'format': FORMAT, 'leaves': kinds, 'metrics': judged, 'record': record}
        path, self._scores[epoch] = self.folder / str(epoch), judged.get(self._best)
        try:
            manager.save(
                epoch,
                args=self._args.Composite(
                    state=self._args.StandardSave({name: leaf for name, leaf in _stored(leaves).items() if leaf.size}),
                    record=self._args.JsonSave(content | {'checksum': _checksum(content)}),
                ),
            )
        except Exception as error:  # orbax and its writers raise anything
            self._discard()
            kept = f'epochs {self.epochs()} are kept' if self.epochs() else 'none is kept yet'
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise OSError(
                f'the checkpoint of epoch {epoch} could not be written to {self.folder} ({reason[:200]}); {kept}.'
            ) from None
        self._discard()
        sums = {str(file.relative_to(path)): zlib.crc32(file.read_bytes()) for file in _files(path)}
        files.write_json(path / SUMS, sums)

    def restore(self, like, epoch: int | None = None) -> tuple[Any, Any]:
        """Read a checkpoint back, into the structure of a state whose values are not used.

        Args:
            like: such as a fresh `train.init(...)`.
            epoch: which; None: the last.

        Returns:
            The state and its record.

        Raises:
            FileNotFoundError: if there is none, or not of this epoch.
            ValueError: if it is damaged, or holds another network: the first leaf that differs.
        """
        kept = self.epochs()
        if not kept or epoch not in (None, *kept):
            wanted = 'any epoch' if epoch is None else f'epoch {epoch}'
            raise FileNotFoundError(f'{self.folder} has no checkpoint of {wanted}; there are those of epochs {kept}.')
        epoch = kept[-1] if epoch is None else epoch
        found = self._record(epoch)
        path, kinds = self.folder / str(epoch), found['leaves']
        compare(path, {name: kind for name, (kind, _) in kinds.items()}, like)
        wanted = numbers(like)
        shapes = {n: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for n, leaf in _stored(wanted).items() if leaf.size}
        arrays = self._read(epoch, state=self._args.StandardRestore(shapes))
        saved = {n: np.asarray(arrays[n]).view(leaf.dtype) if n in arrays else leaf for n, leaf in wanted.items()}
        for name, (_, checksum) in kinds.items():
            if zlib.crc32(saved[name].tobytes()) != checksum:
                raise ValueError(f'{path} is damaged: leaf {name} is not what was saved; {self._others(epoch)}.')
        return rebuild(saved, like), found['record']

    def _check(self, epoch: int) -> None:
        """Compare files with their checksums, so that orbax, which is loud about it, is not asked to read damage."""
        path = self.folder / str(epoch)
        if not (path / SUMS).exists():  # killed just before it was written: the leaves' own checksums have to do
            return
        try:
            sums = json.loads((path / SUMS).read_text())
            hurt = [name for name, wanted in sums.items() if zlib.crc32((path / name).read_bytes()) != wanted]
        except (OSError, ValueError, AttributeError) as error:
            hurt = [getattr(error, 'filename', None) or SUMS]
        if hurt:
            raise ValueError(f'{path} is damaged: file {hurt[0]} is not what was saved; {self._others(epoch)}.')

    def _record(self, epoch: int) -> dict:
        """Read what is known of a checkpoint beside its state."""
        self._check(epoch)
        return self._read(epoch, record=self._args.JsonRestore())

    def _read(self, epoch: int, **item):
        (name,) = item
        try:
            found = self._open().restore(epoch, args=self._args.Composite(**item))[name]
            if name == 'record' and found.pop('checksum') != _checksum(found):
                raise ValueError
        except Exception as error:  # orbax and its readers raise anything
            path = self.folder / str(epoch)
            raise ValueError(
                f'{path} is damaged or no checkpoint of hebbjax ({type(error).__name__}); {self._others(epoch)}.'
            ) from None
        return found

    def _others(self, epoch: int) -> str:
        rest = [other for other in self.epochs() if other != epoch]
        return f'there are others, of epochs {rest}: name one' if rest else 'there is no other'


def _stored(leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Give leaves as orbax can write them: dtypes of eight bits, few of which it knows, as the bits they are."""
    short = {name for name, leaf in leaves.items() if leaf.dtype.isbuiltin == 2 and leaf.itemsize == 1}
    return {name: leaf.view('u1') if name in short else leaf for name, leaf in leaves.items()}


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.rglob('*') if path.is_file() and path.name != SUMS]


def _checksum(content) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
