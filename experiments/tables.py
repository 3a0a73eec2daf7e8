"""Write the tables of RESULTS.md and README.md from the JSON files in results/, so that no figure is typed by hand.

python experiments/tables.py     # fills every `<!-- table: a.json b.json -->`, or `CONTROLS`, ... `<!-- end -->`

Pictures of what several commands measured are drawn as well.
"""

import functools
import pathlib
import re
import sys
from collections.abc import Callable, Iterable
from statistics import fmean

from amato_cifar10 import tables as amato_tables
from common import beside_paper, draw_margins, markdown, measure_cells, write_figure

from hebbjax.cli.tables import mean_std
from hebbjax.support import files

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
of_seeds = lambda name, row: ' '.join([*(f'{name}_{seed}' for seed in range(3)), row])  # noqa: E731
CONTROLS = {  # task -> files and row of each column: untrained, copied patches, learned, backprop
    'digits, 32 filters, 1 maximum': ('digits untrained', 'digits patches', 'digits hebbian', 'digits backprop'),
    'Fashion-MNIST, 400 filters, 6 x 6 maxima': (
        'fashion_mnist_features untrained', 'fashion_mnist_patches patches', 'fashion_mnist_features hebbian',
        of_seeds('fashion_mnist_twin', 'backprop')),
    'Fashion-MNIST, 3 x 3 maxima': (
        'fashion_mnist_coarse untrained', 'fashion_mnist_coarse_patches patches', 'fashion_mnist_coarse hebbian',
        of_seeds('fashion_mnist_coarse_twin', 'backprop')),
    'MNIST, 2000 dense units': ('', 'krotov_mnist untrained', 'krotov_mnist hebbian', 'krotov_mnist_twin backprop'),
    'CIFAR-10, three layers (Miconi)': (
        'miconi_triangle triangle_untrained', 'miconi_patches triangle_patches',
        'miconi_triangle triangle_trained', 'miconi_backprop miconi_backprop_1 miconi_backprop_2 backprop'),
    'CIFAR-10, three layers (SoftHebb)': (
        'softhebb_0 softhebb_initialised_1 softhebb_initialised_2 initialised',
        of_seeds('softhebb_centred', 'centred_patches'), of_seeds('softhebb', 'learned'), ''),
    'MNIST, three layers (SoftHebb)': (
        of_seeds('softhebb_mnist_initialised', 'initialised'), of_seeds('softhebb_mnist_centred', 'centred_patches'),
        of_seeds('softhebb_mnist', 'learned'), ''),
    'Fashion-MNIST, three layers (SoftHebb)': (
        of_seeds('softhebb_fashion_mnist_initialised', 'initialised'),
        of_seeds('softhebb_fashion_mnist_centred', 'centred_patches'),
        of_seeds('softhebb_fashion_mnist', 'learned'), ''),
    'CIFAR-10, a dictionary of 512': (
        'dictionary_gaussian dictionary_gaussian_1 dictionary_gaussian_2 gaussian',
        'dictionary dictionary_patches_1 dictionary_patches_2 patches',
        'dictionary dictionary_learned_1 dictionary_learned_2 learned', ''),
    'CIFAR-10, two layers (kernel network)': ('kernel_64 gaussian', 'kernel_64 patches', 'kernel_64 learned', ''),
    'CIFAR-10, the same, both layers read out': (
        'kernel_64_both_gaussian gaussian', 'kernel_64_both_patches patches', 'kernel_64_both learned', ''),
    'CIFAR-10, four times as wide, both layers read out': (
        'kernel_256_both_gaussian gaussian', 'kernel_256_both_patches patches', 'kernel_256_both learned', ''),
    'CIFAR-10, four times as wide, layer 2 read out': (
        'kernel_256_gaussian gaussian', 'kernel_256_patches kernel_256_patches_1 patches',
        'kernel_256 kernel_256_1 learned', ''),
    'CIFAR-10, this beside two SoftHebb networks': (
        '', 'kernel_256_beside_two_patches patches', 'kernel_256_beside_two learned', ''),
}  # fmt: skip
UNTOLD = {'precision': 'highest', 'head': 'ridge', 'first_layer': False, 'beside': [], 'crops': 0}  # by older reports
TWINS = [f'margins_labels_backprop{of}.json' for of in ('', '_1', '_2', '_2b')]
PICTURES = {'margins_labels.png': ['margins_labels.json', *TWINS]}


