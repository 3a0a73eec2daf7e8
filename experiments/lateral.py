"""Lateral inhibition that is learned: outputs decorrelate, find the principal subspace, and bars come apart.

    python experiments/lateral.py --part whitened --seeds 3 --json FILE
    python experiments/lateral.py --part subspace --seeds 3 --epochs 100 --json FILE
    python experiments/lateral.py --part bars --seeds 5 --json FILE --figure bars.png

One dense layer, with lateral connections and, as the control, the same layer without them:

    whitened  32 neurons by Oja's rule on whitened CIFAR-10 patches of 5 x 5: the root mean square of correlations
              between two outputs, before and after (Pehlevan, Hu & Chklovskii 2015)
    subspace  7 neurons on patches of which only the mean is gone: the largest angle between their filters
              `F = (I + M)^-1 W` and the first 7 principal components; beside Sanger's rule, which needs no M
    bars      16 units, 8 x 8 images, each of 16 bars there with p = 1/8 (Földiák 1990): how many bars have a unit of
              their own on patterns not learned from, each the other's most correlated, by more than 0.9; how many a
              receptive field of their own, by the same measure; beside units of which one per pattern wins

Seven is where the patches' spectrum has a gap. No accuracy is read, and nothing was chosen by a measure of the table
but rates, on seed 0, so that everything settles.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hebbjax import Homeostasis, Layer, Window, data, layers, plots, rules, training, transforms
from hebbjax.cli import flags
from hebbjax.layers import Lateral, patches

SHARE = 1 / 8  # of patterns that show a bar


@dataclasses.dataclass(frozen=True)
class Config:
    """One layer with learned lateral inhibition, beside the same without."""

    part: str = 'bars'  # whitened, subspace or bars
    seeds: flags.Seeds = 5  # Number of seeds, 0, 1, ...; each draws patches or patterns, weights and order anew
    images: flags.Count = 20_000  # Images of which each gives a patch; bars take a tenth as many patterns
    epochs: flags.Count = 50  # Over all of them; in the patches' parts the rate falls linearly to a hundredth
    side: flags.Count = 8  # Of images with bars, in pixels; there are as many units as bars, twice that
    data_dir: pathlib.Path | None = None  # Where data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, ~/tensorflow_datasets
    json: pathlib.Path | None = None  # File for all results, with configuration and versions
    figure: pathlib.Path | None = None  # File for a picture of every row's filters, first seed


def train(config: Config, seed: int, layer: Layer, images: jax.Array, batch: int) -> tuple:
    """Train a layer; refuse one whose neurons did not settle. -> its states before and after."""
    state = layers.init((layer,), jax.random.key(seed), images.shape[1:])
    stages = [training.Stage(config.epochs)]
    result = training.fit((layer,), state, images, stages=stages, batch=min(batch, len(images)), watch=None)
    if result.interrupted:
        raise KeyboardInterrupt
    return state.layers[0], result.state.layers[0]


def outputs(layer: Layer, state: layers.LayerState, images: jax.Array) -> np.ndarray:
    """Answer images, in float64 for what is computed of it. -> [B, N]"""
    return np.asarray(layers.features((layer,), (state,), images), np.float64)


# Patches: similarity matching


def draw_patches(config: Config, seed: int, whitens: bool) -> jax.Array:
    """Cut a patch of 5 x 5 out of every image; centred, of variance 1 over all, perhaps whitened. -> [P, 5, 5, 3]."""
    images = jnp.asarray(common.load('cifar10', 'train', config.data_dir).images[: config.images])
    x = layers.centred(layers.sample_patches(jax.random.key(seed), Window(5), layers.to_intensities(images), 1))
    x = (x - x.mean(0, keepdims=True)) / x.std()
    return (data.whiten(data.fit_whitening(x), x) if whitens else x).reshape(-1, 5, 5, 3)


def patch_layer(config: Config, neurons: int, rate: float, lateral: bool, rule=rules.oja) -> Layer:
    """Build a linear layer whose rate falls, with connections that learn as fast as its weights at first."""
    steps = config.epochs * max(1, config.images // 1000)
    move = transforms.scale_by_rate(optax.linear_schedule(rate, rate / 100, steps))
    how = {'lateral': Lateral(rate, steps=20, pace=0.2) if lateral else None}
    return Layer(neurons, rule(), move, post=(), init=jax.nn.initializers.normal(75**-0.5), **how)


def correlation(y: np.ndarray) -> float:
    """Give the root mean square of correlations between two outputs of [B, N]."""
    c = np.corrcoef(y.T)
    return float(np.sqrt(np.mean(c[~np.eye(len(c), dtype=bool)] ** 2)))


def principal_angle(state: layers.LayerState, x: np.ndarray) -> float:
    """Give the largest angle between the span of `(I + M)^-1 W` and that of as many principal components of x."""
    components = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][: len(state.w)]
    span = np.linalg.qr(neural_filters(state).T)[0]  # [D, N]
    outside = components - components @ span @ span.T  # its norm is the sine, exact where the angle is small
    return float(np.arcsin(min(1.0, np.linalg.norm(outside, 2))))


def neural_filters(state: layers.LayerState) -> np.ndarray:
    """Give what a linear layer settles at, as filters of what it sees: `(I + M)^-1 W`. [N, D]."""
    w = np.asarray(state.w, np.float64)
    return w if state.lateral is None else np.linalg.solve(np.eye(len(w)) + np.asarray(state.lateral), w)


def whitened(config: Config, seed: int):
    """Measure how correlations fall on whitened patches. -> row -> (measures, filters)."""
    images, rows = draw_patches(config, seed, whitens=True), {}
    for row in ('lateral', 'none'):
        layer = patch_layer(config, 32, 0.05, row == 'lateral')
        states = train(config, seed, layer, images, 1000)
        before, after = (correlation(outputs(layer, state, images)) for state in states)
        measures = {'correlation before': before, 'after': after, 'falls by': before / after}
        rows[row] = measures, neural_filters(states[1])
    return rows


def subspace(config: Config, seed: int):
    """Measure how far filters are from the principal subspace. -> row -> (measures, filters)."""
    images, rows = draw_patches(config, seed, whitens=False), {}
    x = np.asarray(images, np.float64).reshape(len(images), -1)
    for row in ('lateral', 'none', 'sanger'):
        layer = patch_layer(config, 7, 0.02, row == 'lateral', rules.sanger if row == 'sanger' else rules.oja)
        before, after = train(config, seed, layer, images, 1000)
        angles = [principal_angle(state, x) for state in (before, after)]
        rows[row] = {'largest angle before, rad': angles[0], 'after': angles[1]}, neural_filters(after)
    return rows


# Bars


def draw_bars(key: jax.Array, count: int, side: int) -> tuple[jax.Array, np.ndarray]:
    """Draw images with bars, each there independently with p = 1/8. -> [B, side, side, 1], which [B, 2 side]."""
    there = jax.random.bernoulli(key, SHARE, (count, 2 * side))
    images = there[:, :side, None] | there[:, None, side:]
    return images[..., None].astype(jnp.float32), np.asarray(there)


def fire(v: jax.Array) -> jax.Array:
    """Answer nearly all or nothing: `1 / (1 + exp(-10 v))`."""
    return jax.nn.sigmoid(10 * v)


def bar_layer(config: Config, row: str) -> Layer:
    """Build units that see all of an image, by Földiák's three rules: instar, thresholds, lateral inhibition."""
    units, wins = 2 * config.side, row == 'winner_takes_all'
    credit = {'lateral': rules.linear(), 'none': rules.graded(fire), 'winner_takes_all': 1}  # linear: as they settled
    how = {'post': () if row == 'lateral' else (layers.send_credit(rules.k_wta(1)) if wins else fire,)}
    how |= {'init': lambda key, shape: patches.l2(jax.random.uniform(key, shape))}
    how |= {'homeostasis': Homeostasis(0.05, winners=1 if wins else SHARE * units)}
    how |= {'lateral': Lateral(0.2, steps=30, pace=0.2, activation=fire, target=SHARE) if row == 'lateral' else None}
    return Layer(units, rules.instar(credit[row]), transforms.scale_by_rate(0.05), **how)


