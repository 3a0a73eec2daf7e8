"""Amato et al. 2019, tables 1 and 2: Hebbian and gradient layers on CIFAR-10 in any mixture.

    python experiments/amato_cifar10 --run FOLDER --markdown tables.md --data-dir DIR      # goes on where it stopped
    python experiments/amato_cifar10 --cell GGHHG-G --subset 2000 --epochs 1               # one network, in a minute

`networks.py` says what the networks are and which trainings they share, `train.py` how one training goes, `tables.py`
lays out results. The epoch is chosen on a fifth of the training images; the test images are read once per network.
"""

import dataclasses
import pathlib
import sys
import time

if __name__ == '__main__':  # this folder is a package of its parent
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import common
import numpy as np
from amato_cifar10 import networks, tables
from amato_cifar10.train import Images, Shelf, Trained, accuracy, train

from hebbjax import plots
from hebbjax.cli import flags, output
from hebbjax.cli.tables import show_rows
from hebbjax.support import files
from hebbjax.training.comparison import ResultRow

EPOCHS = {'G': 20, 'H': 2, 'R': 0}


@dataclasses.dataclass(frozen=True)
class Config:
    """Hebbian and gradient layers on CIFAR-10 in any mixture (Amato et al. 2019, tables 1 and 2).

    A network is written with a letter a layer and one for its classifier: G learns by gradient, H by Hebb's rule, R
    stays random, so that GGHHG-G has two Hebbian layers in its middle. Trainings that networks share are done once.
    Behind a network, .plain is without whitening, .whitened with it, .ones with Hebbian scales of 1, .drawn with
    gradient layers, too, that start at scales from U(0, 1), as in the published runs.
    """

    cell: tuple[str, ...] = ()  # Networks, such as GGHHG-G or H-H.plain
    group: tuple[str, ...] = ()  # Groups: gradient, means, hebbian; 1 to 8 of table 2; class, ones, ones-class, drawn
    table: tuple[str, ...] = ()  # Tables: 1, 2, more. Left out, with cell and group: all of them
    subset: flags.Count | None = None  # Training images used, 100 or more, validation among them; left out: all
    epochs: flags.Count | None = None  # Of every training; left out: 20 by gradient, 2 by Hebb's rule
    seeds: flags.Seeds = 1  # Number of seeds, 0, 1, ...; each draws weights, order and dropout anew, and no split
    data_dir: pathlib.Path | None = None  # Where data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, ~/tensorflow_datasets
    run: pathlib.Path | None = None  # Folder for finished trainings: what is there is not done again
    json: pathlib.Path | None = None  # File for all results, with configuration, versions and curves
    markdown: pathlib.Path | None = None  # File for the tables, as Markdown
    figure: pathlib.Path | None = None  # File for a picture of validation accuracy, last trainings, first seed

    @property
    def cells(self) -> tuple[networks.Cell, ...]:
        """The networks that are asked for, each once."""
        cells = [networks.cell_of(name) for name in self.cell]
        for name in self.group:
            flags.refuse_unknown('group', name, networks.GROUPS)
            cells += networks.GROUPS[name].cells
        for name in self.table:
            flags.refuse_unknown('table', name, networks.TABLES)
            cells += [cell for group in networks.TABLES[name].values() for cell in group.cells]
        return tuple(dict.fromkeys(cells or networks.CELLS.values()))


