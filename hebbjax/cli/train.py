"""Train a network into a run folder, watched, from the beginning or from its last checkpoint."""

import dataclasses
import pathlib
import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import tyro
from jax.sharding import Mesh
from rich.console import Console

from hebbjax import data, training
from hebbjax.cli import flags, launch, run_folder
from hebbjax.cli.settings import Krotov, Miconi, check_batch, check_fits
from hebbjax.cli.tables import surroundings
from hebbjax.layers import Network, TrainState, init
from hebbjax.readout import ProbeFit, Schedule, gradient_probe, linear_head, ridge_probe
from hebbjax.support import files
from hebbjax.support.checks import require
from hebbjax.training.comparison import initial_state
from hebbjax.training.hosts import take_part
from hebbjax.training.presets import TUNED, Recipe

CALLBACKS = ('evaluate', 'early_stop', 'log', 'plot', 'tensorboard', 'checkpoint')  # in the order they are called
METRIC = 'validation_accuracy'


class Start(NamedTuple):
    """What a training begins with; the test split is not among it."""

    settings: 'Watched'  # with nothing left out
    recipe: Recipe
    state: TrainState
    train: data.Split
    validation: data.Split
    about: dict  # what a run keeps of its data
    names: tuple[str, ...]  # of classes; (): unknown
    net = property(lambda self: self.recipe.net)
    classes = property(lambda self: self.about['classes'])  # 0 where there are no labels


@dataclasses.dataclass(frozen=True)
class Watched(launch.OnDevices):
    """How a run is watched and steered, whatever its network."""

    run: pathlib.Path | None = None  # Run folder, a new one; left out: runs/NETWORK-DATASET-1, or the next free number
    seed: flags.Seed = 0  # Draws weights, order and all else
    plan: flags.choice(*training.PLANS) = 'simultaneous'  # Sequential: fed after each update; greedy: in turn
    callbacks: tuple[flags.choice(*CALLBACKS), ...] = ('evaluate', 'log', 'plot', 'checkpoint')  # Or early_stop, ...
    every: flags.Count | None = None  # Epochs from evaluation, picture, detailed log to the next; else a tenth of all
    save_every: flags.Count = 10  # Epochs from checkpoint to checkpoint; those of the first and last epoch come too
    keep: flags.Count = 2  # Last checkpoints to keep, beside the one of the best evaluation
    patience: flags.Count = 3  # Evaluations without a new best validation accuracy before early_stop ends training
    readout: flags.choice('ridge', 'gradient') = 'ridge'  # What evaluates; gradient: batch norm -> linear, by Adam
    head_epochs: flags.Count = 10  # Of the gradient readout
    head_batch: flags.Count = 50  # Images per step of the gradient readout
    monitor_every: flags.CountOrZero = 20  # Steps between looks of the monitors; 0: nothing is watched

    def probe(self, classes: int, start: int | None = None) -> ProbeFit:
        """Give what evaluates; with `start`, layers from there on are trained along with a gradient readout."""
        if self.readout == 'ridge' and start is None:
            return ridge_probe()
        schedule = Schedule(self.head_epochs, self.head_batch, 3e-3, 0.3, 2, 5)
        return gradient_probe(linear_head(classes, power=None), schedule, start)

    def start(self, console: Console | None = None, about: dict | None = None) -> Start:
        """Load and check data, and build the network as it begins; `about` is what a run keeps of its data."""
        settings, train, validation, names = self.open(console)
        count, shape = len(train.images), train.images.shape[1:]
        classes = 0 if train.labels is None else int(train.labels.max()) + 1
        now = {'count': count, 'shape': list(shape), 'classes': classes, 'digest': data.digest(*train, *validation)}
        began = f'{self.run} began with other training or validation images than {self.dataset} and --validation'
        require(about in (None, now), f'{began} {settings.validation} give now; put back what was changed.')
        check_batch(settings.batch, count)
        check_fits(settings.recipe(count).net, shape)  # before its whitening is fitted
        recipe = settings.recipe(count, train.images)
        state = initial_state(recipe, jax.random.key(self.seed), train.images)
        return Start(settings, recipe, state, train, validation, now, names)


