"""Krotov & Hopfield 2019: 2000 dense Hebbian units under a classifier, 98.54 on MNIST; Talloen et al. 2021, figure 2.

    python experiments/krotov_mnist.py --json FILE --figure units.png
    python experiments/krotov_mnist.py --shift 0 --rows untrained hebbian       # no shifts, as the paper
    python experiments/krotov_mnist.py --dataset digits                            # embedded, half a minute

The network: images scaled to unit length -> Krotov-Hopfield units -> batch norm -> RePU -> linear. Rows:

    raw_pixels   a linear classifier without any features: the floor
    untrained    the same classifier on the units that learning starts from: training images, on MNIST
    hebbian      units learned without labels, the classifier by gradient on frozen units
    backprop     the same network trained end to end
    patches, gaussian    copied training images, normal rows of length 1 (`training.controls`)

Every choice (epoch, rate reductions, early stopping) is made on a validation split of the training data; the test split
is read when all networks are trained. How the settings were chosen: RESULTS.md.
"""

import sys

import common
import jax

from hebbjax import plots
from hebbjax.training.comparison import Entry

PAPER = {'mnist': {'hebbian': 98.54}}

Config = common.Settings
PRESETS = common.settings_by_dataset(Config, 'dense', ('mnist', 'fashion_mnist', 'cifar10', 'digits'))


def build_entries(settings: Config, images: jax.Array, classes: int) -> dict[str, Entry]:
    """Build the Hebbian network and its controls."""
    layer = common.hebbian_layer(settings, len(images), window=0, patches_per_image=0)  # the whole image
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
