"""Settings of Krotov and Hopfield's rule and of SoftHebb, evolved on the embedded digits, beside the published ones.

    python experiments/evolve_digits.py --json FILE --figure evolution.png

The network: images scaled to unit length -> 32 dense units, first weights standard normal -> relu -> ridge regression.
256 members of 20 generations, each a whole training; its loss is the share of training images that are classified
wrongly, by a ridge regression that was fitted to a random half of them and is asked for the other; halves, first
weights and order are new in every generation. Rows:

    untrained, image patches   units as they start: drawn, or training images
    oja, instar                Oja's rule of all units, the instar of winners
    krotov, softhebb           the published settings: delta 0.4, p 2 (k = 2); temperature 1, strength 1
    ..., evolved               the mean of the last generation, which started around the published setting

The rate of rules that are not evolved is the best of 24, on validation. The test split is read once, with all training
images, by seeds that nothing was chosen on.
"""

import dataclasses
import pathlib
import sys
import time

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hebbjax import Credit, Layer, features, init, layers, learned, rules, transforms
from hebbjax.cli import flags
from hebbjax.layers import patches
from hebbjax.plots import curves

NEW = 1000  # seeds from here on are for the test split alone
RATES = np.geomspace(0.001, 10, 24)


@dataclasses.dataclass(frozen=True)
class Shared:
    """What both searches on digits can be told."""

    data_dir: pathlib.Path | None = None  # Where DATA_DIR/digits.npz lies, if not the embedded digits
    seeds: flags.Seeds = 20  # Number of seeds of the comparison on the test split
    population: flags.whole(4) = 256  # Members, in one program
    generations: flags.Count = 20
    at_once: flags.Count = 16  # Members that train side by side, a divisor of the population
    features: flags.whole(2) = 32  # Units
    epochs: flags.Count = 10  # Hebbian epochs, over which the rate falls linearly to 0
    batch: flags.Count = 100  # Images per step
    penalty: flags.Rate = 1e-3  # Of ridge regression, in mean variances of a feature, per image
    json: pathlib.Path | None = None  # File for all results, with configuration and versions
    figure: pathlib.Path | None = None  # File for a picture of losses over generations (png, pdf, svg)


@dataclasses.dataclass(frozen=True)
class Config(Shared):
    """What this one can be told."""

    evolved: tuple[str, ...] = ('krotov', 'softhebb')  # Rules to evolve
    spread: flags.Rate = 1.5  # First standard deviation of the logarithms of settings


def softhebb(temperature, strength):
    """dw_i = y_i (x - u_i w_i): y = softmax(u / temperature), less than 0 by the strength but for the winner."""

    def compete(key, u):
        y = jax.nn.softmax(u / temperature)  # [P, N]
        return jnp.where(rules.k_wta(1)(key, u) > 0, y, -strength * y)

    return rules.local(compete, lambda u, y: Credit(y, y * u, jnp.abs(y)))


PUBLISHED = {'krotov': (0.4, 2.0, 0.1), 'softhebb': (1.0, 1.0, 0.1)}  # the rate is where a search starts
NAMES = {'krotov': ('delta', 'p', 'rate'), 'softhebb': ('temperature', 'strength', 'rate')}
RULES = {'krotov': lambda delta, p: rules.krotov(2, delta, p), 'softhebb': softhebb}


def bounded(family: str, theta):
    """All settings are positive, and p is above 1."""
    a, b, rate = jnp.exp(theta)
    return a, 1 + b if family == 'krotov' else b, rate


def unbounded(family: str):
    """The theta of a published setting."""
    a, b, rate = PUBLISHED[family]
    return jnp.log(jnp.array([a, b - 1 if family == 'krotov' else b, rate]))


