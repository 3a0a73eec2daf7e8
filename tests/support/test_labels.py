"""Labels, wherever they come in: what is clear is understood, all else is met with one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hebbjax import layers, readout, rules, transforms
from hebbjax.layers import Layer, Window, patches
from hebbjax.readout import GradientStage, Milestones, Probe

CLASSES, COUNT = 3, 12
NET = (Layer(4, rules.oja(), transforms.scale_by_rate(0.1), Window(2), patch_transform=patches.raw),)
HEAD = readout.linear_head(CLASSES, norm=False, power=None)
SCHEDULE = Milestones(epochs=1, batch=6)


def forms_of(labels):
    """The same labels as users have them; `checks` is tested on more."""
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
    return [labels[:, None].astype(float), labels.tolist(), one_hot, jnp.asarray(labels), jnp.asarray(one_hot)]


def wrong_forms_of(labels):
    """What says no class of an image, and what is said about it."""
    first = np.arange(len(labels)) == 0
    return [
        (np.where(first, -1, labels), 'labels run from -1 to'),
        (np.where(first, 0.5, labels), 'labels are whole numbers, and that of image 0 is'),
        (labels.astype(str), 'labels are classes 0, 1, ..., not <U'),
        (labels[1:], f'{len(labels) - 1} labels do not fit {len(labels)} images'),
        (np.ones((len(labels), CLASSES)), r'or one-hot .*of shape \('),
        (2, r'of shape \(\)'),
        (None, 'labels are classes 0, 1, ..., not object'),
    ]


def beyond(labels):
    """A class more than there are: what counting from 1 gives."""
    return labels - labels.max() + CLASSES, f'there are {CLASSES} classes; use 0 to {CLASSES - 1}'


@pytest.fixture(scope='module')
def data():
    """Images of three classes that differ, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT) % CLASSES
    images = rng.random((COUNT, 3, 3, 1), np.float32) + 0.5 * labels[:, None, None, None].astype(np.float32)
    return jnp.asarray(images), labels


@pytest.fixture(scope='module')
def doors(data):
    """Every way of giving labels: name -> (function of labels that gives numbers, whether it knows the classes)."""
    images, labels = data
    state = layers.init(NET, jax.random.key(0), images.shape[1:])
    flat, pair = np.asarray(images).reshape(COUNT, -1), (images, labels)
    key = lambda: jax.random.key(1)  # noqa: E731
    ridge = readout.fit_ridge([(flat, labels)], CLASSES)
    probe = Probe(lambda images: jnp.asarray(labels[::-1].copy())[: len(images)])
    head_state = layers.init_layer(HEAD, jax.random.key(2), (2, 2, 4))

    def hybrid(train, validation):
        states = (*state.layers, head_state)
        result = readout.fit_hybrid((*NET, HEAD), states, GradientStage(1, SCHEDULE), key(), train, validation)
        return result.gradient.curve[0][:3]

    ridge_probe, gradient_probe = readout.ridge_probe(), readout.gradient_probe(HEAD, SCHEDULE)
    softmax_probe = readout.softmax_probe()
    return {
        'fit_ridge': (lambda y: readout.fit_ridge([(flat, y)], CLASSES).w, True),
        'linear_accuracy': (lambda y: readout.linear_accuracy(ridge, [(flat, y)]), False),
        'ridge_probe': (lambda y: ridge_probe(NET, state.layers, key(), (images, y), pair).predict(images), False),
        'fit_softmax': (lambda y: readout.fit_softmax(flat, y, CLASSES).model.w, True),
        'softmax_probe': (lambda y: softmax_probe(NET, state.layers, key(), (images, y), pair).predict(images), False),
        'gradient_probe': (lambda y: gradient_probe(NET, state.layers, key(), (images, y), pair).curve[0][:3], True),
        'probe_accuracy': (lambda y: readout.probe_accuracy(probe, images, y), False),
        'probe_confusion': (lambda y: readout.probe_confusion(probe, images, y, CLASSES), True),
        'fit_hybrid': (lambda y: hybrid((images, y), pair), True),
        'fit_hybrid, validation': (lambda y: hybrid(pair, (images, y)), True),
    }


NAMES = ['fit_ridge', 'linear_accuracy', 'ridge_probe', 'fit_softmax', 'softmax_probe', 'gradient_probe',
         'probe_accuracy', 'probe_confusion', 'fit_hybrid', 'fit_hybrid, validation']  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_labels_in_every_clear_form_give_the_same_numbers_and_others_a_sentence(name, doors, data):
    enter, knows_classes = doors[name]
    expected = np.asarray(enter(data[1]))
    for form in forms_of(data[1]):
        np.testing.assert_array_equal(np.asarray(enter(form)), expected)
    for labels, says in [*wrong_forms_of(data[1]), *([beyond(data[1])] if knows_classes else [])]:
        with pytest.raises(ValueError, match=says) as error:
            enter(labels)
        said = str(error.value)
        assert said.endswith('.') and '\n' not in said and len(said) < 400


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_accuracies_are_shares_whatever_the_form(classes, seed):
    """Ninety percent as a column once were 6008.67, or 10.01."""
    labels, predicted = np.random.default_rng(seed).integers(0, classes, (2, 20))
    x = np.eye(classes)[predicted]
    model = readout.LinearClassifier(np.eye(classes), np.zeros(classes))
    share, counts = np.mean(labels == predicted), np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    probe = Probe(lambda images: jnp.asarray(predicted))
    for form in (labels, labels[:, None], labels.astype(float), labels.tolist(), np.eye(classes, dtype=bool)[labels]):
        assert readout.linear_accuracy(model, [(x, form)]) == share
        assert readout.probe_accuracy(probe, x[:, None, :, None], form) == pytest.approx(100 * share)
        np.testing.assert_array_equal(readout.probe_confusion(probe, x[:, None, :, None], form, classes), counts)


def test_a_classifier_of_more_classes_than_are_counted_is_refused(data):
    probe = Probe(lambda images: jnp.full(len(images), 7))
    with pytest.raises(ValueError, match='a classifier that answers 7 knows more than 3 classes'):
        readout.probe_confusion(probe, *data, 3)


def test_answers_that_are_not_finite_are_no_wrong_answers(data):
    images, labels = data
    probe = Probe(lambda images: jnp.full(len(images), -1))
    for judge in (readout.probe_accuracy, lambda *given: readout.probe_confusion(*given, CLASSES)):
        with pytest.raises(ValueError, match='no finite answer to image 0'):
            judge(probe, images, labels)
        with pytest.raises(ValueError, match=r'n >= 1, not of shape \(0, '):
            judge(probe, images[:0], labels[:0])
