"""Progress on a terminal or in a notebook: a bar per phase that ticks per epoch; quiet elsewhere."""

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
        console: of a terminal or a notebook; elsewhere nothing is drawn.
        phase: what runs.
        total: epochs.
        done: epochs before this one began.

    Yields:
        A function to call after each epoch, with a few words about it, and how many there will be, or are done, where
        that is not what one would think.
    """
    columns = (
        SpinnerColumn(),
        TextColumn('{task.description}', markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn('{task.fields[note]}', markup=False),
    )
    drawn = console.is_terminal and not console.is_jupyter
    with Progress(*columns, console=console, transient=True, disable=not drawn) as progress:
        task = progress.add_task(phase, total=total, completed=done, note='')
        redraw = _in_cell(progress) if console.is_jupyter and not console.quiet else lambda: None

        def tick(note='', total=total, done=None):
            moved = {'advance': 1} if done is None else {'completed': done}
            progress.update(task, note=note, total=total, **moved)
            redraw()

        yield tick


def _in_cell(progress: Progress) -> Callable[[], None]:
    """Show progress below a notebook's cell; rich itself would draw nothing without ipywidgets.

    Returns:
        A function that shows how it stands now.
    """
    from IPython.display import display

    shown = display(progress, display_id=True)
    return lambda: shown.update(progress)
