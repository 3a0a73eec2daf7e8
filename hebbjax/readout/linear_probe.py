"""Linear classifiers on what a network answers: ridge and softmax regression, without rates, batches and epochs."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hebbjax.base import AnyArray, Array
from hebbjax.readout import dual, linear, ridge, softmax
from hebbjax.readout.blocks import block_size, cut_blocks, over_blocks
from hebbjax.readout.probe import Probe, ProbeFit, check_input, probe_features
from hebbjax.support import devices, moments
from hebbjax.support.checks import check_count, check_flag, check_labels, host_memory, require, show
from hebbjax.support.shards import Shards, parts_of

AT_ONCE = 8  # one by this is the share of the memory that features of all images fill


def ridge_probe(
    penalty: linear.Penalty = 1.0, block: int = 1000, mesh: Mesh | None = None, *,
    flips: bool = False, crops: int = 0, features: Callable = probe_features,
) -> ProbeFit:  # fmt: skip
    """Read out by ridge regression in closed form; validation images are looked at to choose one of several penalties.

    Of more than 4,000 features products are of float32, their sums of float64. Where features are more than images as
    well, products of images are added up in place of theirs (`fit_dual`): the same classifier of fewer numbers.

    Args:
        penalty: see `ridge.solve_ridge`; or a tuple, such as `(1.0, 10.0, 100.0)`.
        block: images whose features are computed in one call.
        mesh: devices, such as `jax.make_mesh((jax.device_count(),), ('data',))`, that divide these.
        flips: fit to every image and its mirror image, and read out the mean of both.
        crops: fit as well to each view moved by so many pixels to each corner, reflected at the edges, and read out the
            mean of all: with flips the ten crops of Krizhevsky et al. 2012 (4.1), as large as the image; 0: none.
        features: what is read out, (net, states, images, mesh=mesh) -> [b, F], such as several layers' answers.
    """
    mesh = devices.check_mesh(mesh)
    penalties = linear.check_penalties(penalty, least=0)

    def is_dual(width, count):
        return width > max(moments.WIDE, count) and devices.host_count(mesh) == 1

    def check(width, count, held):
        dually = is_dual(width, count + held)
        linear.check_penalties(penalties, **{'above' if dually else 'least': 0})
        dual.check_gram(count + held) if dually else ridge.check_width(width)

    def choose(sides, width, count, held):
        if is_dual(width, count + held):
            labels, blocks = sides.columns(width)
            return dual.fit_dual(blocks, labels, sides.classes, penalties, held)
        stats = None
        for x, labels, new in sides.blocks():
            stats = moments.add_moments(stats, x, np.eye(sides.classes)[labels], mesh, new)
        return ridge.choose_ridge(stats, penalties, sides.held_out())

    return _linear_probe(check, choose, len(penalties) > 1, block, mesh, flips, crops, features)


def softmax_probe(
    penalty: linear.Penalty = 10.0, block: int = 1000, mesh: Mesh | None = None, *,
    flips: bool = False, crops: int = 0, features: Callable = probe_features,
) -> ProbeFit:  # fmt: skip
    """Read out by softmax regression, see `softmax`: features of all images are held in float32 while it is fitted.

    Args:
        penalty: above 0, see `softmax`; or a tuple, from which validation images choose.
        block, mesh, flips, crops, features: those of `ridge_probe`; the mesh of one process.
    """
    mesh = softmax.check_one_process(mesh)
    penalties = linear.check_penalties(penalty, above=0)
    check = lambda width, count, held: softmax.check_rows(count, width, mesh)  # noqa: E731

    def choose(sides, width, count, held):
        views = len(sides.moves) * len(parts_of(sides.train))  # each of as many images
        blocks = views * -(-(count // views) // sides.size(range(count // views)))
        rows = softmax.stack_rows(sides.blocks(), blocks, width, mesh)
        return softmax.choose_softmax(rows, sides.classes, penalties, sides.held_out() if held else None)

    return _linear_probe(check, choose, len(penalties) > 1, block, mesh, flips, crops, features)


def _linear_probe(check_size, choose, chooses, block, mesh, flips, crops, features) -> ProbeFit:
    """Make a probe of `choose`: (sides, features, images learned from, images that choose) -> PenaltyChoice."""
    check_count('block', block)
    check_flag('flips', flips)
    check_count('crops', crops, 0)
    require(callable(features), f'features={show(features)} is no function of net, states, images; leave it out.')
    moves = [(0, 0), *(itertools.product((-crops, crops), repeat=2) if crops else ())]
    moves = [(*move, step) for step in (1, -1)[: 1 + flips] for move in moves]

    def check(net, states, train, validation) -> tuple[int, int, int]:
        images, labels = parts_of(train)[0]
        check_input(net, states, images)
        check_labels(labels, count=len(images))
        shape = jax.eval_shape(functools.partial(features, tuple(net)), tuple(states), images[:1]).shape
        require(len(shape) == 2, f'features of one image have shape {shape}; they need [1, F]: lay maps side by side.')
        side = min(np.shape(images)[1:3])
        came = f'crops={crops} leaves nothing of images with a side of {side} pixels'
        require(crops < side, f'{came}; use {side - 1} at most, 0 for none.')
        sizes = shape[1], len(moves) * len(images) * len(parts_of(train)), len(validation[0]) if chooses else 0
        check_size(*sizes)
        return sizes

    def fit(net, states, key, train, validation) -> Probe:
        started = time.perf_counter()
        sizes = check(net, states, train, validation)
        known = train.count_classes() if isinstance(train, Shards) else np.asarray(check_labels(train[1])).max() + 1
        known = int(devices.from_hosts(known, mesh).max())
        see = functools.partial(features, tuple(net), devices.lay(tuple(states), mesh), mesh=mesh)
        sides = Sides(see, moves, block, devices.local_count(mesh), train, validation if chooses else None, known)
        choice = choose(sides, *sizes)
        sides = dataclasses.replace(sides, train=None, validation=None)  # a probe does not keep them in memory
        classes = lambda rows: linear.predict_linear(choice.model, sides.answers(rows))  # noqa: E731
        predict = lambda images: jax.device_put(over_blocks(classes, images, sides.size(images)))  # noqa: E731
        tried = tuple((penalty, 100 * right) for penalty, right in choice.accuracies)
        return Probe(predict, tuple(states), seconds=time.perf_counter() - started, penalties=tried)

    fit.check = check
    return fit


def view(images: AnyArray, up: int, left: int, step: int) -> AnyArray:
    """Move images up and to the left, reflected at the edges, and mirror them where `step` is -1."""
    height, width = images.shape[1:3]
    # 0 1 2 3 moved by 2: 2 3 2 1
    rows, columns = (side - 1 - abs(side - 1 - abs(np.arange(side) + by)) for side, by in ((height, up), (width, left)))
    return (images[:, rows][:, :, columns] if up or left else images)[:, :, ::step]


@dataclasses.dataclass(frozen=True)
class Sides:
    """Blocks of features: of images that are learned from, as they are, moved, mirrored, and of those that choose."""

    features: Callable  # images -> [b, F]
    moves: Sequence[tuple[int, int, int]]  # pixels up, to the left, and -1: mirrored; an answer is the mean of all
    block: int  # images at once
    share: int  # devices that these divide over
    train: Any
    validation: Any  # None: nothing is chosen
    classes: int

    def answers(self, rows) -> Any:  # [b, F]
        """Give the mean of what an image's views answer."""
        found = [self.features(view(rows, *move)) for move in self.moves]
        return sum(found) / len(found) if len(found) > 1 else found[0]

    def size(self, images) -> int:
        """Say of how many of these images features are computed at once; of fewer than a block, see `block_size`."""
        return -(-block_size(len(images), self.block) // self.share) * self.share

    def views(self, chosen_by: bool = False) -> Iterator[tuple[Callable, Any, np.ndarray]]:
        """Give what sees images of training (as they are, moved, mirrored) or those that choose, these and labels."""
        sides = parts_of(self.train) if not chosen_by else [] if self.validation is None else [self.validation]
        moved = [lambda x, move=move: self.features(view(x, *move)) for move in self.moves]
        for images, labels in sides:
            labels = np.asarray(check_labels(labels, None if chosen_by else self.classes, len(images)))
            yield from ((see, images, labels) for see in ([self.answers] if chosen_by else moved))

    def blocks(self, chosen_by: bool = False) -> Iterator[tuple[Array, np.ndarray, slice]]:
        """Give blocks of features of the one or the other, labels of the rows that are new, and which these are."""
        for see, images, labels in self.views(chosen_by):
            size = self.size(images)
            for number, (rows, new) in enumerate(cut_blocks(images, size)):
                yield see(rows), labels[number * size :][:size], new

    def held_out(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give features and labels that choose, block by block."""
        return ((np.asarray(x)[new], labels) for x, labels, new in self.blocks(chosen_by=True))

    def columns(self, width: int) -> tuple[np.ndarray, Callable | list]:
        """Give all labels, those that choose last, and all features in blocks of columns."""
        every = lambda: itertools.chain(self.views(), self.views(chosen_by=True))  # noqa: E731
        labels = np.concatenate([labels for *_, labels in every()])
        step = max(1, host_memory() // (AT_ONCE * 4 * len(labels)))  # every so many need all layers once more

        def blocks() -> Iterator[np.ndarray]:
            for cut in (slice(first, first + step) for first in range(0, width, step)):
                cut_of = lambda see: lambda rows: np.asarray(see(rows))[:, cut]  # noqa: B023, E731
                yield np.concatenate([over_blocks(cut_of(see), x, self.size(x)) for see, x, _ in every()])

        return labels, [*blocks()] if step >= width else blocks
