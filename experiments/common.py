"""What the experiments share: running them from a shell, data, comparisons of a network with its controls, reports."""

import argparse
import dataclasses
import functools
import pathlib
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import jax
import numpy as np

from hebbjax import Layer, data, interop, plots, readout
from hebbjax.cli import flags, launch, main, output, tables
from hebbjax.cli.compare import COLUMNS
from hebbjax.cli.settings import check_batch, check_fits
from hebbjax.layers.layer import OUTPUTS, PRECISIONS
from hebbjax.layers.patches import PATCH_TRANSFORMS
from hebbjax.support import checks, files
from hebbjax.support.signals import hold_signals
from hebbjax.training import comparison, presets

__all__ = [
    'PRECISIONS', 'Comparison', 'Seeded', 'Settings', 'beside_paper', 'check_batch', 'check_fits', 'classifier_entries',
    'compare', 'draw_margins', 'hebbian_layer', 'load', 'load_train', 'markdown', 'measure_cells', 'note_of', 'report',
    'report_measures', 'run', 'run_entries', 'settings_by_dataset', 'tell', 'tell_epoch', 'tell_status', 'tell_trained',
    'write_figure', 'write_report',
]  # fmt: skip


def run(experiment: Callable, defaults: Any, argv: Sequence[str] | None, prog: str) -> int:
    """Read flags, run an experiment, and turn what went wrong into a sentence and an exit code.

    Args:
        experiment: settings -> whether the user ended it early.
        defaults: the default settings; or data set -> its default settings, the first one if no flag says which.
        argv: the flags; None: those of the process.
        prog: name of the script.

    Returns:
        0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    argv, settings = list(sys.argv[1:] if argv is None else argv), defaults
    if isinstance(defaults, Mapping):
        parser = argparse.ArgumentParser(prog, add_help=False, allow_abbrev=False)
        parser.add_argument('--dataset', default=next(iter(defaults)))
        settings = defaults.get(parser.parse_known_args(argv)[0].dataset, next(iter(defaults.values())))

    def command(settings, console) -> bool:
        if isinstance(defaults, Mapping):
            refuse_unknown('dataset', settings.dataset, defaults)
        paths = [getattr(settings, name, None) for name in ('json', 'markdown', 'figure', 'curves')]
        files.check_writable(*paths)
        places = [path.resolve() for path in paths if path is not None]
        checks.require(len({*places}) == len(places), 'one file is named for two results; give each its own.')
        for path in filter(None, paths[2:]):
            fits = path.suffix.lower() in ('.png', '.pdf', '.svg')
            checks.require(fits, f'{path} cannot be drawn: its ending is no picture; use .png, .pdf or .svg.')
        return experiment(settings)

    return main.run_command(settings, command, argv, prog)


def refuse_unknown(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse the value of a setting that is none of those that are known, naming its flag."""
    checks.check_choice(flags.flag(name), value, known)


def load(name: str, split: str, data_dir: pathlib.Path | None = None) -> data.Split:
    """Read a split of `DATA_DIR/NAME.npz` if there is one, its arrays `train_images`, ...; else as `data.load` does."""
    path = None if data_dir is None else data_dir / f'{name}.npz'
    if path is None or not path.is_file():
        return data.load(name, split, data_dir=data_dir)
    checks.require('test' in data.splits_of(path), f'{path} has no test part; add test_images and test_labels.')
    found = data.load(path, split)
    checks.require(found.labels is not None, f'{path} has no labels of its {split} images; add {split}_labels.')
    return found


def load_train(name: str, validation: float, data_dir: pathlib.Path | None = None, count: int | None = None):
    """Read training images and set a validation split aside, the same for all seeds. -> two (images, labels)."""
    images, labels = (part[:count] for part in load(name, 'train', data_dir))
    sides = data.split_validation(labels, validation, seed=0)
    return tuple(jax.device_put((images[side], labels[side])) for side in sides)


