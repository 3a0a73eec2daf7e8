"""What every comparing job can be told: one dataclass of flags, filled from the data set's own settings."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import jax
import optax

from hebbjax import data, patches, plasticity, rules
from hebbjax.layers import PRECISIONS, Layer
from hebbjax.patches import Window
from hebbjax.supervised import Schedule

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Job:
    """Hebbian features under a trained head, beside controls.

    Every choice (epoch, rate reductions, early stopping) is made on a validation split of the training data; the test
    split is read when all networks are trained. Settings left out take the data set's own.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # data set -> settings
    ROWS: ClassVar[tuple[str, ...]] = ()  # networks that the job knows
    PAPER: ClassVar[Mapping[str, Mapping[str, float]]] = {}  # data set -> row -> percent

    dataset: str = 'digits'
    """digits (embedded), mnist, fashion_mnist or cifar10."""
    seeds: int | None = None
    """Number of seeds, 0, 1, ...; each draws weights, order and dropout anew."""
    rows: tuple[str, ...] | None = None
    """Which networks to train; left out: all."""
    epochs: int | None = None
    """Hebbian epochs, over which the rate falls linearly."""
    head_epochs: int | None = None
    """Epochs of a head at most; early stopping may end it sooner."""
    backprop_epochs: int | None = None
    """Epochs of the end-to-end twin at most."""
    backprop_seeds: int | None = None
    """Seeds of the end-to-end twin at most."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""
    json: pathlib.Path | None = None
    """File for all results, with configuration, versions and learning curves."""
    figure: pathlib.Path | None = None
    """File for a picture of the first seed's filters (png, pdf, svg)."""
    curves: pathlib.Path | None = None
    """File for a picture of accuracy over head epochs, first seed."""
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
    power: float | None = None
    """n of RePU(n)."""
    threshold: float | None = None
    """Standard deviations above its mean at which a neuron starts to send (batch norm's first shift, negated)."""
    dropout: float | None = None
    """Share of neurons silenced while a head trains."""
    head_batch: int | None = None
    """Images per gradient step."""
    head_rate: float | None = None
    """Adam's first rate."""
    head_decay: float | None = None
    """Decoupled weight decay (AdamW)."""
    head_patience: int | None = None
    """Epochs without a better validation accuracy before the rate falls to 0.3; one more than twice as many end it."""
    head_average: int | None = None
    """Steps over which a network's parameters are averaged before it is judged; 1: the last ones alone."""
    backprop_rate: float | None = None
    """Adam's first rate in the end-to-end twin."""
    validation: float | None = None
    """Share of the training data that choices are made on."""
    cache_gib: float | None = None
    """Memory that cached drives may fill; above it they are recomputed. Left out: 60 % of the device's memory."""

    def resolve(self) -> Self:
        """Fill what was left out with the data set's own settings, and refuse what cannot run.

        Raises:
            ValueError: naming the setting, its value and what would do.
        """
        data.check_name(self.dataset)
        own = {'rows': self.ROWS, **self.PRESETS[self.dataset]}
        full = dataclasses.replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})
        counts = (
            'seeds',
            'epochs',
            'head_epochs',
            'backprop_epochs',
            'batch',
            'head_batch',
            'head_average',
            'features',
        )
        refuse_idle(full, counts, ('rate', 'head_rate', 'backprop_rate', 'spread'))
        for name, known in (('rows', self.ROWS), ('patch', (*patches.PREPARATIONS,)), ('precision', (*PRECISIONS,))):
            given = getattr(full, name)
            for one in given if isinstance(given, tuple) else (given,):
                if one not in known:
                    raise ValueError(f'{flag(name)} {one} is unknown; there are {", ".join(known)}.')
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
        """Give the layer's window: the whole image, unless a job says otherwise."""
        return Window()

    def looks(self) -> int | None:
        """Give the windows drawn per image and step: all, unless a job says otherwise."""
        return None

    def blocks(self) -> int:
        """Give the side of the pooling blocks: no pooling, unless a job says otherwise."""
        return 1

    def variant(self, row: str) -> Self:
        """Give the settings of one row: the job's own, unless it says otherwise."""
        return self

    def head_schedule(self, rate: float, epochs: int) -> Schedule:
        """Give the gradient schedule at such a rate, for so many epochs."""
        patience = self.head_patience
        stop = 2 * patience + 1
        return Schedule(epochs, self.head_batch, rate, 0.3, patience, stop, self.head_decay, self.head_average)

    def as_json(self) -> dict:
        """Give all settings but the names of files, as plain JSON values."""
        return plain(self)


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


FILES = ('json', 'figure', 'figures', 'curves', 'data_dir')  # settings that say where, not what


def plain(config) -> dict:
    """Give all settings of a dataclass but the names of files, as plain JSON values."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in FILES}


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
