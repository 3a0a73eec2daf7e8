"""Amato et al.'s network, layer by layer in either kind, and one training of it: what learns, and what stays."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hebbjax import (
    activations,
    frozen,
    hybrid,
    initial,
    layers,
    norms,
    plasticity,
    pooling,
    prototypes,
    supervised,
    teachers,
    train,
)
from hebbjax.interrupt import undisturbed, wait
from hebbjax.jobs.cells import CLASSIFIER, DEPTH, Training
from hebbjax.layers import Layer, LayerState
from hebbjax.norms import BatchNorm
from hebbjax.patches import Window, raw
from hebbjax.schedules import Milestones
from hebbjax.train import Network, TrainState
from hebbjax.types import Array, Key

SHAPE, CLASSES = (32, 32, 3), 10
PLAN = {1: (96, 5, True), 2: (128, 3, False), 3: (192, 3, True), 4: (256, 3, False), 5: (300, 3, False)}
"""Layer -> neurons, window, whether it is pooled (2 x 2 maxima): the paper's figure 1 and the authors' code."""
MACS = {1: 5.64, 2: 15.93, 3: 22.12, 4: 3.98, 5: 0.69, 6: 0.01}  # millions an image, to foretell how long it takes
RATE = 0.1  # of Hebbian layers: the step towards the mean of what was won
SHOWN = 500  # training images by which a loss is seen to fall
DROPOUT = 0.5  # before the classifier of a gradient network
States = tuple[LayerState, ...]


def hebbian(number: int, scale: str) -> Layer:
    """Build a Hebbian layer: winner-take-all by angle within the groups of the teacher, `max(0, cos)` sent on."""
    if number == CLASSIFIER:  # class means, by which a projection is measured
        rule, teacher = prototypes.nearest(None), teachers.one_hot(CLASSES)
        sending = {'send': 'projection', 'fire': activations.identity}
        return Layer(
            CLASSES, rule, plasticity.ascend(RATE), Window(), raw, teacher=teacher, initial=initial.fan_in, **sending
        )
    features, window, pooled = PLAN[number]
    return Layer(
        features,
        prototypes.nearest(1),
        plasticity.ascend(RATE),
        Window(window),
        raw,
        send='cosine',
        pool=pooling.max_pool(2) if pooled else None,
        initial=initial.fan_in,
        norm=BatchNorm(scale=norms.uniform if scale == 'uniform' else norms.ones),
        teacher=teachers.groups(CLASSES, *teachers.AMATO[number], features=features)
        if number in teachers.AMATO
        else None,
    )


def gradient(number: int, dropout: float, scale: Callable = norms.ones) -> Layer:
    """Build a layer that learns by gradient: bias, rectifier, pooling, batch norm; the classifier is linear."""
    if number == CLASSIFIER:
        return hybrid.gradient_layer(CLASSES, fire=activations.identity, dropout=dropout)
    features, window, pooled = PLAN[number]
    pool = pooling.max_pool(2) if pooled else None
    return hybrid.gradient_layer(features, Window(window), pool=pool, norm=BatchNorm(scale=scale))


def random(number: int) -> Layer:
    """Build a layer that stays as it was drawn: a gradient layer whose batch norm has never seen an image.

    It answers by mean 0, variance 1 and scales from U(0, 1), as PyTorch 1.0 drew them, so that answers shrink from
    layer to layer. Five such layers leave a classifier at chance, as in the paper (9.52 %); the answers of random
    Hebbian layers, which are cosines, do not.
    """
    return gradient(number, 0.0, norms.uniform)


@functools.lru_cache(maxsize=256)  # the same training has the same layers, so that its programs are compiled once
def network(training: Training) -> tuple[Layer, ...]:
    """Build the network that a training ends with, those layers included that it stands on."""
    below = () if training.on is None else network(training.on)[: training.upto]
    dropout = DROPOUT if DEPTH in training.layers else 0.0
    build = {
        'G': lambda number: gradient(number, dropout, norms.uniform if training.scale == 'drawn' else norms.ones),
        'H': lambda number: hebbian(number, training.scale),
        'R': random,
    }
    return (*below, *map(build[training.letter], training.layers))


def initial_states(training: Training, key: Key, below: Sequence[LayerState]) -> States:
    """Draw the layers that a training adds, and put them on those below."""
    net = network(training)
    own = net[training.upto :]
    shape = SHAPE
    if below:
        lower = jax.eval_shape(
            lambda x: train.answers(net, below, x, len(below)), jax.ShapeDtypeStruct((1, *SHAPE), 'float32')
        )
        shape = lower.shape[1:]
    return (*below, *train.init(own, key, shape).layers)


class Data(NamedTuple):
    """Images, normalised or whitened, and their labels, on the device."""

    images: Array  # [n, 32, 32, 3] float32
    labels: Array


class Line(NamedTuple):
    """An epoch of any training; accuracies in [0, 1]."""

    loss: float | None  # of gradient training
    train: float  # on training batches, or images, as they passed
    validation: float
    seconds: float  # of training and validating until its end, what lies below and compiling apart


class Learned(NamedTuple):
    """What a training reached."""

    states: States  # of the best epoch by validation
    curve: list[Line]
    best: int  # the number of that epoch, from 0
    seconds: float
    compile_seconds: float
    loss: tuple[float, float] | None = None  # of some training images, before and after learning by gradient


def learn(training: Training, key: Key, below: States, sides: tuple[Data, Data], epochs: int, **how) -> Learned:
    """Run one training: draw its layers, and let them learn on what lies below.

    Args:
        training: which.
        key: draws first weights, the order of images, dropout.
        below: states of the layers that it stands on.
        sides: to learn from, and to choose the epoch by.
        epochs: at most.
        how: `watch(number, Line)`; for gradient training also `keep` and `kept` of `supervised.fit`.

    Raises:
        ValueError: if data and training do not fit, or weights are no longer finite.
        RuntimeError: if a layer moved that should not, or one did not that should.
    """
    init_key, train_key = jax.random.split(key)
    states = initial_states(training, init_key, below)
    if training.letter == 'R':
        return Learned(states, [], 0, 0.0, 0.0)
    run = by_gradient if training.letter == 'G' else by_hebb
    learned = run(training, train_key, states, sides, epochs, **how)
    audit(training, states, learned)
    if training.letter == 'G':
        loss = make_loss(network(training), training.upto)
        some = [part[:SHOWN] for part in sides[0]]
        return learned._replace(loss=(float(loss(states, *some)), float(loss(learned.states, *some))))
    return learned


def by_gradient(training, key, states, sides, epochs, watch=None, keep=None, kept=None) -> Learned:
    """Train the upper layers end to end by SGD; see `learn`."""

    def told(number, line):
        if watch is not None:
            watch(number, as_line(line))

    schedule = Milestones(epochs, training.batch, l2=training.l2)
    stage = hybrid.Supervised(training.upto, None, schedule)
    taught = hybrid.learn(network(training), states, stage, key, *sides, watch=told, keep=keep, kept=kept)
    fitted = taught.fitted
    if fitted.interrupted:
        raise KeyboardInterrupt
    lines = [as_line(line) for line in fitted.curve]
    return Learned(taught.layers, lines, fitted.best, fitted.seconds, fitted.compile_seconds)


def as_line(line: supervised.Epoch) -> Line:
    """Give an epoch of gradient training as any other."""
    return Line(line.loss, line.train, line.validation, line.seconds)


def by_hebb(training, key, states, sides, epochs, watch=None) -> Learned:
    """Let the upper layers learn by Hebb's rule, all at once, each taught by its teacher; see `learn`."""
    net, start = network(training), training.upto
    own = net[start:]
    (inputs, labels), (held, truth) = ((hybrid.present(net, states, start, side.images), side.labels) for side in sides)
    if training.batch > len(labels):
        raise ValueError(f'a batch of {training.batch} does not fit {len(labels)} images; use more images.')
    state = TrainState(jnp.zeros((), jnp.int32), key, states[start:])
    started = time.perf_counter()
    with undisturbed():
        epoch = supervised.compiled(hebbian_epoch(own, training.batch), state, inputs, labels)
        accuracy = supervised.compiled(make_accuracy(own), state.layers, held, truth)
        some = inputs[: len(held)], labels[: len(held)]
        on_train = supervised.compiled(make_accuracy(own), state.layers, *some)
    ready = time.perf_counter()
    lines, best = [], None
    for number in range(epochs):
        state, told = wait(epoch(state, inputs, labels))
        if not all(bool(one.finite) for one in told):
            raise ValueError(f'{training.name}: weights are no longer finite; check the images.')
        judged = float(accuracy(state.layers, held, truth))
        line = Line(None, float(on_train(state.layers, *some)), judged, time.perf_counter() - ready)
        if best is None or line.validation > lines[best[0]].validation:
            best = number, state.layers
        lines.append(line)
        if watch is not None:
            watch(number, line)
    return Learned((*states[:start], *best[1]), lines, best[0], lines[-1].seconds, ready - started)