@dataclasses.dataclass(frozen=True)
class Seeded(launch.OnDevices):
    """What any training over seeds on a data set can be told."""

    seeds: flags.Seeds = 3  # Number of seeds, 0, 1, ...; each draws weights, order and dropout anew
    first_seed: flags.Seed = 0  # The first of them, to go on where an earlier run stopped
    images: flags.Count | None = None  # Training images used; left out: all. Fewer are for trying things out
    data_dir: pathlib.Path | None = None  # Where data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, ~/tensorflow_datasets
    json: pathlib.Path | None = None  # File for all results, with configuration, versions and learning curves

    @property
    def all_seeds(self) -> range:
        """The seeds, one by one."""
        return range(self.first_seed, self.first_seed + self.seeds)


@dataclasses.dataclass(frozen=True)
class Comparison(Seeded):
    """What any comparison of a network with its controls over seeds can be told."""

    weights: pathlib.Path | None = None  # Folder for all networks' weights, ROW_SEED.safetensors, new ones
    figure: pathlib.Path | None = None  # File for a picture of the first layer's filters, first seed (png, pdf, svg)


@dataclasses.dataclass(frozen=True)
class Settings(Comparison):
    """What a comparison of Krotov-Hopfield features under a trained head with its controls can be told."""

    dataset: str = ''  # fashion_mnist, mnist, cifar10 or digits (embedded); other settings are as chosen for it
    validation: flags.Part = 1 / 12  # Share of the training data that choices are made on
    rows: tuple[str, ...] = ()  # Which networks to train; left out: all

    epochs: flags.Count = 300  # Hebbian epochs, over which the rate falls linearly
    batch: flags.Count = 1000  # Images per Hebbian step
    rate: flags.Rate = 0.04  # First Hebbian rate: the largest change of any weight in a step
    features: flags.Count = 400  # Neurons (filters)
    patch_transform: flags.choice(*PATCH_TRANSFORMS) = 'raw'  # Patches are raw, centred, l2, centred_l2 or contrast
    k: flags.Rank = 2  # The rank that unlearns, 2 to N
    delta: flags.Amount = 0.4  # Strength of the unlearning
    p: flags.NormExponent = 2.0  # Exponent of the norm, above 1
    maximum: flags.choice('layer', 'unit') = 'layer'  # Changes are divided by the largest of the layer, or of each unit
    spread: flags.Rate = 1.0  # Standard deviation of the first weights; 1 in the papers. Of small ones few ever win
    start: flags.choice('drawn', 'patches') = 'drawn'  # First weights, untrained ones too: drawn, or training patches
    output: flags.choice(*OUTPUTS) = 'weights'  # Predict with the weights, or with effective ones: sign(w)|w|^(p-1)
    precision: flags.choice(*PRECISIONS) = 'highest'  # Of products: highest, float32x3, tensorfloat32 or bfloat16

    power: flags.number(least=1) = 1.0  # n of the head's RePU(n)
    threshold: flags.number(least=-flags.LARGEST) = 0.0  # Deviations above its mean from which a neuron sends, at first
    dropout: flags.number(least=0, below=1) = 0.0  # Share of neurons silenced while a head trains
    head_epochs: flags.Count = 20  # Epochs of a head at most; early stopping may end it sooner
    head_batch: flags.Count = 256  # Images per gradient step
    head_rate: flags.Rate = 1e-3  # Adam's first rate
    head_decay: flags.Amount = 0.0  # Decoupled weight decay (AdamW)
    head_patience: flags.Count = 2  # Epochs without a better accuracy until the rate falls to 0.3; 2 of them + 2 end it
    head_average: flags.Count = 1000  # Steps over which a head's parameters are averaged before it is judged
    shift: flags.CountOrZero = 0  # Pixels by which images move at most while heads train, anew each epoch
    backprop_epochs: flags.Count = 15  # Epochs of the end-to-end twin at most
    backprop_batch: flags.Count = 256  # Images per gradient step of the end-to-end twin
    backprop_rate: flags.Rate = 3e-4  # Adam's first rate in the end-to-end twin
    backprop_patches: flags.choice(*PATCH_TRANSFORMS) = 'raw'  # As `patch_transform`, of the end-to-end twin
    backprop_threshold: flags.number(least=-flags.LARGEST) = 0.0  # As `threshold`, of its head
    backprop_flips: bool = False  # Mirror the twin's images at random
    backprop_shift: flags.CountOrZero = 0  # As `shift`, of the twin's
    backprop_seeds: flags.Seeds = 1  # Seeds of the end-to-end twin at most

    curves: pathlib.Path | None = None  # File for a picture of accuracy over head epochs, first seed

    @property
    def schedule(self) -> readout.Schedule:
        """Adam under reduce-on-plateau, for heads."""
        lengths = {'epochs': self.head_epochs, 'batch': self.head_batch, 'average': self.head_average}
        plateau = {'factor': 0.3, 'patience': self.head_patience, 'stop_after': 2 * self.head_patience + 1}
        return readout.Schedule(rate=self.head_rate, decay=self.head_decay, **lengths, **plateau)

    @property
    def twin(self) -> presets.Twin:
        """How the end-to-end twin learns: its batch norm knows its last filters, not a mean of filters."""
        how = {'epochs': self.backprop_epochs, 'batch': self.backprop_batch, 'rate': self.backprop_rate}
        schedule = self.schedule._replace(**how, average=1)
        moves = self.backprop_flips, self.backprop_shift
        return presets.Twin(schedule, self.backprop_patches, self.backprop_threshold, *moves)

    @property
    def gradient(self) -> dict:
        """How all gradient training goes: images that move, devices, and a line on the terminal."""
        augment = data.random_shift(self.shift) if self.shift else None
        return {'watch': functools.partial(tell_epoch, self.dataset), 'augment': augment, 'mesh': self.probe_mesh()}


