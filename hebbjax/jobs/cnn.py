"""The main job: one Hebbian convolution -> batch norm -> RePU -> max pool -> linear (Talloen et al. 2021, section 5).

Rows: raw_pixels (a linear head without any features), untrained (the same network, filters as drawn), hebbian,
backprop (the same network end to end, a plain convolution), published_setting (the paper's p, k, delta, raw patches).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from hebbjax import visualize
from hebbjax.jobs import compare
from hebbjax.jobs.arms import Trained
from hebbjax.jobs.report import Report
from hebbjax.jobs.settings import Convolution
from hebbjax.jobs.trial import Job

# Chosen on validation splits; experiments/RESULTS.md says how.
IMAGES = {
    'seeds': 3, 'epochs': 300, 'head_epochs': 20, 'backprop_epochs': 15, 'backprop_seeds': 1, 'features': 400,
    'window': 5, 'pool': 4, 'patch': 'centred_l2', 'k': 2, 'delta': 0.4, 'p': 2.0, 'maximum': 'layer', 'spread': 1.0,
    'start': 'drawn', 'rate': 0.04, 'batch': 1000, 'glimpses': 1, 'power': 1.0, 'threshold': 1.5, 'dropout': 0.0,
    'head_batch': 256, 'head_rate': 1e-3, 'head_decay': 0.0, 'head_patience': 2, 'head_average': 1000, 'shift': 0,
    'backprop_rate': 3e-4, 'validation': 1 / 12,
}  # fmt: skip
DIGITS = IMAGES | {
    'seeds': 5, 'epochs': 60, 'head_epochs': 60, 'backprop_epochs': 60, 'backprop_seeds': 5, 'features': 32,
    'window': 6, 'pool': 3, 'patch': 'contrast', 'threshold': 0.0, 'batch': 100, 'glimpses': 8, 'head_batch': 50,
    'head_rate': 1e-2, 'backprop_rate': 3e-3, 'head_patience': 5, 'head_average': 1, 'validation': 1 / 6,
}  # fmt: skip
PUBLISHED = {'patch': 'raw', 'k': 4, 'delta': 0.4, 'p': 4.0}


@dataclasses.dataclass(frozen=True)
class Config(Job, Convolution):
    """Hebbian convolution -> batch norm -> RePU -> max pool -> linear, beside its controls.

    Every choice (epoch, rate reductions, early stopping) is made on a validation split of the training data; the test
    split is read when all networks are trained. Settings left out take the data set's own.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        'digits': DIGITS,
        'mnist': IMAGES,
        'fashion_mnist': IMAGES,
        'cifar10': IMAGES | {'pool': 4, 'validation': 1 / 10},
    }
    ROWS: ClassVar[tuple[str, ...]] = ('raw_pixels', 'untrained', 'hebbian', 'backprop', 'published_setting')
    PAPER: ClassVar[Mapping[str, Mapping[str, float]]] = {'fashion_mnist': {'hebbian': 91.44, 'backprop': 91.94}}

    def variant(self, row: str) -> Job:
        """Give the settings of one row."""
        return dataclasses.replace(self, **PUBLISHED) if row == 'published_setting' else self


def picture(config: Config, trained: Mapping[tuple[str, int], Trained], shape) -> Figure | None:
    """Draw the filters that the first seed learned."""
    if ('hebbian', 0) not in trained:
        return None
    title = f'{config.dataset}: {config.features} Hebbian filters'
    w = np.asarray(trained['hebbian', 0].w)
    return visualize.filters(w, (config.window, config.window, shape[2]), title=title)


def run(config: Config, console: Console | None = None) -> Report:
    """Train every network on every seed, then read the test split, and report. See `compare.run`."""
    return compare.run(config, picture, console)
