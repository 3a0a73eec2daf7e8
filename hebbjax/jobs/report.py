"""What every job has in common: rows of results, one JSON, one table, files checked before and written whole."""

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import re
import sys
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hebbjax import files, runs
from hebbjax.output import UNLIMITED

PACKAGES = ('hebbjax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy', 'tensorflow-datasets', 'scikit-learn')


@dataclasses.dataclass
class Row:
    """One row of results: a network, one entry per seed.

    Attributes:
        row: its name.
        test_accuracy: percent, one per seed.
        train_accuracy: percent, one per seed.
        paper: what the paper reports for it, percent, or None.
        seconds: run time of one seed, mean, compile time apart.
        compile_seconds: of one seed, mean.
        more: further columns, as they go into the JSON.
    """

    row: str
    test_accuracy: list[float] = dataclasses.field(default_factory=list)
    train_accuracy: list[float] = dataclasses.field(default_factory=list)
    paper: float | None = None
    seconds: float = 0.0
    compile_seconds: float = 0.0
    more: dict = dataclasses.field(default_factory=dict)

    def as_json(self) -> dict:
        """Give the row as a flat dictionary."""
        flat = dataclasses.asdict(self)
        return flat | flat.pop('more')


@dataclasses.dataclass
class Report:
    """What a job ends with.

    Attributes:
        rows: the results.
        config: every setting of the run.
        interrupted: whether the user ended it early; the rows hold what was reached.
    """

    config: dict
    rows: list[Row] = dataclasses.field(default_factory=list)
    interrupted: bool = False

    def row(self, name: str) -> Row:
        """Find a row by name.

        Raises:
            KeyError: if there is none.
        """
        return {row.row: row for row in self.rows}[name]

    def as_json(self) -> dict:
        """Give the report in the shape that every experiment of the project writes."""
        return {
            'rows': [row.as_json() for row in self.rows],
            'config': self.config,
            **surroundings(),
            'interrupted': self.interrupted,
        }

    def write(self, path: pathlib.Path | None) -> None:
        """Write the JSON, if a path is given: whole or not at all."""
        if path is not None:
            files.write_json(path, self.as_json())


def surroundings() -> dict:
    """Tell what a job runs on: versions and the device."""
    return {'versions': versions(PACKAGES), 'device': str(jax.devices()[0].device_kind)}


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Tell Python's version and those of packages; None for what is not installed."""
    found = {'python': platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


MARKED = re.compile(r'(<!-- table: ([^>]*?) -->\n).*?(<!-- end -->)', re.DOTALL)


def fill_tables(text: str, folder: pathlib.Path, table: Callable[[list[dict]], str]) -> str:
    """Make the tables of a document anew: what stands between `<!-- table: a.json b.json -->` and `<!-- end -->`.

    Args:
        text: the document.
        folder: where the named JSON files lie.
        table: their contents -> a Markdown table.
    """

    def fill(found: re.Match) -> str:
        return found[1] + table([json.loads((folder / name).read_text()) for name in found[2].split()]) + found[3]

    return MARKED.sub(fill, text)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay out a Markdown table, a line each for the head, the rule below it and the rows."""
    return ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|', *('| ' + ' | '.join(row) + ' |' for row in rows)]


def fill_documents(usage: str, documents: Iterable[pathlib.Path], folder: pathlib.Path, table: Callable) -> int:
    """Be a script that makes the tables of its documents anew; any argument prints its usage instead.

    Returns:
        the exit code: 0, or 2 for an argument that is not --help.
    """
    if len(sys.argv) > 1:
        print(usage)
        return 0 if sys.argv[1] in ('-h', '--help') else 2
    for document in documents:
        document.write_text(fill_tables(document.read_text(), folder, table))
    return 0


def mean_std(values: list[float]) -> str:
    """Format accuracies as mean ± sample standard deviation; one value stands alone, none is a dash."""
    if not values:
        return '-'
    if len(values) == 1:
        return f'{values[0]:.2f}'
    return f'{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}'


def show(report: Report, title: str, columns: dict[str, str], console: Console) -> None:
    """Print a report as two tables, each narrow enough for 80 columns: accuracies, and what else rows tell.

    Args:
        report: the report.
        title: above the first table.
        columns: of the second, key in `Row.more` -> heading; lists are averaged.
        console: where to.
    """
    accuracies = [
        (
            row.row,
            mean_std(row.test_accuracy),
            mean_std(row.train_accuracy),
            '-' if row.paper is None else f'{row.paper:.2f}',
            str(len(row.test_accuracy)),
            f'{row.seconds:.1f}',
            f'{row.compile_seconds:.1f}',
        )
        for row in report.rows
    ]
    print_table(title, ('', 'test %', 'train %', 'paper', 'n', 'run s', 'compile s'), accuracies, console)
    telling = [row for row in report.rows if any(key in row.more for key in columns)]
    if telling:
        cells = [(row.row, *(f'{np.mean(row.more[key]):.3g}' for key in columns)) for row in telling]
        print_table('', ('', *columns.values()), cells, console)


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], console: Console) -> None:
    """Print a table, columns with a heading to the right; a narrow terminal breaks its lines, and cuts no number."""
    table = Table(title=Text(title, style='table.title'), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify='right' if heading else 'left', no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # text as it is, no markup
    table.width = console.measure(table, options=console.options.update(width=UNLIMITED)).maximum
    console.print(table, crop=False)


def into_run(job: str, config, **names: str):
    """Make the run folder of a job, if it is asked for one, and let its files lie there unless told otherwise.

    Args:
        job: its name.
        config: its settings, a dataclass with `run` and `as_json`.
        names: setting -> name of the file in the folder.

    Returns:
        The settings with all files named.

    Raises:
        OSError: if the folder exists or cannot be made.
    """
    if config.run is None:
        return config
    folder = runs.create(config.run, {'job': job, 'settings': config.as_json()}, surroundings())
    missing = {setting: folder / name for setting, name in names.items() if getattr(config, setting) is None}
    return dataclasses.replace(config, **missing)
