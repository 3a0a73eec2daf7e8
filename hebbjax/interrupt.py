"""Ctrl-C and SIGTERM: heard while a long computation is waited for, held back while something has to be done whole."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}  # where nobody handles them


def wait(arrays: Any) -> Any:
    """Wait for a long computation so that Ctrl-C is heard meanwhile; jax's own waiting is deaf until it ends."""
    started = time.perf_counter()
    leaves = [leaf for leaf in jax.tree.leaves(arrays) if hasattr(leaf, 'is_ready')]  # keys have none
    while not all(leaf.is_ready() for leaf in leaves):
        time.sleep(min(0.05, 0.02 * (time.perf_counter() - started)))  # a short epoch is not slept away
    return arrays


class Listener:
    """Turns signals into KeyboardInterrupt; called, it raises one that got lost: in a finaliser Python drops it."""

    def __init__(self):
        self.heard = None

    def hear(self, number: int, _) -> None:
        """Handle a signal."""
        self.heard = number
        raise KeyboardInterrupt

    def __call__(self) -> None:
        if self.heard is not None:
            raise KeyboardInterrupt

    @property
    def code(self) -> int:
        """Exit code of a process that was ended: 143 after SIGTERM, 130 after Ctrl-C or whatever raised the like."""
        return 128 + (self.heard or signal.SIGINT)


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """Make sure that no Ctrl-C gets lost, in a finaliser or jax's hook of the collector, and that SIGTERM is as good.

    A signal that somebody else handles, or that this process was started to ignore, is left to that.

    Yields:
        The listener to call now and then; inside another block like this, that of the outer one.
    """
    before = {number: signal.getsignal(number) for number in USUAL}
    outer = [getattr(handler, '__self__', None) for handler in before.values()]
    listener = next((one for one in outer if isinstance(one, Listener)), Listener())
    ours = [number for number, handler in before.items() if handler is USUAL[number] and _is_main()]
    for number in ours:
        signal.signal(number, listener.hear)
    try:
        yield listener
    finally:
        for number in ours:
            signal.signal(number, before[number])


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C, and SIGTERM where it is heard, back until a block is through: a save or a compilation.

    Raises:
        KeyboardInterrupt: behind the block, if there was one.
    """
    before = {number: signal.getsignal(number) for number in USUAL}
    heard = []
    ours = [number for number, handler in before.items() if callable(handler) and _is_main()]
    for number in ours:
        signal.signal(number, lambda *told: heard.append(told))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])
    for number, frame in heard:
        before[number](number, frame)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
