"""Write the tables of RESULTS.md and README.md from the JSON files in results/, so that no figure is typed by hand.

python experiments/tables.py          # fills every `<!-- table: a.json b.json -->` ... `<!-- end -->`
"""

import json
import pathlib
import re
import sys
from statistics import fmean

from hebbjax.jobs.report import mean_std as accuracy

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


def table(reports: list[dict]) -> str:
    """Lay the rows of several reports out as one Markdown table."""
    head = ['row', 'test %', 'train %', 'validation %', 'paper %', 'seeds', 'run s', 'compile s']
    head += [title for title, _ in COLUMNS.values()]
    lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
    for row in (row for report in reports for row in report['rows']):
        cells = [
            row['row'],
            accuracy(row['test_accuracy']),
            accuracy(row['train_accuracy']),
            accuracy(row['validation_accuracy']),
            '' if row['paper'] is None else str(row['paper']),
            str(len(row['test_accuracy'])),
            f'{row["seconds"]:.1f}',
            f'{row["compile_seconds"]:.1f}',
            *(form.format(fmean(row[key])) if key in row else '' for key, (_, form) in COLUMNS.items()),
        ]
        lines.append('| ' + ' | '.join(cells) + ' |')
    versions = reports[0]['versions']
    named = ', '.join(f'{name} {versions[name]}' for name in ('jax', 'optax', 'python'))
    devices = ', '.join(sorted({report['device'] for report in reports}))
    return '\n'.join([*lines, '', f'Device: {devices}; {named}.', ''])


def filled(text: str) -> str:
    """Replace what stands between the marks by tables made anew."""

    def fill(found: re.Match) -> str:
        reports = [json.loads((HERE / 'results' / name).read_text()) for name in found[2].split()]
        return found[1] + table(reports) + found[3]

    return MARKED.sub(fill, text)


if __name__ == '__main__':
    if len(sys.argv) > 1:
        print(__doc__)
        sys.exit(0 if sys.argv[1] in ('-h', '--help') else 2)
    for document in DOCUMENTS:
        document.write_text(filled(document.read_text()))
