"""Do answers that come down help to see what is occluded? Two layers on digits, a random square of each image zeroed.

    python experiments/settling_digits.py --json settling_digits.json --figure settling_digits.png
    python experiments/settling_digits.py --rows groups --power 4 --json settling_sharp.json       # a sharper code

The network: Krotov-Hopfield units on images of unit length -> RePU -> prototypes by angle, of which `winners` answer 1.
In settling the winners' prototypes come down to the units (`layers.settled_activations`). Ridge regression reads the
units, trained on clean images, which settled too or did not. Rows, each plain and settled:

    untrained         both layers as drawn
    untaught          both layers learned, without labels
    random_feedback   prototypes compete where fixed random connections from the class signal them
    groups            each prototype belongs to a class
    groups, occluded  the control: that network, its read-out trained on occluded images, squares of all sizes

Gain, steps and whether the read-out learns from settled answers are chosen for each row and seed by the mean accuracy
over occluded validation images, gain 0 left out; the test split is read once, at the end. `top` reads the prototypes of
clean images: what the teacher taught.
"""

import dataclasses
import itertools
import pathlib
import sys
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hebbjax import Layer, init, layers, make_train_epoch, readout, rules, transforms
from hebbjax.cli import flags
from hebbjax.layers import patches
from hebbjax.plots.curves import draw_line, make_canvas
from hebbjax.training import Stage

ROWS = ('untrained', 'untaught', 'random_feedback', 'groups', 'groups, occluded')


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the networks and of what hides the digits."""

    units: flags.Count = 100  # Krotov-Hopfield units
    per_class: flags.Count = 6  # Prototypes for each of the 10 classes
    power: flags.number(least=1) = 1.0  # n of the units' RePU(n); 1: relu
    winners: flags.Count = 3  # Prototypes that answer, and come down
    epochs: flags.Count = 20  # Of each layer, one after the other
    batch: flags.Count = 100  # Images per Hebbian step
    rate: flags.Rate = 0.04  # First rate of the units; it falls linearly
    prototype_rate: flags.Rate = 0.1  # Of the prototypes
    sides: tuple[flags.CountOrZero, ...] = (0, 2, 3, 4, 5, 6)  # Pixels of the square, of 8
    gains: tuple[flags.Rate, ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)  # What is chosen from
    steps: tuple[flags.Count, ...] = (1, 4)  # Steps of settling; what is chosen from
    penalty: flags.Amount = 0.1  # Of ridge regression
    validation: flags.Part = 1 / 6  # Share of the training data that choices are made on
    data_dir: pathlib.Path | None = None  # Where digits.npz lies; else they are those of scikit-learn
    rows: tuple[flags.choice(*ROWS), ...] = ROWS  # Which networks to train
    seeds: flags.Seeds = 5  # Number of seeds, 0, 1, ...; each draws weights, order and squares anew
    json: pathlib.Path | None = None  # File for all results
    figure: pathlib.Path | None = None  # File for a picture of accuracies, and of what is sent back (png, pdf, svg)


def occlude(key: jax.Array, images: jax.Array, side) -> jax.Array:
    """Zero a square of this side, or each image's own one [B, 1], at a random place."""
    count, height, width, _ = images.shape
    side = jnp.broadcast_to(side, (count, 1))
    hidden = []  # rows [B, H, 1, 1] and columns [B, 1, W, 1] of the square
    for axis, size, axis_key in zip((1, 2), (height, width), jax.random.split(key)):
        start = jax.random.randint(axis_key, (count, 1), 0, size - side + 1)
        pixel = jnp.arange(size)[None]
        hidden.append(jnp.expand_dims((pixel >= start) & (pixel < start + side), (3 - axis, 3)))
    return jnp.where(hidden[0] & hidden[1], 0, images)


