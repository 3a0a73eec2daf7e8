"""Softmax regression: against scikit-learn, in any blocks of rows and columns; what probes make of it, and refusals."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hebbjax import layers, readout, rules, transforms
from hebbjax.readout import softmax
from hebbjax.support import checks

NET = (layers.Layer(6, rules.oja(), transforms.scale_by_rate(0.1), layers.Window(3), post=()),)


def problem(rng, count=300, inputs=41, classes=4):
    """Features of very different sizes around a common level, one constant, that tell something of the labels."""
    x = rng.normal(size=(count, inputs)) * np.logspace(-2, 1, inputs)
    labels = (x / x.std(0) @ rng.normal(size=(inputs, classes)) + 4 * rng.normal(size=(count, classes))).argmax(1)
    x[:, 3] = 0.1
    return (x + 3).astype(np.float32), labels


def loss_of(model, x, labels, penalty):
    """What is made small, in float64."""
    outputs = x.astype(np.float64) @ model.w + model.b
    sums = np.log(np.exp(outputs - outputs.max(1, keepdims=True)).sum(1)) + outputs.max(1)
    return (sums - outputs[np.arange(len(x)), labels]).sum() + penalty / 2 * (model.w**2).sum()


@pytest.mark.parametrize('block', [4096, 7], ids=['one block', 'six blocks of 7, one filled up'])
@pytest.mark.parametrize('penalty', [0.1, 10.0])
def test_it_is_that_of_scikit_learn(penalty, block, rng, monkeypatch):
    monkeypatch.setattr(softmax, 'BLOCK_COLUMNS', block)
    x, labels = problem(rng)
    judge = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=20_000).fit(x.astype(np.float64), labels)
    best = loss_of(readout.LinearClassifier(judge.coef_.T, judge.intercept_), x, labels, penalty)
    found = readout.fit_softmax(x, labels, 4, penalty)
    assert found.model.w.shape == (41, 4) and found.accuracies == () and found.penalty == penalty
    assert best * (1 - 1e-5) < loss_of(found.model, x, labels, penalty) < best * (1 + 1e-3)
    answers = x @ found.model.w + found.model.b, judge.decision_function(x)
    np.testing.assert_allclose(
        answers[0] - answers[0].mean(1, keepdims=True), answers[1], atol=0.05 * np.abs(answers[1]).max()
    )


def test_held_out_images_choose_what_each_penalty_alone_would_give(rng):
    x, labels = problem(rng, 500)
    held_out, penalties = (x[200:], labels[200:]), (1e3, 1e-2, 30.0)
    found = readout.fit_softmax(x[:200], labels[:200], 4, penalties, held_out)
    each = [readout.fit_softmax(x[:200], labels[:200], 4, penalty).model for penalty in penalties]
    shares = [readout.linear_accuracy(model, [held_out]) for model in each]
    assert [penalty for penalty, _ in found.accuracies] == [*penalties] and len({*shares}) > 1
    np.testing.assert_allclose([share for _, share in found.accuracies], shares, atol=0.01)
    assert found.penalty == penalties[int(np.argmax([share for _, share in found.accuracies]))]
    assert readout.linear_accuracy(found.model, [held_out]) == max(share for _, share in found.accuracies)


def test_it_goes_by_the_units_of_features(rng):
    x, labels = problem(rng)
    one = readout.fit_softmax(x, labels, 4, 1.0).model
    for scale in (1e-6, 1e6):
        other = readout.fit_softmax(np.float32(scale) * x, labels, 4, scale**2).model
        np.testing.assert_allclose(other.w * scale, one.w, atol=0.03 * np.abs(one.w).max())


@pytest.mark.parametrize('flips, crops', [(False, 0), (True, 0), (True, 1)])
def test_a_probe_is_a_fit_to_features_in_blocks_of_any_size(flips, crops, bars):
    states = layers.init(NET, jax.random.key(0), (6, 6, 1)).layers
    padded = np.pad(bars[0], ((0, 0), (crops, crops), (crops, crops), (0, 0)), mode='reflect')
    corners = [(1, 1), (0, 0), (0, 2), (2, 0), (2, 2)] if crops else [(0, 0)]
    views = [padded[:, i : i + 6, j : j + 6] for i, j in corners]
    views += [moved[:, :, ::-1] for moved in views] * flips
    features = [np.asarray(readout.probe_features(NET, states, view)) for view in views]
    one = readout.fit_softmax(np.concatenate(features), np.tile(bars[1], len(views)), 3, 0.01).model
    expected = readout.predict_linear(one, np.mean(features, axis=0))
    for block in (60, 25, 100):
        probe = readout.softmax_probe(0.01, block, flips=flips, crops=crops)(NET, states, None, bars, bars)
        np.testing.assert_array_equal(probe.predict(bars[0]), expected)
        assert probe.penalties == ()
    assert readout.probe_accuracy(probe, *bars) > (90 if crops else 95)  # bars that are moved are less alike


def test_features_of_two_networks_are_read_out(rng, bars):
    states, others = (layers.init(NET, jax.random.key(seed), (6, 6, 1)).layers for seed in (0, 1))
    noise = rng.uniform(size=(200, 6, 6, 1)).astype(np.float32)  # no easy ones

    def two(net, states, images, mesh=None):
        return jnp.concatenate([readout.probe_features(net, each, images, mesh=mesh) for each in (states, others)], 1)

    both, of_noise = (np.asarray(two(NET, states, x)) for x in (bars[0], noise))
    softmax_model = readout.fit_softmax(both, bars[1], 3, 0.01).model
    ridge_model = readout.fit_ridge([(both, bars[1])], 3, 0.01)
    for fit, model in (readout.softmax_probe, softmax_model), (readout.ridge_probe, ridge_model):
        probe = fit(0.01, 25, features=two)(NET, states, None, bars, bars)
        alone = fit(0.01, 25)(NET, states, None, bars, bars)
        same, other = (
            np.mean(np.asarray(one.predict(noise)) == readout.predict_linear(model, of_noise)) for one in (probe, alone)
        )
        assert same > 0.97 > other  # features of another block size differ in their last digit


def test_a_probe_chooses_by_validation_images(bars):
    states = layers.init(NET, jax.random.key(0), (6, 6, 1)).layers
    few, held_out = (bars[0][:12], bars[1][:12]), (bars[0][12:], bars[1][12:])
    probe = readout.softmax_probe((1e4, 1e-2), 8)(NET, states, None, few, held_out)
    percents = [
        readout.probe_accuracy(readout.softmax_probe(p)(NET, states, None, few, bars), *held_out) for p in (1e4, 1e-2)
    ]
    assert probe.penalties == tuple(zip((1e4, 1e-2), map(pytest.approx, percents))) and percents[0] < percents[1]
    assert readout.probe_accuracy(probe, *held_out) == percents[1]


def test_one_program_serves_all_penalties(rng):
    x, labels = problem(rng, 37, 11)
    before = softmax._solve._cache_size()
    readout.fit_softmax(x, labels, 4, (0.1, 1.0, 10.0), (x, labels))
    assert softmax._solve._cache_size() == before + 1


def test_large_features_that_depend_on_each_other_have_an_answer_or_are_refused(rng):
    x = (100 * rng.normal(size=(1000, 5)) @ rng.normal(size=(5, 1500))).astype(np.float32)
    labels = (x[:, 0] > 0).astype(int)
    found = readout.fit_softmax(x, labels, 2)
    assert np.isfinite(found.model.w).all() and readout.linear_accuracy(found.model, [(x, labels)]) > 0.99
    lost = lambda x, labels, unit, products, w, b, penalty: (w * jnp.nan, b)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, '_solve', lost)
        with pytest.raises(ValueError, match='penalty=10 is lost in rounding beside products of these features'):
            readout.fit_softmax(x[:50, :8], labels[:50], 2)


def test_so_many_images_as_a_refusal_names_are_taken(monkeypatch):
    monkeypatch.setattr(checks, 'device_memory', lambda: 8 << 30)
    with pytest.raises(ValueError, match='or pool the features') as refused:
        softmax.check_rows(60000, 40960)
    most = int(re.search(r'use (\d+) images at most', str(refused.value))[1])
    softmax.check_rows(most, 40960)
    with pytest.raises(ValueError, match=f'use {most} images at most'):
        softmax.check_rows(most + 1, 40960)
    with pytest.raises(ValueError, match='has 8; pool the features'):
        softmax.check_rows(10, 200_000)
    softmax.check_rows(150_000, 4096)
    with jax.enable_x64(True), pytest.raises(ValueError, match='on 4096 features of 150000 images'):  # twice as large
        softmax.check_rows(150_000, 4096)


def test_what_does_not_fit_is_refused(rng, bars, monkeypatch):
    x, labels = problem(rng)
    bad = x.copy()
    bad[5, 5] = np.nan
    calls = [
        (lambda: readout.fit_softmax(x, labels, 4, 0.0), r'penalty=0.0 is out of range; use a finite number > 0'),
        (lambda: readout.fit_softmax(x, labels, 4, ()), r'penalty=\(\) chooses among none'),
        (lambda: readout.fit_softmax(x, labels, 4, (1.0, 2.0)), 'of several penalties held-out images choose'),
        (lambda: readout.fit_softmax(x, labels, 3), 'labels run from 0 to 3 and there are 3 classes'),
        (lambda: readout.fit_softmax(x, labels[1:], 4), '299 labels do not fit 300 images'),
        (lambda: readout.fit_softmax(bad, labels, 4), 'features hold NaN or infinite values'),
        (lambda: readout.fit_softmax(x * np.float32(1e25), labels, 4), 'squares of these features are beyond float32'),
        (
            lambda: jax.jit(lambda x: readout.fit_softmax(x, labels, 4).model.w)(jnp.asarray(x)),
            'call them outside of jit',
        ),
        (lambda: readout.softmax_probe(features=NET), 'is no function of net, states, images; leave it out'),
        (lambda: readout.softmax_probe(mesh=jax.make_mesh((1,), ('x',))), "has not the one axis 'data'"),
    ]
    for call, says in calls:
        with pytest.raises(ValueError, match=says):
            call()
    monkeypatch.setattr(checks, 'device_memory', lambda: 2**30)
    layer, images = (
        layers.Layer(5000, rules.oja(), transforms.scale_by_rate(0.1)),
        np.zeros((50_000, 6, 6, 1), np.float32),
    )
    state = jax.eval_shape(lambda key: layers.init((layer,), key, (6, 6, 1)).layers, jax.random.key(0))
    with pytest.raises(
        ValueError, match='softmax regression on 5000 features of 50000 images takes 2 GiB and the machine'
    ):
        readout.softmax_probe().check((layer,), state, (images, np.zeros(50_000, int)), bars)
    states = layers.init(NET, jax.random.key(0), (6, 6, 1)).layers
    with pytest.raises(
        ValueError, match=r'features of one image have shape \(1, .*; they need \[1, F\]: lay maps side'
    ):
        readout.softmax_probe(features=layers.activations_of).check(NET, states, bars, bars)
    assert readout.softmax_probe(features=layers.features).check(NET, states, bars, bars)
