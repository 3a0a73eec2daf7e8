"""Progress on the terminal: a bar per phase that ticks per epoch; quiet where there is no terminal."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextlib.contextmanager
def bar(console: Console, phase: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show a bar while a phase runs; a spinner shows that a long epoch is alive.

    Args:
        console: a terminal, or anything else: then nothing is drawn.
        phase: what runs.
        total: epochs.
        done: epochs before this one began.

    Yields:
        A function to call after each epoch, with a few words about it, and how many there will be, or are done, where
        that is not what one would think.
    """
    columns = (
        SpinnerColumn(),
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn('{task.fields[note]}'),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(phase, total=total, completed=done, note='')

        def tick(note='', total=total, done=None):
            moved = {'advance': 1} if done is None else {'completed': done}
            progress.update(task, note=note, total=total, **moved)

        yield tick
