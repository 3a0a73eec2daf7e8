"""The door: every kind of thing that comes in from outside is understood, or met with one sentence."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hebbjax
from hebbjax import checks, layers, patches, plasticity, prototypes, rules, stages, teachers, train
from hebbjax.layers import Layer
from hebbjax.patches import Window

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


@pytest.mark.parametrize('dtype', [jnp.uint8, jnp.uint16, jnp.bool_, jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize('xp', [np, jnp])
def test_images_of_a_known_range_pass_as_they_are(xp, dtype):
    images = xp.ones((2, 3, 3, 1), dtype)
    assert checks.check_images(images) is images


@given(dtype=TYPES, n=SIZES, high=st.sampled_from([1, 16, 127]))
def test_numbers_that_do_not_say_what_white_is_are_refused(dtype, n, high):
    images = np.full((n, 4, 4, 1), high).astype(dtype)
    assert f'got {images.dtype}, which does not say what white is' in sentence(checks.check_images, images)
    if dtype in ('int8', 'int16', 'int32', 'uint32', 'complex64'):
        sentence(layers.intensities, jnp.asarray(images))  # traced or not, nothing else gets past


@given(shape=st.lists(st.integers(0, 5), max_size=5).filter(lambda shape: len(shape) != 4 or 0 in shape))
def test_other_shapes_are_refused_with_a_way_out(shape):
    said = sentence(checks.check_images, np.zeros(shape, np.uint8))
    assert f'got shape {tuple(shape)}' in said
    assert ('images[None]' in said) == (len(shape) == 3) and ('reshape' in said) == (len(shape) == 2)


@given(n=SIZES, channels=st.sampled_from([1, 3]), side=st.integers(5, 40))
def test_channels_first_are_refused_with_the_transposition(n, channels, side):
    images = np.zeros((n, channels, side, side), np.uint8)
    assert 'channels first; use images.transpose(0, 2, 3, 1)' in sentence(checks.check_images, images)
    assert checks.check_images(images.transpose(0, 2, 3, 1)) is not None
    assert f'give {(side, side, channels)}' in sentence(checks.check_image_shape, (channels, side, side))


@pytest.mark.parametrize('images', [[np.zeros((3, 3, 1))], None, 'digits', 5, memoryview(b'1234')])
def test_what_is_no_array_is_refused(images):
    assert f'got {"an" if type(images).__name__[0] in "aeiou" else "a"} ' in sentence(checks.check_images, images)


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
def test_floats_far_outside_of_0_to_1_are_told_about_once(low, high, xp):
    images = np.full((2, 3, 3, 1), low, np.float32)
    images[0, 0, 0, 0] = high
    images = xp.asarray(images)
    far = (low >= 0 and high > checks.BRIGHT) or max(-low, high) > checks.EXTREME
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        checks.check_images(images)
    assert len(told) == far and all('taken as they are' in str(one.message) for one in told)
    if xp is jnp:  # jax's arrays do not change: there is nothing more to say
        checks.check_images(images)


def test_images_of_one_picture_are_the_same_in_every_type(rng):
    """0 .. 255 as bytes, 16 bits and floats in [0, 1] teach and answer alike, and no other range does so unnoticed."""
    pixels = rng.integers(0, 256, (6, 5, 5, 1), np.uint8)
    pixels[0, 0, :2, 0] = 0, 255
    net = (Layer(4, rules.krotov(), plasticity.ascend(0.1), Window(3)),)
    state = train.init(net, jax.random.key(0), (5, 5, 1))
    forms = [pixels, 257 * pixels.astype(np.uint16), (pixels / 255).astype(np.float32)]
    answers = [train.features(net, train.train_step(net, state, one)[0].layers, one) for one in forms]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], rtol=1e-5, atol=1e-6)
    epoch = train.make_train_epoch(net, batch=3)
    for kind in (np.int8, np.int32, np.int64, np.uint32):
        for call in (lambda one: epoch(state, one), lambda one: train.features(net, state.layers, one)):
            assert 'does not say what white is' in sentence(call, pixels.astype(kind))
    with pytest.warns(UserWarning, match='run from 0 to 255'):
        epoch(state, pixels.astype(np.float32))


# Labels


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(0, 7))
def test_labels_in_any_clear_form_are_the_same_labels(numbers, form):
    labels = np.array(numbers)
    forms = [
        numbers, tuple(numbers), labels[:, None], labels.astype(float), labels.astype(np.float16)[:, None],
        np.eye(5)[labels], np.eye(5, dtype=bool)[labels], jnp.asarray(labels)[:, None],
    ]  # fmt: skip
    found = checks.check_labels(forms[form], 5, len(numbers))
    assert found.dtype.kind == 'i' and found.shape == (len(numbers),)
    np.testing.assert_array_equal(found, labels)


def test_booleans_are_two_classes_and_integers_pass_untouched():
    np.testing.assert_array_equal(checks.check_labels([True, False], 2), [1, 0])
    for labels in (np.arange(3), jnp.arange(3), np.arange(3, dtype=np.uint8)):
        assert checks.check_labels(labels, 3, 3) is labels


@given(st.sampled_from(['a', b'x', None, 0.5, np.nan, np.inf, -1, -1.0, 7, 2**40, 1j]), st.integers(0, 3))
def test_one_label_that_is_none_is_refused(wrong, place):
    labels = [0, 1, 2, 3]
    labels[place] = wrong
    assert sentence(checks.check_labels, labels, 7).startswith('labels ')


@pytest.mark.parametrize(
    'labels, says',
    [
        (3, 'not an array of shape ()'),
        (np.zeros((2, 3)), 'or one-hot rows'),
        (np.eye(4), 'one-hot labels of 4 classes do not fit 3'),
        (np.ones((2, 1, 1), int), 'not an array of shape (2, 1, 1)'),
        ([[1], [1, 2]], 'labels are an array of numbers, not [[1], [1, 2]]'),
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
        if not checks.looks_channels_first(shape):
            assert checks.check_image_shape(shape) == tuple(shape)
    else:
        assert '(H, W, C)' in sentence(checks.check_image_shape, shape)


def test_a_whole_batchs_shape_is_told_from_an_images():
    assert 'give images.shape[1:]' in sentence(checks.check_image_shape, (60, 8, 8, 1))


@pytest.mark.parametrize('key', [0, None, 'seed', np.int64(3), np.zeros(2), jnp.zeros(3)])
def test_what_is_no_key_is_refused(key):
    assert 'jax.random.key(' in sentence(checks.check_key, key)


def test_both_kinds_of_keys_pass():
    checks.check_key(jax.random.key(0))
    checks.check_key(jax.random.PRNGKey(0))


@given(
    st.one_of(st.floats(), st.integers(-(2**80), 2**80)),
    st.sampled_from([float, np.float32, np.float64, jnp.float32, lambda one: one]),
)
def test_a_setting_fits_in_every_type_of_number_or_in_none(value, kind):
    with np.errstate(over='ignore'):
        given_value = kind(value)
    number = float(given_value)
    assert checks.misfits(given_value, lambda one: one > 1) == (not (np.isfinite(number) and number > 1))


@pytest.mark.parametrize('value', [None, 'one', '1', b'1', [1], {}, (), np.ones(2), 10**400, 1j, object()])
def test_what_is_no_number_fits_nothing(value):
    assert checks.misfits(value, lambda one: True)


def test_a_traced_setting_passes():
    jax.jit(lambda rate: plasticity.ascend(rate) and 0.0 * rate)(-1.0)


@pytest.mark.parametrize('value', [True, np.True_, 1.0, '1', None, 0, -3, np.float64(2)])
def test_only_whole_numbers_count(value):
    assert not checks.is_count(value)
    assert not checks.is_count(2**31)
    assert checks.is_count(np.int64(2)) and checks.is_count(2) and checks.is_count(0, 0)


HOSTILE = [np.nan, np.inf, -1.0, np.float32(-1), np.float64('nan'), jnp.float32(np.nan), None, 'fast']
SETTINGS = {
    'krotov p': lambda value: rules.krotov(p=value),
    'krotov delta': lambda value: rules.krotov(delta=value),
    'krotov k': lambda value: rules.krotov(k=value),
    'hebb winners': lambda value: rules.hebb(value) if value is not None else rules.hebb(0),
    'nearest winners': lambda value: prototypes.nearest(value) if value is not None else prototypes.nearest(-2),
    'ascend': plasticity.ascend,
    'anneal rate': lambda value: plasticity.anneal(value, 2, 2),
    'anneal epochs': lambda value: plasticity.anneal(1.0, value, 2),
    'after steps': lambda value: plasticity.after(value, 1.0),
    'after rate': lambda value: plasticity.after(2, value),
    'scale floor': lambda value: plasticity.scale_by_max_abs(floor=value),
    'soft_wta': hebbjax.competition.soft_wta,
    'softmax': hebbjax.activations.softmax,
    'k_wta': hebbjax.competition.k_wta,
    'repu': hebbjax.activations.repu,
    'pruned': hebbjax.initial.pruned,
    'max_pool': hebbjax.max_pool,
    'shift': hebbjax.augment.shift,
    'homeostasis': hebbjax.Homeostasis,
    'stage': stages.Stage,
    'plan': lambda value: stages.plan('parallel', NET, value),
    'features': lambda value: Layer(value, rules.krotov(), plasticity.ascend(0.1)),
    'dropout': lambda value: Layer(4, rules.krotov(), plasticity.ascend(0.1), dropout=value),
    'glimpses': lambda value: Layer(4, rules.krotov(), plasticity.ascend(0.1), glimpses=-2 if value is None else value),
    'batch': lambda value: train.make_train_epoch(NET, batch=value),
}


@pytest.mark.parametrize('name', SETTINGS)
@pytest.mark.parametrize('value', HOSTILE, ids=repr)
def test_no_setting_takes_what_is_no_number_of_its_range(name, value):
    sentence(SETTINGS[name], value)


@pytest.mark.parametrize('name', ['krotov k', 'hebb winners', 'anneal epochs', 'stage', 'plan', 'features', 'batch'])
@pytest.mark.parametrize('value', [True, 1.5, 2.0, np.float32(3), 10**20], ids=repr)
def test_what_is_counted_is_a_whole_number(name, value):
    sentence(SETTINGS[name], value)


# Networks, states and images together

NET = (
    Layer(6, rules.krotov(), plasticity.ascend(0.1), Window(3), pool=hebbjax.max_pool(2)),
    Layer(4, rules.instar(), plasticity.ascend(0.1), Window(2)),
)
LAYER = NET[0]


@pytest.fixture(scope='module')
def state():
    """A state of the network for 8 x 8 images."""
    return train.init(NET, jax.random.key(0), (8, 8, 1))


def make(*args, **how):
    """Start a training on fitting arguments but for those given."""
    given_args = dict(zip(('net', 'key', 'shape', 'weights'), args)) | how
    fitting = {'net': NET, 'key': jax.random.key(0), 'shape': (8, 8, 1), 'weights': None} | given_args
    return train.init(fitting['net'], fitting['key'], fitting['shape'], fitting['weights'])


@pytest.mark.parametrize(
    'how, says',
    [
        ({'net': LAYER}, r'write (layer,)'),
        ({'net': ()}, 'at least one'),
        ({'net': (LAYER, None)}, 'a tuple of layers'),
        ({'net': 'krotov'}, 'a tuple of layers'),
        ({'key': 0}, 'jax.random.key(0)'),
        ({'shape': (8, 8)}, '(H, W, C)'),
        ({'shape': (60, 8, 8, 1)}, 'images.shape[1:]'),
        ({'shape': (1, 8, 8)}, 'channels first'),
        ({'weights': [np.ones((6, 9), int), None]}, 'floating point numbers, not int'),
        ({'weights': [np.full((6, 9), np.nan, np.float32), None]}, 'layer 1: weights to start from hold NaN'),
        ({'weights': [np.ones((5, 9), np.float32), None]}, 'do not fit a layer that needs (6, 9)'),
        ({'net': (Layer(1, rules.krotov(), plasticity.ascend(0.1)),)}, 'use a layer of 2 neurons or more'),
    ],
)
def test_a_start_that_cannot_be_is_refused_in_a_sentence(how, says):
    assert says in sentence(lambda: make(**how))


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_half_precision_weights_are_taken_as_float32(dtype):
    w = jnp.linspace(0, 1, 54, dtype=dtype).reshape(6, 9)
    started = make(weights=[w, None])
    assert started.layers[0].w.dtype == jnp.float32
    np.testing.assert_array_equal(started.layers[0].w, w.astype(jnp.float32))


@given(h=st.integers(3, 12), w=st.integers(3, 12), channels=st.integers(1, 3))
def test_images_of_another_size_than_a_state_was_made_for_are_refused(h, w, channels):
    started, images = STATE.get(), np.zeros((2, h, w, channels), np.uint8)
    calls = [
        lambda: train.features(NET, started.layers, images),
        lambda: train.train_step(NET, started, images),
        lambda: train.make_train_step(NET)(started, images),
        lambda: train.make_train_epoch(NET, batch=2)(started, images),
    ]
    if (h, w, channels) != (8, 8, 1):
        for call in calls:
            said = sentence(call)
            assert f'{h} x {w} x {channels} do not fit a layer made for 8 x 8 x 1' in said or 'channels first' in said


class STATE:
    """The state that drawn tests share, made once."""

    made = None

    @classmethod
    def get(cls):
        """Make it, or give it again."""
        cls.made = cls.made or make()
        return cls.made


@pytest.mark.parametrize(
    'call, says',
    [
        (lambda s, x: train.features(NET, s, x), 'give state.layers'),
        (lambda s, x: train.features(NET, s.layers[0], x), 'one LayerState per layer'),
        (lambda s, x: train.features(NET, (), x), '0 states do not fit 2 layers'),
        (lambda s, x: train.features(NET, s.layers[:1], x), '1 states do not fit 2 layers'),
        (lambda s, x: train.features(NET, s.layers[::-1], x), 'layer 1 has 6 neurons'),
        (lambda s, x: train.features(NET[:1], s.layers, x), '2 states do not fit 1 layers'),
        (lambda s, x: train.features(LAYER, s.layers, x), 'write (layer,)'),
        (lambda s, x: train.features(NET, s.layers, x, upto=-1), 'use 0 to 2'),
        (lambda s, x: train.features(NET, s.layers, x, upto=5), 'use 0 to 2'),
        (lambda s, x: train.features(NET, s.layers, x, upto=1.0), 'use 0 to 2'),
        (lambda s, x: train.features(NET, s.layers, x, upto=True), 'use 0 to 2'),
        (lambda s, x: train.features(NET, s.layers, x[0]), 'images[None] if this is one image'),
        (lambda s, x: train.features(NET, s.layers, list(x)), 'numpy.stack'),
        (lambda s, x: train.features(NET, s.layers, x[:0]), 'n >= 1'),
        (lambda s, x: train.features(NET, s.layers, x.reshape(5, -1)), 'reshape(-1, H, W, C)'),
        (lambda s, x: train.features(NET, s.layers, x.astype(np.complex64)), 'complex64'),
        (lambda s, x: train.features(NET, s.layers, np.float32(np.inf) * (x + np.float32(1))), 'non-finite'),
        (lambda s, x: train.train_step(NET, s.layers, x), 'TrainState that init makes'),
        (lambda s, x: train.make_train_step(NET)(s.layers, x), 'TrainState that init makes'),
        (lambda s, x: train.make_train_epoch(NET, batch=2)(s, x[:0]), 'n >= 1'),
        (lambda s, x: train.make_train_epoch(NET, batch=9)(s, x), 'a batch of 9 is larger than the 5 images'),
        (lambda s, x: train.make_train_epoch(NET, batch=2)(s, x, [0, 1]), '2 labels do not fit 5 images'),
        (lambda s, x: train.make_train_epoch(NET, batch=2)(s, x, ['a'] * 5), 'numpy.unique'),
        (lambda s, x: Layer(4, rules.krotov, plasticity.ascend(0.1)), 'learns by a rule'),
        (lambda s, x: Layer(4, rules.krotov(), 0.1), 'moves by an optax transformation'),
        (lambda s, x: Layer(4, rules.krotov(), plasticity.ascend(0.1), 5), 'through a Window, such as Window(5)'),
        (lambda s, x: Layer(4, rules.krotov(), plasticity.ascend(0.1), fire=None), 'fire of a layer is a function'),
        (lambda s, x: Layer(4, rules.krotov(), plasticity.ascend(0.1), patch='raw'), 'patch of a layer is a function'),
        (lambda s, x: Layer(4, rules.krotov(), plasticity.ascend(0.1), homeostasis=3.0), 'is a Homeostasis or None'),
        (
            lambda s, x: hebbjax.init(
                (Layer(4, rules.krotov(), plasticity.ascend(0.1), Window(2.5)),), jax.random.key(0), (8, 8, 1)
            ),
            'out of range',
        ),
        (lambda s, x: train.make_train_epoch(NET, batch=2, stage=3), 'a stage is a stages.Stage'),
        (lambda s, x: train.make_train_epoch(NET, batch=2, watch=3), 'told by a monitor.Monitor'),
        (lambda s, x: stages.plan('parallel', LAYER, 3), 'write (layer,)'),
        (lambda s, x: layers.exemplars(LAYER, 3, x), 'jax.random.key(3)'),
        (lambda s, x: hebbjax.init(NET, jax.random.split(jax.random.key(0), 3), (8, 8, 1)), 'one key is wanted'),
    ],
)
def test_what_does_not_fit_together_is_refused_in_a_sentence(call, says, state, rng):
    assert says in sentence(call, state, rng.integers(0, 256, (5, 8, 8, 1), np.uint8))


def test_a_teacher_is_given_classes_that_it_has(rng):
    images = rng.integers(0, 256, (6, 5, 5, 1), np.uint8)
    net = (Layer(6, rules.instar(), plasticity.ascend(0.1), teacher=teachers.groups(3, 2)),)
    started = train.init(net, jax.random.key(0), (5, 5, 1))
    epoch, step = train.make_train_epoch(net, batch=3), train.make_train_step(net)
    for call in (epoch, step, lambda *args: train.train_step(net, *args)):
        for wrong in ([1, 2, 3, 1, 2, 3], [0, 1, 2, -1, 0, 1]):
            assert 'use 0 to 2' in sentence(call, started, images, wrong)
    right = np.array([0, 1, 2, 2, 1, 0])
    expected, _ = epoch(started, images, right)
    for form in (right[:, None], right.astype(float), np.eye(3)[right], right.tolist()):
        np.testing.assert_array_equal(epoch(started, images, form)[0].layers[0].w, expected.layers[0].w)


def test_a_padded_window_of_patches_is_still_what_was_cut(rng):
    """The door does not change what is behind it: a dense layer sees the pixels, divided by 255."""
    pixels = rng.integers(0, 256, (3, 4, 4, 2), np.uint8)
    x = patches.extract(Window(), layers.intensities(jnp.asarray(pixels)))
    np.testing.assert_allclose(x.reshape(3, -1), pixels.reshape(3, -1) / 255, rtol=1e-6)


STRANGE = [
    None, True, -1, 1.5, np.nan, 10**20, 'a', b'x', [], {}, [[1, 2], [3]], np.ones(3), np.zeros((2, 2)), object(), 1j,
    jax.random.key(0), NET, LAYER, Window(3), np.array(['a']), np.array([None]),
]  # fmt: skip


@pytest.mark.parametrize('value', STRANGE, ids=lambda value: type(value).__name__)
def test_nothing_strange_gets_past_a_door(value, state, rng):
    """Whatever comes in the place of an argument: it is taken, or met with one sentence of our own."""
    images, labels = rng.integers(0, 256, (6, 8, 8, 1), np.uint8), np.arange(6) % 3
    epoch, step = train.make_train_epoch(NET, batch=3), train.make_train_step(NET)
    calls = [
        lambda: train.init(value, jax.random.key(0), (8, 8, 1)),
        lambda: train.init(NET, value, (8, 8, 1)),
        lambda: train.init(NET, jax.random.key(0), value),
        lambda: train.features(value, state.layers, images),
        lambda: train.features(NET, value, images),
        lambda: train.features(NET, state.layers, value),
        lambda: train.features(NET, state.layers, images, value),
        lambda: train.train_step(NET, value, images),
        lambda: train.train_step(NET, state, value),
        lambda: epoch(value, images),
        lambda: epoch(state, value),
        lambda: step(state, value, labels),
        lambda: epoch(state, images, value),
        lambda: stages.plan('parallel', value, 2),
        lambda: stages.plan(value, NET, 2),
        lambda: layers.exemplars(value, jax.random.key(0), images),
    ]
    for number, call in enumerate(calls):
        try:
            call()
        except ValueError as error:
            assert str(error).rstrip().endswith('.') and '\n' not in str(error), (number, str(error))
