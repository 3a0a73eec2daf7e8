"""How long a list of trainings will take: foretold from what those done so far took."""

from hebbjax.jobs import deep
from hebbjax.jobs.cells import Training


class Left:
    """An estimate of what is left, from the work of trainings and the time that work has taken so far."""

    def __init__(self, trainings: list[tuple[Training, int, int]]):
        self.todo = {(one.name, seed): (one.letter, deep.work(one, epochs)) for one, seed, epochs in trainings}
        self.partly = {}  # share of a training that is done
        self.time = {}  # letter -> [work, seconds]

    def spent(self, training: Training, seed: int, epoch: int, epochs: int, seconds: float) -> None:
        """Take note of an epoch's end."""
        _, work = self.todo[training.name, seed]
        self.partly[training.name, seed] = epoch / epochs
        if seconds > 0:
            self.time[training.letter, training.name] = (work * epoch / epochs, seconds)

    def drop(self, training: Training, seed: int) -> None:
        """Take note of a training's end."""
        self.todo.pop((training.name, seed), None)

    def seconds(self) -> float | None:
        """Foretell the seconds left; None before anything was measured."""
        if not self.time:
            return None
        pace = {}
        for letters in ('G', 'H', 'GH'):
            found = [one for (letter, _), one in self.time.items() if letter in letters]
            pace[letters] = sum(s for _, s in found) / sum(w for w, _ in found) if found else None
        return sum(
            work * (1 - self.partly.get(name, 0)) * (pace.get(letter) or pace['GH'])
            for name, (letter, work) in self.todo.items()
        )

    def __str__(self) -> str:
        seconds = self.seconds()
        return '' if seconds is None else f'about {duration(seconds)} left in all'


def duration(seconds: float) -> str:
    """Say a duration as people do: 40 s, 12 min, 2 h 5 min."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f'{seconds:.0f} s'
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min'
