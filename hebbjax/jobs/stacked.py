"""Training stacks of Hebbian layers over seeds in one program, and reading every layer out (Miconi 2021, section 3)."""

import dataclasses
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from hebbjax import augment, data, decoding, layers, measures, parallel, pooling, receptive, visualize, whitening
from hebbjax.jobs import miconi, report
from hebbjax.jobs.miconi import Config, Variant
from hebbjax.jobs.progress import bar
from hebbjax.jobs.report import Report, Row
from hebbjax.layers import Layer
from hebbjax.train import TrainState, make_train_epoch
from hebbjax.types import Array

READOUTS = ('l1_quadrants', 'l2_quadrants', 'final')
SHOWN = 1000  # images whose features are computed in one call


def run(config: Config, console: Console | None = None) -> Report:
    """Train and read out every row, report, and draw receptive fields.

    Args:
        config: the settings.
        console: where to print; None: nowhere.

    Returns:
        The report; its files are written. After Ctrl-C it holds the rows that were finished.

    Raises:
        ValueError: if a setting, the data or a shape does not fit.
        OSError: if data cannot be read or a file not written.
        KeyboardInterrupt: if the user ends it before any row was finished.
    """
    console = console or Console(quiet=True)
    config = config.resolve()
    report.check_writable(config.json, *figure_files(config))
    train, test = (data.load('cifar10', split, data_dir=config.data_dir) for split in ('train', 'test'))
    train = data.Split(*(part[: config.images] for part in train))
    for split in (train, test):
        data.check_images(split.images)
    refuse_misfits(config, len(train.images))
    result, trained = Report(config.as_json()), {}
    on_device = tuple(data.Split(*map(jnp.asarray, split)) for split in (train, test))
    try:
        for variant, rows in by_training(config):
            net, states, told, seconds = learn(variant, config, *on_device, rows[0], console)
            trained[rows[0]] = net, states
            for row in rows:
                result.rows.append(read_out(row, config, net, states, told, seconds, *on_device, console))
                result.write(config.json)
    except KeyboardInterrupt:
        if not result.rows:
            raise
        result.interrupted = True
    finish(result, config, trained, on_device[0].images.shape[1:], console)
    return result


def by_training(config: Config) -> list[tuple[Variant, list[str]]]:
    """Group rows that differ in their decoder alone: they are trained once."""
    groups = {}
    for row in config.rows:
        variant = {**miconi.TABLE, **miconi.ABLATIONS}[row]
        groups.setdefault(dataclasses.replace(variant, decoder='ridge'), []).append(row)
    return list(groups.items())


def refuse_misfits(config: Config, count: int) -> None:
    """Refuse, before the first hour of training, what does not fit the data.

    Raises:
        ValueError: naming what does not fit.
    """
    if config.batch > count:
        raise ValueError(f'--batch {config.batch} is larger than the {count} training images; use {count} at most.')
    plain = {'image': whitening.standardise, 'patch': lambda x: x}
    for variant, _ in by_training(config):
        jax.eval_shape(
            lambda key, variant=variant: layers_of(miconi.network(variant, config, plain), key), jax.random.key(0)
        )


def layers_of(net, key):
    """Make a first state for CIFAR-10's images."""
    return parallel.init(net, key, (32, 32, 3))


