"""What commands print: it may get lost without ending a command, and names are never markup."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator

from rich.console import Console


class Stream:
    """A text stream that drops what cannot be written: its reader went away, its disk is full."""

    def __init__(self, stream):
        self._stream = stream
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors='backslashreplace')  # what the encoding lacks ends no command either

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def _attempt(self, what: str, *text: str) -> None:
        try:
            getattr(self._stream, what)(*text)
        except OSError:
            with contextlib.suppress(OSError), open(os.devnull, 'w') as nowhere:  # for what is still in its buffer
                os.dup2(nowhere.fileno(), self._stream.fileno())

    write, flush = functools.partialmethod(_attempt, 'write'), functools.partialmethod(_attempt, 'flush')


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Let a command do its work though nobody reads what it prints: `| head`, a closed or a full output."""
    before = sys.stdout, sys.stderr
    # one that was closed is None, and its number goes to the next file that is opened: better this one
    with open(os.devnull, 'w') as nowhere:
        sys.stdout, sys.stderr = streams = [Stream(stream or nowhere) for stream in before]
        try:
            yield
        finally:
            for stream in streams:
                stream.flush()
            sys.stdout, sys.stderr = before


def make_console() -> Console:
    """Give a command's console; where it is no terminal, lines are as long as they are."""
    width = None if sys.stdout.isatty() else 10_000
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True, width=width)
