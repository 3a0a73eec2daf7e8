"""Mairal 2016: two layers of an unsupervised kernel network on CIFAR-10, learned by winner-take-all; 77.5 and 82.0 %.

    python experiments/kernel_cifar10.py --json FILE                                  # 64 and 256 neurons
    python experiments/kernel_cifar10.py --neurons 256 1024 --seeds 1 --rows learned             # half an hour
    python experiments/kernel_cifar10.py --head softmax --penalties 3 10 30 --json FILE          # 1.4 points more
    python experiments/kernel_cifar10.py --first-layer --validation 0.04 --json FILE             # both layers read out
    python experiments/kernel_cifar10.py --neurons 256 1024 --rows learned --beside FILE ...     # with SoftHebb's
    python experiments/kernel_cifar10.py --seeds 1 --images 5000 --no-flips           # a look at it

The network: images, normalised and whitened (ZCA) -> 64 neurons of 3 x 3 -> 256 of 3 x 3. A neuron sends the patch's
length times `exp((c - 1) / sigma^2)`, c the cosine between them; maps pass a Gaussian of stride 2, after layer 2 of
stride 5; then channels are decorrelated by `kappa(W W')^(-1/2)`, which follows from the weights alone. Learning, one
layer after the other: the neuron at the smallest angle moves towards what it won, rows have length 1, image patches
begin. Rows:

    learned    filters that were learned without labels
    patches    image patches, as learning starts from them
    gaussian   normal rows of length 1

All 4 x 4 positions of the last layer, of mean 0 and deviation 1 in every image, are read out by ridge regression, or
softmax regression, whose penalty is chosen on a validation split; images and their mirror images are learned from, and
answers are means of both; with `--first-layer` means over 4 x 4 blocks of layer 1 are read out, too, and with `--beside
FILE ...` quadrants of SoftHebb's third layers. The test split is read when all networks are finished. Published are a
linear SVM's on 3 x 3 positions, without mirror images. Strides and `--epsilon` were chosen on validation images.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable

import common
import jax
import jax.numpy as jnp
import winners

from hebbjax import Layer, Window, init, interop, layers, readout
from hebbjax.cli import flags
from hebbjax.training import presets

PAPER = {(64, 256): 77.5, (256, 1024): 82.0, (512, 8192): 84.0}  # neurons -> percent


@dataclasses.dataclass(frozen=True)
class Config(winners.Settings):
    """Two layers of an unsupervised kernel network on CIFAR-10 (Mairal 2016), learned by winner-take-all."""

    neurons: tuple[flags.Count, flags.Count] = (64, 256)  # Of the two layers; published: 64 256, 256 1024, 512 8192
    windows: tuple[flags.Count, flags.Count] = (3, 3)  # Sides of their windows; 3 2 for 512 8192
    strides: tuple[flags.Count, flags.Count] = (2, 5)  # Of the Gaussians above them; published: 2 6, 3 x 3 positions
    sigma: flags.Rate = 0.6  # Width of the kernel
    whitening_images: flags.Count = 9000  # Images that ZCA is fitted to
    epsilon: flags.Rate = 0.1  # Added to its eigenvalues
    first_layer: bool = False  # Read out layer 1 beside layer 2: its means over 4 x 4 blocks
    beside: tuple[pathlib.Path, ...] = ()  # Weights that softhebb_cifar10.py wrote; highest layers are read out, too
    penalties: tuple[flags.Rate, ...] = (0.1, 1.0, 10.0, 30.0, 100.0)  # Of the head, to choose from


def make_network(config: Config, pre: tuple, count: int) -> tuple[Layer, ...]:
    """Build the two layers; `pre` prepares images, `count` of them are learned from."""
    net = []
    for number, (features, size, stride) in enumerate(zip(config.neurons, config.windows, config.strides)):
        send = layers.gauss_pool(stride), layers.Decorrelate(config.sigma)
        how = {'pre': () if number else pre, 'output': layers.AngleKernel(config.sigma)}
        how |= {'post': (*send, layers.standardise) if number else send}
        how |= {'patch_transform': layers.raw}  # its length is sent on, and lets long ones teach more
        net.append(winners.winner_layer(config, features, count, Window(size, 1, size // 2), **how))
    return tuple(net)


def build_entries(config: Config, train) -> dict:
    """Build the network that learns, and its controls; whitening is fitted to the first images."""
    count = config.count_shown(train)
    below, *above = make_network(config, (layers.standardise,), count)
    common.check_fits((below, *above), train[0].shape[1:])
    if config.first_layer:
        common.check_fits((dataclasses.replace(below, post=(*below.post, layers.avg_pool(4))),), train[0].shape[1:])
    features = read_layers(config, train[0].shape[1:])  # weights that do not fit are refused before whitening
    net = make_network(config, winners.whitened(train[0][: config.whitening_images], config.epsilon), count)
    paper = None if config.beside or config.first_layer else PAPER.get(config.neurons)
    return winners.beside_controls(config, net, count, config.probe(features=features), paper)


@jax.jit
def block_means(maps: jax.Array) -> jax.Array:
    """Give means over blocks, each image by its own mean and deviation. [B, H, W, N] -> [B, H W N / 16]."""
    return layers.standardise(layers.avg_pool(4)(maps)).reshape(len(maps), -1)


def read_layers(config: Config, shape: tuple[int, ...]) -> Callable:
    """Make what is read out: layer 2, `--first-layer`'s means over blocks, quadrants of what is `--beside` them."""
    other = presets.softhebb_network(precision=config.precision)
    drawn = init(other, jax.random.key(0), shape).layers if config.beside else ()
    learned = [interop.load_weights(path, other, drawn) for path in config.beside]
    by_quadrants = jax.jit(lambda maps: readout.quadrants(layers.standardise(maps)))

    def features(net, states, images, mesh=None) -> jax.Array:  # [b, F]
        maps = layers.activations_of(net[:1], states[:1], images, mesh=mesh)
        found = [layers.features(net[1:], states[1:], maps, mesh=mesh)]
        found += [block_means(maps)] if config.first_layer else []
        found += [by_quadrants(layers.activations_of(other, one, images, mesh=mesh)) for one in learned]
        return jnp.concatenate(found, 1)

    return features


def experiment(config: Config) -> bool:
    """Compare the network with its controls; say whether the user ended it early."""
    return winners.compare(config, build_entries, '{} and {} neurons'.format(*config.neurons), config.windows[0])


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'kernel_cifar10.py')


if __name__ == '__main__':
    sys.exit(main())
