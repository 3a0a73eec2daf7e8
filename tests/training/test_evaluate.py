"""Evaluation on the way: a fresh classifier on the weights as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbjax
from hebbjax import layers, rules, training, transforms
from hebbjax.data import load
from hebbjax.readout import gradient_probe, probe_accuracy, probe_confusion, ridge_probe
from hebbjax.readout.head import linear_head
from hebbjax.readout.schedules import Schedule
from hebbjax.training import Stage

NET = (hebbjax.Layer(8, rules.instar(1), transforms.scale_by_rate(0.1), hebbjax.Window(3)),)
SHAPE = (8, 8, 1)
PAIR = np.zeros((3, *SHAPE), np.uint8), np.zeros(3, np.int32)


@pytest.fixture(scope='module')
def digits():
    images, labels = load('digits', 'train')
    return jnp.asarray(images[:300]), jnp.asarray(labels[:300])


@pytest.fixture(scope='module')
def halves(digits):
    """Fitted to, and held out; of one size, so that one program answers both."""
    return tuple(a[:150] for a in digits), tuple(a[150:] for a in digits)


def fit(digits, *some, epochs, state=None):
    """Train a little, with callbacks."""
    state = jax.jit(layers.init, static_argnums=(0, 2))(NET, jax.random.key(0), SHAPE) if state is None else state
    return training.fit(NET, state, digits[0], stages=[Stage(epochs)], batch=50, callbacks=some, watch=None)


def test_evaluation_adds_accuracies_of_a_fresh_ridge_and_compiles_once(digits, halves, compilations):
    (fitted, held_out), compiled = halves, []
    callbacks = training.evaluate(fitted, held_out, every=2), lambda context: compiled.append(len(compilations))
    result = fit(digits, *callbacks, epochs=4)
    assert ['validation_accuracy' in row for row in result.history] == [True, True, False, True]
    assert compiled[1] == compiled[3] > 0
    probe = ridge_probe()(NET, result.state.layers, None, fitted, held_out)
    last = result.history[-1]
    assert last['validation_accuracy'] == pytest.approx(probe_accuracy(probe, *held_out))
    assert 60 < last['validation_accuracy'] < last['train_accuracy'] <= 100


def test_of_many_seeds_the_mean_is_told(digits, halves):
    states = training.init_seeds(NET, jax.random.split(jax.random.key(0), 2), SHAPE)
    (row,) = fit(digits, training.evaluate(*halves), epochs=1, state=states).history
    alone = [
        fit(digits, training.evaluate(*halves), epochs=1, state=training.take_seed(states, n)).history[0]
        for n in range(2)
    ]
    assert row['validation_accuracy'] == pytest.approx(np.mean([one['validation_accuracy'] for one in alone]), abs=0.6)


def test_a_head_trained_by_gradient_evaluates_as_well(digits, halves, relaxed, compilations):
    schedule, compiled = Schedule(epochs=3, batch=20, rate=1e-2), []
    by_gradient = gradient_probe(linear_head(10, power=None), schedule)
    callbacks = (
        training.evaluate(*halves, by_gradient, name='fit'), lambda context: compiled.append(len(compilations))
    )  # fmt: skip
    result = fit(digits, *callbacks, epochs=2)
    assert result.history[0]['validation_fit'] > 40 and compiled[0] == compiled[1]
    probe = by_gradient(NET, result.state.layers, jax.random.key(0), *halves)
    counts = probe_confusion(probe, *halves[0], 10)
    assert counts.sum() == 150 and counts.sum(1).tolist() == np.bincount(halves[0][1]).tolist()
    assert 100 * np.trace(counts) / 150 == pytest.approx(probe_accuracy(probe, *halves[0]))


def test_ctrl_c_during_a_probe_is_heard(digits):
    def interrupted(net, states, key, train, validation):
        raise KeyboardInterrupt

    result = fit(digits, training.evaluate(digits, digits, interrupted), epochs=1)
    assert result.interrupted and not result.history


@pytest.mark.parametrize(
    ('make', 'says'),
    [
        (lambda: training.evaluate((), ()), r'train are two arrays, \(images, labels\), and not tuple'),
        (lambda: training.evaluate(PAIR, PAIR[0]), 'validation are two arrays'),
        (lambda: training.evaluate(PAIR, (PAIR[0], PAIR[1][1:])), '2 labels do not fit 3 images'),
        (lambda: training.evaluate((PAIR[0], PAIR[1] - 1), PAIR), 'labels run from -1 to -1'),
        (lambda: training.evaluate(PAIR, PAIR, 'ridge'), "a probe is one such as .*, not 'ridge'"),
    ],
)
def test_evaluations_that_cannot_be_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
