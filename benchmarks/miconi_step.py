"""One learning step of Miconi's three layers, whitening, thresholds and masks included, beside its bare products."""

import dataclasses
import math
import pathlib
import sys
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import timing
from jax import lax
from rich.console import Console

from hebbjax import Layer, data, layers, training
from hebbjax.cli.main import run_command
from hebbjax.layers.patches import lay_grid

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / 'experiments'))  # whose network this is
import miconi_cifar10
from miconi_cifar10 import ROWS, SHAPE

SETTINGS = miconi_cifar10.Config(burn_in=0)


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Time of one learning step of all three layers at the paper's sizes. Images are noise, which costs the same."""

    repetitions: int = 9
    """Turns of every contestant; medians are reported."""
    batch: int = 100
    """Images per step."""
    steps: int = 4
    """Steps in a turn, one after the other."""
    variant: str = 'triangle_trained'
    """Which network: triangle_trained, default_trained, or another row of the experiment."""


def make_network(row: str, settings: miconi_cifar10.Config, zca: data.Whitening) -> tuple[Layer, ...]:
    """Build the network of a row of the experiment around a whitening that was not fitted to anything."""
    first = {'pre': (layers.standardise, partial(data.whiten, zca), layers.standardise)}
    return miconi_cifar10.make_network(ROWS[row], settings, first)


def drive_products(net: tuple, batch: int) -> tuple[Callable, list[jax.Array], float]:
    """Build the three layers' matrix products on patches that lie there already.

    Returns:
        A function of patches and weights, these, and the floating point operations of one call.
    """
    shape, operands, flops = SHAPE, [], 0.0
    rng = np.random.default_rng(0)
    for layer in net:
        grid = lay_grid(layer.window, shape)
        rows = batch * grid.out[0] * grid.out[1]
        operands += [jnp.asarray(rng.standard_normal((n, grid.inputs), np.float32)) for n in (rows, layer.features)]
        flops += 2.0 * rows * grid.inputs * layer.features
        shape = (grid.out[0] // 2, grid.out[1] // 2, layer.features)

    def products(*operands):
        multiply = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
        return [multiply(x, w.T) for x, w in zip(operands[::2], operands[1::2])]

    return products, operands, flops


def contestants(config: Config) -> tuple[dict[str, tuple[Callable, float]], float]:
    """Build every contestant's turn: name -> (turn, seconds it took to compile), and the products' operations."""
    rng, count, size = np.random.default_rng(0), config.batch * config.steps, math.prod(SHAPE)
    images = jnp.asarray(rng.integers(0, 256, (count, *SHAPE), np.uint8))
    matrix = np.eye(size, dtype=np.float32) + 0.01 * rng.standard_normal((size, size), np.float32)
    zca = data.Whitening(jnp.zeros(SHAPE), jnp.asarray(matrix))
    net = make_network(config.variant, SETTINGS, zca)
    state = jax.jit(lambda key: layers.init(net, key, SHAPE))(jax.random.key(1))
    batches = [images[start : start + config.batch] for start in range(0, count, config.batch)]

    step, step_compile = timing.compiled(training.make_train_step(net), state, batches[0])
    epoch, epoch_compile = timing.compiled(
        training.make_train_epoch(net, batch=config.batch, augment=data.random_flip), state, images
    )
    answer, answer_compile = timing.compiled(
        jax.jit(lambda states, batch: layers.features(net, states, batch)), state.layers, batches[0]
    )
    products, operands, flops = drive_products(net, config.batch)
    products, products_compile = timing.compiled(jax.jit(products), *operands)

    def learn():
        learned = state
        for batch in batches:
            learned, _ = step(learned, batch)
        return learned

    turns = {
        'hebbjax': (learn, step_compile),
        'hebbjax_epoch': (lambda: epoch(state, images)[0], epoch_compile),
        'frozen': (lambda: [answer(state.layers, batch) for batch in batches], answer_compile),
        'drive_products': (lambda: [products(*operands) for _ in batches], products_compile),
    }
    try:
        import torch_miconi
    except ImportError:
        return turns, flops * config.steps
    if jax.default_backend() == 'cpu':
        torch_layers = torch_miconi.Layers([layer.w for layer in state.layers])
        turns['torch_eager'] = (torch_miconi.turn(batches, torch_layers, zca.matrix), 0.0)
    return turns, flops * config.steps


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time every contestant in turn, print a table, write the JSON."""
    device = config.prepare()
    timing.refuse_unknown('variant', (config.variant,), ROWS)
    with jax.default_device(device):
        turns, flops = contestants(config)
        seconds = timing.in_turn({name: turn for name, (turn, _) in turns.items()}, config.repetitions, console)
    rows = [
        timing.Row(name, seconds[name], config.steps, compile_seconds, flops)
        for name, (_, compile_seconds) in turns.items()
    ]
    by_name = {row.row: row for row in rows}
    for row in rows:
        row.more['images_per_second'] = config.batch / row.median
        row.more['fraction_of_product'] = by_name['drive_products'].median / row.median
        row.more['times_hebbjax'] = row.median / by_name['hebbjax'].median
    columns = {
        **timing.TIMES,
        'images/s': lambda row: f'{row.more["images_per_second"]:.0f}',
        'of products': lambda row: f'{100 * row.more["fraction_of_product"]:.0f} %',
        'x hebbjax': lambda row: f'{row.more["times_hebbjax"]:.2f}',
    }
    title = f'{config.variant}: a learning step of {config.batch} images, three layers'
    timing.show(title, columns, rows, console)
    timing.write(config.json, rows, dataclasses.asdict(config), device)
    return rows


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'miconi_step.py'))
