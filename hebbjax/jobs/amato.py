"""Amato et al. 2019, tables 1 and 2: Hebbian and gradient layers on CIFAR-10 in any mixture."""

import dataclasses
import pathlib
import time
import zlib
from typing import Annotated

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from hebbjax import charts, files, runs, visualize
from hebbjax.jobs import amato_tables, cells, deep, shelf
from hebbjax.jobs.cells import CELLS, GROUPS, TABLES, Cell, Training
from hebbjax.jobs.deep import Data, Learned, Line
from hebbjax.jobs.left import Left
from hebbjax.jobs.material import FEWEST, Material
from hebbjax.jobs.report import Report, Row
from hebbjax.jobs.schema import MOST, Count, Fits, Seeds, check_settings
from hebbjax.jobs.settings import plain, refuse_unknown
from hebbjax.jobs.shelf import Shelf
from hebbjax.progress import bar
from hebbjax.types import Key

Subset = Annotated[int, Fits(f'a whole number from {FEWEST} on', lambda value: FEWEST <= value <= MOST)]
EPOCHS = {'G': 20, 'H': 2, 'R': 0}


@dataclasses.dataclass(frozen=True)
class Config:
    """Hebbian and gradient layers on CIFAR-10 in any mixture (Amato et al. 2019, tables 1 and 2).

    A network is written with a letter a layer and one for its classifier: G learns by gradient, H by Hebb's rule, R
    stays random, so that GGHHG-G has two Hebbian layers in its middle. Trainings that networks share are done once.
    Settings are the authors'; the epoch is chosen on a fifth of the training images, the test images tell the end.
    """

    cell: tuple[str, ...] | None = None
    """Networks, such as GGHHG-G; behind them .plain is without whitening, .whitened with it, .ones with Hebbian
    scales of 1, .drawn with gradient layers, too, that start at scales from U(0, 1), as in the published runs."""
    group: tuple[str, ...] | None = None
    """Groups of networks: of table 1 gradient, means, hebbian; of table 2 1 to 8; others class, ones, ones-class,
    drawn."""
    table: tuple[str, ...] | None = None
    """Tables: 1, 2, more. Left out, with cell and group: all of them."""
    subset: Subset | None = None
    """Training images used, validation among them; left out: all. Fewer are for trying things out."""
    epochs: Count | None = None
    """Epochs of every training; left out: 20 by gradient, 2 by Hebb's rule."""
    seeds: Seeds = 1
    """Number of seeds, 0, 1, ...; each draws weights, order and dropout anew. The split is the same."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""
    run: pathlib.Path | None = None
    """Folder for finished trainings, a new one, or one to go on in: what is there is not done again."""
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
        found = [cells.cell_of(name) for name in self.cell or ()]
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
        check_settings(self)
        self.chosen()
        return self

    def as_json(self) -> dict:
        """Give all settings but the names of files, as plain JSON values."""
        return plain(self)

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
    lasting = {'subset': config.subset, 'epochs': config.epochs}
    new = config.run is None or shelf.is_new(config.run, 'amato', lasting)
    material = Material(config.subset, config.data_dir)
    if config.run is None:
        return train_all(config, Shelf(), material, console)
    folder = shelf.opened(config.run, 'amato', lasting | {'data': material.digest})
    with runs.tentative(folder if new else None), runs.held(folder):
        return train_all(config, Shelf(folder), material, console)


def train_all(config: Config, kept: Shelf, material: Material, console: Console) -> Report:
    """Do what is not on the shelf yet, and report after every cell."""
    chosen = config.chosen()
    wanted = [(training, seed) for seed in range(config.seeds) for training in cells.order(chosen)]
    asked = {cell.training.name for cell in chosen}
    for training, seed in wanted:
        if training.on is None or kept.has(training.on, seed):
            kept.get(training, seed, lambda one=training, seed=seed: drawn(one, seed, kept))
    left = Left([(one, seed, config.epochs_of(one)) for one, seed in wanted if not kept.has(one, seed)])
    result = Report(config.as_json())
    try:
        for training, seed in wanted:
            new = not kept.has(training, seed)
            if new:
                kept.put(training, seed, trained(training, seed, config, kept, material, left, console))
                left.drop(training, seed)
            if training.name in asked and 'test' not in kept.reached[training.name, seed]:
                kept.note(training, seed, **accuracies(training, seed, kept, material))
            if training.name in asked and new:
                console.print(line_of(training, seed, kept, left), highlight=False, soft_wrap=True)
                result.rows = rows_of(chosen, config, kept)
                result.write(config.json)  # hours may follow
    except KeyboardInterrupt:
        result.interrupted = True
    result.rows = rows_of(chosen, config, kept)
    if not result.rows:
        raise KeyboardInterrupt(
            f'what was reached is kept in {kept.folder}' if kept.folder else 'no network was finished'
        )
    amato_tables.show(result, console)
    result.write(config.json)
    if config.markdown is not None:
        text = amato_tables.lay_out([row.as_json() for row in result.rows])
        files.write_whole(config.markdown, lambda file: file.write_text(text))
    if config.figure is not None:
        files.write_whole(config.figure, picture(result).savefig)
    refuse_risen(result)
    return result


def key_of(training: Training, seed: int) -> Key:
    """Give a training's own key, the same whatever else is trained."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(training.name.encode()))


