"""What every benchmark has in common: contestants timed in turn, a table, one JSON, flags checked at the door."""

import dataclasses
import datetime
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import jax
from rich.console import Console
from rich.progress import Progress

from hebbjax.cli.flags import flag
from hebbjax.support import files

PACKAGES = ('jax', 'jaxlib', 'optax', 'numpy', 'torch')


@dataclasses.dataclass
class Row:
    """One contestant of a benchmark.

    Attributes:
        row: its name.
        seconds: what one turn took, one per repetition.
        steps: learning steps in a turn.
        compile_seconds: tracing and compiling, apart.
        flops: of the matrix products it cannot do without, per turn; None where that is no measure.
        more: further columns, as they go into the JSON.
    """

    row: str
    seconds: list[float]
    steps: int = 1
    compile_seconds: float = 0.0
    flops: float | None = None
    more: dict = dataclasses.field(default_factory=dict)

    @property
    def median(self) -> float:
        """Seconds per step, median over repetitions."""
        return statistics.median(self.seconds) / self.steps

    def as_json(self) -> dict:
        """Give the row as a flat dictionary."""
        spread = [min(self.seconds) / self.steps, max(self.seconds) / self.steps]
        rate = None if self.flops is None else self.flops / self.steps / self.median / 1e9
        return {
            'row': self.row,
            'seconds_per_step': self.median,
            'spread': spread,
            'seconds_per_turn': statistics.median(self.seconds),
            'steps': self.steps,
            'repetitions': len(self.seconds),
            'compile_seconds': self.compile_seconds,
            'gflop_per_second': rate,
            **self.more,
        }


@dataclasses.dataclass(frozen=True)
class Common:
    """Flags that every benchmark takes."""

    repetitions: int = 5
    """Turns of every contestant; medians are reported."""
    device: str | None = None
    """cpu, gpu or tpu; left out: jax's own choice."""
    json: pathlib.Path | None = None
    """File for all results."""

    def prepare(self) -> jax.Device:
        """Check the flags, and give the device."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                if type(number) is int and number < 1 and field.name != 'seed':
                    raise ValueError(f'{flag(field.name)} {number} measures nothing; use 1 or more.')
            if value == ():
                raise ValueError(f'{flag(field.name)} names nothing; name one or more, or leave it out.')
        batch, images = getattr(self, 'batch', 0) or 0, getattr(self, 'images', math.inf)
        if batch > images:
            raise ValueError(f'--batch {batch} is larger than the {images} images; use {images} at most.')
        files.check_writable(self.json)
        try:
            return jax.devices(self.device)[0]
        except RuntimeError:
            there = ', '.join(sorted({device.platform for device in jax.devices()}))
            raise ValueError(f'--device {self.device} is not there; jax finds {there}.') from None

    @property
    def environment(self) -> dict[str, str]:
        """What processes that are started find around them: the same device."""
        return os.environ | ({} if self.device is None else {'JAX_PLATFORMS': self.device})


def refuse_unknown(name: str, given: Iterable[str], known: Iterable[str], why: str = 'is unknown') -> None:
    """Refuse what a flag names and nobody knows."""
    for value in given:
        if value not in known:
            raise ValueError(f'{flag(name)} {value} {why}; there are {", ".join(known)}.')


def in_turn(contestants: Mapping[str, Callable[[], object]], repetitions: int, console: Console) -> dict[str, list]:
    """Time contestants one after the other, again and again, so that a machine's moods meet all of them.

    Args:
        contestants: name -> one turn; its result is waited for.
        repetitions: turns each, after one that warms up and is not counted. The order turns round every time.
        console: for a progress bar; where the output is no terminal it stays quiet.

    Returns:
        name -> seconds, one per repetition.
    """
    seconds = {name: [] for name in contestants}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task('turns', total=(repetitions + 1) * len(contestants))
        for turn in range(-1, repetitions):
            for name in list(contestants) if turn % 2 else reversed(contestants):
                progress.update(task, description=name)
                started = time.perf_counter()
                jax.block_until_ready(contestants[name]())
                if turn >= 0:
                    seconds[name].append(time.perf_counter() - started)
                progress.advance(task)
    return seconds


def compiled(f: Callable, *args) -> tuple[Callable, float]:
    """Compile a jitted function for these arguments; give it and the seconds that took."""
    started = time.perf_counter()
    program = f.lower(*args).compile()
    return program, time.perf_counter() - started


def mebibytes(program) -> float | None:
    """Give a compiled program's peak memory in MiB: arguments, outputs and temporaries; None where none is told."""
    memory = program.memory_analysis()
    if memory is None:
        return None
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return (kept + memory.temp_size_in_bytes) / 2**20


def write(path: pathlib.Path | None, rows: list[Row], config: Mapping, device: jax.Device) -> None:
    """Write the JSON that every benchmark writes, if a path is given."""
    if path is None:
        return
    from hebbjax.cli import tables  # late: it imports most of the library, and a cold start is timed

    content = {
        'rows': [row.as_json() for row in rows],
        'config': {name: value for name, value in config.items() if name not in ('json', 'data_dir')},
        'versions': tables.versions(PACKAGES),
        'device': device.device_kind,
        'cores': os.cpu_count() if device.platform == 'cpu' else None,
        'date': datetime.date.today().isoformat(),
    }
    files.write_json(path, content)


TIMES: Mapping[str, Callable[[Row], str]] = {
    '': lambda row: row.row,
    'ms': lambda row: f'{1e3 * row.median:.2f}',
    'from': lambda row: f'{1e3 * min(row.seconds) / row.steps:.2f}',
    'to': lambda row: f'{1e3 * max(row.seconds) / row.steps:.2f}',
}
"""The columns of a table of steps: who, median and range in milliseconds."""


def show(title: str, columns: Mapping[str, Callable[[Row], str]], rows: list[Row], console: Console) -> None:
    """Print a table: one line per row, one column per heading."""
    from hebbjax.cli import tables

    tables.print_table(title, tuple(columns), [[cell(row) for cell in columns.values()] for row in rows], console)
