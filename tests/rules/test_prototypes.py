"""Prototypes: what near means, whose word counts, how steps are averaged, and who sits a step out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax
from table import change, drives, finalize, stats_of

from hebbjax import rules
from hebbjax.layers import activations, patches
from hebbjax.rules import instar, k_wta, krotov_ranks, linear, mean_over_credit, random_abstention, soft_wta


def amato(compete=1, metric='cosine', reduce=mean_over_credit):
    """Prototypes as Amato et al. have them."""
    return instar(compete, metric=metric, reduce=reduce)


@pytest.fixture
def bank(rng):
    """Random patches [12, 5] and weights [6, 5] of many lengths."""
    x, w = rng.normal(size=(12, 5)), rng.normal(size=(6, 5)) * 2.0 ** np.arange(-3, 3)[:, None]
    return x.astype(np.float32), w.astype(np.float32)


# What near means


def test_by_angle_neither_length_decides_and_by_distance_both_do(bank):
    x, w = bank
    cosine = x @ w.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(w, axis=1)
    distance = np.linalg.norm(x[:, None] - w, axis=2)
    won = {'cosine': cosine.argmax(1), 'euclidean': distance.argmin(1), 'dot': (x @ w.T).argmax(1)}
    assert len({tuple(winner) for winner in won.values()}) == 3
    for metric, winner in won.items():
        rule = amato(1, metric)
        assert (rule.competition_bias is None) == (metric != 'euclidean')
        stats = stats_of(rule, x, w)
        np.testing.assert_array_equal(stats.win_counts, np.bincount(winner, minlength=6))
        np.testing.assert_array_equal(stats.weight, stats.win_counts)
        means = [x[winner == i].mean(0) - w[i] if (winner == i).any() else 0 * w[i] for i in range(6)]
        np.testing.assert_allclose(change(rule, x, w), np.array(means), atol=1e-5)


@pytest.mark.parametrize('compete', [1, k_wta(1, ties='all'), soft_wta(1.0)])
def test_a_patch_of_no_direction_trains_nobody(compete, bank):
    (x, w), rule = bank, amato(compete)
    padded = np.concatenate([x[:8], np.zeros((4, 5), np.float32)])
    stats = stats_of(rule, padded, w)
    alone = [sum(parts) for parts in zip(*(stats_of(rule, x[[i] * 12], w)[:4] for i in range(8)))]
    for together, apart in zip(stats, alone):
        np.testing.assert_allclose(together, apart / 12, atol=1e-5)
    assert (stats.win_counts.sum(), stats.patches) == (8, 12)
    np.testing.assert_array_equal(change(rule, 0 * x, w), 0)


def test_a_patch_of_no_direction_has_no_slope_in_place_of_nan():
    x, w = jnp.array([[1.0, 2, 3], [0, 0, 0]]), jnp.eye(2, 3)
    assert np.isfinite(jax.grad(lambda s: change(amato(soft_wta(0.1)), s * x, w).sum())(1.0))


def test_by_distance_an_all_zero_patch_is_a_point(bank):
    (x, w), rule = bank, amato(metric='euclidean')
    stats = stats_of(rule, 0 * x, w)
    np.testing.assert_array_equal(stats.win_counts, [12, 0, 0, 0, 0, 0])  # the shortest
    np.testing.assert_array_equal(stats.weight, stats.win_counts)
    np.testing.assert_allclose(change(rule, 0 * x, w)[0], -w[0], rtol=1e-6)


def test_zero_weights_are_nobodys_direction_and_a_nan_patch_is_found(bank):
    x, w = bank
    np.testing.assert_allclose(jnp.linalg.norm(patches.l2(w), axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(patches.l2(0 * w), 0)
    x[3, 2] = np.nan
    assert jnp.isnan(change(amato(), x, w)).any()


def test_prototypes_that_cannot_be_are_refused(bank):
    with pytest.raises(ValueError, match="metric='smell' is unknown; there are dot, cosine, euclidean"):
        instar(metric='smell')
    for metric in ('dot', 'cosine', 'euclidean'):
        with pytest.raises(ValueError, match='k=0 is out of range'):
            instar(0, metric=metric)
        with pytest.raises(ValueError, match='k=7 is more than the 6 neurons that compete'):
            instar(7, metric=metric).init(np.ones((6, 2)))
        with pytest.raises(ValueError, match='imposes its teacher and got None; give the layer a teacher'):
            change(amato(None, metric), *bank)


# How steps are averaged


def test_rare_winners_move_as_far_as_frequent_ones_only_in_a_mean_over_credit():
    x, w = np.repeat(np.eye(2, dtype=np.float32), [9, 1], axis=0), np.eye(2, dtype=np.float32) * 0.5
    for reduce, moved in (
        (rules.mean_over_credit, [0.5, 0.5]),
        (rules.mean_over_patches, [0.45, 0.05]),
        (rules.sum_over_patches, [4.5, 0.5]),
    ):
        np.testing.assert_allclose(change(amato(reduce=reduce), x, w), np.diag(moved), rtol=1e-6)


# Whose word counts

LEARNERS = {
    'cosine': amato(),
    'euclidean-2': amato(2, 'euclidean'),
    'cosine-soft': amato(soft_wta(1.0)),
    'cosine-linear': amato(linear(), reduce=rules.sum_over_patches),
    'instar-relu': instar(rules.graded(activations.relu)),
    'instar-all-ties': instar(k_wta(2, ties='all')),
    'hebb-ranks': rules.hebb(krotov_ranks(2, 0.5)),
    'oja': rules.oja(),
    'sanger': rules.sanger(),
    'krotov': rules.krotov(2, 0.5, 3.0),
}
MANY = {**LEARNERS, 'cosine-sparse': amato(), 'euclidean-2-sparse': amato(2, 'euclidean')}


@pytest.mark.parametrize('name', MANY)
def test_a_teacher_leaves_the_competition_to_those_it_names(name, bank, rng, x64):
    """They learn what they would learn alone, under thresholds; the others stay bit for bit. And where nobody takes
    part, since no teacher names them or all sit out, nobody learns."""
    (x, w), rule = (a.astype(float) for a in bank), MANY[name]
    w = np.concatenate([w, rng.normal(size=(60 if 'sparse' in name else 0, 5))])
    named = np.arange(len(w)) % 3 == 1
    teacher = np.tile(np.where(named, 0.3, -0.2 * (np.arange(len(w)) % 2)), (12, 1))
    threshold = rng.normal(size=len(w))
    dw = change(rule, x, w, teacher=teacher, threshold=threshold)
    alone = change(rule, x, w[named], threshold=threshold[named])
    np.testing.assert_array_equal(dw[~named], 0)
    np.testing.assert_allclose(dw[named], alone, atol=1e-10)
    assert np.abs(alone).max() > 1e-3
    stats = stats_of(rule, x, w, teacher=teacher, threshold=threshold)
    assert stats.win_counts[named].sum() == 12 and stats.win_counts.sum() == 12 and np.all(stats.weight[~named] == 0)
    for signal, bar in ((0 * teacher, threshold), (teacher, np.full(len(w), np.inf))):
        stats = stats_of(rule, x, w, teacher=signal, threshold=bar)
        assert stats.win_counts.sum() == 0 and np.all(stats.weight == 0)
        np.testing.assert_array_equal(change(rule, x, w, teacher=signal, threshold=bar), 0)


def test_a_class_that_is_shown_moves_its_own_group_alone(bank):
    signal = np.tile(np.repeat(np.eye(2, dtype=np.float32)[0], 3), (12, 1))
    moved = np.any(change(amato(), *bank, teacher=signal) != 0, axis=1)
    assert moved[:3].any() and not moved[3:].any()


def test_krotov_with_one_neuron_named_has_a_winner_and_nobody_to_punish(bank):
    x, w = bank
    dw = change(rules.krotov(2, 0.5, 2.0), x, w, teacher=np.tile(np.eye(6, dtype=np.float32)[2], (12, 1)))
    np.testing.assert_allclose(dw[2], sum(row - (row @ w[2]) * w[2] for row in x), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(np.delete(dw, 2, 0), 0)


def test_an_imposed_label_pulls_its_neuron_to_the_mean_of_its_class(bank, rng):
    x, _ = bank
    x[0], labels = 0, np.arange(12) % 3
    w, signal = rng.normal(size=(3, 5)).astype(np.float32), np.eye(3, dtype=np.float32)[labels]
    dw, stats = change(amato(None), x, w, teacher=signal), stats_of(amato(None), x, w, teacher=signal)
    np.testing.assert_allclose(w + dw, [x[labels == c].mean(0) for c in range(3)], atol=1e-6)
    np.testing.assert_array_equal(stats.weight, 4)
    cosine = (x @ w.T / np.linalg.norm(w, axis=1))[1:]
    np.testing.assert_array_equal(stats.win_counts, np.bincount(cosine.argmax(1), minlength=3))


@pytest.mark.parametrize('metric, reduce', [('cosine', 'mean_over_credit'), ('dot', 'sum_over_patches')])
def test_an_imposed_signal_may_be_graded_and_push_away(metric, reduce, bank, rng, x64):
    x, w = (a.astype(float) for a in bank)
    teacher = rng.uniform(-1, 1, (12, 6)) * (np.arange(6) != 4)
    dw = change(amato(None, metric, getattr(rules, reduce)), x, w, teacher=teacher)
    expected = reference.prototypes(x, w, None, metric, reduce, teacher=teacher)
    np.testing.assert_allclose(dw, expected, atol=1e-12)
    assert not expected[4].any()


# Who sits a step out


def test_a_bias_leaves_the_key_of_the_competition_alone(bank):
    plain = instar(lambda key, u: jax.random.uniform(key, u.shape))
    even = plain._replace(competition_bias=lambda key, w, state: 0 * jax.random.uniform(key, (6,)))
    x, w = bank
    steps = [jax.jit(rule.update)(jax.random.key(0), x, x @ w.T, w, ())[0] for rule in (plain, even)]
    np.testing.assert_allclose(*steps, atol=1e-7)
    assert plain.competition_bias is None


def test_a_neuron_sits_out_as_often_as_it_has_won(bank):
    x, w = bank
    rule = random_abstention(amato())
    biases = jax.jit(jax.vmap(lambda key, state: rule.competition_bias(key, w, state), (0, None)))
    keys, state = lambda seed: jax.random.split(jax.random.key(seed), 4000), rule.init(w)
    np.testing.assert_array_equal(biases(keys(1), state), 0)
    stats = stats_of(amato(), x, w)
    _, state = finalize(rule, stats, w, state)
    wins = np.asarray(stats.win_counts)
    assert wins.min() == 0 and wins.max() >= 3
    np.testing.assert_array_equal(state.victories, wins)
    assert state.patches == 12
    sits_out = np.asarray(biases(keys(2), state))
    assert set(np.unique(sits_out)) == {0, np.inf}
    np.testing.assert_allclose((sits_out > 0).mean(0), wins / (wins.max() + 12 / 6), atol=0.03)


def test_abstention_adds_to_an_inner_bias_and_keeps_an_inner_state(bank):
    x, w = bank
    inner = amato(metric='euclidean')._replace(
        init=lambda w: jnp.zeros(()), finalize=lambda stats, w, state: (0 * w, state + 1)
    )
    rule = random_abstention(inner)
    state, bias = rule.init(w), jax.jit(rule.competition_bias)
    np.testing.assert_allclose(bias(jax.random.key(0), w, state), (w * w).sum(1) / 2, rtol=1e-6)
    full = state._replace(victories=jnp.full(6, 1e9).at[0].set(0))
    np.testing.assert_array_equal(jnp.isinf(bias(jax.random.key(0), w, full)), np.arange(6) > 0)
    _, after = finalize(rule, stats_of(rule, x, w, full), w, full)
    assert after.rule == 1 and after.victories.min() == 0
    np.testing.assert_array_equal(after.victories, full.victories + jnp.zeros(6).at[0].set(12) - 12)


def test_abstention_wakes_dead_neurons(rng):
    """One prototype in the middle of a cone of patches wins all; where it must rest, the others come in."""
    x = (rng.normal(size=(100, 8)) * 0.3 + np.eye(8)[0] * 3).astype(np.float32)
    w = rng.normal(size=(5, 8)).astype(np.float32)
    w[:, 0], w[0] = -1, np.eye(8)[0]

    def moved(rule):
        def step(carry, key):
            w, state = carry
            dw, state = rule.update(key, x, drives(rule, x, w), w, state)
            return (w + 0.1 * dw, state), None

        keys = jax.random.split(jax.random.key(0), 60)
        return np.any(jax.jit(lambda w: lax.scan(step, (w, rule.init(w)), keys)[0][0])(w) != w, axis=1)

    np.testing.assert_array_equal(moved(amato()), [True, False, False, False, False])
    assert moved(random_abstention(amato())).all()
