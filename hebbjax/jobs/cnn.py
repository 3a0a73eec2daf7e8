"""The main job: one Hebbian convolution under a trained head, beside the controls that give its number a meaning.

Talloen et al. 2021, section 5 and supplement 2. Rows: raw_pixels (a linear head without any features), untrained (the
same network, filters as drawn), hebbian, backprop (the same network end to end), published_setting (the paper's own
p, k, delta and raw patches).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from hebbjax import data, layers, patches, plasticity, rules, visualize
from hebbjax.jobs import arms, report
from hebbjax.jobs.arms import Learned, Material, Trained
from hebbjax.jobs.settings import PUBLISHED, Config, resolve
from hebbjax.layers import Layer
from hebbjax.readout import Head

PAPER = {'hebbian': 91.44, 'published_setting': 91.44, 'backprop': 91.94}  # Talloen et al., table 1: Fashion-MNIST
COLUMNS = {'distinct_winners': 'won', 'win_entropy': 'entr', 'nearest_cosine_median': 'cos', 'unit_convergence': 'conv'}  # fmt: skip


def material(config) -> Material:
    """Load and check the training data, and set the validation split aside; the test split is not touched."""
    train = data.load(config.dataset, 'train', data_dir=config.data_dir)
    data.check_images(train.images)
    kept, held_out = data.split_validation(train.labels, config.validation, seed=0)
    images, labels = train
    return Material(*map(jnp.asarray, (images[kept], labels[kept], images[held_out], labels[held_out])))


def layer_of(config: Config, count: int) -> Layer:
    """Build the layer of a configuration for `count` training images."""
    tx = optax.chain(
        plasticity.scale_by_max_abs(config.maximum),
        plasticity.ascend(plasticity.anneal(config.rate, config.epochs, max(1, count // config.batch))),
    )
    return Layer(
        config.filters,
        rules.krotov(config.k, config.delta, config.p),
        tx,
        patches.Window(config.window),
        patch=patches.PREPARATIONS[config.patch],
        glimpses=config.glimpses or None,
        send=config.send,
    )


def uniform_by_fan_in(key, shape):
    """Draw weights as deep-learning frameworks do for gradient training: uniform in +-1/sqrt(D)."""
    return jax.random.uniform(key, shape, minval=-1, maxval=1) / shape[1] ** 0.5


def train_row(row: str, seed: int, config: Config, stuff: Material, classes: int, console: Console) -> Trained:
    """Train one network of the comparison on one seed."""
    name = f'{row}, seed {seed}'
    # the same draw of filters for hebbian, untrained and published_setting, the same draw of the head for all
    layer_key, head_key = jax.random.split(jax.random.key(seed))
    layer = layer_of(config, len(stuff.images))
    head = Head(classes, power=config.power, dropout=config.dropout)
    common = {'console': console, 'name': name, 'history': seed == 0}
    schedule = config.head_schedule(config.head_epochs)
    if row == 'raw_pixels':
        return arms.on_pixels(classes, head_key, stuff, schedule=schedule, **common)
    if row == 'backprop':
        twin = dataclasses.replace(layer, patch=patches.raw, initial=uniform_by_fan_in, send='weights')
        schedule = config.head_schedule(config.backprop_epochs)
        return arms.end_to_end(twin, head, head_key, stuff, pool=config.pool, schedule=schedule, **common)
    if row == 'untrained':
        learned = Learned(layers.init(layer, _first_key(layer_key), stuff.shape).w)
    else:
        learned = arms.hebbian(
            layer, layer_key, stuff, epochs=config.epochs, batch=config.batch, console=console, name=name
        )
    limit = None if config.cache_gib is None else config.cache_gib * 2**30
    return arms.on_frozen(
        layer, learned, head, head_key, stuff, pool=config.pool, schedule=schedule, limit=limit, **common
    )


def _first_key(key):
    return jax.random.split(jax.random.split(key)[0], 1)[0]  # as train.init gives it to the first layer


def run(config: Config, console: Console | None = None) -> report.Report:
    """Train every network on every seed, then read the test split, once, and report.

    Args:
        config: the settings; those left out take the data set's own.
        console: where to print; None: nowhere.

    Returns:
        The report; its files are written. After Ctrl-C it holds what was reached.

    Raises:
        ValueError: if a setting, the data or a shape does not fit.
        OSError: if data cannot be read or a file not written.
    """
    console = console or Console(quiet=True)
    config = resolve(config)
    report.check_writable(config.json, config.figure, config.curves)
    stuff = material(config)
    classes = int(stuff.labels.max()) + 1

    def plan():
        for seed in range(config.seeds):
            for row in config.rows:
                if row != 'backprop' or seed < config.backprop_seeds:
                    yield row, seed

    def train_one(row, seed):
        own = dataclasses.replace(config, **PUBLISHED) if row == 'published_setting' else config
        return train_row(row, seed, own, stuff, classes, console)

    trained, interrupted = train_all(plan(), train_one, console)
    result = report.Report({**settings_of(config)}, interrupted=interrupted)
    test = data.load(config.dataset, 'test', data_dir=config.data_dir)
    data.check_images(test.images)
    paper = PAPER if config.dataset == 'fashion_mnist' else {}
    probe = stuff.validation_images[:200]
    for row in config.rows:
        mine = {seed: one for (name, seed), one in trained.items() if name == row}
        if mine:
            own = dataclasses.replace(config, **PUBLISHED) if row == 'published_setting' else config
            layer = None if row == 'raw_pixels' else layer_of(own, len(stuff.images))
            if row == 'backprop':
                layer = dataclasses.replace(layer, patch=patches.raw)
            result.rows.append(arms.score(row, mine, test, layer, probe, own.p, paper.get(row), console))
    finish(result, trained, stuff.shape, config, console)
    return result


def train_all(plan, train_one: Callable, console: Console) -> tuple[dict[tuple[str, int], Trained], bool]:
    """Train one network after another until done or interrupted; a line for each where there is no bar."""
    trained = {}
    try:
        for row, seed in plan:
            one = trained[row, seed] = train_one(row, seed)
            best = one.fitted.curve[one.fitted.best]
            console.print(
                f'{row}, seed {seed}: validation {100 * best.validation:.2f} % at epoch {one.fitted.best + 1} of '
                f'{len(one.fitted.curve)}, {one.seconds:.1f} s (+ {one.compile_seconds:.1f} s compiling)'
            )
            if one.interrupted:
                return trained, True
    except KeyboardInterrupt:
        return trained, True
    return trained, False


def settings_of(config) -> dict:
    """Give a configuration as plain JSON values."""
    return {
        name: str(value) if isinstance(value, report.pathlib.Path) else value
        for name, value in dataclasses.asdict(config).items()
        if name not in ('json', 'figure', 'curves')
    }


def finish(result: report.Report, trained: dict, shape, config: Config, console: Console) -> None:
    """Print the table and write the files that were asked for."""
    note = ' (interrupted: what was reached)' if result.interrupted else ''
    report.show(
        result,
        f'{config.dataset}: {config.filters} filters of {config.window} x {config.window}{note}',
        COLUMNS,
        console,
    )
    result.write(config.json)
    if config.figure is not None and ('hebbian', 0) in trained:
        w = np.asarray(trained['hebbian', 0].w)
        picture = visualize.filters(w, (config.window, config.window, shape[2]), title=f'{config.dataset}, Hebbian')
        report.write_whole(config.figure, picture.savefig)
    if config.curves is not None:
        lines = {row.row: row.more['curve'] for row in result.rows if 'curve' in row.more}
        report.write_whole(config.curves, visualize.curves(lines, title=config.dataset).savefig)
