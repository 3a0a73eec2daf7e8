"""What leaves the library answers as it did inside; what comes in is whole, or refused."""

import dataclasses
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import FLOATS, assert_bits, drawn, is_refused
from jax import export as jax_export

from hebbjax import Homeostasis, Layer, TrainState, Window, features, layers, rules
from hebbjax.interop import export
from hebbjax.layers import normalization, patches
from hebbjax.layers.layer import ImageShape
from hebbjax.transforms import scale_by_rate

ASCEND = scale_by_rate(0.1)
SHAPE = (7, 6, 3)
CONV = Layer(
    4,
    rules.krotov(2, 0.4, 3.0),
    ASCEND,
    Window((3, 2), stride=(2, 1), padding=1),
    pre=(layers.standardise,),
    patch_transform=patches.centred_l2,
    output='effective',
    homeostasis=Homeostasis(),
    post=(layers.triangle, layers.max_pool(2), layers.BatchNorm()),
)
NET = (CONV, Layer(5, rules.instar(1), ASCEND, post=()))
IMAGES = np.random.default_rng(0).integers(0, 256, (9, *SHAPE), np.uint8)


def drawn_states(dtype='float32', seed=0):
    """States of the network as a training might have left them, of a dtype; made on the host, nothing is compiled."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(np.abs(rng.normal(size=shape)).astype(jnp.dtype(dtype)))  # noqa: E731
    norm = layers.PartState(
        normalization.NormParams(draw(4), draw(4)), normalization.NormStats(draw(4), draw(4), draw())
    )
    bare = layers.PartState()
    conv = layers.LayerState(draw(4, 18), (), (), draw(4), (bare,), (bare, bare, norm), ImageShape(SHAPE))
    return conv, layers.LayerState(draw(5, 24), (), ())


STATES = drawn_states()


@pytest.fixture(scope='module')
def answers():
    """What the network answers, all of it and its first layer."""
    return [jax.jit(lambda images, upto=upto: features(NET, STATES, images, upto))(IMAGES) for upto in (None, 1)]


# The compiled function


@pytest.fixture(scope='module')
def exported():
    """A file's bytes for uint8 images."""
    return export.export_features(NET, STATES, SHAPE, dtype='uint8')


def test_an_exported_network_answers_any_number_of_images_as_ever(answers, exported, tmp_path):
    (path := tmp_path / 'network').write_bytes(exported)
    call = export.load_exported(path)
    for size in (9, 2):
        np.testing.assert_allclose(call(IMAGES[:size]), answers[0][:size], rtol=1e-5, atol=1e-6)
    for images in (IMAGES.astype(np.float32), IMAGES[:, 1:], IMAGES[0]):
        with pytest.raises(ValueError, match=r'do not fit a network exported for u(int)?8\[batch,7,6,3\]'):
            call(images)


def test_an_exported_network_needs_nothing_of_this_library(answers, exported):
    program = jax_export.deserialize(bytearray(exported))
    assert program.platforms == ('cpu', 'cuda', 'tpu')
    np.testing.assert_allclose(program.call(IMAGES[:3]), answers[0][:3], rtol=1e-5, atol=1e-6)


def test_a_part_of_a_network_is_exported_for_floating_images(answers):
    call = export.load_exported(export.export_features(NET, STATES, SHAPE, upto=1))
    images = IMAGES.astype(np.float32) / 255
    np.testing.assert_allclose(call(images), answers[1], rtol=1e-5, atol=1e-6)
    images[2, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match='images hold 1 non-finite values, the first in image 2'):
        call(images)


@pytest.mark.parametrize('precision', ['float32x3', 'bfloat16'])
def test_networks_of_any_precision_are_exported(precision):
    """A layout that products ask for is nothing that an exported program may have."""
    net = tuple(dataclasses.replace(layer, precision=precision) for layer in NET)
    call = export.load_exported(export.export_features(net, STATES, SHAPE, dtype='uint8'))
    np.testing.assert_allclose(call(IMAGES), features(net, STATES, IMAGES), rtol=1e-4, atol=1e-4)


def test_damaged_exports_are_one_sentence(exported, tmp_path):
    for damaged in (exported[:-1], b'', b'else', *drawn(exported, 50)):
        with pytest.raises(ValueError, match='this is damaged or no exported network; export it again'):
            export.load_exported(damaged)
    with pytest.raises(FileNotFoundError, match='none'):
        export.load_exported(tmp_path / 'none')


HURT = STATES[1]._replace(w=STATES[1].w.at[0].set(jnp.nan))


@pytest.mark.parametrize(
    ('settings', 'says'),
    [
        ({'dtype': 'int32'}, "images of int32 cannot be exported for; use 'uint8' or 'float32'"),
        ({'states': (STATES[0], HURT)}, 'layer_1.kernel holds NaN or infinity'),
        *[
            ({'upto': upto}, '^upto=.* is out of range; use a whole number from 0 to 2')
            for upto in (-1, 3, 1.0, True, '1')
        ],
        *[
            ({'image_shape': shape}, 'image')
            for shape in ((7, 6), (7, 6, 1), (3, 7, 7), (7, 0, 3), 7, None, (19, 6, 3))
        ],
    ],
)
def test_what_does_not_fit_a_network_is_not_exported(settings, says):
    with pytest.raises(ValueError, match=says):
        export.export_features(**{'net': NET, 'states': STATES, 'image_shape': SHAPE} | settings)


