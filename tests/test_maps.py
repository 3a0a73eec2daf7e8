"""Self-organising maps: the lattice, its kernels, the loops, and order that emerges."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from jax import lax

from hebbjax import maps, plasticity, prototypes, rules


def drives(rule, x, w):
    """Drives as a layer computes them."""
    return jnp.matmul(x, rule.seen(w).T, precision=lax.Precision.HIGHEST)


def change(rule, x, w, state=None):
    """The raw change that a rule makes of patches."""
    state = rule.init(w) if state is None else state
    return rule.update(jax.random.key(0), x, drives(rule, x, w), w, state)[0]


def test_neurons_are_as_far_apart_as_along_their_farthest_axis():
    np.testing.assert_array_equal(maps.lattice(4)[1], [1, 0, 1, 2])
    np.testing.assert_array_equal(maps.lattice((2, 3))[0], [0, 1, 2, 1, 1, 2])
    np.testing.assert_array_equal(maps.lattice(np.int64(4)), maps.lattice((np.int32(4),)))
    cube = maps.lattice((2, 3, 4))
    assert cube.shape == (24, 24) and cube.max() == 3
    np.testing.assert_array_equal(cube, cube.T)


def test_kernels_are_1_at_the_winner_and_the_centred_ones_push_the_ring_around_it():
    d = jnp.arange(6.0)
    for name, kernel in maps.KERNELS.items():
        k = kernel(d, jnp.asarray(1.5))
        assert k[0] == 1 and np.abs(k).max() == 1
        assert (k.min() < 0) == (name in ('dog', 'doe'))
    np.testing.assert_allclose(maps.gaussian(d, jnp.asarray(1.5)), np.exp(-(np.arange(6) ** 2) / 4.5), rtol=1e-5)
    np.testing.assert_allclose(maps.exponential(d, jnp.asarray(1.5)), np.exp(-np.arange(6) / 1.5), rtol=1e-5)
    half = np.exp(-np.arange(6) / 3)
    np.testing.assert_allclose(maps.KERNELS['doe'](d, jnp.asarray(1.5)), 2 * half**2 - half, rtol=1e-4)


@pytest.mark.parametrize('shape, radius', [(6, 2), ((2, 3), 1)])
def test_a_map_equals_its_loops(shape, radius, rng, x64):
    """At its first step, and half way to tau, when the radius is half."""
    x, w = rng.normal(size=(9, 4)), rng.normal(size=(6, 4))
    places = list(np.ndindex(shape))
    rule = maps.som(shape, tau=10)
    for t, share in ((0, 1), (5, 0.5)):
        found = jax.jit(lambda x, w, t: change(rule, x, w, t))(jnp.asarray(x), jnp.asarray(w), jnp.asarray(t))
        np.testing.assert_allclose(found, reference.som(x, w, places, radius * share), atol=1e-12)


def test_any_kernel_and_reduction_is_the_credit_r_imposed(rng, x64):
    """The sums over winners are those over patches: r_pi = K[winner, i], imposed as a teacher would."""
    x, w = jnp.asarray(rng.normal(size=(9, 4))), jnp.asarray(rng.normal(size=(7, 4)))
    winner = jnp.argmax(drives(prototypes.nearest(), x, w), axis=1)
    for kernel, reduce in (('dog', rules.weighted), ('doe', rules.total), ('dog', rules.mean)):
        r = maps.KERNELS[kernel](maps.lattice(7).astype(float), jnp.asarray(3.0))[winner]
        imposed = prototypes.nearest(None, reduce=reduce)
        expected = imposed.update(jax.random.key(0), x, drives(imposed, x, w), w, (), r)[0]
        np.testing.assert_allclose(change(maps.som(7, kernel, reduce=reduce), x, w), expected, atol=1e-12)
        assert (r < 0).any()


def test_neighbours_learn_with_the_winner_until_the_radius_is_gone(rng):
    x = jnp.asarray(np.eye(4)[:1] * 2, jnp.float32)
    w = jnp.asarray(rng.normal(size=(9, 4)), jnp.float32).at[4].set(x[0])
    rule = maps.som(9, tau=100)
    moved = jnp.linalg.norm(change(rule, x, 0.5 * w) - 0.5 * 0, axis=1) / jnp.linalg.norm(x - 0.5 * w, axis=1)
    np.testing.assert_allclose(moved, np.exp(-((np.arange(9) - 4) ** 2) / 32), rtol=1e-4)
    for late in (100, 1000):
        alone = change(rule, x, 0.5 * w, jnp.asarray(late))
        np.testing.assert_allclose(alone, change(prototypes.nearest(), x, 0.5 * w), atol=1e-6)
    assert rule.update(jax.random.key(0), x, drives(rule, x, w), w, rule.init(w))[1] == 1


def test_the_radius_may_be_a_schedule(rng, x64):
    """The authors' own, s0^(1 - t / tau)."""
    x, w = rng.normal(size=(9, 4)), rng.normal(size=(7, 4))
    rule = maps.som(7, radius=lambda t: 3.0 ** (1 - t / 10))
    found = change(rule, jnp.asarray(x), jnp.asarray(w), jnp.asarray(4))
    np.testing.assert_allclose(found, reference.som(x, w, list(np.ndindex(7)), 3**0.6), atol=1e-12)


