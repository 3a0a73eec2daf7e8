"""A progress bar on a terminal or in a notebook, quiet elsewhere."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(console, phase: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show a bar on rich's console while a phase of `total` epochs runs, `done` of them before; a spinner is alive.

    Gives advance(note='', total=total, done=None), to call after each epoch with a few words about it, and how many
    there will be, or are done, where that is not what one would think.
    """
    from rich import progress as bars  # late, as a training without it needs none

    words, note = (bars.TextColumn(f'{{task.{name}}}', markup=False) for name in ('description', 'fields[note]'))
    columns = bars.SpinnerColumn(), words, bars.BarColumn(), bars.MofNCompleteColumn()
    columns = *columns, bars.TimeElapsedColumn(), bars.TimeRemainingColumn(), note
    disable = console.is_jupyter or not console.is_terminal  # in a notebook rich itself wants ipywidgets
    with bars.Progress(*columns, console=console, transient=True, disable=disable) as progress:
        task, cell = progress.add_task(phase, total=total, completed=done, note=''), None
        if console.is_jupyter and not console.quiet:
            from IPython.display import display

            cell = display(progress, display_id=True)

        def advance(note: str = '', total: int = total, done: int | None = None) -> None:
            progress.update(task, note=note, total=total, advance=1 if done is None else None, completed=done)
            if cell is not None:
                cell.update(progress)

        yield advance
