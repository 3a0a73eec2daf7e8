"""One training after another: the images that it sees, how it learns, and where finished ones are kept."""

import functools
import os
import pathlib
import time
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
from amato_cifar10.networks import CLASSES, SHAPE, Training, network

import hebbjax
from hebbjax import TrainState, data, layers, readout, training
from hebbjax.readout.blocks import map_blocks
from hebbjax.readout.gradient import best_epoch
from hebbjax.readout.hybrid import lower_answers
from hebbjax.support import files
from hebbjax.support.checks import check_images, check_labels, require

EPOCHS = {'G': 20, 'H': 2, 'R': 0}  # of a training, by its letter
HELD_OUT = 0.2  # of the training images: 10,000 of 50,000, by which epochs are chosen
FEWEST = 100  # images to learn and choose from: 80 of them fill a batch
CURVE = ('loss', 'train', 'validation', 'seconds')  # what is kept of an epoch
PART = 'part.npz'  # ending of a gradient training on its way

States = tuple[layers.LayerState, ...]
Samples = tuple[jax.Array, jax.Array]  # images and labels


def read_images(subset: int | None, data_dir: pathlib.Path | None) -> list[data.Split]:
    """Read images to learn from, to choose by and to test on, of each as large a share as the subset is."""
    known, test = (common.load('cifar10', split, data_dir) for split in ('train', 'test'))
    count = len(check_images(known.images))
    check_labels(known.labels, CLASSES, count)
    asked = count if subset is None else subset
    require(FEWEST <= asked <= count, f'--subset {asked} does not fit {count} images; use {FEWEST} to that many.')
    # the last of the order are held out, whatever the subset
    sides = np.split(np.asarray(jax.random.permutation(jax.random.key(0), count)), [-round(HELD_OUT * count)])
    splits = [*(data.Split(*(part[side] for part in known)) for side in sides), test]
    return [data.Split(*(part[: round(asked / count * len(part))] for part in split)) for split in splits]


def prepare(splits: Sequence[data.Split], whiten: bool) -> list[Samples]:
    """Give images, every channel by the training images' mean and deviation and perhaps whitened, and labels."""
    pixels = splits[0].images.reshape(-1, splits[0].images.shape[-1])
    mean, std = (np.float32(f(pixels, 0, dtype=np.float64) / 255) for f in (np.mean, np.std))
    prepared = [jnp.asarray((split.images.astype(np.float32) / 255 - mean) / std) for split in splits]
    if whiten:
        zca = data.fit_whitening(prepared[0], **data.WHITENING_SETTINGS['amato'])
        prepared = [whiten_by_block(zca, images) for images in prepared]
    return [(images, jnp.asarray(split.labels)) for images, split in zip(prepared, splits)]


whiten_by_block = jax.jit(lambda zca, images: map_blocks(functools.partial(data.whiten, zca), images, 500))


class Trained(NamedTuple):
    """A training as it begins or ends: a pytree, as it lies on disk."""

    states: States  # its own layers, of the best epoch by validation
    curve: np.ndarray  # [epochs, 4], see `CURVE`: accuracies are shares; NaN: Hebb's loss, and epochs not trained
    seconds: np.ndarray  # of training and validating; of compiling
    accuracies: np.ndarray  # of training and test images, percent; NaN until a cell asks

    def summary(self) -> dict:
        """Tell the curve, the epoch that was kept, and the first one whose validation was within 1 point of it."""
        lines = [dict(zip(CURVE, line)) for line in self.curve[~np.isnan(self.curve[:, -1])].tolist()]
        reached = [line['validation'] for line in lines]
        settled = next(number for number, share in enumerate(reached) if share >= max(reached) - 0.01)
        best = {'validation_accuracy': 100 * max(reached), 'kept_epoch': reached.index(max(reached)) + 1}
        return best | {'settled': (settled + 1, lines[settled]['seconds']), 'curves': lines}


