"""How the time of a Krotov-Hopfield step grows with the batch, the hidden units, and the patches of a convolution."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import timing
from rich.console import Console

import hebbjax
from hebbjax import layers, rules, transforms
from hebbjax.cli.main import run_command

TABLES = {
    'batch': [(batch, 2000) for batch in (16, 64, 256, 1024, 4096)],
    'hidden': [(1024, hidden) for hidden in (64, 250, 1000, 2000, 4000, 8000)],
    'patches': [(images, 400) for images in (1, 4, 16, 64, 256)],
}


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Time of one step against batch and hidden units (28 x 28, dense) and patches (28 x 28, windows of 5 x 5)."""

    tables: tuple[str, ...] = tuple(TABLES)
    """Which sizes to vary: batch, hidden, patches."""
    steps: int = 20
    """Steps in a turn; fewer where a step is long."""


def make_turn(table: str, batch: int, hidden: int, steps: int):
    """Compile `steps` steps on one batch; give a turn, the seconds of compiling and the flops of its products."""
    convolutional = table == 'patches'
    layer = hebbjax.Layer(
        hidden,
        rules.krotov(2, 0.4, 3.0),
        optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.02)),
        hebbjax.Window(5) if convolutional else hebbjax.Window(),  # patches centred, or raw
    )
    images = jnp.asarray(np.random.default_rng(0).random((batch, 28, 28, 1), np.float32))
    state = layers.init_layer(layer, jax.random.key(0), images.shape[1:])

    def learn(state, images):
        step = lambda _, state: layers.update_layer(layer, jax.random.key(2), state, images)[0]  # noqa: E731
        return jax.lax.fori_loop(0, steps, step, state)

    program, seconds = timing.compiled(jax.jit(learn), state, images)
    rows = batch * (576 if convolutional else 1)
    return (lambda: program(state, images)), seconds, 2.0 * steps * rows * state.w.size


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time every table, write the JSON."""
    device, all_rows = config.prepare(), []
    timing.refuse_unknown('tables', config.tables, TABLES)
    with jax.default_device(device):
        for table in config.tables:
            rows = []
            for batch, hidden in TABLES[table]:
                steps = max(1, min(config.steps, config.steps * 2**21 // (batch * hidden)))
                turn, seconds, flops = make_turn(table, batch, hidden, steps)
                taken = timing.in_turn({'step': turn}, config.repetitions, console)['step']
                more = {'table': table, 'batch': batch, 'hidden': hidden}
                rows.append(timing.Row(f'{table} {batch} x {hidden}', taken, steps, seconds, flops, more))
            columns = {
                'images': lambda row: str(row.more['batch']),
                'units': lambda row: str(row.more['hidden']),
                'ms a step': lambda row: f'{1e3 * row.median:.2f}',
                'GFLOP/s of the product': lambda row: f'{row.flops / row.steps / row.median / 1e9:.0f}',
                'ns a drive': lambda row: f'{1e9 * row.median / drives_per_step(row):.2f}',
            }
            timing.show(f'{table} grows, {device.device_kind}', columns, rows, console)
            all_rows += rows
    timing.write(config.json, all_rows, dataclasses.asdict(config), device)
    return all_rows


def drives_per_step(row: timing.Row) -> int:
    """Count the drives of a step: patches times units."""
    return row.more['batch'] * row.more['hidden'] * (576 if row.more['table'] == 'patches' else 1)


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'scaling.py'))
