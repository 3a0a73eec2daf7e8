"""Features as scikit-learn estimators: for pipelines, grid searches and whatever else calls `fit` and `transform`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from hebbjax.base import Array
from hebbjax.layers.layer import Layer
from hebbjax.layers.network import TrainState, check_network, features
from hebbjax.readout.blocks import over_blocks
from hebbjax.readout.ridge import fit_ridge
from hebbjax.support import checks
from hebbjax.support.checks import require
from hebbjax.training import loop, presets
from hebbjax.training.comparison import initial_state
from hebbjax.training.stages import Stage


@dataclasses.dataclass(eq=False, repr=False)
class _Settings(BaseEstimator):
    """What features and classifiers are set by."""

    layers: Any = 'krotov'
    _: dataclasses.KW_ONLY
    settings: Mapping[str, Any] | None = None
    epochs: int | None = None
    batch: int | None = None
    image_shape: tuple[int, ...] | None = None
    upto: int | None = None
    random_state: Any = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class HebbianFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Settings):
    """Learn layers from images, without labels unless a layer has a teacher; transform gives what they send, float32.

    X is images [n, H, W, C], grey ones [n, H, W], or rows [n, F]: flattened images of `image_shape`, or vectors for a
    dense layer. Pixels of uint8, uint16 and bool are scaled to [0, 1], as everywhere; other numbers stay as they are.

    Args:
        layers: a name of `presets.RECIPES`, or a tuple of layers, or one.
        settings: of the recipe, such as {'features': 100}; see `presets.recipe`. None: chosen by the images.
        epochs: how often `fit` goes through the images; None: as presets choose it by their size and number.
        batch: images per step; None: chosen likewise.
        image_shape: (H, W, C), or (H, W), of flattened images; None: rows are vectors.
        upto: how many layers to pass through in `transform`; None: all.
        random_state: draws first weights and the order of images, as anywhere in scikit-learn.

    Example:
        >>> images = np.random.default_rng(0).random((20, 6, 6))
        >>> HebbianFeatures(settings={'features': 4}, epochs=2, random_state=0).fit_transform(images).shape
        (20, 4)
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from images anew; y [n], one class for each, only where a layer has a teacher."""
        vars(self).pop('state_', None)  # who is interrupted, or refused, has learned nothing
        images, y = self._take(X, y, learning=True, reset=True)
        return self._learn(self._begin(images, y, None), images, y, self.recipe_.epochs)

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> Self:
        """Learn for one epoch, going on from where the layers stand; the first call chooses what `fit` would choose.

        The rate of 'krotov' falls in as many calls as it has epochs, or in `fit`, and stays there. `classes`, where y
        is needed, names all that there will be, in the first call; None: those in its y.
        """
        is_first = not hasattr(self, 'state_')
        images, y = self._take(X, y, learning=True, reset=is_first)
        return self._learn(self._begin(images, y, classes) if is_first else self.state_, images, y, 1)

    def transform(self, X: Any) -> np.ndarray:
        """Compute what the layers send on. [n, ...] -> [n, F]."""
        check_is_fitted(self, 'state_')
        images, _ = self._take(X)
        return over_blocks(self._answer, images)

    @property
    def _n_features_out(self) -> int:  # asked for by scikit-learn, for names
        return jax.eval_shape(self._answer, jax.ShapeDtypeStruct((1, *self.image_shape_), jnp.float32)).shape[1]

    def _answer(self, images):
        return features(self.recipe_.net, self.state_.layers, _to_jax(images), self.upto)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self._is_taught()
        tags.transformer_tags.preserves_dtype = ['float32']
        return tags

    def _is_taught(self) -> bool:
        layers = self.recipe_.net if hasattr(self, 'state_') else self.layers
        layers = layers if isinstance(layers, tuple | list) else (layers,)
        return any(getattr(layer, 'teacher', None) is not None for layer in layers)

    def _take(self, X, y=None, learning: bool = False, reset: bool = False) -> tuple[Any, Any]:
        """Take X, and y where learning needs it, as scikit-learn does. -> images [n, H, W, C]; y or None."""
        X, shape = X if hasattr(X, 'shape') else np.asarray(X), None
        if len(X.shape) in (3, 4):
            shape = checks.check_image_shape((*X.shape[1:], 1)[:3])
            X = np.asarray(X).reshape(len(X), math.prod(shape))
        is_taught = learning and self._is_taught()
        X, y = validate_data(self, X, y, reset=reset) if is_taught else (validate_data(self, X, reset=reset), None)
        if reset:
            self.image_shape_ = self._choose_shape(shape, X.shape[1])
        came, made = (' x '.join(map(str, sizes)) for sizes in (shape or (), self.image_shape_))
        require(shape in (None, self.image_shape_), f'images of {came} do not fit features of images of {made}.')
        images = X.reshape(-1, *self.image_shape_)
        if images.dtype not in (np.uint8, np.uint16, np.bool_):
            with np.errstate(over='ignore'):  # what is beyond float32 is refused as infinite
                images = images.astype(np.float32, copy=False)
        return _to_jax(images) if learning else images, y

    def _choose_shape(self, shape, inputs):
        """Give (H, W, C) of images that came in this shape, or None, as rows of so many numbers."""
        if self.image_shape is None:
            return shape or (1, inputs, 1)
        given = tuple(self.image_shape) if isinstance(self.image_shape, tuple | list) else self.image_shape
        given = checks.check_image_shape((*given, 1) if np.shape(given) == (2,) else given)
        came = f'rows of {inputs} numbers' if shape is None else f'images of shape {shape}'
        holds = f'image_shape={given}, which holds {math.prod(given)}'
        fits = shape in (None, given) and inputs == math.prod(given)
        require(fits, f'{came} do not fit {holds}; give (H, W, C) of one image.')
        return given

    def _begin(self, images, y, classes) -> TrainState:
        """Choose the network and how it learns, and make its first state."""
        self.recipe_, shape = self._choose_recipe(images), self.image_shape_
        net = self.recipe_.net
        if y is not None:
            self.classes_ = np.unique(y if classes is None else classes)
        looks = net[0].window.size is not None and self.image_shape is None and shape[::2] == (1, 1)
        came = f'rows of {shape[1]} numbers are taken as vectors, and layer 1 looks through windows'
        require(not looks, f'{came}; give image_shape=(H, W, C), the shape of one image.')
        if self.upto is not None:
            checks.check_count('upto', self.upto, 1, len(net))
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        return initial_state(self.recipe_, jax.random.key(seed), images)

    def _choose_recipe(self, images) -> presets.Recipe:
        given = {name: getattr(self, name) for name in ('epochs', 'batch') if getattr(self, name) is not None}
        settings = {} if self.settings is None else self.settings
        is_dict = isinstance(settings, dict)
        require(is_dict, f"settings={checks.show(settings)} are none; give a dict, such as {{'features': 100}}.")
        if isinstance(self.layers, str):
            checks.check_choice('layers', self.layers, presets.RECIPES)
            return presets.recipe(self.layers, images, **settings | given)
        require(not settings, 'settings are those of a recipe, and layers have their own; leave settings out.')
        net = check_network((self.layers,) if isinstance(self.layers, Layer) else self.layers)
        network = 'dense' if net[0].window.size is None else 'cnn'
        chosen = presets.settings_by_size(network, self.image_shape_, len(images)) | given
        checks.check_count('epochs', chosen['epochs'])
        checks.check_count('batch', chosen['batch'], 1, len(images))
        return presets.Recipe(net, chosen['epochs'], chosen['batch'])

    def _learn(self, state, images, y, epochs: int) -> Self:
        """Learn for so many epochs more."""
        labels = None
        if y is not None:
            new = np.setdiff1d(y, self.classes_)[:1]
            require(not len(new), f'class {new} of y is new; name all classes=... in the first partial_fit.')
            labels = np.searchsorted(self.classes_, y).astype(np.int32)
        how = {'stages': (Stage(epochs),), 'batch': min(self.recipe_.batch, len(images)), 'watch': None}
        result = loop.fit(self.recipe_.net, state, images, labels, augment=self.recipe_.augment, **how)
        if result.interrupted:
            raise KeyboardInterrupt
        self.state_ = result.state
        return self


def _to_jax(images) -> Array:
    """Give images as an array of jax at which nobody needs to look again, such as to warn of its range."""
    return checks.check_images(jnp.asarray(images), any_range=True)


@dataclasses.dataclass(eq=False, repr=False)
class HebbianClassifier(ClassifierMixin, _Settings):
    """Classify images by ridge regression, in closed form, on `HebbianFeatures`, whose arguments it takes.

    Args:
        penalty: of ridge regression, in squared units of the features, summed over images.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> model = HebbianClassifier(image_shape=(8, 8), epochs=5, random_state=0).fit(X[:900] / 16, y[:900])
        >>> bool(model.score(X[900:] / 16, y[900:]) > 0.8)
        True
    """

    penalty: float = dataclasses.field(default=1.0, kw_only=True)

    n_features_in_ = property(lambda self: self.features_.n_features_in_)
    feature_names_in_ = property(lambda self: self.features_.feature_names_in_)

    def fit(self, X: Any, y: Any) -> Self:
        """Learn features from images, and the classifier from them and the classes y [n]."""
        checks.check_number('penalty', self.penalty, least=0)
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name='y')
        check_classification_targets(y)
        check_consistent_length(X, y)
        settings = self.get_params(deep=False)
        penalty = settings.pop('penalty')
        features = HebbianFeatures(**settings).fit(X, y)
        classes, labels = np.unique(y, return_inverse=True)
        ridge = fit_ridge([(np.asarray(features.transform(X)), labels)], len(classes), penalty)
        self.features_, self.classes_, self.ridge_ = features, classes, ridge  # all, or who is interrupted none
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Score every class: [n, K]; where there are two, the second less the first: [n]."""
        check_is_fitted(self, 'ridge_')
        scores = np.asarray(self.features_.transform(X), np.float64) @ self.ridge_.w + self.ridge_.b
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Give the class with the largest score. [n, ...] -> [n]."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]