class Shelf:
    """Finished trainings, in memory and, where a run folder is given, on disk: what is there is not done again.

    `config.json` says what they were trained on; `seed0/H16.npz` is a finished training, `seed0/H16.part.npz` a
    gradient training on its way. The folder is made when there is something to keep.
    """

    def __init__(self, folder: pathlib.Path | None, settings: dict):
        """Open a run folder, a new one, or one of the same settings; refuse others."""
        self.folder, self.settings, self.trained = folder, settings, {}
        if folder is not None and not folder.exists():
            nearest = next(place for place in folder.absolute().parents if place.exists())
            fits = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
            require(fits, f'{folder} cannot be made in {nearest}; name another folder with --run.')
        if folder is None or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        config, way = folder / 'config.json', 'name another folder with --run, or ask for the same'
        require(config.is_file(), f'{folder} is no empty folder and holds no run; name a new one with --run.')
        before = files.read_json(config)
        require(isinstance(before, dict), f'{config} is damaged (no settings); name another folder with --run.')
        for name, value in settings.items():
            differs = f'{folder} holds trainings with {name} = {before.get(name)}, asked are {value}'
            require(before.get(name) == value, f'{differs}; {way}.')

    def below(self, what: Training, seed: int) -> States:
        """Give the finished layers that a training stands on."""
        on = what.on
        return () if on is None else (*self.below(on, seed), *self.trained[on, seed].states)[: what.upto]

    def save(self, what: Training, seed: int, state, ending: str = 'npz') -> None:
        """Write a file, whole or not at all, into the run folder, which says what it holds; without one, do nothing."""
        if self.folder is not None:
            path = self.path(what, seed, ending)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not (self.folder / 'config.json').is_file():
                files.write_json(self.folder / 'config.json', self.settings)
            training.save_state(path, state)
            if ending != PART:
                self.path(what, seed, PART).unlink(missing_ok=True)

    def load(self, what: Training, seed: int, like, ending: str = 'npz'):
        """Read a file back into the structure of something alike; None: there is none."""
        if self.folder is None or not (path := self.path(what, seed, ending)).is_file():
            return None
        try:
            return training.load_state(path, like)
        except ValueError as error:
            raise ValueError(f'{str(error).rstrip(".")}; or delete it, and it is trained anew.') from None

    def path(self, what: Training, seed: int, ending: str) -> pathlib.Path:
        """Name a file of a training."""
        return self.folder / f'seed{seed}' / f'{what.name}.{ending}'


def finish(what: Training, seed: int, epochs: int | None, is_asked: bool, samples: Callable, shelf: Shelf) -> None:
    """See to it that a training is on the shelf and, where a network ends with it, that its test accuracy is known."""
    epochs = EPOCHS[what.letter] if epochs is None or what.letter == 'R' else epochs
    below = shelf.below(what, seed)
    drawn = draw(what, seed, below, epochs)
    trained = shelf.load(what, seed, drawn)
    if trained is None:
        trained = drawn if what.letter == 'R' else train(what, seed, below, drawn, samples(what.whiten)[:2], shelf)
        shelf.save(what, seed, trained)
    if is_asked and np.isnan(trained.accuracies[1]):
        learned, _, test = samples(what.whiten)
        sample = tuple(part[: len(test[1])] for part in learned)
        reached = [accuracy(network(what), (*below, *trained.states), *part) for part in (sample, test)]
        trained = trained._replace(accuracies=np.array(reached))
        shelf.save(what, seed, trained)
        result = 'test {:.2f} %, {:.0f} s + {:.0f} s compiling'.format(reached[1], *trained.seconds)
        common.tell(f'{time.strftime("%H:%M")} {what.name}, seed {seed}: {result}')
    shelf.trained[what, seed] = trained


