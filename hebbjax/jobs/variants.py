"""The rows of Miconi's table 1 and of its other findings, and what the job that trains them can be told."""

import dataclasses
import pathlib

from hebbjax.jobs.schema import Count, CountOrZero, Rate, Seeds, check_settings
from hebbjax.jobs.settings import plain, refuse_unknown


@dataclasses.dataclass(frozen=True)
class Variant:
    """What tells one row from another."""

    fire: str = 'triangle'  # what is sent on: 'triangle' or 'winners'
    learn: str = 'winners'  # who learns: 'winners' or, by their activation, 'triangle'
    density: float = 0.01  # share of connections that exist in layers 2 and 3
    winners: int = 1  # k of the competition; at most half of a layer
    rule: str = 'instar'
    whiten: str = 'image'  # or 'patch', in the first layer
    trained: bool = True
    decoder: str = 'ridge'  # or 'svm'


DEFAULT = Variant(fire='winners', density=1.0)
TABLE = {
    'default_untrained': dataclasses.replace(DEFAULT, trained=False),
    'default_trained': DEFAULT,
    'triangle_untrained': Variant(trained=False),
    'triangle_trained': Variant(),
}
ABLATIONS = {
    'triangle_only': Variant(density=1.0),
    'pruning_only': Variant(fire='winners'),
    'triangle_for_both': Variant(learn='triangle'),
    'k_winners_for_both': Variant(fire='winners', winners=20),
    **{f'winners_{k}': dataclasses.replace(DEFAULT, winners=k) for k in (2, 5, 20, 100, 200)},
    'rule_hebb': Variant(rule='hebb'),
    'rule_oja': Variant(rule='oja'),
    'patch_whitening': Variant(whiten='patch'),
    'linear_svm': Variant(decoder='svm'),
}
ROWS = {**TABLE, **ABLATIONS}
PAPER = {  # table 1: L1 quadrants, L2 quadrants, final
    'default_untrained': (43.3, 21.05, 10.56),
    'default_trained': (49.94, 45.3, 34.5),
    'triangle_untrained': (52.38, 57.17, 56.3),
    'triangle_trained': (58.56, 64.2, 64.55),
}
READOUTS = ('l1_quadrants', 'l2_quadrants', 'final')


@dataclasses.dataclass(frozen=True)
class Stacked:
    """What Miconi's network and its training can be told."""

    epochs: Count = 20
    """Hebbian epochs."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""
    features: tuple[Count, Count, Count] = (100, 196, 400)
    """Neurons of the three layers."""
    batch: Count = 100
    """Images per step."""
    rate: Rate = 1.0
    """Factor on the published rates, 1e-4, 1e-4 and 1e-3 per patch won."""
    burn_in: CountOrZero = 201
    """Steps in which only thresholds adapt."""
    whitening_images: Count = 9000
    """Images that ZCA is fitted to, with the notebook's regularisation, which depends on their number."""
    images: Count | None = None
    """Training images used; left out: all. Fewer are for trying things out."""


@dataclasses.dataclass(frozen=True)
class Config(Stacked):
    """Three Hebbian layers on CIFAR-10 (Miconi 2021, table 1): winner-take-all learning, adaptive thresholds.

    Settings are the paper's and its notebook's; no accuracy chose any, so there is no validation split. Ours: exactly
    one winner, the first of equals; images are flipped in learning alone; untrained rows let thresholds settle for an
    epoch; and what the ablations leave open. Accuracies are those of ridge regression on the training set's features,
    read once on the test set.
    """

    seeds: Seeds = 3
    """Number of seeds, 0, 1, ..., trained in one program; each draws weights, masks, order and flips anew."""
    rows: tuple[str, ...] | None = None
    """Which networks; left out: table 1 (and the ablations, where asked for)."""
    ablations: bool = False
    """Add the paper's other findings as rows."""
    run: pathlib.Path | None = None
    """Run folder, a new one, for configuration, versions, results and figures."""
    json: pathlib.Path | None = None
    """File for all results, with configuration and versions."""
    figures: pathlib.Path | None = None
    """Folder for the full sheets of receptive fields of trained rows, first seed (figures B.1, B.2)."""
    penalty: Rate = 1.0
    """Of ridge regression."""
    seeds_at_once: Seeds | None = None
    """Seeds trained side by side; left out: 1 on a CPU, all that fit the memory elsewhere."""

    def resolve(self) -> 'Config':
        """Fill in the rows, and refuse what cannot run.

        Raises:
            ValueError: naming the setting, its value and what would do.
        """
        check_settings(self)
        asked = self.rows or (*TABLE,)
        rows = tuple(dict.fromkeys((*asked, *(ABLATIONS if self.ablations else ()))))
        for row in rows:
            refuse_unknown('rows', row, ROWS)
        return dataclasses.replace(self, rows=rows)

    def as_json(self) -> dict:
        """Give all settings but the names of files, as plain JSON values."""
        return plain(self)

    def trainings(self) -> list[tuple[Variant, list[str]]]:
        """Group rows that differ in their decoder alone: they are trained once."""
        groups = {}
        for row in self.rows:
            groups.setdefault(dataclasses.replace(ROWS[row], decoder='ridge'), []).append(row)
        return list(groups.items())
