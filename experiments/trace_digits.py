"""Digits that turn: complex cells that learn by a trace, judged on digits turned as no label was ever seen.

    python experiments/trace_digits.py --json FILE --figure turned.png

A sequence is one embedded digit in a frame of 12 x 12, turned from one side to the other in steps of 15 degrees, every
second one the other way. The network: simple cells, 32 windows of 5 x 5 that learn first, the same for all rows ->
triangle -> maxima of 2 x 2 -> complex cells on all of it, by cosine -> triangle -> read-outs that are taught on upright
digits alone, ridge regression and the nearest neighbour by cosine. Rows:

    pixels       no features
    simple       simple cells alone, 512 numbers
    untrained    complex cells drawn at random
    patches      complex cells cut out of what simple cells answer, from which the two below start
    no_trace     these, having learned with eta = 1, which is the instar
    trace        these, having learned with a trace

Winners, eta and rate are chosen for each of the last two, among as many settings, on the validation split, first seed,
by the accuracy of both read-outs over all angles; the test split is read at the end.
"""

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Callable

import common
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

import hebbjax
from hebbjax import Layer, Window, data, layers, plots, readout, rules, transforms
from hebbjax.cli import flags
from hebbjax.layers import patches

Choice = tuple[int, float, float]  # winners, eta, rate
SIDE = 12  # of a frame
ANGLES = tuple(range(-60, 61, 15))
CHOICES = {  # as many for both
    'trace': tuple(itertools.product((1,), (0.02, 0.1, 0.5), (0.03, 0.1))),
    'no_trace': tuple(itertools.product((1, 5), (1.0,), (0.03, 0.1, 0.3))),
}
FIRST, PENALTY = (1, 1.0, 0.1), 0.01  # a choice where none matters; of ridge regression on features of unit length


@dataclasses.dataclass(frozen=True)
class Config:
    """Sequences of turning digits, and complex cells that watch them."""

    seeds: flags.Seeds = 5  # Number of seeds, 0, 1, ...; each draws weights and order anew
    validation: flags.Part = 0.2  # Share of the training data that choices are made on
    images: flags.Count | None = None  # Training images used; left out: all. Fewer are for trying things out
    features: flags.Count = 100  # Complex cells
    epochs: flags.Count = 10  # Of complex cells; the rate falls linearly
    batch: flags.Count = 50  # Sequences per step
    json: pathlib.Path | None = None  # File for all results, with configuration and versions
    figure: pathlib.Path | None = None  # File for a picture of accuracy over angles, and of a sequence (png, pdf, svg)