def experiment(config: Config) -> bool:
    """Do every training that is not on the shelf yet, report after each; say whether the user ended it early."""
    trainings = networks.order(config.cells)  # those below first
    settings = {'job': 'amato', 'subset': config.subset, 'epochs': config.epochs}
    Shelf(config.run, settings)  # refuses, before images are read, a folder of other settings
    images = Images(config.subset, config.data_dir)
    shelf, interrupted = Shelf(config.run, settings | {'data': images.digest}), False
    try:
        for seed in range(config.seeds):
            for training in trainings:
                finish(config, training, seed, images, shelf)
                common.write_report(config, rows_of(config, shelf))  # hours may follow
    except KeyboardInterrupt:
        interrupted = True
    rows = rows_of(config, shelf)
    if not rows:
        is_kept = config.run is not None and config.run.exists()
        raise KeyboardInterrupt(f'what was reached is kept in {config.run}' if is_kept else 'no network was finished')
    show_rows(rows, 'CIFAR-10, accuracy in percent' + common.note_of(interrupted), {}, output.make_console())
    common.write_report(config, rows, interrupted)
    if config.markdown is not None:
        text = tables.lay_out([row.as_json() for row in rows])
        files.write_whole(config.markdown, lambda file: file.write_text(text))
    curves = {row.row: {'validation': [100 * line['validation'] for line in row.more['curves'][0]]} for row in rows}
    title = 'Epochs of what was trained last'
    common.write_figure(config.figure, plots.accuracy_curves(curves, title=title, over='epoch'))
    return interrupted


def finish(config: Config, training: networks.Training, seed: int, images: Images, shelf: Shelf) -> None:
    """See to it that a training is on the shelf and, where a network ends with it, that its test accuracy is known."""
    letter, below = training.letter, shelf.below(training, seed)
    epochs = EPOCHS[letter] if config.epochs is None or letter == 'R' else config.epochs
    trained = shelf.get(training, seed, epochs)
    if trained is None:
        sides = None if letter == 'R' else images.sides(training.whiten)
        trained = train(training, seed, below, sides, epochs, **shelf.resumable(training, seed))
        shelf.put(training, seed, trained)
    is_asked = any(cell.training == training for cell in config.cells)
    if is_asked and np.isnan(trained.accuracies[1]):
        net, states = networks.network(training), (*below, *trained.states)
        learned, test = images.sides(training.whiten)[0], images.test(training.whiten)
        sample = tuple(part[: len(test[1])] for part in learned)
        reached = np.array([accuracy(net, states, *part) for part in (sample, test)])
        shelf.put(training, seed, trained._replace(accuracies=reached))
        common.tell_status('')
        spent = '{:.0f} s + {:.0f} s compiling'.format(*trained.seconds)
        print(f'{time.strftime("%H:%M")} {training.name}, seed {seed}: test {reached[1]:.2f} %, {spent}', flush=True)


def rows_of(config: Config, shelf: Shelf) -> list[ResultRow]:
    """Make a row of every network that is finished on some seed."""
    rows, names = [], ('loss', 'train', 'validation', 'seconds')
    for cell in config.cells:
        training = cell.training
        finished = [shelf.trained[training, seed] for seed in range(config.seeds) if (training, seed) in shelf.trained]
        finished = [trained for trained in finished if not np.isnan(trained.accuracies[1])]
        if finished:
            train_accuracy, test_accuracy = np.transpose([trained.accuracies for trained in finished]).tolist()
            spent = np.mean([trained.seconds for trained in finished], 0).tolist()
            more = {
                'trainings': [shared.name for shared in training.chain],
                'letter': training.letter,
                'validation_accuracy': [100 * float(trained.lines[trained.best, 2]) for trained in finished],
                'kept_epoch': [trained.best + 1 for trained in finished],
                'settled': [settled(trained) for trained in finished],
                'curves': [[dict(zip(names, line)) for line in trained.lines.tolist()] for trained in finished],
            }
            rows.append(ResultRow(cell.name, test_accuracy, train_accuracy, cell.paper, *spent, more))
    return rows


def settled(trained: Trained) -> tuple[int, float]:
    """Give the epoch, from 1, and the seconds after which validation was within 1 point of the end's."""
    first = int(np.argmax(trained.lines[:, 2] >= trained.lines[trained.best, 2] - 0.01))
    return first + 1, float(trained.lines[first, 3])


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'amato_cifar10')


if __name__ == '__main__':
    sys.exit(main())
