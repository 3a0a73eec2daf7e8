"""The trace and BCM: loops over sequences, laws of memory, and what both are famous for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from jax import lax
from table import MEMORY, change, finalize, stats_of

from hebbjax import rules, transforms
from hebbjax.rules import instar
from hebbjax.rules.memory import running_trace

TRACES = [row for row in MEMORY if row.name.startswith('trace')]
every_trace = pytest.mark.parametrize('row', TRACES, ids=lambda row: row.name)


def sequences(rng, count=4, frames=5, inputs=6, neurons=7):
    """Sequences of patches and weights, of no symmetry."""
    return rng.normal(size=(count, frames, inputs)), rng.normal(size=(neurons, inputs))


# The trace


def test_a_trace_is_a_weighted_sum_of_answers_so_far(rng, x64):
    y = rng.normal(size=(3, 6, 4))
    weights = [[0.3 * 0.7 ** (t - s) if s <= t else 0.0 for s in range(6)] for t in range(6)]
    np.testing.assert_allclose(jax.jit(running_trace)(y, 0.3), np.einsum('ts,bsn->btn', weights, y), atol=1e-14)


@every_trace
def test_sequences_equal_their_loops_and_add_up_in_any_parts(row, rng, x64):
    """Memory ends with its sequence: whoever comes next, and in which call, begins anew. Frames have an order."""
    (x, w), rule = sequences(rng), row.make()
    threshold = rng.normal(size=7)
    expected = row.reference(x, w, threshold=threshold)
    np.testing.assert_allclose(change(rule, x, w, threshold=threshold), expected, atol=1e-12)
    np.testing.assert_allclose(change(rule, x[::-1], w, threshold=threshold), expected, atol=1e-12)
    some = stats_of(rule, x[:1], w, threshold=threshold)
    parts = change(rule, x[1:], w, threshold=threshold, stats=some)
    np.testing.assert_allclose(parts, expected, atol=1e-12)
    assert np.abs(change(rule, x[:, ::-1], w, threshold=threshold) - expected).max() > 1e-3


@pytest.mark.parametrize('compete', [1, rules.soft_wta(0.5), rules.linear()])
def test_without_memory_it_is_the_instar(compete, rng, x64):
    x, w = sequences(rng)
    expected = change(instar(compete, reduce=rules.mean_over_credit), x.reshape(-1, 6), w)
    np.testing.assert_allclose(
        change(rules.trace(compete, 1, reduce=rules.mean_over_credit), x, w), expected, atol=1e-12
    )


def test_only_whom_the_teacher_signals_takes_part(rng, x64):
    """One answer for all frames: the only neuron that may, with the whole trace of `1 - (1 - eta)^t`."""
    x, w = sequences(rng)
    taught = np.zeros((4, 5, 7))
    taught[:, :, 2] = 1
    dw = change(rules.trace(1, 0.3, reduce=rules.sum_over_patches), x, w, teacher=taught)
    ybar = 1 - 0.7 ** np.arange(1, 6)
    np.testing.assert_allclose(dw[2], np.einsum('t,std->d', ybar, x - w[2]), atol=1e-12)
    assert not np.delete(dw, 2, 0).any()


def test_memory_may_be_mapped_and_differentiated_over(rng, x64):
    """eta as a traced number: three of them side by side, and the slope along it."""
    x, w = sequences(rng)
    step = lambda eta: rules.trace(2, eta).update(jax.random.key(0), x, jnp.einsum('std,nd->stn', x, w), w, ())[0]  # noqa: E731
    etas = np.array([0.1, 0.5 - 1e-6, 0.5 + 1e-6])
    changes, slopes = jax.jit(jax.vmap(lambda eta: jax.jvp(step, (eta,), (1.0,))))(etas)
    for eta, dw in zip(etas, changes):
        np.testing.assert_allclose(dw, reference.trace(x, w, eta, reference.winners(2)), atol=1e-12)
    np.testing.assert_allclose(slopes[1], (changes[2] - changes[1]) / 2e-6, atol=1e-5)


# BCM


def test_thresholds_slide_to_the_mean_square_and_patches_are_judged_by_them(rng, x64):
    """In one part or in two; a layer's own thresholds come on top."""
    x, w, theta, own = rng.normal(size=(11, 6)), rng.normal(size=(7, 6)), rng.uniform(size=7), rng.normal(size=7)
    rule = rules.bcm(0.3)
    for threshold in (None, own):
        some = stats_of(rule, x[:4], w, theta, threshold=threshold)
        for stats in (stats_of(rule, x, w, theta, threshold=threshold),
                      stats_of(rule, x[4:], w, theta, threshold=threshold, stats=some)):  # fmt: skip
            dw, moved = finalize(rule, stats, w, theta)
            np.testing.assert_allclose(dw, reference.bcm(x, w, theta, threshold=threshold), atol=1e-12)
            square = np.mean(np.maximum(x @ w.T, 0) ** 2, 0)
            np.testing.assert_allclose(moved, theta + 0.3 * (square - theta), atol=1e-12)


