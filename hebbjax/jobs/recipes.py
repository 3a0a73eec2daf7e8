"""What can be trained into a run folder: a network, its data, and how it is watched, as flags."""

import dataclasses
import importlib.util
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from hebbjax import augment, checkpoint, data, evaluation, pooling, runs, stages, train
from hebbjax.evaluation import Readout
from hebbjax.jobs import cnn, dense, stack
from hebbjax.jobs.settings import Convolution, Hebbian, plain, refuse_idle, refuse_unknown
from hebbjax.jobs.variants import ROWS, Stacked
from hebbjax.loop import DEFAULT
from hebbjax.monitor import Monitor
from hebbjax.readout import Head
from hebbjax.supervised import Schedule
from hebbjax.train import Network, TrainState
from hebbjax.types import Array
from hebbjax.whitening import Whitening

CALLBACKS = ('evaluate', 'early_stop', 'log', 'picture', 'tensorboard', 'checkpoint')  # in the order they are called
READOUTS = ('ridge', 'gradient')


class Subject(NamedTuple):
    """What is trained: a network as it begins, and data; the test split is not among it."""

    net: Network
    state: TrainState
    images: Array  # uint8 [n, H, W, C]
    labels: Array  # [n]
    validation: tuple[Array, Array]
    whitening: Whitening | None  # that the network was built with

    @property
    def data(self) -> dict:
        """Say what the network is built for, as plain JSON values."""
        return {'count': len(self.images), 'shape': list(self.images.shape[1:])}


