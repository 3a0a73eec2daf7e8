"""Networks, their settings as flags; those left out were chosen on validation splits (experiments/RESULTS.md)."""

import dataclasses
import math
import pathlib
from typing import Self

import jax
import numpy as np
from rich.console import Console

from hebbjax import data, layers
from hebbjax.base import Array
from hebbjax.cli import flags
from hebbjax.layers.layer import OUTPUTS, PRECISIONS
from hebbjax.layers.patches import PATCH_TRANSFORMS
from hebbjax.support.checks import check_images, device_memory, require
from hebbjax.training import presets

HOW = ('resize', 'shape', 'images_key', 'labels_key', 'channels_first', 'white', 'skip_unreadable')  # of `data.read`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Which images there are, and how they are read."""

    dataset: str | None = 'digits'  # digits, mnist, fashion_mnist, cifar10; a folder, .npz, .npy, .csv or .parquet
    data_dir: pathlib.Path | None = None  # Of named data; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, ~/tensorflow_datasets
    test: flags.Part = 1 / 6  # Share of your own images that is held out as test images, where there are none
    resize: tuple[flags.Count, ...] | None = None  # Side in pixels, or height and width, that images are brought to
    shape: tuple[flags.Count, ...] | None = None  # Height, width, channels of a table's rows
    images_key: str | None = None  # Entry of an .npz file that holds the images; left out: found
    labels_key: str | None = None  # Entry of an .npz file, or column of a table, that holds labels; left out: found
    channels_first: bool | None = None  # Whether arrays are [n, C, H, W]; left out: recognised by their shape
    white: flags.Rate | None = None  # Value of arrays that is white; left out: recognised by their type and range
    skip_unreadable: bool = False  # Leave out files that cannot be read, instead of refusing all of them

    def splits(self) -> tuple[str, ...]:
        """Tell which splits there are: ('train', 'test') or ('train',)."""
        return data.splits_of(self.dataset, **self._how())

    def read_whole(self, split: str, console: Console | None = None) -> data.Reading:
        """Read one of the splits there are, as it lies on disk, and say what was found."""
        reading = data.read(self.dataset, split, **self._how())
        for note in reading.notes if console else ():
            console.print(f'{self.dataset}: {note}')
        return reading._replace(images=check_images(reading.images))

    def read(self, split: str, console: Console | None = None) -> data.Reading:
        """Read the 'train' or 'test' images; of your own ones without a test part, the share that is held out."""
        if 'test' in self.splits():
            return self.read_whole(split, console)
        reading = self.read_whole('train', console)
        parts = hold_out(reading.labels, len(reading.images), self.test, seed=1)
        chosen = parts[split == 'test']
        if console and len(parts[1]):
            console.print(f'{len(parts[1])} of them are held out as test images')
        labels = None if reading.labels is None else reading.labels[chosen]
        return reading._replace(images=reading.images[chosen], labels=labels)

    def of_run(self, run: 'Source') -> Self:
        """Take a run's own images, read as it read them, where no others are named."""
        own, how = self.dataset is not None, ('test', *HOW)
        given = ', '.join(flags.flag(name) for name in how if getattr(self, name) != getattr(Source, name))
        way = 'and these are read as by the run; leave it out, or name a --dataset'
        require(own or not given, f'{given} says how other images are read, {way}.')
        return self if own else dataclasses.replace(self, **{name: getattr(run, name) for name in ('dataset', *how)})

    def _how(self):
        return {name: getattr(self, name) for name in HOW} | {'data_dir': self.data_dir}

    def read_test(self) -> data.Split:
        """Read the test images, when no choice is left to make."""
        return data.Split(*self.read('test')[:2])

    def check_judged(self, train: data.Split) -> None:
        """Refuse what classifiers cannot learn from, or be judged by, before anything is trained."""
        require(train.labels is not None, f'{self.dataset} has no labels, which classifiers need.')
        require(np.ptp(train.labels) > 0, f'{self.dataset} has images of one class; classifiers tell 2 or more apart.')
        if self.dataset in data.NAMES or 'test' not in self.splits():
            return
        (images, labels), shape = self.read_test(), train.images.shape[1:]  # their form alone is looked at
        require(labels is not None, f'{self.dataset} has test images without labels, which judge nothing; add them.')
        came = f'{self.dataset} has training images of {shape} and test images of {images.shape[1:]}'
        require(images.shape[1:] == shape, f'{came}; bring them to one size by --resize.')