def learn(settings, rule, rate, key, images, start='drawn'):
    """Train the units, and give the function images -> features, in units of their standard deviation."""
    steps = 0 if rule is None else settings.epochs * (len(images) // settings.batch)
    schedule = lambda step: rate * (1 - step / steps)  # noqa: E731
    tx = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(schedule if steps else 0.0))
    net = (Layer(settings.features, rule or rules.oja(), tx, patch_transform=patches.l2),)
    weight_key, cut_key, order_key = jax.random.split(key, 3)
    w = layers.from_patches(net[0], cut_key, images) if start == 'patches' else None
    state = init(net, weight_key, images.shape[1:], [w])
    if steps:
        epochs = jax.random.split(order_key, settings.epochs)
        order = jax.vmap(lambda key: jax.random.permutation(key, len(images)))(epochs)
        order = order[:, : steps // settings.epochs * settings.batch].reshape(steps, settings.batch)
        state, _ = learned.run_steps(net, state, images[order], remat=False)
    scale = jnp.sqrt(jnp.mean(jnp.var(features(net, state.layers, images), 0)) + 1e-12)
    return lambda images: features(net, state.layers, images) / scale


def half_loss(settings, look, key, train):
    """Give the share of a random half of the images that is classified wrongly by the other half."""
    images, labels = train
    half, order = len(images) // 2, jax.random.permutation(key, len(images))
    parts = [(look(images[side]), labels[side]) for side in (order[:half], order[half:])]
    return 1 - learned.held_out_accuracy(*parts, 10, settings.penalty * half)


def validation_loss(settings, rule, rate, key, train):
    """Train the units on all images, and judge them by `half_loss`."""
    learn_key, half_key = jax.random.split(key)
    return half_loss(settings, learn(settings, rule, rate, learn_key, train[0]), half_key, train)


def choose_rate(settings, rule, train) -> float:
    """Give the best of 24 rates by the mean over 8 keys, on validation."""
    keys = jax.random.split(jax.random.key(1), 8)

    def mean_loss(rate):
        loss = lambda key: validation_loss(settings, rule, rate, key, train)  # noqa: E731
        return jax.vmap(loss)(jax.random.clone(keys)).mean()  # the same for all rates

    losses = jax.jit(lambda rates: jax.lax.map(mean_loss, rates))(jnp.asarray(RATES, jnp.float32))
    return float(RATES[np.nanargmin(losses)])


def measure_rows(settings, rows: dict, train) -> dict:
    """Read the test split, with new seeds: row -> (rule, rate, seconds of its search, start) -> row -> measures."""
    test = tuple(map(jnp.asarray, common.load('digits', 'test', settings.data_dir)))

    def measure(rule, rate, search, start='drawn'):
        def scores(seed):
            learn_key, half_key = jax.random.split(jax.random.key(seed))
            look = learn(settings, rule, rate, learn_key, train[0], start)
            parts = [(look(images), labels) for images, labels in (train, test)]
            accuracy = learned.held_out_accuracy(*parts, 10, settings.penalty * len(train[1]))
            return {'validation %': 100 - 100 * half_loss(settings, look, half_key, train), 'test %': 100 * accuracy}

        # one seed after the other: on two cores two batches of Cholesky factors in one program wait for each other
        scores_of_seeds = jax.jit(lambda seeds: jax.lax.map(scores, seeds))(NEW + jnp.arange(settings.seeds))
        return {name: values.tolist() for name, values in scores_of_seeds.items()} | {'search s': [search]}

    return {row: measure(*how) for row, how in rows.items()}


def watch(name: str):
    """Tell how a search goes."""

    def tell(number, losses, theta):
        failed = int((~np.isfinite(losses)).sum())
        more = f', {failed} not finite' if failed else ''
        common.tell_status(f'{name}: {number} generations, best {np.nanmin(losses):.4f}{more}')

    return tell


def draw_generations(fitness: dict, title: str):
    """Draw the best and the median loss of every generation."""
    figure, axes = curves.make_canvas(6.5, 3.8, title)
    for number, (name, losses) in enumerate(fitness.items()):
        finite = np.where(np.isfinite(losses), losses, np.nan)
        for kind, values, style in (('best', np.nanmin(finite, 1), '-'), ('median', np.nanmedian(finite, 1), ':')):
            generations = range(1, len(values) + 1)
            curves.draw_line(axes, f'{name}, {kind}', generations, 100 * values, color=f'C{number}', ls=style)
    axes.set(xlabel='generation', ylabel='held-out error (%)')
    figure.legend(loc='outside right upper', fontsize='small')
    return figure


def evolve(settings, family: str, train) -> tuple[learned.Evolved, float]:
    """Evolve the settings of a rule. -> what was found, seconds."""

    def objective(theta, key):
        *setting, rate = bounded(family, theta)
        return validation_loss(settings, RULES[family](*setting), rate, key, train)

    theta, started = unbounded(family), time.perf_counter()
    how = {'population': settings.population, 'generations': settings.generations, 'at_once': settings.at_once}
    strategy = learned.gaussian(settings.population, theta, settings.spread)
    found = learned.evolve_rule(objective, theta, jax.random.key(0), strategy=strategy, watch=watch(family), **how)
    return found, time.perf_counter() - started


def experiment(settings: Config) -> bool:
    """Evolve both rules, choose all rates, read the test split, report."""
    train = tuple(map(jnp.asarray, common.load('digits', 'train', settings.data_dir)))
    rows = {'untrained': (None, 0.0, 0.0), 'image patches': (None, 0.0, 0.0, 'patches')}
    for name in settings.evolved:
        common.refuse_unknown('evolved', name, RULES)
    published = {name: RULES[name](*PUBLISHED[name][:2]) for name in settings.evolved}
    fitness = {}
    for name, rule in {'oja': rules.oja(), 'instar': rules.instar(1), **published}.items():
        started = time.perf_counter()
        rate = choose_rate(settings, rule, train)
        rows[f'{name}, rate {rate:.2g}'] = rule, rate, time.perf_counter() - started
        if name in published:
            found, seconds = evolve(settings, name, train)
            *setting, rate = map(float, bounded(name, found.theta))
            words = ', '.join(f'{word} {value:.2g}' for word, value in zip(NAMES[name], (*setting, rate)))
            rows[f'{name}, evolved: {words}'] = RULES[name](*setting), rate, seconds
            fitness[name] = found.fitness
            common.tell(f'{name}: {words}, {found.fitness.size} trainings in {seconds:.0f} s')
    table = measure_rows(settings, rows, train)  # no choice is left to make
    common.report_measures(settings, table, f'digits, {settings.features} units, accuracy in percent')
    common.write_figure(settings.figure, draw_generations(fitness, 'Evolution of settings on digits'))
    return False


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'evolve_digits.py')


if __name__ == '__main__':
    sys.exit(main())
