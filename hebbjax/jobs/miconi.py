"""Miconi 2021, table 1: three Hebbian layers on CIFAR-10, read out by quadrants and ridge regression.

Rows: the default network (winners send, dense connections) and the one with triangle activation and pruned
connections, each untrained and trained. `--ablations` adds the paper's other findings.
"""

import functools
import pathlib

import jax.numpy as jnp
from rich.console import Console

from hebbjax import data, files, runs, visualize
from hebbjax.jobs import decode, report, stack
from hebbjax.jobs.report import Report, Row
from hebbjax.jobs.stack import Stack
from hebbjax.jobs.variants import READOUTS, TABLE, Config


def run(config: Config, console: Console | None = None) -> Report:
    """Train and read out every row, report, and draw receptive fields.

    Args:
        config: the settings.
        console: where to print; None: nowhere.

    Returns:
        The report; its files are written. After Ctrl-C it holds the rows that were finished.

    Raises:
        ValueError: if a setting, the data or a shape does not fit.
        OSError: if data cannot be read or a file not written.
        KeyboardInterrupt: if the user ends it before any row was finished.
    """
    console = console or Console(quiet=True)
    config = config.resolve()
    files.check_writable(config.json, *pictures(config).values())
    if config.run is not None:
        runs.check_new(config.run)
    train, test = (data.load('cifar10', split, data_dir=config.data_dir) for split in ('train', 'test'))
    for images in (train.images, test.images):
        data.check_images(images)
    stack.refuse_misfits(config, [variant for variant, _ in config.trainings()], len(train.images[: config.images]))
    config = report.into_run('miconi_table', config, json='results.json', figures=runs.PICTURES)
    if config.run is not None:
        config.figures.mkdir(exist_ok=True)
    train = data.Split(*(jnp.asarray(part[: config.images]) for part in train))
    test = data.Split(*map(jnp.asarray, test))
    prepare = functools.cache(functools.partial(stack.whitened, train.images, config.whitening_images))
    result = Report(config.as_json())
    try:
        with runs.tentative(config.run):
            for variant, rows in config.trainings():
                trained = stack.learn(variant, config, prepare(variant.whiten), train.images, rows[0], console)
                for row in rows:
                    result.rows.append(decode.read_out(row, config.penalty, trained, train, test, console))
                    console.print(line_of(result.rows[-1]), highlight=False, soft_wrap=True)
                    result.write(config.json)  # hours may follow
                draw(trained, rows, config)
    except KeyboardInterrupt:
        if not result.rows:
            raise
        result.interrupted = True
    show(result, console)
    result.write(config.json)
    return result


def accuracies(row: Row) -> list[tuple[str, list[float], float | None]]:
    """Give a row's readouts: name, accuracy per seed, and the paper's."""
    below = [(name, row.more[name], row.more[f'paper_{name}']) for name in READOUTS[:2]]
    return [*below, (READOUTS[2], row.test_accuracy, row.paper)]


def line_of(row: Row) -> str:
    """Say in a line what a row has reached."""
    reached = ', '.join(f'{name} {report.mean_std(values)} %' for name, values, _ in accuracies(row))
    return f'{row.row}: {reached}, {row.seconds:.0f} s a seed + {row.compile_seconds:.1f} s compiling'


def show(result: Report, console: Console) -> None:
    """Print the table, with the paper's numbers beside ours."""
    note = ' (interrupted: rows that were finished)' if result.interrupted else ''
    cells = []
    for row in result.rows:
        found = accuracies(row)
        ours = [report.mean_std(values) for _, values, _ in found]
        cells.append((row.row, *ours, str(len(row.test_accuracy)), f'{row.seconds:.0f}', f'{row.compile_seconds:.1f}'))
        if row.paper is not None:
            cells.append(('  paper', *(f'{published:.2f}' for _, _, published in found), '10', '', ''))
    headings = ('', 'L1 quadrants', 'L2 quadrants', 'final', 'n', 'run s', 'compile s')
    report.print_table(f'CIFAR-10, test accuracy in percent{note}', headings, cells, console)


def pictures(config: Config) -> dict[tuple[str, int], pathlib.Path]:
    """Name the sheets of receptive fields: one per trained row of table 1 and layer."""
    if config.figures is None:
        return {}
    rows = [row for row in config.rows if row in TABLE and TABLE[row].trained]
    return {(row, n): config.figures / f'{row}_layer{n}.png' for row in rows for n in (1, 2, 3)}


def draw(trained: Stack, rows: list[str], config: Config) -> None:
    """Draw the receptive fields of the first seed, where asked for (figures B.1 and B.2)."""
    for (row, depth), path in pictures(config).items():
        if row in rows:
            title = f'{row}: {trained.net[depth - 1].features} receptive fields of layer {depth}'
            figure = visualize.fields(trained.net, trained.one(0), stack.SHAPE, depth=depth, title=title)
            files.write_whole(path, figure.savefig)
