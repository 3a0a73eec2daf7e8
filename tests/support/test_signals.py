"""Ctrl-C and SIGTERM are heard wherever they arrive, held back where something has to be whole, and left to others."""

import contextlib
import itertools
import os
import signal
import threading
import time

import jax.numpy as jnp
import pytest

from hebbjax.support import signals


@pytest.fixture
def handlers():
    """Signal handlers as they were, after a test."""
    before = {number: signal.getsignal(number) for number in signals.USUAL}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Finalised:
    """A thing in whose finaliser a signal arrives, where Python drops what its handler raises."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('number', signals.USUAL)
@pytest.mark.parametrize('how', ['raised', 'held', 'dropped'])
def test_both_signals_are_heard_wherever_they_arrive(number, how, handlers):
    """Except that a job in the background, which ignores Ctrl-C, goes on ignoring it."""
    for background, nested in itertools.product([False, True], repeat=2):
        usual = signals.USUAL | ({signal.SIGINT: signal.SIG_IGN} if background else {})
        for name, handler in usual.items():
            signal.signal(name, handler)
        deaf, order = background and number == signal.SIGINT, []
        with signals.listen() as listener:
            with signals.listen() if nested else contextlib.nullcontext(listener) as inner:
                try:
                    if how == 'held':
                        with signals.hold_signals():
                            signal.raise_signal(number)
                            order.append('through')
                    elif how == 'dropped':
                        Finalised(number)
                        inner()
                    else:
                        signal.raise_signal(number)
                except KeyboardInterrupt:
                    order.append('heard')
            assert inner is listener
            assert listener.code == (130 if deaf else 128 + number)
        assert order == ['through'] * (how == 'held') + ['heard'] * (not deaf)
        assert {name: signal.getsignal(name) for name in usual} == usual


@pytest.mark.parametrize('number', signals.USUAL)
def test_a_signal_that_somebody_handles_is_left_to_him(number, handlers):
    theirs = []
    signal.signal(number, lambda number, frame: theirs.append(number))
    with signals.listen() as listener:
        signal.raise_signal(number)
        with signals.hold_signals():
            signal.raise_signal(number)
            assert theirs == [number]
    listener()
    assert theirs == [number, number]


def test_other_threads_do_what_they_do_without_hearing(handlers):
    done = []

    def work():
        with signals.listen() as listener, signals.hold_signals():
            listener()
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_computation_is_waited_for_so_that_ctrl_c_is_heard(hearing):
    class Never:
        def is_ready(self):
            return False

    arrays = {'x': jnp.ones(3), 'n': 2}
    assert signals.wait_until_ready(arrays) is arrays
    timer, started = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)), time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        signals.wait_until_ready([Never()])
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize('forget', [False, True])
def test_what_comes_while_signals_are_held_waits_or_is_told(hearing, forget):
    ends = contextlib.nullcontext() if forget else pytest.raises(KeyboardInterrupt)
    with ends, signals.hold_signals(forget) as came:
        signal.raise_signal(signal.SIGINT)
        whole = True
    assert whole and [number for number, _ in came] == [signal.SIGINT]


def test_a_compilation_is_not_interrupted(hearing):
    class Program:
        compiled = False

        def lower(self, *args, **how):
            return self

        def compile(self):
            signal.raise_signal(signal.SIGINT)
            self.compiled = True

    program = Program()
    with pytest.raises(KeyboardInterrupt):
        signals.compile_whole(program, 1, mesh=None)
    assert program.compiled