def test_neurons_that_sit_out_learn_nothing_and_stay_finite(rng, x64):
    x, w, theta = rng.normal(size=(11, 6)), rng.normal(size=(7, 6)), rng.uniform(size=7)
    out = np.where(np.arange(7) < 2, np.inf, 0.0)
    dw = change(rules.bcm(), x, w, theta, threshold=out)
    assert not dw[:2].any() and np.isfinite(dw).all() and dw[2:].all()


# What rules are famous for


def bars(positions=6):
    """Simple cells along a bar: [orientation, position, H * W * orientations] of two orientations."""
    i, j = np.indices((positions, positions))
    x = np.zeros((2, positions, positions, positions, 2), np.float32)
    for p in range(positions):
        x[0, p, ..., 0], x[1, p, ..., 1] = i == p, j == p
    return x.reshape(2, positions, -1)


@pytest.mark.parametrize('eta, share', [(0.2, 1.0), (1.0, 0.0)])
def test_moving_bars_teach_orientation_through_a_trace_alone(eta, share, rng):
    """Földiák 1991: two neurons, bars that sweep one way or the other: each comes to answer one orientation at all
    positions. Without a trace no neuron does.
    """
    x, rule = bars(), rules.trace(1, eta, reduce=rules.sum_over_patches)
    of, back = rng.integers(0, 2, (2, 2000))
    swept = np.where(back[:, None, None], x[of][:, ::-1], x[of])[:, None]  # [sweeps, 1, T, D]

    def step(w, x):
        u = jnp.matmul(x, w.T, precision=lax.Precision.HIGHEST)
        return w + 0.02 * rule.update(jax.random.key(0), x, u, w, ())[0], None

    learn = jax.jit(jax.vmap(lambda w: lax.scan(step, w, swept)[0]))
    w = np.asarray(learn(rng.uniform(0, 0.1, (5, 2, 72)).astype(np.float32)))  # five seeds
    winner = np.einsum('opd,snd->sopn', x, w).argmax(-1)  # [seeds, orientation, position]
    alike, apart = (winner == winner[:, :, :1]).all((1, 2)), winner[:, 0, 0] != winner[:, 1, 0]
    assert (alike & apart).mean() == share


@pytest.mark.parametrize('rule, tx, lowest, highest', [
    (rules.bcm(0.5), transforms.scale_by_rate(0.05), 0.74, 0.751),
    (rules.hebb(), optax.chain(transforms.scale_by_rate(0.02), transforms.project_unit_rows()), 0.0, 0.5),
    (rules.oja(), transforms.scale_by_rate(0.02), 0.0, 0.5),
])  # fmt: skip
def test_bcm_answers_one_of_four_patterns_and_hebb_all_of_them(rule, tx, lowest, highest, rng):
    """Patterns that overlap, and are linearly independent: the answer to one is K = 4, and 0 to the others."""
    x = (0.5 + 0.5 * np.eye(4, 6)).astype(np.float32)
    start = rng.uniform(0.1, 0.3, (12, 6)).astype(np.float32)

    def step(carry, _):
        w, state, opt = carry
        dw, state = rule.update(jax.random.key(0), x, jnp.matmul(x, w.T, precision='highest'), w, state)
        add, opt = tx.update(dw, opt, w)
        return (w + add, state, opt), None

    w = jax.jit(lambda w: lax.scan(step, (w, rule.init(w), tx.init(w)), None, 6000)[0][0])(start)
    y = np.maximum(x @ np.asarray(w).T, 0)  # [K, N]
    selectivity = 1 - y.mean(0) / y.max(0)
    assert lowest <= selectivity.min() and selectivity.max() <= highest
    if highest > 0.5:
        np.testing.assert_allclose(y.max(0), 4, rtol=1e-2)
        assert len(set(y.argmax(0))) == 4  # neurons differ by where they began


def test_memories_that_cannot_be_are_refused():
    for eta in (0, -0.1, 1.01, float('nan')):
        for build in (rules.trace, rules.bcm):
            with pytest.raises(ValueError, match=rf'eta={eta} is out of range; use a finite number > 0 and <= 1\.'):
                build(eta=eta)
    with pytest.raises(ValueError, match="or by a number of winners, not by 'all'"):
        rules.trace('all')
    with pytest.raises(ValueError, match='k=5 is more than the 4 neurons that compete'):
        rules.trace(5).init(np.ones((4, 3)))
