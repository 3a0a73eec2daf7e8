"""A kernel of the angle between patches and weights: drives by it, and channels that are decorrelated by it.

Two such layers, found by winner-take-all on the sphere, are the network of Mairal (2016, arXiv:1605.06265).
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array
from hebbjax.layers.patches import l2
from hebbjax.rules.local import inverse_length
from hebbjax.rules.products import matmul
from hebbjax.support import checks

SOFT = 0.01  # added to the roots of eigenvalues, so that directions of little but rounding are not blown up


@dataclasses.dataclass(frozen=True)
class AngleKernel:
    """Drives by `kappa(c) = exp((c - 1) / sigma^2)`, a `Layer.output`: `n kappa(w . x / |w| n)`, n = |x|.

    Example:
        >>> x = jnp.array([[2.0, 0.0]])  # along the first neuron, at a right angle to the second
        >>> AngleKernel(1.0).drive(x, x @ jnp.eye(2)).round(3)
        Array([[2.        , 0.73600006]], dtype=float32)
    """

    sigma: float = 0.6  # width: small ones tell few patches from most

    def __post_init__(self) -> None:
        checks.check_number('sigma', self.sigma, above=0)

    def __call__(self, cosine: Array) -> Array:
        """Give kappa of cosines."""
        return jnp.exp((cosine - 1) / self.sigma**2)

    def drive(self, x: Array, u: Array) -> Array:
        """Make drives of patches x [..., D] and their products with unit weights [..., N]; 0 of an all-zero patch."""
        inverse = inverse_length(x)  # 0 of a zero row, as its slope is, so that no quotient and no root is seen there
        return jnp.sum(x * x, -1, keepdims=True) * inverse * self(u * inverse)


@dataclasses.dataclass(frozen=True)
class Decorrelate:
    """Decorrelate the channels of maps [B, H, W, N], a part of `post`: `a kappa(W W')^(-1/2)`, W rows of length 1.

    Lateral connections that follow from the weights alone, computed anew whenever a layer answers, as if the roots of
    eigenvalues were 0.01 larger; with `AngleKernel` the answers of two patches have the inner product `kappa` of them,
    as far as the weights span it. Gradients take them for constant.
    """

    sigma: float = 0.6  # of `AngleKernel`

    def __post_init__(self) -> None:
        AngleKernel(self.sigma)

    def bind(self, w: Array) -> Callable[[Array], Array]:
        """Give the part for weights [N, D]: every channel sends a weighted sum of all, by a matrix [N, N]."""
        w = l2(lax.stop_gradient(w))
        values, vectors = jnp.linalg.eigh(AngleKernel(self.sigma)(matmul(w, w.T)))
        scale = 1 / (jnp.sqrt(jnp.maximum(values, 0)) + SOFT)
        mix = matmul(vectors * scale[None], vectors.T)
        return lambda maps: matmul(maps, mix.astype(maps.dtype))
