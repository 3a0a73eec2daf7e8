"""A training that is killed again and again, SIGKILL at random moments, and resumed: it ends in the same bits, or not.

Another process trains once without interruption and tells the checksum of its weights after every epoch. The one that
is killed is compared with it in every epoch it lives to see, the one it goes on from included.
"""

import contextlib
import dataclasses
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib

import jax
import numpy as np
import optax
import timing
from rich.console import Console

import hebbjax
from hebbjax import callbacks, checkpoint, cli, files, loggers, loop, plasticity, rules, stages, train
from hebbjax.jobs import report, settings
from hebbjax.moment import Position
from hebbjax.monitor import Monitor

NET = (
    hebbjax.Layer(
        64, rules.krotov(2, 0.4, 3), optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(0.02)),
        hebbjax.Window(5), glimpses=4, pool=hebbjax.max_pool(2),
    ),
    hebbjax.Layer(
        512, rules.instar(1), plasticity.ascend(0.1), hebbjax.Window(), homeostasis=hebbjax.Homeostasis(0.1)
    ),
)  # fmt: skip


class Saving(callbacks.Checkpoint):
    """A checkpoint that tells when it is being written."""

    def save(self, moment):
        print('save begins', moment.epoch, flush=True)
        super().save(moment)
        print('save ends', moment.epoch, flush=True)


def bits(state) -> int:
    """Give the checksum of a whole state."""
    return zlib.crc32(b''.join(checkpoint.plain(leaf).tobytes() for leaf in checkpoint.leaves_of(state).values()))


def child(folder: str, epochs: str) -> None:
    """Train, from the folder's last checkpoint on, and tell of every epoch and save: what the started process does."""
    images = np.random.default_rng(0).integers(0, 256, (200, 12, 12, 1), np.uint8)
    state, position = train.init(NET, jax.random.key(0), images.shape[1:]), Position()
    keeper = Saving(f'{folder}/checkpoints', keep=2, best='layer1.win_entropy')
    if keeper.kept.epochs():
        state, position = callbacks.resume(keeper.kept, state)
    print('from', len(position.history), bits(state), flush=True)
    loop.fit(
        NET, state, jax.numpy.asarray(images), stages=stages.plan('in_order', NET, int(epochs)), batch=50,
        watch=Monitor(every=2), position=position,
        callbacks=[
            lambda moment: print('epoch', moment.epoch, bits(moment.state), flush=True),
            loggers.Log(folder, epochs=5), keeper,
        ],
    )  # fmt: skip


def start(folder: pathlib.Path, epochs: int, kill_after: float | None = None, beyond: str = 'from') -> list[list[str]]:
    """Train in a process of its own.

    Args:
        folder: where it writes.
        epochs: in all.
        kill_after: seconds after its line `beyond` that it is killed in; None: it is left alone.
        beyond: how that line begins.

    Returns:
        What it told, as words.

    Raises:
        ValueError: if it fails, with its last words.
    """
    folder.mkdir(exist_ok=True)
    command = [sys.executable, __file__, '--child', str(folder), str(epochs)]
    told = []
    with (
        tempfile.TemporaryFile('w+') as cried,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=cried, text=True) as process,
    ):
        for line in process.stdout:
            told.append(line.split())
            if kill_after is not None and line.startswith(beyond):
                time.sleep(kill_after)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                kill_after = None
        if process.wait() not in (0, -signal.SIGKILL):
            cried.seek(0)
            raise ValueError(f'the started process failed: {cried.read().strip().splitlines()[-1]}')
    return told


def differences(told: list[list[str]], whole: list[list[str]]) -> list[str]:
    """Name the epochs whose weights are not those of the uninterrupted training."""
    wanted = {words[1]: words[2] for words in whole if words[0] in ('from', 'epoch')}
    return [words[1] for words in told if words[0] in ('from', 'epoch') and wanted[words[1]] != words[2]]


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Kill a training at random moments, and see whether it goes on in the same bits."""

    repetitions: int = 20
    """Kills."""
    epochs: int = 400
    """Of the training; a checkpoint is saved in each."""
    longest: float = 0.5
    """Seconds after its first epoch that a process is killed in, at most."""
    seed: int = 1
    """Draws the moments."""


def run(config: Config, console: Console) -> list[dict]:
    """Kill, resume, compare; print a line for each kill, write the JSON.

    Raises:
        ValueError: if a flag does not fit, or a process fails otherwise.
        OSError: if a file cannot be written.
    """
    config.prepare()
    draw, rows = random.Random(config.seed), []
    with tempfile.TemporaryDirectory() as place:
        whole = start(pathlib.Path(place) / 'whole', config.epochs)
        for number in range(1, config.repetitions + 2):
            moment = draw.uniform(0, config.longest) if number <= config.repetitions else None
            told = start(pathlib.Path(place) / 'killed', config.epochs, moment, beyond='epoch')
            epochs, last = [int(words[1]) for words in told if words[0] in ('from', 'epoch')], told[-1]
            rows.append({
                'row': 'left alone' if moment is None else f'kill {number}', 'from_epoch': epochs[0],
                'to_epoch': epochs[-1], 'inside_save': last[:2] == ['save', 'begins'],
                'identical': not differences(told, whole),
            })  # fmt: skip
            console.print(', '.join(f'{key} {value}' for key, value in rows[-1].items()), highlight=False)
    killed = rows[:-1]
    console.print(
        f'{sum(row["identical"] for row in rows)} of {len(rows)} starts identical in every epoch; '
        f'{sum(row["inside_save"] for row in killed)} of {len(killed)} kills inside a save; '
        f'{rows[-1]["to_epoch"]} of {config.epochs} epochs in the end',
        highlight=False,
    )
    if config.json is not None:
        files.write_json(config.json, {'rows': rows, 'config': settings.plain(config), **report.surroundings()})
    return rows


if __name__ == '__main__':
    if sys.argv[1:2] == ['--child']:
        child(*sys.argv[2:])
    else:
        sys.exit(cli.run_job(Config, run, sys.argv[1:], 'kills.py'))
