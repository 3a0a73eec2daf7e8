"""What neurons send on: equations, and slopes that stay finite at 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax.layers import activations, codes
from hebbjax.rules import k_wta

U = jnp.array([[-2.0, 0.0, 0.5], [3.0, 1.0, -1.0]])


def test_activations_equal_their_equations():
    u = np.asarray(U)
    np.testing.assert_array_equal(activations.identity(U), u)
    np.testing.assert_array_equal(activations.relu(U), np.maximum(u, 0))
    np.testing.assert_allclose(activations.triangle(U), np.maximum(u - u.mean(1, keepdims=True), 0), rtol=1e-6)


def test_winners_send_ones():
    maps = jnp.stack([U, -U])  # [2, 2, 3]
    np.testing.assert_array_equal(
        activations.send_credit(k_wta(1))(maps), [[[0, 0, 1], [1, 0, 0]], [[1, 0, 0], [0, 0, 1]]]
    )


@pytest.mark.parametrize('n', [1, 1.5, 3])
def test_repu_is_a_power_of_the_positive_part_with_a_finite_slope(n):
    send = activations.repu(n)
    sent, slope = jax.jit(lambda u: (send(u), jax.grad(lambda u: send(u).sum())(u)))(U)
    np.testing.assert_allclose(sent, np.maximum(np.asarray(U), 0) ** n, rtol=1e-6)
    expected = np.where(U > 0, n * np.maximum(np.asarray(U), 1e-9) ** (n - 1), 0)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_the_triangle_to_a_power_has_a_finite_slope_where_it_is_flat():
    send = activations.triangle_to(0.7)
    sent, slope = jax.jit(lambda u: (send(u), jax.grad(lambda u: send(u).sum())(u)))(U)
    np.testing.assert_allclose(sent, np.asarray(activations.triangle(U)) ** 0.7, rtol=1e-6)
    assert np.isfinite(slope).all() and slope[0, 2] > 0


@pytest.mark.parametrize('neurons, share', [(50, 0.4), (7, 0.01), (3, 0.9)])
def test_as_many_of_the_nearest_as_are_asked_for_send(neurons, share):
    u = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, neurons)), jnp.float32)
    count, sent = max(1, round(share * neurons)), np.asarray(jax.jit(codes.nearest(share))(u))
    assert np.isin(sent, (0, 1)).all() and (np.abs(sent.sum(2) - count - 1) <= 1).all()  # of near ones some more
    assert (np.where(sent, u, np.inf).min(2) > np.where(sent, -np.inf, u).max(2)).all()
    softly = codes.nearest(share, 1.0)(u)
    assert ((softly >= 0.5) == (sent > 0)).all() and 0 < softly.min() < softly.max() < 1
    np.testing.assert_array_equal(codes.both_signs(u)[..., neurons:], -u)
    assert not codes.nearest(share)(jnp.zeros((2, neurons))).any()  # none is nearer than another


@pytest.mark.parametrize(
    'send', [activations.relu, activations.repu(2.0), activations.triangle_to(0.7), codes.nearest(0.4)]
)
def test_what_is_not_a_number_is_sent_on_to_be_found(send):
    sent = jax.jit(send)(jnp.array([[jnp.nan, 1.0, 2.0], [0.5, 1.0, 2.0]]))
    assert np.isnan(sent[0, 0]) and np.isfinite(sent[1]).all()


@pytest.mark.parametrize('n', [0.5, 0, -1])
def test_a_power_below_1_is_refused(n):
    with pytest.raises(ValueError, match=rf'n={n} is out of range; use a finite number >= 1'):
        activations.repu(n)


@pytest.mark.parametrize(
    'send',
    [
        activations.identity,
        activations.relu,
        activations.repu(1.5),
        activations.triangle,
        activations.triangle_to(0.7),
        activations.send_credit(k_wta(2)),
        codes.nearest(0.4),
        codes.nearest(0.4, 0.5),
    ],
)
def test_activations_keep_shape_and_dtype(send):
    for dtype in (jnp.float32, jnp.bfloat16):
        sent = jax.eval_shape(send, jnp.ones((2, 3, 3, 4), dtype))
        assert (sent.shape, sent.dtype) == ((2, 3, 3, 4), dtype)
