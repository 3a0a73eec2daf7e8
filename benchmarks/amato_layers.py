"""One Hebbian step of Amato et al.'s four convolutional layers, taught by class, beside the step as plain products."""

import dataclasses
import resource
import sys
from functools import partial

import jax
import jax.numpy as jnp
import timing
from jax import lax
from rich.console import Console

from hebbjax import cli, layers, learning, train
from hebbjax.jobs import deep
from hebbjax.layers import Layer, LayerState

LAYERS, WHOLE = (1, 2, 3, 4), 'four_layers'


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Time and memory of one Hebbian step of layers 1 to 4: winner-take-all by angle, class groups in layers 2 to 4."""

    repetitions: int = 9
    """Turns of every contestant; medians are reported."""
    batch: int = 64
    """Images per step."""


def library_step(layer: Layer, signal: jax.Array | None, state: LayerState, images: jax.Array):
    """Learn as the library does; also what is sent on."""
    return learning.learn(layer, jax.random.key(1), state, images, signal)[:2]


def as_products(layer: Layer, signal: jax.Array | None, state: LayerState, images: jax.Array) -> jax.Array:
    """Learn from the whole batch's patches at once: `w + rate (Y'X - n w) / n`, Y who won where, in zeros and ones."""
    maps = layers.look(layer, images)
    x, w = maps.reshape(-1, maps.shape[-1]), state.w
    u = jnp.matmul(x, (w / jnp.linalg.norm(w, axis=1, keepdims=True)).T, precision=lax.Precision.HIGHEST)
    if signal is not None:
        u = jnp.where(jnp.repeat(signal, len(x) // len(images), axis=0) > 0, u, -jnp.inf)
    y = jax.nn.one_hot(jnp.argmax(u, 1), len(w))
    n = y.sum(0)
    summed = jnp.matmul(y.T, x, precision=lax.Precision.HIGHEST) - n[:, None] * w
    return w + deep.RATE * summed / jnp.maximum(n, 1)[:, None]


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time every layer in both forms, and all four in one program; hold the forms to the same numbers; write the JSON.

    Raises:
        ValueError: if a flag does not fit.
        OSError: if a file cannot be written.
        ArithmeticError: if the forms disagree.
    """
    device = config.prepare()
    with jax.default_device(device):
        built = programs(config.batch)
    calls = {name: partial(program, *args) for name, (program, args, _) in built.items()}
    check(calls, built)
    seconds = timing.in_turn(calls, config.repetitions, console)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    rows = []
    for name, (program, _, took) in built.items():
        macs = sum(deep.MACS[number] for number in LAYERS if name == WHOLE or str(number) in name)
        told = {'mebibytes': timing.mebibytes(program), 'process_mebibytes': peak}
        rows.append(timing.Row(name, seconds[name], 1, took, 2e6 * config.batch * macs, told))
    columns = {
        **timing.TIMES,
        'GFLOP/s of the product': lambda row: f'{row.flops / row.median / 1e9:.0f}',
        'MiB': lambda row: '-' if row.more['mebibytes'] is None else f'{row.more["mebibytes"]:.0f}',
    }
    title = f'One Hebbian step of {config.batch} images; the process peaked at {peak:.0f} MiB'
    timing.show(title, columns, rows, console)
    timing.write(config.json, rows, dataclasses.asdict(config), device)
    return rows


def programs(batch: int) -> dict[str, tuple]:
    """Compile every contestant: name -> (program, arguments, seconds of compiling)."""
    net = tuple(deep.hebbian(number, 'uniform') for number in LAYERS)
    image_key, label_key, key = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(image_key, (batch, *deep.SHAPE))
    labels = jax.random.randint(label_key, (batch,), 0, deep.CLASSES)
    state = train.init(net, key, deep.SHAPE)
    built = {WHOLE: _compiled(train.make_train_step(net), state, images, labels)}
    x = images
    for number, (layer, own) in enumerate(zip(net, state.layers), 1):
        signal = train.teacher_of(net, state.layers, number - 1, labels)
        for name, form in ((f'layer{number}', library_step), (f'layer{number}_products', as_products)):
            built[name] = _compiled(jax.jit(partial(form, layer)), signal, own, x)
        x = layers.respond(layer, own, x)
    return built


def _compiled(f, *args):
    program, took = timing.compiled(f, *args)
    return program, args, took


def check(calls: dict, built: dict, tolerance: float = 1e-4) -> None:
    """Hold both forms of every layer to the same new weights.

    Raises:
        ArithmeticError: naming the layer that differs.
    """
    for name in [name for name in calls if f'{name}_products' in calls]:
        before = built[name][1][1].w
        one, other = calls[name]()[0].w, calls[f'{name}_products']()
        apart = float(jnp.abs(one - other).max() / jnp.abs(one - before).max())
        if not apart <= tolerance:
            raise ArithmeticError(f'{name} differs from {name}_products by {apart:.1e} of the largest change.')


if __name__ == '__main__':
    sys.exit(cli.run_job(Config, run, sys.argv[1:], 'amato_layers.py'))
