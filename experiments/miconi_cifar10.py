"""Miconi 2021, table 1: three Hebbian layers on CIFAR-10, 64.55 %, untrained networks beside trained ones.

    python experiments/miconi_cifar10.py --data-dir DIR --json FILE --figures FOLDER
    python experiments/miconi_cifar10.py --rows triangle_untrained --seeds 1 --images 2000 --epochs 1     # a look at it

The network: images, normalised, whitened (ZCA) and normalised -> 100 neurons of 5 x 5 -> 196 of 3 x 3 -> 400 of 3 x 3,
each layer on normalised images of the one below. One winner per position moves towards what it won, adaptive thresholds
see to it that all win alike; rows are kept at length 1. Means of 2 x 2 positions are sent on. Rows:

    default_*    winners send 1, all connections exist
    triangle_*   neurons send what exceeds the mean over neurons; 1 % of the connections of layers 2 and 3 exist
    *_untrained  weights as drawn, thresholds settled for an epoch
    *_patches    weights are patches of what reaches a layer, thresholds settled layer by layer; what is pruned stays so
    lateral_*    triangle_*, where neurons of layers 2 and 3 inhibit each other, anti-Hebbianly
    backprop     batch norm and rectification for competition, all connections, a linear head, end to end
    ablations    stands for the paper's other findings, a row each

Every layer is read out by ridge regression: layers 1 and 2 by the means of four quadrants, the last by all of its 2 x 2
positions. Settings are the paper's and its notebook's; no accuracy chose any but the rate of lateral connections, 0.003
rather than 0.01 on 3,000 training images set aside for that; test images are read once. Ours: exactly one winner, the
first of equals; images are flipped in learning alone; thresholds are frozen in evaluation; and what the ablations leave
open. The twin keeps the epoch that is best on a tenth of the training images.
"""

import dataclasses
import functools
import pathlib
import sys

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hebbjax import Homeostasis, Layer, Window, data, layers, plots, readout, rules, training, transforms
from hebbjax.cli import flags, output, tables
from hebbjax.layers import Lateral, initializers
from hebbjax.support import checks
from hebbjax.training import controls, hosts, presets
from hebbjax.training.comparison import Entry, ResultRow, learn, score_entries, train_entries

SHAPE, WINDOWS = (32, 32, 3), (5, 3, 3)
RATES = (1e-4, 1e-4, 1e-3)  # per patch won
SETTLING = 10_000  # images on which thresholds of copied patches settle
BLOCK = 1000  # images whose features are computed in one call


# What is compared


@dataclasses.dataclass(frozen=True)
class Variant:
    """What tells one row from another."""

    sends: str = 'triangle'  # what is sent on: 'triangle', 'winners' or 'rectified', behind batch norm
    learns: str = 'winners'  # who learns: 'winners', by their activation 'triangle', or all, end to end: 'gradient'
    density: float = 0.01  # share of connections that exist in layers 2 and 3
    winners: int = 1  # k of the competition; at most half of a layer
    rule: str = 'instar'
    whitens: str = 'image'  # or 'patch', in the first layer
    lateral: float = 0.0  # rate of lateral connections in layers 2 and 3; 0: there are none
    filters: str = 'learned'  # or 'initialised', thresholds settled for an epoch, or 'patches', copied


