"""Thiry et al. 2021: one layer of a large dictionary of whitened patches on CIFAR-10, here learned; 78.4 with 512.

    python experiments/dictionary_cifar10.py --json FILE                             # 512 neurons, three seeds
    python experiments/dictionary_cifar10.py --neurons 1024 --seeds 1 --rows learned
    python experiments/dictionary_cifar10.py --seeds 1 --images 5000 --no-flips      # a look at it

The network: patches of 6 x 6, whitened -> neurons, each of which stands for a patch and for its negative. The 40 % of
them that are nearest to a patch send 1 (`--send nearest`), or all send a sigmoid of how much nearer they are than most.
Means over 4 x 4 overlapping blocks of the map are read out by ridge regression, whose penalty is chosen on a validation
split; images and their mirror images are learned from, and answers are means of both. Rows:

    learned    the neuron at the smallest angle moves towards what it won: spherical k-means, from patches on
    patches    whitened image patches, as published
    gaussian   normal rows of length 1

Published is a linear classifier with a bottleneck, trained by gradient for 175 epochs on means over 9 x 9 blocks. The
test split is read when all networks are finished.
"""

import dataclasses
import functools
import sys

import common
import jax
import winners

from hebbjax import Window, data, layers
from hebbjax.cli import flags

PAPER = {512: 78.4, 1024: 80.3, 2048: 82.6}  # neurons -> percent, of copied patches at the last epoch


@dataclasses.dataclass(frozen=True)
class Config(winners.Settings):
    """One layer of a large dictionary of whitened patches on CIFAR-10 (Thiry et al. 2021), learned."""

    neurons: flags.Count = 512  # Of the layer; each sends two numbers, of itself and of its negative
    window: flags.Count = 6  # Side of the patches
    epsilon: flags.Rate = 1e-3  # Added to the eigenvalues of the patches' covariance, of intensities in [0, 1]
    send: flags.choice('sigmoid', 'nearest') = 'sigmoid'  # What neurons send
    share: flags.number(above=0, below=1) = 0.4  # Of neurons and their negatives that are near
    temperature: flags.Rate = 0.2  # Of the sigmoid, in units of drives. 2 in the paper, whose rows are 6 long
    block: flags.Count = 9  # Side of the blocks that means are taken over
    stride: flags.Count = 6  # From block to block: 4 x 4 of them


def build_entries(config: Config, train) -> dict:
    """Build the layer that learns, and its controls; whitening is fitted to patches of the images learned from."""
    count, window = config.count_shown(train), Window(config.window)
    temperature = None if config.send == 'nearest' else config.temperature
    send = layers.both_signs, layers.nearest(config.share, temperature), layers.avg_pool(config.block, config.stride)
    build = functools.partial(winners.winner_layer, config, config.neurons, count, window, post=send)
    common.check_fits((build(),), train[0].shape[1:])
    common.tell_status('whitening')
    cut = jax.jit(lambda images: layers.sample_patches(jax.random.key(0), window, layers.to_intensities(images), 32))
    zca = data.fit_whitening(cut(train[0][:count]), epsilon=config.epsilon)
    net = (build(patch_transform=functools.partial(data.whiten, zca)),)
    return winners.beside_controls(config, net, count, config.probe(100, layers.features), PAPER.get(config.neurons))


def experiment(config: Config) -> bool:
    """Compare the layer with its controls; say whether the user ended it early."""
    return winners.compare(config, build_entries, f'{config.neurons} neurons', config.window)


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'dictionary_cifar10.py')


if __name__ == '__main__':
    sys.exit(main())
