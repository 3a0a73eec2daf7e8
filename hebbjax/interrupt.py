"""Ctrl-C: heard while a long computation is waited for, held back while something has to be done whole."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
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
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C back until a block is through: a save or a compilation that it would leave half done.

    Raises:
        KeyboardInterrupt: behind the block, if there was one.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
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
