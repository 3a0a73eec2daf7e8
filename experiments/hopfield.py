"""Associative memory (Hopfield 1982): how many patterns a recurrent Hebbian layer holds, and sequences that replay.

    python experiments/hopfield.py --json hopfield.json --figure hopfield.png

The network: one dense layer of N neurons that sees its own N answers, no connection of a neuron to itself, weights 0 at
first. It stores P random patterns of -1 and 1; load = P / N. Rows, for each N:

    hebb        dw_i = x_i x, all patterns in one step; for N without end it breaks at 0.138 N (Amit et al. 1985)
    delta       dw_i = (x_i - w_i . x) x, in steps at rate 1 / largest eigenvalue: exact up to N patterns
    sequence    hebb on one sequence of P frames, dw_i = x_i(t + 1) x(t), replayed from its first frame

Wrong are pixels after recall: from the pattern itself (whether it stays), and from half of it, the other half 0; of
a sequence, in all frames after the first, whole or half. 50 % is chance. Nothing is chosen, so nothing is held out.
"""

import dataclasses
import functools
import pathlib
import sys
from statistics import fmean

import common
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.ticker import MaxNLocator

from hebbjax import Layer, TrainState, data, init, layers, rules, train_step, transforms
from hebbjax.cli import flags
from hebbjax.plots.curves import draw_line, make_canvas

KINDS = ('hebb', 'delta', 'sequence')
HELD = 0.05  # share of wrong pixels at which a memory is said to break


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the memories."""

    sizes: tuple[flags.Rank, ...] = (100, 200, 400, 800)  # N, neurons and pixels
    loads: tuple[flags.Rate, ...] = (0.05, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25, 0.3, 0.4, 0.6, 0.8, 0.95)  # P / N
    steps: flags.Count = 30  # Steps of recall; a sequence takes one for each frame
    epochs: flags.Count = 100  # Steps in which the delta rule learns
    cues: flags.Count = 100  # Patterns that are recalled, of all that are stored
    seeds: flags.Seeds = 5  # Number of seeds, 0, 1, ...; each draws other patterns
    json: pathlib.Path | None = None  # File for all results
    figure: pathlib.Path | None = None  # File for a picture of the curves and of recalled digits (png, pdf, svg)


def store(kind: str, x: jax.Array, epochs: int) -> tuple[Layer, TrainState]:
    """Store patterns [P, H, W, 1] of -1 and 1, or frames of one sequence, in a layer of as many neurons as pixels."""
    is_delta, pixels = kind.startswith('delta'), x.reshape(len(x), -1)
    rule = rules.associate('delta' if is_delta else 'hebb', sequences='sequence' in kind, reduce=rules.sum_over_patches)
    rate = 1 / jnp.linalg.eigvalsh(pixels @ pixels.T)[-1] if is_delta else 1 / pixels.shape[1]
    tx = transforms.scale_by_rate(rate)
    layer = Layer(pixels.shape[1], rule, tx, init=jax.nn.initializers.zeros, post=(jnp.sign,))
    state = init((layer,), jax.random.key(0), x.shape[1:])
    step = lambda state, _: (train_step((layer,), state, x[None] if 'sequence' in kind else x)[0], None)  # noqa: E731
    return layer, jax.lax.scan(step, state, None, epochs if kind.startswith('delta') else 1)[0]


def halve(x: jax.Array) -> jax.Array:
    """Keep the upper half of patterns; the lower one becomes 0."""
    return x.at[:, x.shape[1] // 2 :].set(0)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def count_wrong(settings: Config, kind: str, size: int, count: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Give the share of pixels that are wrong after recall from whole cues, and from half ones."""
    x = jax.random.rademacher(key, (count, size, 1, 1), jnp.float32)
    layer, state = store(kind, x, settings.epochs)
    wrong = []
    for cues in (x, halve(x)):
        if kind == 'sequence':
            path = layers.recall(layer, state.layers[0], cues[:1], count - 1)  # [P - 1, 1, N, 1, 1]
            wrong.append(jnp.mean(path[:, 0] != x[1:]))
        else:
            last = layers.recall(layer, state.layers[0], cues[: settings.cues], settings.steps)[-1]
            wrong.append(jnp.mean(last != x[: settings.cues]))
    return tuple(wrong)


