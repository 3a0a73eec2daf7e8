"""Probes: a fresh classifier on the weights as they are, and what it says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import layers, rules, transforms
from hebbjax.readout import (
    Milestones,
    Probe,
    gradient_probe,
    linear_head,
    probe_accuracy,
    probe_confusion,
    probe_features,
    ridge_probe,
)

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
    wide = layers.Layer(4001, rules.oja(), transforms.scale_by_rate(0.1))
    state = jax.eval_shape(lambda key: layers.init((wide,), key, (6, 6, 1)).layers, jax.random.key(0))
    with pytest.raises(ValueError, match=r'ridge regression on 4001 features fills 0\.1 GB and takes minutes; pool'):
        ridge_probe().check((wide,), state, bars, bars)


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
