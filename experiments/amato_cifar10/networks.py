"""The cells of Amato et al.'s tables: networks written as letters, the trainings that make each, and their layers.

A network of up to five layers and a classifier is written `GGHHG-G`: G learns by gradient, H by Hebb's rule, R stays
as it was drawn. Trainings are shared: `plan` gives the same `Training` wherever cells need the same one.
"""

import dataclasses
import re
from typing import NamedTuple

from hebbjax import Layer, Window, layers, readout, rules, transforms
from hebbjax.layers import initializers, normalization
from hebbjax.support.checks import require

DEPTH, CLASSIFIER = 5, 6  # layers; the classifier's number, after them
SHAPE, CLASSES = (32, 32, 3), 10
LETTERS = {'G': 'gradient', 'H': 'Hebbian', 'R': 'random'}
SIZES = {1: (96, 5, True), 2: (128, 3, False), 3: (192, 3, True), 4: (256, 3, False), 5: (300, 3, False)}
"""Layer -> neurons, window, whether it is pooled (2 x 2 maxima): the paper's figure 1 and the authors' code."""
NEURONS_OF_CLASSES = {2: (8, 48), 3: (16, 32), 4: (24, 16), 5: (28, 20)}
"""Layer -> neurons of each class, and common ones: the authors' code. The 16 common ones that the paper writes of layer
2 cannot be: 8 * 10 + 16 is not 128."""
DRAWN = {'uniform': 'HR', 'ones': 'R', 'drawn': 'GHR'}  # scale -> letters that draw theirs from U(0, 1)
RATE = 0.1  # of Hebbian layers: the step towards the mean of what was won
DROPOUT = 0.5  # before the classifier of a gradient network


# Which trainings make a network


@dataclasses.dataclass(frozen=True)
class Training:
    """Some layers that learn together, on finished ones below."""

    letter: str  # how: 'G', 'H', or 'R', which draws them and leaves it at that
    layers: tuple[int, ...]  # their numbers, from 1; the classifier is 6
    whiten: bool = False  # whether images are whitened
    scale: str = 'uniform'  # first scales of batch normalisation are 1, but of the letters that `DRAWN` names for this
    on: 'Training | None' = None  # the training that made what lies below; None: they stand on the images
    upto: int = 0  # of how many of its layers

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
        if self.layers[0] >= DEPTH:
            return 5e-4
        if self.layers[-2] < DEPTH:  # some layers with a classifier, later taken off
            return {1: 0.02, 2: 0.03, 3: 0.04, 4: 0.05}[self.layers[-2]]
        return {1: 0.06, 2: 0.07, 3: 0.06, 4: 0.05}[self.layers[0]]

    @property
    def batch(self) -> int:
        """Images per step: 64, but 32 for Hebbian layers on one gradient layer, as the authors had it."""
        return 32 if self.letter == 'H' and self.upto == 1 and self.on.letter == 'G' and len(self.layers) > 1 else 64


# what may stand behind a network's letters: whether images are whitened (None: see `plan`), batch norm's scales
NOTES = {'': (None, 'uniform'), 'plain': (False, 'uniform'), 'whitened': (True, 'uniform')}
NOTES |= {scale: (None, scale) for scale in ('ones', 'drawn')}


def parse(name: str) -> tuple[str, str, bool | None, str]:
    """Read a network's name: the letters of its layers, its classifier's, what its note says; refuse what is none."""
    letters, _, note = name.partition('.')
    own, dash, classifier = letters.partition('-')
    fits = dash and 1 <= len(own) <= DEPTH and len(classifier) == 1
    require(fits, f'{letters!r} is no network: write 1 to 5 layers, a dash and the classifier, such as GGHHG-G.')
    wrong = ''.join(sorted(set(own + classifier) - set(LETTERS)))
    require(not wrong, f'{letters!r} holds {wrong!r}; layers are G (gradient), H (Hebbian) or R (random).')
    require(classifier != 'R', f'{letters!r} has a random classifier, which tells nothing; use G or H.')
    require(note in NOTES, f'{name!r} ends in {note!r}; behind a dot stands {", ".join(filter(None, NOTES))}.')
    return own, classifier, *NOTES[note]