def drawn(training: Training, seed: int, kept: Shelf) -> deep.States:
    """Give a training's own layers in the shapes that they have."""
    states = deep.initial_states(training, key_of(training, seed), below_of(training, seed, kept))
    return states[training.upto :]


def trained(
    training: Training, seed: int, config: Config, kept: Shelf, material: Material, left: Left, console: Console
) -> Learned:
    """Do one training, or what is left of it."""
    epochs = config.epochs_of(training)
    with bar(console, f'{training.name}, seed {seed}', epochs) as tick:

        def watch(number: int, line: Line) -> None:
            left.spent(training, seed, number + 1, epochs, line.seconds)
            tick(f'validation {100 * line.validation:.1f} %, {left}', done=number + 1)

        how = {'watch': watch, **(kept.partly(training, seed) if training.letter == 'G' else {})}
        sides = () if training.letter == 'R' else material.sides(training.whiten)
        return deep.learn(training, key_of(training, seed), below_of(training, seed, kept), sides, epochs, **how)


def below_of(training: Training, seed: int, kept: Shelf) -> deep.States:
    """Give the finished layers that a training stands on."""
    if training.on is None:
        return ()
    on = training.on
    own = kept.finished[on.name, seed].states
    return (*below_of(on, seed, kept), *own)[: training.upto]


def accuracies(training: Training, seed: int, kept: Shelf, material: Material) -> dict[str, float]:
    """Read the test images once, and as many training images, through a whole network; percent."""
    states = (*below_of(training, seed, kept), *kept.finished[training.name, seed].states)
    accuracy = deep.make_accuracy(deep.network(training))
    learned, test = material.sides(training.whiten)[0], material.test(training.whiten)
    some = Data(*(part[: len(test.labels)] for part in learned))
    return {name: 100 * float(accuracy(states, *side)) for name, side in (('train', some), ('test', test))}


def line_of(training: Training, seed: int, kept: Shelf, left: Left) -> str:
    """Say in a line what a network has reached."""
    reached, learned = kept.reached[training.name, seed], kept.finished[training.name, seed]
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
            'letter': training.letter,
            'loss': [one.loss for one in learned],
            'validation_accuracy': [100 * one.curve[one.best].validation for one in learned],
            'kept_epoch': [one.best + 1 for one in learned],
            'settled': [settled(one.curve, one.best) for one in learned],
            'curves': [[line._asdict() for line in one.curve] for one in learned],
        }
        rows.append(row)
    return rows


def refuse_risen(result: Report) -> None:
    """Make sure that what learned by gradient went down; said in the end, when everything is written.

    Raises:
        ValueError: naming the networks whose loss did not fall.
    """
    fell = lambda loss: None not in loss and loss[1] < loss[0]  # noqa: E731
    risen = [row.row for row in result.rows if any(loss and not fell(loss) for loss in row.more['loss'])]
    if risen:
        raise ValueError(f'the loss of {", ".join(risen)} did not fall; all results are written.')


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
