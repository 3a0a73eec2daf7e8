"""How long and how fast to train by gradient: an optimizer, and how its rate falls over the epochs.

A schedule is a NamedTuple of settings with `epochs`, `batch`, `rate`, `stop_after`, `average`, and the three methods of
`Schedule`. `gradient.fit_gradient` asks for no more.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import optax

from hebbjax.support.checks import is_count, is_misfit, require, show


class Schedule(NamedTuple):
    """Adam under reduce-on-plateau, with early stopping."""

    epochs: int = 50  # at most
    batch: int = 256
    rate: float = 1e-3
    factor: float = 0.5  # the rate is multiplied by this ...
    patience: int = 5  # ... after so many epochs without a better validation accuracy
    stop_after: int = 15  # training ends when more epochs than this brought no better validation accuracy
    decay: float = 0.0  # decoupled weight decay (AdamW) of arrays with two axes or more
    average: int = 1  # steps whose mean parameters are judged and kept; 1: the last step's

    def check(self, count: int) -> None:
        """Refuse what cannot train on `count` samples."""
        _check(self, count)
        require(is_count(self.patience), f'a patience of {show(self.patience)} epochs is none; use 1 or more.')
        grows = f'a weight decay of {show(self.decay)} would make weights grow; use 0 or more.'
        require(not is_misfit(self.decay, lambda share: share >= 0), grows)

    def tx(self) -> optax.GradientTransformation:
        """Build the optimizer."""
        matrices = lambda params: jax.tree.map(lambda a: a.ndim > 1, params)  # noqa: E731
        return optax.adamw(self.rate, weight_decay=self.decay, mask=matrices)

    def scale(self, accuracies: Sequence[float]) -> float:
        """Give the factor of the next epoch's updates, after these validation accuracies."""
        scale, best, waited = 1.0, -1.0, 0
        for accuracy in accuracies:
            best, waited = (accuracy, 0) if accuracy > best else (best, waited + 1)
            if waited == self.patience:
                scale, waited = scale * self.factor, 0
        return scale


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
    stop_after: int = 20  # as in `Schedule`
    average: int = 1

    def check(self, count: int) -> None:
        """Refuse what cannot train on `count` samples."""
        _check(self, count)
        settles = not is_misfit(self.momentum, lambda share: 0 <= share < 1)
        require(settles, f'momentum {show(self.momentum)} never settles; use 0 <= momentum < 1.')
        grows = f'an L2 penalty of {show(self.l2)} would make weights grow; use 0 or more.'
        require(not is_misfit(self.l2, lambda penalty: penalty >= 0), grows)
        cuts = self.milestones
        are_epochs = isinstance(cuts, tuple | list) and all(is_count(cut, 0) for cut in cuts)
        require(are_epochs, f'milestones {show(cuts)} are none; give a tuple of whole numbers of epochs.')
        require(list(cuts) == sorted(cuts), f'milestones {show(cuts)} do not rise; sort them.')

    def tx(self) -> optax.GradientTransformation:
        """Build the optimizer."""
        return optax.chain(optax.add_decayed_weights(self.l2), optax.sgd(self.rate, self.momentum, nesterov=True))

    def scale(self, accuracies: Sequence[float]) -> float:
        """Give the factor of the next epoch's updates, after these validation accuracies."""
        return self.factor ** sum(milestone <= len(accuracies) for milestone in self.milestones)


def _check(schedule, count: int) -> None:
    """Refuse epochs, batches, rates and means that cannot train on `count` samples."""
    epochs, batch, rate, factor = schedule.epochs, schedule.batch, schedule.rate, schedule.factor
    require(is_count(epochs), f'{show(epochs)} epochs train nothing; use 1 or more.')
    fits = is_count(batch) and batch <= count
    require(fits, f'a batch of {show(batch)} does not fit {count} samples; use 1 to {count}.')
    descends = not is_misfit(rate, lambda rate: rate > 0)
    require(descends, f'learning rate {show(rate)} does not descend; use a rate above 0.')
    lowers = not is_misfit(factor, lambda share: 0 < share <= 1)
    require(lowers, f'a factor of {show(factor)} does not lower the rate; use 0 < factor <= 1.')
    for what, number in (('stopping after {} epochs', schedule.stop_after), ('a mean over {} steps', schedule.average)):
        require(is_count(number), f'{what.format(show(number))} cannot be; use a whole number, 1 or more.')