@dataclasses.dataclass(frozen=True)
class TrainKrotov(Watched, Krotov):
    """Train a Krotov-Hopfield layer into a run folder. Settings left out take the data set's own."""

    network: tyro.conf.Positional[flags.choice(*TUNED)] = 'cnn'  # cnn, a convolution, or dense


@dataclasses.dataclass(frozen=True)
class TrainMiconi(Watched, Miconi):
    """Train Miconi's three Hebbian layers into a run folder."""

    network: tyro.conf.Positional[str] = 'miconi'  # this one


@dataclasses.dataclass(frozen=True)
class Resume(launch.OnDevices):
    """Go on with a run that was interrupted, from its last checkpoint, as if it had never been."""

    resume: pathlib.Path  # Its folder
    epoch: flags.CountOrZero | None = None  # Checkpoint to go on from; later ones are deleted. Left out: the last
    data_dir: pathlib.Path | None = None  # Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR


NETWORKS = {'cnn': TrainKrotov, 'dense': TrainKrotov, 'miconi': TrainMiconi}


def find_train(argv: Sequence[str]) -> tuple[type, Callable]:
    """Give the flags of `hebbjax train NETWORK` or `hebbjax train --resume RUN`, and what is done with them."""
    if any(word.partition('=')[0] == '--resume' for word in argv):
        return Resume, resume_run
    name, way = argv[0] if argv else 'nothing', 'or go on with --resume RUN'
    require(name in NETWORKS, f'{name!r} is no network; there are {", ".join(NETWORKS)}; {way}.')
    return NETWORKS[name], run_train


def run_train(settings: Watched, console: Console) -> bool:
    """Train a network into a new run folder; after Ctrl-C a checkpoint keeps the last whole epoch."""
    mesh, start = settings.mesh(), settings.start(console)
    settings = without_labels(start.settings, console) if start.train.labels is None else start.settings
    fits = 'evaluate' in settings.callbacks or 'early_stop' not in settings.callbacks
    require(fits, 'early_stop waits for what evaluate measures; name evaluate in --callbacks as well.')
    make_callbacks(settings, start, pathlib.Path())  # an extra that is not there is missed here, not in a new folder
    if 'evaluate' in settings.callbacks:  # what would end the first epoch is refused before
        settings.probe(start.classes).check(start.net, start.state.layers, start.train, start.validation)
    about = {'command': 'train', 'settings': flags.settings_json(settings), 'data': start.about}
    create = run_folder.create if settings.run else run_folder.create_numbered
    folder = settings.run or pathlib.Path('runs', f'{settings.network}-{pathlib.Path(settings.dataset).stem}')
    if not jax.process_index():  # the first one writes for all
        folder = create(folder.expanduser(), about, surroundings())
    with run_folder.held(folder):
        return go_on(settings, start, folder, training.START, mesh, console)


def without_labels(settings: Watched, console: Console) -> Watched:
    """Leave the evaluation out, which needs labels."""
    needing = {'evaluate', 'early_stop'} & {*settings.callbacks}
    way = 'sort the images into one folder for each class, or leave early_stop out of --callbacks'
    require('early_stop' not in needing, f'{settings.dataset} has no labels, and early_stop needs them; {way}.')
    if needing:
        console.print('no labels: nothing is evaluated')
    return dataclasses.replace(settings, callbacks=tuple(name for name in settings.callbacks if name not in needing))


def resume_run(settings: Resume, console: Console) -> bool:
    """Go on with a run from a checkpoint; from the beginning, if it has none yet."""
    folder = settings.resume
    mesh, (run_settings, about) = settings.mesh(), read_run(folder, settings.data_dir)
    with run_folder.held(folder):
        start, position = run_settings.start(console, about), training.START
        checkpoints = training.Checkpoints(folder / run_folder.CHECKPOINTS, keep=run_settings.keep)
        if checkpoints.epochs():
            state, position = training.resume(checkpoints, start.state, settings.epoch)
            if not jax.process_index():
                checkpoints.forget(len(position.history))
            start = start._replace(state=state)
        return go_on(run_settings, start, folder, position, mesh, console)


