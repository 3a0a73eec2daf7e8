"""One training after another: the images that it sees, how it learns, and where finished ones are kept."""

import functools
import pathlib
import time
import zlib
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
from amato_cifar10.networks import CLASSES, SHAPE, Training, network

import hebbjax
from hebbjax import TrainState, data, layers, readout, training
from hebbjax.readout.blocks import map_blocks
from hebbjax.readout.hybrid import lower_answers
from hebbjax.support import checks, files

HELD_OUT = 0.2  # of the training images: 10,000 of 50,000, by which epochs are chosen
FEWEST = 100  # images to learn and choose from: 80 of them fill a batch

States = tuple[layers.LayerState, ...]
Samples = tuple[jax.Array, jax.Array]  # images and labels


class Images:
    """CIFAR-10 as Amato et al. had it: split by key, every channel normalised, whitened where asked for."""

    def __init__(self, subset: int | None, data_dir: pathlib.Path | None):
        """Read the training images, or so many of them, those to choose by among them."""
        images, labels = common.load('cifar10', 'train', data_dir)
        checks.check_labels(labels, CLASSES, len(checks.check_images(images)))
        count = len(images) if subset is None else subset
        if not FEWEST <= count <= len(images):
            raise ValueError(f'--subset {count} does not fit {len(images)} images; use {FEWEST} to that many.')
        order = np.asarray(jax.random.permutation(jax.random.key(0), len(images)))
        held, self.share, self.data_dir = round(HELD_OUT * len(order)), count / len(order), data_dir
        # the last of the order are held out, whatever the subset
        parts = [part[: round(self.share * len(part))] for part in (order[:-held], order[-held:])]
        self.splits = [data.Split(images[part], labels[part]) for part in parts]
        pixels = self.splits[0].images.reshape(-1, images.shape[-1])
        self.mean, self.std = (np.float32(f(pixels, 0, dtype=np.float64) / 255) for f in (np.mean, np.std))
        self.digest = data.digest(*(part for split in self.splits for part in split))

    @functools.cached_property
    def zca(self) -> data.Whitening:
        """The authors' whitening, fitted to the normalised training images."""
        return data.fit_whitening(self.prepare(self.splits[0], False)[0], **data.WHITENING_SETTINGS['amato'])

    def prepare(self, split: data.Split, whiten: bool) -> Samples:
        """Give images, every channel by the training images' mean and deviation and perhaps whitened, and labels."""
        images = jnp.asarray((split.images.astype(np.float32) / 255 - self.mean) / self.std)
        return whiten_by_block(self.zca, images) if whiten else images, jnp.asarray(split.labels)

    @functools.lru_cache(maxsize=1)  # noqa: B019  those of one kind are held at a time
    def sides(self, whiten: bool) -> tuple[Samples, Samples]:
        """Give images and labels to learn from, and those to choose by."""
        return tuple(self.prepare(split, whiten) for split in self.splits)

    def test(self, whiten: bool) -> Samples:
        """Give test images and labels."""
        split = common.load('cifar10', 'test', self.data_dir)
        count = round(self.share * len(split.labels))
        return self.prepare(data.Split(*(part[:count] for part in split)), whiten)


whiten_by_block = jax.jit(lambda zca, images: map_blocks(functools.partial(data.whiten, zca), images, 500))


class Trained(NamedTuple):
    """A finished training: a pytree, as it lies on disk."""

    states: States  # its own layers, of the best epoch by validation
    curve: np.ndarray  # [epochs, 4] loss (NaN for Hebb's rule), accuracy on training and validation images, seconds
    seconds: np.ndarray  # of training and validating; of compiling
    accuracies: np.ndarray  # of training and test images, percent; NaN until a cell asks

    @property
    def lines(self) -> np.ndarray:
        """The epochs that were trained."""
        return self.curve[~np.isnan(self.curve[:, -1])]

    @property
    def best(self) -> int:
        """The number of the epoch that was kept, from 0."""
        return int(np.argmax(self.lines[:, 2]))


def train(what: Training, seed: int, below: States, sides, epochs: int, **how) -> Trained:
    """Draw a training's layers, and let them learn on finished ones below for so many epochs at most.

    Without `sides`, to learn from and to choose by, they stay as they are drawn. `how`: see `Shelf.resumable`.
    """
    net, shape = network(what), SHAPE
    # a training's own key is the same whatever else is trained
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(what.name.encode()))
    init_key, train_key = jax.random.split(key)
    if below:
        image = jax.ShapeDtypeStruct((1, *shape), 'float32')
        shape = jax.eval_shape(lambda x: layers.activations_of(net[: what.upto], below, x), image).shape[1:]
    states = (*below, *hebbjax.init(net[what.upto :], init_key, shape).layers)
    curve, seconds = np.full((epochs, 4), np.nan), [0.0, 0.0]
    if sides is not None:
        learn = fit_by_gradient if what.letter == 'G' else fit_by_hebb
        states, lines, *seconds = learn(what, net, states, train_key, sides, epochs, **how)
        curve[: len(lines)] = lines
    return Trained(states[what.upto :], curve, np.array(seconds), np.full(2, np.nan))


def fit_by_gradient(what: Training, net, states: States, key, sides, epochs: int, **how):
    """Train the upper layers together by SGD; the best epoch by validation is kept."""
    stage = readout.GradientStage(what.upto, readout.Milestones(epochs, what.batch, l2=what.l2))
    watch = lambda number, line: tell_epoch(what, number + 1, line.validation)  # noqa: E731
    result = readout.fit_hybrid(net, states, stage, key, *sides, watch=watch, **how)
    if result.gradient.interrupted:
        raise KeyboardInterrupt
    lines = [(line.loss, line.train, line.validation, line.seconds) for line in result.gradient.curve]
    return result.layers, lines, result.gradient.seconds, result.gradient.compile_seconds


