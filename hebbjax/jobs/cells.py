"""The cells of Amato et al.'s tables: networks written as letters, and the trainings that make each of them.

A network of up to five layers and a classifier is written `GGHHG-G`: G learns by gradient, H by Hebb's rule, R stays
as it was drawn. Trainings are shared: `plan` gives the same `Training` wherever cells need the same one.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

CLASSIFIER = 6  # its number, after up to five layers
DEPTH = 5
LETTERS = {'G': 'gradient', 'H': 'Hebbian', 'R': 'random'}


@dataclasses.dataclass(frozen=True)
class Training:
    """Some layers that learn together, on finished ones below.

    Attributes:
        letter: how: 'G', 'H', or 'R', which draws them and leaves it at that.
        layers: their numbers, from 1; the classifier is 6.
        whiten: whether images are whitened.
        scale: batch normalisation's scales: 'uniform' draws those of Hebbian and random layers from U(0, 1) and lets
            gradient layers start at 1, 'ones' sets those of Hebbian layers to 1, 'drawn' draws all.
        on: the training that made what lies below; None: they stand on the images.
        upto: of how many of its layers.
    """

    letter: str
    layers: tuple[int, ...]
    whiten: bool = False
    scale: str = 'uniform'
    on: 'Training | None' = None
    upto: int = 0

    @property
    def name(self) -> str:
        """What was done, bottom first: `whitened-H123456.2.G6` is a gradient classifier on two Hebbian layers."""
        own = self.letter + ''.join(map(str, self.layers))
        if self.scale != (Training.scale if self.on is None else self.on.scale):
            own = f'{self.scale}-{own}'
        return 'whitened-' * self.whiten + own if self.on is None else f'{self.on.name}.{self.upto}.{own}'

    @property
    def chain(self) -> tuple['Training', ...]:
        """All trainings that it takes, in their order, this one last."""
        return (*(() if self.on is None else self.on.chain), self)

    @property
    def l2(self) -> float:
        """The penalty of the authors' configurations, which goes with what is trained."""
        if len(self.layers) == 1 or self.layers[0] >= 5:
            return 5e-4
        if self.layers[-2] < DEPTH:  # some layers with a classifier, later taken off
            return {1: 0.02, 2: 0.03, 3: 0.04, 4: 0.05}[self.layers[-2]]
        return {1: 0.06, 2: 0.07, 3: 0.06, 4: 0.05}[self.layers[0]]

    @property
    def batch(self) -> int:
        """Images per step: 64, but 32 for Hebbian layers on one gradient layer, as the authors had it."""
        return 32 if self.letter == 'H' and self.upto == 1 and self.on.letter == 'G' and len(self.layers) > 1 else 64


def parse(letters: str) -> tuple[str, str]:
    """Read a network's letters: those of its layers, and the classifier's.

    Raises:
        ValueError: if there are too few or too many, or one means nothing.
    """
    layers, dash, classifier = letters.partition('-')
    if not dash or not 1 <= len(layers) <= DEPTH or len(classifier) != 1:
        raise ValueError(
            f'{letters!r} is no network: write 1 to {DEPTH} layers, a dash and the classifier, such as GGHHG-G.'
        )
    if wrong := set(layers + classifier) - set(LETTERS):
        raise ValueError(
            f'{letters!r} holds {"".join(sorted(wrong))!r}; layers are G (gradient), H (Hebbian) or R (random).'
        )
    if classifier == 'R':
        raise ValueError(f'{letters!r} has a random classifier, which tells nothing; use G or H.')
    return layers, classifier


def plan(letters: str, whiten: bool | None = None, scale: str = 'uniform') -> Training:
    """Lay out the trainings of a network, as the paper does: the last one, which stands on the others.

    - A classifier on top of layers of one kind reads the network that was trained whole (of one Hebbian layer: that
      layer with a classifier, as the authors' code has it).
    - Gradient layers below Hebbian ones are trained under a linear classifier, which is then taken off.
    - Hebbian layers between others are trained with Hebbian ones up to the top, of which the lower are taken.
    - Gradient layers on top are trained from scratch on what lies below, which stays as it is.

    Args:
        letters: such as 'GGHHG-G'.
        whiten: images; None: where the lowest layer is Hebbian, as in the paper, or random: the paper does not say, but
            with whitening the random networks come to its numbers.
        scale: of batch normalisation: 'uniform', 'ones' or, as published, 'drawn'; see `Training`.

    Raises:
        ValueError: if the letters are no network.
    """
    layers, classifier = parse(letters)
    whiten = layers[0] != 'G' if whiten is None else whiten
    runs, number = [], 1
    for letter, run in itertools.groupby(layers):
        count = len([*run])
        runs.append((letter, tuple(range(number, number + count))))
        number += count
    below, upto, scaled = None, 0, 'uniform'
    for letter, own in runs:
        learned = (*own, CLASSIFIER)
        if letter == 'R':
            learned = own
        elif (letter == 'H' and own != (1,)) or (letter == 'G' and len(runs) == 1):
            learned = (*range(own[0], DEPTH + 1), CLASSIFIER)
        # a scale is told apart from the first layer on that it matters to, so that trainings below are shared
        scaled = scale if (letter, scale) in (('H', 'ones'), ('G', 'drawn')) else scaled
        below, upto = Training(letter, learned, whiten, scaled, below, upto), own[-1]
    if below.letter == classifier and below.layers[-2:] == (upto, CLASSIFIER):
        return below  # it was trained under just this classifier
    return Training(classifier, (CLASSIFIER,), whiten, below.scale, below, upto)


