"""What every run into a folder can be told, as flags: how it is watched and steered; and what it begins with."""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable
from typing import ClassVar, NamedTuple, NotRequired, TypedDict

import jax
import jax.numpy as jnp

from hebbjax import data, evaluation, runs, stages, train
from hebbjax.evaluation import Readout
from hebbjax.jobs.schema import Count, CountOrZero, Seed, check_settings
from hebbjax.jobs.settings import plain, refuse_larger_than_memory, refuse_unknown
from hebbjax.loop import DEFAULT
from hebbjax.monitor import Monitor
from hebbjax.readout import Head
from hebbjax.supervised import Schedule
from hebbjax.train import Network, TrainState
from hebbjax.types import Array
from hebbjax.whitening import Whitening

CALLBACKS = ('evaluate', 'early_stop', 'log', 'picture', 'tensorboard', 'checkpoint')  # in the order they are called
READOUTS = ('ridge', 'gradient')


class Described(TypedDict):
    """What a run keeps of its data."""

    count: Count  # training images, less those for validation
    shape: tuple[Count, Count, Count]
    digest: NotRequired[str]  # of images and labels of both sides; older runs have none


class About(TypedDict):
    """What `config.json` holds of a run."""

    job: str
    settings: dict
    data: Described


class Subject(NamedTuple):
    """What is trained: a network as it begins, and data; the test split is not among it."""

    net: Network
    state: TrainState
    images: Array  # uint8 [n, H, W, C]
    labels: Array  # [n]
    validation: tuple[Array, Array]
    whitening: Whitening | None  # that the network was built with
    data: Described  # what the network is built for


@dataclasses.dataclass(frozen=True)
class Watched:
    """How a run is watched and steered."""

    run: pathlib.Path | None = None
    """Run folder, a new one; left out: runs/NETWORK-DATASET-1, or the next free number."""
    seed: Seed = 0
    """Draws weights, order and all else."""
    plan: str = 'parallel'
    """Layers learn in parallel (fed from before the update), in_order (from after it) or layerwise (in turn)."""
    callbacks: tuple[str, ...] = ('evaluate', 'log', 'picture', 'checkpoint')
    """What is done after epochs: evaluate, early_stop, log, picture, tensorboard, checkpoint."""
    every: Count | None = None
    """Epochs from one evaluation, picture and detailed log to the next; those of the first and last epoch come too.
    Left out: a tenth of all."""
    save_every: Count = 10
    """Epochs from checkpoint to checkpoint; those of the first and last epoch, and after Ctrl-C, come too."""
    keep: Count = 2
    """Last checkpoints to keep."""
    best: str | None = None
    """Metric whose best (largest) checkpoint is kept too, such as validation_accuracy."""
    metric: str = 'validation_accuracy'
    """Metric that early_stop looks at; larger is better."""
    patience: Count = 3
    """Measurements of it without a new best before early_stop ends training."""
    readout: str = 'ridge'
    """What evaluates: ridge (regression in closed form) or gradient (batch norm -> linear, trained by Adam)."""
    head_epochs: Count = 10
    """Of the gradient readout."""
    head_batch: Count = 50
    """Images per step of the gradient readout."""
    look: CountOrZero = 20
    """Steps between looks of the monitors; 0: nothing is watched."""

    NAME: ClassVar[str] = ''  # of the network, on the command line

    def check(self) -> None:
        """Refuse what cannot be watched.

        Raises:
            ValueError: naming the setting, its value and what would do.
            ModuleNotFoundError: if TensorBoard is asked for and its writer is not installed.
        """
        check_settings(self)
        for name in self.callbacks:
            refuse_unknown('callbacks', name, CALLBACKS)
        refuse_unknown('plan', self.plan, stages.PLANS)
        refuse_unknown('readout', self.readout, READOUTS)
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

    def subject(self, known: Described | None = None) -> Subject:
        """Load and check data, set the validation split aside, and build the network as it begins.

        Args:
            known: what a run keeps of its data, which has to be these; None: nothing is known yet.

        Raises:
            ValueError, OSError: if data cannot be read, or does not fit.
        """
        images, labels = data.load(self.dataset, 'train', data_dir=self.data_dir)
        data.check_images(images)
        limit = getattr(self, 'images', None)
        kept, held_out = data.split_validation(labels[:limit], self.validation, seed=0)
        parts = images[kept], labels[kept], images[held_out], labels[held_out]
        now = {'count': len(kept), 'shape': list(images.shape[1:]), 'digest': data.digest(*parts)}
        if known is not None and any(known.get(name, value) != value for name, value in now.items()):
            raise ValueError(
                f'{self.run} began with other training or validation images than {self.dataset} and --validation '
                f'{self.validation} of its {runs.CONFIG} give now; put back what was changed.'
            )
        images, labels, *validation = map(jnp.asarray, parts)
        refuse_larger_than_memory(self.net(len(images), None), images.shape[1:])
        zca = self.whitening(images)
        net = self.net(len(images), zca)
        state = train.init(net, jax.random.key(self.seed), images.shape[1:])
        return Subject(net, state, images, labels, tuple(validation), zca, now)

    def bare(self, data: Described) -> tuple[Network, TrainState]:
        """Build a network of the right shapes without its data (see `Subject.data`): enough to read a checkpoint."""
        net = self.net(data['count'], None)
        refuse_larger_than_memory(net, tuple(data['shape']))
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
