"""Networks, their settings as flags; those left out were chosen on validation splits (experiments/RESULTS.md)."""

import dataclasses
import functools
import math
import pathlib
from typing import Self

import jax
import jax.numpy as jnp
import optax

from hebbjax import data, layers, rules, transforms
from hebbjax.base import Array
from hebbjax.cli import flags
from hebbjax.layers import Layer, Window
from hebbjax.layers.initializers import pruned
from hebbjax.layers.layer import OUTPUTS, PRECISIONS
from hebbjax.layers.patches import PATCH_TRANSFORMS
from hebbjax.readout import Schedule
from hebbjax.support.checks import check_images, device_memory, require

# of schedules: epochs, batch, rate, its factor after so many epochs without a better accuracy, epochs that end training
CNN = {
    'seeds': 3, 'epochs': 300, 'backprop_seeds': 1, 'features': 400, 'window': 5, 'pool': 4, 'k': 2, 'delta': 0.4,
    'p': 2.0, 'patch_transform': 'centred_l2', 'maximum': 'layer', 'spread': 1.0, 'start': 'drawn', 'rate': 0.04,
    'batch': 1000, 'patches_per_image': 1, 'power': 1.0, 'threshold': 1.5, 'shift': 0, 'validation': 1 / 12,
    'head': Schedule(20, 256, 1e-3, 0.3, 2, 5, average=1000), 'twin': Schedule(15, 256, 3e-4, 0.3, 2, 5),
}  # fmt: skip
DENSE = CNN | {
    'epochs': 25, 'features': 2000, 'window': 0, 'pool': 1, 'patch_transform': 'l2', 'maximum': 'unit', 'power': 2.0,
    'patches_per_image': 0, 'threshold': 0.0, 'head': Schedule(30, 256, 3e-4, 0.3, 2, 5, average=1000),
    'twin': Schedule(20, 256, 3e-4, 0.3, 2, 5),
}  # fmt: skip
DIGITS, CIFAR10 = {'seeds': 5, 'backprop_seeds': 5, 'batch': 100, 'validation': 1 / 6}, {'validation': 1 / 10}
CNN_DIGITS = CNN | DIGITS | {
    'epochs': 60, 'features': 32, 'window': 6, 'pool': 3, 'patch_transform': 'contrast', 'patches_per_image': 8,
    'threshold': 0.0, 'head': Schedule(60, 50, 1e-2, 0.3, 5, 11), 'twin': Schedule(60, 50, 3e-3, 0.3, 5, 11),
}  # fmt: skip
DENSE_DIGITS = DENSE | DIGITS | {
    'features': 100, 'head': Schedule(30, 50, 3e-3, 0.3, 2, 5), 'twin': Schedule(20, 50, 3e-3, 0.3, 2, 5),
}  # fmt: skip
DENSE_MNIST = DENSE | {
    'epochs': 5, 'start': 'patches', 'delta': 1.0, 'maximum': 'layer', 'power': 3.0, 'threshold': -1.0, 'shift': 1,
    'head': Schedule(50, 256, 1e-3, 0.3, 3, 7, average=1000), 'twin': Schedule(30, 256, 3e-4, 0.3, 3, 7),
}  # fmt: skip
TUNED = {
    'cnn': {'digits': CNN_DIGITS, 'mnist': CNN, 'fashion_mnist': CNN, 'cifar10': CNN | CIFAR10},
    'dense': {'digits': DENSE_DIGITS, 'mnist': DENSE_MNIST, 'fashion_mnist': DENSE, 'cifar10': DENSE | CIFAR10},
}


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
        """Build the layer for `count` training images: the rule, one maximum, a rate that falls over the epochs."""
        rate = transforms.linear_by_epoch(self.rate, self.epochs, count // self.batch)
        tx = optax.chain(transforms.scale_by_max_abs(self.maximum), transforms.scale_by_rate(rate))
        rule, init = rules.krotov(self.k, self.delta, self.p), jax.nn.initializers.normal(self.spread)
        how = {'patch_transform': PATCH_TRANSFORMS[self.patch_transform], 'post': post, 'init': init}
        how |= {'output': self.output, 'patches_per_image': self.patches_per_image or None, 'precision': self.precision}
        return Layer(self.features, rule, tx, Window(self.window or None), **how)

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
        steps, first = self.epochs * (count // self.batch), ()
        require(self.burn_in < steps, f'--burn-in {self.burn_in} leaves nothing of {steps} steps to learn in.')
        if images is not None:  # in equal steps, as the authors' notebook does
            images = images[:: max(1, len(images) // self.whitening_images)][: self.whitening_images]
            images = layers.standardise(layers.to_intensities(images))
            whitening = data.fit_whitening(images, **data.WHITENING_SETTINGS['miconi_notebook'])
            first = functools.partial(data.whiten, whitening), layers.standardise
        net, rule = [], rules.instar(1, reduce=rules.sum_over_patches)
        post, homeostasis = (layers.triangle, layers.avg_pool(2)), layers.Homeostasis(winners=1)
        how = {'patch_transform': layers.raw, 'post': post, 'homeostasis': homeostasis}
        published = zip(self.features, (5, 3, 3), (1e-4, 1e-4, 1e-3), (1.0, 0.01, 0.01), (first, (), ()))
        for features, size, rate, density, white in published:
            rates = optax.constant_schedule(0.0), optax.constant_schedule(self.rate * rate)
            step = transforms.scale_by_rate(optax.join_schedules(rates, [self.burn_in]))
            tx = optax.chain(step, transforms.keep_pruned(), transforms.project_unit_rows())
            window, pre = Window(size), (layers.standardise, *white)
            net.append(Layer(features, rule, tx, window, pre=pre, init=pruned(density), **how))
        return tuple(net)


def check_fits(net: layers.Network, image_shape: tuple[int, int, int]) -> None:
    """Refuse, without drawing a weight, a network that does not fit images, or whose training memory does not hold."""
    state = jax.eval_shape(lambda key: layers.init(net, key, image_shape), jax.random.key(0))
    size, room = sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(state)), device_memory()
    what = f'a network of {size / 1e9:.3g} GB cannot learn in a memory of {room / 1e9:.3g} GB'
    require(3 * size <= room, f'{what}; use fewer --features.')  # the state, its change, and the state to come
