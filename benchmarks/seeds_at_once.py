"""Miconi's network under many seeds in one program, and whether a training from equal keys repeats in every bit."""

import dataclasses
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import timing
from miconi_step import ROWS, SETTINGS, SHAPE, make_network
from rich.console import Console

from hebbjax import data, layers, training
from hebbjax.cli.main import run_command


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Time of a learning step of so many seeds at once, on noise, which costs the same."""

    repetitions: int = 3
    """Turns of every contestant; medians are reported."""
    seeds: tuple[int, ...] = (1, 10, 100)
    """How many seeds to map together."""
    batch: int = 100
    """Images per step and seed."""
    steps: int = 10
    """Steps in a turn: an epoch of so many batches."""
    deterministic: bool = False
    """Take forms whose sums do not depend on the order in which threads add."""
    variant: str = 'triangle_trained'
    """Which network: triangle_trained, default_trained, or another row of the experiment."""


def run(config: Config, console: Console) -> list[timing.Row]:
    """Compile an epoch for every number of seeds, time them, compare the bits of two turns, write the JSON."""
    device, rows, rng = config.prepare(), [], np.random.default_rng(0)
    timing.refuse_unknown('variant', (config.variant,), ROWS)
    size = int(np.prod(SHAPE))
    matrix = np.eye(size, dtype=np.float32) + 0.01 * rng.standard_normal((size, size), np.float32)
    net = make_network(config.variant, SETTINGS, data.Whitening(jnp.zeros(SHAPE), jnp.asarray(matrix)))
    net = tuple(dataclasses.replace(layer, deterministic=config.deterministic) for layer in net)
    epoch = training.make_train_epoch(net, batch=config.batch, augment=data.random_flip)
    with jax.default_device(device):
        images = jnp.asarray(rng.integers(0, 256, (config.batch * config.steps, *SHAPE), np.uint8))
        init = jax.jit(jax.vmap(lambda key: layers.init(net, key, SHAPE)))
        for seeds in config.seeds:
            states = init(jax.random.split(jax.random.key(0), seeds))
            program, seconds = timing.compiled(training.over_seeds(epoch, seeds), states, images)
            turn = partial(program, states, images)
            weights = [[np.asarray(layer.w) for layer in turn()[0].layers] for _ in range(2)]
            same = all((first == second).all() for first, second in zip(*weights))
            taken = timing.in_turn({'turn': turn}, config.repetitions, console)['turn']
            name = f'{seeds} seeds{", deterministic" if config.deterministic else ""}'
            rows.append(timing.Row(name, taken, config.steps, seconds, None, {'identical': same}))
    for row, seeds in zip(rows, config.seeds):
        row.more['images_per_second'] = seeds * config.batch / row.median
    columns = {
        **timing.TIMES,
        'images/s': lambda row: f'{row.more["images_per_second"]:.0f}',
        'repeats in every bit': lambda row: 'yes' if row.more['identical'] else 'no',
        'compile s': lambda row: f'{row.compile_seconds:.1f}',
    }
    timing.show(f'{config.variant}: a learning step of {config.batch} images for each seed', columns, rows, console)
    timing.write(config.json, rows, dataclasses.asdict(config), device)
    return rows


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'seeds_at_once.py'))
