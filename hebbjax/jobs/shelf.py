"""Finished trainings, kept in memory and, where a run folder is given, on disk: what is there is not done again."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Literal, TypedDict

from hebbjax import checkpoint, files, runs
from hebbjax.jobs import report
from hebbjax.jobs.cells import Training
from hebbjax.jobs.deep import Learned, Line, States
from hebbjax.jobs.schema import CountOrZero, read_file
from hebbjax.supervised import Snapshot


class Told(TypedDict):
    """What is kept of a finished training beside its layers: `Learned`, and accuracies in percent."""

    curve: list[Line]
    best: CountOrZero
    seconds: float
    compile_seconds: float
    loss: tuple[float | None, float | None] | None
    reached: dict[Literal['train', 'test'], float]


@dataclasses.dataclass
class Shelf:
    """Where finished trainings lie; of each, its own layers, its curve, and accuracies once a cell has asked.

    In a folder: `seed0/H16.npz` holds layers, `seed0/H16.json` says that they are finished, `seed0/H16.part.npz` is a
    gradient training on its way.
    """

    folder: pathlib.Path | None = None
    finished: dict[tuple[str, int], Learned] = dataclasses.field(default_factory=dict)
    reached: dict[tuple[str, int], dict[str, float]] = dataclasses.field(default_factory=dict)

    def path(self, training: Training, seed: int, ending: str) -> pathlib.Path:
        """Name a file of a training."""
        return self.folder / f'seed{seed}' / f'{training.name}.{ending}'

    def get(self, training: Training, seed: int, draw: Callable[[], States]) -> Learned | None:
        """Find a finished training.

        Args:
            training: which.
            seed: of which seed.
            draw: gives its layers in some state, of which the kept ones have the shape.

        Returns:
            None, if it is not there. Its states are those of its own layers alone.

        Raises:
            ValueError: if its files are damaged, or another network's.
        """
        found = self.finished.get((training.name, seed))
        if found is not None or self.folder is None or not self.path(training, seed, 'json').is_file():
            return found
        path = self.path(training, seed, 'json')
        told = read_file(path, Told, 'delete it, and what it tells of is trained anew')
        if training.letter != 'R' and told['best'] >= len(told['curve']):
            raise ValueError(f'{path} is damaged (its best epoch is not in its curve); delete it, and train it anew.')
        states = checkpoint.load(self.path(training, seed, 'npz'), draw())
        self.reached[training.name, seed] = told.pop('reached')
        learned = Learned(states, **told | {'curve': [Line(*line) for line in told['curve']]})
        self.finished[training.name, seed] = learned
        return learned

    def has(self, training: Training, seed: int) -> bool:
        """Say whether a training is finished, and here."""
        return (training.name, seed) in self.finished

    def put(self, training: Training, seed: int, learned: Learned) -> None:
        """Keep a training's own layers and its curve."""
        own = learned._replace(states=learned.states[training.upto :])
        self.finished[training.name, seed] = own
        self.reached[training.name, seed] = {}
        if self.folder is not None:
            self.path(training, seed, 'json').parent.mkdir(exist_ok=True)
            checkpoint.save(self.path(training, seed, 'npz'), own.states)
            self.write(training, seed)
            self.path(training, seed, 'part.npz').unlink(missing_ok=True)

    def note(self, training: Training, seed: int, **reached: float) -> None:
        """Keep accuracies of a finished training."""
        self.reached[training.name, seed].update(reached)
        if self.folder is not None:
            self.write(training, seed)

    def write(self, training: Training, seed: int) -> None:
        """Write what is known of a finished training, beside its layers."""
        one = self.finished[training.name, seed]
        told = one._asdict() | {'reached': self.reached[training.name, seed]}
        files.write_json(self.path(training, seed, 'json'), {name: told[name] for name in Told.__annotations__})

    def partly(self, training: Training, seed: int) -> dict[str, Callable]:
        """Give the two arguments of `supervised.fit` by which an interrupted training goes on."""
        if self.folder is None:
            return {}
        path = self.path(training, seed, 'part.npz')
        path.parent.mkdir(exist_ok=True)

        def kept(like: Snapshot) -> Snapshot | None:
            if not path.is_file():
                return None
            try:
                return checkpoint.load(path, like)
            except ValueError as error:
                raise ValueError(f'{error} Delete it, and this training begins anew.') from None

        return {'keep': lambda snapshot: checkpoint.save(path, snapshot), 'kept': kept}


def opened(folder: pathlib.Path, job: str, settings: dict) -> pathlib.Path:
    """Open a run folder: a new one, or one of the same settings, to go on in.

    Raises:
        OSError: if there is something else in that place, or it cannot be made.
        ValueError: if it was made with other settings, naming the first.
    """
    if is_new(folder, job, settings):
        return runs.create(folder, {'job': job, 'settings': settings}, report.surroundings())
    return folder.absolute()


def is_new(folder: pathlib.Path, job: str, settings: dict) -> bool:
    """Say whether a run folder is a new one; see `opened`, of whose settings these may be some.

    Raises:
        OSError: if there is something else in that place.
        ValueError: if it was made with other settings, naming the first.
    """
    if not (folder / runs.CONFIG).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise FileExistsError(f'{folder} is not empty and holds no run; name a new folder with --run.')
        runs.check_new(folder)
        return True
    found = runs.config_of(folder)
    if found['job'] != job:
        raise ValueError(f'{folder} holds a run of {found["job"]}, not of {job}; name another folder with --run.')
    for name, value in json.loads(json.dumps(settings)).items():
        if found['settings'].get(name) != value:
            raise ValueError(
                f'{folder} holds trainings with {name} = {found["settings"].get(name)}, asked are {value}; '
                'name another folder with --run, or ask for the same.'
            )
    return False
