"""Draw all that a run folder holds."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import NotRequired, TypedDict

import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console

from hebbjax import callbacks, charts, distributions, files, runs, visualize
from hebbjax.jobs import evaluate
from hebbjax.jobs.schema import Count, CountOrZero, check_settings, read_file, without_stop
from hebbjax.loggers import COUNTERS, Log


@dataclasses.dataclass(frozen=True)
class Picture:
    """Draw all that a run folder holds: receptive fields, weights and norms over time, activity, wins, accuracies.

    After `hebbjax evaluate RUN` confusions too, and after `hebbjax evaluate RUN --readout gradient --rows untrained
    hebbian backprop` the accuracy curves of the three side by side.
    """

    folder: tyro.conf.Positional[pathlib.Path]
    """The run."""
    epoch: CountOrZero | None = None
    """Which checkpoint's receptive fields; left out: the last."""
    count: Count = 100
    """Units per sheet of receptive fields at most, evenly spaced."""
    format: str = 'png'
    """png, pdf or svg."""
    out: pathlib.Path | None = None
    """Folder for the pictures, made if it is missing; left out: the run's own. What `hebbjax evaluate RUN --out` wrote
    there is drawn rather than what lies in the run."""


class Details(TypedDict):
    """A line of `details.jsonl`: a layer after an epoch; the rest is there if it was watched while it learned."""

    epoch: Count
    layer: Count
    histogram: tuple[list[float], list[float]]  # counts, edges
    share: NotRequired[list[float]]
    norms: NotRequired[list[float | None]]
    step: NotRequired[list[float]]
    mean: NotRequired[list[float | None]]
    variance: NotRequired[list[float | None]]
    sparsity: NotRequired[list[float | None]]


def details_of(folder: pathlib.Path) -> list[Details]:
    """Read what a run wrote down of its layers.

    Raises:
        ValueError: if it is damaged.
    """
    way = 'delete it, and only what it tells of is lost'
    return read_file(folder / Log.DETAILS, list[Details], way, files.read_lines)


def run(config: Picture, console: Console | None = None) -> list[pathlib.Path]:
    """Draw every picture there is material for: all of them or none.

    Returns:
        The files.

    Raises:
        ValueError: if a setting or the run does not fit.
        OSError: if the run or data cannot be read, or pictures not written.
    """
    check_settings(config)
    visualize.check_format(pathlib.Path(f'x.{config.format}'))
    settings, data, kept = evaluate.run_of(config.folder, None)
    folder = runs.check_place(config.out or config.folder / runs.PICTURES)
    details = details_of(config.folder)
    judged = evaluate.read_evaluation(folder / runs.EVALUATION) if config.out else None
    judged = judged or evaluate.read_evaluation(config.folder / runs.EVALUATION)
    net, like = settings.bare(data)
    state, position = callbacks.resume(kept, like, config.epoch)
    name, figures = f'{settings.NAME} on {settings.dataset}', {}
    for depth in range(1, len(net) + 1):
        title = f'{name}: layer {depth}, epoch {len(position.history)}'
        figures[f'layer{depth}_fields'] = visualize.fields(
            net, state.layers, tuple(data['shape']), depth=depth, count=config.count, title=title
        )
    try:
        figures |= dict(of_logs(name, position.history, details))
        figures |= dict(of_evaluation(name, judged)) if judged else {}
    except (KeyError, ValueError) as error:  # lacks a part, or parts do not fit each other
        reason = f'{error} is missing' if isinstance(error, KeyError) else without_stop(error)
        raise ValueError(
            f'{Log.DETAILS} or {runs.EVALUATION} of {config.folder} is damaged ({reason}); delete it, and the rest is '
            'drawn.'
        ) from None
    folder.mkdir(exist_ok=True)
    made = [folder / f'{title}.{config.format}' for title in figures]
    for path, figure in zip(made, figures.values()):
        files.write_whole(path, figure.savefig)
    if console is not None:
        console.print(f'{len(made)} pictures in {folder}', highlight=False, soft_wrap=True)
    return made


def of_logs(name: str, history: tuple[dict, ...], details: list[Details]) -> Iterator[tuple[str, Figure]]:
    """Draw what a training wrote down: (file name, picture)."""
    names = [metric for metric in dict.fromkeys(k for row in history for k in row) if metric not in COUNTERS]
    if names:  # not interrupted before its first epoch
        yield 'metrics', charts.metrics(history, names, title=name)
    rows = {}
    for row in details:
        rows.setdefault(f'layer {row["layer"]}', []).append(row)
    for number, (layer, mine) in enumerate(rows.items(), 1):
        found = {row['epoch']: tuple(map(np.array, row['histogram'])) for row in mine}
        yield f'layer{number}_weights', distributions.histograms(found, title=f'{name}: weights of {layer}')
    watched = {layer: [row for row in mine if 'step' in row] for layer, mine in rows.items()}
    if not all(watched.values()) or not watched:
        return
    kept = ('step', 'mean', 'variance', 'sparsity')
    active = {layer: {key: [x for row in mine for x in row[key]] for key in kept} for layer, mine in watched.items()}
    yield 'activations', charts.activations(active, title=name)
    shares = {f'layer {n}': series(history, f'layer{n}.converged') for n in range(1, len(watched) + 1)}
    norms = {layer: np.array(mine[-1]['norms']) for layer, mine in watched.items()}
    yield 'convergence', distributions.convergence(shares, norms=norms, title=name)
    wins = {layer: np.array(row['share']) for layer, mine in watched.items() for row in mine if 'share' in row}
    if wins:
        yield 'wins', distributions.wins(wins, title=name)


def series(history: tuple[dict, ...], metric: str) -> tuple[list[int], list[float]]:
    """Give a metric over epochs, where it was measured."""
    there = [row for row in history if metric in row]
    return [row['epoch'] for row in there], [row[metric] for row in there]


def of_evaluation(name: str, found: evaluate.Evaluation) -> Iterator[tuple[str, Figure]]:
    """Draw what an evaluation reached: (file name, picture)."""
    for row in found['rows']:
        yield (
            f'confusion_{row["row"]}',
            distributions.confusion(np.array(row['confusion']), title=f'{name}: {row["row"]}, test'),
        )
    lines = {row['row']: row['curve'] for row in found['rows'] if 'curve' in row}
    if lines:
        yield 'curves', charts.curves(lines, title=f'{name}: classifiers')
