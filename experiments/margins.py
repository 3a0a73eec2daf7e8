"""Where learning pays on CIFAR-10: learned filters beside copied patches and Gaussian ones, everything else alike.

    python experiments/margins.py --json margins_neurons.json --figure margins_neurons.png
    python experiments/margins.py --axis depth --json margins_depth.json

--axis neurons: one layer of 8, 16, ..., 512 neurons with windows of 6 x 6 at every second pixel of whitened images. The
neuron at the smallest angle moves towards what it won, from image patches on; what exceeds the mean over neurons is
sent, and means of the quadrants are read out by ridge regression. Seeds and kinds of filters share each size's program.

--axis depth: both layers of the kernel network of `kernel_cifar10.py`, or the three of SoftHebb's, which
`--weights FOLDER` of `softhebb_cifar10.py` wrote and here reads. Each is read out by means of quadrants: does it rise?

--axis labels: the same network, learned without labels, read out with 10, 50, 100 and 500 labels of each class, beside
one of as many neurons that learns end to end from these images (batch norm, convolutions of 5 x 5, then 3 x 3,
overlapping maxima, means above the last; flips and shifts). As many more images of each class, where there are, choose
the penalty, and the epoch of the twin. Choices are made on validation images, test images are read once.
"""

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator

import common
import jax
import kernel_cifar10
import numpy as np
import winners

from hebbjax import Window, data, init, interop, layers, readout
from hebbjax.cli import flags
from hebbjax.layers import initializers
from hebbjax.readout.blocks import over_blocks
from hebbjax.support import checks
from hebbjax.support.signals import hold_signals
from hebbjax.training import comparison, controls, presets


@dataclasses.dataclass(frozen=True)
class Config(winners.Settings):
    """Where learning pays: learned filters beside copied patches and Gaussian ones on CIFAR-10."""

    axis: flags.choice('neurons', 'depth', 'labels') = 'neurons'  # What accuracy is measured against
    neurons: tuple[flags.Count, ...] = (8, 16, 32, 64, 128, 256, 512)  # Sizes of the layer, for --axis neurons
    stride: flags.Count = 2  # Of its windows
    labels: tuple[flags.Count, ...] = (10, 50, 100, 500)  # Labelled images of each class, for --axis labels
    kernel: tuple[flags.Count, flags.Count] = (64, 256)  # Neurons of the kernel network and of its twin
    twin_steps: flags.Count = 2000  # Gradient steps of the twin, of 50 images at most
    weights: pathlib.Path | None = None  # Folder of SoftHebb's KIND_SEED.safetensors, for --axis depth and labels
    features: tuple[flags.Count, flags.Count, flags.Count] = (96, 384, 1536)  # Neurons of the network in there
    rows: tuple[flags.choice(*controls.CONTROLS), ...] = winners.KINDS  # Kinds of filters; backprop: for labels
    flips: bool = False  # Learn from mirror images as well, and let answers be means of both
    figure: pathlib.Path | None = None  # File for the picture of accuracies (png, pdf, svg)

    def networks(self, train) -> Iterable[tuple]:
        """Give those that are asked for. -> kind, seed, entry, layers' states, seconds of learning."""
        return (kernel_networks if self.weights is None else stored_networks)(self, train)

    def check(self) -> None:
        """Refuse what an axis has no use for."""
        named = all((self.rows, self.neurons, self.labels, self.penalties))
        checks.require(named, '--rows, --neurons, --labels and --penalties name one or more each.')
        stored = self.weights is not None
        came = '--weights are read for --axis depth and labels'
        checks.require(not stored or self.axis != 'neurons', f'{came}; leave them out, or name the axis.')
        came = f'--weights {self.weights} is no folder'
        checks.require(not stored or self.weights.is_dir(), f'{came}; give one that softhebb_cifar10.py wrote.')
        fits = stored or 'backprop' not in self.rows or self.axis == 'labels'
        checks.require(fits, f'--axis {self.axis} has no backprop but one of --weights; leave it out of --rows.')


def over_neurons(config: Config, train, validation) -> tuple[dict, dict, bool, Callable]:
    """Train a layer of every size, and its controls. -> entries, networks, whether ended early, preparation."""
    count, entries = config.count_shown(train), {}
    standardise, whiten = winners.whitened(train[0][:9000], epsilon=1e-2)
    white = jax.jit(lambda images: whiten(standardise(layers.to_intensities(images))))

    def prepare(side):  # once for all networks: it takes longer than a small one's features
        return jax.device_put(over_blocks(white, side[0], 1000)), side[1]

    how = {'patch_transform': layers.raw, 'post': layers.triangle}
    for size in config.neurons:
        net = (winners.winner_layer(config, size, count, Window(6, config.stride), **how),)
        sized = winners.beside_controls(config, net, count, config.probe())
        entries |= {f'{kind}, {size}': one for kind, one in sized.items()}
    sides = map(prepare, (train, validation))
    run = {'on_trained': common.tell_trained, 'mesh': config.mesh(), 'first': config.first_seed}
    return entries, *comparison.train_entries(entries, config.seeds, *sides, **run), prepare


def kernel_networks(config: Config, train) -> Iterator[tuple]:
    """Let the kernel network of `kernel_cifar10.py` and its controls learn."""
    own = {field.name: getattr(config, field.name) for field in dataclasses.fields(winners.Settings)}
    own['rows'] = tuple(row for row in config.rows if row != 'backprop')
    kernel = kernel_cifar10.Config(neurons=config.kernel, **own)
    entries = kernel_cifar10.build_entries(kernel, train) if kernel.rows else {}
    for seed, kind in itertools.product(config.all_seeds, entries):
        common.tell_status(f'{kind}, seed {seed}')
        key, _ = jax.random.split(jax.random.key(seed))
        state, spent, _ = comparison.learn(entries[kind], key, train, mesh=config.mesh())
        yield kind, seed, entries[kind], state.layers, spent


