"""hebbjax: Hebbian, backprop-free feature learning in JAX. Pure functions, explicit keys, plain pytrees.

Packages, each standing on those before it: `data` (sets, whitening, augmentation), `rules` (who learns and what),
`layers` (windows, what stands around the synapses, networks), `readout` (ridge regression, heads and layers trained by
gradient, probes), `plots`, `training` (steps, the loop, checkpoints), `interop` (flax, torch, scikit-learn, exports),
`learned` (rules found by gradient through trainings).
`transforms` turns a rule's change into a step of the weights, `diagnostics` tells whether a bank of neurons is well.
"""

import importlib.metadata as _metadata

from hebbjax import diagnostics, layers, rules, transforms
from hebbjax.base import Credit, LearningRule, StepInfo, UpdateStats
from hebbjax.layers import Homeostasis, Lateral, Layer, LayerState, TrainState, Window, features, init
from hebbjax.training.epoch import make_train_epoch
from hebbjax.training.step import make_train_step, train_step

try:
    __version__ = _metadata.version('hebbjax')
except _metadata.PackageNotFoundError:  # sources that nobody installed
    __version__ = '0+unknown'

__all__ = [
    'Credit', 'Homeostasis', 'Lateral', 'Layer', 'LayerState', 'LearningRule', 'StepInfo', 'TrainState', 'UpdateStats',
    'Window', 'diagnostics', 'features', 'init', 'layers', 'make_train_epoch', 'make_train_step', 'rules', 'train_step',
    'transforms',
]  # fmt: skip
