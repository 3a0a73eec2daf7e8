"""Bienenstock, Cooper & Munro 1982: neurons with a sliding threshold come to answer one of K patterns, each by itself.

    python experiments/bcm_selectivity.py --json FILE --figure bcm.png

The patterns: K unit vectors, any two of which have the same cosine, so that they are linearly independent and, but for
cosine 0, none is far from another. A step sees some of them, drawn at random, with noise on every input. Nobody
competes. Rows, of the same first weights:

    bcm          the threshold is the mean square of the neuron's own answers
    hebb         Hebb's rule, weights brought to unit length after every step
    oja          Oja's rule, whose fixed point is the first principal component
    untrained    first weights

Measured on patterns without noise: the selectivity of each neuron's answers y = max(w x, 0), 1 - mean y / max y, which
is 0 for one that answers all alike and 1 - 1 / K for one that answers a single pattern; and how many patterns are the
favourite of some neuron.
"""

import dataclasses
import pathlib
import sys

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

import hebbjax
from hebbjax import layers, plots, rules, transforms
from hebbjax.cli import flags


@dataclasses.dataclass(frozen=True)
class Config:
    """Patterns, and neurons that see them."""

    seeds: flags.Seeds = 5  # Number of seeds, 0, 1, ...; each draws patterns, weights and noise anew
    patterns: flags.Rank = 6  # K
    inputs: flags.Rank = 16  # D, more than K
    neurons: flags.Count = 24
    cosines: tuple[flags.Part, ...] = (0.1, 0.5, 0.8)  # Between any two patterns
    noise: flags.Amount = 0.05  # Standard deviation, on every input
    eta: flags.number(above=0, most=1) = 0.5  # Share of the threshold that a step renews
    rate: flags.Rate = 0.05  # Of all rules
    batch: flags.Count = 24  # Patterns per step
    steps: flags.Count = 6000  # One epoch
    json: pathlib.Path | None = None  # File for all results, with configuration and versions
    figure: pathlib.Path | None = None  # File for a picture of answers, first seed (png, pdf, svg)


def draw_patterns(key: jax.Array, settings: Config, cosine: float) -> jax.Array:
    """Draw patterns x_k = sqrt(c) a + sqrt(1 - c) b_k, of orthonormal a, all alike, and b_1, ..., b_K. [K, D]."""
    drawn = jax.random.normal(key, (settings.inputs, settings.patterns + 1)).at[:, 0].set(1.0)
    axes = jnp.linalg.qr(drawn)[0].T  # [K + 1, D]
    axes = axes.at[0].set(jnp.abs(axes[0]))
    return cosine**0.5 * axes[:1] + (1 - cosine) ** 0.5 * axes[1:]


def build_layers(settings: Config) -> dict[str, hebbjax.Layer]:
    """Build the rows: row -> layer."""
    rate = transforms.scale_by_rate(settings.rate)
    learners = {
        'bcm': (rules.bcm(settings.eta), rate),
        'hebb': (rules.hebb(), optax.chain(rate, transforms.project_unit_rows())),
        'oja': (rules.oja(), rate),
    }
    first, shared = jax.nn.initializers.uniform(0.3), {'patch_transform': layers.raw, 'post': (layers.relu,)}
    made = {row: hebbjax.Layer(settings.neurons, *learner, init=first, **shared) for row, learner in learners.items()}
    return made | {'untrained': dataclasses.replace(made['hebb'], frozen=True)}


def answers(settings: Config, layer: hebbjax.Layer, seed: int, cosine: float) -> np.ndarray:
    """Learn from noisy patterns, and give what neurons answer to clean ones: y [K, N]."""
    pattern_key, which_key, noise_key, key = jax.random.split(jax.random.key(seed), 4)
    x = draw_patterns(pattern_key, settings, cosine)
    state = hebbjax.init((layer,), key, (1, settings.inputs, 1))
    if not layer.frozen:
        shown = x[jax.random.randint(which_key, (settings.steps * settings.batch,), 0, len(x))]
        shown = shown + settings.noise * jax.random.normal(noise_key, shown.shape)
        epoch = hebbjax.make_train_epoch((layer,), batch=settings.batch)
        state, _ = epoch(state, shown.reshape(-1, 1, settings.inputs, 1))
    return np.asarray(hebbjax.features((layer,), state.layers, x.reshape(-1, 1, settings.inputs, 1)))


def selectivity(y: np.ndarray) -> np.ndarray:
    """Measure how selective neurons are: `1 - mean y / max y` over patterns; 0 for who never answers. [K, N] -> [N]."""
    most = y.max(0)
    return np.where(most > 0, 1 - y.mean(0) / np.where(most > 0, most, 1), 0)


def draw_answers(rows: dict[str, np.ndarray], title: str):
    """Draw what every neuron answers to every pattern, a panel a row, each neuron in units of its largest answer."""
    figure, panels = plots.curves.make_canvas(3.4 * len(rows), 2.6, '', 1, len(rows), squeeze=False)
    figure.suptitle(f'answers to {title}, white 0, black the largest of a neuron')
    for axes, (row, y) in zip(panels[0], rows.items()):
        order = np.argsort(y.argmax(0), kind='stable')
        axes.imshow((y / np.maximum(y.max(0), 1e-9))[:, order], cmap='Greys', aspect='auto', vmin=0, vmax=1)
        axes.set(title=row, xlabel='neuron', ylabel='pattern', xticks=[], yticks=[])
    return figure


def experiment(settings: Config) -> bool:
    """Train every row on every seed and cosine, measure, draw. -> False: nobody ended it early."""
    rows, drawn, middle = {}, {}, settings.cosines[len(settings.cosines) // 2]
    for row, layer in build_layers(settings).items():
        of_row = {}
        for cosine in settings.cosines:
            y = [answers(settings, layer, seed, cosine) for seed in range(settings.seeds)]
            of_row[f'selectivity at cosine {cosine:g}'] = [float(selectivity(one).mean()) for one in y]
            if cosine == middle:
                favourites = [float(len(set(one.argmax(0)))) for one in y]
                drawn[row] = y[0]
        rows[row] = of_row | {f'favourites at {middle:g}': favourites}
    common.report_measures(settings, rows, f'{settings.patterns} patterns, at best {1 - 1 / settings.patterns:.3f}')
    common.write_figure(settings.figure, draw_answers(drawn, f'patterns of cosine {middle:g}'))
    return False


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'bcm_selectivity.py')


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
