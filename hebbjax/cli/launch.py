"""How a command runs, whatever it does: on which devices, of how many processes; where compiled programs are kept."""

import dataclasses
import os
import pathlib
import signal
import sys
from typing import Annotated

import jax
import tyro
from jax.sharding import Mesh
from tyro.constructors import PrimitiveConstructorSpec

from hebbjax.cli import flags
from hebbjax.support.checks import require

HEARTBEAT = 30  # seconds without a sign of life, after which a process counts as dead
TORCHRUN = 'MASTER_ADDR', 'MASTER_PORT', 'RANK', 'WORLD_SIZE'  # what it, and launchers like it, tell a process


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnDevices:
    """Flags of what trains on several devices."""

    devices: flags.Count = 1  # Devices to divide every batch over; of each process, where there are several
    distributed: bool = False  # Be one of several processes, which a launcher (srun, mpirun, torchrun) has started

    def mesh(self) -> Mesh | None:
        """Give these devices as the library takes them; None: one, the default."""
        count, processes = jax.local_device_count(), range(jax.process_count())
        require(self.devices <= count, f'--devices {self.devices} is more than the {count} there are here; use fewer.')
        chosen = [device for process in processes for device in jax.local_devices(process)[: self.devices]]
        return jax.make_mesh((len(chosen),), ('data',), devices=chosen) if len(chosen) > 1 else None

    def probe_mesh(self) -> Mesh | None:
        """Give the devices of what is fitted to all images: each of several processes has these, and fits alone."""
        return None if self.distributed else self.mesh()


def start(settings: object) -> None:
    """Meet the other processes, if settings say that there are any; all but the first one print nothing from now on."""
    if not getattr(settings, 'distributed', False):
        return
    env, how = os.environ, {}
    try:
        if 'JAX_NUM_PROCESSES' in env:
            how = {'num_processes': int(env['JAX_NUM_PROCESSES']), 'process_id': int(env['JAX_PROCESS_ID'])}
        elif env.keys() >= {*TORCHRUN}:
            port = int(env['MASTER_PORT']) + ('TORCHELASTIC_RUN_ID' in env)  # torchrun itself listens on its own
            how = {'num_processes': int(env['WORLD_SIZE']), 'process_id': int(env['RANK'])}
            how |= {'coordinator_address': f'{env["MASTER_ADDR"]}:{port}'}
            if int(env.get('LOCAL_WORLD_SIZE', 1)) > 1:  # a device for each
                how['local_device_ids'] = int(env['LOCAL_RANK'])
        jax.distributed.initialize(**how, heartbeat_timeout_seconds=HEARTBEAT)
    except (ValueError, KeyError) as error:
        way = f'start it by srun, mpirun or torchrun, or set {", ".join(TORCHRUN)} for each process'
        raise ValueError(f'--distributed finds no other processes in its environment ({error}); {way}.') from None
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # jax has put a handler of its own over Python's
    if jax.process_index():
        sys.stdout = open(os.devnull, 'w')  # noqa: SIM115  until it ends


def leave(code: int) -> None:
    """End a process that failed at once, if there are others: they notice it, where jax would wait for them."""
    if jax.distributed.is_initialized():
        sys.stderr.flush()
        os._exit(code)


FOLDER = Annotated[
    pathlib.Path | None,
    PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar='[FOLDER]',
        instance_from_str=lambda words: pathlib.Path(*words or (os.getenv('XDG_CACHE_HOME') or '~/.cache', 'hebbjax')),
        is_instance=lambda value: value is None or isinstance(value, pathlib.Path),
        str_from_instance=lambda value: ['off' if value is None else str(value)],
    ),
]


def with_cache(kind: type) -> type:
    """Give a dataclass of flags with `--compilation-cache [FOLDER]` behind all others."""
    help_text = 'Keep compiled programs for later runs, in ~/.cache/hebbjax where no FOLDER is named; left out: nowhere'
    cache = Annotated[FOLDER, tyro.conf.arg(help=help_text)]
    field = 'compilation_cache', cache, dataclasses.field(default=None, kw_only=True)
    same = {name: getattr(kind, name) for name in ('__doc__', '__module__', '__qualname__')}  # where help is read from
    return dataclasses.make_dataclass(kind.__name__, [field], bases=(kind,), frozen=True, namespace=same)


def keep_programs(folder: pathlib.Path) -> None:
    """Keep all compiled programs in a folder, made where there is none, and take those that are there."""
    folder = folder.expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f'{folder} cannot be written; name another folder behind --compilation-cache.')
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)  # else nothing small is kept
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def missing_device() -> str | None:
    """Say that what JAX_PLATFORMS asks for is not there; None: it is."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # jax 0.10 asserts it of a platform that it has no plugin for
        asked = f'JAX_PLATFORMS={jax.config.jax_platforms}'
        return f'{asked} names no device that jax finds; install what it needs, such as jax[cuda], or leave it out.'
    return None
