"""What every test shares: the strict settings, and the two doors out of them.

JAX is as strict here as it can be: no implicit dtype promotion, no implicit broadcasting over ranks, no key used
twice. pytest turns warnings into errors (pyproject.toml). The library itself never touches `jax.config`.

`relaxed` is the one exemption: optax 0.2.8's adam mixes Python floats and int32 counts, which strict dtype promotion
refuses. Tests that train by gradient ask for it; the core's own tests do not.
"""

import importlib.metadata
import os
import pathlib
import signal

# Before jax is imported, for the commands that tests start too: a CPU, and little of XLA's and LLVM's optimising, which
# takes longer than what it saves in programs that run once on a few images. The older emitters of fused loops, which
# jaxlib 0.10 has still, compile in half the time, and a program that is not cut into modules for many cores to compile
# takes a quarter less of one. What XLA_FLAGS says already stands last, so that it holds.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = ' '.join([
    '--xla_backend_optimization_level=0',
    '--xla_force_host_platform_device_count=8',  # for what is divided over devices
    # of no other version, since a flag that XLA does not know ends the process
    '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
    if importlib.metadata.version('jaxlib').startswith('0.10.')
    else '',
    os.environ.get('XLA_FLAGS', ''),
])  # fmt: skip

import jax
import numpy as np
import pytest
from hypothesis import settings

# Test workers keep to a core each, where there is one for each: their threads would only stand in each other's way.
worker, cores = os.environ.get('PYTEST_XDIST_WORKER', ''), sorted(getattr(os, 'sched_getaffinity', lambda _: [])(0))
if worker and len(cores) >= int(os.environ['PYTEST_XDIST_WORKER_COUNT']):
    os.sched_setaffinity(0, {cores[int(worker.removeprefix('gw'))]})

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)

# Every new shape compiles, so examples are few, slow at first sight, and the same ones every time.
settings.register_profile('few', deadline=None, max_examples=15, derandomize=True, database=None)
settings.load_profile('few')


@pytest.fixture(autouse=True, scope='module')
def room():
    """Programs that were compiled for other files' tests make room, once they fill a machine's memory."""
    yield
    pages = pathlib.Path('/proc/self/statm')
    if pages.exists() and int(pages.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') > 2 * 2**30:
        jax.clear_caches()


@pytest.fixture
def relaxed():
    """Standard dtype promotion, for optax's adam. Ranks and keys stay strict."""
    with jax.numpy_dtype_promotion('standard'):
        yield


@pytest.fixture
def x64():
    """float64 on both sides, so that 1e-12 means the same arithmetic."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def compilations():
    """A list that grows with every program that XLA compiles."""
    seen = []

    def hear(name, seconds, **_):
        if name == '/jax/core/compile/backend_compile_duration':
            seen.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(hear)
    yield seen
    jax.monitoring.unregister_event_duration_listener(hear)


@pytest.fixture
def hearing():
    """Ctrl-C is heard: a shell that starts tests in the background makes them, and what they start, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def rng():
    """A numpy generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def few_digits(monkeypatch):
    """Digits cut to a few hundred, so that whole jobs and commands take seconds."""
    from draws import cut

    from hebbjax import data

    whole = data.read, data.load
    for name, read in zip(('read', 'load'), whole):
        monkeypatch.setattr(data, name, lambda *args, read=read, **how: cut(read(*args, **how), 300))
