"""Every rule of the table against its loops, and the wholes by what they are famous for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
import table
from jax import lax

from hebbjax import competition, layers, learning, plasticity, rules
from hebbjax.layers import Layer
from hebbjax.patches import Window

every_rule = pytest.mark.parametrize('row', table.RULES, ids=lambda row: row.name)


def bank(rng, patches=11, inputs=6, neurons=7):
    """Random patches and weights, of no symmetry."""
    return rng.normal(size=(patches, inputs)), rng.normal(size=(neurons, inputs))


def change(rule, x, w, threshold=None):
    """The raw change that a rule makes of patches, with drives computed as a layer computes them."""
    u = jnp.matmul(x, rule.seen(w).T, precision=lax.Precision.HIGHEST)
    return rule.update(jax.random.key(0), x, u, w, rule.init(w), threshold=threshold)[0]


def learn_for(rule, tx, x, w, steps):
    """Learn from the same patches again and again."""

    def step(carry, _):
        w, opt = carry
        add, opt = tx.update(change(rule, x, w), opt, w)
        return (w + add, opt), None

    return jax.jit(lambda w: lax.scan(step, (w, tx.init(w)), None, steps)[0][0])(w)


# What every rule inherits


@every_rule
def test_a_rule_equals_its_loops(row, rng, x64):
    x, w = bank(rng)
    np.testing.assert_allclose(
        change(row.make(), jnp.asarray(x), jnp.asarray(w)), row.reference(x, w), rtol=1e-12, atol=1e-12
    )


@every_rule
def test_neurons_compete_by_what_exceeds_their_threshold(row, rng, x64):
    x, w = bank(rng)
    threshold = rng.normal(size=7)
    found = change(row.make(), jnp.asarray(x), jnp.asarray(w), jnp.asarray(threshold))
    np.testing.assert_allclose(found, row.reference(x, w, threshold=threshold), rtol=1e-12, atol=1e-12)


@every_rule
def test_jit_changes_nothing_compiles_once_and_keeps_the_dtype(row, rng):
    rule = row.make()
    jitted = jax.jit(lambda x, w: change(rule, x, w))
    for _ in range(3):
        x, w = (jnp.asarray(a, jnp.float32) for a in bank(rng))
        dw, plain = jitted(x, w), change(rule, x, w)
        assert (dw.dtype, plain.dtype) == (jnp.float32, jnp.float32)
        np.testing.assert_allclose(dw, plain, rtol=1e-4, atol=1e-5)
    assert jitted._cache_size() == 1


@every_rule
def test_the_order_of_patches_does_not_matter(row, rng, x64):
    x, w = bank(rng)
    rule = row.make()
    dw = change(rule, jnp.asarray(x), jnp.asarray(w))
    np.testing.assert_allclose(change(rule, jnp.asarray(x[rng.permutation(11)]), jnp.asarray(w)), dw, atol=1e-12)


@every_rule
def test_only_a_total_grows_with_the_number_of_patches(row, rng, x64):
    x, w = bank(rng)
    rule = row.make()
    once, twice = (change(rule, jnp.asarray(np.tile(x, (n, 1))), jnp.asarray(w)) for n in (1, 2))
    np.testing.assert_allclose(twice, once * (2 if row.reduce == 'total' else 1), atol=1e-11)


@every_rule
def test_vmap_equals_a_loop(row, rng, x64):
    many = [bank(rng) for _ in range(3)]
    rule = row.make()
    x, w = (jnp.asarray(np.stack(a)) for a in zip(*many))
    together = jax.vmap(lambda x, w: change(rule, x, w))(x, w)
    for dw, x_one, w_one in zip(together, x, w):
        np.testing.assert_allclose(dw, change(rule, x_one, w_one), rtol=1e-12, atol=1e-12)


@every_rule
def test_all_zero_patches_pull_nothing(row, rng):
    """Nor do they leak, unless a neuron learns without being driven, as a winner of equals does."""
    x, w = (jnp.asarray(a, jnp.float32) for a in bank(rng))
    dw = change(row.make(), 0 * x, w)
    assert np.isfinite(dw).all()
    if row.name in ('instar-1', 'instar-3', 'instar-weighted', 'oja-2') or 'distance' in row.name:
        assert np.all((dw == 0) | (np.sign(dw) == -np.sign(w)))
    else:
        np.testing.assert_array_equal(dw, 0)


@every_rule
@pytest.mark.parametrize('window', [Window(), Window(3, 2, 1)], ids=['dense', 'convolutional'])
def test_a_layer_learns_what_the_loops_learn(row, window, rng, x64):
    """Three channels, and windows that reach over the edge; a convolution centres its patches."""
    images = rng.uniform(size=(3, 5, 5, 3))
    size, stride, padding = ((5, 5), (1, 1), (0, 0)) if window.size is None else ((3, 3), (2, 2), (1, 1))
    x = reference.patches(images, size, stride, padding)
    x = x.reshape(-1, x.shape[-1])
    if window.size is not None:
        x = x - x.mean(1, keepdims=True)
    w = 0.3 * rng.normal(size=(7, x.shape[1]))
    layer = Layer(7, row.make(), plasticity.ascend(0.1), window)
    state, _, told = learning.learn(
        layer, jax.random.key(0), layers.init(layer, jax.random.key(1), (5, 5, 3), jnp.asarray(w)), jnp.asarray(images)
    )
    expected = 0.1 * row.reference(x, w)
    np.testing.assert_allclose(state.w - w, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(told.change, np.abs(expected).max(), rtol=1e-10)
    assert np.abs(expected).max() > 1e-3
    assert int(told.wins.sum()) == len(x)


# Krotov and Hopfield's rule as published: a grid against the loops, through a layer


@pytest.mark.parametrize('window', [Window(), Window(2, 1, 1)], ids=['dense', 'convolutional'])
@pytest.mark.parametrize('k', [2, 3, 7, 9])
@pytest.mark.parametrize(
    'p, per', [(1.5, 'layer'), (2, 'layer'), (2.5, 'layer'), (3, 'layer'), (4, 'layer'), (3, 'unit')]
)
def test_krotov_steps_equal_the_published_loops(p, k, window, per, rng, x64):
    images = rng.uniform(size=(2, 3, 3, 2))
    size, padding = ((3, 3), (0, 0)) if window.size is None else ((2, 2), (1, 1))
    x = reference.patches(images, size, (1, 1), padding)
    x = x.reshape(-1, x.shape[-1])
    if window.size is not None:
        x = x - x.mean(1, keepdims=True)
    w = rng.normal(size=(9, x.shape[1]))
    tx = optax.chain(plasticity.scale_by_max_abs(per), plasticity.ascend(0.02))
    layer = Layer(9, rules.krotov(k, 0.4, p), tx, window)
    state = layers.init(layer, jax.random.key(0), (3, 3, 2), jnp.asarray(w))
    for _ in range(2):
        state, _, told = learning.learn(layer, jax.random.key(0), state, jnp.asarray(images))
        w = reference.krotov_step(x, w, k, 0.4, p, 0.02, per=per)
        np.testing.assert_allclose(state.w, w, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(told.change, 0.02, rtol=1e-12)


def test_one_maximum_for_all_neurons_is_not_one_per_neuron(rng):
    x, w = (jnp.asarray(a, jnp.float32) for a in bank(rng, patches=40))
    dw = change(rules.krotov(3, 0.4, 2.0), x, w)
    largest = [
        np.abs(plasticity.scale_by_max_abs(per).update(dw, optax.EmptyState(), w)[0]).max(1)
        for per in ('layer', 'unit')
    ]
    moved = np.abs(dw).max(1) > 0
    assert moved.sum() > 3
    np.testing.assert_allclose(np.sort(largest[0])[-1], 1, rtol=1e-6)
    assert np.sort(largest[0])[-2] < 0.99
    np.testing.assert_allclose(largest[1][moved], 1, rtol=1e-6)


def test_krotov_is_the_ranked_competition_with_a_leak_by_drive(rng, x64):
    """The sparse form adds the two rows that the dense credit would multiply by zeros."""
    x, w = map(jnp.asarray, bank(rng))
    for p in (2.0, 3.0):
        rule = rules.krotov(4, 0.3, p)
        dense = rules.local(
            competition.rank(4, 0.3), lambda u, y: rules.Credit(y, y * u, jnp.abs(y)), reduce=rules.total
        )
        dense = dense._replace(seen=rule.seen)
        np.testing.assert_allclose(change(rule, x, w), change(dense, x, w), atol=1e-12)


@pytest.mark.parametrize('p', [1.5, 2, 3.5])
def test_krotov_sees_signed_powers(p):
    w = jnp.array([[-2.0, 0.0, 0.5]])
    expected = [[-(2.0 ** (p - 1)), 0, 0.5 ** (p - 1)]]
    np.testing.assert_allclose(rules.krotov(2, 0.4, p).seen(w), expected, rtol=1e-6)


def test_of_equal_neurons_the_first_wins_and_the_second_is_second():
    w = jnp.tile(jnp.array([[1.0, -0.5]]), (3, 1))
    x = jnp.array([[1.0, 0.0]])
    leak = np.array([1.0, -0.5])
    dw = change(rules.krotov(2, 0.4, 2.0), x, w)
    np.testing.assert_allclose(dw, [x[0] - leak, -0.4 * (x[0] - leak), [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(change(rules.instar(1), x, w), [x[0] - w[0], [0, 0], [0, 0]])


def test_a_winner_that_is_its_own_kth_cannot_be():
    for k in (1, 0, -3):
        with pytest.raises(ValueError, match=rf'krotov\(k={k}\) .* use a whole number from 2 to that of neurons\.'):
            rules.krotov(k)


@pytest.mark.parametrize('p', [1, 1.0, 0.5, 0, -2.0, float('nan')])
def test_a_p_without_a_norm_is_refused(p):
    with pytest.raises(ValueError, match=rf'krotov\(p={p}\) has no norm to converge to; use a finite p > 1\.'):
        rules.krotov(p=p)


@pytest.mark.parametrize('rule', [rules.krotov(5), rules.instar(5), rules.hebb(5), rules.oja(5)])
def test_a_k_above_the_number_of_neurons_is_refused(rule):
    message = 'k=5 is more than the 4 neurons that compete; use k <= 4'
    with pytest.raises(ValueError, match=message):
        rule.init(jnp.ones((4, 3)))
    layer = Layer(4, rule, plasticity.ascend(0.1))
    with pytest.raises(ValueError, match=message):
        layers.init(layer, jax.random.key(0), (2, 2, 1))
    rule.init(jnp.ones((5, 3)))


@pytest.mark.parametrize('build', [rules.instar, rules.hebb, rules.oja])
def test_a_rule_without_winners_is_refused(build):
    with pytest.raises(ValueError, match='leaves no winner'):
        build(0)


@pytest.mark.parametrize('k', [1, 2, 5])
def test_a_number_of_winners_is_the_competition_of_so_many(k, rng, x64):
    """With rows added (k = 1) and with one product (k = 2, 5 of 30); oja is the instar where credit is 0 or 1."""
    x, w = (jnp.asarray(rng.normal(size=size)) for size in ((20, 6), (30, 6)))
    for build in (rules.instar, rules.hebb, rules.oja):
        dense = change(build(competition.k_wta(k), reduce=rules.total), x, w)
        np.testing.assert_allclose(change(build(k, reduce=rules.total), x, w), dense, atol=1e-12)
    np.testing.assert_array_equal(change(rules.oja(k), x, w), change(rules.instar(k), x, w))


# What rules are famous for


@pytest.fixture
def clouds(rng):
    """A cloud with clear principal axes: [400, 5] patches and its axes, longest first."""
    axes = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    x = rng.normal(size=(400, 5)) * [2.0, 1.4, 1.0, 0.5, 0.2] @ axes.T
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    return jnp.asarray(x, jnp.float32), vectors.T[np.argsort(-values)]


@pytest.fixture
def blobs(rng):
    """Four tight blobs in directions of their own: [200, 8] patches, labels, centres."""
    centres = np.linalg.qr(rng.normal(size=(8, 8)))[0][:4] * 2
    labels = np.arange(200) % 4
    x = centres[labels] + 0.1 * rng.normal(size=(200, 8))
    return jnp.asarray(x, jnp.float32), labels, np.array([x[labels == c].mean(0) for c in range(4)])


def test_oja_finds_the_first_principal_component_at_norm_1(clouds, rng):
    x, axes = clouds
    w = learn_for(rules.oja(), plasticity.ascend(0.05), x, jnp.asarray(rng.normal(size=(1, 5)), jnp.float32), 400)
    np.testing.assert_allclose(jnp.linalg.norm(w), 1, atol=1e-3)
    np.testing.assert_allclose(abs(w[0] @ axes[0].astype(np.float32)), 1, atol=1e-3)


def test_sanger_finds_the_principal_components_in_order(clouds, rng):
    x, axes = clouds
    w = jnp.asarray(0.3 * rng.normal(size=(3, 5)), jnp.float32)
    w = learn_for(rules.sanger(), plasticity.ascend(0.05), x, w, 1500)
    np.testing.assert_allclose(np.abs(np.asarray(w) @ axes[:3].T), np.eye(3), atol=5e-3)


def test_hebb_on_the_sphere_finds_the_first_principal_component(clouds, rng):
    x, axes = clouds
    tx = optax.chain(plasticity.ascend(0.1), plasticity.unit_rows())
    w = learn_for(rules.hebb(), tx, x, jnp.asarray(rng.normal(size=(2, 5)), jnp.float32), 300)
    np.testing.assert_allclose(np.abs(np.asarray(w) @ axes[0]), 1, atol=1e-3)


@pytest.mark.parametrize('reduce, rate, steps', [(rules.mean, 0.5, 100), (rules.weighted, 1.0, 2)])
def test_instar_finds_cluster_means(blobs, reduce, rate, steps):
    """A mean over all patches gets there, a mean over the own ones at rate 1 is a step of k-means."""
    x, _, means = blobs
    w = learn_for(rules.instar(reduce=reduce), plasticity.ascend(rate), x, x[:4], steps)
    np.testing.assert_allclose(w, means, atol=1e-4)


@pytest.mark.parametrize('p', [2, 3])
def test_krotov_brings_winners_to_the_p_sphere(blobs, rng, p):
    x, _, _ = blobs
    rule = rules.krotov(2, 0.0, p)
    tx = optax.chain(
        plasticity.scale_by_max_abs(), plasticity.ascend(plasticity.anneal(0.05, epochs=50, steps_per_epoch=20))
    )
    start = jnp.asarray(rng.normal(size=(12, 8)), jnp.float32)
    w = learn_for(rule, tx, x, start, 1000)
    won = np.unique(jnp.argmax(x @ rule.seen(w).T, axis=1))
    norms = np.sum(np.abs(w) ** p, axis=1)
    assert len(won) >= 2
    np.testing.assert_allclose(norms[won], 1, atol=0.02)
    never = np.setdiff1d(np.arange(12), np.flatnonzero(np.any(w != start, axis=1)))
    np.testing.assert_array_equal(w[never], start[never])
    assert np.abs(np.sum(np.abs(start) ** p, axis=1)[won] - 1).min() > 0.1


def test_krotov_separates_blobs(blobs, rng):
    """Every blob finds neurons of its own, and they point at it."""
    x, labels, means = blobs
    rule = rules.krotov(2, 0.4, 2)
    tx = optax.chain(
        plasticity.scale_by_max_abs(), plasticity.ascend(plasticity.anneal(0.05, epochs=50, steps_per_epoch=20))
    )
    w = learn_for(rule, tx, x, jnp.asarray(rng.normal(size=(12, 8)), jnp.float32), 1000)
    won = np.asarray(jnp.argmax(x @ w.T, axis=1))
    for blob in range(4):
        own = set(won[labels == blob])
        assert not own & set(won[labels != blob])
        for neuron in own:
            assert w[neuron] @ means[blob].astype(np.float32) > 0.9 * np.linalg.norm(means[blob])
