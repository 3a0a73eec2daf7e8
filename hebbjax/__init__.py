"""hebbjax: Hebbian, backprop-free feature learning in JAX. Pure functions, explicit keys, plain pytrees.

Reading order: train -> layers -> rules -> competition -> patches. Leaves (`hebbjax.data`, `.checkpoint`,
`.visualize`) are imported by name, so that this import stays light.
"""

from hebbjax import activations, competition, measures, patches, plasticity, rules
from hebbjax.layers import Layer, LayerState, max_pool
from hebbjax.patches import Window
from hebbjax.train import TrainState, features, init, make_train_epoch, make_train_step, train_step
from hebbjax.types import Credit, LearningRule, Told

__all__ = [
    'Credit',
    'Layer',
    'LayerState',
    'LearningRule',
    'Told',
    'TrainState',
    'Window',
    'activations',
    'competition',
    'features',
    'init',
    'make_train_epoch',
    'make_train_step',
    'max_pool',
    'measures',
    'patches',
    'plasticity',
    'rules',
    'train_step',
]
