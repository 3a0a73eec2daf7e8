"""Stacks of Hebbian layers: the network of a row, and its training over all seeds in one program."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from rich.console import Console

from hebbjax import (
    activations,
    augment,
    competition,
    initial,
    layers,
    parallel,
    patches,
    plasticity,
    pooling,
    rules,
    supervised,
    train,
    whitening,
)
from hebbjax.homeostasis import Homeostasis
from hebbjax.interrupt import wait
from hebbjax.jobs.settings import refuse_larger_than_memory
from hebbjax.jobs.variants import Config, Stacked, Variant
from hebbjax.layers import Layer, LayerState
from hebbjax.patches import Window
from hebbjax.progress import bar
from hebbjax.train import TrainState
from hebbjax.types import Array, LearningRule, Told

RATES = (1e-4, 1e-4, 1e-3)  # per patch won
WINDOWS = (5, 3, 3)
SHAPE = (32, 32, 3)


class Stack(NamedTuple):
    """A network that was trained on several seeds."""

    net: tuple[Layer, ...]
    states: TrainState  # a leading axis of seeds
    told: tuple[Told, ...]  # of the last epoch
    seconds: float  # of training, per seed
    compile_seconds: float

    @property
    def seeds(self) -> int:
        """How many."""
        return len(self.states.step)

    def one(self, seed: int) -> tuple[LayerState, ...]:
        """Give one seed's layers."""
        return jax.tree.map(lambda a: a[seed], self.states.layers)


class Preparation(NamedTuple):
    """How the first layer prepares what it sees."""

    images: Callable[[Array], Array]
    rows: Callable[[Array], Array]


PLAIN = Preparation(whitening.standardise, patches.raw)


def whitening_of(images: Array, count: int, whiten: str) -> whitening.Whitening:
    """Fit the first layer's whitening.

    Args:
        images: uint8 [n, H, W, C].
        count: how many of them to fit to, from the first on in equal steps.
        whiten: 'image' or 'patch', what is to be whitened.
    """
    images = whitening.standardise(layers.intensities(images[:: max(1, len(images) // count)][:count]))
    if whiten == 'image':
        return whitening.fit(images, **whitening.RECIPES['miconi_notebook'])
    x = patches.extract(Window(WINDOWS[0], stride=4), images)
    return whitening.fit(whitening.standardise(x.reshape(-1, x.shape[-1])), epsilon=1e-3)


def around(zca: whitening.Whitening, whiten: str = 'image') -> Preparation:
    """Prepare by normalising, whitening and normalising: images, as Miconi's notebook, or patches of normal images."""
    normal = whitening.standardise
    if whiten == 'image':
        return Preparation(lambda x: normal(whitening.apply(zca, normal(x))), patches.raw)
    rows = lambda x: normal(x.reshape(-1, x.shape[-1])).reshape(x.shape)  # noqa: E731
    return Preparation(normal, lambda x: rows(whitening.apply(zca, rows(x))))


def whitened(images: Array, count: int, whiten: str) -> Preparation:
    """Prepare by a whitening that is fitted here; see `whitening_of`."""
    return around(whitening_of(images, count, whiten), whiten)


def network(variant: Variant, config: Stacked, first: Preparation) -> tuple[Layer, ...]:
    """Build the network of one row.

    Args:
        variant: what the row is.
        config: sizes, rates and the burn-in.
        first: the first layer's preparation; the others normalise every image that reaches them.
    """
    net = []
    for number, (features, size, rate) in enumerate(zip(config.features, WINDOWS, RATES)):
        k = winners_of(variant, features)
        prepare = PLAIN if number else first
        step = plasticity.ascend(plasticity.after(config.burn_in, config.rate * rate))
        plastic = optax.chain(step, plasticity.masked(), plasticity.unit_rows())
        net.append(
            Layer(
                features,
                rule_of(variant, k),
                plastic if variant.trained else optax.set_to_zero(),
                Window(size),
                prepare.rows,
                prepare=prepare.images,
                homeostasis=Homeostasis(winners=k) if variant.learn == 'winners' else None,
                fire=activations.triangle if variant.fire == 'triangle' else activations.credit(competition.k_wta(k)),
                pool=pooling.avg_pool(2),
                initial=initial.pruned(variant.density if number else 1.0),
            )
        )
    return tuple(net)


def winners_of(variant: Variant, features: int) -> int:
    """Say how many neurons of a layer win: at most half."""
    return min(variant.winners, max(1, features // 2))


def rule_of(variant: Variant, winners: int) -> LearningRule:
    """Build the learning rule of one layer; rates are per patch, so patches are added up."""
    build = {'hebb': rules.hebb, 'instar': rules.instar, 'oja': rules.oja}[variant.rule]
    compete = competition.graded(activations.triangle) if variant.learn == 'triangle' else winners
    return build(compete, reduce=rules.total)


def refuse_misfits(config: Stacked, variants: Iterable[Variant], count: int) -> None:
    """Refuse, before the first hour of training, what does not fit the data.

    Raises:
        ValueError: naming what does not fit.
    """
    if config.batch > count:
        raise ValueError(f'--batch {config.batch} is larger than the {count} training images; use {count} at most.')
    steps = config.epochs * (count // config.batch)
    if config.burn_in >= steps and any(variant.trained for variant in variants):
        raise ValueError(
            f'--burn-in {config.burn_in} leaves nothing of {steps} steps to learn in; use fewer than those.'
        )
    for variant in variants:
        refuse_larger_than_memory(network(variant, config, PLAIN), SHAPE)


def learn(variant: Variant, config: Config, first: Preparation, images: Array, name: str, console: Console) -> Stack:
    """Train one network on every seed; an untrained one lets its thresholds settle for one epoch.

    Args:
        variant: what the row is.
        config: the settings.
        first: how the first layer prepares what it sees.
        images: uint8 [n, H, W, C], on the device.
        name: of the row, for the bar.
        console: for the bar.

    Raises:
        ValueError: if weights are no longer finite.
    """
    net = network(variant, config, first)
    states = parallel.init_seeds(net, jax.vmap(jax.random.key)(jnp.arange(config.seeds)), SHAPE)
    at_once = config.seeds_at_once or parallel.seeds_at_once(net, SHAPE, config.batch, config.seeds)
    epoch = parallel.over_seeds(
        train.make_train_epoch(net, batch=config.batch, augment=augment.flip), at_once, donate=True
    )
    started = time.perf_counter()
    epoch = supervised.compiled(epoch, states, images)
    ready = time.perf_counter()
    epochs = config.epochs if variant.trained else 1
    with bar(console, f'{name}: epochs, {config.seeds} seeds', epochs) as tick:
        for _ in range(epochs):
            states, told = wait(epoch(states, images))
            if not all(bool(one.finite.all()) for one in told):
                raise ValueError('weights are no longer finite: the images hold NaN, or the rate is too large.')
            tick(f'largest change {max(float(one.change.max()) for one in told):.2g}')
    return Stack(net, states, told, (time.perf_counter() - ready) / config.seeds, ready - started)
