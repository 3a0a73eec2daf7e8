"""What a layer and its data can be told, as flags: dataclasses, filled from the data set's own settings."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import jax
import optax

from hebbjax import chunks, data, patches, plasticity, rules, train
from hebbjax.jobs.schema import Amount, Count, CountOrZero, NormExponent, Part, Rank, Rate, check_settings, flag, shown
from hebbjax.layers import PRECISIONS, Layer
from hebbjax.patches import Window
from hebbjax.train import Network


@dataclasses.dataclass(frozen=True)
class Hebbian:
    """What a Krotov-Hopfield layer and its data can be told. Settings left out take the data set's own."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # data set -> settings

    dataset: str = 'digits'
    """digits (embedded), mnist, fashion_mnist or cifar10."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""
    epochs: Count | None = None
    """Hebbian epochs, over which the rate falls linearly."""
    features: Count | None = None
    """N, the number of neurons (filters)."""
    patch: str | None = None
    """Patches are raw, centred, l2, centred_l2 or contrast (softly normalised), in learning and prediction alike."""
    k: Rank | None = None
    """The rank that unlearns, 2 to N."""
    delta: Amount | None = None
    """Strength of the unlearning."""
    p: NormExponent | None = None
    """Exponent of the norm, above 1."""
    maximum: str | None = None
    """Changes are divided by the largest of the layer, or of each unit."""
    send: str = 'weights'
    """Predict with the weights, or with what the rule has seen: sign(w)|w|^(p-1)."""
    precision: str = 'highest'
    """Of the drives' product: highest (float32), tensorfloat32, or bfloat16 operands with float32 sums."""
    spread: Rate | None = None
    """Standard deviation of the first weights; the papers' is 1. Small ones let the first winners win everything."""
    rate: Rate | None = None
    """First Hebbian rate: the largest change of any weight in a step."""
    batch: Count | None = None
    """Images per Hebbian step."""
    validation: Part | None = None
    """Share of the training data that choices are made on."""

    def resolve(self) -> Self:
        """Fill what was left out with the data set's own settings, and refuse what cannot run.

        Raises:
            ValueError: naming the setting, its value and what would do.
        """
        data.check_name(self.dataset)
        mine = {field.name for field in dataclasses.fields(self)}
        own = {name: value for name, value in self.PRESETS[self.dataset].items() if name in mine}
        full = dataclasses.replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})
        check_settings(full)
        refuse_unknown('patch', full.patch, patches.PREPARATIONS)
        refuse_unknown('maximum', full.maximum, ('layer', 'unit'))
        refuse_unknown('send', full.send, ('weights', 'seen'))
        refuse_unknown('precision', full.precision, PRECISIONS)
        if full.k > full.features:
            raise ValueError(f'--k {full.k} is more than the {full.features} neurons that compete; use 2 to N.')
        return full

    def layer(self, count: int) -> Layer:
        """Build the layer for `count` training images.

        Raises:
            ValueError: if a batch is larger than the data, or a setting is out of its range.
        """
        if self.batch > count:
            raise ValueError(f'--batch {self.batch} is larger than the {count} training images; use {count} at most.')
        return krotov_layer(
            self.features, self.k, self.delta, self.p, self.maximum, self.spread, self.rate, self.epochs,
            count // self.batch, self.seen_through(), self.patch, self.looks(), self.send, self.precision,
        )  # fmt: skip

    def seen_through(self) -> Window:
        """Give the layer's window: the whole image, unless it is a convolution."""
        return Window()

    def looks(self) -> int | None:
        """Give the windows drawn per image and step: all, unless it is a convolution that says otherwise."""
        return None

    def blocks(self) -> int:
        """Give the side of the pooling blocks: no pooling, unless it is a convolution."""
        return 1

    def as_json(self) -> dict:
        """Give all settings but the names of files, as plain JSON values."""
        return plain(self)


@dataclasses.dataclass(frozen=True)
class Convolution(Hebbian):
    """What a convolutional layer can be told beside."""

    window: Count | None = None
    """Side of the filters, in pixels."""
    pool: Count | None = None
    """Side of the max-pooling blocks, in positions."""
    glimpses: CountOrZero | None = None
    """Patches drawn per image and Hebbian step; 0: all of them."""

    def seen_through(self) -> Window:
        """Give the window of a filter."""
        return Window(self.window)

    def looks(self) -> int | None:
        """Give the windows drawn per image and step; None: all."""
        return self.glimpses or None

    def blocks(self) -> int:
        """Give the side of the pooling blocks."""
        return self.pool


@functools.lru_cache(maxsize=64)  # the same settings give the same layer, so that its programs are compiled once
def krotov_layer(
    features, k, delta, p, maximum, spread, rate, epochs, steps, window, patch, glimpses, send, precision
) -> Layer:  # fmt: skip
    """Build a Krotov-Hopfield layer: the rule, one maximum, a rate that falls linearly over the epochs."""
    tx = optax.chain(plasticity.scale_by_max_abs(maximum), plasticity.ascend(plasticity.anneal(rate, epochs, steps)))
    return Layer(
        features,
        rules.krotov(k, delta, p),
        tx,
        window,
        patches.PREPARATIONS[patch],
        glimpses,
        send,
        precision=precision,
        initial=lambda key, shape: spread * jax.random.normal(key, shape),
    )


COPIES = 3  # of a state that learning holds at once: it, its change, and the state to come
FILES = ('json', 'figure', 'figures', 'curves', 'markdown', 'data_dir', 'run')  # settings that say where, not what


def plain(config) -> dict:
    """Give all settings of a dataclass but the names of files, as plain JSON values."""
    found = {name: value for name, value in dataclasses.asdict(config).items() if name not in FILES}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def refuse_larger_than_memory(net: Network, image_shape: tuple[int, int, int]) -> None:
    """Refuse, without drawing a weight, a network that does not fit images, or that memory does not hold.

    Raises:
        ValueError: naming what does not fit.
    """
    state = jax.eval_shape(functools.partial(train.init, tuple(net), image_shape=image_shape), jax.random.key(0))
    size = sum(math.prod(leaf.shape) * 4 for leaf in jax.tree.leaves(state))
    if COPIES * size > chunks.memory():
        raise ValueError(
            f'a network of {size / 1e9:.3g} GB cannot learn in a memory of {chunks.memory() / 1e9:.3g} GB; use fewer '
            '--features.'
        )


def refuse_unknown(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is none of those that are known.

    Raises:
        ValueError: naming the setting, its value and what there is.
    """
    if value not in (known := tuple(known)):
        raise ValueError(f'{flag(name)} {shown(value)} is unknown; there are {", ".join(known)}.')
