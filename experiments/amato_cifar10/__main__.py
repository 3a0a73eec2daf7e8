"""Amato et al. 2019, tables 1 and 2: Hebbian and gradient layers on CIFAR-10 in any mixture.

    python experiments/amato_cifar10 --run FOLDER --markdown tables.md --data-dir DIR      # goes on where it stopped
    python experiments/amato_cifar10 --cell GGHHG-G --subset 2000 --epochs 1               # one network, in a minute

`networks.py` says what the networks are and which trainings they share, `train.py` how one training goes, `tables.py`
lays out results. The epoch is chosen on a fifth of the training images; the test images are seen once per network.
"""

import dataclasses
import functools
import itertools
import pathlib
import sys

if __name__ == '__main__':  # this folder is a package of its parent
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import common
import numpy as np
from amato_cifar10 import networks, tables
from amato_cifar10.train import Shelf, finish, prepare, read_images

from hebbjax import data, plots
from hebbjax.cli import flags
from hebbjax.support import files
from hebbjax.training.comparison import ResultRow


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
        cells = [networks.CELLS.get(name, networks.Cell(name)) for name in self.cell]
        for kind, known in (('group', networks.GROUPS), ('table', networks.TABLES)):
            for name in getattr(self, kind):
                common.refuse_unknown(kind, name, known)
                cells += known[name]
        return tuple({cell.name: cell for cell in cells or networks.CELLS.values()}.values())


def experiment(config: Config) -> bool:
    """Do every training that is not on the shelf yet, report after each; say whether the user ended it early."""
    asked = [networks.plan(cell.name) for cell in config.cells]
    trainings = dict.fromkeys(shared for what in asked for shared in what.chain)  # each once, those below first
    settings = {'job': 'amato', 'subset': config.subset, 'epochs': config.epochs}
    Shelf(config.run, settings)  # refuses, before images are read, a folder of other settings
    splits = read_images(config.subset, config.data_dir)
    samples = functools.lru_cache(maxsize=1)(functools.partial(prepare, splits))  # one kind is held at a time
    shelf, interrupted = Shelf(config.run, settings | {'data': data.digest(*splits[0], *splits[1])}), False
    try:
        for seed, what in itertools.product(range(config.seeds), trainings):
            finish(what, seed, config.epochs, what in asked, samples, shelf)
            common.write_report(config, rows_of(config, shelf))  # hours may follow
    except KeyboardInterrupt:
        interrupted = True
    rows = rows_of(config, shelf)
    if not rows:
        is_kept = config.run is not None and config.run.exists()
        raise KeyboardInterrupt(f'what was reached is kept in {config.run}' if is_kept else 'no network was finished')
    common.report(config, rows, 'CIFAR-10, accuracy in percent', {}, interrupted)
    if config.markdown is not None:
        text = tables.lay_out([row.as_json() for row in rows])
        files.write_whole(config.markdown, lambda file: file.write_text(text))
    curves = {row.row: {'validation': [100 * line['validation'] for line in row.more['curves'][0]]} for row in rows}
    title = 'Epochs of what was trained last'
    common.write_figure(config.figure, plots.accuracy_curves(curves, title=title, over='epoch'))
    return interrupted


def rows_of(config: Config, shelf: Shelf) -> list[ResultRow]:
    """Make a row of every network that is finished on some seed."""
    rows = []
    for cell in config.cells:
        what = networks.plan(cell.name)
        finished = [shelf.trained[what, seed] for seed in range(config.seeds) if (what, seed) in shelf.trained]
        if finished:
            train_accuracy, test_accuracy = np.transpose([trained.accuracies for trained in finished]).tolist()
            spent = np.mean([trained.seconds for trained in finished], 0).tolist()
            summaries = [trained.summary() for trained in finished]
            more = {'trainings': [shared.name for shared in what.chain], 'letter': what.letter}
            more |= {name: [summary[name] for summary in summaries] for name in summaries[0]}
            rows.append(ResultRow(cell.name, test_accuracy, train_accuracy, cell.paper, *spent, more))
    return rows


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'amato_cifar10')


if __name__ == '__main__':
    sys.exit(main())