def read_run(folder: pathlib.Path, data_dir: pathlib.Path | None) -> tuple[Watched, dict]:
    """Read a run's settings, and what it keeps of its data; refuse what is damaged, or of another command."""
    path = folder / run_folder.CONFIG
    if not path.is_file():
        raise FileNotFoundError(f'{folder} is no run folder: it has no {path.name}; `hebbjax train` makes one.')
    config = files.read_json(path, way := 'or of another command or version; train anew in another folder')
    with files.reading(path, way, files.NONSENSE):
        settings, about = config['settings'], config['data']
        flags.check('count', about['count'], flags.Count)
        flags.check('classes', about['classes'], flags.CountOrZero)
        flags.check('shape', about['shape'], tuple[flags.Count, flags.Count, flags.Count])
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        return NETWORKS[settings['network']](**settings, run=folder, data_dir=data_dir).resolve(), about


def begin_again(settings: Watched, about: dict) -> tuple[Network, TrainState]:
    """Give a run's network as it began; its images are needed only where whitening or weights came of them."""
    if settings.needs_images:
        start = settings.start(about=about)
        return start.net, start.state
    net = settings.recipe(about['count']).net
    return net, init(net, jax.random.key(settings.seed), tuple(about['shape']))


def check_shape(came: Sequence[int], about: dict) -> None:
    """Refuse images of another shape than a run learned from."""
    came, (h, w, c) = tuple(came), about['shape']
    way = f'bring images to it by --resize {h} {w}' if came[2] == c else 'use others'
    require(came == (h, w, c), f'images of {came} do not fit a run that learned from {(h, w, c)}; {way}.')


def go_on(
    settings: Watched, start: Start, folder: pathlib.Path, position: training.Position, mesh: Mesh | None,
    console: Console,
) -> bool:  # fmt: skip
    """Train on from where a run stands, and say what was reached and what to do next. -> whether it was interrupted."""
    net, epochs, batch, augment, _ = start.recipe
    stages, done = training.plan_stages(settings.plan, net, epochs), len(position.history)
    total, count = sum(stage.epochs for stage in stages), len(start.train.images)
    console.print(f'{folder}: {total} epochs of {count} images' + (f', from epoch {done} on' if done else ''))
    how = {'batch': batch, 'augment': augment, 'position': position, 'watch': None}
    if settings.monitor_every:
        how['watch'] = training.Monitor(settings.monitor_every, p=float(getattr(settings, 'p', 2)))
    callbacks = [*make_callbacks(settings, start, folder), training.Progress(console, total, count, done=done)]
    where = shlex.quote(str(folder))
    resume = f'go on with: hebbjax train --resume {where}'
    try:
        train = take_part(start.train, mesh)
        result = training.fit(net, start.state, *train, stages=stages, callbacks=callbacks, mesh=mesh, **how)
    except ConnectionError as error:
        raise ConnectionError(f'{str(error).rstrip(".")}; {resume}') from None
    except OSError as error:  # a full disk, say
        raise OSError(f'{str(error).rstrip(".")}; when there is room, {resume}') from None
    reached = ''.join(f', {METRIC} {row[METRIC]:.4g}' for row in result.history[-1:] if METRIC in row)
    console.print(f'{len(result.history)} of {total} epochs{reached}, {result.seconds:.1f} s')
    if 'checkpoint' in settings.callbacks:
        judge = f'hebbjax evaluate {where}, ' if start.classes else ''
        console.print(f'interrupted; {resume}' if result.interrupted else f'next: {judge}hebbjax show {where}')
    return result.interrupted


def make_callbacks(settings: Watched, start: Start, folder: pathlib.Path) -> list[training.Callback]:
    """Build the callbacks that were asked for, in the order in which they build on each other."""
    shape, every = start.train.images.shape[1:], settings.every or max(1, settings.epochs // 10)
    saving = {'every': settings.save_every, 'keep': settings.keep}
    saving |= {'best': METRIC} if 'evaluate' in settings.callbacks else {}
    judged = start.train, start.validation
    make = {
        'evaluate': lambda: training.evaluate(*judged, settings.probe(start.classes), every=every),
        'early_stop': lambda: training.early_stop(METRIC, settings.patience),
        'log': lambda: training.Log(folder, every=every),
        'plot': lambda: training.Pictures(folder / run_folder.PICTURES, shape, every=every),
        'tensorboard': lambda: training.TensorBoard(folder / run_folder.EVENTS, shape, every=every),
        'checkpoint': lambda: training.Checkpoints(folder / run_folder.CHECKPOINTS, **saving),
    }
    return [make[name]() for name in CALLBACKS if name in settings.callbacks]
