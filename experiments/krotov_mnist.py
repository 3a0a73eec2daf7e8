"""Krotov & Hopfield 2019: 2000 dense Hebbian units under a classifier, 98.54 on MNIST; Talloen et al. 2021, figure 2.

    python experiments/krotov_mnist.py --json FILE --figure units.png
    python experiments/krotov_mnist.py --shift 0 --rows untrained hebbian       # no shifts, as the paper
    python experiments/krotov_mnist.py --dataset digits                            # embedded, half a minute

The network: images scaled to unit length -> Krotov-Hopfield units -> batch norm -> RePU -> linear. Rows:

    raw_pixels   a linear classifier without any features: the floor
    untrained    the same classifier on the units that learning starts from: training images, on MNIST
    hebbian      units learned without labels, the classifier by gradient on frozen units
    backprop     the same network trained end to end on plain pixels
    patches, gaussian    copied training images, normal rows of length 1 (`training.controls`)

Every choice (epoch, rate reductions, early stopping) is made on a validation split of the training data; the test split
is read when all networks are trained. How the settings were chosen: RESULTS.md.
"""

import dataclasses
import sys

import common
import jax

from hebbjax import Window, plots
from hebbjax.training.comparison import Entry

PAPER = {'mnist': {'hebbian': 98.54}}

Config = common.Settings
IMAGES = Config(
    dataset='fashion_mnist', seeds=3, validation=1 / 12,
    features=2000, patch_transform='l2', k=2, delta=0.4, p=2.0, maximum='unit', epochs=25, batch=1000, rate=0.04,
    power=2.0, threshold=0.0, head_epochs=30, head_batch=256, head_rate=3e-4, head_patience=2, head_average=1000,
    backprop_epochs=20, backprop_rate=3e-4, backprop_seeds=1,
)  # fmt: skip
MNIST = dataclasses.replace(
    IMAGES, dataset='mnist', start='patches', delta=1.0, maximum='layer', epochs=5,
    power=3.0, threshold=-1.0, shift=1, head_epochs=50, head_rate=1e-3, head_patience=3, backprop_epochs=30,
)  # fmt: skip
DIGITS = dataclasses.replace(
    IMAGES, dataset='digits', seeds=5, validation=1 / 6, features=100, batch=100,
    head_batch=50, head_rate=3e-3, head_average=1, backprop_rate=3e-3, backprop_seeds=5,
)  # fmt: skip
PRESETS = {
    'mnist': MNIST,
    'fashion_mnist': IMAGES,
    'cifar10': dataclasses.replace(IMAGES, dataset='cifar10', validation=1 / 10),
    'digits': DIGITS,
}


def build_entries(settings: Config, images: jax.Array, classes: int) -> dict[str, Entry]:
    """Build the Hebbian network and its controls."""
    layer = common.hebbian_layer(settings, len(images), Window())  # the whole image
    return common.classifier_entries(settings, layer, images.shape[1:], classes, PAPER.get(settings.dataset, {}))


def draw_units(settings: Config, filters: dict[str, jax.Array], shape: tuple[int, int, int]):
    """Draw 25 random units of each network that learned, side by side (Talloen et al. 2021, figure 2)."""
    titles = {'backprop': '(a) end-to-end backprop', 'hebbian': '(b) Krotov-Hopfield'}
    banks = {title: filters[row] for row, title in titles.items() if row in filters}
    return plots.filters_side_by_side(banks, shape) if banks else None


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    experiment = lambda settings: common.compare(settings, build_entries, draw_units)  # noqa: E731
    return common.run(experiment, PRESETS, argv, 'krotov_mnist.py')


if __name__ == '__main__':
    sys.exit(main())
