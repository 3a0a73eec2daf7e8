"""CIFAR-10 as Amato et al. had it: split by key, normalised per channel, whitened where asked for."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from hebbjax import checks, data, frozen, whitening
from hebbjax.jobs import deep
from hebbjax.jobs.deep import Data
from hebbjax.types import Array

HELD_OUT = 0.2  # of the training images: 10,000 of 50,000, by which epochs are chosen
FEWEST = 100  # images to learn and choose from: 80 of them fill a batch


class Material:
    """CIFAR-10, split by key, normalised per channel, whitened where asked for; made when first asked for."""

    def __init__(self, subset: int | None, data_dir: pathlib.Path | None):
        """Read the training images.

        Args:
            subset: how many to use, those to choose by among them; None: all.
            data_dir: where prepared data lies.

        Raises:
            ValueError: if the subset does not leave a batch to learn from.
            OSError: if they cannot be read.
        """
        self.data_dir, self.held = data_dir, {}
        whole = data.load('cifar10', 'train', data_dir=data_dir)
        data.check_images(whole.images)
        checks.check_labels(whole.labels, deep.CLASSES, len(whole.images))
        count = len(whole.images) if subset is None else subset
        if not FEWEST <= count <= len(whole.images):
            raise ValueError(f'--subset {count} does not fit {len(whole.images)} images; use {FEWEST} to that many.')
        order = np.asarray(jax.random.permutation(jax.random.key(0), len(whole.images)))
        held = round(HELD_OUT * len(order))  # the last of the order, whatever the subset
        own, others = order[:-held], order[-held:]
        self.share = count / len(order)
        own, others = own[: round(self.share * len(own))], others[: round(self.share * held)]
        self.splits = [data.Split(whole.images[chosen], whole.labels[chosen]) for chosen in (own, others)]
        pixels = self.splits[0].images.reshape(-1, whole.images.shape[-1])
        self.mean, self.std = (getattr(pixels, name)(0, dtype=np.float64) / 255 for name in ('mean', 'std'))

    @property
    def digest(self) -> str:
        """Tell these images from others."""
        return data.digest(*(part for split in self.splits for part in split))

    def normalised(self, images: np.ndarray) -> Array:
        """Give every channel mean 0 and variance 1, by the training images'."""
        as_floats = images.astype(np.float32) / 255
        return jnp.asarray((as_floats - self.mean.astype(np.float32)) / self.std.astype(np.float32))

    @functools.cached_property
    def zca(self) -> whitening.Whitening:
        """Fit the authors' whitening to the normalised training images."""
        return whitening.fit(self.normalised(self.splits[0].images), **whitening.RECIPES['amato'])

    def prepared(self, split: data.Split, whiten: bool) -> Data:
        """Prepare a split."""
        images = self.normalised(split.images)
        return Data(in_blocks(self.zca, images) if whiten else images, jnp.asarray(split.labels))

    def sides(self, whiten: bool) -> tuple[Data, Data]:
        """Give the images to learn from, and those to choose by; those of one kind are held at a time."""
        if whiten not in self.held:
            self.held = {whiten: tuple(self.prepared(split, whiten) for split in self.splits)}
        return self.held[whiten]

    def test(self, whiten: bool) -> Data:
        """Give the test images."""
        split = data.load('cifar10', 'test', data_dir=self.data_dir)
        count = round(self.share * len(split.images))
        return self.prepared(data.Split(split.images[:count], split.labels[:count]), whiten)


@jax.jit
def in_blocks(zca: whitening.Whitening, images: Array) -> Array:
    """Whiten images, some at a time."""
    return frozen.blockwise(lambda some: whitening.apply(zca, some), images, 500)
