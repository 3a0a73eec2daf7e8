"""What a classifier makes of a network's answers: a fresh one is fitted to the weights as they are."""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hebbjax.base import AnyArray, Array, Key, Labelled
from hebbjax.layers.layer import Layer, LayerState, init_layer, to_intensities
from hebbjax.layers.network import Network, activations_of, check_network, check_states
from hebbjax.readout import dual, ridge
from hebbjax.readout.blocks import cut_blocks, over_blocks
from hebbjax.readout.gradient import GradientEpoch
from hebbjax.readout.hybrid import GradientStage, check_stage, fit_hybrid, predict_hybrid
from hebbjax.readout.schedules import Milestones, Schedule
from hebbjax.support import devices, specs
from hebbjax.support.checks import check_count, check_flag, check_images, check_labels, host_memory, require
from hebbjax.support.moments import add_moments, is_wide
from hebbjax.support.shards import Shards, parts_of

AT_ONCE = 8  # one by this is the share of the memory that features of all images fill


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

Its `check(net, states, train, validation)`, if it has one, refuses what cannot be fitted, before features are learned;
states may be mere shapes then."""


def quadrants(maps: Array) -> Array:
    """Average each neuron over the four quadrants of its map (Coates, Lee & Ng 2011). [B, H, W, N] -> [B, 4 N]."""
    _, h, w, _ = maps.shape
    require(min(h, w) > 1, f'maps of {h} x {w} have no quadrants; they need 2 rows and 2 columns.')
    rows, columns = (slice(None, h // 2), slice(h // 2, None)), (slice(None, w // 2), slice(w // 2, None))
    return jnp.concatenate([maps[:, i, j].mean((1, 2)) for i in rows for j in columns], axis=1)


@devices.by_rows
@specs.compiled_once('net')
def probe_features(net: Network, states: tuple[LayerState, ...], images: Array) -> Array:
    """Compute what the highest layer answers, one number per neuron, or four where its answers are a map.

    Of a map [B, H, W, N] the means over its quadrants are taken (Miconi 2021, 2.5). -> [B, F].
    """
    x = _highest_maps(net, states, images)
    return quadrants(x) if min(x.shape[1:3]) >= 2 else x.reshape(len(x), -1)


def ridge_probe(
    penalty: float | tuple[float, ...] = 1.0, block: int = 1000, mesh: Mesh | None = None, *, flips: bool = False
) -> ProbeFit:
    """Read out by ridge regression in closed form; validation images are looked at to choose one of several penalties.

    Of more than 4,000 features products are of float32, their sums of float64. Where features are more than images as
    well, products of images are added up in place of theirs (`fit_dual`): the same classifier of fewer numbers.

    Args:
        penalty: see `ridge.solve_ridge`; or a tuple, such as `(1.0, 10.0, 100.0)`.
        block: images whose features are computed in one call.
        mesh: devices, such as `jax.make_mesh((jax.device_count(),), ('data',))`, that divide these.
        flips: fit to every image and its mirror image, and read out the mean of both.
    """
    mesh = devices.check_mesh(mesh)
    penalties = ridge.check_penalties(penalty, least=0)
    check_count('block', block)
    check_flag('flips', flips)
    share, chooses = devices.local_count(mesh), len(penalties) > 1
    mirrors = (lambda rows: rows, lambda rows: rows[:, :, ::-1])[: 1 + flips]
    size = lambda images: -(-min(block, len(images) or 1) // share) * share  # noqa: E731

    def check(net, states, train, validation) -> tuple[int, bool]:
        """Give the number of features, and whether products of images are fewer than theirs."""
        images, labels = parts_of(train)[0]
        _check_input(net, states, images)
        check_labels(labels, count=len(images))
        width = jax.eval_shape(functools.partial(probe_features, tuple(net)), tuple(states), _one(images)).shape[1]
        rows = len(mirrors) * len(images) * len(parts_of(train)) + (len(validation[0]) if chooses else 0)
        is_dual = is_wide(width) and width > rows and devices.host_count(mesh) == 1
        dual.check_gram(rows) if is_dual else ridge.check_width(width)
        return width, is_dual

    def fit(net, states, key, train, validation) -> Probe:
        started = time.perf_counter()
        width, is_dual = check(net, states, train, validation)
        known = train.count_classes() if isinstance(train, Shards) else np.asarray(check_labels(train[1])).max() + 1
        known = int(devices.from_hosts(known, mesh).max())
        features = functools.partial(probe_features, tuple(net), devices.lay(tuple(states), mesh), mesh=mesh)
        answers = lambda rows: sum(features(mirror(rows)) for mirror in mirrors) / len(mirrors)  # noqa: E731
        answers = answers if flips else features

        def views() -> Iterator[tuple[Callable, AnyArray, np.ndarray]]:
            """Give what sees images of training as they are, or mirrored, and these images and labels."""
            for images, labels in parts_of(train):
                labels = np.asarray(check_labels(labels, known, len(images)))
                yield from ((lambda rows, mirror=mirror: features(mirror(rows)), images, labels) for mirror in mirrors)

        held_out = ((answers, validation[0], np.asarray(check_labels(validation[1]))),) if chooses else ()
        if is_dual:
            sides = lambda: itertools.chain(views(), held_out)  # noqa: E731
            labels = np.concatenate([labels for *_, labels in sides()])
            step = max(1, host_memory() // (AT_ONCE * 4 * len(labels)))  # every so many need all layers once more

            def blocks() -> Iterator[np.ndarray]:
                for cut in (slice(first, first + step) for first in range(0, width, step)):
                    cut_of = lambda see: lambda rows: np.asarray(see(rows))[:, cut]  # noqa: B023, E731
                    yield np.concatenate([over_blocks(cut_of(see), x, size(x)) for see, x, _ in sides()])

            held_count = len(validation[0]) if chooses else 0
            once = [*blocks()] if step >= width else blocks
            choice = dual.fit_dual(once, labels, known, penalties, held_count)
        else:
            stats = None
            for see, images, labels in views():
                one_hot = np.eye(known)[labels]
                for number, (rows, new) in enumerate(cut_blocks(images, step := size(images))):
                    stats = add_moments(stats, see(rows), one_hot[number * step :][:step], mesh, new)
            pairs = (
                (np.asarray(see(rows))[new], labels[number * size(images) :][: size(images)])
                for see, images, labels in held_out
                for number, (rows, new) in enumerate(cut_blocks(images, size(images)))
            )
            choice = ridge.choose_ridge(stats, penalties, pairs)
        classes = lambda rows: ridge.predict_ridge(choice.model, answers(rows))  # noqa: E731
        predict = lambda images: jax.device_put(over_blocks(classes, images, size(images)))  # noqa: E731
        tried = tuple((penalty, 100 * right) for penalty, right in choice.accuracies)
        return Probe(predict, tuple(states), seconds=time.perf_counter() - started, penalties=tried)

    fit.check = check
    return fit


def gradient_probe(
    head: Layer, schedule: Schedule | Milestones, start: int | None = None, *, mesh: Mesh | None = None, **how: Any
) -> ProbeFit:
    """Read out by a head trained by gradient on what the highest layer sends; choices see validation images alone.

    Args:
        head: such as `head.linear_head(10)`; `schedule`: how long, how fast it is trained.
        start: the lowest layer that is trained with it; None: none is. 0: the whole network, the backprop twin.
        mesh, how: `mesh`, and `augment`, `room` and `watch` of `hybrid.fit_hybrid`.
    """

    def check(net, states, train, validation) -> tuple[GradientStage, tuple[int, int, int]]:
        images, _ = parts_of(train)[0]
        net = _check_input(net, states, images)
        stage = GradientStage(len(net) if start is None else start, schedule)
        shape = jax.eval_shape(functools.partial(_highest_maps, net), tuple(states), _one(images)).shape[1:]
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


def _one(images) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)


def _check_input(net, states, images) -> Network:
    net = check_network(net) if len(net) else ()
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