def hebbian_layer(settings: Settings, count: int, **more: Any) -> Layer:
    """Build the layer for so many images; it sends drives as they are, which the head normalises, rectifies, pools."""
    recipe = presets.build_recipe('krotov', {**vars(settings), **more}, count)
    return dataclasses.replace(*recipe.net, post=())


def settings_by_dataset(kind: type[Settings], network: str, datasets: Sequence[str]) -> dict[str, Settings]:
    """Give the settings of data sets as `presets.TUNED` has them for a network, which `hebbjax compare` takes too."""
    found = {}
    for dataset in datasets:
        chosen = presets.TUNED[network][dataset]
        head, twin = chosen['head'], chosen['twin']
        lengths = {f'head_{name}': getattr(head, name) for name in ('epochs', 'batch', 'rate', 'patience', 'average')}
        lengths |= {f'backprop_{name}': getattr(twin.schedule, name) for name in ('epochs', 'batch', 'rate')}
        lengths |= {f'backprop_{name}': getattr(twin, name) for name in ('threshold', 'flips', 'shift')}
        lengths['backprop_patches'] = twin.patch_transform
        own = {field.name for field in dataclasses.fields(kind)} & chosen.keys()
        found[dataset] = kind(dataset=dataset, **lengths, **{name: chosen[name] for name in own})
    return found


def classifier_entries(
    settings: Settings, layer: Layer, shape: tuple[int, ...], classes: int, paper: Mapping[str, float],
    pool: int | None = None, more: Mapping[str, tuple[Layer, float]] = types.MappingProxyType({}),
) -> dict[str, comparison.Entry]:  # fmt: skip
    """Build a network of one Hebbian layer under a classifier trained by gradient, and its controls.

    A layer that does not fit the images is refused. `paper`: row -> percent it reports; `pool`: side of the head's
    blocks; `more`: row -> another layer that learns, and the exponent of its norm.
    """
    how = {'power': settings.power, 'pool': pool, 'dropout': settings.dropout}
    build_head = functools.partial(readout.linear_head, classes, **how)
    check_fits((layer, build_head()), shape)
    start = presets.FIRST_WEIGHTS[settings.start]
    how = {'epochs': settings.epochs, 'batch': settings.batch, 'start': start, 'p': settings.p}
    how |= {'threshold': settings.threshold, 'twin_seeds': settings.backprop_seeds, **settings.gradient}
    entries = comparison.under_head(layer, build_head, settings.schedule, settings.twin, **how)
    entries |= {row: entries['hebbian']._replace(net=(other,), p=p) for row, (other, p) in more.items()}
    return {row: entry._replace(paper=paper.get(row)) for row, entry in entries.items()}


