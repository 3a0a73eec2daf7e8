"""The door: every kind of thing that comes in from outside is understood, or met with one sentence."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hebbjax import data, layers, learned, readout, rules, training, transforms
from hebbjax.data import random_shift
from hebbjax.layers import Homeostasis, Lateral, Layer, Window, initializers, patches
from hebbjax.plots import filters
from hebbjax.support import checks
from hebbjax.training.epoch import make_train_epoch
from hebbjax.training.stages import Stage, plan_stages
from hebbjax.training.step import check_inputs, make_train_step, train_step

TYPES = st.sampled_from(['int8', 'int16', 'int32', 'int64', 'uint32', 'uint64', 'complex64', 'complex128', 'U3'])
SIZES = st.integers(1, 6)


def sentence(call, *args):
    """What a call is refused with: one sentence."""
    with pytest.raises(ValueError) as error:
        call(*args)
    said = str(error.value)
    assert said.endswith('.') and '\n' not in said and len(said) < 400, said
    return said


# Images


@pytest.mark.parametrize('xp', [np, jnp])
def test_images_of_a_known_range_pass_as_they_are(xp):
    for dtype in (jnp.uint8, jnp.uint16, jnp.bool_, jnp.float32, jnp.bfloat16, jnp.float16):
        images = xp.ones((2, 3, 3, 1), dtype)
        assert checks.check_images(images) is images


@given(dtype=TYPES, n=SIZES, high=st.sampled_from([1, 16, 127]))
def test_numbers_that_do_not_say_what_white_is_are_refused(dtype, n, high):
    images = np.full((n, 4, 4, 1), high).astype(dtype)
    assert f'{images.dtype} images do not say what white is; use' in sentence(checks.check_images, images)


@given(shape=st.lists(st.integers(0, 5), max_size=5).filter(lambda shape: len(shape) != 4 or 0 in shape))
def test_other_shapes_are_refused_with_a_way_out(shape):
    said = sentence(checks.check_images, np.zeros(shape, np.uint8))
    assert f'not of shape {tuple(shape)}; use' in said
    assert ('images[None]' in said) == (len(shape) == 3) and ('reshape' in said) == (len(shape) in (2, 5))


@given(n=SIZES, channels=st.sampled_from([1, 3]), side=st.integers(5, 40))
def test_channels_first_are_refused_with_the_transposition(n, channels, side):
    images = np.zeros((n, channels, side, side), np.uint8)
    way = f'is channels first; use images.transpose(0, 2, 3, 1), which are {(side, side, channels)}.'
    assert way in sentence(checks.check_images, images)
    assert way in sentence(checks.check_image_shape, (channels, side, side))
    assert checks.check_images(images.transpose(0, 2, 3, 1)) is not None


def test_what_is_no_array_is_refused():
    for images in ([np.zeros((3, 3, 1))], None, 'digits', 5, memoryview(b'1234')):
        assert f'not of type {type(images).__name__}; make one by' in sentence(checks.check_images, images)


@given(
    place=st.tuples(st.integers(0, 299), st.integers(0, 7), st.integers(0, 7), st.integers(0, 1)),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    xp=st.sampled_from([np, jnp]),
    dtype=st.sampled_from([np.float32, np.float16]),
)
def test_one_pixel_that_is_no_number_is_found_wherever_it_is(place, bad, xp, dtype):
    images = np.ones((300, 8, 8, 2), dtype)
    images[place] = bad
    assert sentence(checks.check_images, xp.asarray(images)) == (
        f'images hold 1 non-finite values, the first in image {place[0]}.'
    )


@given(low=st.floats(-300, 0, width=32), high=st.floats(0, 300, width=32), xp=st.sampled_from([np, jnp]))
def test_floats_far_outside_of_0_to_1_are_warned_about_once(low, high, xp):
    images = np.full((2, 3, 3, 1), low, np.float32)
    images[0, 0, 0, 0] = high
    images = xp.asarray(images)
    far = (low >= 0 and high > checks.BRIGHT) or max(-low, high) > checks.EXTREME
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        checks.check_images(images)
    assert len(caught) == far and all('taken as they are' in str(warning.message) for warning in caught)
    if xp is jnp:  # jax's arrays do not change: there is nothing more to say
        checks.check_images(images)


def test_one_picture_is_the_same_in_every_type_and_no_other_range_passes_unnoticed(rng, state):
    pixels = rng.integers(0, 256, (6, 8, 8, 1), np.uint8)
    for form in (257 * pixels.astype(np.uint16), (pixels / 255).astype(np.float32)):
        intensities = layers.to_intensities(jnp.asarray(form))
        np.testing.assert_allclose(intensities, layers.to_intensities(jnp.asarray(pixels)), rtol=1e-6)
    for kind in (np.int8, np.int32, np.int64, np.uint32):
        wrong = pixels.astype(kind)
        for call in (EPOCH, STEP, lambda state, images: layers.features(NET, state.layers, images)):
            assert 'do not say what white is' in sentence(call, state, wrong)
        sentence(jax.eval_shape, layers.to_intensities, jnp.asarray(wrong))  # traced or not
    with pytest.warns(UserWarning, match='run from 0 to 255'):
        check_inputs(NET, state, pixels.astype(np.float32), None, look=True)


def test_a_dense_layer_sees_the_pixels_divided_by_255(rng):
    """The door does not change what is behind it."""
    pixels = rng.integers(0, 256, (3, 4, 4, 2), np.uint8)
    x = patches.extract_patches(Window(), layers.to_intensities(jnp.asarray(pixels)))
    np.testing.assert_allclose(x.reshape(3, -1), pixels.reshape(3, -1) / 255, rtol=1e-6)


# Labels


def forms_of(labels, classes):
    """The same labels in every form that says them clearly."""
    one_hot = np.eye(classes)[labels]
    return {
        **{dtype: labels.astype(dtype) for dtype in ('int8', 'uint8', 'int64', 'float16', 'float32', 'float64')},
        **{f'column of {dtype}': labels[:, None].astype(dtype) for dtype in ('int32', 'uint8', 'float64')},
        **{f'one-hot {dtype}': one_hot.astype(dtype) for dtype in ('bool', 'int64', 'float32')},
        'list': labels.tolist(),
        'tuple': tuple(labels.tolist()),
        'rows': one_hot.tolist(),
        'jax': jnp.asarray(labels),
        'jax column': jnp.asarray(labels)[:, None],
        'jax rows': jnp.asarray(one_hot, jnp.float32),
    }


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9))
def test_labels_in_any_clear_form_are_the_same_labels(numbers):
    for name, form in forms_of(np.array(numbers), 5).items():
        labels = checks.check_labels(form, 5, len(numbers))
        assert labels.dtype.kind in 'iu' and labels.shape == (len(numbers),), name
        np.testing.assert_array_equal(labels, numbers, err_msg=name)


def test_booleans_are_two_classes_and_integers_pass_untouched():
    np.testing.assert_array_equal(checks.check_labels([True, False], 2), [1, 0])
    for labels in (np.arange(3), jnp.arange(3), np.arange(3, dtype=np.uint8)):
        assert checks.check_labels(labels, 3, 3) is labels


def test_of_traced_labels_shape_and_dtype_are_seen():
    traced = lambda given: jax.eval_shape(lambda labels: checks.check_labels(labels, 3, 4), given)  # noqa: E731
    assert traced(jnp.zeros((4, 1))).dtype == jnp.int32 and traced(jnp.zeros((4, 1))).shape == (4,)
    assert 'of shape (4, 3)' in sentence(traced, jnp.zeros((4, 3)))


def test_one_label_that_is_none_is_refused():
    for place, wrong in enumerate(['a', b'x', None, 0.5, np.nan, np.inf, -1, -1.0, 7, 2**40, 1j]):
        labels = [0, 1, 2, 3]
        labels[place % 4] = wrong
        assert sentence(checks.check_labels, labels, 7).startswith('labels ')


@pytest.mark.parametrize(
    'labels, says',
    [
        (3, 'of shape ()'),
        (None, 'labels are classes 0, 1, ..., not object'),
        (np.array(['a', 'b']), 'labels are classes 0, 1, ..., not <U'),
        (np.zeros((2, 3)), 'or one-hot '),
        (np.ones((3, 3)), 'of shape (3, 3)'),
        (np.eye(4), 'one-hot labels of 4 classes do not fit 3'),
        (np.ones((2, 1, 1), int), 'of shape (2, 1, 1)'),
        ([0, 0.5, 1], 'whole numbers, and that of image 1 is '),
        ([0, 1, 3], 'run from 0 to 3 and there are 3 classes; use 0 to 2'),
        ([1, 2, 3], 'run from 1 to 3'),
        ([0, 1], '2 labels do not fit 3 images'),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, says):
    assert says in sentence(checks.check_labels, labels, 3, 3 if says.startswith('2') else None)


# Shapes, keys, numbers


@given(st.one_of(st.lists(st.integers(-1, 9), max_size=5), st.integers(0, 9), st.just('8x8'), st.just([8, 8, 1.0])))
def test_an_image_shape_is_three_whole_numbers(shape):
    if isinstance(shape, list) and len(shape) == 3 and all(type(size) is int and size >= 1 for size in shape):
        if not (shape[0] in (1, 3) and shape[1] == shape[2] > 4):  # channels first
            assert checks.check_image_shape(shape) == tuple(shape)
    else:
        assert '(H, W, C)' in sentence(checks.check_image_shape, shape)
    assert 'give images.shape[1:]' in sentence(checks.check_image_shape, (60, 8, 8, 1))


def test_both_kinds_of_keys_pass_and_nothing_else():
    checks.check_key(jax.random.key(0))
    checks.check_key(jax.random.PRNGKey(0))
    for key in (0, None, 'seed', np.int64(3), np.zeros(2), jnp.zeros(3)):
        assert 'jax.random.key(' in sentence(checks.check_key, key)


@given(
    st.one_of(st.floats(), st.integers(-(2**80), 2**80)),
    st.sampled_from([float, np.float32, np.float64, jnp.float32, lambda value: value]),
)
def test_a_number_is_within_its_bounds_in_every_type_or_in_none(value, kind):
    with np.errstate(over='ignore'):
        setting = kind(value)
    number = float(setting)
    for words, bounds, fits in (
        ('a finite number', {}, True),
        ('a finite number >= 1', {'least': 1}, number >= 1),
        ('a finite number > 1', {'above': 1}, number > 1),
        ('a finite number <= 1', {'most': 1}, number <= 1),
        ('a finite number < 1', {'below': 1}, number < 1),
        ('a finite number >= 0 and < 1', {'least': 0, 'below': 1}, 0 <= number < 1),
        ('a finite number > -2.5 and <= 1', {'above': -2.5, 'most': 1}, -2.5 < number <= 1),
    ):
        if fits and np.isfinite(number):
            checks.check_number('it', setting, **bounds)
        else:
            said = sentence(lambda bounds=bounds: checks.check_number('it', setting, **bounds))
            assert said == f'it={checks.show(setting)} is out of range; use {words}.'


def test_bounds_themselves_are_within_or_outside():
    for number in (1, 1.0, np.float32(1), jnp.float32(1), np.int8(1), jnp.ones(())):
        checks.check_number('it', number, least=1, most=1)
        for open_end in ('above', 'below'):
            assert 'is out of range' in sentence(lambda: checks.check_number('it', number, **{open_end: 1}))  # noqa: B023


def test_what_is_no_number_fits_nothing_and_what_is_traced_passes():
    strange = (None, 'one', '1', b'1', [1], {}, (), np.ones(2), 10**400, 1j, object(), True, np.True_, np.nan, -np.inf)
    for value in strange:
        assert 'use a finite number.' in sentence(checks.check_number, 'it', value)
    jax.eval_shape(lambda rate: transforms.scale_by_rate(rate) and 0.0 * rate, -1.0)


def test_a_choice_is_one_of_the_names_that_are_known():
    checks.check_choice('colour', 'red', ('red', 'blue'))
    checks.check_choice('colour', 'red', {'red': 1, 'blue': 2})
    for value in ('Red', '', None, 0, True, ['red'], ('red',), {}, np.array('red'), b'red'):
        said = sentence(checks.check_choice, 'colour', value, ('red', 'blue'))
        assert said == f'colour={checks.show(value)} is unknown; there are red, blue.'


def test_only_whole_numbers_count():
    for value in (True, np.True_, 1.0, '1', None, 0, -3, np.float64(2), 2**31):
        assert not checks.is_count(value)
        assert 'it=' in sentence(checks.check_count, 'it', value)
    assert checks.is_count(np.int64(2)) and checks.is_count(2) and checks.is_count(0, 0)
    checks.check_count('it', np.int64(7), 2, 7)
    assert sentence(checks.check_count, 'it', 8, 2, 7) == 'it=8 is out of range; use a whole number from 2 to 7.'
    assert sentence(checks.check_count, 'it', 0) == 'it=0 is out of range; use a whole number from 1 on.'


@pytest.mark.parametrize(
    'value, words',
    [
        (np.float32(0.5), '0.5'),
        (np.int64(3), '3'),
        (True, 'True'),
        ('a\nb', r"'a\nb'"),
        (np.eye(2), 'array([[1., 0.], [0., 1.]])'),
        (list(range(9)), '[0, 1, 2, 3, 4, 5, ...]'),
        ((1, None), '(1, None)'),
    ],
)
def test_values_are_shown_in_a_few_words(value, words):
    assert checks.show(value) == words
    for long in ('x' * 999, 10**400, [value] * 99, {'name': value}, RATE):
        assert len(checks.show(long)) <= 60 and '\n' not in checks.show(long)


def test_a_device_and_a_host_hold_something():
    assert checks.device_memory() > 2**20 and checks.host_memory() > 2**20


# Settings, all over the library

RATE = transforms.scale_by_rate(0.1)
NET = (
    Layer(6, rules.krotov(), RATE, Window(3), post=(layers.relu, layers.max_pool(2))),
    Layer(4, rules.instar(), RATE, Window(2)),
)
LAYER = NET[0]
STEP, EPOCH = make_train_step(NET), make_train_epoch(NET, batch=3)
PAIR = np.zeros((3, 8, 8, 1), np.uint8), np.arange(3)
ANSWERS = readout.Probe(lambda images: jnp.zeros(len(images), jnp.int32))


@pytest.fixture(scope='module')
def state():
    """A state of the network for 8 x 8 images."""
    return layers.init(NET, jax.random.key(0), (8, 8, 1))


def layer_with(**settings):
    """A layer of 4 neurons."""
    return Layer(**{'features': 4, 'rule': rules.krotov(), 'tx': RATE} | settings)


def settle(**settings):
    """Settle a network of two layers."""
    states = layers.init(NET, jax.random.key(0), (8, 8, 1)).layers
    return layers.settled_activations(NET, states, BLANK, **{'gain': 0.1, 'steps': 1} | settings)


BLANK = np.zeros((1, 8, 8, 1), np.float32)
HOSTILE = [np.nan, np.inf, -1.0, np.float32(-1), np.float64('nan'), jnp.float32(np.nan), None, 'fast']


def descend(**how):
    """Find the coefficients of nothing."""
    return learned.fit_rule(lambda theta, key: theta, jnp.zeros(()), jax.random.key(0), **{'steps': 2} | how)


def evolve(**how):
    """Evolve nothing."""
    return learned.evolve_rule(lambda theta, key: theta, jnp.zeros(()), jax.random.key(0), population=8, **how)


SETTINGS = {
    'krotov p': lambda value: rules.krotov(p=value),
    'krotov delta': lambda value: rules.krotov(delta=value),
    'krotov k': lambda value: rules.krotov(k=value),
    'krotov_ranks k': lambda value: rules.krotov_ranks(value, 0.4),
    'krotov_ranks delta': lambda value: rules.krotov_ranks(2, value),
    'hebb winners': lambda value: rules.hebb(0 if value is None else value),
    'instar winners': lambda value: rules.instar(-2 if value is None else value),
    'soft_wta': rules.soft_wta,
    'softhebb': rules.softhebb,
    'k_wta': rules.k_wta,
    'trace winners': lambda value: rules.trace(0 if value is None else value),
    'trace eta': lambda value: rules.trace(1, value),
    'bcm eta': rules.bcm,
    'som tau': lambda value: rules.som(6, tau=value),
    'som radius': lambda value: rules.som(6, radius=-1 if value is None else value),
    'one_hot classes': rules.one_hot,
    'groups classes': lambda value: rules.groups(value, 2),
    'groups per_class': lambda value: rules.groups(3, value),
    'groups common': lambda value: rules.groups(3, 2, value),
    'feedback classes': lambda value: rules.feedback(value, 2),
    'random_feedback classes': lambda value: rules.random_feedback(value, 2, jax.random.key(0)),
    'random_feedback features': lambda value: rules.random_feedback(2, value, jax.random.key(0)),
    'settling gain': lambda value: settle(gain=value),
    'settling steps': lambda value: settle(steps=value),
    'settling upto': lambda value: settle(upto=-1 if value is None else value),
    'recall steps': lambda value: layers.recall(LAYER, None, BLANK, value),
    'rate': transforms.scale_by_rate,
    'linear rate': lambda value: transforms.linear_by_epoch(value, 2, 2),
    'linear epochs': lambda value: transforms.linear_by_epoch(1.0, value, 2),
    'linear steps': lambda value: transforms.linear_by_epoch(1.0, 2, value),
    'norm gap radius': transforms.scale_by_norm_gap,
    'norm gap power': lambda value: transforms.scale_by_norm_gap(power=value),
    'scale floor': lambda value: transforms.scale_by_max_abs(floor=value),
    'repu': layers.repu,
    'triangle_to': layers.triangle_to,
    'nearest share': layers.nearest,
    'nearest temperature': lambda value: layers.nearest(0.4, 0 if value is None else value),
    'scaled_normal': initializers.scaled_normal,
    'pruned': initializers.pruned,
    'max_pool': layers.max_pool,
    'max_pool stride': lambda value: layers.max_pool(2, 0 if value is None else value),
    'gauss_pool': layers.gauss_pool,
    'kernel sigma': layers.AngleKernel,
    'decorrelate sigma': layers.Decorrelate,
    'dropout': readout.Dropout,
    'momentum': lambda value: layers.BatchNorm(momentum=value),
    'homeostasis': Homeostasis,
    'homeostasis winners': lambda value: Homeostasis(winners=-1 if value is None else value),
    'lateral rate': Lateral,
    'lateral steps': lambda value: Lateral(0.1, value),
    'lateral pace': lambda value: Lateral(0.1, pace=value),
    'lateral target': lambda value: Lateral(0.1, target=-1 if value is None else value),
    'features': lambda value: layer_with(features=value),
    'patches_per_image': lambda value: layer_with(patches_per_image=-2 if value is None else value),
    'microbatch': lambda value: layer_with(microbatch=-2 if value is None else value),
    'shift': random_shift,
    'resize': lambda value: data.load(np.zeros((2, 4, 4), np.uint8), resize=(value, 4)),
    'shape': lambda value: data.load({'x': np.zeros((2, 16), np.uint8)}, shape=(4, value)),
    'validation fraction': lambda value: data.split_validation(np.arange(4), value, 0),
    'whitening epsilon': lambda value: data.fit_whitening(np.ones((3, 4), np.float32), epsilon=value),
    'stage': Stage,
    'plan': lambda value: plan_stages('simultaneous', NET, value),
    'batch': lambda value: make_train_epoch(NET, batch=value),
    'seeds at once': lambda value: training.over_seeds(EPOCH, value),
    'monitor every': lambda value: training.Monitor(every=value),
    'monitor windows': lambda value: training.Monitor(windows=value),
    'monitor p': lambda value: training.Monitor(p=value),
    'monitor tolerance': lambda value: training.Monitor(tolerance=value),
    'evaluate every': lambda value: training.evaluate(PAIR, PAIR, every=value),
    'patience': lambda value: training.early_stop(patience=value),
    'checkpoints every': lambda value: training.Checkpoints('never', every=value),
    'checkpoints keep': lambda value: training.Checkpoints('never', keep=value),
    'log every': lambda value: training.Log('.', every=value),
    'pictures every': lambda value: training.Pictures('.', (8, 8, 1), every=value),
    'tensorboard every': lambda value: training.TensorBoard('never', (8, 8, 1), every=value),
    'ridge penalty': lambda value: readout.fit_ridge([(np.eye(3), np.arange(3))], 3, value),
    'ridge classes': lambda value: readout.fit_ridge([(np.eye(3), np.arange(3))], value),
    'probe penalty': readout.ridge_probe,
    'softmax penalty': lambda value: readout.softmax_probe((1.0, value)),
    'softmax block': lambda value: readout.softmax_probe(1.0, value),
    'softmax classes': lambda value: readout.fit_softmax(np.eye(3), np.arange(3), value),
    'probe penalties': lambda value: readout.ridge_probe((1.0, value)),
    'probe flips': lambda value: readout.ridge_probe(flips='no' if isinstance(value, bool) else value),
    'probe crops': lambda value: readout.ridge_probe(crops=1.5 if value == 0 else value),
    'dual penalty': lambda value: readout.fit_dual([np.eye(3)], np.arange(3), 3, value),
    'dual classes': lambda value: readout.fit_dual([np.eye(3)], np.arange(3), value),
    'dual held_out': lambda value: readout.fit_dual([np.eye(3)], np.arange(3), 3, held_out=3 if value == 0 else value),
    'labelled per_class': lambda value: data.labelled_subset(np.arange(4), value, 0),
    'probe block': lambda value: readout.ridge_probe(1.0, value),
    'confusion classes': lambda value: readout.probe_confusion(ANSWERS, *PAIR, value),
    'mlp_params hidden': lambda value: rules.mlp_params(jax.random.key(0), value),
    'fit_rule steps': lambda value: descend(steps=value),
    'fit_rule every': lambda value: descend(every=value),
    'fit_rule clip': lambda value: descend(clip=value),
    'held_out penalty': lambda value: learned.ridge_outputs(jnp.eye(3), jnp.eye(3), jnp.eye(3), value),
    'held_out classes': lambda value: learned.held_out_error((np.eye(3), [0, 1, 2]), (np.eye(3), [0, 1, 2]), value),
    'evolve generations': lambda value: evolve(generations=value),
    'evolve at_once': lambda value: evolve(at_once=0 if value is None else value),
    'gaussian population': lambda value: learned.gaussian(value, jnp.zeros(2)),
    'gaussian spread': lambda value: learned.gaussian(8, jnp.zeros(2), value),
    'search terms': lambda value: learned.search_losses(len, jax.random.key(0), terms=value),
    'search population': lambda value: learned.search_losses(len, jax.random.key(0), population=value),
    'filters drawn': lambda value: filters.filter_grid(np.eye(4), (2, 2, 1), count=0 if value is None else value),
}
COUNTS = {
    'krotov k', 'krotov_ranks k', 'k_wta', 'hebb winners', 'instar winners', 'linear epochs', 'linear steps',
    'max_pool', 'features', 'patches_per_image', 'microbatch', 'stage', 'plan', 'batch', 'seeds at once', 'patience',
    'monitor every', 'monitor windows', 'evaluate every', 'checkpoints every', 'checkpoints keep',
    'log every', 'pictures every', 'tensorboard every', 'probe block', 'filters drawn', 'random_feedback features',
    'settling steps', 'settling upto', 'recall steps', 'trace winners', 'lateral steps', 'evolve generations',
    'mlp_params hidden', 'fit_rule steps', 'fit_rule every', 'evolve at_once', 'gaussian population', 'search terms',
    'search population', 'resize', 'shape', 'gauss_pool', 'dual held_out', 'labelled per_class', 'max_pool stride',
    'softmax block', *(name for name in SETTINGS if 'classes' in name or 'groups' in name),
}  # fmt: skip
MAY_BE_ZERO = {
    'krotov delta', 'krotov_ranks delta', 'rate', 'linear rate', 'dropout', 'momentum', 'homeostasis', 'groups common',
    'shift', 'ridge penalty', 'probe penalty', 'probe penalties', 'settling gain', 'settling steps', 'lateral rate',
}  # fmt: skip


@pytest.mark.parametrize('name', SETTINGS)
def test_no_setting_takes_what_is_no_number_of_its_range(name):
    uncountable = [True, 1.5, 2.0, np.float32(3), 10**20, '2'] if name in COUNTS else []
    zero = [] if name in MAY_BE_ZERO else [0]
    for value in HOSTILE + uncountable + zero:
        sentence(SETTINGS[name], value)


# Networks, states and images together


def start(net=NET, key=None, shape=(8, 8, 1), weights=None):
    """Start a training."""
    return layers.init(net, jax.random.key(0) if key is None else key, shape, weights)


@pytest.mark.parametrize(
    'how, says',
    [
        ({'net': LAYER}, 'write (layer,)'),
        ({'net': ()}, 'at least one'),
        ({'net': (LAYER, None)}, 'a tuple of layers'),
        ({'net': 'krotov'}, 'a tuple of layers'),
        ({'key': 0}, 'jax.random.key(0)'),
        ({'shape': (8, 8)}, '(H, W, C)'),
        ({'shape': (60, 8, 8, 1)}, 'images.shape[1:]'),
        ({'shape': (1, 8, 8)}, 'channels first'),
        ({'weights': [np.ones((6, 9), int), None]}, 'type int32 do not fit a layer that needs floats of (6, 9)'),
        ({'weights': [np.full((6, 9), np.nan, np.float32), None]}, 'layer 1: weights to start from hold NaN'),
        ({'weights': [np.ones((5, 9), np.float32), None]}, 'do not fit a layer that needs floats of (6, 9)'),
        ({'net': (layer_with(features=1),)}, 'k=2 is more than the 1 neurons that compete'),
        ({'net': (layer_with(window=Window(2.5)),)}, 'out of range'),
        ({'net': (layer_with(tx=optax.sgd(0.1)),)}, 'scale_by_rate'),
    ],
)
def test_a_start_that_cannot_be_is_refused_in_a_sentence(how, says):
    assert says in sentence(lambda: start(**how))


def test_half_precision_weights_are_taken_as_float32():
    for dtype in (jnp.bfloat16, jnp.float16):
        w = jnp.linspace(0, 1, 54, dtype=dtype).reshape(6, 9)
        started = start(weights=[w, None])
        assert started.layers[0].w.dtype == jnp.float32
        np.testing.assert_array_equal(started.layers[0].w, w.astype(jnp.float32))


def test_images_of_another_size_than_a_state_was_made_for_are_refused(state):
    for h, w, channels in ((3, 3, 1), (8, 9, 1), (12, 8, 1), (8, 8, 2), (11, 3, 3)):
        images = np.zeros((3, h, w, channels), np.uint8)
        for call in (EPOCH, STEP, lambda s, x: train_step(NET, s, x),
                     lambda s, x: layers.features(NET, s.layers, x)):  # fmt: skip
            assert f'{h} x {w} x {channels} do not fit a layer made for 8 x 8 x 1' in sentence(call, state, images)


@pytest.mark.parametrize(
    'call, says',
    [
        (lambda s, x: layers.features(NET, s, x), 'such as state.layers, not TrainState'),
        (lambda s, x: layers.features(NET, s.layers[0], x), 'one LayerState per layer'),
        (lambda s, x: layers.features(NET, (), x), '0 states do not fit 2 layers'),
        (lambda s, x: layers.features(NET, s.layers[:1], x), '1 states do not fit 2 layers'),
        (lambda s, x: layers.features(NET, s.layers[::-1], x), 'layer 1 has 6 neurons'),
        (lambda s, x: layers.features(NET[:1], s.layers, x), '2 states do not fit 1 layers'),
        (lambda s, x: layers.features(LAYER, s.layers, x), 'write (layer,)'),
        (lambda s, x: layers.features(NET, s.layers, x, upto=-1), 'a whole number from 0 to 2'),
        (lambda s, x: layers.features(NET, s.layers, x, upto=5), 'a whole number from 0 to 2'),
        (lambda s, x: layers.features(NET, s.layers, x, upto=1.0), 'a whole number from 0 to 2'),
        (lambda s, x: layers.features(NET, s.layers, x, upto=True), 'a whole number from 0 to 2'),
        (lambda s, x: layers.features(NET, s.layers, x[0]), 'images[None] for one image'),
        (lambda s, x: layers.features(NET, s.layers, list(x)), 'numpy.stack'),
        (lambda s, x: layers.features(NET, s.layers, x[:0]), 'n >= 1'),
        (lambda s, x: layers.features(NET, s.layers, x.reshape(5, -1)), 'reshape(-1, H, W, C)'),
        (lambda s, x: layers.features(NET, s.layers, x.astype(np.complex64)), 'complex64'),
        (lambda s, x: layers.features(NET, s.layers, np.float32(np.inf) * (x + np.float32(1))), 'non-finite'),
        (lambda s, x: train_step(NET, s.layers, x), 'TrainState that init makes'),
        (lambda s, x: STEP(s.layers, x), 'TrainState that init makes'),
        (lambda s, x: EPOCH(s, x[:0]), 'n >= 1'),
        (lambda s, x: EPOCH(s, x[:2]), 'a batch of 3 is larger than the 2 images'),
        (lambda s, x: EPOCH(s, x, [0, 1]), '2 labels do not fit 5 images'),
        (lambda s, x: EPOCH(s, x, ['a'] * 5), 'numpy.unique'),
        (lambda s, x: layer_with(rule=rules.krotov), 'rule of a layer is a rule such as rules.krotov(), not'),
        (lambda s, x: layer_with(tx=0.1), 'tx of a layer is a transformation such as transforms.scale_by_rate(0.1)'),
        (lambda s, x: layer_with(window=5), 'window of a layer is one such as Window(5), not 5'),
        (lambda s, x: layer_with(post=(None,)), 'post of a layer is a tuple of parts'),
        (lambda s, x: layer_with(pre='raw'), 'pre of a layer is a tuple of parts'),
        (lambda s, x: layer_with(patch_transform='raw'), "patch_transform of a layer is a function or None, not 'raw'"),
        (lambda s, x: layer_with(homeostasis=3.0), 'homeostasis of a layer is a Homeostasis or None, not 3.0'),
        (lambda s, x: make_train_epoch(NET, batch=2, stage=3), 'a stage is a training.Stage'),
        (lambda s, x: make_train_epoch(NET, batch=2, watch=3), 'is a training.Monitor'),
        (lambda s, x: plan_stages('simultaneous', LAYER, 3), 'write (layer,)'),
        (lambda s, x: layers.from_patches(LAYER, 3, x), 'one key is wanted'),
        (lambda s, x: start(key=jax.random.split(jax.random.key(0), 3)), 'one key is wanted'),
    ],
)
def test_what_does_not_fit_together_is_refused_in_a_sentence(call, says, state):
    assert says in sentence(call, state, np.zeros((5, 8, 8, 1), np.uint8))


def test_a_teacher_is_given_classes_that_it_has(rng):
    images = rng.integers(0, 256, (6, 5, 5, 1), np.uint8)
    net = (Layer(6, rules.instar(), RATE, teacher=rules.groups(3, 2)),)
    started = layers.init(net, jax.random.key(0), (5, 5, 1))
    epoch, one_step = make_train_epoch(net, batch=3), make_train_step(net)
    for call in (epoch, one_step, lambda *args: train_step(net, *args)):
        for wrong in ([1, 2, 3, 1, 2, 3], [0, 1, 2, -1, 0, 1]):
            assert 'use 0 to 2' in sentence(call, started, images, wrong)
    right = np.array([0, 1, 2, 2, 1, 0])
    expected, _ = epoch(started, images, right)
    for form in (right[:, None], right.astype(float), np.eye(3)[right], right.tolist()):
        np.testing.assert_array_equal(epoch(started, images, form)[0].layers[0].w, expected.layers[0].w)


STRANGE = [
    None, True, -1, 1.5, np.nan, 10**20, 'a', b'x', [], {}, [[1, 2], [3]], np.ones(3), np.zeros((2, 2)), object(), 1j,
    jax.random.key(0), NET, LAYER, Window(3), np.array(['a']), np.array([None]),
]  # fmt: skip


def test_nothing_strange_gets_past_a_door(state, rng):
    """Whatever comes in the place of an argument: it is taken, or met with one sentence of our own."""
    images, labels = rng.integers(0, 256, (6, 8, 8, 1), np.uint8), np.arange(6) % 3
    doors = [
        lambda value: layers.init(value, jax.random.key(0), (8, 8, 1)),
        lambda value: layers.init(NET, value, (8, 8, 1)),
        lambda value: layers.init(NET, jax.random.key(0), value),
        lambda value: layers.features(value, state.layers, images),
        lambda value: layers.features(NET, value, images),
        lambda value: layers.features(NET, state.layers, value),
        lambda value: layers.features(NET, state.layers, images, value),
        lambda value: train_step(NET, value, images),
        lambda value: train_step(NET, state, value),
        lambda value: EPOCH(value, images),
        lambda value: EPOCH(state, value),
        lambda value: STEP(state, value, labels),
        lambda value: check_inputs(NET, state, images, value),  # what an epoch and a step ask
        lambda value: plan_stages('simultaneous', value, 2),
        lambda value: plan_stages(value, NET, 2),
        lambda value: layers.from_patches(value, jax.random.key(0), images),
    ]
    for number, door in enumerate(doors):
        for value in STRANGE:
            try:
                door(value)
            except ValueError as error:
                said = str(error)
                assert said.endswith('.') and '\n' not in said, (number, value, said)
