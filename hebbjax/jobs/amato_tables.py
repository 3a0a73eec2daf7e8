"""Amato et al.'s tables, as Markdown and on the terminal: the paper's number, ours, their difference."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.console import Console

from hebbjax.jobs import report
from hebbjax.jobs.cells import CELLS, LETTERS, TABLES, Cell, Group, cell_of
from hebbjax.jobs.report import Report

Rows = Mapping[str, Mapping]  # cell -> its row, as it stands in the JSON


def lay_out(rows: Sequence[Mapping]) -> str:
    """Lay out all that there is: tables 1 and 2, what lies beside them, and how soon networks settled."""
    found = {row['row']: row for row in rows}
    parts = [
        ('Table 1. Classifiers on layers of a network trained by one rule', table_1(found, TABLES['1'])),
        ('Table 2. Networks of both kinds of layers', table_2(found, TABLES['2'])),
        ('Beside the tables', table_2(found, TABLES['more'])),
        ('Other networks', table_2(found, [Group('', '', others(found))])),
        ('Epochs and seconds to within 1 point of the end (validation)', settling(found)),
    ]
    return '\n'.join(f'**{title}**\n\n' + '\n'.join(lines) + '\n' for title, lines in parts if lines)


def others(found: Rows) -> tuple[Cell, ...]:
    """Give the networks that are none of the paper's."""
    return tuple(cell_of(name) for name in found if name not in CELLS)


def table_1(found: Rows, groups: Sequence[Group]) -> list[str]:
    """Lay out table 1: a row per kind, a column per depth; empty where nothing was trained."""
    if not any(cell.name in found for group in groups for cell in group.cells):
        return []
    head = ['test %, ours (paper; difference)', *(f'layer {depth}' for depth in range(1, 6))]
    return report.markdown(head, [[group.title, *(entry(found, cell) for cell in group.cells)] for group in groups])


def entry(found: Rows, cell: Cell) -> str:
    """Say in a few words what a cell reached."""
    if cell.name not in found:
        return f'({cell.paper:.2f})'
    return f'{ours(found, cell)} ({cell.paper:.2f}; {difference(found, cell)})'


def table_2(found: Rows, groups: Sequence[Group]) -> list[str]:
    """Lay out a table with a row per network that was trained."""
    head = ['group', 'network', 'test %', 'paper', 'difference', 'train %', 'seeds', 'epoch kept']
    lines = []
    for group in groups:
        for cell in group.cells:
            if cell.name in found:
                row = found[cell.name]
                paper = '' if cell.paper is None else f'{cell.paper:.2f}'
                train = report.mean_std(row['train_accuracy'])
                seeds, kept = str(len(row['test_accuracy'])), '/'.join(map(str, row['kept_epoch']))
                lines.append(
                    [group.title, cell.name, ours(found, cell), paper, difference(found, cell), train, seeds, kept]
                )
    return report.markdown(head, lines) if lines else []


def ours(found: Rows, cell: Cell) -> str:
    """Give our accuracy, mean ± std where there are several seeds."""
    return report.mean_std(found[cell.name]['test_accuracy'])


def difference(found: Rows, cell: Cell) -> str:
    """Give ours less the paper's, in points."""
    return '' if cell.paper is None else f'{fmean(found[cell.name]["test_accuracy"]) - cell.paper:+.2f}'


def settling(found: Rows) -> list[str]:
    """Lay out how soon networks settled: of what was trained last, by kind."""
    lines = []
    for row in found.values():
        last = row['trainings'][-1]
        epochs, seconds = zip(*row['settled'])
        lines.append(
            [
                row['row'],
                last,
                LETTERS[row['letter']],
                f'{fmean(epochs):.1f}',
                f'{fmean(seconds):.0f}',
                str(len(row['curves'][0])),
            ]
        )
    lines.sort(key=lambda line: line[2])
    head = ['network', 'trained last', 'by', 'epochs', 'seconds', 'epochs in all']
    return report.markdown(head, lines) if lines else []


def show(result: Report, console: Console) -> None:
    """Print a line per network, with the paper's number."""
    rows = [row.as_json() for row in result.rows]
    found = {row['row']: row for row in rows}
    cells = []
    for row in rows:
        cell = cell_of(row['row'])
        paper = '-' if cell.paper is None else f'{cell.paper:.2f}'
        epochs = fmean(epochs for epochs, _ in row['settled'])
        run = f'{row["seconds"]:.0f}'
        cells.append((cell.name, ours(found, cell), paper, difference(found, cell) or '-', f'{epochs:.1f}', run))
    note = ' (interrupted: networks that were finished)' if result.interrupted else ''
    headings = ('', 'test %', 'paper', 'diff.', 'settled', 'run s')
    report.print_table(f'CIFAR-10, test accuracy in percent{note}', headings, cells, console)
