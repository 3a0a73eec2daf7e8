"""One learning step of Miconi's three layers, whitening, thresholds and masks included, beside its bare products."""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import timing
from jax import lax
from rich.console import Console

from hebbjax import augment, cli, train, whitening
from hebbjax.jobs import stack, variants
from hebbjax.patches import grid


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


def drive_products(net: tuple, batch: int) -> tuple[Callable, list[jax.Array], float]:
    """Build the three layers' matrix products on patches that lie there already.

    Returns:
        A function of patches and weights, these, and the floating point operations of one call.
    """
    shape, operands, flops = stack.SHAPE, [], 0.0
    for number, layer in enumerate(net):
        g = grid(layer.window, shape)
        rows = batch * g.out[0] * g.out[1]
        x_key, w_key = jax.random.split(jax.random.key(number))
        operands += [jax.random.normal(x_key, (rows, g.inputs)), jax.random.normal(w_key, (layer.features, g.inputs))]
        flops += 2.0 * rows * g.inputs * layer.features
        shape = (g.out[0] // 2, g.out[1] // 2, layer.features)

    def products(*operands):
        multiply = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
        return [multiply(x, w.T) for x, w in zip(operands[::2], operands[1::2])]

    return products, operands, flops


def contestants(config: Config) -> tuple[dict[str, tuple[Callable, float]], float]:
    """Build every contestant's turn: name -> (turn, seconds it took to compile), and the products' operations."""
    image_key, zca_key = jax.random.split(jax.random.key(0))
    count = config.batch * config.steps
    images = jax.random.randint(image_key, (count, *stack.SHAPE), 0, 256).astype(jnp.uint8)
    zca = whitening.Whitening(jnp.zeros(stack.SHAPE), jnp.eye(3072) + 0.01 * jax.random.normal(zca_key, (3072, 3072)))
    settings = dataclasses.replace(variants.Config(), burn_in=0, batch=config.batch)
    net = stack.network(variants.ROWS[config.variant], settings, stack.around(zca))
    state = train.init(net, jax.random.key(1), stack.SHAPE)
    batches = [images[start : start + config.batch] for start in range(0, count, config.batch)]

    step, step_compile = timing.compiled(train.make_train_step(net), state, batches[0])
    epoch, epoch_compile = timing.compiled(
        train.make_train_epoch(net, batch=config.batch, augment=augment.flip), state, images
    )
    answer, answer_compile = timing.compiled(
        jax.jit(lambda states, some: train.features(net, states, some)), state.layers, batches[0]
    )
    products, operands, flops = drive_products(net, config.batch)
    products, products_compile = timing.compiled(jax.jit(products), *operands)

    def learn():
        now = state
        for some in batches:
            now, _ = step(now, some)
        return now

    turns = {
        'hebbjax': (learn, step_compile),
        'hebbjax_epoch': (lambda: epoch(state, images)[0], epoch_compile),
        'frozen': (lambda: [answer(state.layers, some) for some in batches], answer_compile),
        'drive_products': (lambda: [products(*operands) for _ in batches], products_compile),
    }
    try:
        import torch_miconi
    except ImportError:
        return turns, flops * config.steps
    if jax.default_backend() == 'cpu':
        own = torch_miconi.Layers([one.w for one in state.layers])
        turns['torch_eager'] = (torch_miconi.turn(batches, own, zca.matrix), 0.0)
    return turns, flops * config.steps


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time every contestant in turn, print a table, write the JSON.

    Raises:
        ValueError: if a flag does not fit.
        OSError: if a file cannot be written.
    """
    device = config.prepare()
    timing.refuse_unknown('variant', (config.variant,), variants.ROWS)
    with jax.default_device(device):
        turns, flops = contestants(config)
        seconds = timing.in_turn({name: turn for name, (turn, _) in turns.items()}, config.repetitions, console)
    rows = [timing.Row(name, seconds[name], config.steps, took, flops) for name, (_, took) in turns.items()]
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
    sys.exit(cli.run_job(Config, run, sys.argv[1:], 'miconi_step.py'))
