"""What can be trained into a run folder: networks by name, their settings as flags."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import jax.numpy as jnp

from hebbjax import augment, checkpoint, pooling, runs
from hebbjax.jobs import cnn, dense, stack
from hebbjax.jobs.schema import Count, Part, check, without_stop
from hebbjax.jobs.settings import Convolution, Hebbian, refuse_unknown
from hebbjax.jobs.variants import ROWS, Stacked
from hebbjax.jobs.watched import About, Watched
from hebbjax.train import Network
from hebbjax.types import Array
from hebbjax.whitening import Whitening


@dataclasses.dataclass(frozen=True)
class _Krotov(Watched, Hebbian):
    def resolve(self) -> Self:
        """Fill what was left out with the data set's own settings, and refuse what cannot run."""
        full = super().resolve()
        if full.every is None:
            full = dataclasses.replace(full, every=max(1, full.epochs // 10))
        full.check()
        return full

    def net(self, count: int, zca: None) -> Network:
        """Build the network, for so many images."""
        layer = self.layer(count)
        return (layer if self.blocks() == 1 else dataclasses.replace(layer, pool=pooling.max_pool(self.blocks())),)


@dataclasses.dataclass(frozen=True)
class Cnn(_Krotov, Convolution):
    """Train a Krotov-Hopfield convolution into a run folder. Settings left out take the data set's own."""

    NAME: ClassVar[str] = 'cnn'
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = cnn.Config.PRESETS


@dataclasses.dataclass(frozen=True)
class Dense(_Krotov):
    """Train a dense Krotov-Hopfield layer into a run folder. Settings left out take the data set's own."""

    NAME: ClassVar[str] = 'dense'
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = dense.Config.PRESETS


@dataclasses.dataclass(frozen=True)
class Miconi(Watched, Stacked):
    """Train Miconi's three Hebbian layers on CIFAR-10 into a run folder."""

    NAME: ClassVar[str] = 'miconi'
    TRAINED: ClassVar[tuple[str, ...]] = tuple(name for name, variant in ROWS.items() if variant.trained)

    dataset: ClassVar[str] = 'cifar10'
    variant: str = 'triangle_trained'
    """Which network of `hebbjax miconi --ablations`; the readout is this command's own."""
    validation: Part = 0.1
    """Share of the training data that is held out for evaluation."""
    save_every: Count = 1
    every: Count | None = 5

    def resolve(self) -> Self:
        """Refuse what cannot run."""
        self.check()
        refuse_unknown('variant', self.variant, self.TRAINED)
        return self

    def whitening(self, images: Array) -> Whitening:
        """Fit to the images, or read what the run keeps: fitted anew on other processors it may differ in a bit."""
        whiten = ROWS[self.variant].whiten
        path = None if self.run is None else self.run / runs.WHITENING
        if path is None or not path.exists():
            return stack.whitening_of(images, self.whitening_images, whiten)
        shape = images.shape[1:] if whiten == 'image' else (stack.WINDOWS[0] ** 2 * images.shape[3],)
        size = math.prod(shape)
        return checkpoint.load(path, Whitening(jnp.zeros(shape), jnp.zeros((size, size))))

    def net(self, count: int, zca: Whitening | None) -> Network:
        """Build the network, for so many images; without a whitening only its shapes are right."""
        variant = ROWS[self.variant]
        stack.refuse_misfits(self, [variant], count)
        return stack.network(variant, self, stack.PLAIN if zca is None else stack.around(zca, variant.whiten))

    def augment(self) -> Callable:
        """Mirror images at random."""
        return augment.flip


RECIPES = {recipe.NAME: recipe for recipe in (Cnn, Dense, Miconi)}


def rebuild(config: Mapping[str, Any], run: pathlib.Path, data_dir: pathlib.Path | None) -> Watched:
    """Build settings again from what a run folder says.

    Raises:
        ValueError: if it is not of these recipes, or of other settings than they have, or damaged.
    """
    recipe = RECIPES.get(str(config['job']))
    names = {field.name for field in dataclasses.fields(recipe)} if recipe else set()
    if recipe is None or not set(config['settings']) <= names:
        made = f'{run} was made by another command or version of hebbjax'
        raise ValueError(f'{made}; this works on folders of `hebbjax train`.')
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in config['settings'].items()}
    try:
        check('its content', config, About)
        return recipe(**settings, run=run, data_dir=data_dir).resolve()
    except ValueError as error:
        reason = without_stop(error)
        raise ValueError(f'{run / runs.CONFIG} is damaged ({reason}); train anew in another folder.') from None
