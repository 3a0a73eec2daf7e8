"""Reading out of images that come in parts: one part is an array, several are the same images."""

import jax
import numpy as np
import pytest

import hebbjax
from hebbjax import data, layers, readout, rules, transforms
from hebbjax.readout.probe import probe_accuracy
from hebbjax.readout.schedules import Schedule

NET = (hebbjax.Layer(6, rules.instar(1), transforms.scale_by_rate(0.1), hebbjax.Window(3)),)
SHAPE = (6, 6, 1)
LABELS = np.arange(48) % 4
IMAGES = (
    np.random.default_rng(0).integers(0, 60, (48, *SHAPE)) + 160 * np.eye(36)[LABELS * 7].reshape(-1, *SHAPE)
).astype(np.uint8)
SCHEDULE = Schedule(rate=0.01, batch=8, epochs=3)
HEAD = readout.linear_head(4, norm=False, power=None)


@pytest.fixture(scope='module')
def states():
    return layers.init(NET, jax.random.key(0), SHAPE).layers


def fit(probe, states, train, key=0):
    return probe(NET, states, jax.random.key(key), train, (IMAGES, LABELS))


def parts(count):
    return data.open_shards((IMAGES, LABELS), 48 // count)


def test_ridge_sums_up_parts(states):
    whole, one, four = (fit(readout.ridge_probe(), states, of) for of in ((IMAGES, LABELS), parts(1), parts(4)))
    answers = [np.asarray(probe.predict(IMAGES)) for probe in (whole, one, four)]
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])
    late = [(IMAGES[:24], np.zeros(24, int)), (IMAGES[24:], LABELS[24:])]  # classes that the first part has not
    assert probe_accuracy(fit(readout.ridge_probe(), states, data.open_shards(late)), IMAGES, LABELS) > 25


def test_softmax_regression_reads_parts(states):
    probe = readout.softmax_probe(0.1, 10)
    whole, four = (fit(probe, states, of) for of in ((IMAGES, LABELS), parts(4)))
    np.testing.assert_array_equal(whole.predict(IMAGES), four.predict(IMAGES))
    assert probe_accuracy(four, IMAGES, LABELS) > 90


def test_a_head_descends_over_parts_and_one_part_is_an_array(states, relaxed):
    probe = readout.gradient_probe(HEAD, SCHEDULE)
    whole, one, four = (fit(probe, states, of) for of in ((IMAGES, LABELS), parts(1), parts(4)))
    for a, b in zip(jax.tree.leaves(whole.layers), jax.tree.leaves(one.layers), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(four.curve) == 3 and four.curve[-1].loss < four.curve[0].loss
    np.testing.assert_array_equal(four.layers[0].w, states[0].w)
    again = fit(probe, states, parts(4))
    np.testing.assert_array_equal(again.layers[1].w, four.layers[1].w)
    assert np.abs(fit(probe, states, parts(4), key=1).layers[1].w - four.layers[1].w).max() > 0


def test_a_training_by_gradient_is_resumed_on_parts_bit_for_bit(states, relaxed):
    net, snapshots = (*NET, HEAD), []
    all_states = (*states, layers.layer.init_layer(HEAD, jax.random.key(1), (4, 4, 6)))
    stage = readout.GradientStage(1, SCHEDULE)
    how = {'keep': lambda snapshot: snapshots.append(jax.tree.map(np.array, snapshot))}
    run = lambda **how: readout.fit_hybrid(  # noqa: E731
        net, all_states, stage, jax.random.key(2), parts(4), (IMAGES, LABELS), **how
    )
    whole = run(**how)
    resumed = run(kept=lambda like: jax.tree.map(jax.numpy.array, snapshots[0]))
    np.testing.assert_array_equal(whole.layers[1].w, resumed.layers[1].w)
    assert [line.loss for line in whole.gradient.curve] == [line.loss for line in resumed.gradient.curve]


def test_whitening_adds_up_moments_of_parts():
    floats = IMAGES / np.float32(255)
    whole = data.fit_whitening(floats)
    by_part = data.fit_whitening(data.open_shards(floats, 12))
    made = data.fit_whitening(part.images / np.float32(255) for part in parts(4))
    for zca in (by_part, made):
        np.testing.assert_allclose(zca.matrix, whole.matrix, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(zca.mean, whole.mean, rtol=1e-6)
    with pytest.raises(ValueError, match='whitening takes intensities as floats, not uint8'):
        data.fit_whitening(parts(4))


def test_a_callback_evaluates_on_parts(states):
    from hebbjax import training

    seen = []
    state = layers.init(NET, jax.random.key(0), SHAPE)
    stages = training.plan_stages('simultaneous', NET, 1)
    evaluate = training.evaluate(parts(4), (IMAGES, LABELS))
    training.fit(NET, state, parts(4), stages=stages, batch=12, callbacks=[evaluate, lambda c: seen.append(c.metrics)])
    assert 25 < seen[0]['validation_accuracy'] <= 100 and 'train_accuracy' in seen[0]


def test_labels_that_do_not_fit_are_refused(states, relaxed):
    unlabelled = data.open_shards(IMAGES, 12)
    with pytest.raises(ValueError, match='labels'):
        fit(readout.ridge_probe(), states, unlabelled)
    five = data.open_shards((IMAGES, np.where(np.arange(48) == 47, 4, LABELS)), 12)
    with pytest.raises(ValueError, match='labels run from 0 to 4'):
        fit(readout.gradient_probe(HEAD, SCHEDULE), states, five)
