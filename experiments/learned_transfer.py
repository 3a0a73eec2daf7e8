"""A rule learned on digits by gradient, at work on Fashion-MNIST: does what one set of images taught serve another?

    python experiments/learned_transfer.py --json FILE --figure transfer.png

The network, in both: patches of 5 x 5, centred, of unit length -> filters -> triangle -> means over quadrants -> ridge
regression. Changes are divided by their largest, under a rate that falls linearly to 0; filters start as normal noise.

On the digits, 27 coefficients `dw = sum theta[a, b, c] x^a y^b w^c`, y a softmax, and its temperature are found
by gradient through whole trainings, from the instar on: the loss is the held-out error of the ridge regression, on
images that are drawn anew for each step, from filters drawn anew. Then they train filters on Fashion-MNIST. Rows:

    untrained, image patches   filters as drawn, or cut out of training images
    oja, instar                behind the same softmax
    krotov                     k = 2
    instar of digits           where the learned rule started: the instar at the temperature and rate used on digits
    learned                    the rule of digits, found once for each seed

The rate, and the temperature or the delta of rules that are not learned, are the best of the seed on a validation
split; the learned rule chooses its rate alone. The test split is read when all choices are made. Digits, of which the
rule saw neither validation nor test images, stand beside.
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

from hebbjax import Layer, Window, features, init, layers, learned, plots, readout, rules, transforms
from hebbjax.cli import flags
from hebbjax.layers.patches import centred_l2
from hebbjax.readout.blocks import over_blocks

INSTAR = jnp.zeros((3, 3, 3)).at[1, 1, 0].set(1).at[0, 1, 1].set(-1)
TEMPERATURES, DELTAS = (0.05, 0.1, 0.2), (0.0, 0.1, 0.4)
FAMILIES = {  # (coefficients, setting) -> rule
    'oja': lambda theta, setting: rules.oja(rules.soft_wta(setting)),
    'instar': lambda theta, setting: rules.instar(rules.soft_wta(setting)),
    'krotov': lambda theta, setting: rules.krotov(2, setting),
    'learned': lambda theta, setting: rules.taylor(theta, rules.soft_wta(setting)),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """How the rule is learned, and what it is put to."""

    dataset: str = 'fashion_mnist'
    data_dir: pathlib.Path | None = None  # Where it lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, ~/tensorflow_datasets
    images: flags.Count = 12_000  # Training images used, validation included
    validation: flags.Part = 1 / 6  # Share of these that choices are made on
    seeds: flags.Seeds = 3  # Number of seeds, 0, 1, ...
    features: flags.whole(2) = 16  # Filters
    length: flags.Count = 200  # Learning steps
    batch: flags.Count = 50  # Images per step
    patches: flags.Count = 10  # Windows drawn from each
    rates: tuple[flags.Rate, ...] = (0.01, 0.03, 0.1, 0.3)  # Largest change of any weight in the first step
    penalty: flags.Rate = 1e-3  # Of ridge regression, in mean variances of a feature, per image

    digits_features: flags.whole(2) = 16  # Filters, while the rule is learned
    digits_length: flags.Count = 30  # Learning steps that gradients go through
    digits_images: flags.Count = 300  # That the ridge regression is fitted to, and as many that it is judged by
    digits_rate: flags.Rate = 0.1
    temperature: flags.Rate = 0.1  # Of the softmax, at first
    steps: flags.Count = 400  # Of Adam
    step: flags.Rate = 0.03  # Its first rate, which falls by a cosine

    json: pathlib.Path | None = None  # File for all results
    figure: pathlib.Path | None = None  # File for a picture of the learned rules (png, pdf, svg)


def make_layer(side: int, count: int, rule, rate=0.0, length: int = 1, patches: int = 1) -> Layer:
    """Build the layer for images of side x side."""
    tx = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(lambda step: rate * (1 - step / length)))
    return Layer(
        count, rule, tx, Window(5), patch_transform=centred_l2, init=jax.nn.initializers.normal(0.2),
        post=(layers.triangle, layers.avg_pool((side - 4) // 2)), output='projection', patches_per_image=patches,
    )  # fmt: skip


def learn(layer: Layer, key, images, length: int, batch: int):
    """Train a layer on batches drawn from images. -> filters [N, D]."""
    weight_key, order_key = jax.random.split(key)
    order = jax.random.randint(order_key, (length, batch), 0, len(images))
    state = init((layer,), weight_key, images.shape[1:])
    return learned.run_steps((layer,), state, images[order])[0].layers[0].w


def answers(layer: Layer, w, images):
    """Give what a layer with these filters sends on, in units of its standard deviation over these images. [n, F]."""
    states = init((layer,), jax.random.key(0), images.shape[1:], [w]).layers
    x = features((layer,), states, images)
    return x / jnp.sqrt(jnp.mean(jnp.var(x, 0)) + 1e-12)


def learn_rule(config: Config, seed: int, digits):
    """Find coefficients and the temperature on digits, images and labels. -> RuleFit."""
    images, labels = digits
    side, half = images.shape[1], min(config.digits_images, len(labels) // 2)

    def objective(theta, key):
        learn_key, choice_key = jax.random.split(key)
        rule = FAMILIES['learned'](theta['theta'], jnp.exp(theta['log_temperature']))
        layer = make_layer(side, config.digits_features, rule, config.digits_rate, config.digits_length, config.patches)
        w = learn(layer, learn_key, images, config.digits_length, config.batch)
        chosen = jax.random.permutation(choice_key, len(labels))[: 2 * half]
        x, y = answers(layer, w, images[chosen]), labels[chosen]
        return learned.held_out_error((x[:half], y[:half]), (x[half:], y[half:]), 10, config.penalty * half)

    theta = {'theta': INSTAR, 'log_temperature': jnp.log(jnp.array(config.temperature))}
    tell = lambda done, loss, theta: common.tell_status(f'digits, seed {seed}: step {done}, held-out error {loss:.3f}')  # noqa: E731
    tx = optax.adam(optax.cosine_decay_schedule(config.step, config.steps))
    return learned.fit_rule(objective, theta, jax.random.key(seed), tx=tx, steps=config.steps, every=10, watch=tell)


@functools.partial(jax.jit, static_argnums=(0, 1))
def train(config: Config, family: str, theta, setting, rate, key, images):
    """Train filters by a rule of a family, whose numbers are traced: one program for each family."""
    rule = FAMILIES[family](theta, setting)
    layer = make_layer(images.shape[1], config.features, rule, rate, config.length, config.patches)
    return learn(layer, key, images, config.length, config.batch)


def start(config: Config, row: str, seed: int, images):
    """Give filters that nothing trained."""
    layer = make_layer(images.shape[1], config.features, rules.oja())
    cut = layers.from_patches(layer, jax.random.key(seed), images)
    return cut if row == 'image patches' else layer.init(jax.random.key(seed), cut.shape)


def score(config: Config, w, train, *others) -> list[float]:
    """Read filters out by ridge regression: accuracies in percent on other (images, labels)."""
    net = (make_layer(train[0].shape[1], config.features, rules.oja()),)
    states = init(net, jax.random.key(0), train[0].shape[1:], [w]).layers
    look = functools.partial(features, net, states)
    of = lambda images: over_blocks(look, images, 500)  # noqa: E731
    x = of(train[0])
    scale = np.sqrt(x.var(0).mean()) + 1e-12
    model = readout.fit_ridge([(x / scale, train[1])], 10, config.penalty * len(x))
    return [100 * readout.linear_accuracy(model, [(of(images) / scale, labels)]) for images, labels in others]


def candidates(config: Config, theta) -> dict[str, list[tuple]]:
    """List what each row chooses from: family, coefficients, setting, rate."""
    temperature = float(jnp.exp(theta['log_temperature']))
    tried = {'oja': TEMPERATURES, 'instar': TEMPERATURES, 'krotov': DELTAS, 'learned': (temperature,)}
    rows = {
        family: [(family, theta['theta'], setting, rate) for setting in settings for rate in config.rates]
        for family, settings in tried.items()
    }
    at_first = [('learned', INSTAR, config.temperature, config.digits_rate)]
    return {
        **{row: rows[row] for row in ('oja', 'instar', 'krotov')},
        'instar of digits': at_first,
        'learned': rows['learned'],
    }


def run_seed(config: Config, seed: int, theta, train_split, validation, test) -> dict[str, list[float]]:
    """Train all rows of a seed and choose on validation, then read the test split. -> row: test, validation."""
    chosen = {}
    for row in ('untrained', 'image patches'):
        w = start(config, row, seed, train_split[0])
        chosen[row] = (score(config, w, train_split, validation)[0], w)
    for row, tries in candidates(config, theta).items():
        for family, *numbers in tries:
            w = train(config, family, *numbers, jax.random.key(seed), train_split[0])
            found = (score(config, w, train_split, validation)[0], w)
            chosen[row] = max(found, chosen.get(row, (-1.0,)), key=lambda pair: pair[0])
    return {row: [*score(config, w, train_split, test), value] for row, (value, w) in chosen.items()}


def draw(fits: list):
    """Draw the first seed's coefficients, a panel for each power of w, and held-out errors on digits of all seeds."""
    figure = plots.Figure(figsize=(11, 2.8), layout='constrained')
    theta = np.asarray(fits[0].theta['theta'])  # [A, B, C]
    for c in range(3):
        axes = figure.add_subplot(1, 4, c + 1, title=f'times w^{c}', xlabel='power of y', ylabel='power of x')
        axes.imshow(theta[:, :, c], cmap='RdBu_r', vmin=-abs(theta).max(), vmax=abs(theta).max())
        axes.set(xticks=range(3), yticks=range(3))
        for a, b in np.ndindex(3, 3):
            dark = abs(theta[a, b, c]) > 0.6 * abs(theta).max()
            axes.text(b, a, f'{theta[a, b, c]:.2f}', ha='center', va='center', color='w' if dark else 'k', fontsize=8)
    axes = figure.add_subplot(1, 4, 4, xlabel='step of the search on digits', ylabel='held-out error')
    for seed, fit in enumerate(fits):
        size = max(1, len(fit.losses) // 30)
        means = fit.losses[: len(fit.losses) // size * size].reshape(-1, size).mean(1)
        axes.plot(size * (np.arange(len(means)) + 0.5), means, label=f'seed {seed}')
    axes.legend(fontsize='small')
    return figure


def experiment(config: Config) -> bool:
    """Learn the rules, train the filters, print and draw."""
    splits = {}
    for name in ('digits', config.dataset):
        train_split, validation = common.load_train(name, config.validation, config.data_dir, config.images)
        splits[name] = train_split, validation, tuple(map(jnp.asarray, common.load(name, 'test', config.data_dir)))
    fits, rows = [], {}
    for seed in range(config.seeds):
        fits.append(learn_rule(config, seed, splits['digits'][0]))
        first, last = (fits[-1].losses[part].mean() for part in (slice(20), slice(-20, None)))
        common.tell(f'seed {seed}: held-out error on digits from {first:.3f} to {last:.3f}')
        for name, parts in splits.items():
            for row, (test, value) in run_seed(config, seed, fits[-1].theta, *parts).items():
                measures = rows.setdefault(row, {})
                measures.setdefault(f'{name} test %', []).append(test)
                measures.setdefault(f'{name} validation %', []).append(value)
    common.report_measures(config, rows, f'{config.features} filters, accuracy of ridge regression')
    common.write_figure(config.figure, draw(fits))
    return False


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from a shell."""
    return common.run(experiment, Config(), argv, 'learned_transfer.py')


if __name__ == '__main__':
    sys.exit(main())