def learn(
    variant: Variant, config: Config, train: data.Split, test: data.Split, name: str, console: Console
) -> tuple[tuple[Layer, ...], TrainState, dict, float]:
    """Train one network on every seed; an untrained one lets its thresholds settle for one epoch.

    Returns:
        The network, its states (a leading axis of seeds), what the last epoch told, seconds per seed.
    """
    some = train.images[:: max(1, len(train.images) // config.whitening_images)][: config.whitening_images]
    net = miconi.network(variant, config, miconi.preparations(some, variant.whiten))
    shape = train.images.shape[1:]
    states = parallel.init_seeds(net, jax.vmap(jax.random.key)(jnp.arange(config.seeds)), shape)
    at_once = config.seeds_at_once or parallel.seeds_at_once(net, shape, config.batch, config.seeds)
    epoch = parallel.over_seeds(make_train_epoch(net, batch=config.batch, augment=augment.flip), at_once, donate=True)
    epochs = config.epochs if variant.trained else 1
    started = time.perf_counter()
    with bar(console, f'{name}: epochs, {config.seeds} seeds', epochs) as tick:
        for _ in range(epochs):
            states, told = epoch(states, train.images)
            if not all(bool(one.finite.all()) for one in told):
                raise ValueError('weights are no longer finite: the images hold NaN, or the rate is too large.')
            tick(f'largest change {max(float(one.change.max()) for one in told):.2g}')
    return net, states, told, (time.perf_counter() - started) / config.seeds


def answers(net: tuple[Layer, ...], states: TrainState, images: Array) -> tuple[Array, ...]:
    """Compute what every layer is read out by, [B, F] each.

    Quadrant means of each layer's answer, normalised per image as the next layer sees it; of the last layer, all of
    it. That is what the authors' notebook feeds to its decoder.
    """
    x, found = layers.intensities(images), []
    for number, (layer, state) in enumerate(zip(net, states.layers)):
        x = layers.respond(layer, state, x)
        last = number == len(net) - 1
        found.append(x.reshape(len(x), -1) if last else pooling.quadrants(whitening.standardise(x)))
    return tuple(found)


def in_batches(answer, states, split: data.Split) -> Iterator[tuple[tuple[Array, ...], Array]]:
    """Go through a split some images at a time: (features of every layer, labels)."""
    for start in range(0, len(split.images), SHOWN):
        part = slice(start, start + SHOWN)
        yield answer(states, split.images[part]), split.labels[part]


def read_out(
    row: str, config: Config, net, states: TrainState, told, seconds: float, train, test, console: Console
) -> Row:
    """Fit a classifier to every layer's features on every seed, and read the test split once."""
    variant = {**miconi.TABLE, **miconi.ABLATIONS}[row]
    fit = with_ridge if variant.decoder == 'ridge' else with_svm
    answer = jax.jit(lambda state, images: answers(net, state, images))
    found = {'test': [], 'train': []}
    with bar(console, f'{row}: reading out', config.seeds) as tick:
        for seed in range(config.seeds):
            state = jax.tree.map(lambda a, seed=seed: a[seed], states)
            accuracies = fit(config, answer, state, train, test)
            for name, values in accuracies.items():
                found[name].append(values)
            tick()
    test_accuracy, train_accuracy = (100 * np.array(found[name]).T for name in ('test', 'train'))
    result = Row(row, [float(a) for a in test_accuracy[2]], [float(a) for a in train_accuracy[2]], seconds=seconds)
    paper = miconi.PAPER.get(row)
    result.paper = None if paper is None else paper[2]
    for place, name in enumerate(READOUTS[:2]):
        result.more[name] = [float(a) for a in test_accuracy[place]]
        result.more[f'paper_{name}'] = None if paper is None else paper[place]
    result.more |= activity(net, jax.tree.map(lambda a: a[0], states), told, test.images[:SHOWN])
    line = ', '.join(f'{name} {report.mean_std([float(a) for a in t])}' for name, t in zip(READOUTS, test_accuracy))
    console.print(f'{row}: {line}; {seconds:.0f} s of training a seed', highlight=False, soft_wrap=True)
    return result


def with_ridge(config: Config, answer, state, train: data.Split, test: data.Split) -> dict[str, list[float]]:
    """Read every layer out by ridge regression, features streamed: train and test accuracy, one per layer."""
    classes = int(train.labels.max()) + 1
    moments = [None] * len(READOUTS)
    for features, labels in in_batches(answer, state, train):
        moments = [decoding.add(one, x, labels, classes) for one, x in zip(moments, features)]
    models = [decoding.solve(one, config.penalty) for one in moments]
    right = {'train': np.zeros(len(models)), 'test': np.zeros(len(models))}
    for name, split in (('train', train), ('test', test)):
        split = data.Split(*(part[: 10 * SHOWN] for part in split))  # a part of the training set tells enough
        for features, labels in in_batches(answer, state, split):
            right[name] += [int((decoding.predict(m, x) == labels).sum()) for m, x in zip(models, features)]
        right[name] /= len(split.labels)
    return {name: list(values) for name, values in right.items()}


def with_svm(config: Config, answer, state, train: data.Split, test: data.Split) -> dict[str, list[float]]:
    """Read every layer out by a linear support vector machine (scikit-learn), on standardised features held whole."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    held = {}
    for name, split in (('train', train), ('test', test)):
        parts = [[np.asarray(x) for x in features] for features, _ in in_batches(answer, state, split)]
        held[name] = [np.concatenate(layer) for layer in zip(*parts)], np.asarray(split.labels)
    found = {'train': [], 'test': []}
    for place in range(len(READOUTS)):
        model = make_pipeline(StandardScaler(), LinearSVC(C=1e-3, dual=False))
        model.fit(held['train'][0][place], held['train'][1])
        for name, (features, labels) in held.items():
            found[name].append(model.score(features[place], labels))
    return found


def activity(net, state: TrainState, told, images: Array) -> dict[str, list]:
    """Tell, of the first seed's layers, what a right implementation shows.

    Returns:
        win_rates: smallest, median and largest share of positions won in the last epoch, per layer; K/N is aimed at.
        nonzero: share of answers, before pooling, that are not zero. norm_error: largest `| |w_i| - 1 |`.
    """
    x, found = layers.intensities(images), {'win_rates': [], 'nonzero': [], 'norm_error': []}
    for layer, own, what in zip(net, state.layers, told):
        share = np.asarray(measures.win_share(what.wins[0]))
        found['win_rates'].append([float(f(share)) for f in (np.min, np.median, np.max)])
        fired = jax.jit(lambda s, x, layer=layer: layers.respond(dataclasses.replace(layer, pool=None), s, x))(own, x)
        found['nonzero'].append(float(jnp.mean(fired != 0)))
        found['norm_error'].append(float(jnp.max(jnp.abs(jnp.linalg.norm(own.w, axis=1) - 1))))
        x = fired if layer.pool is None else layer.pool(fired)
    return found


def figure_files(config: Config) -> list:
    """Name the pictures: one per trained row of table 1 and layer."""
    if config.figures is None:
        return []
    rows = [row for row in config.rows if row in miconi.TABLE and miconi.TABLE[row].trained]
    return [config.figures / f'{row}_layer{number}.png' for row in rows for number in (1, 2, 3)]


def finish(result: Report, config: Config, trained: dict, shape, console: Console) -> None:
    """Print the table with the paper's numbers beside ours, and write the files that were asked for."""
    lines = []
    for row in result.rows:
        cells = [row.row]
        for name in READOUTS:
            values, paper = (
                (row.test_accuracy, row.paper) if name == 'final' else (row.more[name], row.more[f'paper_{name}'])
            )
            cells += [report.mean_std(values), '-' if paper is None else f'{paper:.2f}']
        lines.append((*cells, str(len(row.test_accuracy)), f'{row.seconds:.0f}'))
    note = ' (interrupted: rows that were finished)' if result.interrupted else ''
    headings = ('', 'L1 quad.', 'paper', 'L2 quad.', 'paper', 'final', 'paper', 'n', 's')
    report.print_table(f'CIFAR-10, test accuracy in percent{note}', headings, lines, console)
    result.write(config.json)
    for path in figure_files(config):
        row, _, number = path.stem.rpartition('_layer')
        if row not in trained:
            continue
        net, states = trained[row]
        fields = receptive.fields(net[: int(number)], [layer.w[0] for layer in states.layers], shape)
        figure = visualize.filters(
            fields.reshape(len(fields), -1),
            fields.shape[1:],
            title=f'{row}: {len(fields)} receptive fields, layer {number}',
        )
        report.write_whole(path, figure.savefig)
