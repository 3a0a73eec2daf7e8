"""Learning from images that do not fit memory: an epoch over parts of a file, beside one over the array in memory."""

import dataclasses
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable

import jax
import numpy as np
import optax
import timing
from rich.console import Console

import hebbjax
from hebbjax import data, layers, rules, training, transforms
from hebbjax.cli.main import run_command
from hebbjax.layers.patches import raw


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Epochs of a Krotov-Hopfield layer on images of 32 x 32 in colour: all in memory, and in parts of a .npy file."""

    features: int = 200
    """N, neurons."""
    images: int = 131_072
    """Images in all, 3 KiB each."""
    parts: int = 8
    """Parts of the file, of which two may lie in memory: what is allowed."""
    batch: int = 1024
    """Images per step."""
    epochs: int = 2
    """Epochs of a turn, which the reading at its beginning is counted among."""
    folder: pathlib.Path | None = None
    """Where the file is written for as long as this runs; left out: where temporary files lie."""


def write_images(path: pathlib.Path, config: Config) -> None:
    """Write images of noise, some at a time."""
    rng = np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, 'w+', np.uint8, (config.images, 32, 32, 3))
    for start in range(0, config.images, 4096):
        images[start : start + 4096] = rng.integers(0, 256, images[start : start + 4096].shape, np.uint8)
    images.flush()


def forget(path: pathlib.Path) -> None:
    """Let the system drop what it holds of a file in memory, so that it is read from the disk."""
    with path.open('rb') as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory_of(what: str) -> float:
    """Read in MiB what Linux tells of this process: VmRSS, what it has now; VmHWM, the most it had."""
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def growth(turn: Callable[[], object]) -> float | None:
    """Say by how many MiB the process grows at most during a turn; None where the system does not tell."""
    try:
        pathlib.Path('/proc/self/clear_refs').write_text('5')  # the most it had is what it has
    except OSError:
        return None
    before = memory_of('VmRSS')
    turn()
    return memory_of('VmHWM') - before


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time trainings in turn, print a table, write the JSON."""
    device = config.prepare()
    if config.images % config.parts:
        raise ValueError(f'--images {config.images} make no {config.parts} equal parts; use a multiple of that.')
    if (part := config.images // config.parts) % config.batch:  # of which parts would leave some images out
        raise ValueError(f'--batch {config.batch} does not divide the {part} images of a part; use a divisor.')
    tx = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.02))
    net = (hebbjax.Layer(config.features, rules.krotov(2, 0.4, 2), tx, patch_transform=raw),)
    stages = training.plan_stages('simultaneous', net, config.epochs)

    def fit(images):
        state = layers.init(net, jax.random.key(0), (32, 32, 3))
        return training.fit(net, state, images, stages=stages, batch=config.batch).state

    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        path = pathlib.Path(folder) / 'images.npy'
        write_images(path, config)
        resident = jax.device_put(np.load(path), device)
        shards = data.open_shards(path, config.images // config.parts)
        turns = {
            'resident': lambda: fit(resident),
            'parts': lambda: fit(shards),
            'parts_from_disk': lambda: (forget(path), fit(shards))[1],
        }
        seconds = timing.in_turn(turns, config.repetitions, console)
        rows = [timing.Row(name, seconds[name], config.epochs * config.images // config.batch) for name in turns]
        for row in rows:
            row.more['times_resident'] = float(np.median(np.array(row.seconds) / rows[0].seconds))  # of the same turn
            row.more['grown_mebibytes'] = growth(turns[row.row])
            if row.row != 'resident':
                row.more['allowed_mebibytes'] = 2 * resident.nbytes / config.parts / 2**20
    title = f'{resident.nbytes / 2**20:.0f} MiB of images: milliseconds a step'
    cell = lambda row, name, form: '' if row.more.get(name) is None else form.format(row.more[name])  # noqa: E731
    columns = {
        **timing.TIMES,
        'times resident': lambda row: cell(row, 'times_resident', '{:.3f}'),
        'MiB more at most': lambda row: cell(row, 'grown_mebibytes', '{:.0f}'),
        'allowed': lambda row: cell(row, 'allowed_mebibytes', '{:.0f}'),
    }
    timing.show(title, columns, rows, console)
    timing.write(config.json, rows, dataclasses.asdict(config), device)
    return rows


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'streaming.py'))
