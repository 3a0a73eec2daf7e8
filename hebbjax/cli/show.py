"""A run as one page: HTML that a browser opens from disk, pictures and all, without a script and without a network."""

import base64
import collections
import dataclasses
import io
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence

import jinja2
import tyro
from rich.console import Console

from hebbjax import training
from hebbjax.cli import flags, plot, run_folder, tables
from hebbjax.cli.train import read_run
from hebbjax.plots import Figure
from hebbjax.support import files
from hebbjax.training.loggers import COUNTERS

TEMPLATE, REPORT, DOTS_PER_INCH = 'report.html', 'report.html', 110


@dataclasses.dataclass(frozen=True)
class Show:
    """Write one HTML page about a run: numbers, curves, receptive fields, confusions, settings, versions.

    It opens from disk without a network, and holds its pictures. What is missing is said, with the command for it.
    """

    folder: tyro.conf.Positional[pathlib.Path]  # The run
    out: pathlib.Path | None = None  # File for the page; left out: the run's report.html. An evaluation there is shown
    epoch: flags.CountOrZero | None = None  # Which checkpoint; left out: the last
    count: flags.Count = 100  # Units per sheet of receptive fields at most, evenly spaced


def run_show(settings: Show, console: Console) -> None:
    """Draw the run and write the page, whole or not at all; say where it lies."""
    run, out = read_run(settings.folder, None), settings.out or settings.folder / REPORT
    files.check_writable(out)
    page = render(plot.draw_run(*run, settings.epoch, settings.count, out.parent, apart=True), settings)
    # JSON may name halves of characters, which are no text
    files.write_whole(out, lambda file: file.write_bytes(page.encode(errors='backslashreplace')))
    console.print(f'{out}\n{out.absolute().as_uri()}')


def render(run: plot.Drawn, settings: Show) -> str:
    """Give the page about a run, as HTML. The template escapes whatever a file or a name may hold."""
    path, way = settings.folder / run_folder.VERSIONS, 'delete it, and the rest is shown'
    surroundings = files.read_json(path, way) if path.exists() else {'versions': {}}
    with files.reading(path, way, files.NONSENSE):
        versions = {'device': surroundings.get('device', 'unknown'), **surroundings['versions']}
    with files.reading(run.place, way, files.NONSENSE):
        rows = [tables.row_cells(row) for row in run.evaluation['rows']]
        summary, missing = [*summarise(run, rows)], [*say_missing(run, rows, settings)]
    values = {name: plain(value) for name, value in flags.settings_json(run.settings).items() if value is not None}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('hebbjax', 'cli'), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        name=run.name, folder=settings.folder, summary=summary, missing=missing, rows=rows,
        accuracies=tables.ACCURACIES, metrics=last_metrics(run.history), pictures=sort_pictures(run),
        settings=values, data=run.about, versions=versions, epoch=len(run.history), depth=len(run.net),
    )  # fmt: skip


def summarise(run: plot.Drawn, rows: list[dict]) -> Iterator[str]:
    """Say in a line what was trained and what it reached."""
    neurons = ' + '.join(str(layer.features) for layer in run.net)
    images, shape = run.about['count'], ' x '.join(map(str, run.about['shape']))
    yield f'{neurons} neurons, {len(run.history)} epochs of {images} images, {shape}'
    reached = [f'{row["row"]} {row["test_accuracy"]} %' for row in rows]
    if reached:
        other = run.evaluation['config'].get('dataset', run.settings.dataset)
        on = '' if other == run.settings.dataset else f' on {other}'
        yield f'test accuracy{on}: {", ".join(reached)}'


def say_missing(run: plot.Drawn, rows: list[dict], settings: Show) -> Iterator[tuple[str, str]]:
    """Say what the page lacks, and the command that brings it."""
    folder, epoch = shlex.quote(str(settings.folder)), len(run.history)
    total = sum(stage.epochs for stage in training.plan_stages(run.settings.plan, run.net, run.settings.epochs))
    if settings.epoch is None and epoch < total:
        yield f'{total - epoch} of {total} epochs were not trained.', f'hebbjax train --resume {folder}'
    if not run.about['classes']:
        return  # nothing can be judged
    judge = f'hebbjax evaluate {folder}' + ('' if settings.epoch is None else f' --epoch {epoch}')
    if not rows:
        yield 'No classifier has judged this run yet, so test accuracies and confusions are missing.', judge
    elif (judged := run.evaluation['config']['epoch']) != epoch:
        yield f'Accuracies and confusions are those of epoch {judged}, all else of epoch {epoch}.', judge


def last_metrics(history: Sequence[Mapping[str, float]]) -> dict[str, dict[str, str]]:
    """Give the last epoch's metrics: name -> {'layer1': text, ...}, or {'': text} of what is no layer's."""
    metrics = collections.defaultdict(dict)
    for key, value in (history[-1] if history else {}).items():
        layer, _, name = key.rpartition('.')
        if key not in COUNTERS:
            metrics[name][layer] = f'{value:.4g}'
    return metrics


def sort_pictures(run: plot.Drawn) -> dict[str, dict[str, dict]]:
    """Give the pictures by the part of the page that they stand in."""
    measured = {name for metrics in run.history for name in metrics}
    pictures = {'fields': {}, 'metrics': {}, 'confusions': {}, 'others': {}}
    for name, figure in run.figures.items():
        kinds = {'fields': name.endswith('_fields'), 'metrics': name in measured, 'confusions': 'confusion_' in name}
        pictures[next((kind for kind, is_one in kinds.items() if is_one), 'others')][name] = embed(figure)
    return pictures


def plain(value) -> str:
    """Give a setting in plain words, a list without brackets."""
    if isinstance(value, list):
        return ' '.join(map(plain, value))
    return f'{value:.6g}' if isinstance(value, float) else str(value)


def embed(figure: Figure) -> dict:
    """Give a picture as a data URI, with the size at which the page lays it out, in pixels of CSS."""
    figure.savefig(file := io.BytesIO(), format='png', dpi=DOTS_PER_INCH)
    width, height = (round(96 * size) for size in figure.get_size_inches())
    uri = f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'
    return {'uri': uri, 'width': width, 'height': height}
