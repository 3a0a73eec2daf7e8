"""How long and how fast to train by gradient: an optimizer, and how its rate falls over the epochs.

A schedule is a NamedTuple of settings with `epochs`, `batch`, `rate`, `stop_after`, `average`, and three methods.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from hebbjax.support.checks import check_choice, check_count, check_number, is_count, require, show
from hebbjax.support.devices import check_divides, host_count

BOUNDS = {'rate': {'above': 0}, 'factor': {'above': 0, 'most': 1}, 'decay': {'least': 0}, 'l2': {'least': 0},
          'momentum': {'least': 0, 'below': 1}}  # fmt: skip
CHOICES = {'optimizer': ('sgd', 'adam'), 'choose': ('best', 'last')}


def check_schedule(schedule, count: int, mesh: Mesh | None = None) -> None:
    """Refuse what cannot train on `count` samples, of each process of a mesh, divided over its devices."""
    count *= host_count(mesh)
    for name, value in schedule._asdict().items():
        if name in BOUNDS:
            check_number(name, value, **BOUNDS[name])
        elif name in CHOICES:
            check_choice(name, value, CHOICES[name])
        elif name == 'milestones':
            rise = isinstance(value, tuple) and all(is_count(cut, 0) for cut in value)
            rise = rise and value == tuple(sorted(value))
            require(rise, f'milestones={show(value)} are none; give a tuple of whole numbers of epochs that rise.')
        else:
            check_count(name, value, 1, *((count,) if name == 'batch' else ()))
    check_divides('a batch', schedule.batch, mesh)


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

    check = check_schedule

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
    """SGD with Nesterov's momentum, or Adam, and an L2 penalty on every parameter; its rate is cut at given epochs.

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
    stop_after: int = 20  # as in `Schedule`; nothing where the last epoch is kept
    average: int = 1
    optimizer: str = 'sgd'  # or 'adam', which has no use for the momentum
    choose: str = 'best'  # the epoch that is kept: the 'best' on validation images, or the 'last'

    check = check_schedule

    def tx(self) -> optax.GradientTransformation:
        """Build the optimizer."""
        adam, sgd = optax.adam, functools.partial(optax.sgd, momentum=self.momentum, nesterov=True)
        return optax.chain(optax.add_decayed_weights(self.l2), {'adam': adam, 'sgd': sgd}[self.optimizer](self.rate))

    def scale(self, accuracies: Sequence[float]) -> float:
        """Give the factor of the next epoch's updates, after these validation accuracies."""
        return self.factor ** sum(milestone <= len(accuracies) for milestone in self.milestones)
