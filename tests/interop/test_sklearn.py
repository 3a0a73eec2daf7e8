"""Estimators do what scikit-learn asks of estimators, by its own checks, and learn what the library learns.

All checks of scikit-learn apply, and none is expected to fail; those for pandas and polars are skipped without them.
"""

import io
import pickle

import jax
import jax.numpy as jnp
import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

from hebbjax import Layer, Window, features, init, layers, rules, training, transforms
from hebbjax.interop.sklearn import HebbianClassifier, HebbianFeatures
from hebbjax.rules import teachers
from hebbjax.training import loop

OJA = rules.oja(), transforms.scale_by_rate(0.01)
DENSE = Layer(8, *OJA)
CONV = Layer(4, rules.instar(1), OJA[1], Window(3), post=(layers.relu, layers.max_pool(3)))
FEW, CLASSES = (part[:40] for part in load_digits(return_X_y=True))
FEW = (FEW / 16).astype(np.float32)


def learner(layers=CONV, **settings):
    """Features of digits, learned in the same four steps whatever else is asked."""
    return HebbianFeatures(layers, **{'epochs': 2, 'batch': 20, 'image_shape': (8, 8), 'random_state': 0} | settings)


@pytest.fixture(scope='module')
def fitted():
    return learner().fit(FEW)


ESTIMATORS = HebbianFeatures(DENSE, epochs=1), HebbianClassifier(DENSE, epochs=1)
CHECKS = [pair for estimator in ESTIMATORS for pair in estimator_checks_generator(estimator)]


@pytest.mark.parametrize('estimator, check', CHECKS, ids=[f'{type(e).__name__}-{c.func.__name__}' for e, c in CHECKS])
def test_what_scikit_learn_asks_of_an_estimator(estimator, check):
    check(estimator)


def test_features_are_those_of_the_library_however_images_are_laid_out(fitted):
    seed = np.random.RandomState(0).randint(2**31 - 1)
    key = jax.random.key(seed)
    images = jnp.asarray(FEW.reshape(-1, 8, 8, 1))
    result = training.fit(
        (CONV,), init((CONV,), key, (8, 8, 1)), images, stages=(training.Stage(2),), batch=20, watch=None
    )
    expected = features((CONV,), result.state.layers, images)
    np.testing.assert_allclose(fitted.transform(FEW), expected, rtol=1e-5, atol=1e-6)
    for laid, shape in ((FEW, (8, 8, 1)), (FEW.reshape(-1, 8, 8), None), (images, None), (images, (8, 8))):
        x = learner(image_shape=shape).fit_transform(laid)
        np.testing.assert_array_equal(x, fitted.transform(FEW))
        np.testing.assert_array_equal(fitted.transform(laid), x)
    assert x.dtype == np.float32 and x.shape == (40, 16)
    assert fitted.get_feature_names_out()[15] == 'hebbianfeatures15'


def test_bytes_are_scaled_and_other_numbers_are_not(fitted):
    """And nobody is warned of numbers beyond [0, 1], which are usual here."""
    pixels = np.round(FEW * 255).astype(np.uint8)
    np.testing.assert_allclose(fitted.transform(pixels), fitted.transform(pixels / np.float32(255)), rtol=1e-4)
    large = learner().fit(pixels.astype(int))
    np.testing.assert_allclose(large.transform(1000 * FEW.astype(float)), 1000 * large.transform(FEW), rtol=1e-4)
    assert large.transform(FEW).any()


def test_equal_settings_learn_equally_and_compile_once(fitted, compilations):
    expected = fitted.transform(FEW)
    del compilations[:]
    again = Layer(4, rules.instar(1), transforms.scale_by_rate(0.01), Window(3), post=CONV.post)
    for other in (clone(fitted), learner(again), learner(random_state=np.random.RandomState(0))):
        np.testing.assert_array_equal(other.fit(FEW).transform(FEW), expected)
    assert not compilations
    for other in (learner(random_state=1), learner(random_state=None)):
        assert (other.fit(FEW).transform(FEW) != expected).any()
    state = np.random.RandomState(0)
    first, second = (learner(random_state=state).fit_transform(FEW) for _ in range(2))
    assert (first != second).any()


def test_what_was_dumped_answers_and_learns_on_as_before(fitted):
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    for copy in (pickle.loads(pickle.dumps(fitted)), joblib.load(file)):
        np.testing.assert_array_equal(copy.transform(FEW), fitted.transform(FEW))
        further = copy.partial_fit(FEW).transform(FEW)
    assert (further != fitted.transform(FEW)).any()
    np.testing.assert_array_equal(learner(epochs=3).fit(FEW).transform(FEW), further)


