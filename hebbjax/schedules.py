"""How long and how fast to train by gradient: optimizers, and how their rate falls over the epochs.

A schedule is a NamedTuple of settings with `epochs`, `batch`, `stop_after`, `average`, and the three methods of
`Schedule`. `supervised.fit` asks for no more.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hebbjax import checks


class Schedule(NamedTuple):
    """Adam under reduce-on-plateau, with early stopping."""

    epochs: int = 50  # at most
    batch: int = 256
    rate: float = 1e-3
    factor: float = 0.5  # the rate is multiplied by this ...
    patience: int = 5  # ... after so many epochs without a better validation accuracy
    stop_after: int = 15  # epochs without a better validation accuracy after which training ends
    decay: float = 0.0  # decoupled weight decay (AdamW) of arrays with two axes or more
    average: int = 1  # steps whose mean parameters are judged and kept; 1: the last step's

    def check(self, count: int) -> None:
        """Refuse what cannot train on `count` samples.

        Raises:
            ValueError: naming the setting, its value and what would do.
        """
        if not checks.is_count(self.patience, 0):
            raise ValueError(
                f'a patience of {checks.shown(self.patience)} epochs cannot be; use a whole number, 0 or more.'
            )
        check(self, count)
        if checks.misfits(self.decay, lambda share: share >= 0):
            raise ValueError(f'a weight decay of {checks.shown(self.decay)} would make weights grow; use 0 or more.')

    def tx(self) -> optax.GradientTransformation:
        """Build the optimizer, the same one for the same settings."""
        return adam(self.rate, self.decay)

    def pace(self) -> tuple[Any, Callable]:
        """Give the rate's factor before the first epoch, and how it follows the accuracy.

        Returns:
            a first state, whose `scale` multiplies every update; (state, validation accuracy) -> state.
        """
        first, reduce = make_plateau(self.factor, self.patience)
        return first, lambda state, accuracy: reduce(state, jnp.float32(1 - accuracy))


class Milestones(NamedTuple):
    """SGD with Nesterov's momentum and an L2 penalty on every parameter; its rate is cut at given epochs.

    The defaults are those of Amato et al. 2019, section 5: 10 epochs at 1e-3, halved before each of the next ten; the
    epoch with the best validation accuracy is kept. The penalty adds `l2 w` to the gradient, as PyTorch's SGD does.
    """

    epochs: int = 20
    batch: int = 64
    rate: float = 1e-3
    momentum: float = 0.9
    l2: float = 0.06
    milestones: tuple[int, ...] = tuple(range(10, 20))  # epochs, from 0, before which the rate ...
    factor: float = 0.5  # ... is multiplied by this
    stop_after: int = 20  # epochs without a better validation accuracy after which training ends
    average: int = 1

    def check(self, count: int) -> None:
        """Refuse what cannot train on `count` samples.

        Raises:
            ValueError: naming the setting, its value and what would do.
        """
        check(self, count)
        if checks.misfits(self.momentum, lambda share: 0 <= share < 1):
            raise ValueError(f'momentum {checks.shown(self.momentum)} never settles; use 0 <= momentum < 1.')
        if checks.misfits(self.l2, lambda penalty: penalty >= 0):
            raise ValueError(f'an L2 penalty of {checks.shown(self.l2)} would make weights grow; use 0 or more.')
        cuts = self.milestones
        if not isinstance(cuts, tuple | list) or not all(checks.is_count(cut, 0) for cut in cuts):
            raise ValueError(
                f'milestones {checks.shown(cuts)} are none; give a tuple of whole numbers of epochs, from 0.'
            )
        if list(cuts) != sorted(cuts):
            raise ValueError(f'milestones {checks.shown(cuts)} do not rise; sort them.')

    def tx(self) -> optax.GradientTransformation:
        """Build the optimizer, the same one for the same settings."""
        return nesterov(self.rate, self.momentum, self.l2)

    def pace(self) -> tuple[Any, Callable]:
        """Give the rate's factor before the first epoch, and how it goes on; see `Schedule.pace`."""

        def paced(epoch):
            cuts = sum(milestone <= epoch for milestone in self.milestones)
            return Paced(jnp.asarray(self.factor**cuts, jnp.float32), epoch)

        return paced(0), lambda state, accuracy: paced(state.epoch + 1)


class Paced(NamedTuple):
    """Where a schedule of epochs stands."""

    scale: jax.Array
    epoch: int


def check(schedule, count: int) -> None:
    """Refuse epochs, batches, rates and means that cannot train on `count` samples.

    Raises:
        ValueError: naming the setting, its value and what would do.
    """
    if not checks.is_count(schedule.epochs):
        raise ValueError(f'{checks.shown(schedule.epochs)} head epochs train nothing; use 1 or more.')
    if not checks.is_count(schedule.batch) or schedule.batch > count:
        raise ValueError(f'a batch of {checks.shown(schedule.batch)} does not fit {count} samples; use 1 to {count}.')
    if checks.misfits(schedule.rate, lambda rate: rate > 0):
        raise ValueError(f'learning rate {checks.shown(schedule.rate)} does not descend; use a rate above 0.')
    if checks.misfits(schedule.factor, lambda share: 0 < share <= 1):
        raise ValueError(f'a factor of {checks.shown(schedule.factor)} does not lower the rate; use 0 < factor <= 1.')
    if not checks.is_count(schedule.stop_after):
        raise ValueError(f'stopping after {checks.shown(schedule.stop_after)} epochs ends nothing; use 1 or more.')
    if not checks.is_count(schedule.average):
        raise ValueError(
            f'a mean over {checks.shown(schedule.average)} steps has nothing to average; use 1 (the last) or more.'
        )


@functools.lru_cache(maxsize=64)
def adam(rate: float, decay: float) -> optax.GradientTransformation:
    """Build Adam at a rate, with decoupled weight decay of arrays with two axes or more."""
    return optax.adamw(rate, weight_decay=decay, mask=lambda params: jax.tree.map(lambda a: a.ndim > 1, params))


@functools.lru_cache(maxsize=64)
def nesterov(rate: float, momentum: float, l2: float) -> optax.GradientTransformation:
    """Build SGD with Nesterov's momentum on the gradient plus `l2 w`."""
    return optax.chain(optax.add_decayed_weights(l2), optax.sgd(rate, momentum, nesterov=True))


@functools.lru_cache(maxsize=64)
def make_plateau(factor: float, patience: int) -> tuple[Any, Callable]:
    """Build optax's reduce-on-plateau for one value an epoch: a first state, and (state, value) -> state, jitted.

    Jitted, because its eager form compiles its branches anew at every call: longer than a small epoch. In float32 and
    int32, whatever jax's default is, since programs that were compiled for its scale are kept.
    """
    plateau = optax.contrib.reduce_on_plateau(factor, patience=patience, rtol=0.0, atol=1e-7)
    narrow = lambda a: a.astype(jnp.float32 if jnp.issubdtype(a.dtype, jnp.floating) else jnp.int32)  # noqa: E731
    follow = lambda state, value: plateau.update((), state, value=value)[1]  # noqa: E731
    return jax.tree.map(narrow, plateau.init(())), jax.jit(lambda *now: jax.tree.map(narrow, follow(*now)))
