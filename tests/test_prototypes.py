"""Prototypes: what near means, whose word counts, how steps are averaged, and who sits a step out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax

from hebbjax import activations, competition, patches, prototypes, rules, types


def drives(rule, x, w):
    """Drives as a layer computes them."""
    return jnp.matmul(x, rule.seen(w).T, precision=lax.Precision.HIGHEST)


def change(rule, x, w, teacher=None, threshold=None):
    """The raw change that a rule makes of patches."""
    return rule.update(jax.random.key(0), x, drives(rule, x, w), w, rule.init(w), teacher, threshold)[0]


def gathered(rule, x, w, teacher=None, threshold=None):
    """What a rule adds up over patches."""
    return rule.gather(rule.start(w), jax.random.key(0), x, drives(rule, x, w), teacher, threshold)


@pytest.fixture
def bank(rng):
    """Random patches [12, 5] and weights [6, 5] of many lengths."""
    x, w = rng.normal(size=(12, 5)), rng.normal(size=(6, 5)) * 2.0 ** np.arange(-3, 3)[:, None]
    return jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)


# What near means


def test_by_angle_neither_length_decides_and_by_distance_both_do(bank, rng):
    x, w = bank
    cosine = np.asarray(x @ w.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(w, axis=1)
    distance = np.linalg.norm(np.asarray(x)[:, None] - np.asarray(w), axis=2)
    won = {'angle': cosine.argmax(1), 'distance': distance.argmin(1), 'drive': np.asarray(x @ w.T).argmax(1)}
    assert len({tuple(winner) for winner in won.values()}) == 3
    for by, winner in won.items():
        rule = prototypes.nearest(1, by=by)
        handicap = rule.handicap(jax.random.key(1), w, ())
        assert (handicap is None) == (by != 'distance')
        sums = gathered(rule, x, w, threshold=handicap)
        np.testing.assert_array_equal(sums.wins, np.bincount(winner, minlength=6))
        np.testing.assert_array_equal(sums.weight, sums.wins)
        means = [x[winner == i].mean(0) - w[i] if (winner == i).any() else 0 * w[i] for i in range(6)]
        np.testing.assert_allclose(change(rule, x, w), np.array(means), atol=1e-5)


def test_by_drive_it_is_the_instar(bank):
    for compete in (2, competition.soft_wta(1.0)):
        one, other = (
            rule(compete, reduce=rules.mean, **by)
            for rule, by in ((prototypes.nearest, {'by': 'drive'}), (rules.instar, {}))
        )
        np.testing.assert_array_equal(change(one, *bank), change(other, *bank))


@pytest.mark.parametrize('compete', [1, competition.k_wta(1, ties='all'), competition.soft_wta(1.0)])
def test_a_patch_of_no_direction_trains_nobody(compete, bank):
    x, w = bank
    rule = prototypes.nearest(compete)
    padded = jnp.concatenate([x, jnp.zeros((4, 5))])
    np.testing.assert_allclose(change(rule, padded, w), change(rule, x, w), atol=1e-6)
    sums = gathered(rule, padded, w)
    np.testing.assert_allclose(sums.weight.sum(), 12, rtol=1e-6)
    assert (sums.wins.sum(), sums.patches) == (12, 16)
    zero = gathered(rule, 0 * x, w)
    assert zero.weight.sum() == 0 and zero.wins.sum() == 0


def test_by_distance_an_all_zero_patch_is_a_point(bank):
    x, w = bank
    rule = prototypes.nearest(by='distance')
    threshold = rule.handicap(jax.random.key(1), w, ())
    sums = gathered(rule, 0 * x, w, threshold=threshold)
    np.testing.assert_array_equal(sums.wins, [12, 0, 0, 0, 0, 0])  # the shortest
    np.testing.assert_array_equal(sums.weight, sums.wins)
    np.testing.assert_allclose(change(rule, 0 * x, w)[0], -w[0], rtol=1e-6)


def test_zero_weights_are_nobodys_direction_and_a_nan_patch_is_found(bank):
    x, w = bank
    np.testing.assert_allclose(jnp.linalg.norm(patches.l2(w), axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(patches.l2(0 * w), 0)
    assert jnp.isnan(change(prototypes.nearest(), x.at[3, 2].set(jnp.nan), w)).any()


def test_another_measure_is_refused():
    with pytest.raises(ValueError, match="prototypes are near by 'angle', 'distance' or 'drive', not 'smell'"):
        prototypes.nearest(by='smell')
    with pytest.raises(ValueError, match='leaves no winner'):
        prototypes.nearest(0)
    with pytest.raises(ValueError, match='k=7 is more than the 6 neurons that compete'):
        prototypes.nearest(7).init(jnp.ones((6, 2)))


# How steps are averaged


def test_rare_winners_move_as_far_as_frequent_ones_only_where_steps_are_weighted():
    x, w = jnp.repeat(jnp.eye(2), jnp.array([9, 1]), axis=0, total_repeat_length=10), jnp.eye(2) * 0.5
    moved = {reduce: change(prototypes.nearest(reduce=reduce), x, w) for reduce in (rules.weighted, rules.mean)}
    np.testing.assert_allclose(moved[rules.weighted], np.eye(2) * 0.5)
    np.testing.assert_allclose(moved[rules.mean], np.diag([0.45, 0.05]), rtol=1e-6)
    np.testing.assert_allclose(change(prototypes.nearest(reduce=rules.total), x, w), np.diag([4.5, 0.5]), rtol=1e-6)


# Whose word counts

LEARNERS = {
    'nearest': prototypes.nearest(),
    'nearest-2-distance': prototypes.nearest(2, by='distance'),
    'nearest-soft': prototypes.nearest(competition.soft_wta(1.0)),
    'nearest-linear': prototypes.nearest(competition.linear(), reduce=rules.total),
    'instar-relu': rules.instar(competition.graded(activations.relu)),
    'instar-all-ties': rules.instar(competition.k_wta(2, ties='all')),
    'hebb-rank': rules.hebb(competition.rank(2, 0.5)),
    'oja': rules.oja(),
    'sanger': rules.sanger(),
    'krotov': rules.krotov(2, 0.5, 3.0),
}


@pytest.mark.parametrize('rule', LEARNERS.values(), ids=LEARNERS)
@pytest.mark.parametrize('extra', [0, 60], ids=['dense', 'sparse'])
def test_a_teacher_leaves_the_competition_to_those_it_names(rule, extra, bank, rng, x64):
    """They learn what they would learn alone, with thresholds and without; the others stay bit for bit."""
    x, w = (a.astype(float) for a in bank)
    w = jnp.concatenate([w, jnp.asarray(rng.normal(size=(extra, 5)))])
    named = np.arange(len(w)) % 3 == 1
    teacher = jnp.tile(jnp.asarray(np.where(named, 0.3, -0.2 * (np.arange(len(w)) % 2)))[None], (12, 1))
    threshold = jnp.asarray(rng.normal(size=len(w)))
    for bar in (None, threshold):
        dw = change(rule, x, w, teacher, bar)
        alone = change(rule, x, w[named], threshold=None if bar is None else bar[named])
        np.testing.assert_array_equal(dw[~named], 0)
        np.testing.assert_allclose(dw[named], alone, atol=1e-10)
        assert np.abs(alone).max() > 1e-3
    sums = gathered(rule, x, w, teacher)
    assert sums.wins[named].sum() == 12 and sums.wins.sum() == 12 and np.all(sums.weight[~named] == 0)


MANY = {**LEARNERS, 'instar-8': rules.instar(8)}  # which multiplies where those of fewer winners add rows


@pytest.mark.parametrize('rule', MANY.values(), ids=MANY)
def test_where_nobody_may_take_part_nobody_learns(rule, bank):
    """Whether no teacher names them or all sit out."""
    x, w = bank[0], jnp.tile(bank[1], (11, 1))
    for given in ({'teacher': jnp.zeros((12, 66))}, {'threshold': jnp.full(66, jnp.inf)}):
        sums = gathered(rule, x, w, **given)
        assert sums.wins.sum() == 0 and np.all(sums.weight == 0)
        np.testing.assert_array_equal(change(rule, x, w, **given), 0)


def test_a_class_that_is_shown_moves_its_own_group_alone(bank):
    x, w = bank
    signal = jnp.repeat(jax.nn.one_hot(jnp.zeros(12, int), 2), 3, axis=1)
    moved = np.any(change(prototypes.nearest(), x, w, signal) != 0, axis=1)
    assert moved[:3].any() and not moved[3:].any()


def test_krotov_with_one_neuron_named_has_a_winner_and_nobody_to_punish(bank):
    x, w = bank
    dw = change(rules.krotov(2, 0.5, 2.0), x, w, jnp.tile(jnp.eye(6)[2][None], (12, 1)))
    np.testing.assert_allclose(dw[2], sum(row - (row @ w[2]) * w[2] for row in x), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(np.delete(dw, 2, 0), 0)


def test_an_imposed_label_pulls_its_neuron_to_the_mean_of_its_class(bank, rng):
    x, _ = bank
    x, labels = x.at[0].set(0), np.arange(12) % 3
    w = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)
    rule = prototypes.nearest(None)
    dw = change(rule, x, w, jax.nn.one_hot(jnp.asarray(labels), 3))
    np.testing.assert_allclose(w + dw, [x[labels == c].mean(0) for c in range(3)], atol=1e-6)
    sums = gathered(rule, x, w, jax.nn.one_hot(jnp.asarray(labels), 3))
    np.testing.assert_array_equal(sums.weight, 4)
    cosine = np.asarray(x @ patches.l2(w).T)[1:]
    np.testing.assert_array_equal(sums.wins, np.bincount(cosine.argmax(1), minlength=3))


@pytest.mark.parametrize('reduce', ['weighted', 'total', 'mean'])
def test_an_imposed_signal_may_be_graded_and_push_away(reduce, bank, rng, x64):
    x, w = (a.astype(float) for a in bank)
    teacher = rng.uniform(-1, 1, (12, 6)) * (np.arange(6) != 4)
    found = change(prototypes.nearest(None, reduce=getattr(rules, reduce)), x, w, jnp.asarray(teacher))
    expected = reference.nearest(np.asarray(x), np.asarray(w), None, reduce=reduce, teacher=teacher)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert not expected[4].any()


def test_nothing_cannot_be_imposed(bank):
    with pytest.raises(ValueError, match='imposes its teacher and got None; give the layer a teacher'):
        change(prototypes.nearest(None), *bank)


# Who sits a step out


def test_a_handicap_leaves_the_key_of_the_competition_alone(bank):
    def compete(key, u):
        return jax.random.uniform(key, u.shape)

    x, w = bank
    plain = rules.instar(compete)
    even = plain._replace(handicap=lambda key, w, state: 0 * jax.random.uniform(key, (6,)))
    alone = plain.change(gathered(plain, x, w), w, ())[0]
    for rule in (plain, even):
        np.testing.assert_array_equal(change(rule, x, w), alone)
    assert types.nobody_is_handicapped(jax.random.key(0), w, ()) is None


def test_a_neuron_sits_out_as_often_as_it_has_won(bank):
    x, w = bank
    rule = prototypes.abstaining(prototypes.nearest())
    state = rule.init(w)
    first = rule.handicap(jax.random.key(0), w, state)
    np.testing.assert_array_equal(first, 0)
    _, state = rule.update(jax.random.key(0), x, drives(rule, x, w), w, state)
    wins = np.asarray(gathered(prototypes.nearest(), x, w).wins)
    assert wins.min() == 0 and wins.max() >= 3
    np.testing.assert_array_equal(state.victories, wins)
    assert state.patches == 12
    sits = jax.vmap(lambda key: rule.handicap(key, w, state))(jax.random.split(jax.random.key(1), 4000))
    assert set(np.unique(sits)) == {0, np.inf}
    np.testing.assert_allclose((sits > 0).mean(0), wins / (wins.max() + 12 / 6), atol=0.03)
    again = [rule.handicap(jax.random.key(2), w, state) for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_abstention_adds_to_an_inner_handicap_and_keeps_an_inner_state(bank):
    x, w = bank
    inner = prototypes.nearest(by='distance')._replace(
        init=lambda w: jnp.zeros(()), change=lambda sums, w, state: (0 * w, state + 1)
    )
    rule = prototypes.abstaining(inner)
    state = rule.init(w)
    np.testing.assert_allclose(rule.handicap(jax.random.key(0), w, state), (w * w).sum(1) / 2, rtol=1e-6)
    full = state._replace(victories=jnp.full(6, 1e9).at[0].set(0))
    np.testing.assert_array_equal(jnp.isinf(rule.handicap(jax.random.key(0), w, full)), np.arange(6) > 0)
    _, after = rule.update(jax.random.key(0), x, drives(rule, x, w), w, full)
    assert after.rule == 1 and after.victories.min() == 0
    np.testing.assert_array_equal(after.victories, full.victories + jnp.zeros(6).at[0].set(12) - 12)


def test_abstention_wakes_dead_neurons(rng):
    """One prototype in the middle of a cone of patches wins all; where it must rest, the others come in."""
    x = jnp.asarray(rng.normal(size=(100, 8)) * 0.3 + np.eye(8)[0] * 3, jnp.float32)
    w = jnp.asarray(rng.normal(size=(5, 8)), jnp.float32).at[:, 0].set(-1).at[0].set(jnp.eye(8)[0])

    def moved(rule):
        def step(carry, key):
            w, state = carry
            dw, state = rule.update(key, x, drives(rule, x, w), w, state)
            return (w + 0.1 * dw, state), None

        keys = jax.random.split(jax.random.key(0), 60)
        return np.any(jax.jit(lambda w: lax.scan(step, (w, rule.init(w)), keys)[0][0])(w) != w, axis=1)

    np.testing.assert_array_equal(moved(prototypes.nearest()), [True, False, False, False, False])
    assert moved(prototypes.abstaining(prototypes.nearest())).all()
