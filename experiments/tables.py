"""Write the tables of RESULTS.md and README.md from the JSON files in results/, so that no figure is typed by hand.

python experiments/tables.py          # fills every `<!-- table: a.json b.json -->` ... `<!-- end -->`
"""

import pathlib
import sys
from statistics import fmean

from hebbjax.jobs import amato_tables, report

HERE = pathlib.Path(__file__).parent
DOCUMENTS = (HERE / 'RESULTS.md', HERE.parent / 'README.md')
COLUMNS = {
    'distinct_winners': ('winners', '{:.0f}'),
    'win_entropy': ('entropy', '{:.2f}'),
    'nearest_cosine_max': ('largest cosine', '{:.3f}'),
    'nearest_cosine_median': ('median cosine', '{:.2f}'),
    'unit_convergence': ('converged', '{:.2f}'),
}


def table(reports: list[dict]) -> str:
    """Lay the rows of several reports out as one Markdown table, or as Amato's tables."""
    if 'settled' in reports[0]['rows'][0]:
        return amato_tables.lay_out([row for one in reports for row in one['rows']]) + '\n' + told(reports)
    lay_out = of_stacks if 'l1_quadrants' in reports[0]['rows'][0] else of_heads
    lines = lay_out([row for one in reports for row in one['rows']])
    return '\n'.join([*lines, '', told(reports)])


def told(reports: list[dict]) -> str:
    """Say what reports were made on."""
    versions = reports[0]['versions']
    named = ', '.join(f'{name} {versions[name]}' for name in ('jax', 'optax', 'python'))
    devices = ', '.join(sorted({one['device'] for one in reports}))
    return f'Device: {devices}; {named}.\n'


def of_stacks(rows: list[dict]) -> list[str]:
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
    head += ['compile s', 'win rates, layer 3', 'non-zero answers']
    laid_out = []
    for row in rows:
        ours = [row['l1_quadrants'], row['l2_quadrants'], row['test_accuracy']]
        papers = [row['paper_l1_quadrants'], row['paper_l2_quadrants'], row['paper']]
        cells = [row['row']]
        for values, paper in zip(ours, papers):
            cells += [report.mean_std(values), '' if paper is None else f'{paper:.2f}']
        cells += [report.mean_std(row['train_accuracy']), str(len(row['test_accuracy'])), f'{row["seconds"]:.0f}']
        lowest, _, highest = row['win_rates'][2]
        compiled = f'{row["compile_seconds"]:.1f}' if row['compile_seconds'] else ''  # not told apart
        cells += [compiled, f'{lowest:.4f} to {highest:.4f}']
        cells.append(' / '.join(f'{share:.2f}' for share in row['nonzero']))
        laid_out.append(cells)
    return report.markdown(head, laid_out)


def of_heads(rows: list[dict]) -> list[str]:
    """Lay out layers under a trained head, with what tells of their filters."""
    head = ['row', 'test %', 'train %', 'validation %', 'paper %', 'seeds', 'run s', 'compile s']
    head += [title for title, _ in COLUMNS.values()]
    laid_out = []
    for row in rows:
        cells = [
            row['row'],
            report.mean_std(row['test_accuracy']),
            report.mean_std(row['train_accuracy']),
            report.mean_std(row['validation_accuracy']),
            '' if row['paper'] is None else str(row['paper']),
            str(len(row['test_accuracy'])),
            f'{row["seconds"]:.1f}',
            f'{row["compile_seconds"]:.1f}',
            *(form.format(fmean(row[key])) if key in row else '' for key, (_, form) in COLUMNS.items()),
        ]
        laid_out.append(cells)
    return report.markdown(head, laid_out)


if __name__ == '__main__':
    sys.exit(report.fill_documents(__doc__, DOCUMENTS, HERE / 'results', table))
