"""Labels, wherever they come in: what is clear is understood, all else is met with one sentence."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hebbjax
from hebbjax import (
    callbacks,
    decoding,
    evaluation,
    hybrid,
    models,
    patches,
    plasticity,
    rules,
    supervised,
    teachers,
    train,
)
from hebbjax.evaluation import Read
from hebbjax.readout import Head
from hebbjax.schedules import Milestones

CLASSES, COUNT = 3, 12
NET = (hebbjax.Layer(4, rules.oja(), plasticity.ascend(0.1), hebbjax.Window(2), patches.raw),)
SCHEDULE = Milestones(epochs=1, batch=6)


def forms(labels):
    """The same labels in every form that says them clearly."""
    hot = np.eye(CLASSES)[labels]
    return {
        **{f'{dtype}': labels.astype(dtype) for dtype in ('int8', 'uint8', 'int64', 'float32', 'float64')},
        **{f'column of {dtype}': labels[:, None].astype(dtype) for dtype in ('int32', 'uint8', 'float64')},
        **{f'one-hot {dtype}': hot.astype(dtype) for dtype in ('bool', 'int64', 'float32')},
        'list': labels.tolist(),
        'tuple': tuple(labels.tolist()),
        'rows': hot.tolist(),
        'jax': jnp.asarray(labels),
        'jax column': jnp.asarray(labels)[:, None],
        'jax rows': jnp.asarray(hot, jnp.float32),
    }


def wrong(labels):
    """What says no class of an image, and what is said about it."""
    first = np.arange(len(labels)) == 0
    return [
        (labels - 5, 'labels run from -5 to'),
        (np.where(first, -1, labels), 'labels run from -1 to'),
        (np.where(first, 0.5, labels), 'labels are whole numbers, and that of image 0 is 0.5'),
        (np.where(first, np.nan, labels), 'whole numbers, and that of image 0 is nan'),
        (labels.astype(str), 'labels are classes 0, 1, ..., not <U'),
        (labels.astype(object), 'labels are classes 0, 1, ..., not object'),
        (labels.astype(complex), 'not complex128'),
        (labels[1:], f'{len(labels) - 1} labels do not fit {len(labels)} images'),
        (np.tile(labels[:, None], 2) + 1, r'one-hot rows \[B, K\]; got shape'),
        (np.ones((len(labels), CLASSES)), r'one-hot rows \[B, K\]; got shape'),
        (np.zeros((len(labels), 1, 1), int), r'not an array of shape'),
        (2, r'not an array of shape \(\)'),
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
def entrances(data):
    """Every way of giving labels: name -> (function of labels that gives numbers, whether it knows the classes)."""
    images, labels = data
    state = train.init(NET, jax.random.key(0), images.shape[1:])
    flat, plain = np.asarray(images).reshape(COUNT, -1), (images, labels)
    key = lambda: jax.random.key(1)  # noqa: E731
    ridge = decoding.ridge([(flat, labels)], CLASSES)
    read = Read(lambda images: jnp.asarray(labels[::-1].copy())[: len(images)])
    stage = hybrid.Supervised(1, Head(CLASSES, norm=False, power=None), SCHEDULE)
    model = models.on_pixels(stage.head, images.shape[1:])

    def fit(train, validation):
        found = supervised.fit(model, key(), train, validation, SCHEDULE)
        return found.curve[0][:3]

    def learn(train, validation):
        return hybrid.learn(NET, state.layers, stage, key(), train, validation).fitted.curve[0][:3]

    def callback(train, validation):
        moment = SimpleNamespace(net=NET, state=state, metrics={}, due=lambda epochs: True)
        callbacks.evaluate(train, validation)(moment)
        return moment.metrics['train_accuracy'], moment.metrics['validation_accuracy']

    return {
        'decoding.ridge': (lambda y: decoding.ridge([(flat, y)], CLASSES).w, True),
        'decoding.accuracy': (lambda y: decoding.accuracy(ridge, [(flat, y)]), False),
        'evaluation.ridge': (
            lambda y: evaluation.ridge()(NET, state.layers, key(), (images, y), plain).predict(images),
            False,
        ),
        'evaluation.gradient': (
            lambda y: evaluation.gradient(stage.head, SCHEDULE)(NET, state.layers, key(), (images, y), plain).curve[0][
                :3
            ],
            True,
        ),
        'evaluation.accuracy': (lambda y: evaluation.accuracy(read, images, y), False),
        'evaluation.confusion': (lambda y: evaluation.confusion(read, images, y, CLASSES), True),
        'supervised.fit': (lambda y: fit((images, y), plain), True),
        'supervised.fit, validation': (lambda y: fit(plain, (images, y)), True),
        'hybrid.learn': (lambda y: learn((images, y), plain), True),
        'hybrid.learn, validation': (lambda y: learn(plain, (images, y)), True),
        'callbacks.evaluate': (lambda y: callback((images, y), plain), False),
        'callbacks.evaluate, validation': (lambda y: callback(plain, (images, y)), False),
    }


NAMES = [
    'decoding.ridge', 'decoding.accuracy', 'evaluation.ridge', 'evaluation.gradient', 'evaluation.accuracy',
    'evaluation.confusion', 'supervised.fit', 'supervised.fit, validation', 'hybrid.learn', 'hybrid.learn, validation',
    'callbacks.evaluate', 'callbacks.evaluate, validation',
]  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_labels_in_every_clear_form_give_the_same_numbers(name, entrances, data):
    enter, _ = entrances[name]
    wanted = np.asarray(enter(data[1]))
    for form, labels in forms(data[1]).items():
        np.testing.assert_array_equal(np.asarray(enter(labels)), wanted, err_msg=form)


@pytest.mark.parametrize('name', NAMES)
def test_what_is_no_label_is_met_with_a_sentence(name, entrances, data):
    enter, knows = entrances[name]
    for labels, says in [*wrong(data[1]), *([beyond(data[1])] if knows else [])]:
        with pytest.raises(ValueError, match=says) as error:
            enter(labels)
        said = str(error.value)
        assert said.endswith('.') and '\n' not in said and len(said) < 400


@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_accuracies_are_shares_whatever_the_form(count, classes, seed):
    """Ninety percent as a column once were 6008.67, or 10.01."""
    rng = np.random.default_rng(seed)
    labels, found = rng.integers(0, classes, (2, count))
    x = np.eye(classes)[found]
    model = decoding.Ridge(np.eye(classes), np.zeros(classes))
    wanted, counts = np.mean(labels == found), np.zeros((classes, classes), int)
    for one, other in zip(labels, found):
        counts[one, other] += 1
    read = Read(lambda images: jnp.asarray(found))
    hot = np.eye(classes, dtype=bool)[labels]
    for given_labels in (labels, labels[:, None], labels.astype(float), labels.tolist(), hot, hot.astype(np.float32)):
        assert decoding.accuracy(model, [(x, given_labels)]) == wanted
        assert evaluation.accuracy(read, x[:, None, :, None], given_labels) == pytest.approx(100 * wanted)
        np.testing.assert_array_equal(evaluation.confusion(read, x[:, None, :, None], given_labels, classes), counts)


def test_a_classifier_of_more_classes_than_are_counted_is_refused(data):
    read = Read(lambda images: jnp.full(len(images), 7))
    with pytest.raises(ValueError, match='a classifier that answers 7 knows more than 3 classes'):
        evaluation.confusion(read, *data, 3)
    for classes in (0, 2.5, None, True, '3'):
        with pytest.raises(ValueError, match='classes cannot be taken for each other'):
            evaluation.confusion(read, *data, classes)


def test_answers_that_are_not_finite_are_no_wrong_answers(data):
    images, labels = data
    model = models.on_pixels(Head(CLASSES, norm=False, power=None), images.shape[1:])
    params, averages = model.init(jax.random.key(0))
    predict = supervised.make_predict(model)
    read = Read(lambda images: predict(params._replace(b=params.b * jnp.nan), averages, images))
    for judge in (evaluation.accuracy, lambda *given: evaluation.confusion(*given, CLASSES)):
        with pytest.raises(ValueError, match='no finite answer to image 0'):
            judge(read, images, labels)
        with pytest.raises(ValueError, match=r'n >= 1, got shape \(0, '):
            judge(read, images[:0], labels[:0])


@pytest.mark.parametrize('wrong', [0, -1, 2.5, True, None, '3', np.nan])
def test_numbers_of_classes_and_neurons_are_counts(wrong):
    for build in (
        lambda: teachers.one_hot(wrong),
        lambda: teachers.groups(wrong, 2),
        lambda: teachers.feedback(wrong, 2),
        lambda: teachers.groups(3, wrong),
        lambda: teachers.groups(3, 2, -1 if wrong == 0 else wrong),
    ):
        with pytest.raises(ValueError, match='cannot be'):
            build()
