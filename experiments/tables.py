"""Write the tables of RESULTS.md and README.md from the JSON files in results/, so that no figure is typed by hand.

python experiments/tables.py          # fills every `<!-- table: a.json b.json -->` ... `<!-- end -->`
"""

import json
import pathlib
import re
import sys
from statistics import fmean

from amato_cifar10 import tables as amato_tables
from common import beside_paper, markdown, measure_cells

from hebbjax.cli.tables import mean_std

HERE = pathlib.Path(__file__).parent
DOCUMENTS = (HERE / 'RESULTS.md', HERE.parent / 'README.md')
MARKED = re.compile(r'(<!-- table: ([^>]*?) -->\n).*?(<!-- end -->)', re.DOTALL)
COLUMNS = {
    'distinct_winners': ('winners', '{:.0f}'),
    'win_entropy': ('entropy', '{:.2f}'),
    'nearest_cosine_max': ('largest cosine', '{:.3f}'),
    'nearest_cosine_median': ('median cosine', '{:.2f}'),
    'unit_convergence': ('converged', '{:.2f}'),
}


def fill_tables(text: str, folder: pathlib.Path) -> str:
    """Make the tables of a document anew, from the JSON files in a folder that it names."""

    def fill(mark: re.Match) -> str:
        return mark[1] + lay_out([json.loads((folder / name).read_text()) for name in mark[2].split()]) + mark[3]

    return MARKED.sub(fill, text)


def lay_out(reports: list[dict]) -> str:
    """Lay the rows of several reports out as one Markdown table, or as Amato's tables, and say what they ran on."""
    rows = join_seeds(reports)
    versions = ', '.join(f'{name} {reports[0]["versions"][name]}' for name in ('jax', 'optax', 'python'))
    device = f'Device: {", ".join(sorted({report["device"] for report in reports}))}; {versions}.\n'
    if 'settled' in rows[0]:
        return amato_tables.lay_out(rows) + '\n' + device
    if 'axis' in rows[0]:
        return '\n'.join([*lay_out_margins(rows), '', device])
    if 'measures' in rows[0]:
        lines = [[row['row'], *map(measure_cells, row['measures'].values())] for row in rows]
        return '\n'.join([*markdown(['row', *rows[0]['measures']], lines), '', device])
    lines = lay_out_miconi(rows) if 'l1_quadrants' in rows[0] else lay_out_heads(rows)
    return '\n'.join([*lines, '', device])


def join_seeds(reports: list[dict]) -> list[dict]:
    """Join rows of one name, of the same settings and other seeds each; seconds are means over seeds."""
    rows, own = {}, {}
    for report in reports:
        first = report['config'].get('first_seed', 0)
        settings = {key: value for key, value in report['config'].items() if key not in ('first_seed', 'seeds', 'rows')}
        for row in report['rows']:
            name, new = row['row'], len(row.get('test_accuracy', ()))
            seeds = set(range(first, first + new))
            if name not in rows:
                rows[name], own[name] = row, (seeds, settings)
                continue
            had, (known, theirs) = rows[name], own[name]
            if known & seeds or settings != theirs:
                raise ValueError(f'{name}: two reports of it are of the same seeds, or of other settings.')
            old, joined = len(known), had | {key: had[key] + row[key] for key in had if isinstance(had[key], list)}
            for key in ('seconds', 'compile_seconds'):
                joined[key] = (old * had[key] + new * row[key]) / (old + new)
            rows[name], own[name] = joined, (known | seeds, settings)
    return [*rows.values()]


def lay_out_margins(rows: list[dict]) -> list[str]:
    """Lay out accuracies along an axis: a line for each place, a column for each kind of filters."""
    kinds, places = (list(dict.fromkeys(row[name] for row in rows)) for name in ('kind', 'at'))
    found = {(row['kind'], row['at']): mean_std(row['test_accuracy']) for row in rows}
    lines = [[str(place), *(found.get((kind, place), '') for kind in kinds)] for place in places]
    return markdown([rows[0]['axis'], *(f'{kind}, test %' for kind in kinds)], lines)


def lay_out_heads(rows: list[dict]) -> list[str]:
    """Lay out layers under a trained head, with what tells of their filters."""
    head = ['row', 'test %', 'train %', 'validation %', 'paper %', 'seeds', 'run s', 'compile s']
    lines = []
    for row in rows:
        accuracies = [mean_std(row[f'{part}_accuracy']) for part in ('test', 'train', 'validation')]
        paper = beside_paper(row['test_accuracy'], row['paper'])[1]
        spent = [f'{row[name]:.1f}' for name in ('seconds', 'compile_seconds')]
        measures = [form.format(fmean(row[key])) if key in row else '' for key, (_, form) in COLUMNS.items()]
        lines.append([row['row'], *accuracies, paper, str(len(row['test_accuracy'])), *spent, *measures])
    return markdown([*head, *(title for title, _ in COLUMNS.values())], lines)


def lay_out_miconi(rows: list[dict]) -> list[str]:
    """Lay out stacks of layers, every layer read out, with the paper's numbers beside ours."""
    head = [
        'row',
        'L1 quadrants %',
        'paper',
        'L2 quadrants %',
        'paper',
        'final %',
        'paper',
        'train %',
        'seeds',
        'run s',
    ]
    lines = []
    for row in rows:
        cells = [row['row']]
        for ours, paper in (('l1_quadrants',) * 2, ('l2_quadrants',) * 2, ('test_accuracy', '')):
            cells += beside_paper(row[ours], row[f'paper_{paper}' if paper else 'paper'])[:2]
        cells += [mean_std(row['train_accuracy']), str(len(row['test_accuracy'])), f'{row["seconds"]:.0f}']
        cells.append(f'{row["compile_seconds"]:.1f}' if row['compile_seconds'] else '')  # not told apart
        lowest, _, highest = row['win_rates'][2]
        lines.append([*cells, f'{lowest:.4f} to {highest:.4f}', ' / '.join(f'{share:.2f}' for share in row['nonzero'])])
    return markdown([*head, 'compile s', 'win rates, layer 3', 'non-zero answers'], lines)


def main(argv: list[str]) -> int:
    """Fill the documents; any argument prints the usage instead."""
    if argv:
        print(__doc__)
        return 0 if argv[0] in ('-h', '--help') else 2
    for document in DOCUMENTS:
        document.write_text(fill_tables(document.read_text(), HERE / 'results'))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