@pytest.mark.parametrize(
    ('net', 'states', 'says'),
    [
        (NET, STATES[:1], '1 states do not fit 2 layers'),
        (NET, STATES[0], r'such as state\.layers, not LayerState'),
        (NET, TrainState(0, 0, STATES), r'such as state\.layers, not TrainState'),
        (NET, None, r'such as state\.layers, not NoneType'),
        (NET, STATES[::-1], r'layer 1 has 4 neurons, and its state weights of shape \(5, 24\)'),
        (CONV, STATES[:1], r'write \(layer,\)'),
        ((), (), r'a network is a tuple of layers, at least one, not \(\)'),
    ],
)
def test_states_that_are_not_the_networks_are_refused(net, states, says, tmp_path):
    path = tmp_path / 'x.npz'
    for out in (
        lambda: export.export_features(net, states, SHAPE),
        lambda: export.save_weights(path, net, states),
        lambda: export.load_weights(path, net, states),
    ):
        with pytest.raises(ValueError, match=says) as refused:
            out()
        assert str(refused.value).endswith('.') and len(str(refused.value)) < 200
    assert not list(tmp_path.iterdir())


# Weights

SUFFIXES = ('.npz', '.safetensors')
NAMES = ['layer_0.kernel', *(f'layer_0.post.2.{name}' for name in ('params.scale', 'params.shift'))]
NAMES += [f'layer_0.post.2.stats.{name}' for name in ('mean', 'var', 'filled')]
NAMES += ['layer_0.threshold', 'layer_1.kernel']
FRESH = drawn_states(seed=7)


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    """A file with the network's weights in it."""
    export.save_weights(path := tmp_path / f'weights{request.param}', NET, STATES)
    assert list(tmp_path.iterdir()) == [path]
    return path


def arrays_of(states):
    """All arrays of states, by their names."""
    return {jax.tree_util.keystr(place): leaf for place, leaf in jax.tree_util.tree_leaves_with_path(list(states))}


def read_plainly(path):
    """Read as those do who have numpy or safetensors alone."""
    if path.suffix == '.npz':
        return dict(np.load(path))
    from safetensors.numpy import load_file

    return load_file(path)


def write_plainly(path, arrays):
    """Write arrays as those do who never heard of hebbjax: without a checksum."""
    if path.suffix == '.npz':
        return np.savez(path, **arrays)
    from safetensors.numpy import save_file

    return save_file({name: np.asarray(a, order='C') for name, a in arrays.items()}, path)


def test_weights_come_back_bit_by_bit_into_other_states(path):
    states = export.load_weights(path, NET, [state._replace(rule='its own') for state in FRESH])
    assert [state.rule for state in states] == ['its own', 'its own']
    assert_bits(arrays_of(state._replace(rule=()) for state in states), arrays_of(STATES))


@pytest.mark.parametrize(
    ('suffix', 'dtype'),
    [('.npz', name) for name in FLOATS if name != 'float32']
    + [('.safetensors', 'float16'), ('.safetensors', 'bfloat16')],
)
def test_weights_of_any_floating_dtype_come_back(suffix, dtype, tmp_path):
    path, states = tmp_path / f'weights{suffix}', drawn_states(dtype)
    export.save_weights(path, NET, states)
    assert_bits(arrays_of(export.load_weights(path, NET, drawn_states(dtype, 7))), arrays_of(states))


