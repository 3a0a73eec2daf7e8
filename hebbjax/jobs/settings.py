"""What a layer and its data can be told, as flags: dataclasses, filled from the data set's own settings."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import jax
import optax

from hebbjax import data, patches, plasticity, rules
from hebbjax.layers import PRECISIONS, Layer
from hebbjax.patches import Window


@dataclasses.dataclass(frozen=True)
class Hebbian:
    """What a Krotov-Hopfield layer and its data can be told. Settings left out take the data set's own."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # data set -> settings

    dataset: str = 'digits'
    """digits (embedded), mnist, fashion_mnist or cifar10."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""
    epochs: int | None = None
    """Hebbian epochs, over which the rate falls linearly."""
    features: int | None = None
    """N, the number of neurons (filters)."""
    patch: str | None = None
    """Patches are raw, centred, l2, centred_l2 or contrast (softly normalised), in learning and prediction alike."""
    k: int | None = None
    """The rank that unlearns, 2 to N."""
    delta: float | None = None
    """Strength of the unlearning."""
    p: float | None = None
    """Exponent of the norm, above 1."""
    maximum: str | None = None
    """Changes are divided by the largest of the layer, or of each unit."""
    send: str = 'weights'
    """Predict with the weights, or with what the rule has seen: sign(w)|w|^(p-1)."""
    precision: str = 'highest'
    """Of the drives' product: highest (float32), tensorfloat32, or bfloat16 operands with float32 sums."""
    spread: float | None = None
    """Standard deviation of the first weights; the papers' is 1. Small ones let the first winners win everything."""
    rate: float | None = None
    """First Hebbian rate: the largest change of any weight in a step."""
    batch: int | None = None
    """Images per Hebbian step."""
    validation: float | None = None
    """Share of the training data that choices are made on."""

    COUNTS: ClassVar[tuple[str, ...]] = ('epochs', 'batch', 'features')  # at least 1
    RATES: ClassVar[tuple[str, ...]] = ('rate', 'spread')  # above 0

    def resolve(self) -> Self:
        """Fill what was left out with the data set's own settings, and refuse what cannot run.

        Raises:
            ValueError: naming the setting, its value and what would do.
        """
        data.check_name(self.dataset)
        mine = {field.name for field in dataclasses.fields(self)}
        own = {name: value for name, value in self.PRESETS[self.dataset].items() if name in mine}
        full = dataclasses.replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})
        refuse_idle(full, self.COUNTS, self.RATES)
        refuse_unknown('patch', full.patch, patches.PREPARATIONS)
        refuse_unknown('send', full.send, ('weights', 'seen'))
        refuse_unknown('precision', full.precision, PRECISIONS)
        if not math.isfinite(full.delta):
            raise ValueError(f'--delta {full.delta} is no strength; use a number, 0 or more.')
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

    window: int | None = None
    """Side of the filters, in pixels."""
    pool: int | None = None
    """Side of the max-pooling blocks, in positions."""
    glimpses: int | None = None
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


FILES = ('json', 'figure', 'figures', 'curves', 'markdown', 'data_dir', 'run')  # settings that say where, not what


def plain(config) -> dict:
    """Give all settings of a dataclass but the names of files, as plain JSON values."""
    found = {name: value for name, value in dataclasses.asdict(config).items() if name not in FILES}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def refuse_idle(config, counts: Iterable[str], rates: Iterable[str]) -> None:
    """Refuse counts below 1 (None is left alone) and rates that are not above 0.

    Raises:
        ValueError: naming the setting, its value and what would do.
    """
    for name in counts:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f'{flag(name)} {value} trains nothing; use 1 or more.')
    for name in rates:
        if not getattr(config, name) > 0:
            raise ValueError(f'{flag(name)} {getattr(config, name)} learns nothing; use a number above 0.')


def flag(name: str) -> str:
    """Give a setting as it is written on the command line."""
    return '--' + name.replace('_', '-')


def refuse_unknown(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is none of those that are known.

    Raises:
        ValueError: naming the setting, its value and what there is.
    """
    if value not in (known := tuple(known)):
        raise ValueError(f'{flag(name)} {value} is unknown; there are {", ".join(known)}.')
