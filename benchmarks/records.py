"""Write the tables of RECORDS.md from the JSON files in results/, so that no figure is typed by hand.

python benchmarks/records.py          # fills every `<!-- table: a.json -->` ... `<!-- end -->`
"""

import pathlib
import sys

from hebbjax.jobs import report

HERE = pathlib.Path(__file__).parent
DOCUMENTS = (HERE / 'RECORDS.md',)
COLUMNS = {
    'k': ('k', '{}'),
    'p': ('p', '{:g}'),
    'shape': ('layer', '{}'),
    'gflop_per_second': ('GFLOP/s of the product', '{:.0f}'),
    'images_per_second': ('images/s', '{:.0f}'),
    'times_hebbjax': ('times hebbjax', '{:.2f}'),
    'fraction_of_product': ('share of the product', '{:.2f}'),
    'times_patches_product': ('of patches + product', '{:.2f}'),
    'mebibytes': ('MiB', '{:.1f}'),
    'process_mebibytes': ('MiB of the process, at most', '{:.0f}'),
    'difference': ('difference', '{:.0e}'),
    'times_not_watched': ('times not watched', '{:.3f}'),
}


def table(results: list[dict]) -> str:
    """Lay the rows of one or more results out as one Markdown table; columns that no row has are left out."""
    if 'inside_save' in results[0]['rows'][0]:
        return of_kills(results[0])
    rows = [row for result in results for row in result['rows']]
    shown = {key: how for key, how in COLUMNS.items() if any(row.get(key) is not None for row in rows)}
    head = ['row', 'ms a step', 'from', 'to', *(title for title, _ in shown.values())]
    laid_out = []
    for row in rows:
        times = [row['seconds_per_step'], *row['spread']]
        told = ['' if row.get(key) is None else form.format(row[key]) for key, (_, form) in shown.items()]
        laid_out.append([row['row'], *(f'{1e3 * some:.2f}' for some in times), *told])
    first = results[0]
    versions = ', '.join(f'{name} {version}' for name, version in first['versions'].items() if version)
    cores = f', {first["cores"]} cores' if first['cores'] else ''
    data = f', {first["config"]["data"]} images' if 'data' in first['config'] else ''
    turns = f'{rows[0]["repetitions"]} turns, medians'
    return '\n'.join(
        [
            *report.markdown(head, laid_out),
            '',
            f'{first["date"]}, {first["device"]}{cores}{data}; {turns}; {versions}.',
            '',
        ]
    )


def of_kills(result: dict) -> str:
    """Lay out a training that was killed again and again: where each process began and ended, and if it agreed."""
    word = {True: 'yes', False: 'no'}
    rows = [[row['row'], str(row['from_epoch']), str(row['to_epoch']), word[row['inside_save']], word[row['identical']]]
            for row in result['rows']]  # fmt: skip
    versions = ', '.join(f'{name} {version}' for name, version in result['versions'].items() if version)
    head = ['process', 'from epoch', 'to epoch', 'killed inside a save', 'bit-identical in all epochs']
    return '\n'.join([*report.markdown(head, rows), '', f'{result["device"]}; {versions}.', ''])


if __name__ == '__main__':
    sys.exit(report.fill_documents(__doc__, DOCUMENTS, HERE / 'results', table))
