"""Krotov and Hopfield's dense network (2019): 2000 hidden units -> batch norm -> RePU -> linear, beside its controls.

The classifier sees drives of L2-normalised images, as the authors advise; learning sees the same.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from matplotlib.figure import Figure
from rich.console import Console

from hebbjax import visualize
from hebbjax.jobs import compare
from hebbjax.jobs.arms import Trained
from hebbjax.jobs.report import Report
from hebbjax.jobs.trial import Job

# Chosen on validation splits; experiments/RESULTS.md says how.
IMAGES = {
    'seeds': 3, 'epochs': 25, 'head_epochs': 30, 'backprop_epochs': 20, 'backprop_seeds': 1, 'features': 2000,
    'patch': 'l2', 'k': 2, 'delta': 0.4, 'p': 2.0, 'maximum': 'unit', 'spread': 1.0, 'start': 'drawn', 'rate': 0.04,
    'batch': 1000, 'power': 2.0, 'threshold': 0.0, 'dropout': 0.0, 'head_batch': 256, 'head_rate': 3e-4,
    'head_decay': 0.0, 'head_patience': 2, 'head_average': 1000, 'shift': 0, 'backprop_rate': 3e-4,
    'validation': 1 / 12,
}  # fmt: skip
MNIST = IMAGES | {
    'epochs': 5, 'start': 'patches', 'delta': 1.0, 'maximum': 'layer', 'power': 3.0, 'threshold': -1.0, 'shift': 1,
    'head_epochs': 50, 'head_rate': 1e-3, 'head_patience': 3, 'backprop_epochs': 30,
}  # fmt: skip
DIGITS = IMAGES | {
    'seeds': 5, 'backprop_seeds': 5, 'features': 100, 'batch': 100, 'head_batch': 50, 'head_rate': 3e-3,
    'backprop_rate': 3e-3, 'head_average': 1, 'validation': 1 / 6,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(Job):
    """Krotov and Hopfield's dense network, 2000 hidden units -> batch norm -> RePU -> linear, beside its controls.

    Every choice (epoch, rate reductions, early stopping) is made on a validation split of the training data; the test
    split is read when all networks are trained. Settings left out take the data set's own.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        'digits': DIGITS,
        'mnist': MNIST,
        'fashion_mnist': IMAGES,
        'cifar10': IMAGES | {'validation': 1 / 10},
    }
    ROWS: ClassVar[tuple[str, ...]] = ('raw_pixels', 'untrained', 'hebbian', 'backprop')
    PAPER: ClassVar[Mapping[str, Mapping[str, float]]] = {'mnist': {'hebbian': 98.54}}

    dataset: str = 'mnist'
    """digits (embedded), mnist, fashion_mnist or cifar10."""


def picture(config: Config, trained: Mapping[tuple[str, int], Trained], shape) -> Figure | None:
    """Draw 25 random hidden units of each network that learned, side by side (Talloen et al. 2021, figure 2)."""
    titles = {'backprop': '(a) end-to-end backprop', 'hebbian': '(b) Krotov-Hopfield'}
    banks = {title: trained[row, 0].w for row, title in titles.items() if (row, 0) in trained}
    return visualize.side_by_side(banks, shape) if banks else None


def run(config: Config, console: Console | None = None) -> Report:
    """Train every network on every seed, then read the test split, and report. See `compare.run`."""
    return compare.run(config, picture, console)
