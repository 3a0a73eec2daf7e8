"""Lateral connections: neurons of a layer inhibit each other before they compete and send, and learn whom."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from hebbjax.base import Array, UpdateStats
from hebbjax.layers.activations import identity
from hebbjax.rules.local import mean_over_patches
from hebbjax.rules.products import matmul
from hebbjax.support import checks, specs


@dataclasses.dataclass(frozen=True, eq=False)
class Lateral:
    """Anti-Hebbian lateral inhibition M [N, N], zero on its diagonal, between the neurons that look at one patch.

    Drives u, less thresholds, settle from y = 0 in 1 + `steps`: `y += pace (activation(u - M y) - y)`. Settled y stand
    for drives: neurons compete and leak by them, and `post` gets them. After every learning step M moves by
    means over its patches, of settled activities, whatever credit the rule gave:

        dM_ij = rate (<y_i y_j> - <y_i^2> M_ij)     target None: with `rules.oja()` similarity matching, the principal
                                                    subspace at last (Pehlevan, Hu & Chklovskii 2015)
        dM_ij = rate (<y_i y_j> - target^2)         M >= 0: units become active in a share `target` of patches, each
                                                    apart from the others (Földiák 1990, who has an instar beside it and
                                                    thresholds, `Homeostasis(winners=target N)`)

    Where the last step still moves a patch's y at least as far as the first did, nothing settles: y is NaN there, and a
    learning step says that it is not finite. A smaller `pace` settles more: with a symmetric M and no activation, one
    with all eigenvalues of `I + M` between 0 and `2 / pace`. The first form's rate is stable below `1 / max_i <y_i^2>`.

    Example:
        >>> lateral = Lateral(rate=0.1, steps=30, pace=0.5)
        >>> lateral.settle(jnp.array([[0.0, 0.5], [0.5, 0.0]]), jnp.array([3.0, 3.0])).round(3)
        Array([2., 2.], dtype=float32)
    """

    rate: float
    steps: int = 10
    pace: float = 1.0  # share of the way that y goes in a step, in (0, 1]
    activation: Callable[[Array], Array] = identity  # of rows [P, N], such as `lambda v: jax.nn.sigmoid(10 * v)`
    target: float | None = None  # in (0, 1)

    __eq__, __hash__, __reduce__ = specs.specs_equal, specs.spec_hash, specs.spec_reduce

    def __post_init__(self) -> None:
        checks.check_number('rate', self.rate, least=0)
        checks.check_count('steps', self.steps)
        checks.check_number('pace', self.pace, above=0, most=1)
        came = f'activation of lateral connections is a function such as relu, not {checks.show(self.activation)}.'
        checks.require(callable(self.activation), came)
        if self.target is not None:
            checks.check_number('target', self.target, above=0, below=1)

    def init(self, w: Array) -> Array:
        """Make the first connections [N, N], all zero, for weights [N, D]."""
        return jnp.zeros((len(w), len(w)), w.dtype)

    def settle(self, m: Array | None, u: Array) -> Array:
        """Settle drives less thresholds under connections M: `y += pace (activation(u - M y) - y)`. [..., N]."""
        rows, wanted = u.reshape(-1, u.shape[-1]), (u.shape[-1],) * 2
        came = f'lateral connections {getattr(m, "shape", m)} in a state: a layer of {wanted[0]} neurons that inhibit'
        checks.require(m is not None and m.shape == wanted, f'{came} each other needs {wanted}; make it with init.')
        first = self.pace * self.activation(rows)  # [P, N], the step from y = 0

        def step(_, moved):
            y, _ = moved
            change = self.pace * (self.activation(rows - matmul(y, m.T)) - y)
            return y + change, change

        y, last = lax.fori_loop(0, self.steps, step, (first, first))
        length = lambda change: jnp.sum(change * change, -1, keepdims=True)  # noqa: E731
        diverges = (length(last) >= length(first)) & (length(last) > 0)  # [P, 1], each patch by itself
        return jnp.where(diverges, jnp.nan, y).reshape(u.shape)

    def adapt(self, m: Array, stats: UpdateStats) -> Array:
        """Move connections by what one step's patches added up to."""
        mean = mean_over_patches(stats.products, stats)  # [N, N], <y_i y_j>
        if self.target is None:
            m = m + self.rate * (mean - jnp.diag(mean)[:, None] * m)
        else:
            m = jnp.maximum(m + self.rate * (mean - self.target**2), 0)
        return jnp.where(jnp.eye(len(m), dtype=bool), 0, m)