NOTES = {
    '': {},
    'plain': {'whiten': False},
    'whitened': {'whiten': True},
    'ones': {'scale': 'ones'},
    'drawn': {'scale': 'drawn'},
}
"""What may stand behind a network's letters, `H-G.ones`: images whitened or not, batch normalisation's scales."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of the paper.

    Attributes:
        letters: the network.
        paper: percent, or None.
        note: what else tells it from its neighbours; one of `NOTES`.
    """

    letters: str
    paper: float | None = None
    note: str = ''

    @property
    def name(self) -> str:
        """What it is called at the command line and in results."""
        return f'{self.letters}.{self.note}' if self.note else self.letters

    @property
    def training(self) -> Training:
        """The last of its trainings."""
        return plan(self.letters, **NOTES[self.note])


class Group(NamedTuple):
    """A group of cells: of table 1 a row, of table 2 what the paper calls a group."""

    name: str
    title: str
    cells: tuple[Cell, ...]


def _up(letter: str, classifier: str, papers: Sequence[float], note: str = '') -> tuple[Cell, ...]:
    """Give one cell per depth: a classifier on 1, 2, ... layers of a kind."""
    return tuple(Cell(f'{letter * depth}-{classifier}', paper, note) for depth, paper in enumerate(papers, 1))


def _bottoms(letter: str, papers: Sequence[float], note: str = '') -> tuple[Cell, ...]:
    """Give one cell per depth: 1, 2, ... layers of a kind under gradient layers up to the top."""
    return tuple(Cell(f'{letter * depth:G<{DEPTH}}-G', paper, note) for depth, paper in enumerate(papers, 1))


def _cells(**papers: float) -> tuple[Cell, ...]:
    return tuple(Cell(f'{letters[:-1]}-{letters[-1]}', paper) for letters, paper in papers.items())


HEBBIAN = (63.92, 63.81, 58.28, 52.99, 41.78)  # under a gradient classifier
RANDOM = (80.19, 71.87, 54.96, 45.56, 9.52)  # under gradient layers up to the top
TABLES = {
    '1': (
        Group('gradient', 'gradient classifier on gradient layers', _up('G', 'G', (60.71, 66.30, 72.39, 82.69, 84.95))),
        Group('means', 'Hebbian classifier on gradient layers', _up('G', 'H', (46.58, 56.59, 67.79, 82.18, 84.88))),
        Group('hebbian', 'gradient classifier on Hebbian layers', _up('H', 'G', HEBBIAN)),
    ),
    '2': (
        Group('1', 'all by one rule', _cells(GGGGGG=84.95, HHHHHH=28.59)),
        Group('2', 'Hebbian bottom', _cells(HGGGGG=84.93, HHGGGG=78.61, HHHGGG=67.87, HHHHGG=57.56, HHHHHG=41.78)),
        Group('3', 'random bottom', _bottoms('R', RANDOM)),
        Group('4', 'Hebbian top', _cells(GGGGGH=84.88, GGGGHH=83.16, GGGHHH=71.18, GGHHHH=50.43, GHHHHH=32.95)),
        Group('5', 'one Hebbian layer', _cells(GHGGGG=80.36, GGHGGG=80.68, GGGHGG=80.92, GGGGHG=83.75)),
        Group('6', 'two Hebbian layers', _cells(GHHGGG=72.12, GGHHGG=74.98, GGGHHG=76.86)),
        Group('7', 'three Hebbian layers', _cells(GHHHGG=63.68, GGHHHG=62.43)),
        Group('8', 'four Hebbian layers', _cells(GHHHHG=47.24)),
    ),
    'more': (  # the authors' result files, and scales of 1
        Group('class', 'Hebbian classifier on one Hebbian layer', (Cell('H-H', 41.84), Cell('H-H', 27.11, 'plain'))),
        Group('ones', 'scales of 1: gradient classifier on Hebbian layers', _up('H', 'G', HEBBIAN, 'ones')),
        Group(
            'ones-class',
            'scales of 1: Hebbian throughout',
            (Cell('H-H', 41.84, 'ones'), Cell('HHHHH-H', 28.59, 'ones')),
        ),
        Group('drawn', 'all scales drawn: random bottom', _bottoms('R', RANDOM[:-1], 'drawn')),
    ),
}
GROUPS = {group.name: group for groups in TABLES.values() for group in groups}
CELLS = {cell.name: cell for group in GROUPS.values() for cell in group.cells}


def cell_of(name: str) -> Cell:
    """Give the paper's cell of this name, or another network as a cell of its own.

    Raises:
        ValueError: if the letters are no network, or what stands behind them is unknown.
    """
    if name in CELLS:
        return CELLS[name]
    letters, _, note = name.partition('.')
    parse(letters)
    if note not in NOTES:
        raise ValueError(f'{name!r} ends in {note!r}; behind a dot stands {", ".join(filter(None, NOTES))}.')
    return Cell(letters, note=note)


def order(cells: Iterable[Cell]) -> tuple[Training, ...]:
    """Give the trainings that cells need, each once, those below first."""
    return tuple(dict.fromkeys(one for cell in cells for one in cell.training.chain))
