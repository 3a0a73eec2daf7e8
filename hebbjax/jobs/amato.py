"""Amato et al. 2019, tables 1 and 2: Hebbian and gradient layers on CIFAR-10 in any mixture."""

import dataclasses
import functools
import pathlib
import time
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from hebbjax import charts, data, files, frozen, runs, teachers, visualize, whitening
from hebbjax.jobs import amato_tables, cells, deep, shelf
from hebbjax.jobs.cells import CELLS, GROUPS, TABLES, Cell, Training
from hebbjax.jobs.deep import Data, Learned, Line
from hebbjax.jobs.report import Report, Row
from hebbjax.jobs.settings import plain, refuse_idle, refuse_unknown
from hebbjax.jobs.shelf import Shelf
from hebbjax.progress import bar
from hebbjax.types import Array

HELD_OUT = 0.2  # of the training images: 10,000 of 50,000, by which epochs are chosen
EPOCHS = {'G': 20, 'H': 2, 'R': 0}


@dataclasses.dataclass(frozen=True)
class Config:
    """Hebbian and gradient layers on CIFAR-10 in any mixture (Amato et al. 2019, tables 1 and 2).

    A network is written with a letter a layer and one for its classifier: G learns by gradient, H by Hebb's rule, R
    stays random, so that GGHHG-G has two Hebbian layers in its middle. Trainings that networks share are done once.
    Settings are the authors'; the epoch is chosen on a fifth of the training images, the test images tell the end.
    """

    cell: tuple[str, ...] | None = None
    """Networks, such as GGHHG-G or H-G; of the paper's, H-H.plain goes without whitening, H-G.ones has scales of 1."""
    group: tuple[str, ...] | None = None
    """Groups of networks: of table 1 gradient, means, hebbian; of table 2 1 to 8; others class, ones, ones-class."""
    table: tuple[str, ...] | None = None
    """Tables: 1, 2, more. Left out, with cell and group: all of them."""
    subset: int | None = None
    """Training images used, validation among them; left out: all. Fewer are for trying things out."""
    epochs: int | None = None
    """Epochs of every training; left out: 20 by gradient, 2 by Hebb's rule."""
    seeds: int = 1
    """Number of seeds, 0, 1, ...; each draws weights, order and dropout anew. The split is the same."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""
    run: pathlib.Path | None = None
    """Run folder, a new one, or one to go on in: what was finished there is not done again."""
    json: pathlib.Path | None = None
    """File for all results, with configuration, versions and curves."""
    markdown: pathlib.Path | None = None
    """File for the tables, as Markdown."""
    figure: pathlib.Path | None = None
    """File for a picture of validation accuracy over the epochs of each network's last training, first seed."""

    def chosen(self) -> tuple[Cell, ...]:
        """Give the cells that are asked for, each once.

        Raises:
            ValueError: naming the cell, group or table that is none, and what there is.
        """
        found = [CELLS.get(name) or Cell(name) for name in self.cell or ()]
        for one in found:
            cells.parse(one.letters)
        for name in self.group or ():
            refuse_unknown('group', name, GROUPS)
            found += GROUPS[name].cells
        for name in self.table or ():
            refuse_unknown('table', name, TABLES)
            found += [cell for group in TABLES[name] for cell in group.cells]
        return tuple({cell.name: cell for cell in found or CELLS.values()}.values())

    def resolve(self) -> 'Config':
        """Refuse what cannot run.

        Raises:
            ValueError: naming the setting, its value and what would do.
        """
        refuse_idle(self, ('subset', 'epochs', 'seeds'), ())
        self.chosen()
        return self

    def as_json(self) -> dict:
        """Give all settings but the names of files, as plain JSON values."""
        return plain(self)

    def lasting(self) -> dict:
        """Give the settings that all trainings in a run folder must share."""
        return {'subset': self.subset, 'epochs': self.epochs}

    def epochs_of(self, training: Training) -> int:
        """Give the epochs of a training."""
        return EPOCHS[training.letter] if self.epochs is None or training.letter == 'R' else self.epochs


def run(config: Config, console: Console | None = None) -> Report:
    """Train every network that is asked for, report, and lay out the tables.

    Args:
        config: the settings.
        console: where to print; None: nowhere.

    Returns:
        The report; its files are written. After Ctrl-C it holds the cells that were finished.

    Raises:
        ValueError: if a setting, the data or the run folder does not fit.
        OSError: if data cannot be read or a file not written.
        KeyboardInterrupt: if the user ends it before any cell was finished.
    """
    console = console or Console(quiet=True)
    config = config.resolve()
    files.check_writable(config.json, config.markdown, config.figure)
    visualize.check_format(config.figure)
    material = Material(config)
    folder = shelf.opened(config.run, 'amato', config.lasting())
    if folder is None:
        return train_all(config, Shelf(), material, console)
    with runs.held(folder):
        config = dataclasses.replace(config, json=config.json or folder / 'results.json')
        return train_all(config, Shelf(folder), material, console)


