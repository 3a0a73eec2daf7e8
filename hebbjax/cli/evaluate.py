"""Judge a run: a classifier on what its network answers, beside the same network untrained and trained by backprop."""

import dataclasses
import pathlib

import jax
import tyro
from rich.console import Console

from hebbjax.cli import flags, run_folder, tables
from hebbjax.cli.train import read_run
from hebbjax.readout import probe_accuracy, probe_confusion
from hebbjax.training import Checkpoints, progress_bar, resume
from hebbjax.training.comparison import Entry, Trained, score_entries

JUDGED = ('untrained', 'hebbian', 'backprop')


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Judge a run by a classifier on what its network answers, beside controls; the test split is read at the end.

    Rows: untrained (the network as it began), hebbian (as trained), backprop (a copy of the network as it began, all
    layers and a head trained by gradient; it takes the longest, so it has to be asked for).
    """

    folder: tyro.conf.Positional[pathlib.Path]  # The run
    epoch: flags.CountOrZero | None = None  # Which checkpoint; left out: the last
    rows: tuple[flags.choice(*JUDGED), ...] = ('untrained', 'hebbian')  # Which networks: untrained, hebbian, backprop
    readout: flags.choice('ridge', 'gradient') | None = None  # ridge or gradient; left out: the run's own
    head_epochs: flags.Count | None = None  # Of classifiers trained by gradient; left out: the run's own
    out: pathlib.Path | None = None  # Folder for evaluation.json, made if it is missing; left out: the run's own
    data_dir: pathlib.Path | None = None  # Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR


def run_evaluate(settings: Evaluate, console: Console) -> None:
    """Fit the classifiers, then read the test split, report, and write evaluation.json."""
    flags.check_settings(settings)
    run_settings, about = read_run(settings.folder, settings.data_dir)
    run_folder.check_output(folder := settings.out or settings.folder)
    given = {name: value for name in ('readout', 'head_epochs') if (value := getattr(settings, name)) is not None}
    run_settings = dataclasses.replace(run_settings, **given)
    start = run_settings.start(about)
    state, position = resume(Checkpoints(settings.folder / run_folder.CHECKPOINTS), start.state, settings.epoch)

    # every classifier is fitted before the test split is read
    entries, trained = {}, {}
    with progress_bar(console, 'fitting classifiers', len(settings.rows)) as advance:
        for row in settings.rows or JUDGED:
            entries[row] = Entry(start.net, run_settings.probe(start.classes, 0 if row == 'backprop' else None))
            states = state.layers if row == 'hebbian' else start.state.layers
            key = jax.random.fold_in(jax.random.key(run_settings.seed), 0xE7A1)
            probe = entries[row].probe(start.net, states, key, start.train, start.validation)
            accuracies = (probe_accuracy(probe, *part) for part in (start.train, start.validation))
            trained[row, 0] = Trained(probe, *accuracies, probe.seconds, probe.compile_seconds)
            advance(row)
    test = run_settings.load('test')
    rows, epoch = score_entries(entries, trained, test), len(position.history)
    for row in rows:
        counts = probe_confusion(trained[row.row, 0].probe, *test, max(start.classes, int(test.labels.max()) + 1))
        row.more['confusion'] = counts.tolist()
    tables.show_rows(rows, f'{settings.folder}, epoch {epoch}, accuracy in percent', {}, console)
    folder.mkdir(exist_ok=True)
    config = {'settings': flags.settings_json(run_settings), 'epoch': epoch}
    tables.write_report(folder / run_folder.EVALUATION, config, rows)
