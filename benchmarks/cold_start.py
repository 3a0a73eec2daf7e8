"""From nothing to the first epoch: start Python, import, compile, learn one MNIST-sized epoch. Cold, and with a cache.

Each start is a process of its own, timed from outside. Making its data and the epochs themselves are subtracted, so
that what remains is the price of starting.
"""

import dataclasses
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import timing
from rich.console import Console

from hebbjax.cli.launch import keep_programs
from hebbjax.cli.main import run_command


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Seconds from the start of Python to the first epoch learned, beyond the epoch itself and making its data."""

    repetitions: int = 3
    """Starts of each kind; medians are reported."""
    hidden: int = 2000
    """N, hidden units."""
    batch: int = 1024
    """Images per step."""
    images: int = 60_000
    """Images per epoch."""


def child(hidden: str, batch: str, images: str, cache: str | None = None) -> None:
    """Be the started process: make data, compile, learn two epochs; print the seconds of the data and of an epoch."""
    import krotov_mnist

    config = krotov_mnist.Config(
        synthetic=True, hidden=int(hidden), batch=int(batch), images=int(images),
    )  # fmt: skip
    if cache is not None:
        keep_programs(pathlib.Path(cache))
    config.prepare()
    started = time.perf_counter()
    data = jax.block_until_ready(jax.numpy.asarray(krotov_mnist.load(config, Console(quiet=True))[0]))
    reading = time.perf_counter() - started
    turn, _ = krotov_mnist.hebbjax_epochs(config, 2, 2.0, data)
    jax.block_until_ready(turn())
    started = time.perf_counter()
    jax.block_until_ready(turn())
    print(reading, time.perf_counter() - started)


def start(config: Config, *cache: str) -> float:
    """Start one process, and give the seconds it took beyond making data and learning its two epochs."""
    command = [sys.executable, __file__, '--child', str(config.hidden), str(config.batch), str(config.images), *cache]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=config.environment)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise ValueError(f'the started process failed: {done.stderr.strip().splitlines()[-1]}')
    reading, epoch = map(float, done.stdout.split()[-2:])
    return seconds - reading - 2 * epoch


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time cold and warm starts in turn, print a table, write the JSON."""
    device = config.prepare()
    cold, warm = timing.Row('cold_start', []), timing.Row('warm_start', [])
    with tempfile.TemporaryDirectory() as cache:
        start(config, cache)  # fills it
        for _ in range(config.repetitions):
            cold.seconds.append(start(config))
            warm.seconds.append(start(config, cache))
        warm.more['cache_bytes'] = sum(f.stat().st_size for f in pathlib.Path(cache).rglob('*') if f.is_file())
    columns = {
        '': lambda row: row.row,
        's': lambda row: f'{row.median:.2f}',
        'from': lambda row: f'{min(row.seconds):.2f}',
        'to': lambda row: f'{max(row.seconds):.2f}',
    }
    timing.show('from starting Python to the first epoch learned, beyond the epoch', columns, [cold, warm], console)
    timing.write(config.json, [cold, warm], dataclasses.asdict(config), device)
    return [cold, warm]


if __name__ == '__main__':
    if sys.argv[1:2] == ['--child']:
        child(*sys.argv[2:])
    else:
        sys.exit(run_command(Config, run, sys.argv[1:], 'cold_start.py'))
