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
from hebbjax import layers, rules, training, transforms
from hebbjax.cli import flags, tables
from hebbjax.cli.main import run_command
from hebbjax.support import files
from hebbjax.training.checkpoint import leaf_arrays

NET = (
    hebbjax.Layer(
        64, rules.krotov(2, 0.4, 3), optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.02)),
        hebbjax.Window(5), patches_per_image=4, post=(layers.relu, layers.max_pool(2)),
    ),
    hebbjax.Layer(512, rules.instar(1), transforms.scale_by_rate(0.1), homeostasis=hebbjax.Homeostasis(0.1)),
)  # fmt: skip


class Saving(training.Checkpoints):
    """A checkpoint that tells when it is being written."""

    def save(self, context):
        print('save begins', context.epoch, flush=True)
        super().save(context)
        print('save ends', context.epoch, flush=True)


def state_checksum(state) -> int:
    """Give the checksum of a whole state."""
    return zlib.crc32(b''.join(leaf.tobytes() for leaf in leaf_arrays(state).values()))


def child(folder: str, epochs: str) -> None:
    """Train, from the folder's last checkpoint on, and tell of every epoch and save: what the started process does."""
    images = np.random.default_rng(0).integers(0, 256, (200, 12, 12, 1), np.uint8)
    state, position = layers.init(NET, jax.random.key(0), images.shape[1:]), training.START
    saving = Saving(f'{folder}/checkpoints', keep=2, best='layer1.win_entropy')
    if saving.epochs():
        state, position = training.resume(saving, state)
    print('from', len(position.history), state_checksum(state), flush=True)
    training.fit(
        NET, state, jax.numpy.asarray(images), stages=training.plan_stages('sequential', NET, int(epochs)), batch=50,
        watch=training.Monitor(every=2), position=position,
        callbacks=[
            lambda context: print('epoch', context.epoch, state_checksum(context.state), flush=True),
            training.Log(folder, every=5), saving,
        ],
    )  # fmt: skip


def start(
    folder: pathlib.Path, epochs: int, kill_after: float | None = None, beyond: str = 'from', env: dict | None = None,
) -> list[list[str]]:  # fmt: skip
    """Train in a process of its own.

    Args:
        folder: where it writes.
        epochs: in all.
        kill_after: seconds after its line `beyond` that it is killed in; None: it is left alone.
        beyond: how that line begins.
        env: what it finds around it.

    Returns:
        The words of every line that it printed.
    """
    folder.mkdir(exist_ok=True)
    command = [sys.executable, __file__, '--child', str(folder), str(epochs)]
    lines = []
    with (
        tempfile.TemporaryFile('w+') as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env) as process,
    ):
        for line in process.stdout:
            lines.append(line.split())
            if kill_after is not None and line.startswith(beyond):
                time.sleep(kill_after)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                kill_after = None
        if process.wait() not in (0, -signal.SIGKILL):
            errors.seek(0)
            raise ValueError(f'the started process failed: {errors.read().strip().splitlines()[-1]}')
    return lines


def epochs_in(lines: list[list[str]]) -> list[tuple[int, str]]:
    """Give the epochs that a process lived to see, the one it went on from included, with their checksums."""
    return [(int(words[1]), words[2]) for words in lines if words[0] in ('from', 'epoch')]


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
    """Kill, resume, compare; print a line for each kill, write the JSON."""
    config.prepare()
    draw, rows = random.Random(config.seed), []
    with tempfile.TemporaryDirectory() as place:
        whole = dict(epochs_in(start(pathlib.Path(place) / 'whole', config.epochs, env=config.environment)))
        for number in range(1, config.repetitions + 2):
            kill_after = draw.uniform(0, config.longest) if number <= config.repetitions else None
            lines = start(pathlib.Path(place) / 'killed', config.epochs, kill_after, 'epoch', config.environment)
            epochs = epochs_in(lines)
            rows.append({
                'row': 'left alone' if kill_after is None else f'kill {number}', 'from_epoch': epochs[0][0],
                'to_epoch': epochs[-1][0], 'inside_save': lines[-1][:2] == ['save', 'begins'],
                'identical': all(whole[epoch] == summed for epoch, summed in epochs),
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
        files.write_json(config.json, {'rows': rows, 'config': flags.settings_json(config), **tables.surroundings()})
    return rows


if __name__ == '__main__':
    if sys.argv[1:2] == ['--child']:
        child(*sys.argv[2:])
    else:
        sys.exit(run_command(Config, run, sys.argv[1:], 'kills.py'))
