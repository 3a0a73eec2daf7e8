"""Callbacks for `loop.fit`: evaluate, stop early, show progress; `checkpoint` and `loggers` have the rest."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import Mesh

from hebbjax.base import Labelled
from hebbjax.support.checks import check_count, check_images, check_labels, require, show
from hebbjax.support.shards import Shards, parts_of
from hebbjax.training.loop import Callback, CallbackContext
from hebbjax.training.parallel import count_seeds, take_seed


def evaluate(
    train: Labelled | Shards, validation: Labelled, probe: Callable[..., Any] | None = None, *,
    every: int = 1, name: str = 'accuracy', mesh: Mesh | None = None,
) -> Callback:  # fmt: skip
    """Fit a fresh classifier to what the weights send on as they are, and judge it on validation images.

    Adds `train_<name>` (of the first 10,000 images, or those of the first of `Shards`) and `validation_<name>`, in
    percent, means over seeds, and `evaluate_seconds`: `every` so many epochs, in the first one, and where a stage ends.

    The classifier is a `probe`, `readout.ridge_probe(mesh=mesh)` (None) or `readout.gradient_probe(head, schedule)`.
    Never judge by the test set: its turn comes once, at the end.
    """
    from hebbjax.readout import ridge_probe  # late: steps need no readout
    from hebbjax.training.comparison import JUDGE_SALT, judge

    check_count('every', every)
    whole = [] if isinstance(train, Shards) else [('train', train)]  # parts are read when their turn comes
    for split, pair in (*whole, ('validation', validation)):
        is_pair, came = isinstance(pair, tuple | list) and len(pair) == 2, type(pair).__name__
        require(is_pair, f'{split} are two arrays, (images, labels), and not {came}.')
    checked = lambda x, y: (check_images(x), check_labels(y, count=len(x)))  # noqa: E731
    train, validation = train if isinstance(train, Shards) else checked(*train), checked(*validation)
    fit_probe = ridge_probe(mesh=mesh) if probe is None else probe
    require(callable(fit_probe), f'a probe is one such as readout.ridge_probe(), not {show(probe)}.')

    def call(context: CallbackContext) -> None:
        if not context.is_due(every):
            return
        started, accuracies, seeds = time.perf_counter(), [], count_seeds(context.state)
        for number in range(seeds or 1):
            state = context.state if seeds is None else take_seed(context.state, number)
            key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), JUDGE_SALT)
            probe = fit_probe(context.net, state.layers, key, train, validation)
            judged = judge(probe, parts_of(train)[0], validation)
            accuracies.append((judged.train_accuracy, judged.validation_accuracy))
        for split, accuracy in zip(('train', 'validation'), np.mean(accuracies, axis=0)):
            context.metrics[f'{split}_{name}'] = float(accuracy)
        context.metrics['evaluate_seconds'] = time.perf_counter() - started

    return call


def early_stop(metric: str = 'validation_accuracy', patience: int = 3, *, largest: bool = True) -> Callback:
    """End a stage when a metric, by default the `largest` its best, has had no new best for `patience` measurements.

    It has to be there in the first epoch, so the callback that adds it stands before this one. Nothing is remembered
    but by the history: a resumed training stops where the uninterrupted one does. Where the metric is the loop's own,
    such as `layer1.max_update`, it stands before those that act where a stage ends.
    """
    check_count('patience', patience)

    def call(context: CallbackContext) -> None:
        values = [value if largest else -value for value in context.values_of(metric)]
        values = [-math.inf if math.isnan(value) else value for value in values]  # no number is the worst
        if metric in context.metrics and len(values) - 1 - values.index(max(values)) >= patience:
            context.stop()

    return call


@contextlib.contextmanager
def progress_bar(console: Any, phase: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show a bar on rich's console while a phase of `total` epochs runs, `done` of them before; a spinner is alive.

    Gives advance(note='', total=total, done=None), to call after each epoch with a few words about it, and how many
    there will be, or are done, where that is not what one would think.
    """
    from rich import progress as bars  # late, as a training without it needs none

    words, note = (bars.TextColumn(f'{{task.{name}}}', markup=False) for name in ('description', 'fields[note]'))
    columns = bars.SpinnerColumn(), words, bars.BarColumn(), bars.MofNCompleteColumn()
    columns = *columns, bars.TimeElapsedColumn(), bars.TimeRemainingColumn(), note
    disable = console.is_jupyter or not console.is_terminal  # in a notebook rich itself wants ipywidgets
    with bars.Progress(*columns, console=console, transient=True, disable=disable) as progress:
        task, cell = progress.add_task(phase, total=total, completed=done, note=''), None
        if console.is_jupyter and not console.quiet:
            from IPython.display import display  # pyright: ignore[reportMissingImports]  a notebook has it

            cell = display(progress, display_id=True)

        def advance(note: str = '', total: int = total, done: int | None = None) -> None:
            progress.update(task, note=note, total=total, advance=1 if done is None else None, completed=done)
            if cell is not None:
                cell.update(progress)

        yield advance


class Progress:
    """Show a bar with rate, time left and the last of the metrics `shown`; nothing where there is no terminal.

    `total` epochs over all stages, `done` of them before; `images` per epoch, for the rate.
    """

    first_only = True

    def __init__(
        self, console: Any, total: int, images: int, *, done: int = 0,
        shown: Sequence[str] = ('layer1.max_update', 'validation_accuracy'),
    ):  # fmt: skip
        self._settings, self._images, self._shown = (console, 'epochs', total, done), images, shown

    def __enter__(self) -> Self:
        self._bar = progress_bar(*self._settings)
        self._advance = self._bar.__enter__()
        return self

    def __call__(self, context: CallbackContext) -> None:
        latest = {name: row[name] for row in context.history for name in self._shown if name in row}
        words = [f'{name.rpartition(".")[2]} {value:.4g}' for name, value in latest.items()]
        rate = f'{self._images / context.metrics["seconds"]:,.0f} images/s'
        self._advance(', '.join([rate, *words]), context.epochs, context.epoch)

    def __exit__(self, *error: Any) -> bool | None:
        return self._bar.__exit__(*error)