def train_all(config: Config, kept: Shelf, material: 'Material', console: Console) -> Report:
    """Do what is not on the shelf yet, and report after every cell."""
    chosen = config.chosen()
    wanted = cells.order(chosen)
    asked = {cell.training.name for cell in chosen}
    left = Left([(one, seed, config.epochs_of(one)) for seed in range(config.seeds) for one in wanted])
    result = Report(config.as_json())
    try:
        for seed in range(config.seeds):
            for training in wanted:
                learned, new = done(training, seed, config, kept, material, left, console)
                if training.name in asked and 'test' not in kept.reached[training.name, seed]:
                    kept.note(training, seed, **accuracies(training, seed, kept, material))
                left.drop(training, seed)
                if new and training.name in asked:
                    console.print(line_of(training, seed, kept, learned, left), highlight=False, soft_wrap=True)
                    result.rows = rows_of(chosen, config, kept)
                    result.write(config.json)  # hours may follow
    except KeyboardInterrupt:
        result.interrupted = True
    result.rows = rows_of(chosen, config, kept)
    if not result.rows:
        where = f'finished trainings are kept in {kept.folder}' if kept.folder else 'no network was finished'
        raise KeyboardInterrupt(where)
    text = amato_tables.lay_out([row.as_json() for row in result.rows])
    amato_tables.show(result, console)
    result.write(config.json)
    if config.markdown is not None:
        files.write_whole(config.markdown, lambda file: file.write_text(text))
    if config.figure is not None:
        files.write_whole(config.figure, picture(result).savefig)
    return result


def done(
    training: Training, seed: int, config: Config, kept: Shelf, material: 'Material', left: 'Left', console: Console
) -> tuple[Learned, bool]:
    """Find a training on the shelf, or do it and put it there; say whether it was new."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(training.name.encode()))
    drawn = lambda: deep.initial_states(training, key, below_of(training, seed, kept))[training.upto :]  # noqa: E731
    found = kept.get(training, seed, drawn)
    if found is not None:
        return found, False
    epochs = config.epochs_of(training)
    below = below_of(training, seed, kept)
    with bar(console, f'{training.name}, seed {seed}', epochs) as tick:

        def watch(number: int, line: Line) -> None:
            left.spent(training, seed, number + 1, epochs, line.seconds)
            tick(f'validation {100 * line.validation:.1f} %, {left}')

        how = {'watch': watch, **(kept.partly(training, seed) if training.letter == 'G' else {})}
        learned = deep.learn(training, key, below, material.sides(training.whiten), epochs, **how)
    kept.put(training, seed, learned)
    return learned, True


def below_of(training: Training, seed: int, kept: Shelf) -> deep.States:
    """Give the finished layers that a training stands on."""
    if training.on is None:
        return ()
    on = training.on
    own = kept.finished[on.name, seed].states
    return (*below_of(on, seed, kept), *own)[: training.upto]


def accuracies(training: Training, seed: int, kept: Shelf, material: 'Material') -> dict[str, float]:
    """Read the test images once, and as many training images, through a whole network; percent."""
    states = (*below_of(training, seed, kept), *kept.finished[training.name, seed].states)
    accuracy = deep.make_accuracy(deep.network(training))
    learned, test = material.sides(training.whiten)[0], material.test(training.whiten)
    some = Data(*(part[: len(test.labels)] for part in learned))
    return {name: 100 * float(accuracy(states, *side)) for name, side in (('train', some), ('test', test))}


class Material:
    """CIFAR-10, split by key, normalised per channel, whitened where asked for; made when first asked for."""

    def __init__(self, config: Config):
        """Read the training images.

        Raises:
            ValueError: if the subset does not leave a batch to learn from.
            OSError: if they cannot be read.
        """
        self.data_dir, self.held = config.data_dir, {}
        whole = data.load('cifar10', 'train', data_dir=config.data_dir)
        data.check_images(whole.images)
        teachers.check_labels(whole.labels, deep.CLASSES)
        count = len(whole.images) if config.subset is None else config.subset
        if not 100 <= count <= len(whole.images):
            raise ValueError(f'--subset {count} does not fit {len(whole.images)} images; use 100 to that many.')
        order = np.asarray(jax.random.permutation(jax.random.key(0), len(whole.images)))
        held = round(HELD_OUT * len(order))  # the last of the order, whatever the subset
        own, others = order[:-held], order[-held:]
        self.share = count / len(order)
        own, others = own[: round(self.share * len(own))], others[: round(self.share * held)]
        self.splits = [data.Split(whole.images[chosen], whole.labels[chosen]) for chosen in (own, others)]
        pixels = self.splits[0].images.reshape(-1, whole.images.shape[-1])
        self.mean, self.std = (getattr(pixels, name)(0, dtype=np.float64) / 255 for name in ('mean', 'std'))

    def normalised(self, images: np.ndarray) -> Array:
        """Give every channel mean 0 and variance 1, by the training images'."""
        as_floats = images.astype(np.float32) / 255
        return jnp.asarray((as_floats - self.mean.astype(np.float32)) / self.std.astype(np.float32))

    @functools.cached_property
    def zca(self) -> whitening.Whitening:
        """Fit the authors' whitening to the normalised training images."""
        return whitening.fit(self.normalised(self.splits[0].images), **whitening.RECIPES['amato'])

    def prepared(self, split: data.Split, whiten: bool) -> Data:
        """Prepare a split."""
        images = self.normalised(split.images)
        return Data(in_blocks(self.zca, images) if whiten else images, jnp.asarray(split.labels))

    def sides(self, whiten: bool) -> tuple[Data, Data]:
        """Give the images to learn from, and those to choose by; those of one kind are held at a time."""
        if whiten not in self.held:
            self.held = {whiten: tuple(self.prepared(split, whiten) for split in self.splits)}
        return self.held[whiten]

    def test(self, whiten: bool) -> Data:
        """Give the test images."""
        split = data.load('cifar10', 'test', data_dir=self.data_dir)
        count = round(self.share * len(split.images))
        return self.prepared(data.Split(split.images[:count], split.labels[:count]), whiten)


