"""Layers and networks: windows and patches, what stands around the synapses, states, one layer's update."""

from hebbjax.layers.activations import identity, relu, repu, send_credit, triangle, triangle_to  # noqa: I001
from hebbjax.layers.chain import PartState, apply_chain
from hebbjax.layers.codes import both_signs, nearest
from hebbjax.layers.homeostasis import Homeostasis
from hebbjax.layers.kernel import AngleKernel, Decorrelate
from hebbjax.layers.lateral import Lateral
from hebbjax.layers.layer import (
    Layer, LayerState, drives, forward, from_patches, init_layer, layer_patches, to_intensities,
)  # fmt: skip
from hebbjax.layers.network import Network, TrainState, activations_of, check_network, check_states, features, init
from hebbjax.layers.normalization import BatchNorm, standardise
from hebbjax.layers.patches import Window, centred, centred_l2, contrast, extract_patches, raw, sample_patches
from hebbjax.layers.pooling import avg_pool, gauss_pool, max_pool
from hebbjax.layers.settling import recall, send_down, settled_activations
from hebbjax.layers.update import accumulate_layer, update_layer
from hebbjax.support.devices import mean_over_devices, moments_over_devices

__all__ = [
    'AngleKernel', 'BatchNorm', 'Decorrelate', 'Homeostasis', 'Lateral', 'Layer', 'LayerState', 'Network',
    'PartState', 'TrainState', 'Window', 'accumulate_layer', 'activations_of', 'apply_chain', 'avg_pool',
    'both_signs', 'centred', 'centred_l2', 'check_network', 'check_states', 'contrast', 'drives', 'extract_patches',
    'features', 'forward', 'from_patches', 'gauss_pool', 'identity', 'init', 'init_layer', 'layer_patches',
    'max_pool', 'mean_over_devices', 'moments_over_devices', 'nearest', 'raw', 'recall', 'relu', 'repu',
    'sample_patches', 'send_credit', 'send_down', 'settled_activations', 'standardise', 'to_intensities',
    'triangle', 'triangle_to', 'update_layer',
]  # fmt: skip
