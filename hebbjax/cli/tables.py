"""What commands report: rows of results as tables on a terminal and as one JSON, with all that they were made with."""

import contextlib
import dataclasses
import importlib.metadata
import pathlib
import platform
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np
from rich.console import Console

from hebbjax.support import files
from hebbjax.training.comparison import ResultRow

PACKAGES = ('hebbjax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy', 'tensorflow-datasets', 'scikit-learn')

ACCURACIES = {'test_accuracy': 'test %', 'train_accuracy': 'train %', 'validation_accuracy': 'validation %'}


def write_report(path: pathlib.Path | None, config: dict, rows: Sequence[ResultRow], interrupted: bool = False) -> None:
    """Write rows as JSON in the shape that every experiment of the project writes, if a path is given."""
    if path is not None and not jax.process_index():  # the first of several processes writes for all
        plain = [row.as_json() for row in rows]
        files.write_json(path, {'rows': plain, 'config': config, **surroundings(), 'interrupted': interrupted})


def surroundings() -> dict:
    """Tell what a command runs on: versions and the device."""
    return {'versions': versions(PACKAGES), 'device': str(jax.local_devices()[0].device_kind)}


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Tell Python's version and those of packages; None for what is not installed."""
    numbers = {'python': platform.python_version()} | dict.fromkeys(packages)
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            numbers[package] = importlib.metadata.version(package)
    return numbers


def mean_std(values: Sequence[float]) -> str:
    """Format accuracies as mean ± sample standard deviation; one value stands alone, none is a dash."""
    if len(values) < 2:
        return f'{values[0]:.2f}' if values else '-'
    return f'{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}'


def row_cells(row: Mapping) -> dict[str, str]:
    """Give a row of results, as its JSON has it, as texts."""
    accuracies = {name: mean_std([float(value) for value in row.get(name, [])]) for name in ACCURACIES}
    seconds = {name: f'{float(row[name]):.1f}' for name in ('seconds', 'compile_seconds')}
    return {'row': str(row['row']), **accuracies, 'seeds': str(len(row['test_accuracy'])), **seconds}


def show_rows(rows: Sequence[ResultRow], title: str, columns: Mapping[str, str], console: Console) -> None:
    """Print rows as two tables: accuracies, and means of `ResultRow.more` by `columns`, key -> heading."""
    lines, beside = [], any(row.paper is not None for row in rows)
    for row in rows:
        name, test, train, _, *rest = row_cells(dataclasses.asdict(row)).values()
        lines.append((name, test, train, *['-' if row.paper is None else f'{row.paper:.2f}'][:beside], *rest))
    print_table(title, ('', 'test %', 'train %', *['paper'][:beside], 'n', 'run s', 'compile s'), lines, console)
    measured = [row for row in rows if columns.keys() & row.more]
    means = [(row.row, *(f'{np.mean(row.more[key]):.3g}' for key in columns)) for row in measured]
    if means:
        print_table('', ('', *columns.values()), means, console)


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], console: Console) -> None:
    """Print a table of texts, numbers to the right; a narrow terminal breaks its lines, and cuts no number."""
    lines = [headings, *rows]
    name_width, *widths = (max(map(len, column)) for column in zip(*lines))
    console.print(f'\n{title}\n', markup=False, highlight=False, soft_wrap=True)
    for name, *numbers in lines:
        cells = [name.ljust(name_width), *(number.rjust(width) for number, width in zip(numbers, widths))]
        console.print('  '.join(cells), markup=False, emoji=False, highlight=False, soft_wrap=True)