def turn(images: np.ndarray) -> np.ndarray:
    """Put digits in the middle of black frames, and turn them by every angle. [n, 8, 8, 1] -> [T, n, 12, 12, 1]."""
    edge = (SIDE - images.shape[1]) // 2
    framed = np.pad(images / np.float32(255), ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    return np.stack([ndimage.rotate(framed, angle, axes=(1, 2), reshape=False, order=1) for angle in ANGLES])


def simple_cells(seed: int, images: jax.Array) -> Callable:
    """Learn small windows of digits at all angles, which all rows have in common. -> images [n, H, W, 1] -> maps."""
    rule, rate = rules.instar(1, metric='cosine', reduce=rules.mean_over_credit), transforms.scale_by_rate(0.1)
    shared = {'patch_transform': patches.centred_l2, 'post': (layers.triangle, layers.max_pool(2))}
    net = (Layer(32, rule, rate, Window(5), output='cosine', **shared),)
    start_key, key = jax.random.split(jax.random.key(seed), 4)[:2]
    state = hebbjax.init(net, key, images.shape[1:], [layers.from_patches(net[0], start_key, images)])
    state, _ = hebbjax.make_train_epoch(net, batch=50)(state, images)
    return lambda images: layers.activations_of(net, state.layers, images)


def complex_cells(settings: Config, choice: Choice, steps: int) -> tuple[Layer]:
    """Build the layer that learns by winners, eta and rate."""
    winners, eta, rate = choice
    tx = transforms.scale_by_rate(transforms.linear_by_epoch(rate, settings.epochs, max(steps, 1)))
    rule = rules.trace(winners, eta, reduce=rules.mean_over_credit)
    return (Layer(settings.features, rule, tx, patch_transform=patches.l2, output='cosine', post=(layers.triangle,)),)


def learn(settings: Config, seed: int, maps: jax.Array, choice: Choice | None, drawn: bool = False) -> jax.Array:
    """Give complex cells' weights, drawn or cut out of maps [n, T, H, W, C]; with a choice, as learned from these."""
    net = complex_cells(settings, choice or FIRST, len(maps) // settings.batch)
    (start_key, key), shape = jax.random.split(jax.random.key(seed), 4)[2:], maps.shape[2:]
    w = None if drawn else layers.from_patches(net[0], start_key, maps.reshape(-1, *shape))
    state = hebbjax.init(net, key, shape, [w])
    if choice is not None:
        epoch = hebbjax.make_train_epoch(net, batch=settings.batch)
        for _ in range(settings.epochs):
            state, _ = epoch(state, maps)
    return state.layers[0].w


def answer_by(settings: Config, look: Callable, w: jax.Array) -> Callable:
    """Make complex cells above simple cells answer by these weights; how they learned is no longer asked."""
    net = complex_cells(settings, FIRST, 1)  # one program for all rows
    shape = look(jnp.zeros((1, SIDE, SIDE, 1))).shape[1:]
    states = hebbjax.init(net, jax.random.key(0), shape, [w]).layers
    return lambda images: layers.features(net, states, look(images))


def accuracies(answer: Callable, train: data.Split, turned: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Teach both read-outs on upright digits, and judge them at every angle: name -> percent [T]."""
    rows = lambda images: np.asarray(patches.l2(answer(images).reshape(len(images), -1)))  # noqa: E731
    x, found = rows(jnp.asarray(train.images)), {'ridge': [], 'nearest': []}
    ridge = readout.fit_ridge([(x, train.labels)], int(train.labels.max()) + 1, PENALTY)
    for images in turned:
        z = rows(jnp.asarray(images))
        found['ridge'].append(100 * readout.linear_accuracy(ridge, [(z, labels)]))
        found['nearest'].append(100 * np.mean(train.labels[(z @ x.T).argmax(1)] == labels))
    return {name: np.array(values) for name, values in found.items()}


def summary(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Sum accuracies at all angles up: upright, turned by less than 45 degrees, and by 45 and more."""
    size = np.abs(ANGLES)
    parts = {'upright': size == 0, '15-30°': (size > 0) & (size < 45), '45-60°': size >= 45}
    return {f'{name} {part}': float(of[which].mean()) for name, of in found.items() for part, which in parts.items()}


def draw_angles(found: dict[str, list[dict[str, np.ndarray]]], example: np.ndarray):
    """Draw a sequence, and accuracy over angles, a panel for each read-out, means over seeds."""
    figure, (above, *panels) = plots.curves.make_canvas(7.5, 8, '', 3, height_ratios=(1, 4, 4))
    above.imshow(np.concatenate([*example[..., 0]], 1), cmap='Greys')
    above.set(title='one sequence', xticks=[], yticks=[])
    for axes, name in zip(panels, ('ridge', 'nearest')):
        for row, seeds in found.items():
            plots.curves.draw_line(axes, row, ANGLES, np.mean([of[name] for of in seeds], 0))
        axes.set(ylabel='accuracy (%)', title=f'{name}, taught on upright digits', xticks=ANGLES)
    panels[-1].set_xlabel('degrees')
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', fontsize='small', ncols=3)
    return figure


def experiment(settings: Config) -> bool:
    """Choose on validation, train, read the test split, report and draw. -> False: nobody ended it early."""
    images, labels = (part[: settings.images] for part in common.load('digits', 'train'))
    train, held_out = data.split_validation(labels, settings.validation, seed=0)
    frames, judged = turn(images[train]), turn(images[held_out])
    upright = data.Split(frames[ANGLES.index(0)], labels[train])
    seen = jnp.asarray(np.where(np.arange(len(train))[:, None, None, None] % 2, frames[::-1], frames).swapaxes(0, 1))
    seeds, chosen = range(settings.seeds), {}
    looks = [simple_cells(seed, seen[::4].reshape(-1, SIDE, SIDE, 1)) for seed in seeds]  # a fourth, at all angles
    maps = [look(seen.reshape(-1, SIDE, SIDE, 1)) for look in looks]  # they stay as they are, so these are kept
    maps = [one.reshape(*seen.shape[:2], *one.shape[1:]) for one in maps]  # [n, T, H, W, C]
    for row, choices in CHOICES.items():
        score = {}
        for choice in choices:
            answer = answer_by(settings, looks[0], learn(settings, 0, maps[0], choice))
            found = accuracies(answer, upright, judged, labels[held_out])
            score[choice] = float(np.mean([*found.values()]))
            common.tell(f'{row}, winners, eta, rate {choice}: validation {score[choice]:.2f} %')
        chosen[row] = max(score, key=score.get)
    rows = {'pixels': [lambda images: images] * len(seeds), 'simple': looks}
    banks = {'untrained': {'choice': None, 'drawn': True}, 'patches': {'choice': None}}
    for row in ('no_trace', 'trace'):
        banks['{}: winners {}, eta {:g}, rate {:g}'.format(row, *chosen[row])] = {'choice': chosen[row]}
    for row, how in banks.items():
        ws = [learn(settings, seed, maps[seed], **how) for seed in seeds]
        rows[row] = [answer_by(settings, look, w) for look, w in zip(looks, ws)]

    # no choice is left to make: the test split is read
    test = common.load('digits', 'test')
    judged = turn(test.images)
    found = {row: [accuracies(answer, upright, judged, test.labels) for answer in of] for row, of in rows.items()}
    parts = {row: [*map(summary, seeds)] for row, seeds in found.items()}
    rows = {row: {name: [of[name] for of in seeds] for name in seeds[0]} for row, seeds in parts.items()}
    common.report_measures(settings, rows, 'test accuracy in percent, digits turned by so much')
    common.write_figure(settings.figure, draw_angles(found, np.asarray(seen[0])))
    return False


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'trace_digits.py')


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