DEFAULT = Variant(sends='winners', density=1.0)
TABLE = {
    'default_untrained': dataclasses.replace(DEFAULT, filters='initialised'),
    'default_patches': dataclasses.replace(DEFAULT, filters='patches'),
    'default_trained': DEFAULT,
    'triangle_untrained': Variant(filters='initialised'),
    'triangle_patches': Variant(filters='patches'),
    'triangle_trained': Variant(),
}
ABLATIONS = {
    'triangle_only': Variant(density=1.0),
    'pruning_only': Variant(sends='winners'),
    'triangle_for_both': Variant(learns='triangle'),
    'k_winners_for_both': Variant(sends='winners', winners=20),
    **{f'winners_{k}': dataclasses.replace(DEFAULT, winners=k) for k in (2, 5, 20, 100, 200)},
    'rule_hebb': Variant(rule='hebb'),
    'rule_oja': Variant(rule='oja'),
    'patch_whitening': Variant(whitens='patch'),
}
LATERAL = {  # what the paper wishes for: decorrelation above layer 1
    'lateral_untrained': Variant(lateral=0.003, filters='initialised'),
    'lateral_trained': Variant(lateral=0.003),
}
TWIN = Variant(sends='rectified', learns='gradient', density=1.0, filters='initialised')
ROWS = TABLE | ABLATIONS | LATERAL | {'backprop': TWIN}
PAPER = {  # table 1: quadrants of layer 1, of layer 2, the last layer
    'default_untrained': (43.3, 21.05, 10.56),
    'default_trained': (49.94, 45.3, 34.5),
    'triangle_untrained': (52.38, 57.17, 56.3),
    'triangle_trained': (58.56, 64.2, 64.55),
}


