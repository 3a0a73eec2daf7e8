"""Draw all that a run folder holds."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import tyro
from rich.console import Console

from hebbjax import layers, plots, training
from hebbjax.cli import flags, run_folder
from hebbjax.cli.evaluate import JUDGED
from hebbjax.cli.train import Watched, read_run
from hebbjax.support import files
from hebbjax.training.loggers import COUNTERS


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw all that a run folder holds: receptive fields, weights over time, activity, wins, accuracies.

    After `hebbjax evaluate RUN` confusions too, and with its `--readout gradient` the accuracy curves of all rows.
    """

    folder: tyro.conf.Positional[pathlib.Path]  # The run
    epoch: flags.CountOrZero | None = None  # Which checkpoint's receptive fields; left out: the last
    count: flags.Count = 100  # Units per sheet of receptive fields at most, evenly spaced
    format: flags.choice('png', 'pdf', 'svg') = 'png'  # Of the pictures
    out: pathlib.Path | None = None  # Folder for pictures; left out: the run's own. An evaluation there is drawn first


class Drawn(NamedTuple):
    """What a run folder holds, and all pictures that there is material for."""

    name: str  # network and data set
    settings: Watched
    about: dict  # what the run keeps of its data
    net: layers.Network
    history: Sequence[Mapping[str, float]]  # metrics up to the checkpoint that was read
    evaluation: dict  # as `hebbjax evaluate` wrote it; 'rows' is empty where it did not
    place: pathlib.Path  # of the evaluation
    figures: dict[str, plots.Figure]  # file name -> picture


def run_plot(settings: Plot, console: Console) -> None:
    """Draw every picture there is material for, all of them or none."""
    run = read_run(settings.folder, None)
    run_folder.check_output(folder := settings.out or settings.folder / run_folder.PICTURES)
    figures = draw_run(*run, settings.epoch, settings.count, settings.out).figures
    folder.mkdir(exist_ok=True)
    for title, figure in figures.items():
        files.write_whole(folder / f'{title}.{settings.format}', figure.savefig)
    console.print(f'{len(figures)} pictures in {folder}')


def draw_run(
    settings: Watched, about: dict, epoch: int | None, count: int, out: pathlib.Path | None, apart: bool = False
) -> Drawn:
    """Read and draw what `train.read_run` found to be a run; an evaluation in the folder `out` goes before its own.

    `epoch` is that of the checkpoint, None: the last; `count` bounds the units per sheet; `apart`: see `draw_logs`.
    """
    folder = settings.run
    # a network of the right shapes, without its data, is enough to read a checkpoint
    net, shape = settings.recipe(about['count']).net, tuple(about['shape'])
    checkpoints = training.Checkpoints(folder / run_folder.CHECKPOINTS)
    state, position = training.resume(checkpoints, layers.init(net, jax.random.key(0), shape), epoch)

    name = f'{settings.network} on {pathlib.Path(settings.dataset).name}'
    path, way = folder / training.Log.DETAILS, 'delete it, and the rest is drawn'
    details = files.read_lines(path, way)
    with files.reading(path, way, files.NONSENSE):
        details = [row for row in details if row['epoch'] <= len(position.history)]
        figures = draw_logs(name, len(net), position.history, details, apart)
    places = [place / run_folder.EVALUATION for place in (out, folder) if place is not None]
    path = next((path for path in places if path.is_file()), places[-1])
    evaluation = files.read_json(path, way) if path.is_file() else {'rows': []}
    with files.reading(path, way, files.NONSENSE):
        names = evaluation.get('config', {}).get('names', ())
        figures |= draw_evaluation(name, {row['row']: row for row in evaluation['rows']}, names)
    for depth in range(1, len(net) + 1):
        how = {'count': count, 'title': f'{name}: layer {depth}, epoch {len(position.history)}'}
        figures[f'layer{depth}_fields'] = plots.receptive_field_grid(net, state.layers, shape, depth=depth, **how)
    return Drawn(name, settings, about, net, position.history, evaluation, path, figures)


def draw_logs(
    name: str, depth: int, history: Sequence[Mapping], details: Sequence[Mapping], apart: bool = False
) -> dict[str, plots.Figure]:
    """Draw what a training of `depth` layers wrote down: file name -> picture; metrics in one, or each `apart`."""
    metrics = [metric for metric in dict.fromkeys(key for row in history for key in row) if metric not in COUNTERS]
    sheets = {metric: [metric] for metric in metrics} if apart else {'metrics': metrics} if metrics else {}
    title = '' if apart else name
    figures = {sheet: plots.metric_curves(history, names, title=title) for sheet, names in sheets.items()}
    series, shares, wins = {}, {}, {}
    for number in range(1, depth + 1 if details else 1):
        layer, rows = f'layer {number}', [row for row in details if row['layer'] == number]
        histograms = {row['epoch']: tuple(map(np.array, row['histogram'])) for row in rows}
        figures[f'layer{number}_weights'] = plots.weight_histograms(histograms, title=f'{name}: weights of {layer}')
        watched = [row for row in rows if 'step' in row]
        names = 'step', 'mean', 'variance', 'sparsity'
        series[layer] = {key: [value for row in watched for value in row[key]] for key in names}
        converged = [(row['epoch'], row[metric]) for row in history if (metric := f'layer{number}.converged') in row]
        shares[layer] = tuple(zip(*converged))
        for row in watched:
            wins |= {layer: np.array(row['win_share'])} if 'win_share' in row else {}
    if series and all(values['step'] for values in series.values()):
        figures['activations'] = plots.activation_curves(series, title=name)
        figures['convergence'] = plots.convergence_plot(shares, title=name)
    return figures | ({'wins': plots.win_share_plot(wins, title=name)} if wins else {})


def draw_evaluation(name: str, rows: Mapping[str, Mapping], names: Sequence[str]) -> dict[str, plots.Figure]:
    """Draw what an evaluation reached: file name -> picture."""
    rows, figures = {row: rows[row] for row in JUDGED if row in rows}, {}
    for row, content in rows.items():
        counts, title = np.array(content['confusion'], float), f'{name}: {row}, test'
        figures[f'confusion_{row}'] = plots.confusion_plot(counts, names, title=title)
    lines = {row: content['curve'] for row, content in rows.items() if 'curve' in content}
    return figures | ({'curves': plots.accuracy_curves(lines, title=f'{name}: classifiers')} if lines else {})