def measure(settings: Config, kind: str, size: int) -> np.ndarray:
    """Measure shares of wrong pixels: [whole or half, loads, seeds]."""
    key = lambda seed: jax.random.fold_in(jax.random.key(seed), size)  # noqa: E731
    counts = [max(2, round(load * size)) for load in settings.loads]
    wrong = [[count_wrong(settings, kind, size, count, key(n)) for n in range(settings.seeds)] for count in counts]
    return np.moveaxis(np.array(wrong), 2, 0)


def breaking_load(loads, wrong) -> float:
    """Give the load at which `HELD` of the pixels become wrong, between those measured; the largest, if none do."""
    beyond = [place for place, share in enumerate(wrong) if share > HELD]
    if not beyond or not beyond[0]:
        return loads[beyond[0]] if beyond else loads[-1]
    place = beyond[0]
    return float(np.interp(HELD, wrong[place - 1 : place + 1], loads[place - 1 : place + 1]))


def draw(settings: Config, wrong: dict[str, np.ndarray]):
    """Draw wrong pixels over load, a panel a rule and a line a size; below, digits stored, halved and recalled."""
    figure, panels = make_canvas(10.5, 6, '', 2, len(KINDS))
    for axes, kind in zip(panels[0], KINDS):
        for number, size in enumerate(settings.sizes):
            for name, style, shares in zip((f'N = {size}', ''), '-:', wrong[f'{kind}, N = {size}']):
                draw_line(axes, name, settings.loads, 100 * shares.mean(1), color=f'C{number}', ls=style)
        axes.set(xlabel='load P / N', title=kind, ylim=(-2, 52))
        axes.xaxis.set_major_locator(MaxNLocator(5))
    panels[0, 0].axvline(0.138, color='0.5', ls='--', label='0.138')
    panels[0, 0].set_ylabel('wrong pixels (%), dotted: from half')
    panels[0, 0].legend(fontsize='small')

    images, labels = data.load('digits')
    digits = jnp.asarray([images[np.flatnonzero(labels == label)[0]] for label in range(10)])
    x = jnp.where(layers.to_intensities(digits) > 0.5, 1.0, -1.0)
    for axes, kind, few in zip(panels[1], ('hebb', 'delta', 'delta sequence'), (x[:3], x, x)):
        layer, state = store(kind, few, 500)
        if 'sequence' in kind:
            path = layers.recall(layer, state.layers[0], x[:1], 9)[:, 0]
            rows, title = (x, jnp.concatenate([x[:1], path])), 'stored, replayed from the first'
        else:
            recalled = layers.recall(layer, state.layers[0], halve(few), settings.steps)[-1]
            rows, title = (few, halve(few), recalled), 'stored, cue, recalled'
        padded = np.pad(np.stack(rows)[..., 0], ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
        axes.imshow(np.block([[*row] for row in padded]), cmap='gray_r', vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[], facecolor='C0')
        axes.set_title(f'{kind}: {title}', fontsize='small')
    return figure


def experiment(settings: Config) -> bool:
    """Store and recall at every load, print and write what is wrong, draw."""
    wrong, rows = {}, {}
    for kind in KINDS:
        for size in settings.sizes:
            row = f'{kind}, N = {size}'
            wrong[row] = measure(settings, kind, size)
            whole, half = wrong[row]  # [loads, seeds]
            rows[row] = {'load at 5 % wrong': [breaking_load(settings.loads, seed) for seed in whole.T]}
            rows[row] |= {
                f'wrong % at {load:g}': [100 * float(share) for share in shares]
                for load, shares in zip(settings.loads, whole)
                if load in (0.1, 0.14, 0.2, 0.6) or len(settings.loads) < 4
            }
            rows[row]['from half, wrong %'] = [100 * float(share) for share in half[0]]
            common.tell(f'{row}: breaks at {fmean(rows[row]["load at 5 % wrong"]):.3f} N')
    common.report_measures(settings, rows, f'wrong pixels; from half at load {settings.loads[0]:g}')
    common.write_figure(settings.figure, draw(settings, wrong) if settings.figure else None)
    return False


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'hopfield.py')


if __name__ == '__main__':
    sys.exit(main())
