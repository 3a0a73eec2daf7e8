"""The head: what reads classes out of a layer's drives. Batch norm -> power -> dropout -> linear, each optional."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hebbjax import activations, checks
from hebbjax.frozen import Drives
from hebbjax.types import Array, Key

EPSILON = 1e-5  # added to batch norm's variance
MOMENTUM = 0.99  # of its running averages


class HeadParams(NamedTuple):
    """What a head learns."""

    scale: Array | None  # [N] batch norm's scale
    shift: Array | None  # [N] and shift
    w: Array  # [Q, N, K]
    b: Array  # [K]


class Norm(NamedTuple):
    """Mean and variance of each neuron's drive: of a batch, or running averages for evaluation."""

    mean: Array  # [N]
    var: Array  # [N]
    seen: Array  # share of the average that batches have filled: 0 at first, 1 in the end (and for a batch)


@dataclasses.dataclass(frozen=True)
class Head:
    """A head, as configuration. `logits = linear(dropout(repu(norm(u))))`, pooled drives in.

    Attributes:
        classes: K.
        norm: whether to normalise drives per neuron, over the batch and all positions, with a learned scale and shift.
        power: n of the rectified power unit max(u, 0)^n; None sends drives on as they are.
        threshold: batch norm's first shift is its negative: above 0, a neuron starts by sending only what exceeds its
            mean by so many standard deviations, which makes for sparse codes. Learned from there on.
        dropout: share of neurons (whole maps) silenced per image while training, in [0, 1).

    Raises:
        ValueError: if one of them is out of range.
    """

    classes: int
    norm: bool = True
    power: float | None = 1.0
    threshold: float = 0.0
    dropout: float = 0.0

    def __post_init__(self):
        if not checks.is_count(self.classes, 2):
            raise ValueError(
                f'a head of {checks.shown(self.classes)} classes has nothing to tell apart; use 2 or more.'
            )
        if not isinstance(self.norm, bool):
            raise ValueError(
                f'a head normalises or not, and norm={checks.shown(self.norm)} says neither; use True or False.'
            )
        if checks.misfits(self.dropout, lambda share: 0 <= share < 1):
            raise ValueError(f'dropout {checks.shown(self.dropout)} is not in [0, 1).')
        if checks.misfits(self.threshold, lambda deviations: True):
            raise ValueError(
                f'a threshold of {checks.shown(self.threshold)} standard deviations cannot be; use a number.'
            )
        if self.power is not None and checks.misfits(self.power, lambda n: n >= 1):
            raise ValueError(f'repu(n={checks.shown(self.power)}) has an infinite slope at 0; use n >= 1, or None.')


def init(head: Head, key: Key, high: tuple[int, int]) -> tuple[HeadParams, Norm | None]:
    """Make a head's first parameters and running averages for drives of Q blocks and N neurons.

    Linear weights are uniform in +-1/sqrt(Q N), as in the deep-learning frameworks' linear layers.
    """
    blocks, neurons = high
    bound = 1 / (blocks * neurons) ** 0.5
    w = jax.random.uniform(key, (blocks, neurons, head.classes), jnp.float32, -bound, bound)
    fill = lambda value: jnp.full(neurons, value, jnp.float32)  # noqa: E731
    params = HeadParams(None, None, w, jnp.zeros(head.classes, jnp.float32))
    if not head.norm:
        return params, None
    params = params._replace(scale=fill(1.0), shift=fill(-float(head.threshold)))
    return params, Norm(fill(0.0), fill(0.0), jnp.zeros((), jnp.float32))


def batch_norm(drives: Drives) -> Norm:
    """Compute mean and variance of each neuron's drive over the batch and all positions."""
    if drives.mean is None:
        axes = tuple(range(drives.high.ndim - 1))
        u = drives.whole(drives.high)
        return Norm(u.mean(axes), u.var(axes), jnp.ones((), jnp.float32))
    mean, square = (a.mean(0).astype(jnp.float32) for a in (drives.mean, drives.square))
    # float32 sums may leave a variance of -1e-9 where a neuron never varies
    return Norm(mean, jnp.maximum(square - mean**2, 0), jnp.ones((), jnp.float32))


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
    u = drives.whole(drives.high)  # [B, Q, N]
    if head.norm:
        # running averages start at 0 and are divided by what they have seen, so that the first epochs are not judged
        # by a variance still on its way; before any batch, drives are taken as they are
        filled = jnp.where(norm.seen > 0, norm.seen, 1)
        used = Norm(norm.mean / filled, jnp.where(norm.seen > 0, norm.var / filled, 1), norm.seen)
        if key is not None:
            used = batch_norm(drives)
            norm = jax.tree.map(lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, norm, used)
        # g (u - mean) / sqrt(var + eps) + b, as one multiplication and one addition
        # a variance beyond float32 would make every drive the same 0, and nobody would know
        var = jnp.where(jnp.isfinite(used.var), used.var, jnp.nan)
        a = params.scale * lax.rsqrt(var + EPSILON)  # [N]
        b = params.shift - used.mean * a  # [N]
        if drives.low is not None:
            # Both ends are read only when some scale is negative, which is rare: the branch saves half the traffic.
            rising = params.scale >= 0
            u = lax.cond(
                jnp.all(rising),
                lambda: u,
                lambda: jnp.where(rising[None, None], u, drives.whole(drives.low)),
            )
        u = u * a[None, None] + b[None, None]
    z = u if head.power is None else activations.repu(head.power)(u)
    if key is not None and head.dropout > 0:
        keep = jax.random.bernoulli(key, 1 - head.dropout, (len(z), 1, z.shape[2]))
        z = z * keep.astype(z.dtype) / (1 - head.dropout)
    logits = jnp.einsum('bqn,qnk->bk', z, params.w, precision=lax.Precision.HIGHEST) + params.b[None]
    return logits, norm
