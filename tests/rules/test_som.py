"""Self-organising maps: the lattice, its kernels, the loops, and order that emerges."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from jax import lax
from table import change, drives

from hebbjax import rules, transforms
from hebbjax.rules import instar, lattice, mean_over_credit, som
from hebbjax.rules.som import KERNELS, neighbourhood


def test_neurons_are_as_far_apart_as_along_their_farthest_axis():
    line, same, other, plane, cube = jax.jit(
        lambda: [lattice(shape) for shape in (4, np.int64(4), (np.int32(4),), (2, 3), (2, 3, 4))]
    )()
    np.testing.assert_array_equal(line[1], [1, 0, 1, 2])
    np.testing.assert_array_equal(same, other)
    np.testing.assert_array_equal(plane[0], [0, 1, 2, 1, 1, 2])
    assert cube.shape == (24, 24) and cube.max() == 3
    np.testing.assert_array_equal(cube, cube.T)


def test_kernels_are_1_at_the_winner_and_differences_push_the_ring_around_it():
    d, s = np.arange(6.0, dtype=np.float32), np.float32(1.5)
    shares = jax.jit(lambda d, s: {kernel: neighbourhood(kernel, d, s) for kernel in KERNELS})(d, s)
    for kernel, k in shares.items():
        assert k[0] == 1 and np.abs(k).max() == 1
        assert (k.min() < 0) == (kernel in ('dog', 'doe'))
    np.testing.assert_allclose(shares['gaussian'], np.exp(-(d**2) / 4.5), rtol=1e-5)
    np.testing.assert_allclose(shares['exponential'], np.exp(-d / 1.5), rtol=1e-5)
    half = np.exp(-d / 3)
    np.testing.assert_allclose(shares['doe'], 2 * half**2 - half, rtol=1e-4)


@pytest.mark.parametrize('shape, radius', [(6, 2), ((2, 3), 1)])
def test_a_map_equals_its_loops(shape, radius, rng, x64):
    """At its first step, and half way to tau, when the radius is half."""
    x, w = rng.normal(size=(9, 4)), rng.normal(size=(6, 4))
    for t, share in ((0, 1), (5, 0.5)):
        dw = change(som(shape, tau=10), x, w, np.int32(t))
        np.testing.assert_allclose(dw, reference.som(x, w, list(np.ndindex(shape)), radius * share), atol=1e-12)


def test_any_kernel_and_reduction_is_the_credit_r_imposed(rng, x64):
    """The sums over winners are those over patches: r_pi = K[winner, i], imposed as a teacher would."""
    x, w = rng.normal(size=(9, 4)), rng.normal(size=(7, 4))
    winner = np.argmax(x @ w.T / np.linalg.norm(w, axis=1), axis=1)
    for kernel, reduce in (('dog', rules.mean_over_credit), ('doe', rules.sum_over_patches)):
        share = jax.jit(neighbourhood, static_argnums=0)(kernel, abs(np.subtract.outer(*[np.arange(7.0)] * 2)), 3.0)
        r = np.asarray(share)[winner]
        imposed = change(instar(None, metric='cosine', reduce=reduce), x, w, (), teacher=r)
        np.testing.assert_allclose(change(som(7, kernel, reduce=reduce), x, w), imposed, atol=1e-12)
        assert (r < 0).any()


def test_neighbours_learn_with_the_winner_until_the_radius_is_gone(rng):
    x, w = np.eye(4, dtype=np.float32)[:1] * 2, rng.normal(size=(9, 4)).astype(np.float32)
    w[4], rule = x[0], som(9, tau=100)
    moved = np.linalg.norm(change(rule, x, 0.5 * w), axis=1) / np.linalg.norm(x - 0.5 * w, axis=1)
    np.testing.assert_allclose(moved, np.exp(-((np.arange(9) - 4) ** 2) / 32), rtol=1e-4)
    winner = change(instar(metric='cosine', reduce=mean_over_credit), x, 0.5 * w)
    for late in (100, 1000):
        np.testing.assert_allclose(change(rule, x, 0.5 * w, np.int32(late)), winner, atol=1e-6)


def test_the_radius_may_be_a_schedule(rng, x64):
    """The authors' own, s0^(1 - t / tau)."""
    x, w = rng.normal(size=(9, 4)), rng.normal(size=(7, 4))
    dw = change(som(7, radius=lambda t: 3.0 ** (1 - t / 10)), x, w, np.int32(4))
    np.testing.assert_allclose(dw, reference.som(x, w, list(np.ndindex(7)), 3**0.6), atol=1e-12)


def test_points_on_a_line_come_to_lie_in_order(rng):
    """A chain of ten unfolds along a segment; without neighbours the order stays random. The authors' rate falls."""
    x = np.stack([rng.uniform(-1, 1, 200), np.zeros(200)], 1).astype(np.float32)
    w = (rng.normal(size=(10, 2)) * 0.1).astype(np.float32)
    tx = transforms.scale_by_rate(optax.exponential_decay(0.5, 1, decay_rate=math.exp(-1 / 50), end_value=0.05))

    def places(rule):
        def step(carry, key):
            w, state, opt = carry
            dw, state = rule.update(key, x, drives(rule, x, w), w, state)
            add, opt = tx.update(dw, opt, w)
            return (w + add, state, opt), None

        keys = jax.random.split(jax.random.key(0), 100)
        return np.asarray(jax.jit(lambda w: lax.scan(step, (w, rule.init(w), tx.init(w)), keys)[0][0])(w)[:, 0])

    unfolded = places(som(10, tau=100, metric='euclidean'))
    steps = np.diff(unfolded)
    assert np.all(steps > 0) or np.all(steps < 0)
    assert np.ptp(unfolded) > 1.2
    alone = np.diff(places(instar(metric='euclidean', reduce=mean_over_credit)))
    assert (alone > 0).any() and (alone < 0).any()


@pytest.mark.parametrize(
    'settings, says',
    [
        ({'kernel': 'box'}, "kernel='box' is unknown; there are gaussian, exponential, dog, doe"),
        ({'radius': 0}, 'radius=0 is out of range; use a finite number > 0'),
        ({'shape': ()}, r'a lattice of shape \(\) has no neurons'),
        ({'shape': (3, 0)}, r'a lattice of shape \(3, 0\) has no neurons; use one axis or more, of 1 or more'),
        ({'metric': 'smell'}, "metric='smell' is unknown; there are dot, cosine, euclidean"),
    ],
)
def test_maps_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        som(**{'shape': 6, **settings})


def test_a_lattice_of_another_size_than_the_layer_is_refused():
    with pytest.raises(ValueError, match=r'shape \(4, 5\) has 20 neurons and the layer 30; use a shape whose product'):
        som((4, 5)).init(jnp.ones((30, 2)))


@pytest.mark.parametrize('kernel', KERNELS)
def test_a_radius_has_a_slope_however_small_it_is(kernel):
    """A kernel that underflows to 0 has a root of infinite slope."""
    d = lattice(4).astype(jnp.float32)
    of = lambda s: neighbourhood(kernel, d, s).sum()  # noqa: E731
    for s in (0.11, 0.3, 1.0):
        h = 1e-3
        slope, wanted = jax.grad(of)(s), (of(s + h) - of(s - h)) / (2 * h)
        np.testing.assert_allclose(slope, wanted, rtol=2e-2, atol=1e-2)
