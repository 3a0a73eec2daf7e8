"""Networks by name: settings that fit whatever images there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import data, layers, training
from hebbjax.training import presets

SHAPES = [(8, 8, 1), (4, 9, 1), (1, 30, 1), (12, 12, 3), (13, 40, 3), (28, 28, 1), (96, 64, 3), (224, 224, 3)]


def noise(count, shape):
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('count', [2, 90])
def test_a_recipe_fits_images_of_any_size_and_number(shape, count):
    chosen = presets.recipe('krotov', noise(count, shape))
    state = jax.eval_shape(lambda key: layers.init(chosen.net, key, shape), jax.random.key(0))
    answers = jax.eval_shape(lambda state: layers.features(chosen.net, state.layers, jnp.zeros((2, *shape))), state)
    assert answers.shape[0] == 2 and 16 <= answers.shape[1] <= 100 * 8 * 12
    assert 1 <= chosen.batch <= count and 600 <= chosen.epochs * (count // chosen.batch) < 700
    assert (chosen.net[0].window.size is None) == (min(shape[:2]) < 5)


@pytest.mark.parametrize('window', [2, 7, 8])
def test_pooling_follows_a_window_that_is_given(window):
    net = presets.recipe('krotov', noise(60, (8, 8, 1)), window=window, features=4).net
    state = layers.init(net, jax.random.key(0), (8, 8, 1))
    assert layers.features(net, state.layers, noise(2, (8, 8, 1))).shape == (2, 4 * (2 if window == 2 else 1) ** 2)


def test_digits_get_what_was_chosen_for_digits_and_many_images_what_was_chosen_for_many():
    few = presets.settings_by_size('cnn', (8, 8, 1), 1000)
    same = {'window', 'pool', 'patch_transform', 'features', 'batch', 'epochs', 'k', 'delta', 'threshold', 'rate'}
    assert {name: few[name] for name in same} == {name: presets.CNN_DIGITS[name] for name in same}
    assert presets.settings_by_size('cnn', (28, 28, 1), 60_000) == presets.CNN
    assert presets.settings_by_size('dense', (28, 28, 1), 60_000) == presets.DENSE


def test_a_recipe_trains_and_its_settings_can_be_given(few_digits):
    images = data.load('digits')[0]
    chosen = presets.recipe('krotov', images, features=8, epochs=2, batch=50, window=0, start='patches')
    assert (chosen.net[0].features, chosen.net[0].window.size, chosen.start) == (8, None, layers.from_patches)
    state = layers.init(chosen.net, jax.random.key(0), images.shape[1:])
    result = training.fit(chosen.net, state, jnp.asarray(images), stages=(training.Stage(2),), batch=50)
    assert np.isfinite(result.state.layers[0].w).all() and (result.state.layers[0].w != state.layers[0].w).any()


def test_miconi_has_three_layers_whitened_by_the_images():
    images = np.random.default_rng(0).random((40, 32, 32, 3), np.float32)
    chosen = presets.recipe('miconi', images, features=(4, 5, 6), epochs=3, batch=10, burn_in=4)
    assert [layer.features for layer in chosen.net] == [4, 5, 6] and len(chosen.net[0].pre) == 3
    assert chosen.augment is data.random_flip


def test_softhebb_has_the_published_shape():
    """Maps of 16 x 16, 8 x 8 and 4 x 4 of CIFAR-10's images, windows over mirrored edges, one epoch of tens."""
    chosen = presets.recipe('softhebb', np.zeros((40, 32, 32, 3), np.uint8), features=(4, 5, 6))
    assert (chosen.epochs, chosen.batch, chosen.start) == (1, 10, None)
    state = jax.eval_shape(lambda key: layers.init(chosen.net, key, (32, 32, 3)), jax.random.key(0))
    assert [own.w.shape for own in state.layers] == [(4, 75), (5, 36), (6, 45)]
    assert [own.made_for.shape for own in state.layers] == [(32, 32, 3), (16, 16, 4), (8, 8, 5)]
    assert [layer.window.edges for layer in chosen.net] == ['reflect'] * 3


@pytest.mark.parametrize(
    'name, settings, says',
    [
        ('krotow', {}, "name='krotow' is unknown; there are krotov, miconi, softhebb."),
        ('krotov', {'width': 3, 'hight': 2}, 'krotov has no setting hight, width; leave it out.'),
        ('miconi', {'window': 3}, 'miconi has no setting window'),
        ('softhebb', {'radius': 3}, 'softhebb has no setting radius'),
        ('softhebb', {'features': (2, 3, 4, 5)}, '4 layers have 3 rates; give one for each.'),
        ('krotov', {'batch': 9}, 'batch=9 is out of range; use a whole number from 1 to 8.'),
        ('krotov', {'epochs': 0}, 'epochs=0 is out of range'),
        ('krotov', {'power': 7, 'shift': 3}, 'krotov has no setting power, shift; leave it out.'),
        ('krotov', {'window': 'wide'}, "window='wide' is out of range; use a whole number from 1 on."),
        ('krotov', {'start': 'patch'}, "start='patch' is unknown; there are drawn, patches."),
        ('krotov', {'patch_transform': 'zca'}, "patch_transform='zca' is unknown; there are raw, centred"),
        ('miconi', {'features': (4, 5, 6, 7)}, '4 numbers of neurons are not those of three layers; give three.'),
        ('miconi', {'features': 16}, 'miconi has layers, and features=16 is no tuple of their neurons.'),
        ('softhebb', {'features': 16}, 'softhebb has layers, and features=16 is no tuple'),
        ('miconi', {'burn_in': 20}, 'burn_in=20 leaves nothing of 20 steps to learn in'),
    ],
)
def test_what_fits_no_recipe_is_refused(name, settings, says):
    with pytest.raises(ValueError, match=says):
        presets.recipe(name, noise(8, (32, 32, 3)), **settings)
