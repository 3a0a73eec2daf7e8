"""A comparison: the same network with Hebbian, untrained and backprop features, over seeds, judged on data unseen."""

import dataclasses
import functools
import pathlib

import numpy as np
from rich.console import Console

from hebbjax import data, readout
from hebbjax.cli import flags, tables
from hebbjax.cli.settings import Krotov, check_batch, check_fits
from hebbjax.support import files
from hebbjax.support.signals import hold_signals
from hebbjax.training import progress_bar
from hebbjax.training.comparison import Entry, Trained, score_entries, train_entries, under_head

COMPARED = ('raw_pixels', 'untrained', 'patches', 'hebbian', 'backprop')
COLUMNS = {'distinct_winners': 'winners', 'win_entropy': 'win entropy', 'nearest_cosine_max': 'cosine max',
           'nearest_cosine_median': 'median', 'unit_convergence': 'converged'}  # fmt: skip
LEGEND = 'winners: of {} validation images; cosine: to the most similar other filter; converged: to the p-sphere'


@dataclasses.dataclass(frozen=True)
class Compare(Krotov):
    """Hebbian features -> batch norm -> RePU -> max pool -> linear, beside controls, over seeds.

    Rows: raw_pixels (a linear head without any features), untrained (the same network, filters as drawn), patches
    (filters copied out of training images), gaussian (normal rows; not unless it is named), hebbian, backprop (the same
    network end to end, as chosen for it).
    Every choice (epoch, rate reductions, early stopping) is made on a validation split of the training data; the test
    split is read when all networks are trained. Settings left out take the data set's own.
    """

    seeds: flags.Seeds | None = None  # Number of seeds, 0, 1, ...; each draws weights and order anew
    rows: tuple[flags.choice(*COMPARED, 'gaussian'), ...] = COMPARED  # Which networks to train
    head_epochs: flags.Count | None = None  # Epochs of a head at most; early stopping may end it sooner
    backprop_epochs: flags.Count | None = None  # Epochs of the end-to-end twin at most
    backprop_seeds: flags.Seeds | None = None  # Seeds of the end-to-end twin at most
    json: pathlib.Path | None = None  # File for the results, with configuration, versions and learning curves


def run_compare(settings: Compare, console: Console) -> bool:
    """Train every network on every seed, then read the test split, and report; after Ctrl-C, what was reached."""
    # whatever does not fit is refused here, before the first hour of training
    files.check_writable(settings.json)
    settings, train, validation, _ = settings.open(console)
    check_batch(settings.batch, len(train.images))
    settings.check_judged(train)
    entries = make_entries(settings, train)
    total = sum(min(settings.seeds, entry.seeds or settings.seeds) for entry in entries.values())
    with progress_bar(console, 'networks', total) as advance:

        def tell(row: str, seed: int, network: Trained) -> None:
            spent = f'{network.seconds:.1f} s + {network.compile_seconds:.1f} s compiling'
            console.print(f'{row}, seed {seed}: validation {network.validation_accuracy:.2f} %, {spent}')
            advance(row)

        trained, interrupted = train_entries(entries, settings.seeds, train, validation, on_trained=tell)
    if not trained:
        raise KeyboardInterrupt
    with hold_signals(forget=True) as again:  # who presses Ctrl-C again would lose all that was trained
        looked_at = validation.images[:200]
        rows = score_entries(entries, trained, settings.read_test(), looked_at)
        words = ' (interrupted: what was reached)' if interrupted else ''
        tables.show_rows(rows, f'{settings.dataset}, {settings.features} neurons, percent{words}', COLUMNS, console)
        if any(column in row.more for row in rows for column in COLUMNS):
            console.print(LEGEND.format(len(looked_at)), style='dim')
        config = settings.tuned(train.images) | flags.settings_json(settings)
        tables.write_report(settings.json, config, rows, interrupted)
    return interrupted or bool(again)


def make_entries(settings: Compare, train: data.Split) -> dict[str, Entry]:
    """Build the networks that are compared, and refuse what does not fit the data."""
    count, image_shape, classes = len(train.labels), train.images.shape[1:], int(np.asarray(train.labels).max()) + 1
    tuned = settings.tuned(train.images)
    recipe = settings.recipe(count)
    layer = dataclasses.replace(*recipe.net, post=())  # what it sends on is the head's part
    make_head = functools.partial(readout.linear_head, classes, power=tuned['power'], pool=settings.pool)
    check_fits((layer, make_head()), image_shape)
    schedule = tuned['head']._replace(epochs=settings.head_epochs or tuned['head'].epochs)
    twin, length = tuned['twin'], settings.backprop_epochs
    twin = twin._replace(schedule=twin.schedule._replace(epochs=length or twin.schedule.epochs))
    how = {'threshold': tuned['threshold'], 'twin_seeds': settings.backprop_seeds, 'p': settings.p}
    how |= {'epochs': recipe.epochs, 'batch': recipe.batch, 'start': recipe.start}
    augment = data.random_shift(tuned['shift']) if tuned['shift'] else None
    entries = under_head(layer, make_head, schedule, twin, augment=augment, **how)
    return {row: entries[row] for row in settings.rows or COMPARED}
