"""Probes: a fresh classifier on the weights as they are, and what it says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import data, layers, rules, transforms
from hebbjax.readout import (
    Milestones,
    Probe,
    dual,
    fit_ridge,
    gradient_probe,
    linear_head,
    linear_probe,
    probe_accuracy,
    probe_confusion,
    probe_features,
    ridge_probe,
)
from hebbjax.support import checks, moments

NET = (layers.Layer(6, rules.oja(), transforms.scale_by_rate(0.1), layers.Window(3), post=()),)
SCHEDULE = Milestones(epochs=3, batch=30, rate=0.05)


@pytest.fixture(scope='module')
def states():
    return layers.init(NET, jax.random.key(0), (6, 6, 1)).layers


def answering(classes):
    """A classifier that answers this, whatever the images."""
    return Probe(lambda images: jnp.asarray(classes))


def test_features_are_means_over_quadrants_of_a_map(states, bars):
    maps = layers.activations_of(NET, states, bars[0][:5])
    found = probe_features(NET, states, bars[0][:5])
    np.testing.assert_allclose(found[:, :6], maps[:, :2, :2].mean((1, 2)), rtol=1e-5)
    assert found.shape == (5, 24)
    assert probe_features((), (), bars[0][:5]).shape == (5, 4)  # pixels


def test_ridge_reads_bars_in_blocks_of_any_size(states, bars):
    probes = [ridge_probe(1e-3, block)(NET, states, jax.random.key(0), bars, bars) for block in (60, 25)]
    assert probe_accuracy(probes[0], *bars) > 95
    np.testing.assert_array_equal(*(probe.predict(bars[0]) for probe in probes))
    assert probes[0].layers == states and probes[0].curve == () and probes[0].seconds > 0


@pytest.mark.parametrize('net', [NET, ()], ids=['network', 'pixels'])
def test_a_head_reads_features_or_pixels_and_choices_see_validation_images(net, states, bars):
    head = linear_head(3) if net else linear_head(3, norm=False, power=None)
    few, below = (bars[0][:30], bars[1][:30]), states[: len(net)]
    probe = gradient_probe(head, SCHEDULE)(net, below, jax.random.key(0), bars, few)
    accuracy = probe_accuracy(probe, *few)
    assert accuracy == pytest.approx(100 * max(line.validation for line in probe.curve), abs=1e-4)
    assert len(probe.layers) == len(net) + 1 and all(a is b for a, b in zip(probe.layers, below))


def test_a_misspelt_setting_of_a_probe_is_refused_at_once():
    with pytest.raises(
        ValueError, match="setting of gradient_probe='agument' is unknown; there are augment, room, watch"
    ):
        gradient_probe(linear_head(3), SCHEDULE, agument=None)
    with pytest.raises(ValueError, match='augment=3 is no function of a key and images; give one, or leave it'):
        gradient_probe(linear_head(3), SCHEDULE, augment=3)


def test_a_probe_refuses_what_does_not_fit_before_features_are_learned(states, bars):
    shapes = jax.eval_shape(lambda: states)
    for probe, train, says in (
        (gradient_probe(linear_head(3, pool=5), SCHEDULE), bars, r'max_pool\(5\) does not fit maps of 4 x 4'),
        (gradient_probe(linear_head(2), SCHEDULE), bars, 'labels run from 0 to 2 and there are 2 classes'),
        (gradient_probe(linear_head(3), SCHEDULE._replace(batch=61)), bars, 'batch=61 is out of range'),
        (
            gradient_probe(linear_head(3), SCHEDULE, start=2),
            bars,
            'start=2 is out of range; use a whole number from 0 to 1',
        ),
        (ridge_probe(), (bars[0], bars[1][1:]), '59 labels do not fit 60 images'),
    ):
        with pytest.raises(ValueError, match=says):
            probe.check(NET, shapes, train, bars)
    with pytest.raises(ValueError, match='a network is a tuple of layers'):
        ridge_probe().check(NET[0], shapes, bars, bars)


def test_what_the_memory_cannot_hold_is_refused_before_features_are_learned(monkeypatch, bars):
    """Products of features, or of images where these are fewer: mirror images count, and those that choose."""
    monkeypatch.setattr(checks, 'host_memory', lambda: 16 * 5000**2)
    layer = layers.Layer(5001, rules.oja(), transforms.scale_by_rate(0.1))
    state = jax.eval_shape(lambda key: layers.init((layer,), key, (6, 6, 1)).layers, jax.random.key(0))
    images, labels = (np.zeros((9400, *bars[0].shape[1:]), np.float32), np.zeros(9400, int))

    def refuse(count, says, *how, **more):
        with pytest.raises(ValueError, match=says):
            ridge_probe(*how, **more).check((layer,), state, (images[:count], labels[:count]), bars)

    features = 'ridge regression on 5001 features takes 0 GiB and the machine has 0; pool the features'
    refuse(5001, features)
    refuse(2501, features, flips=True)
    refuse(1001, features, crops=1)
    refuse(60, 'crops=6 leaves nothing of images with a side of 6 pixels; use 5 at most, 0 for none', crops=6)
    refuse(4941, features, (1.0, 2.0))
    refuse(60, 'penalty=0.0 is out of range; use a finite number > 0', (0.0, 1.0))
    fewer = {'flips': True, 'penalty': (1.0, 2.0)}
    assert ridge_probe(**fewer).check((layer,), state, (images[:2470], labels[:2470]), bars) == (5001, 4940, 60)
    monkeypatch.setattr(checks, 'host_memory', lambda: 8 * 4000**2)
    says = r'the Gram matrix of 4001 images takes 0 GiB and the machine has 0; use 4000 of them at most, or pool'
    refuse(4001, says)


@pytest.mark.parametrize('flips', [False, True])
def test_validation_images_choose_among_several_penalties_in_either_form(flips, bars, monkeypatch):
    """Features that are more than images are fitted to in the dual, some columns at a time."""
    net = (layers.Layer(40, rules.oja(), transforms.scale_by_rate(0.1), layers.Window(3), post=()),)
    states = layers.init(net, jax.random.key(0), (6, 6, 1)).layers
    few, held_out, penalties = (bars[0][:12], bars[1][:12]), (bars[0][12:], bars[1][12:]), (1e4, 1e-2, 1.0)

    def fit(penalty):
        return ridge_probe(penalty, 8, flips=flips)(net, states, None, few, held_out)

    primal = fit(penalties)
    each = [fit(penalty) for penalty in penalties]
    percents = [probe_accuracy(probe, *held_out) for probe in each]
    best = each[int(np.argmax(percents))]
    monkeypatch.setattr(moments, 'WIDE', 100)
    monkeypatch.setattr(linear_probe, 'host_memory', lambda: 8 * 4 * 3500)
    blocks, centred = [], dual._centred
    monkeypatch.setattr(dual, '_centred', lambda *how: (blocks.append(x.shape) or (x, m) for x, m in centred(*how)))
    found = fit(penalties)
    assert sum(columns for _, columns in blocks) == 2 * 160 and len(blocks) > 2
    for probe in (primal, found):
        assert probe.penalties == tuple(zip(penalties, map(pytest.approx, percents)))
        np.testing.assert_array_equal(probe.predict(bars[0]), best.predict(bars[0]))
    assert best.penalties == () and len({*percents}) > 1


def test_a_head_learns_from_flipped_and_shifted_images(states, bars):
    """Features of every batch are computed anew; so it reads mirror images, which it was never shown as they are."""

    def augment(key, images):
        flip_key, shift_key = jax.random.split(key)
        return data.random_flip(flip_key, data.random_shift(1)(shift_key, images))

    head, schedule = linear_head(3, power=None), SCHEDULE._replace(epochs=60, l2=1e-3, milestones=(), stop_after=60)
    mirrored = bars[0][:, :, ::-1], bars[1]
    fits = [gradient_probe(head, schedule, augment=one) for one in (None, augment)]
    probes = [fit(NET, states, jax.random.key(0), bars, mirrored) for fit in fits]
    plain, augmented = (probe_accuracy(probe, *mirrored) for probe in probes)
    assert plain < 70 and augmented > 75


def test_mirror_images_are_fitted_to_and_read_out(states, bars):
    """As if they were further images; what is read out does not depend on which of both came."""
    mirrored = np.asarray(bars[0])[:, :, ::-1]
    both = np.concatenate([bars[0], mirrored]), np.concatenate([bars[1], bars[1]])
    probe = ridge_probe(flips=True)(NET, states, None, bars, bars)
    np.testing.assert_array_equal(probe.predict(bars[0]), probe.predict(mirrored))
    model = fit_ridge([(probe_features(NET, states, both[0]), both[1])], 3)
    halves = [probe_features(NET, states, images) @ model.w + model.b[None] for images in (bars[0], mirrored)]
    np.testing.assert_array_equal(probe.predict(bars[0]), np.argmax(halves[0] + halves[1], 1))


def test_accuracy_and_confusion_count_what_was_taken_for_what(bars):
    images, labels = bars[0][:5], np.array([0, 1, 2, 2, 1])
    probe = answering([0, 1, 2, 1, 1])
    assert probe_accuracy(probe, images, labels) == 80
    np.testing.assert_array_equal(probe_confusion(probe, images, labels, 3), [[1, 0, 0], [0, 2, 0], [0, 1, 1]])
    for call, says in (
        (lambda: probe_confusion(answering([0, 1, 2, 3, 1]), images, labels, 3), 'answers 3 knows more than 3 classes'),
        (lambda: probe_confusion(probe, images, labels, 2.5), 'classes=2.5 is out of range'),
        (lambda: probe_accuracy(answering([0, -1, 0, 0, 0]), images, labels), 'no finite answer to image 1; check'),
        (lambda: probe_accuracy(probe, images, labels[1:]), '4 labels do not fit 5 images'),
    ):
        with pytest.raises(ValueError, match=says):
            call()