def keys_of(what: Training, seed: int) -> jax.Array:
    """Give a training's own keys, the same whatever else is trained: to draw its layers, and to train them."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), zlib.crc32(what.name.encode())))


def draw(what: Training, seed: int, below: States, epochs: int) -> Trained:
    """Draw a training's layers for what finished ones below answer; its curve has room for so many epochs."""
    net, shape = network(what), SHAPE
    if below:
        image = jax.ShapeDtypeStruct((1, *shape), 'float32')
        shape = jax.eval_shape(lambda x: layers.activations_of(net[: what.upto], below, x), image).shape[1:]
    states = hebbjax.init(net[what.upto :], keys_of(what, seed)[0], shape).layers
    return Trained(states, np.full((epochs, len(CURVE)), np.nan), np.zeros(2), np.full(2, np.nan))


def train(what: Training, seed: int, below: States, drawn: Trained, sides: Sequence[Samples], shelf: Shelf) -> Trained:
    """Let drawn layers learn on finished ones below, from the first side; the second tells which epoch is best."""
    net, states, epochs, key = network(what), (*below, *drawn.states), len(drawn.curve), keys_of(what, seed)[1]
    if what.letter == 'G':
        keep, kept = (functools.partial(act, what, seed, ending=PART) for act in (shelf.save, shelf.load))
        states, lines, *seconds = fit_by_gradient(what, net, states, key, sides, epochs, keep=keep, kept=kept)
    else:
        states, lines, *seconds = fit_by_hebb(what, net, states, key, sides, epochs)
    drawn.curve[: len(lines)] = [[getattr(line, name) for name in CURVE] for line in lines]
    return drawn._replace(states=states[what.upto :], seconds=np.array(seconds))


def fit_by_gradient(what: Training, net, states: States, key, sides, epochs: int, **how):
    """Train the upper layers together by SGD; the best epoch by validation is kept."""
    stage = readout.GradientStage(what.upto, readout.Milestones(epochs, what.batch, l2=what.l2))
    watch = functools.partial(common.tell_epoch, what.name)
    states, _, gradient = readout.fit_hybrid(net, states, stage, key, *sides, watch=watch, **how)
    if gradient.interrupted:
        raise KeyboardInterrupt
    return states, gradient.curve, gradient.seconds, gradient.compile_seconds


def fit_by_hebb(what: Training, net, states: States, key, sides, epochs: int):
    """Let the upper layers learn by Hebb's rule, all at once, each by its teacher; the best epoch is kept."""
    below, own, lower, upper = net[: what.upto], net[what.upto :], states[: what.upto], states[what.upto :]
    # what lies below answers once, and never changes
    learned, held = [(lower_answers(below, lower, x, None) if below else x, labels) for x, labels in sides]
    sample = tuple(part[: len(held[1])] for part in learned)
    began = time.perf_counter()
    accuracy(own, upper, *held)  # compiles
    compile_seconds, lines, best = time.perf_counter() - began, [], []

    def note(context):
        """Note how good this epoch's layers are, and keep them if they are the best so far."""
        began = time.perf_counter()
        reached = [accuracy(own, context.state.layers, *part) / 100 for part in (sample, held)]
        spent = (lines[-1].seconds if lines else 0) + context.metrics['seconds'] + time.perf_counter() - began
        lines.append(readout.GradientEpoch(np.nan, *reached, np.nan, spent))
        if best_epoch(lines) == len(lines) - 1:
            best[:] = jax.device_put(context.state.layers, may_alias=False)
        common.tell_epoch(what.name, len(lines) - 1, lines[-1])

    state, stages = TrainState(jnp.zeros((), jnp.int32), key, upper), [training.Stage(epochs)]
    result = training.fit(own, state, *learned, stages=stages, batch=what.batch, callbacks=[note], watch=None)
    if result.interrupted:
        raise KeyboardInterrupt
    return (*lower, *best), lines, lines[-1].seconds, compile_seconds + result.compile_seconds


def accuracy(net, states: States, images: jax.Array, labels: jax.Array) -> float:
    """Give the share of images whose class the highest layer's largest answer names, in percent."""
    classes = jnp.argmax(lower_answers(net, states, images, None).reshape(len(images), -1), 1)
    return 100 * float(np.mean(np.asarray(classes) == np.asarray(labels)))