def plan(name: str) -> Training:
    """Lay out the trainings of a network, as the paper does: the last one, which stands on the others.

    - A classifier on top of layers of one kind reads the network that was trained whole (of one Hebbian layer: that
      layer with a classifier, as the authors' code has it).
    - Gradient layers below Hebbian ones are trained under a linear classifier, which is then taken off.
    - Hebbian layers between others are trained with Hebbian ones up to the top, of which the lower are taken.
    - Gradient layers on top are trained from scratch on what lies below, which stays as it is.

    Images are whitened, unless a note says, where the lowest layer is Hebbian, as in the paper, or random: the paper
    does not say, but with whitening the random networks come to its numbers.
    """
    own, classifier, whiten, scale = parse(name)
    whiten = own[0] != 'G' if whiten is None else whiten
    kinds = [*re.finditer(r'(.)\1*', own)]  # neighbours of one letter
    below, upto, scaled = None, 0, 'uniform'
    for kind in kinds:
        letter, first, last = kind[1], kind.start() + 1, kind.end()
        is_whole = (letter == 'H' and last > 1) or (letter == 'G' and len(kinds) == 1)
        learning = tuple(range(first, (DEPTH if is_whole else last) + 1))
        learning += () if letter == 'R' else (CLASSIFIER,)
        # a scale is told apart from the first layer on that it matters to, so that trainings below are shared
        scaled = scale if (letter, scale) in (('H', 'ones'), ('G', 'drawn')) else scaled
        below, upto = Training(letter, learning, whiten, scaled, below, upto), last
    if below.letter == classifier and below.layers[-2:] == (upto, CLASSIFIER):
        return below  # it was trained under just this classifier
    return Training(classifier, (CLASSIFIER,), whiten, below.scale, below, upto)


# What their layers are


def hebbian_layer(number: int, scale: str) -> Layer:
    """Build a Hebbian layer: winner-take-all by angle within the groups of the teacher, `max(0, cos)` sent on."""
    move, how = transforms.scale_by_rate(RATE), {'patch_transform': layers.raw, 'init': initializers.fan_in}
    rule = rules.instar(None if number == CLASSIFIER else 1, metric='cosine', reduce=rules.mean_over_credit)
    if number == CLASSIFIER:  # class means, by which a projection is measured
        return Layer(CLASSES, rule, move, teacher=rules.one_hot(CLASSES), output='projection', post=(), **how)
    features, window, _ = SIZES[number]
    if groups := NEURONS_OF_CLASSES.get(number):
        how['teacher'] = rules.groups(CLASSES, *groups)
    return Layer(features, rule, move, Window(window), output='cosine', post=post_of(number, scale), **how)


def gradient_layer(number: int, scale: str, dropout: float) -> Layer:
    """Build a layer that learns by gradient: bias, rectifier, pooling, batch norm; the classifier is linear."""
    if number == CLASSIFIER:
        return readout.gradient_layer(CLASSES, pre=(readout.Dropout(dropout),) if dropout else (), post=())
    return readout.gradient_layer(SIZES[number][0], Window(SIZES[number][1]), post=post_of(number, scale))


def post_of(number: int, scale: str) -> tuple:
    """Give what drives pass before they are sent on, with batch norm's scales of 1 or from U(0, 1)."""
    norm = layers.BatchNorm(scale={'uniform': normalization.uniform, 'ones': normalization.ones}[scale])
    return (layers.relu, layers.max_pool(2), norm) if SIZES[number][2] else (layers.relu, norm)


