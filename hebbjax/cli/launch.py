"""Which devices a command divides its batches over: some of this machine's, or of all processes that were launched."""

import dataclasses
import os
import signal
import sys

import jax
from jax.sharding import Mesh

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