@jax.jit
def in_blocks(zca: whitening.Whitening, images: Array) -> Array:
    """Whiten images, some at a time."""
    return frozen.blockwise(lambda some: whitening.apply(zca, some), images, 500)


class Left:
    """An estimate of what is left, from the work of trainings and the time that work has taken so far."""

    def __init__(self, trainings: list[tuple[Training, int, int]]):
        self.todo = {(one.name, seed): (one.letter, deep.work(one, epochs)) for one, seed, epochs in trainings}
        self.partly = {}  # share of a training that is done
        self.time = {}  # letter -> [work, seconds]

    def spent(self, training: Training, seed: int, epoch: int, epochs: int, seconds: float) -> None:
        """Take note of an epoch's end."""
        _, work = self.todo[training.name, seed]
        self.partly[training.name, seed] = epoch / epochs
        if seconds > 0:
            self.time[training.letter, training.name] = (work * epoch / epochs, seconds)

    def drop(self, training: Training, seed: int) -> None:
        """Take note of a training's end."""
        self.todo.pop((training.name, seed), None)

    def seconds(self) -> float | None:
        """Foretell the seconds left; None before anything was measured."""
        if not self.time:
            return None
        pace = {}
        for letters in ('G', 'H', 'GH'):
            found = [one for (letter, _), one in self.time.items() if letter in letters]
            pace[letters] = sum(s for _, s in found) / sum(w for w, _ in found) if found else None
        return sum(
            work * (1 - self.partly.get(name, 0)) * (pace.get(letter) or pace['GH'])
            for name, (letter, work) in self.todo.items()
        )

    def __str__(self) -> str:
        seconds = self.seconds()
        return '' if seconds is None else f'about {amato_tables.duration(seconds)} left in all'


def line_of(training: Training, seed: int, kept: Shelf, learned: Learned, left: Left) -> str:
    """Say in a line what a network has reached."""
    reached = kept.reached[training.name, seed]
    clock = time.strftime('%H:%M')
    return (
        f'{clock} {training.name}, seed {seed}: test {reached["test"]:.2f} %, train {reached["train"]:.2f} %, '
        f'{learned.seconds:.0f} s + {learned.compile_seconds:.0f} s compiling; {left}'
    )


def rows_of(chosen: tuple[Cell, ...], config: Config, kept: Shelf) -> list[Row]:
    """Make a row of every cell that is finished on some seed."""
    rows = []
    for cell in chosen:
        training = cell.training
        seeds = [s for s in range(config.seeds) if 'test' in kept.reached.get((training.name, s), {})]
        if not seeds:
            continue
        reached = [kept.reached[training.name, seed] for seed in seeds]
        learned = [kept.finished[training.name, seed] for seed in seeds]
        row = Row(cell.name, [one['test'] for one in reached], [one['train'] for one in reached], cell.paper)
        row.seconds = float(np.mean([one.seconds for one in learned]))
        row.compile_seconds = float(np.mean([one.compile_seconds for one in learned]))
        row.more = {
            'trainings': [one.name for one in training.chain],
            'validation_accuracy': [100 * one.curve[one.best].validation for one in learned],
            'kept_epoch': [one.best + 1 for one in learned],
            'settled': [settled(one.curve, one.best) for one in learned],
            'curves': [[line._asdict() for line in one.curve] for one in learned],
        }
        rows.append(row)
    return rows


def picture(result: Report) -> Figure:
    """Draw how validation accuracy went, of each network's last training on the first seed."""
    lines = {
        row.row: {'validation': [100 * line['validation'] for line in row.more['curves'][0]]} for row in result.rows
    }
    return charts.curves(lines, title='Epochs of what was trained last', over='epoch')


def settled(curve: list[Line], best: int) -> tuple[int, float]:
    """Give the epoch, from 1, and the seconds after which validation was within 1 point of the end's."""
    first = next(number for number, line in enumerate(curve) if line.validation >= curve[best].validation - 0.01)
    return first + 1, curve[first].seconds