@dataclasses.dataclass(frozen=True)
class Watched:
    """How a run is watched and steered."""

    run: pathlib.Path | None = None
    """Run folder, a new one; left out: runs/NETWORK-DATASET-1, or the next free number."""
    seed: int = 0
    """Draws weights, order and all else."""
    plan: str = 'parallel'
    """Layers learn in parallel (fed from before the update), in_order (from after it) or layerwise (in turn)."""
    callbacks: tuple[str, ...] = ('evaluate', 'log', 'picture', 'checkpoint')
    """What is done after epochs: evaluate, early_stop, log, picture, tensorboard, checkpoint."""
    every: int = 10
    """Epochs from one evaluation, picture and detailed log to the next; those of the first and last epoch come too."""
    save_every: int = 10
    """Epochs from checkpoint to checkpoint; those of the first and last epoch, and after Ctrl-C, come too."""
    keep: int = 2
    """Last checkpoints to keep."""
    best: str | None = None
    """Metric whose best (largest) checkpoint is kept too, such as validation_accuracy."""
    metric: str = 'validation_accuracy'
    """Metric that early_stop looks at; larger is better."""
    patience: int = 3
    """Measurements of it without a new best before early_stop ends training."""
    readout: str = 'ridge'
    """What evaluates: ridge (regression in closed form) or gradient (batch norm -> linear, trained by Adam)."""
    head_epochs: int = 10
    """Of the gradient readout."""
    head_batch: int = 50
    """Images per step of the gradient readout."""
    look: int = 20
    """Steps between looks of the monitors; 0: nothing is watched."""

    NAME: ClassVar[str] = ''  # of the network, on the command line

    def check(self) -> None:
        """Refuse what cannot be watched.

        Raises:
            ValueError: naming the setting, its value and what would do.
            ModuleNotFoundError: if TensorBoard is asked for and its writer is not installed.
        """
        for name in self.callbacks:
            refuse_unknown('callbacks', name, CALLBACKS)
        refuse_unknown('plan', self.plan, stages.PLANS)
        refuse_unknown('readout', self.readout, READOUTS)
        refuse_idle(self, ('every', 'save_every', 'keep', 'patience', 'head_epochs', 'head_batch'), ())
        if not 0 <= self.seed < 2**32:
            raise ValueError(f'--seed {self.seed} is none; use 0 to {2**32 - 1}.')
        if self.look < 0:
            raise ValueError(f'--look {self.look} is no number of steps; use 1 or more, or 0 to watch nothing.')
        if 'tensorboard' in self.callbacks and importlib.util.find_spec('tensorboardX') is None:
            raise ModuleNotFoundError(
                "--callbacks tensorboard needs tensorboardX, which is not there; pip install 'hebbjax[tensorboard]'."
            )

    def monitor(self) -> Monitor | None:
        """Give the monitors, if there are to be any."""
        return DEFAULT._replace(every=self.look, p=float(getattr(self, 'p', 2.0))) if self.look else None

    def read_out(self, classes: int, start: int | None = None) -> Readout:
        """Give what evaluates; with `start`, layers from there on are trained along with a gradient readout."""
        if self.readout == 'ridge':
            return evaluation.ridge()
        head, schedule = Head(classes, power=None), Schedule(self.head_epochs, self.head_batch, 3e-3, 0.3, 2, 5)
        return evaluation.gradient(head, schedule, start)

    def augment(self) -> Callable | None:
        """Give what happens to images of a batch: nothing, unless a network says otherwise."""
        return None

    def as_json(self) -> dict:
        """Give the run's configuration."""
        return {'job': self.NAME, 'settings': plain(self)}

    def subject(self) -> Subject:
        """Load and check data, set the validation split aside, and build the network as it begins.

        Raises:
            ValueError, OSError: if data cannot be read, or does not fit.
        """
        images, labels = data.load(self.dataset, 'train', data_dir=self.data_dir)
        data.check_images(images)
        limit = getattr(self, 'images', None)
        kept, held_out = data.split_validation(labels[:limit], self.validation, seed=0)
        images, labels, *validation = map(jnp.asarray, (images[kept], labels[kept], images[held_out], labels[held_out]))
        zca = self.whitening(images)
        net = self.net(len(images), zca)
        state = train.init(net, jax.random.key(self.seed), images.shape[1:])
        return Subject(net, state, images, labels, tuple(validation), zca)

    def bare(self, data: Mapping[str, Any]) -> tuple[Network, TrainState]:
        """Build a network of the right shapes without its data (see `Subject.data`): enough to read a checkpoint."""
        net = self.net(data['count'], None)
        return net, train.init(net, jax.random.key(self.seed), tuple(data['shape']))

    def whitening(self, images: Array) -> Whitening | None:
        """Fit what the network whitens by, if it does: once for a run, which keeps it."""
        return None

    def refuse_misfits(self, subject: Subject) -> None:
        """Refuse, before a folder is made, what would end training or evaluation in its first epoch.

        Raises:
            ValueError: naming the setting, its value and what would do.
        """
        layers = range(1, len(subject.net) + 1)
        told = ('change', *(('win_entropy', 'dead', 'converged', 'mean', 'variance', 'sparsity') if self.look else ()))
        known = ['seconds', *(f'layer{n}.{name}' for n in layers for name in told)]
        if 'evaluate' in self.callbacks:
            known += ['train_accuracy', 'validation_accuracy', 'evaluate_seconds']
            if self.readout == 'ridge':
                evaluation.check_width(subject.net, subject.state.layers, subject.images)
            elif self.head_batch > len(subject.labels):
                raise ValueError(f'--head-batch {self.head_batch} is larger than the {len(subject.labels)} images.')
        if 'early_stop' in self.callbacks:
            refuse_unknown('metric', self.metric, known)
        if self.best is not None:
            refuse_unknown('best', self.best, known)


@dataclasses.dataclass(frozen=True)
class _Krotov(Watched, Hebbian):
    def resolve(self) -> Self:
        """Fill what was left out with the data set's own settings, and refuse what cannot run."""
        full = super().resolve()
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
    validation: float = 0.1
    """Share of the training data that is held out for evaluation."""
    save_every: int = 1
    every: int = 5

    def resolve(self) -> Self:
        """Refuse what cannot run."""
        refuse_unknown('variant', self.variant, self.TRAINED)
        refuse_idle(self, self.COUNTS, ('rate',))
        self.check()
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
        ValueError: if it is not of these recipes, or of other settings than they have.
    """
    recipe = RECIPES.get(str(config['job']))
    names = {field.name for field in dataclasses.fields(recipe)} if recipe else set()
    if recipe is None or not set(config['settings']) <= names:
        made = f'{run} was made by another command or version of hebbjax'
        raise ValueError(f'{made}; this works on folders of `hebbjax train`.')
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in config['settings'].items()}
    try:
        return recipe(**settings, run=run, data_dir=data_dir).resolve()
    except TypeError as error:
        raise ValueError(f'{run / runs.CONFIG} is damaged ({error}); train anew in another folder.') from None
