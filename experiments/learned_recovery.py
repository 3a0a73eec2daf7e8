"""Which rule was at work? Coefficients recovered from weight trajectories, by gradient through learning.

    python experiments/learned_recovery.py --json FILE --figure recovery.png

Four dense layers of 3 neurons learn from 8 normal inputs, one at a time, 8 steps from each of 64 starts: by Hebb's
rule, by Oja's, by the instar with a softmax, and by a random rule of 4 terms, drawn anew for each seed. From their
trajectories, with noise on every weight, and from the inputs, all 27 coefficients of

    dw_id = sum_abc theta[a, b, c] x_d^a y_i^b w_id^c,     a, b, c = 0, 1, 2

are recovered, starting from zeros. Rows: the standard deviation of the noise, as a share of how far weights moved, root
mean square. Columns: the largest error of any coefficient. The control is a rule that never learns, theta = 0.
"""

import dataclasses
import pathlib
import sys

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hebbjax import Layer, init, learned, plots, rules, transforms
from hebbjax.cli import flags

INPUTS, NEURONS, SPREAD = 8, 3, 0.3  # the softmax needs larger weights, or its credits are all alike
TERMS = {
    'hebb': {(1, 1, 0): 1.0},
    'oja': {(1, 1, 0): 1.0, (0, 2, 1): -1.0},
    'random': {},
    'instar, softmax': {(1, 1, 0): 1.0, (0, 1, 1): -1.0},
}
COMPETITIONS = (None, None, None, rules.soft_wta(1.0))


@dataclasses.dataclass(frozen=True)
class Config:
    """How trajectories are made and rules recovered from them."""

    noise: tuple[flags.Amount, ...] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)  # Shares of how far weights moved
    seeds: flags.Seeds = 3  # Number of seeds, 0, 1, ...; each draws inputs, starts, noise and the random rule anew
    starts: flags.Count = 64  # Trajectories of each rule
    length: flags.Count = 8  # Learning steps of each trajectory
    rate: flags.Rate = 0.05  # Rate of the layers
    steps: flags.Count = 800  # Of the optimizer, Adam, its rate falling by a cosine
    step: flags.Rate = 0.05  # Its first rate
    sparsity: flags.Amount = 1e-5  # Weight of the sum of absolute coefficients in the loss

    json: pathlib.Path | None = None  # File for all results
    figure: pathlib.Path | None = None  # File for a picture of the errors (png, pdf, svg)


def draw_rules(seed: int) -> np.ndarray:
    """Lay out the four rules; the random one has 4 terms of 0.4 to 1 in size, b + c <= 2, lest it explodes."""
    rng = np.random.default_rng(seed)
    tame = [powers for powers in np.ndindex(3, 3, 3) if sum(powers[1:]) <= 2]
    drawn = {tame[place]: rng.uniform(0.4, 1) * rng.choice([-1, 1]) for place in rng.choice(len(tame), 4, False)}
    theta = np.zeros((4, 3, 3, 3), np.float32)
    for rule, known in zip(theta, TERMS.values()):
        for powers, coefficient in (known or drawn).items():
            rule[powers] = coefficient
    return theta  # [R, A, B, C]


def follow(config: Config, theta, compete, images, starts):
    """Let a layer learn from every start: inputs [S, T, 1, D, 1, 1], weights [S, N, D] -> trajectories [S, T, N, D]."""
    net = (Layer(NEURONS, rules.taylor(theta, compete), transforms.scale_by_rate(config.rate)),)

    def one(images, w):
        state = init(net, jax.random.key(0), images.shape[2:], weights=[w])
        return learned.run_steps(net, state, images, keep=lambda state, infos: state.layers[0].w, remat=False)[1]

    return jax.vmap(one)(images, starts)


