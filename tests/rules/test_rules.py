"""Every rule of the table against its loops, and the wholes by what they are famous for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
import table
from jax import lax
from table import change, stats_of

from hebbjax import layers, rules, transforms
from hebbjax.base import Credit
from hebbjax.layers import Layer, Window
from hebbjax.rules import k_wta, krotov_ranks

every_rule = pytest.mark.parametrize('row', table.RULES + table.MEMORY + table.ASSOCIATIVE, ids=lambda row: row.name)
update_layer = jax.jit(layers.update_layer, static_argnums=0)


def bank(rng, patches=11, inputs=6, neurons=7):
    """Random patches and weights, of no symmetry."""
    return rng.normal(size=(patches, inputs)), rng.normal(size=(neurons, inputs))


def learn_for(rule, tx, x, w, steps):
    """Learn from the same patches again and again."""

    def step(carry, _):
        w, opt = carry
        add, opt = tx.update(change(rule, x, w), opt, w)
        return (w + add, opt), None

    return np.asarray(jax.jit(lambda w: lax.scan(step, (w, tx.init(w)), None, steps)[0][0])(w))


# What every rule inherits


@every_rule
def test_a_rule_equals_its_loops(row, rng, x64):
    """Neurons compete by what exceeds their threshold. Only a sum grows with the number of patches."""
    neurons = 6 if row.square else 7
    (x, w), rule, none = bank(rng, neurons=neurons), row.make(), np.zeros(neurons)
    for patches, threshold in ((x, none), (x, rng.normal(size=neurons)), (x[rng.permutation(11)], none), (0 * x, none)):
        expected = row.reference(patches, w, threshold=threshold)
        np.testing.assert_allclose(change(rule, patches, w, threshold=threshold), expected, rtol=1e-11, atol=1e-12)
    twice = change(rule, x, w, threshold=none, stats=stats_of(rule, x, w, threshold=none))
    grown = row.reference(x, w) * (2 if row.reduce == 'sum_over_patches' else 1)
    np.testing.assert_allclose(twice, grown, rtol=1e-11, atol=1e-12)


def images_and_patches(rng, image_shape, window):
    """Images, and what a layer makes of them: a convolution centres its patches."""
    images = rng.uniform(size=image_shape)
    if window.size is None:
        return images, images.reshape(len(images), -1)
    x = reference.patches(images, *((value, value) for value in window[:3]))
    x = x.reshape(-1, x.shape[-1])
    return images, x - x.mean(1, keepdims=True)


@every_rule
def test_a_layer_learns_what_the_loops_learn_under_vmap_and_compiles_once(row, rng, x64):
    """Three channels, and windows that reach over the edge; to a rule that remembers, the images are one sequence."""
    neurons = 27 if row.square else 7
    layer = Layer(neurons, row.make(), transforms.scale_by_rate(0.1), Window(3, 2, 1))

    @jax.jit
    @jax.vmap
    def learn(w, images):
        state = layers.init_layer(layer, jax.random.key(0), (5, 5, 3), w)
        state, _, info = layers.update_layer(layer, jax.random.key(1), state, images, frames=len(images))
        return state.w - w, info

    for _ in range(2):
        w = 0.3 * rng.normal(size=(2, neurons, 27))
        images, x = zip(*(images_and_patches(rng, (3, 5, 5, 3), layer.window) for _ in w))
        if layer.rule.sequential:  # frame after frame, at each of 9 places
            x = [rows.reshape(3, 9, 27).swapaxes(0, 1) for rows in x]
        moved, info = learn(w, np.stack(images))
        expected = np.array([0.1 * row.reference(*seed) for seed in zip(x, w)])
        np.testing.assert_allclose(moved, expected, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(info.max_update, np.abs(expected).max((1, 2)), rtol=1e-10)
        assert np.abs(expected).max() > 1e-3 and np.all(info.win_counts.sum(1) == 27)
    assert learn._cache_size() == 1


@every_rule
def test_a_rule_keeps_float32(row):
    x, w, rule = jnp.ones((11, 6)), jnp.ones((6 if row.square else 7, 6)), row.make()
    x = x[None] if rule.sequential else x
    dw, state = jax.eval_shape(lambda x, w: rule.update(jax.random.key(0), x, x @ w.T, w, rule.init(w)), x, w)
    assert dw.dtype == jnp.float32 and state == jax.eval_shape(rule.init, w)


# Krotov and Hopfield's rule as published: against the loops, through a layer

DENSE, CONVOLUTION = Window(), Window(2, 1, 1)


@pytest.mark.parametrize(
    'p, k, window, per',
    [
        (1.5, 2, CONVOLUTION, 'layer'),
        (2, 3, DENSE, 'layer'),
        (2.5, 7, DENSE, 'layer'),
        (3, 2, DENSE, 'unit'),
        (4, 3, CONVOLUTION, 'layer'),
        (2, 9, CONVOLUTION, 'layer'),
    ],
)
def test_krotov_steps_equal_the_published_loops(p, k, window, per, rng, x64):
    images, x = images_and_patches(rng, (2, 3, 3, 2), window)
    w = rng.normal(size=(9, x.shape[1]))
    tx = optax.chain(transforms.scale_by_max_abs(per), transforms.scale_by_rate(0.02))
    layer = Layer(9, rules.krotov(k, 0.4, p), tx, window)
    state = layers.init_layer(layer, jax.random.key(0), (3, 3, 2), w)
    for _ in range(2):
        state, _, info = update_layer(layer, jax.random.key(0), state, images)
        w = reference.krotov_step(x, w, k, 0.4, p, 0.02, per=per)
        np.testing.assert_allclose(state.w, w, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(info.max_update, 0.02, rtol=1e-12)


def test_krotov_is_the_ranked_competition_with_a_leak_by_drive(rng, x64):
    """The sparse form adds the two rows that the dense credit would multiply by zeros."""
    x, w = bank(rng)
    rule = rules.krotov(4, 0.3, 3.0)
    dense = rules.local(
        krotov_ranks(4, 0.3), lambda u, y: Credit(y, y * u, jnp.abs(y)), reduce=rules.sum_over_patches
    )._replace(effective_weights=rule.effective_weights)
    np.testing.assert_allclose(change(rule, x, w), change(dense, x, w), atol=1e-12)


@pytest.mark.parametrize('p', [1.5, 2, 3.5])
def test_krotov_sees_signed_powers(p):
    expected = [[-(2.0 ** (p - 1)), 0, 0.5 ** (p - 1)]]
    np.testing.assert_allclose(
        rules.krotov(2, 0.4, p).effective_weights(np.array([[-2, 0, 0.5]], np.float32)), expected, rtol=1e-6
    )


def test_an_exponent_may_be_an_array_as_a_search_gives_it(rng):
    x, w = (a.astype(np.float32) for a in bank(rng))
    for p in (2.0, 3.0):
        given, plain = (change(rules.krotov(3, 0.2, exponent), x, w) for exponent in (jnp.float32(p), p))
        np.testing.assert_allclose(given, plain, rtol=1e-5, atol=1e-5)


def test_of_equal_neurons_the_first_wins_and_the_second_is_second():
    w, x = np.tile(np.array([[1.0, -0.5]], np.float32), (3, 1)), np.array([[1.0, 0.0]], np.float32)
    step = x[0] - w[0]
    np.testing.assert_allclose(change(rules.krotov(2, 0.4, 2.0), x, w), [step, -0.4 * step, 0 * step], rtol=1e-6)
    np.testing.assert_allclose(change(rules.instar(1), x, w), [step, 0 * step, 0 * step])


@pytest.mark.parametrize('k', [1, 5])
def test_a_number_of_winners_is_the_competition_of_so_many(k, rng, x64):
    """With rows added (k = 1) and with one product (k = 5 of 30); oja is the instar where credit is 0 or 1."""
    x, w = bank(rng, 20, 6, 30)
    dw = change(rules.instar(k, reduce=rules.sum_over_patches), x, w)
    dense = change(rules.instar(k_wta(k), reduce=rules.sum_over_patches), x, w)
    np.testing.assert_allclose(dw, dense, atol=1e-12)
    np.testing.assert_array_equal(change(rules.oja(k, reduce=rules.sum_over_patches), x, w), dw)


# What cannot be


def test_rules_that_cannot_be_are_refused():
    for k in (1, 0, -3):
        with pytest.raises(ValueError, match=rf'k={k} is out of range; use a whole number from 2 on\.'):
            rules.krotov(k)
    for p in (1, 1.0, 0.5, 0, -2.0, float('nan')):
        with pytest.raises(ValueError, match=rf'p={p} is out of range; use a finite number > 1\.'):
            rules.krotov(p=p)
    for build in (rules.instar, rules.hebb, rules.oja):
        with pytest.raises(ValueError, match='k=0 is out of range'):
            build(0)
        with pytest.raises(ValueError, match="by a competition, or by a number of winners, not by 'all'"):
            build('all')


@pytest.mark.parametrize('rule', [rules.krotov(5), rules.instar(5), rules.hebb(5), rules.oja(5)])
def test_a_k_above_the_number_of_neurons_is_refused(rule):
    message = 'k=5 is more than the 4 neurons that compete'
    with pytest.raises(ValueError, match=message):
        rule.init(np.ones((4, 3)))
    layer = Layer(4, rule, transforms.scale_by_rate(0.1))
    with pytest.raises(ValueError, match=message):
        layers.init_layer(layer, jax.random.key(0), (2, 2, 1))
    rule.init(np.ones((5, 3)))


# What rules are famous for


@pytest.fixture
def clouds(rng):
    """A cloud with clear principal axes: [400, 5] patches and its axes, longest first."""
    axes = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    x = rng.normal(size=(400, 5)) * [2.0, 1.4, 1.0, 0.5, 0.2] @ axes.T
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    return x.astype(np.float32), vectors.T[np.argsort(-values)]


@pytest.fixture
def blobs(rng):
    """Four tight blobs in directions of their own: [200, 8] patches, labels, centres."""
    centres = np.linalg.qr(rng.normal(size=(8, 8)))[0][:4] * 2
    labels = np.arange(200) % 4
    x = centres[labels] + 0.1 * rng.normal(size=(200, 8))
    return x.astype(np.float32), labels, np.array([x[labels == c].mean(0) for c in range(4)])


def test_oja_finds_the_first_principal_component_at_norm_1(clouds, rng):
    x, axes = clouds
    w = learn_for(rules.oja(), transforms.scale_by_rate(0.05), x, rng.normal(size=(1, 5)).astype(np.float32), 400)
    np.testing.assert_allclose(np.linalg.norm(w), 1, atol=1e-3)
    np.testing.assert_allclose(abs(w[0] @ axes[0]), 1, atol=1e-3)


def test_sanger_finds_the_principal_components_in_order(clouds, rng):
    x, axes = clouds
    start = 0.3 * rng.normal(size=(3, 5)).astype(np.float32)
    w = learn_for(rules.sanger(), transforms.scale_by_rate(0.05), x, start, 1500)
    np.testing.assert_allclose(np.abs(w @ axes[:3].T), np.eye(3), atol=5e-3)


def test_hebb_on_the_sphere_finds_the_first_principal_component(clouds, rng):
    x, axes = clouds
    tx = optax.chain(transforms.scale_by_rate(0.1), transforms.project_unit_rows())
    w = learn_for(rules.hebb(), tx, x, rng.normal(size=(2, 5)).astype(np.float32), 300)
    np.testing.assert_allclose(np.abs(w @ axes[0]), 1, atol=1e-3)


@pytest.mark.parametrize('reduce, rate, steps', [(rules.mean_over_patches, 0.5, 100), (rules.mean_over_credit, 1.0, 2)])
def test_instar_finds_cluster_means(blobs, reduce, rate, steps):
    """A mean over all patches gets there, a mean over the own ones at rate 1 is a step of k-means."""
    x, _, means = blobs
    w = learn_for(rules.instar(reduce=reduce), transforms.scale_by_rate(rate), x, x[:4], steps)
    np.testing.assert_allclose(w, means, atol=1e-4)


ANNEALED = optax.chain(
    transforms.scale_by_max_abs(),
    transforms.scale_by_rate(transforms.linear_by_epoch(0.05, epochs=50, steps_per_epoch=20)),
)


@pytest.mark.parametrize('p', [2, 3])
def test_krotov_brings_winners_to_the_p_sphere(blobs, rng, p):
    x, _, _ = blobs
    rule, start = rules.krotov(2, 0.0, p), rng.normal(size=(12, 8)).astype(np.float32)
    w = learn_for(rule, ANNEALED, x, start, 1000)
    won = np.unique(np.argmax(x @ np.asarray(rule.effective_weights(w)).T, axis=1))
    norms, before = ((np.abs(weights) ** p).sum(1) for weights in (w, start))
    assert len(won) >= 2
    np.testing.assert_allclose(norms[won], 1, atol=0.02)
    assert np.abs(before[won] - 1).min() > 0.1
    never = ~np.any(w != start, axis=1)
    assert not never[won].any()


def test_krotov_separates_blobs(blobs, rng):
    """Every blob finds neurons of its own, and they point at it."""
    x, labels, means = blobs
    w = learn_for(rules.krotov(2, 0.4, 2), ANNEALED, x, rng.normal(size=(12, 8)).astype(np.float32), 1000)
    won = np.argmax(x @ w.T, axis=1)
    for blob in range(4):
        own = set(won[labels == blob])
        assert not own & set(won[labels != blob])
        for neuron in own:
            assert w[neuron] @ means[blob] > 0.9 * np.linalg.norm(means[blob])


def test_krotov_s_delta_has_a_slope_where_too_few_take_part(rng):
    x, w = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32), jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    teacher = jnp.asarray(np.eye(4)[[0, 1, 2, 3, 0, 1]] + np.eye(4)[[0, 2, 3, 0, 1, 1]], jnp.float32)  # one or two

    @jax.jit
    def loss(delta):
        dw, _ = rules.krotov(2, delta).update(jax.random.key(0), x, x @ w.T, w, (), teacher)
        return jnp.sum(dw * w)

    slope, h = jax.jit(jax.grad(loss))(0.4), 1e-2
    np.testing.assert_allclose(slope, (loss(0.4 + h) - loss(0.4 - h)) / (2 * h), rtol=1e-3)