def test_points_on_a_line_come_to_lie_in_order(rng):
    """A chain of ten unfolds along a segment; without neighbours the order stays random. The authors' rate falls."""
    x = jnp.asarray(np.stack([rng.uniform(-1, 1, 200), np.zeros(200)], 1), jnp.float32)
    w = jnp.asarray(rng.normal(size=(10, 2)) * 0.1, jnp.float32)
    tx = plasticity.ascend(optax.exponential_decay(0.5, 1, decay_rate=math.exp(-1 / 50), end_value=0.05))

    def places(rule):
        def step(carry, key):
            w, state, opt = carry
            handicap = rule.handicap(key, w, state)
            sums = rule.gather(rule.start(w), key, x, drives(rule, x, w), threshold=handicap)
            dw, state = rule.change(sums, w, state)
            add, opt = tx.update(dw, opt, w)
            return (w + add, state, opt), None

        keys = jax.random.split(jax.random.key(0), 100)
        return np.asarray(jax.jit(lambda w: lax.scan(step, (w, rule.init(w), tx.init(w)), keys)[0][0])(w)[:, 0])

    unfolded = places(maps.som(10, tau=100, by='distance'))
    steps = np.diff(unfolded)
    assert np.all(steps > 0) or np.all(steps < 0)
    assert np.ptp(unfolded) > 1.2
    alone = np.diff(places(prototypes.nearest(by='distance')))
    assert (alone > 0).any() and (alone < 0).any()


@pytest.mark.parametrize(
    'settings, says',
    [
        ({'kernel': 'box'}, "kernel 'box' is unknown; there are gaussian, exponential, dog, doe"),
        ({'radius': 0}, 'a neighbourhood of radius 0 reaches nobody; use a radius above 0'),
        ({'radius': float('nan')}, 'radius nan reaches nobody'),
        ({'tau': 0}, 'cannot shrink over 0 steps; use a tau above 0'),
        ({'shape': ()}, r'a lattice of shape \(\) has no neurons'),
        ({'shape': (3, 0)}, r'a lattice of shape \(3, 0\) has no neurons; use at least one axis, of 1 or more'),
        ({'by': 'smell'}, "not 'smell'"),
    ],
)
def test_maps_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        maps.som(**{'shape': 6, **settings})


def test_a_lattice_of_another_size_than_the_layer_is_refused():
    with pytest.raises(ValueError, match=r'shape \(4, 5\) has 20 neurons and the layer 30; use a shape whose product'):
        maps.som((4, 5)).init(jnp.ones((30, 2)))
