"""A comparison: the same network with Hebbian, untrained and backprop features, over seeds, judged on data unseen."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
from rich.console import Console

from hebbjax import charts, data, files, frozen, layers, patches, runs, train, visualize
from hebbjax.jobs import arms, report
from hebbjax.jobs.arms import Learned, Material, Trained
from hebbjax.jobs.report import Report
from hebbjax.jobs.settings import refuse_larger_than_memory
from hebbjax.jobs.trial import GIB, Job
from hebbjax.layers import Layer
from hebbjax.readout import Head
from hebbjax.types import Array, Key

Networks = dict[tuple[str, int], Trained]  # (row, seed) -> network
COLUMNS = {
    'distinct_winners': 'winners',
    'win_entropy': 'win entropy',
    'nearest_cosine_max': 'cosine max',
    'nearest_cosine_median': 'median',
    'unit_convergence': 'converged',
}
LEGEND = (
    'winners: neurons that win on 200 validation images; win entropy: 1 if all win alike; cosine: to the most similar '
    'other filter; converged: share of units on the p-sphere'
)


def run(
    config: Job,
    picture: Callable[[Job, Mapping[tuple[str, int], Trained], tuple], Figure | None],
    console: Console | None = None,
) -> Report:
    """Train every network on every seed, then read the test split, and report.

    Args:
        config: the settings; those left out take the data set's own.
        picture: (config, networks, image shape) -> the figure of filters.
        console: where to print; None: nowhere.

    Returns:
        The report; its files are written. After Ctrl-C it holds what was reached.

    Raises:
        ValueError: if a setting, the data or a shape does not fit.
        OSError: if data cannot be read or a file not written.
        KeyboardInterrupt: if the user ends it before any network was reached.
    """
    console = console or Console(quiet=True)
    config = config.resolve()
    files.check_writable(config.json, config.figure, config.curves)
    visualize.check_format(config.figure, config.curves)
    if config.run is not None:
        runs.check_new(config.run)
    stuff = material(config)
    refuse_misfits(config, stuff)
    files_of_run = {'json': 'results.json', 'figure': 'filters.png', 'curves': 'curves.png'}
    config = report.into_run('comparison', config, **files_of_run)
    plan = [
        (row, seed)
        for seed in range(config.seeds)
        for row in config.rows
        if row != 'backprop' or seed < config.backprop_seeds
    ]
    with runs.tentative(config.run):
        trained, interrupted = train_all(plan, lambda row, seed: train_row(row, seed, config, stuff, console), console)
        if not trained:
            raise KeyboardInterrupt
        result = score_all(config, trained, stuff, console)
        result.interrupted = interrupted
        finish(result, config, picture(config, trained, stuff.shape), console)
    return result


def material(config: Job) -> Material:
    """Load and check the training data, and set the validation split aside; the test split is not touched."""
    images, labels = data.load(config.dataset, 'train', data_dir=config.data_dir)
    data.check_images(images)
    kept, held_out = data.split_validation(labels, config.validation, seed=0)
    return Material(*map(jnp.asarray, (images[kept], labels[kept], images[held_out], labels[held_out])))


def refuse_misfits(config: Job, stuff: Material) -> None:
    """Build everything once, before the first hour of training, so that whatever does not fit is refused here.

    Raises:
        ValueError: naming what does not fit.
    """
    for rate, epochs in ((config.head_rate, config.head_epochs), (config.backprop_rate, config.backprop_epochs)):
        config.head_schedule(rate, epochs).check(len(stuff.labels))
    for row in config.rows:
        layer = layer_of(row, config, len(stuff.labels))
        head_of(row, config, stuff)
        refuse_larger_than_memory((layer,), stuff.shape)
        frozen.shape(layer, stuff.shape, config.blocks())
    if config.shift >= min(stuff.shape[:2]):
        raise ValueError(f'--shift {config.shift} moves images of {stuff.shape[0]} x {stuff.shape[1]} out of sight.')


def head_of(row: str, config: Job, stuff: Material) -> Head:
    """Build the head of one row, for as many classes as the labels have."""
    classes = int(stuff.labels.max()) + 1
    # filters that are trained themselves find their own sparseness; a twin that starts sparse learns worse
    threshold = 0.0 if row == 'backprop' else config.threshold
    return Head(classes, power=config.power, threshold=threshold, dropout=config.dropout)


def layer_of(row: str, config: Job, count: int) -> Layer:
    """Build the layer of one row, for `count` training images."""
    layer = config.variant(row).layer(count)
    if row != 'backprop':
        return layer
    # the twin is what a deep-learning user would build: unprepared patches, predicted with w, drawn by fan-in
    return dataclasses.replace(layer, patch=patches.raw, send='weights', initial=uniform_by_fan_in)


def uniform_by_fan_in(key: Key, shape: tuple[int, int]) -> Array:
    """Draw weights as deep-learning frameworks do for gradient training: uniform in +-1/sqrt(D)."""
    return jax.random.uniform(key, shape, minval=-1, maxval=1) / shape[1] ** 0.5


def train_row(row: str, seed: int, config: Job, stuff: Material, console: Console) -> Trained:
    """Train one network of the comparison on one seed."""
    # one draw of filters for hebbian, untrained and published_setting; one draw of the head for all of them
    layer_key, head_key = jax.random.split(jax.random.key(seed))
    layer = layer_of(row, config, len(stuff.images))
    head = head_of(row, config, stuff)
    schedule = config.head_schedule(config.head_rate, config.head_epochs)
    common = {'console': console, 'name': f'{row}, seed {seed}', 'history': seed == 0, 'shift': config.shift}
    if row == 'raw_pixels':
        return arms.on_pixels(head.classes, head_key, stuff, schedule=schedule, **common)
    if row == 'backprop':
        # batch norm's running averages belong to the last filters, not to a mean of filters
        schedule = config.head_schedule(config.backprop_rate, config.backprop_epochs)._replace(average=1)
        return arms.end_to_end(layer, head, head_key, stuff, pool=config.blocks(), schedule=schedule, **common)
    cut = layers.exemplars(layer, jax.random.fold_in(layer_key, 2), stuff.images) if config.start == 'patches' else None
    state = train.init((layer,), layer_key, stuff.shape, [cut])
    if row == 'untrained':
        learned = Learned(state.layers[0].w)
    else:
        learned = arms.hebbian(
            layer, state, stuff, epochs=config.epochs, batch=config.batch, console=console, name=common['name']
        )
    limit = None if config.cache_gib is None else config.cache_gib * GIB
    return arms.on_frozen(
        layer, learned, head, head_key, stuff, pool=config.blocks(), schedule=schedule, limit=limit, **common
    )


def train_all(
    plan: Iterable[tuple[str, int]], train_one: Callable[[str, int], Trained], console: Console
) -> tuple[Networks, bool]:
    """Train one network after another, until done or interrupted; a line for each.

    Returns:
        The networks, and whether the user ended it early.
    """
    trained = {}
    try:
        for row, seed in plan:
            one = trained[row, seed] = train_one(row, seed)
            best = one.fitted.curve[one.fitted.best]
            console.print(
                f'{row}, seed {seed}: validation {100 * best.validation:.2f} % at epoch {one.fitted.best + 1} of '
                f'{len(one.fitted.curve)}, {one.seconds:.1f} s + {one.compile_seconds:.1f} s compiling',
                highlight=False,
                soft_wrap=True,
            )
            if one.fitted.interrupted:
                return trained, True
    except KeyboardInterrupt:
        return trained, True
    return trained, False


def score_all(config: Job, trained: Networks, stuff: Material, console: Console) -> Report:
    """Read the test split with every network that was reached. No choice is left to make."""
    images, labels = data.load(config.dataset, 'test', data_dir=config.data_dir)
    data.check_images(images)
    test = jnp.asarray(images), jnp.asarray(labels)
    result = Report(config.as_json())
    for row in config.rows:
        mine = {seed: one for (name, seed), one in trained.items() if name == row}
        if not mine:
            continue
        scored = arms.score(row, mine, test, console)
        scored.paper = config.PAPER.get(config.dataset, {}).get(row)
        if row != 'raw_pixels':
            layer, p = layer_of(row, config, len(stuff.images)), config.variant(row).p
            told = [arms.diversity(layer, one.w, stuff.validation_images[:200], p) for one in mine.values()]
            scored.more |= {name: [one[name] for one in told] for name in told[0]}
        result.rows.append(scored)
    return result


def finish(result: Report, config: Job, figure: Figure | None, console: Console) -> None:
    """Print the table and write the files that were asked for."""
    note = ' (interrupted: what was reached)' if result.interrupted else ''
    report.show(result, f'{config.dataset}, {config.features} neurons, accuracy in percent{note}', COLUMNS, console)
    console.print(LEGEND, style='dim')
    result.write(config.json)
    if config.figure is not None and figure is not None:
        files.write_whole(config.figure, figure.savefig)
    if config.curves is not None:
        lines = {row.row: row.more['curve'] for row in result.rows if 'curve' in row.more}
        files.write_whole(config.curves, charts.curves(lines, title=config.dataset).savefig)