def stored_networks(config: Config, train) -> list[tuple]:
    """Read SoftHebb's network and its controls, all of them before the first is read out."""
    net = presets.softhebb_network(config.features, precision=config.precision)
    like = init(net, jax.random.key(0), train[0].shape[1:]).layers
    rows = [row for row in config.rows if row != 'backprop' or config.axis == 'depth']
    read = lambda kind, seed: interop.load_weights(config.weights / f'{kind}_{seed}.safetensors', net, like)  # noqa: E731
    entry = comparison.Entry(net, config.probe())
    return [(kind, seed, entry, read(kind, seed), 0.0) for seed, kind in itertools.product(config.all_seeds, rows)]


def over_depth(config: Config, train, validation, keep: Callable) -> None:
    """Read out every layer of networks, by the quadrants of its maps."""
    # the kernel network's maps, of every image by its own mean and deviation; SoftHebb's as they are
    scale = layers.standardise if config.weights is None else lambda maps: maps
    see = lambda *given, mesh=None: readout.quadrants(scale(layers.activations_of(*given, mesh=mesh)))  # noqa: E731
    probe = config.probe(features=see)
    for kind, seed, entry, states, spent in config.networks(train):
        for depth in range(1, len(entry.net) + 1):
            net, below = entry.net[:depth], states[:depth]
            keep(kind, depth, seed, net, probe(net, below, jax.random.key(seed), train, validation), train, spent)


def over_labels(config: Config, train, validation, keep: Callable) -> None:
    """Read networks out with some labels, beside a twin that learns from these alone."""
    data.labelled_subset(train[1], max(config.labels), seed=0)  # there are as many, or it is said before the first hour
    neurons = config.kernel if config.weights is None else config.features
    twin = presets.softhebb_network(neurons, powers=(1.0,) * 3, init=initializers.fan_in, precision=config.precision)
    head = readout.linear_head(10, norm=False, power=None, dropout=0.5, maps=False)

    def augment(key, images):
        flip_key, shift_key = jax.random.split(key)
        return data.random_shift(4)(shift_key, data.random_flip(flip_key, images))

    def some(count, seed):
        """Give images with so many labels of each class, and as many that choose, where there are."""
        held = min(count, int(np.bincount(validation[1]).min()))
        sides = (train, count), (validation, held)
        return [tuple(part[data.labelled_subset(side[1], least, seed)] for part in side) for side, least in sides]

    for kind, seed, entry, states, spent in config.networks(train):
        key = jax.random.split(jax.random.key(seed))[1]
        for count in config.labels:
            few, chosen = some(count, seed)
            keep(kind, count, seed, entry.net, entry.probe(entry.net, states, key, few, chosen), few, spent)
    for seed, count in itertools.product(config.all_seeds, config.labels if 'backprop' in config.rows else ()):
        few, chosen = some(count, seed)
        batch = min(50, len(few[1]))
        epochs = max(1, config.twin_steps // (len(few[1]) // batch))
        schedule = readout.Schedule(epochs, batch, 1e-3, patience=max(1, epochs // 10), stop_after=epochs)
        fit = readout.gradient_probe(head, schedule, 0, augment=augment)
        init_key, fit_key = jax.random.split(jax.random.fold_in(jax.random.split(jax.random.key(seed), 3)[2], count))
        states = init(twin, init_key, train[0].shape[1:]).layers
        keep('backprop', count, seed, twin, fit(twin, states, fit_key, few, chosen), few)


def experiment(config: Config) -> bool:
    """Measure accuracies along the axis, and report; say whether the user ended it early."""
    config.check()
    train, validation = common.load_train('cifar10', config.validation, config.data_dir, config.images)
    entries, trained, interrupted, prepare = {}, {}, False, lambda side: side

    def keep(kind, at, seed, net, probe, seen, spent=0.0):
        row, judged = f'{kind}, {at}', comparison.judge(probe, seen, validation)
        entries[row], trained[row, seed] = comparison.Entry(net, None), judged._replace(seconds=judged.seconds + spent)
        common.tell_trained(row, seed, trained[row, seed])

    if config.axis == 'neurons':
        entries, trained, interrupted, prepare = over_neurons(config, train, validation)
    else:
        try:
            {'depth': over_depth, 'labels': over_labels}[config.axis](config, train, validation, keep)
        except KeyboardInterrupt:
            interrupted = True
    if not trained:
        raise KeyboardInterrupt
    with hold_signals(forget=True) as again:  # who presses Ctrl-C again would lose all that was trained
        test = prepare(tuple(map(jax.device_put, common.load('cifar10', 'test', config.data_dir))))
        rows = comparison.score_entries(entries, trained, test)
        for row in rows:
            kind, at = row.row.split(', ')
            row.more |= {'kind': kind, 'axis': config.axis, 'at': int(at)}
            row.more['network'] = 'kernel' if config.weights is None else 'SoftHebb'
        common.report(config, rows, f'CIFAR-10 over {config.axis}, accuracy in percent', {}, interrupted)
    common.write_figure(config.figure, common.draw_margins([row.as_json() for row in rows]))
    return interrupted or bool(again)


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'margins.py')


if __name__ == '__main__':
    sys.exit(main())
