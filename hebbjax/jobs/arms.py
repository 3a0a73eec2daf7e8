"""The networks that a job compares, each trained on one seed: Hebbian features, frozen features, backprop, pixels."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from hebbjax import augment, chunks, competition, frozen, layers, loop, measures, models, rules, supervised
from hebbjax.jobs.report import Row
from hebbjax.layers import Layer
from hebbjax.models import Model
from hebbjax.progress import bar
from hebbjax.readout import Head
from hebbjax.stages import Stage
from hebbjax.supervised import Fitted, Schedule
from hebbjax.train import TrainState
from hebbjax.types import Array, Key


class Material(NamedTuple):
    """The data that networks are trained and chosen on; the test split is not among it."""

    images: Array  # [n, H, W, C] uint8
    labels: Array  # [n]
    validation_images: Array
    validation_labels: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.images.shape[1:]


class Learned(NamedTuple):
    """Weights, and what it took to learn them."""

    w: Array
    seconds: float = 0.0
    compile_seconds: float = 0.0


class Trained(NamedTuple):
    """A network that is ready to be scored."""

    model: Model
    present: Callable[[Array], Any]  # images -> what the model takes
    fitted: Fitted
    w: Array | None  # its filters; None for raw pixels
    train_accuracy: float  # percent
    seconds: float
    compile_seconds: float


def hebbian(
    layer: Layer, state: TrainState, material: Material, *, epochs: int, batch: int, console: Console, name: str
) -> Learned:
    """Learn one layer's weights without labels, from such a state on.

    Raises:
        ValueError: if weights are no longer finite.
        KeyboardInterrupt: if the user ends it.
    """
    with bar(console, f'{name}: Hebbian epochs', epochs) as tick:
        outcome = loop.fit(
            (layer,),
            state,
            material.images,
            stages=(Stage(epochs),),
            batch=batch,
            watch=None,
            callbacks=[lambda moment: tick(f'largest change {moment.metrics["layer1.change"]:.3g}')],
        )
    if outcome.interrupted:
        raise KeyboardInterrupt
    return Learned(outcome.state.layers[0].w, outcome.seconds, outcome.compile_seconds)


def on_frozen(
    layer: Layer, learned: Learned, head: Head, key: Key, material: Material, *, pool: int, limit: float | None,
    shift: int, **training,
) -> Trained:  # fmt: skip
    """Train a head on a frozen layer: on cached drives where they fit in `limit` bytes, else, or shifted, on images."""
    w = learned.w
    everything = (len(material.images) + len(material.validation_images), *material.shape)
    size = frozen.cache_bytes(layer, jax.ShapeDtypeStruct(everything, material.images.dtype), pool)
    if size <= (limit or 0.6 * chunks.memory()) and not shift:
        present = functools.partial(frozen.cache, layer, w, pool=pool)
        model = models.on_drives(head, *frozen.shape(layer, material.shape, pool))
    else:
        present = as_they_are
        model = models.on_images(head, layer, w, material.shape, pool)
    return _fit(model, present, lambda params: w, learned, key, material, shift=shift, **training)


def end_to_end(layer: Layer, head: Head, key: Key, material: Material, *, pool: int, **training) -> Trained:
    """Train layer and head together by backprop."""
    model = models.end_to_end(head, layer, material.shape, pool)
    return _fit(model, as_they_are, lambda params: params[1], Learned(None), key, material, **training)


def on_pixels(classes: int, key: Key, material: Material, **training) -> Trained:
    """Train a linear head on raw pixels, without any features: the floor."""
    model = models.on_pixels(Head(classes, norm=False, power=None), material.shape)
    return _fit(model, as_they_are, lambda params: None, Learned(None), key, material, **training)


def as_they_are(images: Array) -> Array:
    """Present images to a model that takes them."""
    return images


def _fit(
    model: Model, present: Callable, filters: Callable, learned: Learned, key: Key, material: Material, *,
    schedule: Schedule, shift: int, history: bool, console: Console, name: str,
) -> Trained:  # fmt: skip
    if shift:
        model = models.augmented(model, augment.shift(shift))
    started = time.perf_counter()
    inputs = jax.block_until_ready(present(material.images))
    held_out = present(material.validation_images)
    presented = time.perf_counter() - started
    with bar(console, f'{name}: gradient epochs', schedule.epochs) as tick:
        fitted = supervised.fit(
            model, key, (inputs, material.labels), (held_out, material.validation_labels), schedule, history=history,
            watch=lambda number, line: tick(f'validation {100 * line.validation:.2f} %'),
        )  # fmt: skip
    reached = supervised.make_accuracy(model)(fitted.params, fitted.averages, inputs, material.labels)
    return Trained(
        model, present, fitted, filters(fitted.params), 100 * float(reached),
        learned.seconds + presented + fitted.seconds, learned.compile_seconds + fitted.compile_seconds,
    )  # fmt: skip


def diversity(layer: Layer, w: Array, images: Array, p: float) -> dict[str, float]:
    """Tell whether a bank of filters has collapsed: winners and their entropy on images, cosines, norms.

    Args:
        layer: the layer; patches are prepared as it does.
        w: its weights [N, D].
        images: [n, H, W, C] to let neurons compete on; a few hundred do.
        p: the norm that units should have converged to.
    """

    return {name: float(value) for name, value in _tell(layer, w, images, p).items()}


@functools.partial(jax.jit, static_argnums=0)
def _tell(layer, w, images, p):
    x = layers.look(layer, layers.intensities(images)).reshape(-1, w.shape[1])
    first = competition.largest(layers.product(layer, x, layer.rule.seen(w)), 1)[1][:, 0]
    wins = rules.winners(x, first, len(w))
    cosine = measures.nearest_cosine(w)
    return {
        'distinct_winners': measures.distinct_winners(wins),
        'win_entropy': measures.win_entropy(wins),
        'nearest_cosine_max': cosine.max(),
        'nearest_cosine_median': jnp.median(cosine),
        'unit_convergence': measures.unit_convergence(w, p),
    }


def score(row: str, trained: dict[int, Trained], test: tuple[Array, Array], console: Console) -> Row:
    """Read the test split with networks that are finished: no choice is left to make.

    Args:
        row: their name.
        trained: seed -> network. Where every epoch was kept, every epoch is read too, for the curve alone.
        test: images and labels.
        console: for a bar.
    """
    images, labels = test
    result = Row(row)
    for one in trained.values():
        inputs, accuracy = one.present(images), supervised.make_accuracy(one.model)
        result.test_accuracy.append(100 * float(accuracy(one.fitted.params, one.fitted.averages, inputs, labels)))
        result.train_accuracy.append(one.train_accuracy)
        lines = one.fitted.curve
        result.more.setdefault('validation_accuracy', []).append(100 * lines[one.fitted.best].validation)
        result.more.setdefault('epoch', []).append(one.fitted.best + 1)
        if not one.fitted.history:
            continue
        curve = []
        with bar(console, f'{row}: test curve', len(lines)) as tick:
            for params, averages in one.fitted.history:
                curve.append(100 * float(accuracy(params, averages, inputs, labels)))
                tick()
        result.more['curve'] = {
            'train': [100 * line.train for line in lines],
            'validation': [100 * line.validation for line in lines],
            'test': curve,
        }
    result.seconds = float(np.mean([one.seconds for one in trained.values()]))
    result.compile_seconds = float(np.mean([one.compile_seconds for one in trained.values()]))
    return result
