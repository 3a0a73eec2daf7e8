"""Out of the library and in: flax layers and models, weights for torch and on disk, surrogate losses, programs.

Estimators for scikit-learn are in `hebbjax.interop.sklearn`, which alone imports it.
"""

from hebbjax.interop.export import export_features, load_exported, load_weights, save_weights
from hebbjax.interop.flax_layers import from_flax, from_kernel, to_kernel, to_linen, to_nnx
from hebbjax.interop.flax_models import hebbian_gradient, hebbify_linen, hebbify_nnx, partition_optimizer
from hebbjax.interop.surrogate_losses import expression_loss, hebb_loss, instar_loss, oja_loss
from hebbjax.interop.torch import from_torch, to_torch

__all__ = [
    'export_features', 'expression_loss', 'from_flax', 'from_kernel', 'from_torch', 'hebb_loss', 'hebbian_gradient',
    'hebbify_linen', 'hebbify_nnx', 'instar_loss', 'load_exported', 'load_weights', 'oja_loss',
    'partition_optimizer', 'save_weights', 'to_kernel', 'to_linen', 'to_nnx', 'to_torch',
]  # fmt: skip
