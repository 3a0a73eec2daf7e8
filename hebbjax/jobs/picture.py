"""Draw all that a run folder holds."""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console

from hebbjax import callbacks, charts, distributions, files, runs, visualize
from hebbjax.jobs import evaluate
from hebbjax.loggers import COUNTERS, Log


@dataclasses.dataclass(frozen=True)
class Picture:
    """Draw all that a run folder holds: receptive fields, weights and norms over time, activity, wins, accuracies.

    After `hebbjax evaluate RUN` confusions too, and after `hebbjax evaluate RUN --readout gradient --rows untrained
    hebbian backprop` the accuracy curves of the three side by side.
    """

    folder: tyro.conf.Positional[pathlib.Path]
    """The run."""
    epoch: int | None = None
    """Which checkpoint's receptive fields; left out: the last."""
    count: int = 100
    """Units per sheet of receptive fields at most, evenly spaced."""
    format: str = 'png'
    """png, pdf or svg."""


def run(config: Picture, console: Console | None = None) -> list[pathlib.Path]:
    """Draw every picture there is material for, into the run's folder of pictures.

    Returns:
        The files.

    Raises:
        ValueError: if a setting or the run does not fit.
        OSError: if the run or data cannot be read, or pictures not written.
    """
    if config.count < 1:
        raise ValueError(f'--count {config.count} leaves nothing to draw; use 1 or more.')
    folder = config.folder / runs.PICTURES
    visualize.check_format(pathlib.Path(f'x.{config.format}'))
    settings, data, kept = evaluate.run_of(config.folder, None)
    net, like = settings.bare(data)
    state, position = callbacks.resume(kept, like, config.epoch)
    layers = state.layers
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f'{folder} is a file; move it away, there pictures are to lie.')
    folder.mkdir(exist_ok=True)
    made = []

    def keep(name: str, figure: Figure) -> None:
        made.append(folder / f'{name}.{config.format}')
        files.write_whole(made[-1], figure.savefig)

    name = f'{settings.NAME} on {settings.dataset}'
    for depth in range(1, len(layers) + 1):
        title = f'{name}: layer {depth}, epoch {len(position.history)}'
        figure = visualize.fields(net, layers, tuple(data['shape']), depth=depth, count=config.count, title=title)
        keep(f'layer{depth}_fields', figure)
    try:
        for title, figure in of_logs(name, position.history, files.read_lines(config.folder / Log.DETAILS)):
            keep(title, figure)
        if (config.folder / runs.EVALUATION).is_file():
            for title, figure in of_evaluation(name, files.read_json(config.folder / runs.EVALUATION)):
                keep(title, figure)
    except KeyError as error:
        raise ValueError(f'{config.folder} is damaged: {Log.DETAILS} or {runs.EVALUATION} lacks {error}.') from None
    if console is not None:
        console.print(f'{len(made)} pictures in {folder}', highlight=False, soft_wrap=True)
    return made


def of_logs(name: str, history: tuple[dict, ...], details: list[dict]) -> Iterator[tuple[str, Figure]]:
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


def of_evaluation(name: str, found: dict) -> Iterator[tuple[str, Figure]]:
    """Draw what an evaluation reached: (file name, picture)."""
    for row in found['rows']:
        yield (
            f'confusion_{row["row"]}',
            distributions.confusion(np.array(row['confusion']), title=f'{name}: {row["row"]}, test'),
        )
    lines = {row['row']: row['curve'] for row in found['rows'] if 'curve' in row}
    if lines:
        yield 'curves', charts.curves(lines, title=f'{name}: classifiers')
