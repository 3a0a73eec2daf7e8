"""Judge a run: a classifier on what its network answers, beside the same network untrained and trained by backprop."""

import dataclasses
import pathlib

import jax
import tyro
from rich.console import Console

from hebbjax.cli import flags, run_folder, tables
from hebbjax.cli.settings import Source
from hebbjax.cli.train import begin_again, check_shape, read_run
from hebbjax.readout import probe_confusion
from hebbjax.support.signals import listen
from hebbjax.training import Checkpoints, progress_bar, resume
from hebbjax.training.comparison import JUDGE_SALT, Entry, judge, score_entries

JUDGED = ('untrained', 'hebbian', 'backprop')


@dataclasses.dataclass(frozen=True)
class Evaluate(Source):
    """Judge a run by a classifier on what its network answers, beside controls; the test split is read at the end.

    With --dataset, on other images than those it learned from: classifiers are fitted to theirs, the network is as it
    is. Rows: untrained (the network as it began), hebbian (as trained), backprop (a copy of the network as it began,
    all layers and a head trained by gradient; it takes the longest, so it has to be asked for).
    """

    folder: tyro.conf.Positional[pathlib.Path]  # The run
    epoch: flags.CountOrZero | None = None  # Which checkpoint; left out: the last
    rows: tuple[flags.choice(*JUDGED), ...] = ('untrained', 'hebbian')  # Which networks: untrained, hebbian, backprop
    readout: flags.choice('ridge', 'gradient') | None = None  # ridge or gradient; left out: the run's own
    head_epochs: flags.Count | None = None  # Of classifiers trained by gradient; left out: the run's own
    out: pathlib.Path | None = None  # Folder for evaluation.json, made if it is missing; left out: the run's own
    _: dataclasses.KW_ONLY
    dataset: str | None = None  # Other images to judge it on, see `hebbjax train cnn --help`; left out: the run's own


def run_evaluate(settings: Evaluate, console: Console) -> None:
    """Fit the classifiers, then read the test split, report, and write evaluation.json."""
    run_settings, about = read_run(settings.folder, settings.data_dir)
    run_folder.check_output(folder := settings.out or settings.folder)
    given = {name: value for name in ('readout', 'head_epochs') if (value := getattr(settings, name)) is not None}
    run_settings = dataclasses.replace(run_settings, **given)
    if settings.dataset is None:
        settings.of_run(run_settings)
        data_settings, (net, *_), first, train, validation, _, names = run_settings.start(console, about)
    else:  # their images, and of the run the network alone
        places = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Source)}
        data_settings, train, validation, names = dataclasses.replace(run_settings, **places, images=None).open(console)
        check_shape(train.images.shape[1:], about)
        net, first = begin_again(run_settings, about)
    data_settings.check_judged(train)
    classes = int(train.labels.max()) + 1
    state, position = resume(Checkpoints(settings.folder / run_folder.CHECKPOINTS), first, settings.epoch)

    # every classifier is fitted before the test split is read
    entries, trained = {}, {}
    with progress_bar(console, 'fitting classifiers', len(settings.rows)) as advance, listen() as listener:
        for row in settings.rows or ('untrained', 'hebbian'):
            entries[row] = Entry(net, run_settings.probe(classes, 0 if row == 'backprop' else None))
            states = state.layers if row == 'hebbian' else first.layers
            key = jax.random.fold_in(jax.random.key(run_settings.seed), JUDGE_SALT)
            trained[row, 0] = judge(entries[row].probe(net, states, key, train, validation), train, validation)
            advance(row)
            listener()
    test = data_settings.read_test()
    rows, epoch = score_entries(entries, trained, test), len(position.history)
    for row in rows:
        counts = probe_confusion(trained[row.row, 0].probe, *test, max(classes, int(test.labels.max()) + 1))
        row.more['confusion'] = counts.tolist()
    on = '' if settings.dataset is None else f' on {data_settings.dataset}'
    tables.show_rows(rows, f'{settings.folder}{on}, epoch {epoch}, accuracy in percent', {}, console)
    folder.mkdir(exist_ok=True)
    config = {'settings': flags.settings_json(run_settings), 'epoch': epoch}
    config |= {'dataset': data_settings.dataset, 'names': list(names)}
    tables.write_report(folder / run_folder.EVALUATION, config, rows)
