"""Progress on the terminal: a bar per phase that ticks per epoch; quiet where there is no terminal."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
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
def bar(console: Console, phase: str, total: int) -> Iterator[Callable[..., None]]:
    """Show a bar while a phase runs; a spinner shows that a long epoch is alive.

    Args:
        console: a terminal, or anything else: then nothing is drawn.
        phase: what runs.
        total: epochs.

    Yields:
        A function to call after each epoch, with a few words about it.
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
        task = progress.add_task(phase, total=total, note='')
        yield lambda note='': progress.update(task, advance=1, note=note)


def wait(arrays: Any) -> Any:
    """Wait for a long computation so that Ctrl-C is heard meanwhile; jax's own waiting is deaf until it ends."""
    leaves = [leaf for leaf in jax.tree.leaves(arrays) if hasattr(leaf, 'is_ready')]  # keys have none
    while not all(leaf.is_ready() for leaf in leaves):
        time.sleep(0.05)
    return arrays
