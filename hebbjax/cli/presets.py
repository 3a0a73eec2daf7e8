"""Networks, their settings as flags; those left out were chosen on validation splits (experiments/RESULTS.md)."""

import dataclasses
import math
import pathlib
from typing import Self

import jax
import jax.numpy as jnp

from hebbjax import data, layers
from hebbjax.base import Array
from hebbjax.cli import flags
from hebbjax.layers import Layer
from hebbjax.layers.layer import OUTPUTS, PRECISIONS
from hebbjax.layers.patches import PATCH_TRANSFORMS
from hebbjax.support.checks import check_images, device_memory, require
from hebbjax.training.presets import TUNED, krotov_layer, miconi_network


@dataclasses.dataclass(frozen=True)
class OnData:
    """Which images are learned from."""

    dataset: flags.choice(*data.NAMES) = 'digits'  # digits (embedded), mnist, fashion_mnist or cifar10
    data_dir: pathlib.Path | None = None  # Where it lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, ~/tensorflow_datasets
    images: flags.Count | None = None  # Training images used; left out: all. Fewer are for trying things out
    validation: flags.Part | None = None  # Share of the training data that choices are made on

    def resolve(self) -> Self:
        """Fill what was left out with the settings chosen for the data set, and refuse what cannot run."""
        flags.check_settings(self)
        return self

    def load(self, split: str) -> data.Split:
        """Load and check a split; 'test' when no choice is left to make."""
        images, labels = data.load(self.dataset, split, data_dir=self.data_dir)
        return data.Split(check_images(images), labels)

    def load_training(self) -> list[data.Split]:
        """Load the training data, and set the validation split aside."""
        images, labels = (part[: self.images] for part in self.load('train'))
        parts = data.split_validation(labels, self.validation, seed=0)
        count = len(parts[0])
        require(self.batch <= count, f'--batch {self.batch} is larger than the {count} training images; use fewer.')
        return [data.Split(jnp.asarray(images[part]), jnp.asarray(labels[part])) for part in parts]


@dataclasses.dataclass(frozen=True)
class Krotov(OnData):
    """Settings of a Krotov-Hopfield layer."""

    network: flags.choice(*TUNED) = 'cnn'  # cnn, a convolution, or dense
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
    precision: flags.choice(*PRECISIONS) = 'highest'  # Of drives: highest (float32), tensorfloat32 or bfloat16
    spread: flags.Rate | None = None  # Deviation of the first weights; 1 in the papers. Of small ones few ever win
    rate: flags.Rate | None = None  # First Hebbian rate: the largest change of any weight in a step
    batch: flags.Count | None = None  # Images per Hebbian step
    augment = None

    def resolve(self) -> Self:
        flags.check_settings(self)
        preset = TUNED[self.network][self.dataset]
        missing = {name: value for name, value in preset.items() if getattr(self, name, value) is None}
        full = dataclasses.replace(self, **missing)
        require(full.k <= full.features, f'--k {full.k} is more than the {full.features} neurons; use fewer.')
        return full

    def layer(self, count: int, post: tuple) -> Layer:
        """Build the layer for `count` training images."""
        names = 'features', 'window', 'k', 'delta', 'p', 'patch_transform', 'maximum', 'spread', 'rate'
        names += 'patches_per_image', 'output', 'precision'
        settings = {name: getattr(self, name) for name in names}
        return krotov_layer(self.epochs, count // self.batch, post=post, **settings)

    def net(self, count: int, images: Array | None = None) -> layers.Network:
        """Build the network for so many images."""
        pool = () if self.pool == 1 else (layers.max_pool(self.pool),)
        return (self.layer(count, (layers.relu, *pool)),)


@dataclasses.dataclass(frozen=True)
class Miconi(OnData):
    """Settings of Miconi's three layers (2021, table 1: triangle activation, pruned connections)."""

    dataset: flags.choice(*data.NAMES) = 'cifar10'  # cifar10, or another with images of about its size
    validation: flags.Part = 0.1  # Share of the training data that choices are made on
    epochs: flags.Count = 20  # Hebbian epochs
    features: tuple[flags.Count, flags.Count, flags.Count] = (100, 196, 400)  # Neurons of the three layers
    batch: flags.Count = 100  # Images per step
    rate: flags.Rate = 1.0  # Factor on the published rates, 1e-4, 1e-4 and 1e-3 per patch won
    burn_in: flags.CountOrZero = 201  # Steps in which only thresholds adapt
    whitening_images: flags.Count = 9000  # Images that ZCA is fitted to; its regularisation depends on their number
    augment = staticmethod(data.random_flip)

    def net(self, count: int, images: Array | None = None) -> layers.Network:
        """Build the network for so many images, with its whitening fitted to them; without, its shapes are right."""
        steps = self.epochs * (count // self.batch)
        require(self.burn_in < steps, f'--burn-in {self.burn_in} leaves nothing of {steps} steps to learn in.')
        names = 'features', 'rate', 'burn_in', 'whitening_images'
        return miconi_network(steps, images, **{name: getattr(self, name) for name in names})


def check_fits(net: layers.Network, image_shape: tuple[int, int, int]) -> None:
    """Refuse, without drawing a weight, a network that does not fit images, or whose training memory does not hold."""
    state = jax.eval_shape(lambda key: layers.init(net, key, image_shape), jax.random.key(0))
    size, room = sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(state)), device_memory()
    what = f'a network of {size / 1e9:.3g} GB cannot learn in a memory of {room / 1e9:.3g} GB'
    require(3 * size <= room, f'{what}; use fewer --features.')  # the state, its change, and the state to come