def build(settings: Config, count: int, teacher=None) -> tuple[Layer, Layer]:
    """Build the two layers, for so many training images."""
    rate = transforms.linear_by_epoch(settings.rate, settings.epochs, count // settings.batch)
    falling = optax.chain(transforms.scale_by_max_abs('unit'), transforms.scale_by_rate(rate))
    nearest = rules.instar(1, metric='cosine', reduce=rules.mean_over_credit)
    return (
        Layer(settings.units, rules.krotov(), falling, patch_transform=patches.l2, post=(layers.repu(settings.power),)),
        Layer(
            10 * settings.per_class, nearest, transforms.scale_by_rate(settings.prototype_rate),
            patch_transform=patches.l2, output='projection', teacher=teacher,
            post=(layers.send_credit(rules.k_wta(settings.winners)),),
        ),
    )  # fmt: skip


def train_network(settings: Config, row: str, seed: int, images, labels):
    """Train a row's network, bottom first, from images. -> the states of its layers."""
    *start_keys, teacher_key, key = jax.random.split(jax.random.key(seed), 4)
    features = 10 * settings.per_class
    teachers = {'random_feedback': rules.random_feedback(10, features, teacher_key)}
    net = build(settings, len(images), teachers.get(row, rules.groups(10, settings.per_class)))
    if row in ('untrained', 'untaught'):
        net = build(settings, len(images))
    state = init(net, key, images.shape[1:])
    for number, layer in enumerate(net if row != 'untrained' else ()):
        # neurons start as what reaches them of some images
        seen = layers.activations_of(net[:number], state.layers[:number], images) if number else images
        below, above = state.layers[:number], state.layers[number + 1 :]
        started = state.layers[number]._replace(w=layers.from_patches(layer, start_keys[number], seen))
        state = state._replace(layers=(*below, started, *above))
        epoch = make_train_epoch(net, batch=settings.batch, stage=Stage(settings.epochs, (number,)))
        for _ in range(settings.epochs):
            state, _ = epoch(state, images, labels)
    return state.layers


class Way(NamedTuple):
    """How a network is read."""

    gain: float = 0.0
    steps: int = 0
    learned: bool = False  # whether the read-out learned from settled answers; in the table the share of seeds


def read(settings: Config, states, train, way: Way, upto: int = 1):
    """Fit ridge regression to what layer `upto` answers. -> (images, labels) -> accuracy in percent."""
    net = build(settings, len(train[1]))

    def features(images, steps=way.steps):
        maps = layers.settled_activations(net, states, images, gain=way.gain, steps=steps, upto=upto)
        return maps.reshape(len(images), -1)

    learned_from = features(train[0], way.steps if way.learned else 0)
    model = readout.fit_ridge([(learned_from, train[1])], 10, settings.penalty)
    return lambda images, labels: 100 * readout.linear_accuracy(model, [(features(images), labels)])


def choose(settings: Config, states, train, held, key: jax.Array) -> Way:
    """Give the way that reads occluded validation images best, over all sides; those that diverge are told."""
    looks = [(occlude(jax.random.fold_in(key, side), held[0], side), held[1]) for side in settings.sides if side]
    scores = {}
    for way in map(Way._make, itertools.product(settings.gains, settings.steps, (False, True))):
        try:
            accuracy = read(settings, states, train, way)
            scores[way] = np.mean([accuracy(*look) for look in looks])
        except ValueError as error:
            common.tell(str(error))
    return max(scores, key=scores.get)


def experiment(settings: Config) -> bool:
    """Train and choose for all rows and seeds, then read the test split, report and draw."""
    train, held = common.load_train('digits', settings.validation, settings.data_dir)
    chosen, measured = {}, {f'{row}, {how}': {} for row in settings.rows for how in ('plain', 'settled')}
    for seed in range(settings.seeds):
        hide_key, held_key, side_key = jax.random.split(jax.random.key(1000 + seed), 3)
        sides = jax.random.randint(side_key, (len(train[1]), 1), 1, max(settings.sides) + 1)
        hidden = occlude(hide_key, train[0], sides), train[1]
        for row in settings.rows:
            states = train_network(settings, row, seed, *train)
            seen = hidden if row == 'groups, occluded' else train
            chosen[row, seed] = states, seen, choose(settings, states, seen, held, held_key)
            common.tell(f'{row}, seed {seed}: {chosen[row, seed][-1]}')

    # no choice is left to make: the test split is read
    images, labels = map(jnp.asarray, common.load('digits', 'test', settings.data_dir))
    for (row, seed), (states, seen, settled) in chosen.items():
        looks = {
            f'{side} px' if side else 'clean': occlude(jax.random.key(seed), images, side) for side in settings.sides
        }
        for how, way in {'plain': Way(), 'settled': settled}.items():
            accuracy, top = read(settings, states, seen, way), read(settings, states, seen, way, upto=2)
            found = {name: accuracy(look, labels) for name, look in looks.items()} | {'top': top(images, labels)}
            for name, value in (found | way._asdict()).items():
                measured[f'{row}, {how}'].setdefault(name, []).append(float(value))
    common.report_measures(settings, measured, 'digits, accuracy in percent with a square of so many pixels zeroed')
    common.write_figure(settings.figure, draw(settings, measured, chosen, images) if settings.figure else None)
    return False


def draw(settings: Config, measured, chosen, images):
    """Draw accuracies over the side of the square, and what the units send back to the pixels of occluded digits."""
    figure, (left, right) = make_canvas(11, 4.2, '', 1, 2)
    for number, row in enumerate(row for row in settings.rows if row in ('untrained', 'groups', 'groups, occluded')):
        for how, style in (('plain', '--'), ('settled', '-')):
            lines = [*measured[f'{row}, {how}'].values()][: len(settings.sides)]
            draw_line(left, f'{row}, {how}', settings.sides, np.mean(lines, 1), color=f'C{number}', ls=style)
    left.set(xlabel='side of the square (pixels of 8)', ylabel='test accuracy (%)')
    left.legend(fontsize='small')

    states, seen, way = chosen[settings.rows[-1], 0]
    net, pixels = build(settings, len(seen[1])), layers.to_intensities(images)
    rows = {'digit': pixels, 'occluded': occlude(jax.random.key(0), pixels, 3)}
    for name, steps in {'sent back, plain': 0, 'sent back, settled': way.steps}.items():
        answer = layers.settled_activations(net, states, rows['occluded'], gain=way.gain, steps=steps, upto=1)
        maps = layers.send_down(net[0], states[0], rows['occluded'], answer, answer)
        maps = maps / jnp.linalg.norm(maps, axis=(1, 2), keepdims=True)
        rows[name] = maps - maps.mean(0, keepdims=True)  # less what all images have in common
    rows = {name: maps[:: len(maps) // 10][:10] for name, maps in rows.items()}
    scaled = [np.asarray(x[..., 0] / jnp.max(jnp.abs(x), (1, 2, 3))[:, None, None]) for x in rows.values()]
    padded = np.pad(np.stack(scaled), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    right.imshow(np.block([[*line] for line in padded]), cmap='bwr', vmin=-1, vmax=1)
    right.set(xticks=[], facecolor='0.8', title=f'gain {way.gain:g}, steps {way.steps}')
    right.set_yticks([10 * place + 5 for place in range(len(rows))], rows)
    return figure


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'settling_digits.py')


if __name__ == '__main__':
    sys.exit(main())