@dataclasses.dataclass(frozen=True)
class Config(common.Seeded):
    """Three Hebbian layers on CIFAR-10 (Miconi 2021, table 1): winner-take-all learning, adaptive thresholds."""

    rows: tuple[str, ...] = tuple(TABLE)  # Which networks; ablations: the paper's other findings; left out: table 1
    seeds_at_once: flags.Seeds | None = None  # Trained side by side; left out: 1 on a CPU, all that fit elsewhere
    epochs: flags.Count = 20  # Hebbian epochs
    features: tuple[flags.Count, flags.Count, flags.Count] = (100, 196, 400)  # Neurons of the three layers
    batch: flags.Count = 100  # Images per step
    rate: flags.Rate = 1.0  # Factor on the published rates, 1e-4, 1e-4 and 1e-3 per patch won
    burn_in: flags.CountOrZero = 201  # Steps in which only thresholds adapt
    whitening_images: flags.Count = 9000  # Images that ZCA is fitted to; its regularisation depends on their number
    penalty: flags.Rate = 1.0  # Of ridge regression
    backprop_epochs: flags.Count = 15  # Epochs of the end-to-end twin
    figures: pathlib.Path | None = None  # Folder for receptive fields of table 1's trained rows, first seed (B.1, B.2)

    @property
    def variants(self) -> dict[str, Variant]:
        """The rows that are asked for, each once."""
        for row in self.rows:
            common.refuse_unknown('rows', row, (*ROWS, 'ablations'))
        return {row: ROWS[row] for name in self.rows for row in (ABLATIONS if name == 'ablations' else (name,))}

    def check(self, count: int) -> None:
        """Refuse what does not fit `count` training images, or memory."""
        common.check_batch(self.batch, count)
        steps, kinds = self.epochs * (count // self.batch), {variant.filters for variant in self.variants.values()}
        came = f'--burn-in {self.burn_in} leaves nothing of {steps} steps to learn in'
        checks.require(self.burn_in < steps or 'learned' not in kinds, f'{came}; use fewer than those.')
        for variant in self.variants.values():
            common.check_fits(make_network(variant, self, {'pre': (layers.standardise,)}), SHAPE)


# The network


@jax.jit
def intensities(images: jax.Array) -> jax.Array:
    """Give images as intensities, each of mean 0 and deviation 1."""
    return layers.standardise(layers.to_intensities(images))


def fit_first(images: np.ndarray, count: int, whitens: str) -> dict:
    """Fit how the first layer prepares what it sees: normalised, whitened, normalised; images or patches of them.

    `images` are uint8 [n, H, W, C]; of these `count`, from the first on in equal steps, are looked at.
    """
    images = intensities(images[:: max(1, len(images) // count)][:count])
    if whitens == 'image':
        zca = data.fit_whitening(images, **data.WHITENING_SETTINGS['miconi_notebook'])
        return {'pre': (layers.standardise, functools.partial(data.whiten, zca), layers.standardise)}
    x = layers.extract_patches(Window(WINDOWS[0], stride=4), images)
    zca = data.fit_whitening(layers.standardise(x.reshape(-1, x.shape[-1])), epsilon=1e-3)

    def transform(x):
        rows = layers.standardise(x.reshape(-1, x.shape[-1]))
        return layers.standardise(data.whiten(zca, rows)).reshape(x.shape)

    return {'pre': (layers.standardise,), 'patch_transform': transform}


def make_network(variant: Variant, config: Config, first: dict) -> tuple[Layer, ...]:
    """Build the network of one row; `first` says how its first layer prepares images, see `fit_first`."""
    net = []
    for number, (features, size, rate) in enumerate(zip(config.features, WINDOWS, RATES)):
        k = count_winners(variant, features)
        compete = k if variant.learns == 'winners' else rules.graded(layers.triangle)
        # rates are per patch, so patches are added up; thresholds settle before weights move
        rule = getattr(rules, variant.rule)(compete, reduce=rules.sum_over_patches)
        rates = optax.constant_schedule(0.0), optax.constant_schedule(config.rate * rate)
        move = transforms.scale_by_rate(optax.join_schedules(rates, [config.burn_in]))
        learn = optax.chain(move, transforms.keep_pruned(), transforms.project_unit_rows())
        draw = initializers.pruned(variant.density if number else 1.0)
        send = {'triangle': (layers.triangle,), 'winners': (layers.send_credit(rules.k_wta(k)),)}
        send['rectified'] = layers.BatchNorm(debias=True), layers.relu
        prepare = {'pre': (layers.standardise,), 'patch_transform': layers.raw} | ({} if number else first)
        tx = learn if variant.filters == 'learned' else optax.set_to_zero()
        how = prepare | {'post': (*send[variant.sends], layers.avg_pool(2))}
        how['init'] = initializers.fan_in if variant is TWIN else draw
        how['homeostasis'] = Homeostasis(winners=k) if variant.learns == 'winners' else None
        how['lateral'] = Lateral(variant.lateral, steps=6, pace=0.15) if number and variant.lateral else None
        net.append(Layer(features, rule, tx, Window(size), **how))
    return tuple(net)


def count_winners(variant: Variant, features: int) -> int:
    """Say how many neurons of a layer win: at most half."""
    return min(variant.winners, max(1, features // 2))


# Training, reading out


def train_row(row: str, variant: Variant, config: Config, net: tuple[Layer, ...], images: jax.Array):
    """Train a network on every seed, in one program; an untrained one lets its thresholds settle for one epoch.

    Returns:
        `training.FitResult`, whose state has a leading axis of seeds, and the last epoch's `StepInfo` of each layer.
    """
    infos: list = [None] * len(net)

    def note(context):
        infos[:] = [old if new is None else new for old, new in zip(infos, context.info)]
        common.tell_status(f'{row}: epoch {context.epoch} of {context.epochs}, {config.seeds} seeds')

    if variant.filters == 'patches':
        entry = controls.controlled(Entry(net, None, batch=config.batch), 'patches', SETTLING)
        keys = map(jax.random.key, config.all_seeds)
        states, *spent = zip(*(learn(entry, key, (images,), (note,), config.mesh()) for key in keys))
        infos[:] = jax.tree.map(lambda a: a[None], infos)
        stacked = jax.tree.map(lambda *seeds: jnp.stack(seeds), *states)
        return training.FitResult(stacked, (), False, *map(sum, spent)), infos

    states = training.init_seeds(net, jax.vmap(jax.random.key)(np.asarray(config.all_seeds)), SHAPE)
    stages = [training.Stage(config.epochs if variant.filters == 'learned' else 1)]
    how = {'stages': stages, 'batch': config.batch, 'callbacks': [note], 'watch': None, 'augment': data.random_flip}
    how |= {'seeds_at_once': config.seeds_at_once, 'mesh': config.mesh()}
    result = training.fit(net, states, *hosts.take_part((images,), config.mesh()), **how)
    if result.interrupted:
        raise KeyboardInterrupt
    return result, infos


@functools.partial(jax.jit, static_argnums=0)
def read_layers(net, states, images: jax.Array) -> tuple[jax.Array, ...]:
    """Compute what every layer is read out by, [B, F] each.

    Quadrant means of each layer's answer, normalised per image as the next layer sees it; of the last layer, all of
    it. That is what the authors' notebook feeds to its decoder.
    """
    x, features = layers.to_intensities(images), []
    for number, (layer, state) in enumerate(zip(net, states), 1):
        x = layers.forward(layer, state, x)
        features.append(readout.quadrants(layers.standardise(x)) if number < len(net) else x.reshape(len(x), -1))
    return tuple(features)


def read_out(net, states, penalty: float, train: data.Split, test: data.Split) -> np.ndarray:
    """Fit ridge regression to every layer's features, streamed, and judge it once.

    Returns:
        Percent [layers, 2]: of the first 10,000 training images, and of the test images.
    """

    def batches(split):
        for at in range(0, len(split.labels), BLOCK):
            yield read_layers(net, states, split.images[at : at + BLOCK]), split.labels[at : at + BLOCK]

    def accuracy(split):
        right = np.zeros(len(net))
        for features, labels in batches(split):
            answers = [np.asarray(readout.predict_linear(model, x)) for model, x in zip(models, features)]
            right += [np.sum(answer == labels) for answer in answers]
        return 100 * right / len(split.labels)

    classes, stats = int(np.max(train.labels)) + 1, [None] * len(net)
    for features, labels in batches(train):
        stats = [readout.add_batch(layer, x, labels, classes) for layer, x in zip(stats, features)]
    models = [readout.solve_ridge(layer, penalty) for layer in stats]
    return np.stack([accuracy(data.Split(*(part[: 10 * BLOCK] for part in train))), accuracy(test)], 1)


def measure_activity(net, states, infos, images: jax.Array) -> dict[str, list]:
    """Tell, of one seed's layers, what a right implementation shows.

    Returns:
        win_rates: smallest, median and largest share of positions won in the last epoch, per layer; k/N is aimed at.
        nonzero: share of answers, before pooling, that are not zero. norm_error: largest `| |w_i| - 1 |`.
    """
    rates = [np.asarray(info.win_rates[0]) for info in infos]
    win_rates = [[float(f(of_layer)) for f in (np.min, np.median, np.max)] for of_layer in rates]
    nonzero, norm_error = np.asarray(look_inside(net, states, images)).tolist()
    return {'win_rates': win_rates, 'nonzero': nonzero, 'norm_error': norm_error}


@functools.partial(jax.jit, static_argnums=0)
def look_inside(net, states, images: jax.Array) -> jax.Array:
    """Compute each layer's share of answers that are not zero, and the largest `| |w_i| - 1 |`. -> [2, layers]."""
    x, nonzero, norm_error = layers.to_intensities(images), [], []
    for layer, state in zip(net, states):
        unpooled = layers.forward(layer, state, x, 1)
        nonzero.append(jnp.mean(unpooled != 0))
        norm_error.append(jnp.max(jnp.abs(jnp.linalg.norm(state.w, axis=1) - 1)))
        x = layers.avg_pool(2)(unpooled)
    return jnp.stack([jnp.stack(nonzero), jnp.stack(norm_error)])


def run_twin(row: str, config: Config, first: dict, train: data.Split, test: data.Split) -> ResultRow:
    """Train the network and its head end to end on every seed; images are mirrored, and moved by 2 pixels at most."""
    head = readout.linear_head(10, norm=False, power=None, dropout=0.5, maps=False)
    length, batch = config.backprop_epochs, min(64, len(train.labels) // 9)
    cuts = tuple(int(cut * length) for cut in (0.6, 0.75, 0.9))
    schedule = readout.Milestones(length, batch, 3e-3, l2=0.0, milestones=cuts, factor=0.3, optimizer='adam')
    how = {'watch': functools.partial(common.tell_epoch, row), 'mesh': config.probe_mesh()}
    how['augment'] = presets.Twin(schedule, flips=True, shift=2).augment
    entries = {row: Entry(make_network(TWIN, config, first), readout.gradient_probe(head, schedule, 0, **how))}
    sides = [tuple(part[side] for part in train) for side in data.split_validation(train.labels, 0.1, seed=0)]
    run = {'on_trained': common.tell_trained, 'first': config.first_seed}
    trained, interrupted = train_entries(entries, config.seeds, *sides, **run)
    if interrupted:
        raise KeyboardInterrupt
    return score_entries(entries, trained, test)[0]


def run_row(row: str, config: Config, first: dict, train: data.Split, test: data.Split) -> ResultRow:
    """Train one network on every seed, read it out, and draw the first seed's receptive fields."""
    variant = config.variants[row]
    net = make_network(variant, config, first)
    result, infos = train_row(row, variant, config, net, train.images)
    # trained or not, a network answers by the same programs
    answers = make_network(dataclasses.replace(variant, filters='initialised'), config, first)
    states = [state._replace(opt=()) for state in result.state.layers]
    seeds = [training.take_seed(states, seed) for seed in range(config.seeds)]
    accuracies = []
    for seed, states in zip(config.all_seeds, seeds):
        common.tell_status(f'{row}: reading out seed {seed}')
        accuracies.append(read_out(answers, states, config.penalty, train, test))
    train_accuracy, test_accuracy = np.transpose(accuracies, (2, 1, 0)).tolist()  # [layers][seeds] each
    paper = PAPER.get(row, (None,) * 3)
    more = {
        'l1_quadrants': test_accuracy[0], 'paper_l1_quadrants': paper[0],
        'l2_quadrants': test_accuracy[1], 'paper_l2_quadrants': paper[1],
        'winners': [count_winners(variant, layer.features) for layer in net],
        **measure_activity(answers, seeds[0], infos, test.images[:BLOCK]),
    }  # fmt: skip
    if config.figures is not None and row in TABLE and variant.filters == 'learned':
        for depth, layer in enumerate(net, 1):
            title = f'{row}: {layer.features} receptive fields of layer {depth}'
            figure = plots.receptive_field_grid(net, seeds[0], SHAPE, depth=depth, title=title)
            common.write_figure(config.figures / f'{row}_layer{depth}.png', figure)
    spent = result.seconds / config.seeds, result.compile_seconds
    return ResultRow(row, test_accuracy[2], train_accuracy[2], paper[2], *spent, more)


def experiment(config: Config) -> bool:
    """Run every row and report; say whether the user ended it early. Rows that were finished are kept."""
    variants, rows, interrupted = config.variants, [], False
    if config.figures is not None and not config.figures.is_dir():
        raise FileNotFoundError(f'--figures {config.figures} is no folder; make it first, or name another.')
    train, test = (common.load('cifar10', split, config.data_dir) for split in ('train', 'test'))
    train = data.Split(*(part[: config.images] for part in train))
    config.check(len(train.labels))
    prepare = functools.cache(lambda whitens: fit_first(train.images, config.whitening_images, whitens))
    on_device = [data.Split(jax.device_put(images), labels) for images, labels in (train, test)]
    try:
        for row, variant in variants.items():
            rows.append((run_twin if variant is TWIN else run_row)(row, config, prepare(variant.whitens), *on_device))
            common.tell(f'{row}: final {tables.mean_std(rows[-1].test_accuracy)} %, {rows[-1].seconds:.0f} s a seed')
            common.write_report(config, rows)  # hours may follow
    except KeyboardInterrupt:
        if not rows:
            raise
        interrupted = True
    lines = []
    for row in rows:
        ours = *(row.more.get(f'l{n}_quadrants', ()) for n in (1, 2)), row.test_accuracy
        spent = f'{row.seconds:.0f}', f'{row.compile_seconds:.1f}'
        lines.append((row.row, *map(tables.mean_std, ours), str(config.seeds), *spent))
        if row.paper is not None:
            lines.append(('  paper', *(f'{accuracy:.2f}' for accuracy in PAPER[row.row]), '10', '', ''))
    head = ('', 'L1 quadrants', 'L2 quadrants', 'final', 'n', 'run s', 'compile s')
    title = 'CIFAR-10, test accuracy in percent' + common.note_of(interrupted)
    tables.print_table(title, head, lines, output.make_console())
    common.write_report(config, rows, interrupted)
    return interrupted


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'miconi_cifar10.py')


if __name__ == '__main__':
    sys.exit(main())
