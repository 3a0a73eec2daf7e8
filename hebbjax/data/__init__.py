"""Data sets as arrays, by name; whitening and augmentation. `download` prepares what `load` reads."""

from hebbjax.data.augmentation import random_flip, random_shift
from hebbjax.data.datasets import NAMES, Split, digest, load, split_validation
from hebbjax.data.whitening import WHITENING_SETTINGS, Whitening, fit_whitening, whiten

__all__ = [
    'NAMES', 'WHITENING_SETTINGS', 'Split', 'Whitening', 'digest', 'fit_whitening', 'load', 'random_flip',
    'random_shift', 'split_validation', 'whiten',
]  # fmt: skip
