"""What trainings are judged by: known values, the ridge regression of readout, slopes where there are some."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import readout
from hebbjax.learned import objectives


@pytest.fixture
def halves(rng):
    """Features with a common level, and labels that they tell something of."""
    labels = np.arange(60) % 3
    features = 5 + rng.normal(size=(60, 4)) + np.eye(3, 4)[labels]
    return (features[:40], labels[:40]), (features[40:], labels[40:])


@pytest.mark.parametrize('penalty', [1e-3, 10.0])
def test_the_ridge_regression_is_that_of_readout(halves, penalty, x64):
    fitted, (others, labels) = halves
    model = readout.fit_ridge([fitted], 3, penalty)
    outputs = others @ model.w + model.b
    error, accuracy = (
        jax.jit(judge, static_argnums=2)(fitted, (others, labels), 3, penalty)
        for judge in (objectives.held_out_error, objectives.held_out_accuracy)
    )
    np.testing.assert_allclose(objectives.ridge_outputs(fitted[0], np.eye(3)[fitted[1]], others, penalty), outputs)
    np.testing.assert_allclose(error, np.mean(np.sum((outputs - np.eye(3)[labels]) ** 2, 1)), rtol=1e-10)
    np.testing.assert_allclose(accuracy, readout.linear_accuracy(model, [(others, labels)]))
    assert 1 / 3 < accuracy < 1


def test_errors_have_slopes_and_accuracies_none(halves, x64):
    (features, labels), held_out = halves

    def judged(by):
        def of(scale):
            x = features * jnp.stack([scale, 1, 1, 1])[None]
            return by((x, labels), held_out, 3, 1.0)

        return jax.jit(jax.value_and_grad(of))

    error, step = judged(objectives.held_out_error), 1e-5
    measured = (error(1 + step)[0] - error(1 - step)[0]) / (2 * step)
    np.testing.assert_allclose(error(1.0)[1], measured, rtol=1e-5)
    assert judged(objectives.held_out_accuracy)(1.0)[1] == 0


def test_a_trajectory_is_measured_by_how_far_it_should_go(rng):
    start, target = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 3, 4))
    stays = np.broadcast_to(start[:, None], target.shape)
    for w, error in ((target, 0), (stays, 1), ((target + stays) / 2, 0.25)):
        np.testing.assert_allclose(objectives.trajectory_error(w, target, start), error, rtol=1e-6)
    with pytest.raises(ValueError, match=r'^trajectories are two of \[\.\.\., T, N, D\]'):
        objectives.trajectory_error(target, target, start[0])


def test_wins_are_unequal_from_0_to_1():
    judge = jax.jit(jax.value_and_grad(objectives.win_inequality))
    alike, one = np.full((2, 4), 0.25, np.float32), np.eye(4, dtype=np.float32)[:2]
    for rates, inequality in ((alike, 0), (one, 1), (np.stack([alike[0], one[0]]), 0.5)):
        np.testing.assert_allclose(judge(rates)[0], inequality, atol=1e-6)
    assert np.isfinite(judge(one)[1]).all() and judge(0.9 * one + 0.1 * alike)[1][0, 0] > 0


def test_what_cannot_be_read_out_is_refused(halves):
    fitted, held_out = halves
    for penalty in (0, -1.0, np.nan):
        with pytest.raises(ValueError, match=r'^penalty=.* is out of range; use a finite number > 0'):
            objectives.held_out_error(fitted, held_out, 3, penalty)
    with pytest.raises(ValueError, match=r'^labels run from 0 to 2 and there are 2 classes'):
        objectives.held_out_accuracy(fitted, held_out, 2)
