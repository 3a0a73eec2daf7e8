"""What a gradient through 200 learning steps takes beside the steps: seconds and memory, with and without remat."""

import dataclasses
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import timing
from rich.console import Console

from hebbjax import Layer, Window, init, learned, rules, transforms
from hebbjax.cli.main import run_command


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """A Taylor rule of 27 coefficients behind a softmax, 5 x 5 windows of 28 x 28 x 1 images, which are noise."""

    repetitions: int = 5
    """Turns of every contestant; medians are reported."""
    features: int = 100
    """N, filters."""
    side: int = 28
    """Height and width of the images."""
    batch: int = 64
    """Images per step."""
    steps: int = 200
    """Learning steps that gradients go through, for memory."""
    timed: int = 20
    """Learning steps that gradients go through, for seconds."""


def trainings(config: Config) -> tuple[dict[str, tuple[Callable, int]], jax.Array]:
    """Build what is compared: name -> (function of coefficients and images [T, ...], steps of it), coefficients."""
    theta = jnp.zeros((3, 3, 3)).at[1, 1, 0].set(1.0).at[0, 1, 1].set(-1.0)  # the instar
    shape = config.side, config.side, 1

    def outcome(theta, images, remat=True):
        rule = rules.taylor(theta, rules.soft_wta(0.1))
        net = (Layer(config.features, rule, transforms.scale_by_rate(0.01), Window(5), init=jax.random.uniform),)
        state, _ = learned.run_steps(net, init(net, jax.random.key(0), shape), images, remat=remat)
        return jnp.sum(state.layers[0].w ** 2)

    return {
        'one_step': (outcome, 1),
        'training': (outcome, config.steps),
        'gradient': (jax.value_and_grad(outcome), config.steps),
        'gradient_of_two_steps': (jax.value_and_grad(outcome), 2),  # the fewest whose drives depend on theta
        'gradient_not_rematerialised': (
            jax.value_and_grad(lambda theta, images: outcome(theta, images, False)),
            config.steps,
        ),
    }, theta


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time them in turn, print a table, write the JSON."""
    device = config.prepare()
    rng = np.random.default_rng(0)
    size = config.batch, config.side, config.side, 1
    rows, turns = {}, {}
    with jax.default_device(device):
        functions, theta = trainings(config)
        for name, (f, steps) in functions.items():
            taken = min(steps, config.timed)
            images = jnp.asarray(rng.random((taken, *size), np.float32))
            program, seconds = timing.compiled(jax.jit(f), theta, images)
            turns[name] = lambda program=program, images=images: program(theta, images)
            rows[name] = timing.Row(name, [], taken, seconds)
            whole = jax.ShapeDtypeStruct((steps, *size), jnp.float32)
            memory = jax.jit(f).lower(theta, whole).compile().memory_analysis()
            rows[name].more['temporary_mebibytes'] = memory.temp_size_in_bytes / 2**20
        for name, seconds in timing.in_turn(turns, config.repetitions, console).items():
            rows[name].seconds = seconds
    for row in rows.values():
        ratios = np.array(row.seconds) / np.array(rows['training'].seconds) * rows['training'].steps / row.steps
        row.more['times_training'] = float(np.median(ratios))  # of the same turn
        one = rows['one_step'].more['temporary_mebibytes']
        row.more['times_memory_of_a_step'] = row.more['temporary_mebibytes'] / one
    columns = {**timing.TIMES, 'x training': lambda row: f'{row.more["times_training"]:.2f}'}
    columns |= {
        'MiB': lambda row: f'{row.more["temporary_mebibytes"]:.1f}',
        'x a step': lambda row: f'{row.more["times_memory_of_a_step"]:.2f}',
    }
    timing.show('milliseconds a step, memory of temporaries', columns, list(rows.values()), console)
    timing.write(config.json, list(rows.values()), dataclasses.asdict(config), device)
    return list(rows.values())


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'learned_gradient.py'))
