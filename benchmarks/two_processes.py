"""A training by two processes of this machine, which meet through gloo, beside one process: wall time, and the weights.

    python benchmarks/two_processes.py

It is also how such a training is launched by hand: each process is told how many there are, and which one it is.
"""

import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import optax
import timing
from rich.console import Console

import hebbjax
from hebbjax import rules, training, transforms
from hebbjax.cli.main import run_command


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Time Krotov-Hopfield training on random images (28 x 28, dense) by one and by two processes."""

    images: int = 4000
    """Of all processes together."""
    batch: int = 1000
    """Of all processes together."""
    hidden: int = 1000
    """Units."""
    epochs: int = 2
    """In a turn."""


def child(place: str, count: str, index: str, port: str, settings: str) -> None:
    """Train on this process's part of the images, and write what it took and came to."""
    count, index, config = int(count), int(index), Config(**json.loads(settings))
    if count > 1:
        jax.distributed.initialize(f'localhost:{port}', count, index, heartbeat_timeout_seconds=30)
    mesh = jax.make_mesh((jax.device_count(),), ('data',))
    images = np.random.default_rng(0).random((config.images, 28, 28, 1), np.float32)
    images = images.reshape(jax.device_count(), -1, *images.shape[1:])  # rows of each device, whoever has it
    images = np.concatenate(images[index * len(images) // count :][: len(images) // count])
    tx = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.02))
    net, seconds = (hebbjax.Layer(config.hidden, rules.krotov(), tx),), []
    how = {'stages': [training.Stage(config.epochs)], 'batch': config.batch, 'watch': None, 'mesh': mesh}
    state = hebbjax.init(net, jax.random.key(0), images.shape[1:])
    for _ in range(config.repetitions + 1):  # the first one compiles, and is not counted
        started = time.perf_counter()
        result = training.fit(net, state, images, **how)
        seconds.append(time.perf_counter() - started)
    if not index:
        np.savez(pathlib.Path(place, 'result.npz'), w=result.state.layers[0].w, seconds=seconds[1:])


def launch(count: int, devices: int, config: Config) -> dict[str, np.ndarray]:
    """Start so many processes of so many devices each, and give what the first one found; one that fails ends all."""
    with tempfile.TemporaryDirectory() as place, socket.socket() as free:
        free.bind(('localhost', 0))  # a port that nobody has
        port = free.getsockname()[1]
        free.close()
        settings = json.dumps(dataclasses.asdict(config) | {'json': None})
        env = os.environ | {'JAX_PLATFORMS': 'cpu'}
        env['XLA_FLAGS'] = f'{env.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
        command = [sys.executable, __file__, '--child', place, str(count)]
        ends = [str(port), settings]
        with open(pathlib.Path(place, 'errors'), 'w+') as errors:
            children = [
                subprocess.Popen([*command, str(index), *ends], env=env, stderr=errors) for index in range(count)
            ]
            try:
                while None in (codes := [process.poll() for process in children]) and not any(codes):
                    time.sleep(0.1)
                if any(codes):
                    errors.seek(0)
                    raise ValueError(f'a process failed: {errors.read().strip().splitlines()[-1]}')
            finally:
                for process in children:
                    process.kill()
                    process.wait()
        return dict(np.load(pathlib.Path(place, 'result.npz')))


def run(config: Config, console: Console) -> list[timing.Row]:
    """Train in all ways, print, write the JSON."""
    if config.device not in (None, 'cpu'):
        raise ValueError(f'--device {config.device} is not used: these processes share CPUs; leave it out.')
    device, rows, weights = jax.devices('cpu')[0], [], {}
    config.prepare()
    for name in ('images', 'batch'):
        if getattr(config, name) % 2:
            raise ValueError(
                f'--{name} {getattr(config, name)} does not divide over two processes; use an even number.'
            )
    for count, devices in ((1, 1), (1, 2), (2, 1)):
        found = launch(count, devices, config)
        name = f'processes {count}, devices of each {devices}'
        weights[name] = found['w']
        rows.append(timing.Row(name, found['seconds'].tolist(), config.epochs * (config.images // config.batch)))
        console.print(f'{name}: {1000 * rows[-1].median:.1f} ms a step', highlight=False)
    *_, one, two = weights.values()
    difference = float(np.abs(one - two).max())
    rows[-1].more['difference'] = difference
    console.print(f'largest difference of a weight, two processes and one of two devices: {difference:.1e}')
    timing.write(config.json, rows, dataclasses.asdict(config), device)
    return rows


if __name__ == '__main__':
    if sys.argv[1:2] == ['--child']:
        child(*sys.argv[2:])
    else:
        sys.exit(run_command(Config, run, sys.argv[1:], 'two_processes.py'))