def fit_by_hebb(what: Training, net, states: States, key, sides, epochs: int):
    """Let the upper layers learn by Hebb's rule, all at once, each by its teacher; the best epoch is kept."""
    below, own, lower, upper = net[: what.upto], net[what.upto :], states[: what.upto], states[what.upto :]
    # what lies below answers once, and never changes
    answers = [(lower_answers(below, lower, x, None) if below else x, labels) for x, labels in sides]
    (inputs, labels), held = answers
    sample = inputs[: len(held[1])], labels[: len(held[1])]
    began = time.perf_counter()
    accuracy(own, upper, *held)  # compiles
    compile_seconds, lines, best = time.perf_counter() - began, [], None

    def judge(context):
        """Tell how good this epoch's layers are, and keep them if they are the best so far."""
        nonlocal best
        began = time.perf_counter()
        reached = [accuracy(own, context.state.layers, *part) / 100 for part in (sample, held)]
        if best is None or reached[1] > max(line[2] for line in lines):
            best = context.state.layers
        spent = (lines[-1][3] if lines else 0) + context.metrics['seconds'] + time.perf_counter() - began
        lines.append((np.nan, *reached, spent))
        tell_epoch(what, context.epoch, reached[1])

    state, stages = TrainState(jnp.zeros((), jnp.int32), key, upper), [training.Stage(epochs)]
    how = {'batch': what.batch, 'callbacks': [judge], 'watch': None}
    result = training.fit(own, state, inputs, labels, stages=stages, **how)
    if result.interrupted:
        raise KeyboardInterrupt
    return (*lower, *best), lines, lines[-1][3], compile_seconds + result.compile_seconds


def accuracy(net, states: States, images: jax.Array, labels: jax.Array) -> float:
    """Give the share of images whose class the highest layer's largest answer names, in percent."""
    classes = jnp.argmax(lower_answers(net, states, images, None).reshape(len(images), -1), 1)
    return 100 * float(np.mean(np.asarray(classes) == np.asarray(labels)))


def tell_epoch(what: Training, number: int, validation: float) -> None:
    """Show on a terminal how a training goes."""
    common.tell_status(f'{what.name}: epoch {number}, validation {100 * validation:.1f} %')


class Shelf:
    """Finished trainings, in memory and, where a run folder is given, on disk: what is there is not done again.

    `config.json` says what they were trained on; `seed0/H16.npz` is a finished training, `seed0/H16.part.npz` a
    gradient training on its way. The folder is made when there is something to keep.
    """

    def __init__(self, folder: pathlib.Path | None, settings: dict):
        """Open a run folder, a new one, or one of the same settings; refuse others."""
        self.folder, self.settings, self.trained = folder, settings, {}
        if folder is None or not folder.exists():
            return
        config = folder / 'config.json'
        if not config.is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f'{folder} is no empty folder and holds no run; name a new one with --run.')
        before = files.read_json(config) if config.is_file() else settings
        for name, value in settings.items():
            if before.get(name) != value:
                differs = f'{folder} holds trainings with {name} = {before.get(name)}, asked are {value}'
                raise ValueError(f'{differs}; name another folder with --run, or ask for the same.')

    def path(self, what: Training, seed: int, ending: str = 'npz') -> pathlib.Path:
        """Name a file of a training."""
        return self.folder / f'seed{seed}' / f'{what.name}.{ending}'

    def save(self, path: pathlib.Path, state) -> None:
        """Write a file, whole or not at all, into a folder that says what it holds."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (self.folder / 'config.json').is_file():
            files.write_json(self.folder / 'config.json', self.settings)
        training.save_state(path, state)

    def below(self, what: Training, seed: int) -> States:
        """Give the finished layers that a training stands on."""
        if what.on is None:
            return ()
        return (*self.below(what.on, seed), *self.trained[what.on, seed].states)[: what.upto]

    def get(self, what: Training, seed: int, epochs: int) -> Trained | None:
        """Find a finished training; None: it is not there. Those that it stands on have to be there."""
        if (what, seed) not in self.trained and self.folder is not None and self.path(what, seed).is_file():
            like = train(what, seed, self.below(what, seed), None, epochs)
            self.trained[what, seed] = load(self.path(what, seed), like)
        return self.trained.get((what, seed))

    def put(self, what: Training, seed: int, trained: Trained) -> None:
        """Keep a finished training, in the place of what was kept of its beginning."""
        self.trained[what, seed] = trained
        if self.folder is not None:
            self.save(self.path(what, seed), trained)
            self.path(what, seed, 'part.npz').unlink(missing_ok=True)

    def resumable(self, what: Training, seed: int) -> dict:
        """Give `keep` and `kept` of `readout.fit_gradient`, by which an interrupted gradient training goes on."""
        if self.folder is None or what.letter != 'G':
            return {}
        path = self.path(what, seed, 'part.npz')
        kept = lambda like: load(path, like) if path.is_file() else None  # noqa: E731
        return {'keep': functools.partial(self.save, path), 'kept': kept}


def load(path: pathlib.Path, like):
    """Read what a shelf has saved."""
    try:
        return training.load_state(path, like)
    except ValueError as error:
        raise ValueError(f'{str(error).rstrip(".")}; or delete it, and it is trained anew.') from None
