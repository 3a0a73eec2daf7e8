"""What the networks of winner-take-all by the angle share: settings, the layer, its controls, going through them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import common
import jax
import optax

from hebbjax import Layer, Window, data, layers, plots, readout, rules, transforms
from hebbjax.cli import flags
from hebbjax.training import Stage, comparison, controls

KINDS = 'learned', 'patches', 'gaussian'
HEADS = {'ridge': readout.ridge_probe, 'softmax': readout.softmax_probe}


@dataclasses.dataclass(frozen=True)
class Settings(common.Comparison):
    """What a network that winner-take-all learns on CIFAR-10, and its controls, can be told."""

    rows: tuple[flags.choice(*KINDS), ...] = KINDS  # How filters are made
    epochs: flags.Count = 6  # Of learning, for each layer
    shown: flags.Count = 10_000  # Images that are learned from
    patches: flags.Count = 32  # Patches of each image that a step looks at
    batch: flags.Count = 200  # Images per step
    rate: flags.Rate = 0.3  # First rate, which falls linearly from epoch to epoch
    precision: flags.choice(*common.PRECISIONS) = 'highest'  # Of products: highest, float32x3, tensorfloat32, bfloat16
    head: flags.choice(*HEADS) = 'ridge'  # Classifier: ridge or softmax regression; softmax takes longer
    penalties: tuple[flags.Rate, ...] = (1.0, 10.0, 100.0, 1000.0)  # Of the head, to choose from
    flips: bool = True  # Learn from mirror images as well, and let answers be means of both
    crops: flags.CountOrZero = 0  # And from images moved so far to each corner, in pixels; 0: not
    validation: flags.Part = 1 / 10  # Share of the training data that the penalty is chosen on

    dataset = 'cifar10'

    def count_shown(self, train) -> int:
        """Give the number of images learned from, or refuse batches that are larger."""
        count = min(self.shown, len(train[1]))
        common.check_batch(self.batch, count, 'images learned from')
        return count

    def probe(self, block: int = 1000, features: Callable = readout.probe_features) -> readout.ProbeFit:
        """Build the head, on features of `block` images at once."""
        how = {'flips': self.flips, 'crops': self.crops, 'features': features}
        return HEADS[self.head](self.penalties, block, self.probe_mesh(), **how)


def winner_layer(settings: Settings, features: int, count: int, window: Window, **how) -> Layer:
    """Build a layer whose neuron at the smallest angle moves towards what it won, and whose rows have length 1.

    `count` images are learned from; `how` is the rest of the layer.
    """
    rate = transforms.linear_by_epoch(settings.rate, settings.epochs, count // settings.batch)
    rule = rules.instar(1, metric='cosine', reduce=rules.mean_over_credit)
    tx = optax.chain(transforms.scale_by_rate(rate), transforms.project_unit_rows())
    return Layer(features, rule, tx, window, patches_per_image=settings.patches, precision=settings.precision, **how)


def whitened(images, epsilon: float) -> tuple[Callable, Callable]:
    """Fit ZCA to images, each by its own mean and deviation. -> the parts of `pre` that do the one, then the other."""
    common.tell_status('whitening')
    see = jax.jit(lambda images: layers.standardise(layers.to_intensities(images)))
    return layers.standardise, functools.partial(data.whiten, data.fit_whitening(see(images), epsilon=epsilon))


def beside_controls(
    settings: Settings, net: tuple[Layer, ...], count: int, probe: readout.ProbeFit, paper: float | None = None
) -> Mapping[str, comparison.Entry]:
    """Make the network's entry, layer after layer from image patches, and those of its controls, under one head."""
    stages = tuple(Stage(settings.epochs, (number,)) for number in range(len(net)))
    how = {'batch': settings.batch, 'start': controls.patch_rows, 'shown': count, 'paper': paper}
    return controls.with_controls(comparison.Entry(net, probe, stages, **how), settings.rows)


def compare(settings: common.Comparison, build: Callable, title: str, side: int) -> bool:
    """Train every row on every seed, then read the test split, report, and say whether the user ended it early.

    `build`: (settings, images and labels of training) -> entries; `side`: of the filters that are drawn.
    """
    train, validation = common.load_train(settings.dataset, settings.validation, settings.data_dir, settings.images)
    entries, title = build(settings, train), f'{settings.dataset}, {title}, accuracy in percent'
    draw = lambda filters, shape: plots.filters_side_by_side(filters, (side, side, shape[2]))  # noqa: E731
    return common.run_entries(settings, entries, train, validation, title, draw)[1]
