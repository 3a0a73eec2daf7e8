"""What commands print: it may get lost without ending a job, and names are never markup."""

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterator

from rich.console import Console

UNLIMITED = 10_000  # columns


class Stream:
    """A text stream that drops what cannot be written, and remembers why."""

    def __init__(self, stream):
        self._stream, self.lost = stream, None
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors='backslashreplace')  # what the encoding lacks ends no job either

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        self._attempt(self._stream.flush)

    def _attempt(self, do, *what):
        try:
            do(*what)
        except OSError as error:
            self.lost = self.lost or error
            with contextlib.suppress(OSError), open(os.devnull, 'w') as nowhere:  # for what is still in its buffer
                os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Let a command do its work though nobody reads what it prints: `| head`, a closed or a full output.

    Raises:
        SystemExit: with code 2, in the end, if output was lost otherwise than because its reader went away.
    """
    if isinstance(sys.stdout, Stream):
        yield
        return
    with contextlib.ExitStack() as stack:
        before = sys.stdout, sys.stderr
        # one that was closed is None, and its number goes to the next file that is opened: better this one
        opened = [one or stack.enter_context(open(os.devnull, 'w')) for one in before]
        sys.stdout, sys.stderr = told, cried = Stream(opened[0]), Stream(opened[1])
        try:
            yield
        finally:
            told.flush()
            if lost := told.lost is not None and told.lost.errno != errno.EPIPE:
                print(f'hebbjax: error: output cannot be written ({told.lost.strerror}).', file=cried)
            cried.flush()
            sys.stdout, sys.stderr = before
            if lost:
                raise SystemExit(2)


def console() -> Console:
    """Give a command's console; where it is no terminal, lines are as long as they are."""
    made = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else UNLIMITED)
    if made.width < 1:  # COLUMNS=0
        made.width = shutil.get_terminal_size().columns
    return made
