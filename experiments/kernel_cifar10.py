"""Mairal 2016: two layers of an unsupervised kernel network on CIFAR-10, learned by winner-take-all; 77.5 and 82.0 %.

    python experiments/kernel_cifar10.py --json FILE                                  # 64 and 256 neurons
    python experiments/kernel_cifar10.py --neurons 256 1024 --seeds 1 --rows learned             # an hour
    python experiments/kernel_cifar10.py --seeds 1 --images 5000 --no-flips           # a look at it

The network: images, normalised and whitened (ZCA) -> 64 neurons of 3 x 3 -> 256 of 3 x 3. A neuron sends the patch's
length times `exp((c - 1) / sigma^2)`, c the cosine between them; maps pass a Gaussian of stride 2, after layer 2 of
stride 5; then channels are decorrelated by `kappa(W W')^(-1/2)`, which follows from the weights alone. Learning, one
layer after the other: the neuron at the smallest angle moves towards what it won, rows have length 1, image patches
begin. Rows:

    learned    filters that were learned without labels
    patches    image patches, as learning starts from them
    gaussian   normal rows of length 1

All 4 x 4 positions of the last layer, of mean 0 and deviation 1 in every image, are read out by ridge regression, whose
penalty is chosen on a validation split; images and their mirror images are learned from, and answers are means of both.
The test split is read when all networks are finished. Published are a linear SVM's on 3 x 3 positions, without mirror
images. Strides and `--epsilon` were chosen on validation images.
"""

import dataclasses
import functools
import pathlib
import sys

import common
import jax
import numpy as np
import optax

from hebbjax import Layer, Window, data, layers, plots, readout, rules, transforms
from hebbjax.cli import flags, launch
from hebbjax.training import Stage, comparison, controls

PAPER = {(64, 256): 77.5, (256, 1024): 82.0, (512, 8192): 84.0}  # neurons -> percent
KINDS = 'learned', 'patches', 'gaussian'


@dataclasses.dataclass(frozen=True)
class Config(launch.OnDevices):
    """Two layers of an unsupervised kernel network on CIFAR-10 (Mairal 2016), learned by winner-take-all."""

    neurons: tuple[flags.Count, flags.Count] = (64, 256)  # Of the two layers; published: 64 256, 256 1024, 512 8192
    windows: tuple[flags.Count, flags.Count] = (3, 3)  # Sides of their windows; 3 2 for 512 8192
    rows: tuple[flags.choice(*KINDS), ...] = KINDS  # How filters are made
    strides: tuple[flags.Count, flags.Count] = (2, 5)  # Of the Gaussians above them; published: 2 6, 3 x 3 positions
    seeds: flags.Seeds = 3  # Number of seeds, 0, 1, ...; each draws first patches and the order of images anew
    first_seed: flags.Seed = 0  # The first of them, to go on where an earlier run stopped
    epochs: flags.Count = 6  # Of learning, for each layer
    shown: flags.Count = 10_000  # Images that are learned from
    patches: flags.Count = 32  # Patches of each image that a step looks at
    batch: flags.Count = 200  # Images per step
    rate: flags.Rate = 0.3  # First rate, which falls linearly from epoch to epoch
    sigma: flags.Rate = 0.6  # Width of the kernel
    whitening_images: flags.Count = 9000  # Images that ZCA is fitted to
    epsilon: flags.Rate = 0.1  # Added to its eigenvalues
    penalties: tuple[flags.Rate, ...] = (0.1, 1.0, 10.0, 30.0, 100.0)  # Of ridge regression, to choose from
    flips: bool = True  # Learn from mirror images as well, and let answers be means of both
    validation: flags.Part = 1 / 10  # Share of the training data that the penalty is chosen on
    images: flags.Count | None = None  # Training images used; left out: all. Fewer are for trying things out
    data_dir: pathlib.Path | None = None  # Where data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, ~/tensorflow_datasets
    weights: pathlib.Path | None = None  # Folder for the weights of every network, ROW_SEED.safetensors
    json: pathlib.Path | None = None  # File for all results, with configuration and versions
    figure: pathlib.Path | None = None  # File for a picture of the first layer's filters, first seed (png, pdf, svg)

    dataset = 'cifar10'


def flatten(maps: jax.Array) -> jax.Array:
    """Lay all positions side by side, so that a classifier sees each of them. [B, H, W, N] -> [B, 1, 1, H W N]."""
    return maps.reshape(len(maps), 1, 1, -1)


def make_network(config: Config, pre: tuple, count: int) -> tuple[Layer, ...]:
    """Build the two layers; `pre` prepares images, `count` of them are learned from."""
    net = []
    for number, (features, size, stride) in enumerate(zip(config.neurons, config.windows, config.strides)):
        rate = transforms.linear_by_epoch(config.rate, config.epochs, count // config.batch)
        send = layers.gauss_pool(stride), layers.Decorrelate(config.sigma)
        net.append(
            Layer(
                features,
                rules.instar(1, metric='cosine', reduce=rules.mean_over_credit),
                optax.chain(transforms.scale_by_rate(rate), transforms.project_unit_rows()),
                Window(size, 1, size // 2),
                pre=() if number else pre,
                patch_transform=layers.raw,  # its length is sent on, and lets long ones teach more
                output=layers.AngleKernel(config.sigma),
                post=(*send, layers.standardise, flatten) if number else send,
                patches_per_image=config.patches,
            )
        )
    return tuple(net)


def build_entries(config: Config, train) -> dict[str, comparison.Entry]:
    """Build the network that learns, and its controls; whitening is fitted to the first images."""
    shape, count = train[0].shape[1:], min(config.shown, len(train[1]))
    if config.batch > count:
        raise ValueError(f'--batch {config.batch} is larger than the {count} images learned from; use {count} at most.')
    common.check_fits(make_network(config, (layers.standardise,), count), shape)
    common.tell_status('whitening')
    prepare = jax.jit(lambda images: layers.standardise(layers.to_intensities(images)))
    zca = data.fit_whitening(prepare(train[0][: config.whitening_images]), epsilon=config.epsilon)
    net = make_network(config, (layers.standardise, functools.partial(data.whiten, zca)), count)
    entry = comparison.Entry(
        net,
        readout.ridge_probe(config.penalties, mesh=config.mesh(), flips=config.flips),
        tuple(Stage(config.epochs, (number,)) for number in range(len(net))),
        config.batch,
        controls.patch_rows,
        count,
        paper=PAPER.get(config.neurons),
    )
    return controls.with_controls(entry, config.rows)


def experiment(config: Config) -> bool:
    """Train every row on every seed, then read the test split, report, and say whether the user ended it early."""
    train, validation = common.load_train('cifar10', config.validation, config.data_dir, config.images)
    entries = build_entries(config, train)
    title = f'CIFAR-10, {config.neurons[0]} and {config.neurons[1]} neurons, accuracy in percent'
    trained, _, interrupted = common.run_entries(config, entries, train, validation, title)
    filters = {row: np.asarray(network.probe.layers[0].w) for (row, seed), network in trained.items() if not seed}
    if filters:
        figure = plots.filters_side_by_side(filters, (*[config.windows[0]] * 2, 3))
        common.write_figure(config.figure, figure)
    return interrupted


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'kernel_cifar10.py')


if __name__ == '__main__':
    sys.exit(main())
