"""Talloen et al. 2021, table 1: a Hebbian convolution under a trained head, and its controls; 91.44 on Fashion-MNIST.

    python experiments/fashion_mnist_cnn.py --dataset fashion_mnist --json FILE --figure filters.png
    python experiments/fashion_mnist_cnn.py --dataset digits            # embedded, half a minute

The network: patches, centred and scaled to unit length -> Krotov-Hopfield filters -> batch norm -> RePU -> max pool ->
linear. Rows:

    raw_pixels          a linear classifier without any features: the floor
    untrained           the same network and head on filters as drawn
    hebbian             the filters learned without labels, the head by gradient on frozen filters
    backprop            the same network trained end to end, by settings of its own (--backprop-...)
    published_setting   the paper's p, k, delta on raw patches
    patches, gaussian   copied windows of training images, normal rows of length 1 (`training.controls`)

Every choice (epoch, rate reductions, early stopping) is made on a validation split of the training data; the test split
is read when all networks are trained. How the settings were chosen: RESULTS.md.
"""

import dataclasses
import sys

import common
import jax

from hebbjax import plots
from hebbjax.cli import flags
from hebbjax.training.comparison import Entry

PAPER = {'fashion_mnist': {'hebbian': 91.44, 'backprop': 91.94}}
PUBLISHED = {'patch_transform': 'raw', 'k': 4, 'delta': 0.4, 'p': 4.0}


@dataclasses.dataclass(frozen=True)
class Config(common.Settings):
    """Hebbian convolution -> batch norm -> RePU -> max pool -> linear, beside its controls."""

    window: flags.Count = 5  # Side of the filters, in pixels
    pool: flags.Count = 4  # Side of the max-pooling blocks, in positions
    patches_per_image: flags.CountOrZero = 1  # Patches drawn per image and Hebbian step; 0: all of them


PRESETS = common.settings_by_dataset(Config, 'cnn', ('fashion_mnist', 'mnist', 'cifar10', 'digits'))


def build_entries(settings: Config, images: jax.Array, classes: int) -> dict[str, Entry]:
    """Build the Hebbian network and its controls."""
    published = dataclasses.replace(settings, **PUBLISHED)  # differs in the layer alone
    layer, published_layer = (common.hebbian_layer(which, len(images)) for which in (settings, published))
    more, paper = {'published_setting': (published_layer, published.p)}, PAPER.get(settings.dataset, {})
    return common.classifier_entries(settings, layer, images.shape[1:], classes, paper, settings.pool, more)


def draw_filters(settings: Config, filters: dict[str, jax.Array], shape: tuple[int, int, int]):
    """Draw the filters that the first seed learned."""
    if 'hebbian' not in filters:
        return None
    title = f'{settings.dataset}: {settings.features} Hebbian filters'
    return plots.filter_grid(filters['hebbian'], (settings.window, settings.window, shape[2]), title=title)


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    experiment = lambda settings: common.compare(settings, build_entries, draw_filters)  # noqa: E731
    return common.run(experiment, PRESETS, argv, 'fashion_mnist_cnn.py')


if __name__ == '__main__':
    sys.exit(main())