def bars(config: Config, seed: int):
    """Count bars that have a unit of their own. -> row -> (measures, filters)."""
    learned, fresh = jax.random.split(jax.random.key(seed))
    images, _ = draw_bars(learned, max(20, config.images // 10), config.side)
    unseen, there = draw_bars(fresh, 2000, config.side)
    rows = {}
    for row in ('lateral', 'none', 'winner_takes_all'):
        layer = bar_layer(config, row)
        _, state = train(config, seed, layer, images, 20)
        y = outputs(layer, state, unseen)
        single = np.kron(np.eye(2 * config.side)[:, : config.side], np.ones(config.side))  # [bars, D], the rows
        single[config.side :] = np.kron(np.ones(config.side), np.eye(config.side))  # and the columns
        counts = {'unit': count_pairs(y.T, there.T), 'field': count_pairs(np.asarray(state.w), single)}
        measures = {f'bars of {2 * config.side} with a {thing}': count for thing, count in counts.items()}
        rows[row] = measures | {'active units per image': float(y.sum(1).mean())}, np.asarray(state.w)
    return rows


def count_pairs(units: np.ndarray, bars: np.ndarray) -> int:
    """Count rows of bars and of units that are each the other's most correlated, by more than 0.9."""
    with np.errstate(invalid='ignore', divide='ignore'):  # a unit that never varies tells nothing
        c = np.nan_to_num(np.corrcoef(units, bars)[: len(units), len(units) :])  # [units, bars]
    return int(np.sum((c.max(0) > 0.9) & (c[c.argmax(0)].argmax(1) == np.arange(len(bars)))))


PARTS: dict[str, Callable] = {'whitened': whitened, 'subspace': subspace, 'bars': bars}


def experiment(config: Config) -> bool:
    """Run one part on every seed, report and draw."""
    common.refuse_unknown('part', config.part, PARTS)
    results = []
    for seed in range(config.seeds):
        common.tell_status(f'{config.part}: seed {seed}')
        results.append(PARTS[config.part](config, seed))
    common.tell_status('')
    rows = {
        row: {name: [result[row][0][name] for result in results] for name in measures}
        for row, (measures, _) in results[0].items()
    }
    common.report_measures(config, rows, f'lateral inhibition, {config.part}')
    shape = (config.side, config.side, 1) if config.part == 'bars' else (5, 5, 3)
    banks = {row: filters for row, (_, filters) in results[0].items()}
    common.write_figure(config.figure, plots.filters_side_by_side(banks, shape))
    return False


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'lateral.py')


if __name__ == '__main__':
    sys.exit(main())
