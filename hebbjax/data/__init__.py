"""Data sets as arrays, by name or one's own; whitening and augmentation. `download` prepares the named ones."""

from hebbjax.data.augmentation import random_flip, random_shift
from hebbjax.data.datasets import NAMES, digest, labelled_subset, load, read, split_validation, splits_of
from hebbjax.data.forms import Reading, part_of
from hebbjax.data.shards import open_shards
from hebbjax.data.whitening import WHITENING_SETTINGS, Whitening, fit_whitening, whiten
from hebbjax.support.shards import Shards, Split

__all__ = [
    'NAMES', 'WHITENING_SETTINGS', 'Reading', 'Shards', 'Split', 'Whitening', 'digest', 'fit_whitening',
    'labelled_subset', 'load', 'open_shards', 'part_of', 'random_flip', 'random_shift', 'read', 'split_validation',
    'splits_of', 'whiten',
]  # fmt: skip
