"""Write the tables of RECORDS.md from the JSON files in results/, so that no figure is typed by hand.

python benchmarks/records.py          # fills every `<!-- table: a.json -->` ... `<!-- end -->`
"""

import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / 'experiments'))  # their tables are marked alike
from common import markdown
from tables import MARKED

DOCUMENT = pathlib.Path(__file__).resolve().with_name('RECORDS.md')
RESULTS = DOCUMENT.with_name('results')
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
    'times_resident': ('times resident', '{:.3f}'),
    'grown_mebibytes': ('MiB the process grows by, at most', '{:.0f}'),
    'allowed_mebibytes': ('MiB of parts allowed', '{:.0f}'),
    'difference': ('difference', '{:.0e}'),
    'times_training': ('times training', '{:.2f}'),
    'temporary_mebibytes': ('MiB of temporaries', '{:.1f}'),
    'times_memory_of_a_step': ('times one step', '{:.2f}'),
    'times_not_watched': ('times not watched', '{:.3f}'),
    'flops_of_one': ('work of one device', '{:.3f}'),
    'collectives': ('collectives', '{}'),
    'identical': ('repeats in every bit', '{}'),
}


def lay_out(results: list[dict]) -> str:
    """Lay the rows of one or more results out as one Markdown table; columns that no row has are left out."""
    if 'inside_save' in results[0]['rows'][0]:
        return lay_out_kills(results[0])
    rows = [row for result in results for row in result['rows']]
    columns = {key: column for key, column in COLUMNS.items() if any(row.get(key) is not None for row in rows)}
    head = ['row', 'ms a step', 'from', 'to', *(title for title, _ in columns.values())]
    lines = []
    for row in rows:
        times = [row['seconds_per_step'], *row['spread']]
        cells = ['' if row.get(key) is None else form.format(row[key]) for key, (_, form) in columns.items()]
        lines.append([row['row'], *('' if s is None else f'{1e3 * s:.2f}' for s in times), *cells])
    first = results[0]
    versions = ', '.join(f'{name} {version}' for name, version in first['versions'].items() if version)
    cores = f', {first["cores"]} cores' if first['cores'] else ''
    data = f', {first["config"]["data"]} images' if 'data' in first['config'] else ''
    turns = f'{rows[0]["repetitions"]} turns, medians' if 'repetitions' in rows[0] else 'medians'
    foot = f'{first["date"]}, {first["device"]}{cores}{data}; {turns}; {versions}.'
    return '\n'.join([*markdown(head, lines), '', foot, ''])


def lay_out_kills(result: dict) -> str:
    """Lay out a training that was killed again and again: where each process began and ended, and if it agreed."""
    word = {True: 'yes', False: 'no'}
    rows = [[row['row'], str(row['from_epoch']), str(row['to_epoch']), word[row['inside_save']], word[row['identical']]]
            for row in result['rows']]  # fmt: skip
    versions = ', '.join(f'{name} {version}' for name, version in result['versions'].items() if version)
    head = ['process', 'from epoch', 'to epoch', 'killed inside a save', 'bit-identical in all epochs']
    return '\n'.join([*markdown(head, rows), '', f'{result["device"]}; {versions}.', ''])


def fill_tables(text: str) -> str:
    """Make the tables of the document anew, from the JSON files that it names."""
    read = lambda names: [json.loads((RESULTS / name).read_text()) for name in names.split()]  # noqa: E731
    return MARKED.sub(lambda mark: mark[1] + lay_out(read(mark[2])) + mark[3], text)


def main(argv: list[str]) -> int:
    """Fill the document; any argument prints the usage instead."""
    if argv:
        print(__doc__)
        return 0 if argv[0] in ('-h', '--help') else 2
    DOCUMENT.write_text(fill_tables(DOCUMENT.read_text()))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
