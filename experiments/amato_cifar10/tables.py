"""Amato et al.'s tables as Markdown: ours, the paper's number, their difference."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from statistics import fmean

from amato_cifar10.networks import CELLS, LETTERS, TABLES, Cell
from common import beside_paper, markdown

from hebbjax.cli.tables import mean_std


def lay_out(rows: Sequence[Mapping]) -> str:
    """Lay out all that there is: tables 1 and 2, what lies beside them, and how soon networks settled."""
    reached = {row['row']: row for row in rows}  # cell -> its row, as it stands in the JSON
    parts = {
        'Table 1. Classifiers on layers of a network trained by one rule': lay_out_table_1(reached),
        'Table 2. Networks of both kinds of layers': lay_out_networks(reached, TABLES['2']),
        'Beside the tables': lay_out_networks(reached, TABLES['more']),
        'Other networks': lay_out_networks(reached, (Cell(name) for name in reached if name not in CELLS)),
        'Epochs and seconds to within 1 point of the end (validation)': lay_out_settling(reached),
    }
    return '\n'.join(f'**{title}**\n\n' + '\n'.join(lines) + '\n' for title, lines in parts.items() if lines)


def lay_out_table_1(reached: Mapping[str, Mapping]) -> list[str]:
    """Lay out table 1: a row per kind, a column per depth; the paper's number alone where nothing was trained."""

    def entry(cell: Cell) -> str:
        if cell.name not in reached:
            return f'({cell.paper:.2f})'
        return '{} ({}; {})'.format(*beside_paper(reached[cell.name]['test_accuracy'], cell.paper))

    if not any(cell.name in reached for cell in TABLES['1']):
        return []
    head = ['test %, ours (paper; difference)', *(f'layer {depth}' for depth in range(1, 6))]
    groups = groupby(TABLES['1'], key=lambda cell: cell.group)
    return markdown(head, [[group, *map(entry, cells)] for group, cells in groups])


def lay_out_networks(reached: Mapping[str, Mapping], cells: Iterable[Cell]) -> list[str]:
    """Lay out a table with a row per network that was trained."""
    head, lines = ['group', 'network', 'test %', 'paper', 'difference', 'train %', 'seeds', 'epoch kept'], []
    for cell in cells:
        if row := reached.get(cell.name):
            accuracies = *beside_paper(row['test_accuracy'], cell.paper), mean_std(row['train_accuracy'])
            seeds, epochs = str(len(row['test_accuracy'])), '/'.join(map(str, row['kept_epoch']))
            lines.append([cell.group, cell.name, *accuracies, seeds, epochs])
    return markdown(head, lines)


def lay_out_settling(reached: Mapping[str, Mapping]) -> list[str]:
    """Lay out how soon networks settled: of what was trained last, by kind."""
    head, lines = ['network', 'trained last', 'by', 'epochs', 'seconds', 'epochs in all'], []
    for row in sorted(reached.values(), key=lambda row: LETTERS[row['letter']]):
        epochs, seconds = map(fmean, zip(*row['settled']))
        last, kind, total = row['trainings'][-1], LETTERS[row['letter']], str(len(row['curves'][0]))
        lines.append([row['row'], last, kind, f'{epochs:.1f}', f'{seconds:.0f}', total])
    return markdown(head, lines)
