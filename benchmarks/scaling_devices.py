"""What dividing over devices leaves to each: operations, bytes and collectives of compiled programs, and wall time.

On a CPU the devices are virtual: what each computes is told by the programs, wall time only where there are cores.
"""

import os

if os.environ.get('JAX_PLATFORMS', 'cpu') == 'cpu':  # before jax is imported; of other backends there are real ones
    flags = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={max(8, os.cpu_count() or 1)} {flags}'

import dataclasses
import re
import sys
import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import optax
import timing
from rich.console import Console

from hebbjax import Layer, Window, layers, readout, rules, training, transforms
from hebbjax.cli.main import run_command
from hebbjax.layers import max_pool, relu
from hebbjax.layers.normalization import BatchNorm
from hebbjax.readout import gradient
from hebbjax.readout.hybrid import NetworkModel
from hebbjax.support import devices, moments

COLLECTIVES = 'all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter'


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Work, bytes and collectives per device of every divided program, on 1, 2, 4 ... devices."""

    devices: tuple[int, ...] = (1, 2, 4, 8)
    """How many devices to divide over."""
    programs: tuple[str, ...] = ('step', 'epoch', 'features', 'ridge', 'gradient')
    """Which programs."""
    batch: int = 512
    """Images, all in one batch."""
    neurons: int = 64
    """Of each of two convolutional layers, the second with batch norm behind it."""


def make_network(config: Config) -> tuple[Layer, ...]:
    """Build two convolutional layers that look at whole batches at once, since XLA counts a loop's body once."""
    rate, how = transforms.scale_by_rate(0.01), {'microbatch': config.batch}
    krotov = rules.krotov(2, 0.4, 3.0), optax.chain(transforms.scale_by_max_abs(), rate)
    instar = rules.instar(1), rate
    return (
        Layer(config.neurons, *krotov, Window(5), post=(relu, max_pool(2)), **how),
        Layer(config.neurons, *instar, Window(3), post=(BatchNorm(), relu, max_pool(2)), **how),
    )


def make_program(name: str, config: Config, mesh: jax.sharding.Mesh) -> tuple[Callable, tuple, dict]:
    """Give what is compiled on a mesh, its arguments as they lie there, and its settings by name."""
    net, mesh = make_network(config), devices.check_mesh(mesh)
    images = np.random.default_rng(0).random((config.batch, 20, 20, 3), np.float32)
    labels = np.arange(config.batch, dtype=np.int32) % 10
    state = layers.init(net, jax.random.key(0), images.shape[1:])
    if name in ('step', 'epoch'):
        make = training.make_train_step if name == 'step' else partial(training.make_train_epoch, batch=config.batch)
        program, state, data = make(net, mesh=mesh).place(state, images)
        return program, (state, *data), {}
    states, rows = devices.lay(state.layers, mesh), devices.fill_rows(images, mesh)
    if name == 'features':
        return jax.jit(lambda states, images: layers.features(net, states, images, mesh=mesh)), (states, rows), {}
    if name == 'ridge':
        with jax.enable_x64(True):
            x, y = (devices.fill_rows(a, mesh) for a in (images.reshape(config.batch, -1), np.eye(10)[labels]))
            counts = devices.fill_rows(np.ones(config.batch, bool), mesh)
            return moments._add_on_device, (mesh, moments._zeros(mesh, x.shape[1], 10), x, y, counts), {}
    whole = (*net, readout.linear_head(10))
    model = NetworkModel(whole, 0)
    params, stats = model.init(layers.init(whole, jax.random.key(0), images.shape[1:]).layers)
    schedule = readout.Schedule(epochs=1, batch=config.batch)
    carry = gradient.Carry(params, stats, schedule.tx().init(params), params, np.int32(0))
    carry, key = devices.lay((carry, jax.random.key(0)), mesh)
    how = np.float32(1), (np.int32(0), np.int32(1))
    arguments = model, schedule, carry, rows, devices.fill_rows(labels, mesh), key, *how
    return gradient.gradient_epoch, arguments, {'mesh': mesh}


def measure(name: str, count: int, config: Config) -> tuple[timing.Row, Callable]:
    """Compile a program for so many devices; give what it says of each, and a turn."""
    mesh = jax.make_mesh((count,), ('data',), devices=jax.devices()[:count])
    program, arguments, how = make_program(name, config, mesh)
    started = time.perf_counter()
    with jax.enable_x64(name == 'ridge'):
        compiled = program.lower(*arguments, **how).compile()
    seconds = time.perf_counter() - started
    cost, sent = compiled.cost_analysis(), re.findall(rf'({COLLECTIVES})(?:-start)?\(', compiled.as_text())
    more = {
        'program': name,
        'devices': count,
        'flops_per_device': cost['flops'],
        'bytes_per_device': cost.get('bytes accessed'),
        'collectives': len(sent),
        'mebibytes': timing.mebibytes(compiled),
    }
    dynamic = [a for a in arguments if not isinstance(a, jax.sharding.Mesh | NetworkModel | readout.Schedule)]

    def turn():
        copy = lambda a: jax.device_put(a, a.sharding, may_alias=False) if isinstance(a, jax.Array) else a  # noqa: E731
        return compiled(*jax.tree.map(copy, dynamic))  # some are donated

    return timing.Row(f'{name} on {count}', [], 1, seconds, None, more), turn


def run(config: Config, console: Console) -> list[timing.Row]:
    """Measure every program on every number of devices, print a table each, write the JSON."""
    device, rows = config.prepare(), []
    timing.refuse_unknown('programs', config.programs, Config.programs)
    there = len(jax.devices())
    for count in config.devices:
        if not 1 <= count <= there or config.batch % count:
            raise ValueError(
                f'--devices {count} does not fit: there are {there}, and --batch {config.batch} has to divide.'
            )
    for name in config.programs:
        measured = [measure(name, count, config) for count in config.devices]
        seconds = timing.in_turn({row.row: turn for row, turn in measured}, config.repetitions, console)
        of_program = [row for row, _ in measured]
        for row in of_program:
            row.seconds = seconds[row.row]
            row.more['flops_of_one'] = row.more['flops_per_device'] / of_program[0].more['flops_per_device']
        columns = {
            **timing.TIMES,
            'work of one device': lambda row: f'{row.more["flops_of_one"]:.3f}',
            'GB per device': lambda row: f'{row.more["bytes_per_device"] / 1e9:.3f}',
            'collectives': lambda row: str(row.more['collectives']),
            'MiB': lambda row: f'{row.more["mebibytes"]:.1f}',
        }
        timing.show(f'{name}, {config.batch} images', columns, of_program, console)
        rows += of_program
    timing.write(config.json, rows, dataclasses.asdict(config), device)
    return rows


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'scaling_devices.py'))