@functools.lru_cache(maxsize=64)
def hebbian_epoch(net: Network, batch: int) -> Callable:
    """Build the jitted epoch of a network's Hebbian layers."""
    return train.make_train_epoch(net, batch=batch)


@functools.lru_cache(maxsize=64)
def make_accuracy(net: Network, block: int = 100) -> Callable:
    """Build the jitted accuracy `(states, images, labels) -> scalar in [0, 1]` of a whole network."""

    def accuracy(states, images, labels):
        found = frozen.blockwise(lambda some: jnp.argmax(train.features(net, states, some), 1), images, block)
        return jnp.mean(found == labels)

    return jax.jit(accuracy)


@functools.lru_cache(maxsize=64)
def make_loss(net: Network, upto: int) -> Callable:
    """Build the jitted cross-entropy `(states, images, labels) -> scalar` as it is while layers from `upto` on learn.

    Normalised by these images, with dropout, the same each time: running averages lag behind in a short training.
    """

    def loss(states, images, labels):
        x = train.answers(net, states, images, upto)
        for number in range(upto, len(net)):
            x, _ = layers.practise(net[number], states[number], x, jax.random.key(number))
        return supervised.cross_entropy(x.reshape(len(x), -1), labels)

    return jax.jit(loss)


def audit(training: Training, before: States, learned: Learned) -> None:
    """Make sure that a training did what it says: layers below are bit-identical, those of its own moved.

    Raises:
        RuntimeError: naming a layer that did otherwise.
    """
    for place, (one, other) in enumerate(zip(before, learned.states)):
        same = all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))
        if place < training.upto and not same:
            raise RuntimeError(f'{training.name}: layer {place + 1} should have stayed as it was, and moved.')
        if place >= training.upto and np.array_equal(one.w, other.w):
            raise RuntimeError(f'{training.name}: layer {place + 1} should have learned, and stayed as it was.')


def work(training: Training, epochs: int) -> float:
    """Foretell how much a training computes, in millions of multiplications for each image; gradients take three."""
    own = sum(MACS[number] for number in training.layers)
    below = sum(MACS[number] for one in training.chain[:-1] for number in one.layers if number <= training.upto)
    return below + {'G': 3, 'H': 2, 'R': 0}[training.letter] * epochs * (own + 0.5)