def hold_out(labels: Array | None, count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give what is kept and what is held out: indices; every class in proportion. Without labels all are kept."""
    if labels is None:  # nothing will be judged
        return np.arange(count), np.arange(0)
    return data.split_validation(labels, share, seed)


@dataclasses.dataclass(frozen=True)
class OnData(Source):
    """Which images are learned from."""

    images: flags.Count | None = None  # Training images used; left out: all. Fewer are for trying things out
    validation: flags.Part | None = None  # Share of the training data that choices are made on

    def resolve(self, images: Array | None = None) -> Self:
        """Fill what was left out by settings chosen for the data set, or for such images; refuse what cannot run."""
        flags.check_settings(self)
        return self

    def open(self, console: Console | None = None) -> tuple[Self, data.Split, data.Split, tuple[str, ...]]:
        """Read the training data, fill what was left out, and set the validation split aside.

        -> settings with nothing left out, images to learn from and to choose by, names of classes
        """
        is_own = self.dataset not in data.NAMES
        images, labels, names, _ = self.read('train', console)
        if self.images is not None and self.images < len(images):
            # own images may lie class by class
            order = np.random.default_rng(0).permutation(len(images)) if is_own else np.arange(len(images))
            images, labels = (None if part is None else part[order[: self.images]] for part in (images, labels))
        settings = self.resolve(images)
        if is_own:
            settings = dataclasses.replace(settings, dataset=str(pathlib.Path(self.dataset).expanduser().absolute()))
        kept, held_out = hold_out(labels, len(images), settings.validation, seed=0)
        if console and is_own and len(held_out):
            console.print(f'{len(kept)} are learned from, {len(held_out)} are for validation')
        take = lambda part, chosen: None if part is None else jax.device_put(part[chosen])  # noqa: E731
        train, validation = (data.Split(take(images, part), take(labels, part)) for part in (kept, held_out))
        return settings, train, validation, names


@dataclasses.dataclass(frozen=True)
class Krotov(OnData):
    """Settings of a Krotov-Hopfield layer."""

    network: flags.choice(*presets.TUNED) = 'cnn'  # cnn, a convolution, or dense
    epochs: flags.Count | None = None  # Hebbian epochs, over which the rate falls linearly
    features: flags.Count | None = None  # N, the number of neurons (filters)
    window: flags.CountOrZero | None = None  # Side of the filters, in pixels; 0: the whole image, a dense layer
    pool: flags.Count | None = None  # Side of the max-pooling blocks, in positions
    patches_per_image: flags.CountOrZero | None = None  # Patches drawn per image and Hebbian step; 0: all of them
    patch_transform: flags.choice(*PATCH_TRANSFORMS) | None = None  # raw, centred, l2, centred_l2 or contrast
    k: flags.Rank | None = None  # The rank that unlearns, 2 to N
    delta: flags.Amount | None = None  # Strength of the unlearning
    p: flags.NormExponent | None = None  # Exponent of the norm, above 1
    maximum: flags.choice('layer', 'unit') | None = None  # Changes are divided by the largest of the layer, or unit
    output: flags.choice(*OUTPUTS) = 'weights'  # Predict with the weights, or with effective ones: sign(w)|w|^(p-1)
    precision: flags.choice(*PRECISIONS) = 'highest'  # Of products: highest, float32x3, tensorfloat32 or bfloat16
    spread: flags.Rate | None = None  # Deviation of the first weights; 1 in the papers. Of small ones few ever win
    rate: flags.Rate | None = None  # First Hebbian rate: the largest change of any weight in a step
    batch: flags.Count | None = None  # Images per Hebbian step
    needs_images = property(lambda self: self.tuned().get('start', 'drawn') != 'drawn')  # to begin again

    def tuned(self, images: Array | None = None) -> dict:
        """Give the settings that were chosen for the data set, else for images like these; none without images."""
        known = presets.TUNED[self.network].get(self.dataset)
        if known is not None or images is None:
            return known or {}
        return presets.settings_by_size(self.network, images.shape[1:], len(images), self.window)

    def resolve(self, images: Array | None = None) -> Self:
        flags.check_settings(self)
        missing = {name: value for name, value in self.tuned(images).items() if getattr(self, name, value) is None}
        full = dataclasses.replace(self, **missing)
        require(full.k <= full.features, f'--k {full.k} is more than the {full.features} neurons; use fewer.')
        require(full.network != 'dense' or not full.window, f'--window {full.window} is not for dense; leave it out.')
        return full

    def recipe(self, count: int, images: Array | None = None) -> presets.Recipe:
        """Build the network for so many images, and say how it learns."""
        return presets.build_recipe('krotov', self.tuned() | vars(self), count)


@dataclasses.dataclass(frozen=True)
class Miconi(OnData):
    """Settings of Miconi's three layers (2021, table 1: triangle activation, pruned connections)."""

    dataset: str = 'cifar10'  # cifar10, or images of your own of about its size, see `hebbjax train cnn --help`
    validation: flags.Part = 0.1  # Share of the training data that choices are made on
    epochs: flags.Count = 20  # Hebbian epochs
    features: tuple[flags.Count, flags.Count, flags.Count] = (100, 196, 400)  # Neurons of the three layers
    batch: flags.Count = 100  # Images per step
    rate: flags.Rate = 1.0  # Factor on the published rates, 1e-4, 1e-4 and 1e-3 per patch won
    burn_in: flags.CountOrZero | None = None  # Steps in which only thresholds adapt; left out: 201, or a quarter of few
    whitening_images: flags.Count = 9000  # Images that ZCA is fitted to; its regularisation depends on their number
    needs_images = True  # for its whitening

    def recipe(self, count: int, images: Array | None = None) -> presets.Recipe:
        """Build the network for so many images, with its whitening fitted to them; without, its shapes are right."""
        return presets.build_recipe('miconi', vars(self), count, images)


def check_batch(batch: int, count: int, what: str = 'training images') -> None:
    """Refuse steps of more images than there are."""
    require(batch <= count, f'--batch {batch} is larger than the {count} {what}; use {count} at most.')


def check_fits(net: layers.Network, image_shape: tuple[int, int, int]) -> None:
    """Refuse, without drawing a weight, a network that does not fit images, or whose training memory does not hold."""
    state = jax.eval_shape(lambda key: layers.init(net, key, image_shape), jax.random.key(0))
    size, room = sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(state)), device_memory()
    what = f'a network of {size / 1e9:.3g} GB cannot learn in a memory of {room / 1e9:.3g} GB'
    require(3 * size <= room, f'{what}; use fewer --features.')  # the state, its change, and the state to come