def fill_tables(text: str, folder: pathlib.Path) -> str:
    """Make the tables of a document anew, from the JSON files in a folder that it names."""
    read = functools.partial(read_reports, folder)

    def fill(mark: re.Match) -> str:
        return mark[1] + (lay_out_controls(read) if mark[2] == 'CONTROLS' else lay_out(read(mark[2].split()))) + mark[3]

    return MARKED.sub(fill, text)


def read_reports(folder: pathlib.Path, names: Iterable[str]) -> list[dict]:
    """Read what commands wrote."""
    return [files.read_json(folder / name) for name in names]


def lay_out_controls(read: Callable) -> str:
    """Lay out what learning is worth: a line for each task of `CONTROLS`."""

    def find(place: str) -> dict:
        *reports, name = place.split()
        return next(row for row in join_seeds(read(f'{file}.json' for file in reports)) if row['row'] == name)

    lines, head = [], ['test %', 'untrained', 'copied patches', 'Hebbian', 'backprop', 'paper, Hebbian']
    for task, places in CONTROLS.items():
        rows = [find(place) if place else None for place in places]
        cells = [mean_std(row['test_accuracy']) if row else '' for row in rows]
        lines.append([task, *cells, beside_paper(rows[2]['test_accuracy'], rows[2]['paper'])[1]])
    return '\n'.join([*markdown(head, lines), ''])


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
        first = (config := UNTOLD | report['config']).get('first_seed', 0)
        settings = {k: v for k, v in config.items() if k not in ('first_seed', 'seeds', 'rows', 'labels')}
        for row in report['rows']:
            name, new = row['row'], len(row.get('test_accuracy', ()))
            seeds = set(range(first, first + new))
            if name not in rows:
                rows[name], own[name] = row, (seeds, settings)
                continue
            had, (known, theirs) = rows[name], own[name]
            if known & seeds or not seeds or settings != theirs or had.get('network') != row.get('network'):
                raise ValueError(f'{name}: two reports of it are of the same seeds, or of other settings.')
            old, joined = len(known), had | {key: had[key] + row[key] for key in had if isinstance(had[key], list)}
            joined |= {key: (old * had[key] + new * row[key]) / (old + new) for key in ('seconds', 'compile_seconds')}
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
    head = ['row', *(part for name in ('L1 quadrants', 'L2 quadrants', 'final') for part in (f'{name} %', 'paper'))]
    lines = []
    for row in rows:
        cells = [row['row']]
        for ours, paper in (('l1_quadrants',) * 2, ('l2_quadrants',) * 2, ('test_accuracy', '')):
            cells += beside_paper(row[ours], row[f'paper_{paper}' if paper else 'paper'])[:2]
        cells += [mean_std(row['train_accuracy']), str(len(row['test_accuracy'])), f'{row["seconds"]:.0f}']
        cells.append(f'{row["compile_seconds"]:.1f}' if row['compile_seconds'] else '')  # not told apart
        lowest, _, highest = row['win_rates'][2]
        lines.append([*cells, f'{lowest:.4f} to {highest:.4f}', ' / '.join(f'{share:.2f}' for share in row['nonzero'])])
    told = 'train %', 'seeds', 'run s', 'compile s', 'win rates, layer 3', 'non-zero answers'
    return markdown([*head, *told], lines)


def main(argv: list[str]) -> int:
    """Fill the documents; any argument prints the usage instead."""
    if argv:
        print(__doc__)
        return 0 if argv[0] in ('-h', '--help') else 2
    try:
        texts = [fill_tables(document.read_text(), HERE / 'results') for document in DOCUMENTS]
        drawn = [join_seeds(read_reports(HERE / 'results', names)) for names in PICTURES.values()]
    except (OSError, ValueError) as error:  # before anything is written
        print(f'tables.py: error: {error}', file=sys.stderr)
        return 2
    for document, text in zip(DOCUMENTS, texts):
        files.write_whole(document, lambda file, text=text: file.write_text(text))
    for picture, rows in zip(PICTURES, drawn):
        write_figure(HERE / 'pictures' / picture, draw_margins(rows))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