def network(training: Training) -> tuple[Layer, ...]:
    """Build the network that a training ends with, those layers included that it stands on.

    A random layer is a gradient layer whose batch norm has never seen an image. It answers by mean 0, variance 1 and
    scales from U(0, 1), as PyTorch 1.0 drew them, so that answers shrink from layer to layer. Five such layers leave a
    classifier at chance, as in the paper (9.52 %); the answers of random Hebbian layers, which are cosines, do not.
    """
    below = () if training.on is None else network(training.on)[: training.upto]
    scale = 'uniform' if training.letter in DRAWN[training.scale] else 'ones'
    if training.letter == 'H':
        return (*below, *(hebbian_layer(number, scale) for number in training.layers))
    dropout = DROPOUT if DEPTH in training.layers else 0.0
    return (*below, *(gradient_layer(number, scale, dropout) for number in training.layers))


# What the paper reports


class Cell(NamedTuple):
    """A network and what the paper reports of it."""

    name: str  # its letters and perhaps a note, such as `H-G.ones`
    paper: float | None = None  # percent
    group: str = ''  # its title: of table 1 a row, of table 2 what the paper calls a group


def read_group(title: str, text: str) -> tuple[Cell, ...]:
    """Read the cells of a group: names, each with the paper's number behind it."""
    words = text.split()
    return tuple(Cell(name, float(paper), title) for name, paper in zip(words[::2], words[1::2]))


ON_GRADIENT = 'G-G 60.71 GG-G 66.30 GGG-G 72.39 GGGG-G 82.69 GGGGG-G 84.95'
MEANS = 'G-H 46.58 GG-H 56.59 GGG-H 67.79 GGGG-H 82.18 GGGGG-H 84.88'
ON_HEBBIAN = 'H-G{0} 63.92 HH-G{0} 63.81 HHH-G{0} 58.28 HHHH-G{0} 52.99 HHHHH-G{0} 41.78'
ON_RANDOM = 'RGGGG-G{0} 80.19 RRGGG-G{0} 71.87 RRRGG-G{0} 54.96 RRRRG-G{0} 45.56'
GROUPS = {
    'gradient': read_group('gradient classifier on gradient layers', ON_GRADIENT),
    'means': read_group('Hebbian classifier on gradient layers', MEANS),
    'hebbian': read_group('gradient classifier on Hebbian layers', ON_HEBBIAN.format('')),
    '1': read_group('all by one rule', 'GGGGG-G 84.95 HHHHH-H 28.59'),
    '2': read_group('Hebbian bottom', 'HGGGG-G 84.93 HHGGG-G 78.61 HHHGG-G 67.87 HHHHG-G 57.56 HHHHH-G 41.78'),
    '3': read_group('random bottom', ON_RANDOM.format('') + ' RRRRR-G 9.52'),
    '4': read_group('Hebbian top', 'GGGGG-H 84.88 GGGGH-H 83.16 GGGHH-H 71.18 GGHHH-H 50.43 GHHHH-H 32.95'),
    '5': read_group('one Hebbian layer', 'GHGGG-G 80.36 GGHGG-G 80.68 GGGHG-G 80.92 GGGGH-G 83.75'),
    '6': read_group('two Hebbian layers', 'GHHGG-G 72.12 GGHHG-G 74.98 GGGHH-G 76.86'),
    '7': read_group('three Hebbian layers', 'GHHHG-G 63.68 GGHHH-G 62.43'),
    '8': read_group('four Hebbian layers', 'GHHHH-G 47.24'),
    # the authors' result files, and scales of 1
    'class': read_group('Hebbian classifier on one Hebbian layer', 'H-H 41.84 H-H.plain 27.11'),
    'ones': read_group('scales of 1: gradient classifier on Hebbian layers', ON_HEBBIAN.format('.ones')),
    'ones-class': read_group('scales of 1: Hebbian throughout', 'H-H.ones 41.84 HHHHH-H.ones 28.59'),
    'drawn': read_group('all scales drawn: random bottom', ON_RANDOM.format('.drawn')),
}
IN_TABLES = {'1': ('gradient', 'means', 'hebbian'), '2': '12345678', 'more': ('class', 'ones', 'ones-class', 'drawn')}
TABLES = {table: [cell for name in names for cell in GROUPS[name]] for table, names in IN_TABLES.items()}
CELLS = {cell.name: cell for cells in GROUPS.values() for cell in cells}