def test_others_read_kernels_in_flaxs_layout(path):
    """Convolve with what is found."""
    arrays = read_plainly(path)
    assert sorted(arrays) == sorted(NAMES)
    np.testing.assert_array_equal(arrays['layer_1.kernel'].T, STATES[1].w)
    plain = dataclasses.replace(CONV, patch_transform=patches.raw, output='weights')
    images = jnp.asarray(IMAGES.astype(np.float32))
    settings = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), 'precision': jax.lax.Precision.HIGHEST}
    theirs = jax.lax.conv_general_dilated(images, arrays['layer_0.kernel'], (2, 1), [(1, 1), (1, 1)], **settings)
    np.testing.assert_allclose(theirs, layers.drives(plain, STATES[0].w, images), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize('dtype', ['float16', 'float64'])
def test_weights_of_others_are_read(dtype, path):
    arrays = {name: array.astype(dtype) for name, array in read_plainly(path).items()}
    write_plainly(path, arrays)
    states = export.load_weights(path, NET, FRESH)
    assert states[0].w.dtype == jnp.float32
    np.testing.assert_array_equal(states[1].w, arrays['layer_1.kernel'].T.astype('f4'))


def test_what_is_no_file_of_these_weights_is_one_sentence(path):
    whole, arrays = path.read_bytes(), read_plainly(path)
    for damaged in (whole[: len(whole) // 2], whole[:-1], b'', b'something else'):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf'\{path.suffix} is damaged \(.+\); save it again'):
            export.load_weights(path, NET, FRESH)
    with pytest.raises(FileNotFoundError, match='other'):
        export.load_weights(path.with_stem('other'), NET, FRESH)
    kernel = arrays.pop('layer_1.kernel')
    for more, says in (
        ({}, r'layer_1\.kernel is missing, and here it is floats \[24, 5\]'),
        ({'layer_1.kernel': kernel[:, :4]}, r'layer_1\.kernel is floats \[24, 4\], and here it is floats \[24, 5\]'),
        ({'layer_1.kernel': kernel.astype(np.int32)}, r'layer_1\.kernel is int32 \[24, 5\], and here'),
        (
            {'layer_1.kernel': kernel, 'layer_1.bias': kernel[0]},
            r'layer_1\.bias is floats \[5\], and here it is missing',
        ),
    ):
        write_plainly(path, arrays | more)
        with pytest.raises(ValueError, match=f'holds weights of another network: {says}'):
            export.load_weights(path, NET, FRESH)


def test_every_damage_of_weights_is_refused_or_harmless(path):
    """The parts in which a format keeps its own books are damaged as often as the rest."""
    whole, hurt = path.read_bytes(), 0
    start = (whole[:400], whole[400:])
    for broken in (*drawn(whole, 75), *(head + start[1] for head in drawn(start[0], 75, seed=1))):
        path.write_bytes(broken)
        hurt += is_refused(lambda: arrays_of(export.load_weights(path, NET, FRESH)), arrays_of(STATES))
    assert hurt > 90


def test_numbers_that_are_none_are_neither_saved_nor_loaded(path):
    before, arrays = path.read_bytes(), read_plainly(path)
    for name in ('layer_0.kernel', 'layer_0.post.2.stats.var', 'layer_0.threshold'):
        for bad in (np.nan, np.inf, -np.inf):
            write_plainly(path, arrays | {name: np.full_like(arrays[name], bad)})
            with pytest.raises(ValueError, match=rf'^{name} holds NaN or infinity'):
                export.load_weights(path, NET, FRESH)
    path.write_bytes(before)
    norm = STATES[0].post[2]
    hurt = norm._replace(stats=norm.stats._replace(var=norm.stats.var * jnp.inf))
    for name, changes in {
        'kernel': {'w': STATES[0].w.at[0].set(-jnp.inf)},
        'threshold': {'threshold': STATES[0].threshold.at[1].set(jnp.nan)},
        'post.2.stats.var': {'post': (*STATES[0].post[:2], hurt)},
    }.items():
        with pytest.raises(ValueError, match=rf'^layer_0\.{name} holds NaN or infinity; use weights of before that'):
            export.save_weights(path, NET, (STATES[0]._replace(**changes), STATES[1]))
    assert path.read_bytes() == before


def test_parts_whose_arrays_have_no_name_or_the_same_are_kept_apart(tmp_path):
    layer = Layer(5, rules.instar(1), ASCEND, post=(layers.relu, layers.relu))
    twice = layers.PartState({'a': jnp.ones(2)}, {'a': jnp.zeros(2)})
    state = layers.LayerState(jnp.ones((5, 3)), (), (), post=(layers.PartState(jnp.ones(3)), twice))
    export.save_weights(path := tmp_path / 'weights.npz', (layer,), (state,))
    names = ('kernel', 'post.0.params', 'post.1.params.a', 'post.1.stats.a')
    assert sorted(read_plainly(path)) == [f'layer_0.{name}' for name in names]
    assert_bits(arrays_of(export.load_weights(path, (layer,), (state,))), arrays_of([state]))


def test_other_endings_are_refused_before_anything_is_touched(tmp_path):
    path = tmp_path / 'weights.pt'
    with pytest.raises(ValueError, match=r"='\.pt' is unknown; there are \.npz, \.safetensors"):
        export.save_weights(path, NET, STATES)
    with pytest.raises(ValueError, match='is unknown'):
        export.load_weights(path, NET, STATES)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file_whole(path, monkeypatch):
    def fail(*args):
        raise OSError('disk full')

    before = path.read_bytes()
    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match='disk full'):
        export.save_weights(path, NET[:1], STATES[:1])
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_without_an_extra_its_name_is_given(exported, tmp_path, monkeypatch):
    (path := tmp_path / 'weights.safetensors').touch()
    for module in ('flatbuffers', 'safetensors', 'safetensors.numpy'):
        monkeypatch.setitem(sys.modules, module, None)
    for call in (lambda: export.export_features(NET, STATES, SHAPE), lambda: export.load_exported(exported)):
        with pytest.raises(ImportError, match=r"needs flatbuffers, .* pip install 'hebbjax\[export\]'"):
            call()
    for call in (export.save_weights, export.load_weights):
        with pytest.raises(ImportError, match=r"needs safetensors, .* pip install 'hebbjax\[safetensors\]'"):
            call(path, NET, STATES)
    export.save_weights(tmp_path / 'weights.npz', NET, STATES)
