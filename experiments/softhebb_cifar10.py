"""SoftHebb's three layers under a linear head (Journé et al., ICLR 2023), beside filters that nobody learned.

    python experiments/softhebb_cifar10.py --data-dir DIR --json softhebb.json     # hours on a CPU
    python experiments/softhebb_cifar10.py --images 500 --rows learned patches --seeds 1 --head-epochs 5 --data-dir DIR

All layers learn together in one epoch, 10 images a step, without labels; the head, behind dropout of every input, is
trained for 50 epochs on frozen features, and its last epoch is kept. Nothing is chosen: settings are the published
ones, and the validation images are there to be watched. The same network beside it: with copied image patches, these
less their mean, Gaussian filters of unit length, and the first weights as filters (`training.controls`); `backprop`,
which is not among the rows unless asked for, learns all of it end to end.
"""

import dataclasses
import functools
import sys

import common
import winners

from hebbjax import data, readout
from hebbjax.cli import flags
from hebbjax.layers import initializers
from hebbjax.training import controls, plan_stages, presets
from hebbjax.training.comparison import Entry

CUTS = 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9  # shares of the epochs after which the head's rate is halved
PAPER = {'cifar10': {'learned': 80.3}, 'mnist': {'learned': 99.35}}  # table 1; the second of their own network


@dataclasses.dataclass(frozen=True)
class Config(common.Comparison):
    """SoftHebb's three layers beside controls (Journé et al. 2023)."""

    dataset: flags.choice('cifar10', 'mnist', 'fashion_mnist') = 'cifar10'  # Images: cifar10, mnist or fashion_mnist
    rows: tuple[flags.choice(*controls.CONTROLS), ...] = controls.CONTROLS[:5]  # Which networks; backprop: end to end
    features: tuple[flags.Count, flags.Count, flags.Count] = (96, 384, 1536)  # Neurons of the three layers
    epochs: flags.Count = 1  # Hebbian epochs; more than one makes it worse
    batch: flags.Count = 10  # Images per Hebbian step
    precision: flags.choice(*common.PRECISIONS) = 'highest'  # Of products: highest, float32x3, tensorfloat32, bfloat16
    order: flags.choice('simultaneous', 'greedy') = 'simultaneous'  # Layers learn together, or one after the other
    settling: flags.Count = 5000  # Images on which running averages of networks that do not learn settle
    head_epochs: flags.Count = 50  # Epochs of the head
    head_batch: flags.Count = 64  # Images per gradient step
    head_rate: flags.Rate = 1e-3  # Adam's first rate, halved seven times
    dropout: flags.number(least=0, below=1) = 0.5  # Share of the head's inputs silenced while it trains
    backprop_epochs: flags.Count = 20  # Epochs of the end-to-end twin
    validation: flags.Part = 1 / 50  # Share of the training data that is watched


def build_entries(config: Config, train) -> dict[str, Entry]:
    """Build the network that learns, and its controls."""
    common.check_batch(config.batch, len(train[1]))
    net, classes = presets.softhebb_network(config.features, precision=config.precision), int(train[1].max()) + 1
    head = readout.linear_head(classes, norm=False, power=None, dropout=config.dropout, maps=False)

    def schedule(epochs: int) -> readout.Milestones:
        how = {'milestones': tuple(int(cut * epochs) for cut in CUTS), 'optimizer': 'adam', 'choose': 'last', 'l2': 0.0}
        return readout.Milestones(epochs, config.head_batch, config.head_rate, **how)

    watch = lambda number, line: common.tell_epoch(config.dataset, number, line)  # noqa: E731
    probe = functools.partial(readout.gradient_probe, head, watch=watch, mesh=config.probe_mesh())
    stages, paper = plan_stages(config.order, net, config.epochs), PAPER.get(config.dataset, {}).get('learned')
    entry = Entry(net, probe(schedule(config.head_epochs)), stages, config.batch, paper=paper)
    # the twin is drawn as deep-learning users draw, and sees mirror images, too
    plain = presets.softhebb_network(config.features, init=initializers.fan_in, precision=config.precision)
    augment = data.random_flip if config.dataset == 'cifar10' else None
    twin = Entry(plain, probe(schedule(config.backprop_epochs), 0, augment=augment))
    return controls.with_controls(entry, config.rows, twin, config.settling)


def experiment(config: Config) -> bool:
    """Train every network on every seed and report; say whether the user ended it early."""
    return winners.compare(config, build_entries, 'SoftHebb', 5)


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'softhebb_cifar10.py')


if __name__ == '__main__':
    sys.exit(main())
