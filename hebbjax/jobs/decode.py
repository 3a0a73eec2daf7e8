"""Reading every layer of a stack out: quadrants and the final answer, by ridge regression or a linear SVM."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from hebbjax import decoding, layers, pooling, whitening
from hebbjax.data import Split
from hebbjax.jobs.report import Row
from hebbjax.jobs.stack import Stack, winners_of
from hebbjax.jobs.variants import PAPER, READOUTS, ROWS
from hebbjax.layers import LayerState
from hebbjax.progress import bar
from hebbjax.train import Network
from hebbjax.types import Array

SHOWN = 1000  # images whose features are computed in one call
States = Sequence[LayerState]
Answer = Callable[[States, Array], tuple[Array, ...]]  # one [B, F] per layer
Accuracies = tuple[list[float], list[float]]  # of training and test images, one per layer


def answers(net: Network, states: States, images: Array) -> tuple[Array, ...]:
    """Compute what every layer is read out by, [B, F] each.

    Quadrant means of each layer's answer, normalised per image as the next layer sees it; of the last layer, all of
    it. That is what the authors' notebook feeds to its decoder.
    """
    x, found = layers.intensities(images), []
    for number, (layer, own) in enumerate(zip(net, states), 1):
        x = layers.respond(layer, own, x)
        found.append(x.reshape(len(x), -1) if number == len(net) else pooling.quadrants(whitening.standardise(x)))
    return tuple(found)


def in_batches(answer: Answer, states: States, split: Split) -> Iterator[tuple[tuple[Array, ...], Array]]:
    """Go through a split some images at a time: (features of every layer, labels)."""
    for start in range(0, len(split.images), SHOWN):
        part = slice(start, start + SHOWN)
        yield answer(states, split.images[part]), split.labels[part]


def read_out(row: str, penalty: float, stack: Stack, train: Split, test: Split, console: Console) -> Row:
    """Fit a classifier to every layer's features on every seed, and read the test split once.

    Args:
        row: its name.
        penalty: of ridge regression.
        stack: the trained network.
        train: images and labels to fit to, on the device.
        test: those to be judged on.
        console: for a bar.
    """
    fit = with_svm if ROWS[row].decoder == 'svm' else lambda *args: with_ridge(penalty, *args)
    answer = jax.jit(lambda states, images: answers(stack.net, states, images))
    found = []
    with bar(console, f'{row}: reading out', stack.seeds) as tick:
        for seed in range(stack.seeds):
            found.append(fit(answer, stack.one(seed), train, test))
            tick()
    train_accuracy, test_accuracy = 100 * np.array(found).transpose(1, 2, 0)  # [3, S] each
    paper = PAPER.get(row, (None,) * 3)
    result = Row(row, test_accuracy[2].tolist(), train_accuracy[2].tolist(), paper[2])
    result.seconds, result.compile_seconds = stack.seconds, stack.compile_seconds
    for name, values, published in zip(READOUTS[:2], test_accuracy, paper):
        result.more |= {name: values.tolist(), f'paper_{name}': published}
    result.more['winners'] = [winners_of(ROWS[row], layer.features) for layer in stack.net]
    result.more |= activity(stack, test.images[:SHOWN])
    return result


def with_ridge(penalty: float, answer: Answer, states: States, train: Split, test: Split) -> Accuracies:
    """Read every layer out by ridge regression, features streamed. Training accuracy: of 10,000 images."""
    classes = int(train.labels.max()) + 1
    moments = [None] * len(READOUTS)
    for features, labels in in_batches(answer, states, train):
        moments = [decoding.add(one, x, labels, classes) for one, x in zip(moments, features)]
    models = [decoding.solve(one, penalty) for one in moments]

    def accuracy(split):
        right = np.zeros(len(models))
        for features, labels in in_batches(answer, states, split):
            right += [int((decoding.predict(model, x) == labels).sum()) for model, x in zip(models, features)]
        return list(right / len(split.labels))

    return accuracy(Split(*(part[: 10 * SHOWN] for part in train))), accuracy(test)


def with_svm(answer: Answer, states: States, train: Split, test: Split) -> Accuracies:
    """Read every layer out by a linear support vector machine (scikit-learn), on standardised features held whole."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    def held(split):
        parts = [[np.asarray(x) for x in features] for features, _ in in_batches(answer, states, split)]
        return [np.concatenate(layer) for layer in zip(*parts)], np.asarray(split.labels)

    (x, labels), (test_x, test_labels) = held(train), held(test)
    models = [make_pipeline(StandardScaler(), LinearSVC(C=1e-3, dual=False)).fit(one, labels) for one in x]
    return (
        [model.score(one, labels) for model, one in zip(models, x)],
        [model.score(one, test_labels) for model, one in zip(models, test_x)],
    )


def activity(stack: Stack, images: Array) -> dict[str, list]:
    """Tell, of the first seed's layers, what a right implementation shows.

    Returns:
        win_rates: smallest, median and largest share of positions won in the last epoch, per layer; k/N is aimed at.
        nonzero: share of answers, before pooling, that are not zero. norm_error: largest `| |w_i| - 1 |`.
    """
    x, found = layers.intensities(images), {'win_rates': [], 'nonzero': [], 'norm_error': []}
    for layer, own, told in zip(stack.net, stack.one(0), stack.told):
        share = np.asarray(told.rates[0])
        unpooled = dataclasses.replace(layer, pool=None)
        fired = jax.jit(lambda own, x, layer=unpooled: layers.respond(layer, own, x))(own, x)
        found['win_rates'].append([float(f(share)) for f in (np.min, np.median, np.max)])
        found['nonzero'].append(float(jnp.mean(fired != 0)))
        found['norm_error'].append(float(jnp.max(jnp.abs(jnp.linalg.norm(own.w, axis=1) - 1))))
        x = layer.pool(fired)
    return found