def test_partial_fit_goes_on_from_where_it_stands_or_from_the_beginning(fitted):
    part = learner()
    for _ in range(2):
        assert part.partial_fit(FEW) is part
    np.testing.assert_array_equal(part.transform(FEW), fitted.transform(FEW))
    assert int(part.partial_fit(FEW[:7]).state_.step) == 5  # fewer than a batch are one
    np.testing.assert_array_equal(part.fit(FEW).transform(FEW), fitted.transform(FEW))


def test_upto_is_how_many_layers_are_passed():
    net = CONV, DENSE
    model = learner(net).fit(FEW)
    assert model.transform(FEW).shape == (40, 8)
    assert model.set_params(upto=1).transform(FEW).shape == (40, 16) and len(model.get_feature_names_out()) == 16


def test_a_layer_with_a_teacher_learns_from_y():
    taught = Layer(10, rules.instar(1), transforms.scale_by_rate(0.5), teacher=teachers.one_hot(10), bias=None)
    model = learner(taught, random_state=0)
    assert model.__sklearn_tags__().target_tags.required and not learner().__sklearn_tags__().target_tags.required
    names = np.array([*'abcdefghij'])
    by_name = model.fit(FEW, names[CLASSES]).transform(FEW)
    assert list(model.classes_) == [*names]
    np.testing.assert_array_equal(
        clone(model).partial_fit(FEW, CLASSES).partial_fit(FEW, CLASSES).transform(FEW), by_name
    )
    assert (clone(model).fit(FEW, CLASSES[::-1]).transform(FEW) != by_name).any()
    part = clone(model).partial_fit(FEW, names[CLASSES], classes=names)
    for call, says in (
        (lambda: clone(model).fit(FEW), 'requires y to be passed'),
        (lambda: part.partial_fit(FEW), 'requires y to be passed'),
        (
            lambda: part.partial_fit(FEW[:2], ['a', 'x']),
            r"class \['x'\] of y is new; name all classes=\.\.\. in the first",
        ),
        (lambda: learner(Layer(3, *OJA, teacher=teachers.one_hot(3))).fit(FEW, CLASSES), 'there are 3 classes'),
    ):
        with pytest.raises(ValueError, match=says):
            call()
    begun = learner(random_state=0).partial_fit(FEW)  # goes on as it began, whatever is set for the next `fit`
    assert begun.set_params(layers=taught).partial_fit(FEW, CLASSES) is begun
    assert HebbianClassifier(**model.get_params()).fit(FEW, names[CLASSES]).score(FEW, names[CLASSES]) > 0.8


def test_a_pipeline_is_searched_in_two_processes():
    """With loky, which starts processes anew; jax does not survive a fork."""
    model = make_pipeline(learner(), LogisticRegression(C=10.0, max_iter=500))
    grid = {'hebbianfeatures__random_state': [0, 1]}  # which share their compiled programs
    search = GridSearchCV(model, grid, cv=2, n_jobs=2, error_score='raise').fit(FEW, CLASSES)
    assert search.best_score_ > 0.5
    best = learner(random_state=search.best_params_['hebbianfeatures__random_state'])
    np.testing.assert_array_equal(search.best_estimator_[0].transform(FEW), best.fit(FEW).transform(FEW))


def test_a_network_by_name_is_built_for_the_images():
    model = HebbianFeatures(settings={'features': 8}, epochs=3, image_shape=(8, 8), random_state=0).fit(FEW)
    (layer,) = model.recipe_.net
    assert (layer.features, layer.window.size, model.recipe_.epochs, model.recipe_.batch) == (8, 6, 3, 20)
    assert int(model.state_.step) == 6 and model.transform(FEW).shape == (40, 8)


def test_a_classifier_reads_features_out_by_ridge_regression():
    settings = learner().get_params()
    model = HebbianClassifier(**settings, penalty=0.1).fit(FEW, CLASSES.astype(str))
    np.testing.assert_array_equal(model.features_.transform(FEW), learner().fit(FEW).transform(FEW))
    assert model.score(FEW, CLASSES.astype(str)) > 0.8 and model.decision_function(FEW).shape == (40, 10)
    two = HebbianClassifier(**settings).fit(FEW.reshape(-1, 8, 8, 1), CLASSES > 4)
    np.testing.assert_array_equal(two.predict(FEW), two.decision_function(FEW) > 0)