def recover(config: Config, seed: int, watch=None) -> np.ndarray:
    """Recover all rules at all levels of noise in one program. -> the largest error of any coefficient [L, 4]."""
    truth = draw_rules(seed)  # [R, A, B, C]
    input_key, start_key, noise_key, fit_key = jax.random.split(jax.random.key(seed), 4)
    scale = jnp.linspace(0.8, 0.6, INPUTS).reshape(1, 1, 1, -1, 1, 1)
    images = scale * jax.random.normal(input_key, (config.starts, config.length, 1, INPUTS, 1, 1))
    w = SPREAD * jax.random.normal(start_key, (config.starts, NEURONS, INPUTS))
    starts = [w if compete is None else 4 * w for compete in COMPETITIONS]

    def trajectories(theta):  # [R, A, B, C] -> [R, S, T, N, D]
        followed = map(lambda *rule: follow(config, *rule[:2], images, rule[2]), theta, COMPETITIONS, starts)
        return jnp.stack([*followed])

    starts_of_all = jnp.stack(starts)
    clean = jax.jit(trajectories)(truth)
    moved = jnp.sqrt(jnp.mean((clean - starts_of_all[:, :, None]) ** 2, (1, 2, 3, 4), keepdims=True))
    noise = jnp.array(config.noise).reshape(-1, *[1] * clean.ndim) * moved[None]  # [L, R, 1, 1, 1, 1]
    targets = clean[None] + noise * jax.random.normal(noise_key, (len(config.noise), *clean.shape))
    errors = jax.vmap(jax.vmap(learned.trajectory_error))  # of every trajectory, lest those that grew outweigh the rest

    def objective(thetas, key):  # [L, R, A, B, C]
        off = jax.vmap(lambda theta, target: errors(trajectories(theta), target, starts_of_all))(thetas, targets)
        return off.mean(2).sum() + config.sparsity * jnp.sqrt(thetas**2 + 1e-8).sum()

    tx = optax.adam(optax.cosine_decay_schedule(config.step, config.steps), b2=0.99)
    thetas = jnp.zeros((len(config.noise), *truth.shape))
    fit = learned.fit_rule(objective, thetas, fit_key, tx=tx, steps=config.steps, watch=watch)
    return np.abs(fit.theta - truth[None]).max((2, 3, 4))


def draw(config: Config, errors: np.ndarray):
    """Draw errors [seeds, L, R] over noise on logarithmic axes, a line for each rule, a point for each seed."""
    figure = plots.Figure(figsize=(6, 4.2), layout='constrained')
    axes = figure.add_subplot(
        xscale='log', yscale='log', xlabel='noise on every weight, as a share of how far weights moved',
        ylabel='largest error of a coefficient',
    )  # fmt: skip
    noisy = [number for number, share in enumerate(config.noise) if share > 0]
    shares = [config.noise[number] for number in noisy]
    for number, name in enumerate(TERMS):
        values = errors[:, noisy, number]
        axes.plot(shares, np.median(values, 0), color=f'C{number}', label=name)
        axes.plot(shares, values.T, '.', color=f'C{number}', ms=4)
    axes.axhline(0.02, color='grey', ls=':', lw=1)
    axes.legend(fontsize='small')
    return figure


def experiment(config: Config) -> bool:
    """Recover, print and draw."""
    errors = []
    for seed in range(config.seeds):
        watch = lambda done, loss, theta, seed=seed: common.tell_status(f'seed {seed}: step {done}, loss {loss:.2e}')  # noqa: E731
        errors.append(recover(config, seed, watch))
    errors = np.stack(errors)  # [seeds, L, R]
    rows = {
        f'noise {share:g}': {name: errors[:, level, number].tolist() for number, name in enumerate(TERMS)}
        for level, share in enumerate(config.noise)
    }
    largest = [np.abs(draw_rules(seed)).max((1, 2, 3)) for seed in range(config.seeds)]
    rows['theta = 0'] = {name: [float(sizes[number]) for sizes in largest] for number, name in enumerate(TERMS)}
    common.report_measures(config, rows, 'largest error of a coefficient')
    common.write_figure(config.figure, draw(config, errors))
    return False


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from a shell."""
    return common.run(experiment, Config(), argv, 'learned_recovery.py')


if __name__ == '__main__':
    sys.exit(main())
