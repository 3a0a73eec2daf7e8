"""What the convolutional job can be told, and what each data set's network is by default."""

import dataclasses
import pathlib

from hebbjax import data, patches
from hebbjax.supervised import Schedule

ROWS = ('raw_pixels', 'untrained', 'hebbian', 'backprop', 'published_setting')


@dataclasses.dataclass(frozen=True)
class Config:
    """Hebbian convolution -> batch norm -> RePU -> max pool -> linear, beside its controls.

    Every choice (epoch, rate reductions, early stopping) is made on a validation split of the training data; the test
    split is read once, when all networks are trained. Settings left out take the data set's own.
    """

    dataset: str = 'digits'
    """digits (embedded), mnist, fashion_mnist or cifar10."""
    seeds: int | None = None
    """Number of seeds, 0, 1, ...; each draws weights, order and dropout anew."""
    rows: tuple[str, ...] = ROWS
    """Which networks to train."""
    epochs: int | None = None
    """Hebbian epochs, over which the rate falls linearly."""
    head_epochs: int | None = None
    """Epochs of the head at most; early stopping may end it sooner."""
    backprop_epochs: int | None = None
    """Epochs of the end-to-end twin at most."""
    backprop_seeds: int | None = None
    """Seeds of the end-to-end twin."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""
    json: pathlib.Path | None = None
    """File for all results, with configuration, versions and learning curves."""
    figure: pathlib.Path | None = None
    """File for a picture of the first seed's learned filters (png, pdf, svg)."""
    curves: pathlib.Path | None = None
    """File for a picture of accuracy over head epochs, first seed."""
    filters: int | None = None
    """N, the number of filters."""
    window: int | None = None
    """Side of the filters, in pixels."""
    pool: int | None = None
    """Side of the max-pooling blocks, in positions."""
    patch: str | None = None
    """Patches are raw, centred, l2 or centred_l2, in learning and prediction alike."""
    k: int | None = None
    """The rank that unlearns, 2 to N."""
    delta: float | None = None
    """Strength of the unlearning."""
    p: float | None = None
    """Exponent of the norm, above 1."""
    maximum: str = 'layer'
    """Changes are divided by the largest of the layer or of each unit."""
    send: str = 'weights'
    """Predict with the weights, or with what the rule has seen: sign(w)|w|^(p-1)."""
    rate: float | None = None
    """First Hebbian rate: the largest change of any weight in a step."""
    batch: int | None = None
    """Images per Hebbian step."""
    glimpses: int | None = None
    """Patches drawn per image and step; 0: all of them."""
    power: float | None = None
    """n of RePU(n)."""
    dropout: float | None = None
    """Share of maps silenced while the head trains."""
    head_batch: int | None = None
    """Images per gradient step."""
    head_rate: float | None = None
    """Adam's first rate."""
    head_decay: float | None = None
    """Decoupled weight decay of the head."""
    head_patience: int | None = None
    """Epochs without a better validation accuracy before the rate is halved; three times as many end training."""
    validation: float | None = None
    """Share of the training data that choices are made on."""
    cache_gib: float | None = None
    """Memory that cached drives may fill; above it they are recomputed. Default: 60 % of the device's memory."""

    def head_schedule(self, epochs: int) -> Schedule:
        """Give the gradient schedule of so many epochs."""
        patience = self.head_patience
        return Schedule(epochs, self.head_batch, self.head_rate, 0.5, patience, 3 * patience, self.head_decay)


# Chosen on validation splits; experiments/RESULTS.md says how. published_setting replaces patch, k, delta, p.
PUBLISHED = {'patch': 'raw', 'k': 4, 'delta': 0.4, 'p': 4.0}
_IMAGES = {
    'seeds': 3, 'epochs': 200, 'head_epochs': 20, 'backprop_epochs': 15, 'backprop_seeds': 1, 'filters': 400,
    'window': 5, 'pool': 2, 'patch': 'centred_l2', 'k': 2, 'delta': 0.4, 'p': 2.0, 'rate': 0.04, 'batch': 1000,
    'glimpses': 1, 'power': 2.0, 'dropout': 0.0, 'head_batch': 256, 'head_rate': 3e-4, 'head_decay': 0.0,
    'head_patience': 2, 'validation': 1 / 12,
}  # fmt: skip
PRESETS = {
    'digits': _IMAGES | {
        'seeds': 5, 'epochs': 60, 'head_epochs': 60, 'backprop_epochs': 60, 'backprop_seeds': 5, 'filters': 8,
        'window': 3, 'batch': 100, 'glimpses': 8, 'power': 1.0, 'head_batch': 50, 'head_rate': 3e-3,
        'head_patience': 5, 'validation': 1 / 6,
    },
    'mnist': _IMAGES,
    'fashion_mnist': _IMAGES,
    'cifar10': _IMAGES | {'pool': 4, 'validation': 1 / 10},
}  # fmt: skip


def resolve(config: Config) -> Config:
    """Fill what was left out with the data set's own settings, and refuse what cannot run.

    Raises:
        ValueError: naming the setting, its value and what would do.
    """
    data.check_name(config.dataset)
    preset = {name: value for name, value in PRESETS[config.dataset].items() if getattr(config, name) is None}
    config = dataclasses.replace(config, **preset)
    for name in ('seeds', 'epochs', 'head_epochs', 'backprop_epochs', 'backprop_seeds', 'batch'):
        if getattr(config, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} {getattr(config, name)} trains nothing; use 1 or more.')
    for name in ('rate', 'head_rate'):
        if not getattr(config, name) > 0:
            raise ValueError(f'--{name.replace("_", "-")} {getattr(config, name)} learns nothing; use a rate above 0.')
    unknown = [row for row in config.rows if row not in ROWS]
    if unknown:
        raise ValueError(f'--rows {unknown[0]} is unknown; there are {", ".join(ROWS)}.')
    if config.patch not in patches.PREPARATIONS:
        raise ValueError(f'--patch {config.patch} is unknown; there are {", ".join(patches.PREPARATIONS)}.')
    return config
