"""hebbjax: Hebbian, backprop-free feature learning in JAX. Pure functions, explicit keys, plain pytrees.

Reading order: train -> layers -> rules -> competition -> patches. The training loop with callbacks (`hebbjax.loop`),
what is trained by gradient, and the leaves (`hebbjax.data`, `.callbacks`, `.visualize`, ...) are imported by name, so
that this import stays light.
"""

import importlib.metadata as _metadata

from hebbjax import (
    activations,
    augment,
    competition,
    initial,
    measures,
    patches,
    plasticity,
    pooling,
    rules,
    surrogate,
    whitening,
)
from hebbjax.homeostasis import Homeostasis
from hebbjax.layers import Layer, LayerState
from hebbjax.patches import Window
from hebbjax.pooling import avg_pool, max_pool
from hebbjax.train import TrainState, features, init, make_train_epoch, make_train_step, train_step
from hebbjax.types import Credit, LearningRule, Told

try:
    __version__ = _metadata.version('hebbjax')
except _metadata.PackageNotFoundError:  # sources that nobody installed
    __version__ = '0+unknown'

__all__ = [
    'Credit',
    'Homeostasis',
    'Layer',
    'LayerState',
    'LearningRule',
    'Told',
    'TrainState',
    'Window',
    'activations',
    'augment',
    'avg_pool',
    'competition',
    'features',
    'init',
    'initial',
    'make_train_epoch',
    'make_train_step',
    'max_pool',
    'measures',
    'patches',
    'plasticity',
    'pooling',
    'rules',
    'surrogate',
    'train_step',
    'whitening',
]
