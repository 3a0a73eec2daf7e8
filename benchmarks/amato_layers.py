"""One Hebbian step of Amato et al.'s four convolutional layers, taught by class, beside the step as plain products."""

import dataclasses
import pathlib
import resource
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import timing
from jax import lax
from rich.console import Console

from hebbjax import Layer, LayerState, layers, training
from hebbjax.cli.main import run_command

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / 'experiments'))  # whose layers these are
from amato_cifar10.networks import CLASSES, RATE, hebbian_layer

LAYERS, SHAPE = (1, 2, 3, 4), (32, 32, 3)


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Time and memory of one Hebbian step of layers 1 to 4: winner-take-all by angle, class groups in layers 2 to 4."""

    repetitions: int = 9
    """Turns of every contestant; medians are reported."""
    batch: int = 64
    """Images per step."""


def library_step(layer: Layer, signal: jax.Array | None, state: LayerState, images: jax.Array):
    """Learn as the library does. -> the new state, and what is sent on."""
    return layers.update_layer(layer, jax.random.key(1), state, images, signal)[:2]


def as_products(layer: Layer, signal: jax.Array | None, state: LayerState, images: jax.Array) -> jax.Array:
    """Learn from the whole batch's patches at once: `w + rate (Y'X - n w) / n`, Y who won where, in zeros and ones."""
    maps = layers.layer_patches(layer, images)
    x, w = maps.reshape(-1, maps.shape[-1]), state.w
    u = jnp.matmul(x, (w / jnp.linalg.norm(w, axis=1, keepdims=True)).T, precision=lax.Precision.HIGHEST)
    if signal is not None:
        u = jnp.where(jnp.repeat(signal, len(x) // len(images), axis=0) > 0, u, -jnp.inf)
    y = jax.nn.one_hot(jnp.argmax(u, 1), len(w))
    n = y.sum(0)
    summed = jnp.matmul(y.T, x, precision=lax.Precision.HIGHEST) - n[:, None] * w
    return w + RATE * summed / jnp.maximum(n, 1)[:, None]


class Contestant(NamedTuple):
    """A compiled step."""

    program: Callable
    args: tuple  # (signal, state, images); of the whole network's step (state, images, labels)
    compile_seconds: float
    flops: float  # of the drives' products


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time every layer in both forms, held to the same numbers, and all four in one program; write the JSON."""
    device = config.prepare()
    with jax.default_device(device):
        built = contestants(config.batch)
    calls = {name: partial(contestant.program, *contestant.args) for name, contestant in built.items()}
    check_forms(calls, {name: contestant.args for name, contestant in built.items()})
    seconds = timing.in_turn(calls, config.repetitions, console)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    rows = []
    for name, (program, _, compile_seconds, flops) in built.items():
        more = {'mebibytes': timing.mebibytes(program), 'process_mebibytes': peak}
        rows.append(timing.Row(name, seconds[name], 1, compile_seconds, flops, more))
    columns = {
        **timing.TIMES,
        'GFLOP/s of the product': lambda row: f'{row.flops / row.median / 1e9:.0f}',
        'MiB': lambda row: '-' if row.more['mebibytes'] is None else f'{row.more["mebibytes"]:.0f}',
    }
    title = f'One Hebbian step of {config.batch} images; the process peaked at {peak:.0f} MiB'
    timing.show(title, columns, rows, console)
    timing.write(config.json, rows, dataclasses.asdict(config), device)
    return rows


def contestants(batch: int) -> dict[str, Contestant]:
    """Compile the step of the whole network, and of every layer in both forms on what the layers below send it."""
    net = tuple(hebbian_layer(number, 'uniform') for number in LAYERS)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((batch, *SHAPE), np.float32))
    labels = jnp.asarray(rng.integers(0, CLASSES, batch, np.int32))
    state = jax.jit(lambda key: layers.init(net, key, SHAPE))(jax.random.key(0))
    built, x = {}, images
    for place, (number, layer, before) in enumerate(zip(LAYERS, net, state.layers)):
        above = tuple(state.w for state in state.layers[place + 1 :])
        args = layer.teacher and layer.teacher(labels, above), before, x
        flops = 2.0 * jax.eval_shape(partial(layers.layer_patches, layer), x).size * layer.features
        for name, form in ((f'layer{number}', library_step), (f'layer{number}_products', as_products)):
            program, compile_seconds = timing.compiled(jax.jit(partial(form, layer)), *args)
            built[name] = Contestant(program, args, compile_seconds, flops)
        x = jax.jit(partial(layers.forward, layer))(before, x)
    args, flops = (state, images, labels), sum(built[f'layer{number}'].flops for number in LAYERS)
    program, compile_seconds = timing.compiled(training.make_train_step(net), *args)
    return {'four_layers': Contestant(program, args, compile_seconds, flops), **built}


def check_forms(calls: dict[str, Callable], args: dict[str, tuple], tolerance: float = 1e-4) -> None:
    """Hold both forms of every layer to the same new weights."""
    for name in [name for name in calls if f'{name}_products' in calls]:
        before = args[name][1].w
        w, w_products = calls[name]()[0].w, calls[f'{name}_products']()
        apart = float(jnp.abs(w - w_products).max() / jnp.abs(w - before).max())
        if not apart <= tolerance:
            raise ArithmeticError(f'{name} differs from {name}_products by {apart:.1e} of the largest change.')


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'amato_layers.py'))
