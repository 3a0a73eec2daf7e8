"""What a classifier makes of a network's answers: a fresh one is fitted to the weights as they are."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hebbjax.base import AnyArray, Array, Key, Labelled
from hebbjax.layers.layer import Layer, LayerState, init_layer, to_intensities
from hebbjax.layers.network import Network, activations_of, check_network, check_states
from hebbjax.readout.gradient import GradientEpoch
from hebbjax.readout.hybrid import GradientStage, check_stage, fit_hybrid, predict_hybrid
from hebbjax.readout.schedules import Milestones, Schedule
from hebbjax.support import devices, specs
from hebbjax.support.checks import check_choice, check_count, check_function, check_images, check_labels, require
from hebbjax.support.shards import Shards, parts_of


class Probe(NamedTuple):
    """A classifier that was fitted to a network."""

    predict: Callable[[AnyArray], Array]  # images [n, H, W, C] -> classes [n]
    layers: tuple[LayerState, ...] = ()  # of the network and, trained by gradient, the head
    curve: tuple[GradientEpoch, ...] = ()  # of a classifier trained by gradient
    kept: int = 0  # which of these epochs, from 0, it was left in: the best on validation images, or the last
    seconds: float = 0.0
    compile_seconds: float = 0.0
    penalties: tuple[tuple[float, float], ...] = ()  # that were tried, and the percent of validation images read right


ProbeFit = Callable[[Network, Sequence[LayerState], Key, Labelled | Shards, Labelled], Probe]
"""(net, states, key, train, validation) -> Probe; images and labels of both, or of the first `data.Shards`.

Its `check(net, states, train, validation)`, if any, refuses before any learning, of states that may be shapes."""


def quadrants(maps: Array) -> Array:
    """Average each neuron over the four quadrants of its map (Coates, Lee & Ng 2011). [B, H, W, N] -> [B, 4 N]."""
    _, h, w, _ = maps.shape
    require(min(h, w) > 1, f'maps of {h} x {w} have no quadrants; they need 2 rows and 2 columns.')
    rows, columns = (slice(None, h // 2), slice(h // 2, None)), (slice(None, w // 2), slice(w // 2, None))
    return jnp.concatenate([maps[:, i, j].mean((1, 2)) for i in rows for j in columns], axis=1)


@devices.by_rows
@specs.compiled_once('net')
def probe_features(net: Network, states: tuple[LayerState, ...], images: Array) -> Array:
    """Compute what the highest layer answers: of a map of 2 x 2 positions or more, four numbers per neuron, else all.

    Of such a map [B, H, W, N] the means over its quadrants are taken (Miconi 2021, 2.5). -> [B, F].
    """
    x = _highest_maps(net, states, images)
    return quadrants(x) if min(x.shape[1:3]) >= 2 else x.reshape(len(x), -1)


def gradient_probe(
    head: Layer, schedule: Schedule | Milestones, start: int | None = None, *, mesh: Mesh | None = None, **how: Any
) -> ProbeFit:
    """Read out by a head trained by gradient on what the highest layer sends; choices see validation images alone.

    Args:
        head: such as `head.linear_head(10)`; `schedule`: how long, how fast it is trained.
        start: the lowest layer that is trained with it; None: none is. 0: the whole network, the backprop twin.
        mesh, how: `mesh`, and `augment`, `room` and `watch` of `hybrid.fit_hybrid`.
    """
    for name in how:
        check_choice('setting of gradient_probe', name, ('augment', 'room', 'watch'))
    check_function('augment', how.get('augment'), 'a key and images')

    def check(net, states, train, validation) -> tuple[GradientStage, tuple[int, int, int]]:
        images, _ = parts_of(train)[0]
        net = check_input(net, states, images)
        stage = GradientStage(len(net) if start is None else start, schedule)
        shape = jax.eval_shape(functools.partial(_highest_maps, net), tuple(states), images[:1]).shape[1:]
        above = jax.eval_shape(lambda key: init_layer(head, key, shape), jax.random.key(0))
        check_stage((*net, head), (*states, above), stage, train, validation, mesh)
        return stage, shape

    def fit(net, states, key, train, validation) -> Probe:
        started = time.perf_counter()
        stage, shape = check(net, states, train, validation)
        head_key, train_key = jax.random.split(key)
        states = (*states, init_layer(head, head_key, shape))
        result = fit_hybrid((*net, head), states, stage, train_key, train, validation, mesh=mesh, **how)
        if result.gradient.interrupted:  # half a classifier judges nobody
            raise KeyboardInterrupt
        compiling = result.gradient.compile_seconds
        predict, curve = functools.partial(predict_hybrid, result, mesh=mesh), tuple(result.gradient.curve)
        spent = time.perf_counter() - started - compiling
        return Probe(predict, result.layers, curve, result.gradient.best, spent, compiling)

    fit.check = check
    return fit


def _highest_maps(net, states, images) -> Array:
    return activations_of(net, states, images) if net else to_intensities(images)  # a head on pixels has nothing below


def check_input(net, states, images) -> Network:
    """Return a network, of no layer () too, that fits its states and images, or refuse it."""
    net = () if isinstance(net, tuple | list) and not net else check_network(net)
    check_states(net, states)
    check_images(images)
    return net


def probe_accuracy(probe: Probe, images: AnyArray, labels: AnyArray) -> float:
    """Give the share of images that are read right, in percent."""
    truth, answers = _answer(probe, images, labels)
    return 100 * float(np.mean(truth == answers))


def probe_confusion(probe: Probe, images: AnyArray, labels: AnyArray, classes: int) -> np.ndarray:
    """Count what was taken for what: [K, K], rows the true classes, columns the predicted ones."""
    check_count('classes', classes)
    truth, answers = _answer(probe, images, labels, classes)
    most = answers.max()
    require(most < classes, f'a classifier that answers {most} knows more than {classes} classes; count them all.')
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (truth, answers), 1)
    return counts


def _answer(probe, images, labels, classes=None) -> tuple[np.ndarray, np.ndarray]:
    """Give the classes of images, and those that a classifier reads out of them."""
    check_images(images)
    labels, answers = check_labels(labels, classes, len(images)), np.asarray(probe.predict(images))
    worst = answers.argmin()
    require(answers[worst] >= 0, f'a classifier has no finite answer to image {worst}; check the images.')
    return np.asarray(labels), answers
