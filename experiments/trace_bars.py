"""Földiák 1991: four complex cells above simple cells come to answer an orientation at all positions, by their trace.

    python experiments/trace_bars.py --json FILE --figure bars.png

Simple cells are given: a map of 8 x 8 for each of four orientations, in which the cells along a bar answer it. A
sequence is one sweep of a bar over its eight positions, across its orientation, one way or the other. One dense layer
of four neurons, the winner of a frame answers; sizes and eta are the paper's. Rows:

    trace        the trace rule, eta = 0.2
    no_trace     the same sweeps, rate, first weights and competition with eta = 1, which is the instar
    untrained    first weights

Measured on the winners of the 32 bars: the share of orientations that have one neuron for all positions, and for no bar
of another orientation; and the bits that the winner tells of orientation (2 at best) and of position (0 at best).
"""

import dataclasses
import pathlib
import sys

import common
import jax
import jax.numpy as jnp
import numpy as np

import hebbjax
from hebbjax import layers, plots, rules, transforms
from hebbjax.cli import flags

SIDE = 8  # positions of a bar, and cells along each side of a map
ORIENTATIONS = ('horizontal', 'vertical', 'rising', 'falling')


@dataclasses.dataclass(frozen=True)
class Config:
    """Sweeps of bars and the layer that watches them."""

    seeds: flags.Seeds = 10  # Number of seeds, 0, 1, ...; each draws weights and sweeps anew
    sweeps: flags.Count = 500  # That are learned from, one by one
    neurons: flags.Count = 4
    eta: flags.number(above=0, most=1) = 0.2  # Share of the trace that a frame renews
    rate: flags.Rate = 0.02  # Per frame
    json: pathlib.Path | None = None  # File for all results, with configuration and versions
    figure: pathlib.Path | None = None  # File for a picture of answers, first seed (png, pdf, svg)


def draw_bars() -> np.ndarray:
    """Draw what simple cells answer to every bar, 1 along it: [orientation, position, H, W, orientation]."""
    i, j = np.indices((SIDE, SIDE))
    cells, middle = np.zeros((4, SIDE, SIDE, SIDE, 4), np.float32), SIDE // 2
    for p in range(SIDE):
        lines = i == p, j == p, i + j == p + middle - 1, i - j == p - middle
        for orientation, line in enumerate(lines):
            cells[orientation, p, ..., orientation] = line
    return cells


def draw_sweeps(key: jax.Array, count: int) -> jax.Array:
    """Draw sweeps of bars in random orientations, one way or the other: [count, T, H, W, C]."""
    which_key, way_key = jax.random.split(key)
    swept = jnp.asarray(draw_bars())[jax.random.randint(which_key, (count,), 0, 4)]
    is_back = jax.random.bernoulli(way_key, 0.5, (count, 1, 1, 1, 1))
    return jnp.where(is_back, swept[:, ::-1], swept)


def answers(settings: Config, seed: int, eta: float | None) -> np.ndarray:
    """Learn from sweeps, None: not at all, and give drives for every bar: [orientation, position, N]."""
    sweep_key, key = jax.random.split(jax.random.key(seed))
    rule = rules.trace(1, eta or 1.0, reduce=rules.sum_over_patches)
    first = lambda key, shape: 0.1 * jax.random.uniform(key, shape)  # noqa: E731
    rate, raw = transforms.scale_by_rate(settings.rate), layers.raw
    net = (hebbjax.Layer(settings.neurons, rule, rate, patch_transform=raw, post=(), init=first),)
    state = hebbjax.init(net, key, (SIDE, SIDE, 4))
    if eta is not None:
        state, _ = hebbjax.make_train_epoch(net, batch=1)(state, draw_sweeps(sweep_key, settings.sweeps))
    u = hebbjax.features(net, state.layers, draw_bars().reshape(-1, SIDE, SIDE, 4))
    return np.asarray(u).reshape(4, SIDE, -1)


def mutual_information(winner: np.ndarray, axis: int, neurons: int) -> float:
    """Give the bits that a bar's winner [orientation, position] tells of where the bar lies along an axis."""
    counts = (winner[..., None] == np.arange(neurons)).sum(1 - axis)  # [along the axis, N]
    joint = counts / counts.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0)
    return float((joint[joint > 0] * np.log2(joint[joint > 0] / independent[joint > 0])).sum())


def measure(u: np.ndarray) -> dict[str, float]:
    """Measure whether winners go by orientation, and by nothing else; u: [orientation, position, N]."""
    winner = u.argmax(-1)
    own = [(row == row[0]).all() and not (np.delete(winner, o, 0) == row[0]).any() for o, row in enumerate(winner)]
    bits = {
        name: mutual_information(winner, axis, u.shape[-1]) for axis, name in enumerate(('orientation', 'position'))
    }
    shares = {'invariant orientations %': 100 * float(np.mean(own))}
    return shares | {f'bits of {name}': value for name, value in bits.items()}


def draw_answers(rows: dict[str, np.ndarray]):
    """Draw a panel for each row and neuron: its drive for every orientation and position."""
    neurons = next(iter(rows.values())).shape[-1]
    figure, panels = plots.curves.make_canvas(2 * neurons, 1.5 * len(rows) + 0.6, '', len(rows), neurons, squeeze=False)
    figure.suptitle('drive of each neuron for bars of every orientation and position; dots: the frames it wins')
    for line, (row, u) in zip(panels, rows.items()):
        line[0].set_ylabel(row)
        for neuron, axes in enumerate(line):
            axes.imshow(u[..., neuron], cmap='Greys', vmin=0, vmax=1.3 * u.max())
            o, p = np.nonzero(u.argmax(-1) == neuron)
            axes.plot(p, o, 'o', color='C3', markersize=3)
            axes.set(xticks=[], yticks=[], title=f'neuron {neuron + 1}')
        line[0].set_yticks(range(4), ORIENTATIONS)
    return figure


def experiment(settings: Config) -> bool:
    """Train every row on every seed, measure, draw. -> False: nobody ended it early."""
    etas = {'untrained': None, 'no_trace': 1.0, 'trace': settings.eta}
    drives = {row: [answers(settings, seed, eta) for seed in range(settings.seeds)] for row, eta in etas.items()}
    measured = {row: [measure(u) for u in seeds] for row, seeds in drives.items()}
    rows = {row: {name: [one[name] for one in of] for name in of[0]} for row, of in measured.items()}
    common.report_measures(settings, rows, f'{settings.sweeps} sweeps of bars')
    common.write_figure(settings.figure, draw_answers({row: drives[row][0] for row in ('no_trace', 'trace')}))
    return False


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'trace_bars.py')


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
