"""The head: what reads classes out of a layer's drives. Batch norm -> power -> dropout -> linear, each optional."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax import activations
from hebbjax.frozen import Drives
from hebbjax.types import Array, Key

EPSILON = 1e-5  # added to batch norm's variance
MOMENTUM = 0.9  # of its running averages


class HeadParams(NamedTuple):
    """What a head learns."""

    scale: Array | None  # [N] batch norm's scale
    shift: Array | None  # [N] and shift
    w: Array  # [Q, N, K]
    b: Array  # [K]


class Norm(NamedTuple):
    """Batch norm's running averages, for evaluation."""

    mean: Array  # [N]
    var: Array  # [N]


@dataclasses.dataclass(frozen=True)
class Head:
    """A head, as configuration. `logits = linear(dropout(repu(norm(u))))`, pooled drives in.

    Attributes:
        classes: K.
        norm: whether to normalise drives per neuron, over the batch and all positions, with a learned scale and shift.
        power: n of the rectified power unit max(u, 0)^n; None sends drives on as they are.
        dropout: share of neurons (whole maps) silenced per image while training, in [0, 1).
    """

    classes: int
    norm: bool = True
    power: float | None = 1.0
    dropout: float = 0.0

    def __post_init__(self):
        if self.classes < 2:
            raise ValueError(f'a head of {self.classes} classes has nothing to tell apart; use 2 or more.')
        if not 0 <= self.dropout < 1:
            raise ValueError(f'dropout {self.dropout} is not in [0, 1).')
        if self.power is not None:
            activations.repu(self.power)


def init(head: Head, key: Key, high: tuple[int, int]) -> tuple[HeadParams, Norm | None]:
    """Make a head's first parameters and running averages for drives of Q blocks and N neurons.

    Linear weights are uniform in +-1/sqrt(Q N), as in the deep-learning frameworks' linear layers.
    """
    blocks, neurons = high
    bound = 1 / (blocks * neurons) ** 0.5
    w = jax.random.uniform(key, (blocks, neurons, head.classes), minval=-bound, maxval=bound)
    params = HeadParams(None, None, w, jnp.zeros(head.classes))
    if not head.norm:
        return params, None
    return (
        params._replace(scale=jnp.ones(neurons), shift=jnp.zeros(neurons)),
        Norm(jnp.zeros(neurons), jnp.ones(neurons)),
    )


def batch_norm(drives: Drives) -> Norm:
    """Compute mean and variance of each neuron's drive over the batch and all positions."""
    if drives.mean is None:
        axes = tuple(range(drives.high.ndim - 1))
        return Norm(drives.high.mean(axes), drives.high.var(axes))
    mean = drives.mean.mean(0)
    # float32 sums may leave a variance of -1e-9 where a neuron never varies
    return Norm(mean, jnp.maximum(drives.square.mean(0) - mean**2, 0))


def apply(
    head: Head, params: HeadParams, norm: Norm | None, drives: Drives, key: Key | None = None
) -> tuple[Array, Norm | None]:
    """Compute logits.

    Args:
        head: the head.
        params: what it learned.
        norm: its running averages.
        drives: of a batch.
        key: given, the head is training: it normalises by the batch, updates the averages and drops neurons.
            None: it evaluates, and nothing changes.

    Returns:
        logits [B, K] and the running averages.
    """
    u = drives.high.astype(jnp.float32)  # [B, Q, N]
    if head.norm:
        used = norm
        if key is not None:
            used = batch_norm(drives)
            norm = jax.tree.map(lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, norm, used)
        # g (u - mean) / sqrt(var + eps) + b, as one multiplication and one addition
        a = params.scale * lax.rsqrt(used.var + EPSILON)
        if drives.low is not None:
            # Both ends are read only when some scale is negative, which is rare: the branch saves half the traffic.
            u = lax.cond(
                jnp.all(params.scale >= 0),
                lambda: u,
                lambda: jnp.where(params.scale >= 0, u, drives.low.astype(jnp.float32)),
            )
        u = u * a + (params.shift - used.mean * a)
    z = u if head.power is None else activations.repu(head.power)(u)
    if key is not None and head.dropout > 0:
        keep = jax.random.bernoulli(key, 1 - head.dropout, (len(z), 1, z.shape[2]))
        z = z * keep / (1 - head.dropout)
    logits = jnp.einsum('bqn,qnk->bk', z, params.w, precision=lax.Precision.HIGHEST) + params.b
    return logits, norm
