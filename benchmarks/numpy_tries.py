"""Forms of the two steps in which a numpy baseline can be slow or fast: who wins, and adding what they won.

`numpy_baseline.make_best` uses the fastest of each; this script is how we know.
"""

import dataclasses
import sys
from collections.abc import Callable

import numpy as np
import numpy_baseline
import timing
from rich.console import Console

from hebbjax.cli.main import run_command
from hebbjax.rules.top_k import check_k


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Time every form of selection and addition that was tried for the numpy baseline."""

    batch: int = 1024
    """Images per step."""
    hidden: int = 2000
    """N, hidden units."""
    k: tuple[int, ...] = (2, 7)
    """Ranks that unlearn."""


def by_sort(u: np.ndarray, k: int) -> np.ndarray:
    """Sort every row."""
    return np.argsort(u, axis=1)[:, [-1, -k]].T


def by_partition(u: np.ndarray, k: int) -> np.ndarray:
    """Put the k-th largest in its place, then look among those above it."""
    rows = np.arange(len(u))
    best = np.argpartition(u, (u.shape[1] - k, u.shape[1] - 1), axis=1)
    return np.stack([best[rows, -1], best[rows, -k]])


def by_best(u: np.ndarray, k: int) -> np.ndarray:
    """Do what the baseline does, on one thread; here on a copy."""
    first, _, kth, _ = numpy_baseline.first_and_kth(u.copy(), k)
    return np.stack([first, kth])


def add_at(dw, owner, given):
    """`np.add.at`: unbuffered, row by row."""
    np.add.at(dw, owner, given)


def add_in_a_loop(dw, owner, given):
    """A Python loop over rows."""
    for i, row in zip(owner, given, strict=True):
        dw[i] += row


def add_sorted(dw, owner, given):
    """Sort by owner, sum runs by `reduceat`."""
    order = np.argsort(owner, kind='stable')
    starts = np.flatnonzero(np.r_[True, np.diff(owner[order]) > 0])
    dw[owner[order][starts]] += np.add.reduceat(given[order], starts)


def add_by_product(dw, owner, given):
    """A dense product with the owners' one-hot matrix."""
    hot = np.zeros((len(dw), len(given)), np.float32)
    hot[owner, np.arange(len(given))] = 1
    dw += hot @ given


SELECTIONS: dict[str, Callable] = {form.__name__: form for form in (by_sort, by_partition, by_best)}
ADDITIONS: dict[str, Callable] = {form.__name__: form for form in (add_at, add_in_a_loop, add_sorted, add_by_product)}


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time all forms in turn, print a table, write the JSON."""
    device = config.prepare()
    for k in config.k:
        check_k(k, config.hidden)
    rng = np.random.default_rng(0)
    u = rng.standard_normal((config.batch, config.hidden), dtype=np.float32)
    x = rng.random((2 * config.batch, 784), dtype=np.float32)
    owner = rng.integers(0, config.hidden, 2 * config.batch)
    dw = np.zeros((config.hidden, 784), np.float32)
    turns = {
        f'{name}, k = {k}': lambda form=form, k=k: form(u, k) for k in config.k for name, form in SELECTIONS.items()
    }
    turns |= {name: lambda form=form: form(dw, owner, x) for name, form in ADDITIONS.items()}
    rows = [timing.Row(name, seconds) for name, seconds in timing.in_turn(turns, config.repetitions, console).items()]
    timing.show(f'numpy, one thread, {config.batch} x {config.hidden}', timing.TIMES, rows, console)
    timing.write(config.json, rows, dataclasses.asdict(config), device)
    return rows


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'numpy_tries.py'))
