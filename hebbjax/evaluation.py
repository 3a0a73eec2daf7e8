"""What a classifier makes of a network's answers: a fresh one is fitted to the weights as they are.

A readout is a function `(net, states, key, train, validation) -> Read`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hebbjax import checks, decoding, hybrid, pooling, train
from hebbjax.hybrid import Supervised
from hebbjax.layers import LayerState
from hebbjax.readout import Head
from hebbjax.supervised import Epoch, Schedule
from hebbjax.train import Network
from hebbjax.types import Array, Key

WIDEST = 4000  # features that ridge regression takes in: their products are 128 MB, their eigenvectors minutes


class Read(NamedTuple):
    """A classifier that was fitted to a network."""

    predict: Callable[[Array], Array]  # images [n, H, W, C] -> classes [n]
    curve: tuple[Epoch, ...] = ()  # of a classifier trained by gradient


Readout = Callable[[Network, Sequence[LayerState], Key, tuple[Array, Array], tuple[Array, Array]], Read]


def described(net: Network, states: Sequence[LayerState], images: Array) -> Array:
    """Compute what the highest layer answers, one number per neuron, or four where its answers are a map.

    Of a map [B, H, W, N] the means over its quadrants are taken (Miconi 2021, 2.5). -> [B, F].
    """
    x = train.answers(net, states, images)
    return pooling.quadrants(x) if min(x.shape[1:3]) >= 2 else x.reshape(len(x), -1)


@functools.lru_cache(maxsize=64)
def _answers(net):
    return jax.jit(functools.partial(described, net))


def ridge(penalty: float = 1.0, block: int = 1000) -> Readout:
    """Read out by ridge regression in closed form: nothing to choose, so validation images are not looked at.

    Args:
        penalty: see `decoding.solve`.
        block: images whose answers are computed in one call.

    Raises:
        ValueError: if one of them is out of range.
    """
    decoding.check_penalty(penalty)
    if not checks.is_count(block):
        raise ValueError(f'blocks of {checks.shown(block)} images cannot be; use 1 or more.')

    def fit(net, states, key, train, validation):
        images, labels = train
        check_input(net, states, images)
        answer = functools.partial(_answers(tuple(net)), tuple(states))
        labels = np.asarray(checks.check_labels(labels, count=len(images)))
        check_width(net, states, images)
        parts = [slice(at, at + block) for at in range(0, len(labels), block)]
        model = decoding.ridge(((answer(images[p]), labels[p]) for p in parts), int(labels.max(initial=0)) + 1, penalty)

        def predict(images):
            blocks = [images[at : at + block] for at in range(0, len(images), block)]
            return jnp.concatenate([decoding.predict(model, answer(some)) for some in blocks])

        return Read(predict)

    return fit


def check_input(net: Network, states: Sequence[LayerState], images: Array) -> None:
    """Refuse what is no network with its states, or no images."""
    train.check_states(train.check_network(net), states)
    checks.check_images(images)


def check_width(net: Network, states: Sequence[LayerState], images: Array) -> None:
    """Refuse more features than ridge regression takes in.

    Raises:
        ValueError: naming their number.
    """
    width = jax.eval_shape(_answers(tuple(net)), tuple(states), images[:1]).shape[1]
    if width > WIDEST:
        raise ValueError(
            f'ridge regression on {width} features fills {8 * width**2 / 1e9:.1f} GB and takes minutes; pool the '
            'highest layer, or read out by gradient.'
        )


def gradient(head: Head, schedule: Schedule, start: int | None = None) -> Readout:
    """Read out by a head trained by gradient on all that the highest layer sends; choices see validation images alone.

    Args:
        head: batch norm -> RePU -> dropout -> linear, each optional.
        schedule: how long, how fast.
        start: the lowest layer that is trained with it; None: none is. 0: the whole network, the backprop twin.
    """

    def fit(net, states, key, train, validation):
        check_input(net, states, train[0])
        stage = Supervised(len(net) if start is None else start, head, schedule)
        taught = hybrid.learn(net, states, stage, key, train, validation)
        if taught.fitted.interrupted:  # half a classifier judges nobody
            raise KeyboardInterrupt
        predict = functools.partial(hybrid.predict, net, states, stage, taught)
        return Read(predict, tuple(taught.fitted.curve))

    return fit


def accuracy(read: Read, images: Array, labels: Array) -> float:
    """Give the share of images that are read right, in percent.

    Raises:
        ValueError: if labels are not one class for each image, or answers are not finite.
    """
    checks.check_images(images)
    labels = checks.check_labels(labels, count=len(images))
    return 100 * float(np.mean(_classes(read, images) == np.asarray(labels)))


def confusion(read: Read, images: Array, labels: Array, classes: int) -> np.ndarray:
    """Count what was taken for what: [K, K], rows the true classes, columns the predicted ones.

    Raises:
        ValueError: as `accuracy`, and for a class, true or predicted, beyond `classes`.
    """
    if not checks.is_count(classes):
        raise ValueError(
            f'{checks.shown(classes)} classes cannot be taken for each other; give their number, a whole one.'
        )
    checks.check_images(images)
    labels, found = checks.check_labels(labels, classes, len(images)), _classes(read, images)
    if found.max() >= classes:
        raise ValueError(f'a classifier that answers {found.max()} knows more than {classes} classes; count them all.')
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (np.asarray(labels), found), 1)
    return counts


def _classes(read, images) -> np.ndarray:
    found = np.asarray(read.predict(images))
    if found.min() < 0:
        raise ValueError(f'a classifier has no finite answer to image {found.argmin()}; check the images.')
    return found