@pytest.mark.parametrize('kind', ['pandas', 'polars'])
def test_features_come_as_a_frame_where_one_is_asked_for(fitted, kind):
    pytest.importorskip(kind)
    frame = clone(fitted).set_output(transform=kind).fit(FEW).transform(FEW)
    assert list(frame.columns) == [*fitted.get_feature_names_out()]
    np.testing.assert_array_equal(frame.to_numpy(), fitted.transform(FEW))


SQUARE = FEW.reshape(-1, 8, 8)


@pytest.mark.parametrize(
    'call, says',
    [
        (
            lambda: learner(image_shape=(8, 9)).fit(FEW),
            r'rows of 64 numbers do not fit image_shape=\(8, 9, 1\), .* 72;',
        ),
        (
            lambda: learner(image_shape=(4, 16)).fit(SQUARE),
            r'images of shape \(8, 8, 1\) do not fit image_shape=\(4, 16',
        ),
        (lambda: learner(image_shape=64).fit(FEW), r'an image shape is three numbers \(H, W, C\), not 64'),
        (lambda: learner(image_shape=None).fit(FEW), 'layer 1 looks through windows; give image_shape='),
        (lambda: learner('krotow').fit(FEW), "layers='krotow' is unknown; there are krotov, miconi."),
        (lambda: learner(3).fit(FEW), 'a network is a tuple of layers, at least one, not 3'),
        (lambda: learner('krotov', settings={'width': 3}).fit(FEW), 'krotov has no setting width'),
        (lambda: learner('krotov', settings=3).fit(FEW), 'settings=3 are none; give a dict'),
        (lambda: learner(settings={'features': 3}).fit(FEW), 'layers have their own; leave settings out'),
        (lambda: learner(upto=2).fit(FEW), 'upto=2 is out of range; use a whole number from 1 to 1'),
        (lambda: learner(epochs=0).fit(FEW), 'epochs=0 is out of range'),
        (lambda: learner(batch=41).fit(FEW), 'batch=41 is out of range; use a whole number from 1 to 40'),
        (lambda: learner(random_state='a').fit(FEW), "'a' cannot be used to seed"),
        (lambda: learner().fit(np.full((2, 64), 1e300)), 'images hold 128 non-finite values'),
        (lambda: learner().fit(np.ones((2, 1, 8, 8, 1))), 'Found array with dim 5'),
        (lambda: learner(image_shape=None).fit(np.ones((2, 3, 8, 8))), 'is channels first; use images.transpose'),
        (lambda: HebbianClassifier(penalty=-1).fit(FEW, CLASSES), 'penalty=-1 is out of range'),
    ],
)
def test_what_does_not_fit_is_one_sentence(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_who_was_interrupted_or_refused_has_learned_nothing(monkeypatch):
    model = learner().fit(FEW)
    with pytest.raises(ValueError, match='infinity'):
        model.fit(np.full((2, 64), np.inf))
    with pytest.raises(NotFittedError):
        model.transform(FEW)
    halfway = training.FitResult(None, (), interrupted=True, seconds=0.0, compile_seconds=0.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, 'fit', lambda *args, **how: halfway)
        model.fit(FEW)
    with pytest.raises(NotFittedError):
        model.transform(FEW)


def test_a_classifier_that_is_interrupted_in_a_refit_answers_as_before(monkeypatch):
    model = HebbianClassifier(image_shape=(8, 8), epochs=1, random_state=0).fit(FEW, CLASSES)
    before = model.predict(FEW)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr('hebbjax.interop.sklearn.fit_ridge', lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        model.fit(FEW, np.arange(len(FEW)) % 2)
    np.testing.assert_array_equal(model.predict(FEW), before)


def test_other_images_than_were_learned_from_are_refused(fitted):
    for call, says in (
        (lambda: learner().transform(FEW), None),
        (lambda: fitted.transform(FEW[:, :60]), 'X has 60 features, but HebbianFeatures is expecting 64'),
        (
            lambda: fitted.transform(FEW.reshape(-1, 4, 16)),
            'images of 4 x 16 x 1 do not fit features of images of 8 x 8',
        ),
        (lambda: fitted.transform(np.full((1, 64), np.nan)), 'contains NaN'),
        (lambda: fitted.transform(np.full((1, 64), 1e300)), 'images hold 64 non-finite values'),
    ):
        with pytest.raises(ValueError if says else NotFittedError, match=says):
            call()
