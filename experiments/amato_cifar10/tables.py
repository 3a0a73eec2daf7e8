"""Amato et al.'s tables as Markdown: ours, the paper's number, their difference."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from amato_cifar10.networks import CELLS, LETTERS, TABLES, Cell, Group, cell_of
from common import markdown

from hebbjax.cli.tables import mean_std

Rows = Mapping[str, Mapping]  # cell -> its row, as it stands in the JSON


def lay_out(rows: Sequence[Mapping]) -> str:
    """Lay out all that there is: tables 1 and 2, what lies beside them, and how soon networks settled."""
    reached = {row['row']: row for row in rows}
    others = Group('', tuple(cell_of(name) for name in reached if name not in CELLS))
    parts = {
        'Table 1. Classifiers on layers of a network trained by one rule': lay_out_table_1(reached),
        'Table 2. Networks of both kinds of layers': lay_out_networks(reached, TABLES['2'].values()),
        'Beside the tables': lay_out_networks(reached, TABLES['more'].values()),
        'Other networks': lay_out_networks(reached, [others]),
        'Epochs and seconds to within 1 point of the end (validation)': lay_out_settling(reached),
    }
    return '\n'.join(f'**{title}**\n\n' + '\n'.join(lines) + '\n' for title, lines in parts.items() if lines)


def lay_out_table_1(reached: Rows) -> list[str]:
    """Lay out table 1: a row per kind, a column per depth; the paper's number alone where nothing was trained."""

    def entry(cell: Cell) -> str:
        if cell.name not in reached:
            return f'({cell.paper:.2f})'
        ours, paper, difference = compare(reached, cell)
        return f'{ours} ({paper}; {difference})'

    groups = TABLES['1'].values()
    if not any(cell.name in reached for group in groups for cell in group.cells):
        return []
    head = ['test %, ours (paper; difference)', *(f'layer {depth}' for depth in range(1, 6))]
    return markdown(head, [[group.title, *map(entry, group.cells)] for group in groups])


def lay_out_networks(reached: Rows, groups: Iterable[Group]) -> list[str]:
    """Lay out a table with a row per network that was trained."""
    head = ['group', 'network', 'test %', 'paper', 'difference', 'train %', 'seeds', 'epoch kept']
    lines = []
    for title, cell in ((group.title, cell) for group in groups for cell in group.cells if cell.name in reached):
        row = reached[cell.name]
        others = mean_std(row['train_accuracy']), str(len(row['test_accuracy'])), '/'.join(map(str, row['kept_epoch']))
        lines.append([title, cell.name, *compare(reached, cell), *others])
    return markdown(head, lines) if lines else []


def compare(reached: Rows, cell: Cell) -> tuple[str, str, str]:
    """Give our accuracy, mean ± std of several seeds, the paper's, and ours less the paper's, in points."""
    ours = reached[cell.name]['test_accuracy']
    if cell.paper is None:
        return mean_std(ours), '', ''
    return mean_std(ours), f'{cell.paper:.2f}', f'{fmean(ours) - cell.paper:+.2f}'


def lay_out_settling(reached: Rows) -> list[str]:
    """Lay out how soon networks settled: of what was trained last, by kind."""
    head = ['network', 'trained last', 'by', 'epochs', 'seconds', 'epochs in all']
    lines = []
    for row in reached.values():
        epochs, seconds = map(fmean, zip(*row['settled']))
        kind, total = LETTERS[row['letter']], str(len(row['curves'][0]))
        lines.append([row['row'], row['trainings'][-1], kind, f'{epochs:.1f}', f'{seconds:.0f}', total])
    return markdown(head, sorted(lines, key=lambda line: line[2])) if lines else []
