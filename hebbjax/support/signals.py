"""Ctrl-C and SIGTERM: heard while a long computation is waited for, held back while something has to be done whole."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}  # where nobody handles them


def wait_until_ready(arrays: Any) -> Any:
    """Wait for a long computation so that Ctrl-C is heard meanwhile; jax's own waiting is deaf until it ends."""
    started = time.perf_counter()
    leaves = [leaf for leaf in jax.tree.leaves(arrays) if hasattr(leaf, 'is_ready')]  # keys have none
    while not all(leaf.is_ready() for leaf in leaves):
        time.sleep(min(0.05, 0.02 * (time.perf_counter() - started)))  # a short epoch is not slept away
    return arrays


class Listener:
    """Turns signals into KeyboardInterrupt; called, it raises one that got lost: in a finaliser Python drops it."""

    heard = None
    waits = False  # with what it heard, until all processes of a training end together

    def hear(self, number: int, frame) -> None:
        self.heard = number
        self()

    def __call__(self) -> None:
        if self.heard is not None and not self.waits:
            raise KeyboardInterrupt

    @property
    def code(self) -> int:
        """Exit code of a process that was ended: 143 after SIGTERM, 130 after Ctrl-C."""
        return 128 + (self.heard or signal.SIGINT)


@contextlib.contextmanager
def listen(waits: bool = False) -> Iterator[Listener]:
    """Make sure that no Ctrl-C gets lost, in a finaliser or jax's hook of the collector, and that SIGTERM is as good.

    A signal that is handled otherwise, or ignored, stays so. Gives a listener to call now and then, one for all blocks.
    """
    owners = [getattr(signal.getsignal(number), '__self__', None) for number in USUAL]
    listener = next((owner for owner in owners if isinstance(owner, Listener)), Listener())
    before, listener.waits = listener.waits, listener.waits or waits
    try:
        with _handled_by(listener.hear, lambda handler: handler in USUAL.values()):
            yield listener
    finally:
        listener.waits = before


@contextlib.contextmanager
def hold_signals(forget: bool = False) -> Iterator[list]:
    """Hold Ctrl-C, and SIGTERM where it is heard, back until a block is through: a save or a compilation.

    Gives a list of what comes; `forget`: nothing else is done about it, so that the block's outcome is not lost.
    """
    held = []
    with _handled_by(lambda *signalled: held.append(signalled), callable) as handlers:
        yield held
    for number, frame in () if forget else held:
        handlers[number](number, frame)


def compile_whole(program: Any, *args: Any, **how: Any) -> Any:
    """Compile a jitted function for arguments; interrupted compilations make XLA fall over when the process ends."""
    with hold_signals():
        return program.lower(*args, **how).compile()


@contextlib.contextmanager
def _handled_by(handler: Callable, replaces: Callable) -> Iterator[dict]:
    """Handle signals otherwise for a while, in the main thread, which alone can."""
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: before for number in USUAL if is_main and replaces(before := signal.getsignal(number))}
    try:
        for number in handlers:
            signal.signal(number, handler)
        yield handlers
    finally:
        for number, before in handlers.items():
            signal.signal(number, before)