def compare(settings: Settings, build: Callable, draw: Callable) -> bool:
    """Train every network on every seed, then read the test split, print a table and write files.

    Args:
        settings: of the comparison.
        build: (settings, images to train on, classes) -> row -> `comparison.Entry`; refuses settings that do not fit.
        draw: (settings, {row: first layer's weights of seed 0}, image shape) -> the figure of filters, or None.

    Returns:
        Whether the user ended it early; what was reached is written.
    """
    # whatever does not fit is refused here, before the first hour of training
    train, validation = load_train(settings.dataset, settings.validation, settings.data_dir, settings.images)
    count, shape = len(train[1]), train[0].shape[1:]
    check_batch(settings.batch, count)
    if settings.k > settings.features:
        raise ValueError(f'--k {settings.k} is more than the {settings.features} neurons that compete; use 2 to N.')
    way = f'moves images of {shape[0]} x {shape[1]} out of sight; use less'
    checks.require(max(settings.shift, settings.backprop_shift) < min(shape[:2]), f'--shift or --backprop-shift {way}.')
    entries = build(settings, train[0], int(np.asarray(train[1]).max()) + 1)
    for row in settings.rows:
        refuse_unknown('rows', row, entries)
    entries = {row: entries[row] for row in settings.rows or entries}

    title = f'{settings.dataset}, {settings.features} neurons, accuracy in percent'
    rows, interrupted = run_entries(settings, entries, train, validation, title, functools.partial(draw, settings))
    curves = {row.row: row.more['curve'] for row in rows if 'curve' in row.more}
    write_figure(settings.curves, plots.accuracy_curves(curves, title=settings.dataset))
    return interrupted


def tell_trained(row: str, seed: int, network: comparison.Trained) -> None:
    """Say that a network is finished."""
    learning, reading = network.seconds - network.probe.seconds, network.probe.seconds
    spent = f'{learning:.1f} s to learn, {reading:.1f} s to read out, {network.compile_seconds:.1f} s compiling'
    tell(f'{row}, seed {seed}: validation {network.validation_accuracy:.2f} %, {spent}')


def run_entries(settings, entries: Mapping[str, comparison.Entry], train, validation, title: str, draw: Callable):
    """Train all networks on all seeds, then read the test split, report and draw. -> rows, whether ended early.

    `draw`: ({row: first layer's weights of the first seed}, image shape) -> figure, or None.
    """
    folder = settings.weights
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f'--weights {folder} is no folder; make it first, or name another.')
    path_of = lambda row, seed: folder / f'{row}_{seed}.safetensors'  # noqa: E731
    if folder is not None:  # all of it said before the first hour
        files.import_extra('safetensors', 'safetensors')
        paths = (path_of(row, seed) for row in entries for seed in settings.all_seeds)
        there = next(filter(pathlib.Path.exists, paths), None)
        checks.require(there is None, f'{there} is there already; delete it, or name another folder by --weights.')

    def keep(row, seed, network):
        tell_trained(row, seed, network)
        if folder is not None and entries[row].net:
            states = network.probe.layers[: len(entries[row].net)]
            interop.save_weights(path_of(row, seed), entries[row].net, states)

    show_epoch = lambda row, seed: (lambda c: tell_status(f'{row}, seed {seed}: Hebbian epoch {c.epoch}'),)  # noqa: E731
    how = {'on_trained': keep, 'callbacks': show_epoch, 'mesh': settings.mesh(), 'first': settings.first_seed}
    trained, interrupted = comparison.train_entries(entries, settings.seeds, train, validation, **how)
    if not trained:
        raise KeyboardInterrupt
    tell_status('interrupted; the test split is read' if interrupted else 'the test split is read')
    with hold_signals(forget=True) as again:  # who presses Ctrl-C again would lose all that was trained
        test = tuple(map(jax.device_put, load(settings.dataset, 'test', settings.data_dir)))
        rows = comparison.score_entries(entries, trained, test, validation[0][:200])
        report(settings, rows, title, COLUMNS, interrupted)
    first = [(row, network) for (row, seed), network in trained.items() if seed == settings.first_seed]
    filters = {row: network.probe.layers[0].w for row, network in first if entries[row].net}
    write_figure(settings.figure, draw(filters, train[0].shape[1:]) if filters else None)
    return rows, interrupted or bool(again)


