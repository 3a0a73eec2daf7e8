"""What a comparison can be told, as flags: its layer and data, its heads, its rows and seeds."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import ClassVar, Self

from hebbjax.jobs.schema import Amount, Count, CountOrZero, PartOrZero, Power, Rate, Seeds
from hebbjax.jobs.settings import Hebbian, refuse_unknown
from hebbjax.supervised import Schedule

GIB = 2**30
STARTS = ('drawn', 'patches')


@dataclasses.dataclass(frozen=True)
class Job(Hebbian):
    """Hebbian features under a trained head, beside controls.

    Every choice (epoch, rate reductions, early stopping) is made on a validation split of the training data; the test
    split is read when all networks are trained. Settings left out take the data set's own.
    """

    ROWS: ClassVar[tuple[str, ...]] = ()  # networks that the job knows
    PAPER: ClassVar[Mapping[str, Mapping[str, float]]] = {}  # data set -> row -> percent

    seeds: Seeds | None = None
    """Number of seeds, 0, 1, ...; each draws weights, order and dropout anew."""
    rows: tuple[str, ...] | None = None
    """Which networks to train; left out: all."""
    head_epochs: Count | None = None
    """Epochs of a head at most; early stopping may end it sooner."""
    backprop_epochs: Count | None = None
    """Epochs of the end-to-end twin at most."""
    backprop_seeds: Seeds | None = None
    """Seeds of the end-to-end twin at most."""
    run: pathlib.Path | None = None
    """Run folder, a new one, for configuration, versions and the three files below."""
    json: pathlib.Path | None = None
    """File for all results, with configuration, versions and learning curves."""
    figure: pathlib.Path | None = None
    """File for a picture of the first seed's filters (png, pdf, svg)."""
    curves: pathlib.Path | None = None
    """File for a picture of accuracy over head epochs, first seed."""
    start: str | None = None
    """First weights: drawn (see spread), or patches, cut out of training images; of untrained filters, too."""
    power: Power | None = None
    """n of RePU(n)."""
    threshold: float | None = None
    """Standard deviations above its mean at which a neuron starts to send (batch norm's first shift, negated)."""
    dropout: PartOrZero | None = None
    """Share of neurons silenced while a head trains."""
    head_batch: Count | None = None
    """Images per gradient step."""
    head_rate: Rate | None = None
    """Adam's first rate."""
    head_decay: Amount | None = None
    """Decoupled weight decay (AdamW)."""
    head_patience: CountOrZero | None = None
    """Epochs without a better validation accuracy before the rate falls to 0.3; one more than twice as many end it."""
    head_average: Count | None = None
    """Steps over which a network's parameters are averaged before it is judged; 1: the last ones alone."""
    shift: CountOrZero | None = None
    """Pixels by which gradient training moves its images at most, anew in every epoch; 0: none."""
    backprop_rate: Rate | None = None
    """Adam's first rate in the end-to-end twin."""
    cache_gib: Rate | None = None
    """Memory that cached drives may fill; above it they are recomputed. Left out: 60 % of the device's memory."""

    def resolve(self) -> Self:
        """Fill what was left out with the data set's own settings and all rows, and refuse what cannot run.

        Raises:
            ValueError: naming the setting, its value and what would do.
        """
        full = super().resolve()
        refuse_unknown('start', full.start, STARTS)
        for row in full.rows or ():
            refuse_unknown('rows', row, self.ROWS)
        return full if full.rows else dataclasses.replace(full, rows=self.ROWS)

    def variant(self, row: str) -> Self:
        """Give the settings of one row: the job's own, unless it says otherwise."""
        return self

    def head_schedule(self, rate: float, epochs: int) -> Schedule:
        """Give the gradient schedule at such a rate, for so many epochs."""
        patience = self.head_patience
        stop = 2 * patience + 1
        return Schedule(epochs, self.head_batch, rate, 0.3, patience, stop, self.head_decay, self.head_average)
