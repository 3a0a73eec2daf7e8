"""Write the tables of RESULTS.md and README.md from the JSON files in results/, so that no figure is typed by hand.

python experiments/tables.py          # fills every `<!-- table: a.json b.json -->` ... `<!-- end -->`
"""

import pathlib
import sys
from statistics import fmean

from hebbjax.jobs import report

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
    """Lay the rows of several reports out as one Markdown table."""
    head = ['row', 'test %', 'train %', 'validation %', 'paper %', 'seeds', 'run s', 'compile s']
    head += [title for title, _ in COLUMNS.values()]
    lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
    for row in (row for one in reports for row in one['rows']):
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
        lines.append('| ' + ' | '.join(cells) + ' |')
    versions = reports[0]['versions']
    named = ', '.join(f'{name} {versions[name]}' for name in ('jax', 'optax', 'python'))
    devices = ', '.join(sorted({one['device'] for one in reports}))
    return '\n'.join([*lines, '', f'Device: {devices}; {named}.', ''])


if __name__ == '__main__':
    sys.exit(report.fill_documents(__doc__, DOCUMENTS, HERE / 'results', table))