def tell_status(line: str) -> None:
    """Show on a terminal how far it is, in a line that the next one writes over."""
    if sys.stderr.isatty():
        print(f'\r\x1b[K{line}', end='', file=sys.stderr, flush=True)


def tell(line: str) -> None:
    """Print a line that stays, in the place of the status."""
    tell_status('')
    print(line, flush=True)


def tell_epoch(name: str, number: int, line: readout.GradientEpoch) -> None:
    """Show on a terminal how a training went in an epoch, numbered from 0."""
    tell_status(f'{name}: epoch {number + 1}, validation {100 * line.validation:.2f} %')


def note_of(interrupted: bool) -> str:
    """Say behind a title that not all was reached."""
    return ' (interrupted: what was reached)' if interrupted else ''


def report(settings, rows: Sequence[comparison.ResultRow], title: str, columns: Mapping, interrupted: bool) -> None:
    """Write rows, and print them as `tables.show_rows` does; both say where the user ended it early."""
    write_report(settings, rows, interrupted)
    tables.show_rows(rows, title + note_of(interrupted), columns, output.make_console())


def report_measures(settings, rows: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> None:
    """Write and print measures that are no accuracies of a classifier: row -> heading -> values, one per seed."""
    write_report(settings, [comparison.ResultRow(row, more={'measures': dict(of)}) for row, of in rows.items()])
    lines = [(row, *(measure_cells(of[name]) for name in of)) for row, of in rows.items()]
    tables.print_table(title, ('', *next(iter(rows.values()))), lines, output.make_console())


def measure_cells(values: Sequence[float]) -> str:
    """Format a measure of several seeds as mean ± sample standard deviation, to three digits or two decimals."""
    mean, many = fmean(values), len(values) > 1
    form = '{:.2f}' if abs(mean) >= 1 else '{:.3g}'
    return ' ± '.join(form.format(value) for value in (mean, *([stdev(values)] if many else ())))


def write_report(settings, rows: Sequence[comparison.ResultRow], interrupted: bool = False) -> None:
    """Write rows, settings, versions and the device as JSON, if a file is asked for: whole or not at all."""
    tables.write_report(settings.json, flags.settings_json(settings), rows, interrupted)


def draw_margins(rows: Sequence[Mapping[str, Any]]):
    """Draw accuracies along an axis, a line for each kind of filters, of rows as reports of `margins.py` have them."""
    lines = {}
    for row in rows:
        lines.setdefault(row['kind'], {})[row['at']] = row['test_accuracy']
    over = {'neurons': 'neurons', 'depth': 'layer', 'labels': 'labels per class'}[rows[0]['axis']]
    return plots.margin_curves(lines, over=over, title='CIFAR-10')


def write_figure(path: pathlib.Path | None, figure) -> None:
    """Write a figure, if a file is asked for and there is something to draw."""
    if path is not None and figure is not None and not jax.process_index():
        files.write_whole(path, figure.savefig)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a Markdown table, a line each for the head, the rule below it and the rows; of no rows, no table."""
    rule = '|---' * len(head) + '|'
    first, *rows = ('| ' + ' | '.join(line) + ' |' for line in (head, *lines))
    return [first, rule, *rows] if rows else []


def beside_paper(ours: Sequence[float], paper: float | None) -> tuple[str, str, str]:
    """Format our accuracy, mean ± std of several seeds, a paper's, if it has one, and the difference in points."""
    if paper is None:
        return tables.mean_std(ours), '', ''
    return tables.mean_std(ours), f'{paper:.2f}', f'{fmean(ours) - paper:+.2f}'
