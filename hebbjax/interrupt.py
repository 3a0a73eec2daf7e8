"""Ctrl-C: heard while a long computation is waited for, held back while something has to be done whole."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax


def wait(arrays: Any) -> Any:
    """Wait for a long computation so that Ctrl-C is heard meanwhile; jax's own waiting is deaf until it ends."""
    started = time.perf_counter()
    leaves = [leaf for leaf in jax.tree.leaves(arrays) if hasattr(leaf, 'is_ready')]  # keys have none
    while not all(leaf.is_ready() for leaf in leaves):
        time.sleep(min(0.05, 0.02 * (time.perf_counter() - started)))  # a short epoch is not slept away
    return arrays


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], None]]:
    """Make sure that no Ctrl-C gets lost: Python drops one that meets a finaliser or jax's hook of its collector.

    Yields:
        A function to call now and then; it raises what was dropped.
    """
    before = signal.getsignal(signal.SIGINT)
    if not _ours() or before is not signal.default_int_handler:
        yield getattr(before, 'check', lambda: None)  # somebody listens already
        return
    heard = []

    def hear(*_):
        heard.append(True)
        raise KeyboardInterrupt

    def check():
        if heard:
            raise KeyboardInterrupt

    hear.check = check
    signal.signal(signal.SIGINT, hear)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C back until a block is through: a save or a compilation that it would leave half done.

    Raises:
        KeyboardInterrupt: behind the block, if there was one.
    """
    if not _ours():
        yield
        return
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


def _ours() -> bool:
    """Say whether Ctrl-C is heard here: signals are the main thread's, and a job in the background may ignore it."""
    return threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT))
