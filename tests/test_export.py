"""What leaves the library answers as it did inside; what comes in is whole, or refused."""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from damage import FLOATS, assert_bits, bits, drawn, is_refused
from hypothesis import given
from hypothesis import strategies as st
from jax import export as jax_export

import hebbjax
from hebbjax import (
    Homeostasis,
    Layer,
    Window,
    activations,
    checkpoint,
    export,
    layers,
    norms,
    patches,
    plasticity,
    pooling,
    rules,
    whitening,
)

ASCEND = optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(0.1))
SHAPE = (7, 6, 3)
CONV = Layer(
    4,
    rules.krotov(2, 0.4, 3.0),
    ASCEND,
    Window((3, 2), stride=(2, 1), padding=1),
    patch=patches.centred_l2,
    send='seen',
    prepare=whitening.standardise,
    homeostasis=Homeostasis(),
    fire=activations.triangle,
    pool=pooling.max_pool(2),
)
NET = (CONV, Layer(5, rules.instar(1), ASCEND, fire=lambda u: u))


@pytest.fixture(scope='module')
def trained():
    """A network of a convolution and a dense layer, and images as bytes and as numbers."""
    images = np.random.default_rng(0).integers(0, 256, (9, *SHAPE), np.uint8)
    state = hebbjax.init(NET, jax.random.key(0), SHAPE)
    state, _ = hebbjax.make_train_step(NET)(state, jnp.asarray(images))
    assert np.abs(state.layers[0].threshold).max() > 0
    return state.layers, images


@pytest.fixture(scope='module')
def answers(trained):
    """What the network answers, all of it and its first layer."""
    states, images = trained
    own = jax.jit(lambda images, upto=None: hebbjax.features(NET, states, images, upto), static_argnums=1)
    return own(images), own(images, 1)


# The compiled function


@pytest.fixture(scope='module')
def exported(trained):
    """A file's bytes for uint8 images."""
    return export.export(NET, trained[0], SHAPE, dtype='uint8')


def test_an_exported_network_answers_any_number_of_images_as_ever(trained, answers, exported, tmp_path):
    images, path = trained[1], tmp_path / 'network'
    path.write_bytes(exported)
    for call in (export.load_exported(exported), export.load_exported(path)):
        for size in (9, 2):
            np.testing.assert_allclose(call(images[:size]), answers[0][:size], rtol=1e-5, atol=1e-6)


def test_an_exported_network_needs_nothing_of_this_library(trained, answers, exported):
    program = jax_export.deserialize(bytearray(exported))
    assert program.platforms == ('cpu', 'cuda', 'tpu')
    np.testing.assert_allclose(program.call(trained[1][:3]), answers[0][:3], rtol=1e-5, atol=1e-6)


def test_a_part_of_a_network_is_exported_for_floating_images(trained, answers):
    call = export.load_exported(export.export(NET, trained[0], SHAPE, upto=1))
    shown = jnp.asarray(trained[1], jnp.float32) / 255
    found = call(shown)
    np.testing.assert_allclose(found, answers[1], rtol=1e-5, atol=1e-6)
    assert found.shape[1] != answers[0].shape[1]


def test_images_that_do_not_fit_an_exported_network_are_refused(exported, trained):
    call = export.load_exported(exported)
    for images in (trained[1].astype(np.float32), trained[1][:, 1:], trained[1][0]):
        with pytest.raises(ValueError, match=r'do not fit a network exported for u(int)?8\[batch,7,6,3\]'):
            call(images)
    with pytest.raises(ValueError, match="images of int32 cannot be exported for; use 'uint8' or 'float32'"):
        export.export(NET, trained[0], SHAPE, dtype='int32')


def test_damaged_exports_are_one_sentence(exported, tmp_path):
    for damaged in (exported[:-1], b'', b'else', *drawn(exported, 100)):
        with pytest.raises(ValueError, match='this is damaged or no exported network; export it again'):
            export.load_exported(damaged)
    with pytest.raises(FileNotFoundError, match='is no file'):
        export.load_exported(tmp_path / 'none')


def test_images_that_are_no_numbers_are_refused(trained):
    call = export.load_exported(export.export(NET[:1], trained[0][:1], SHAPE))
    with pytest.raises(ValueError, match='images hold 1 non-finite values, the first in image 2'):
        call(np.ones((3, *SHAPE), np.float32) * np.where(np.arange(3 * 7 * 6 * 3) == 300, np.nan, 1).reshape(3, *SHAPE))


@pytest.mark.parametrize(
    ('net', 'states', 'says'),
    [
        (NET, lambda states: states[:1], '1 states do not fit 2 layers'),
        (NET, lambda states: states * 2, '4 states do not fit 2 layers'),
        (NET, lambda states: (), '0 states do not fit 2 layers'),
        (NET, lambda states: states[0], r'such as state\.layers, not LayerState'),
        (NET, lambda states: hebbjax.TrainState(0, 0, states), r'wanted; give state\.layers'),
        (NET, lambda states: None, r'such as state\.layers, not NoneType'),
        (
            NET,
            lambda states: [state.w for state in states],
            r'layer 1 has 4 neurons, and its state weights of shape \(\)',
        ),
        (NET, lambda states: states[::-1], r'layer 1 has 4 neurons, and its state weights of shape \(5, \d+\)'),
        (
            NET,
            lambda states: [state._replace(w=state.w[0]) for state in states],
            r'layer 1 has 4 neurons, and its state weights of shape \(18,\)',
        ),
        (CONV, lambda states: states[:1], r'this is a layer; write \(layer,\)'),
        ((), lambda states: (), r'a network is a tuple of layers, at least one, not \(\)'),
        ((1, 2), lambda states: states, r'a network is a tuple of layers, at least one, not \(1, 2\)'),
    ],
)
def test_states_that_are_not_the_networks_are_refused(net, states, says, trained, tmp_path):
    states = states(trained[0])
    for out in (
        lambda: export.export(net, states, SHAPE),
        lambda: export.save_weights(tmp_path / 'x.npz', net, states),
    ):
        with pytest.raises(ValueError, match=says) as refused:
            out()
        assert str(refused.value).endswith('.') and len(str(refused.value)) < 200
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('layer', [1, 2])
def test_networks_that_would_answer_nan_are_not_exported(layer, trained):
    states = [
        state._replace(w=state.w.at[0].set(jnp.nan)) if n == layer else state for n, state in enumerate(trained[0], 1)
    ]
    with pytest.raises(ValueError, match=rf'the state of layer {layer} holds NaN or infinity'):
        export.export(NET, states, SHAPE)


@pytest.mark.parametrize('upto', [-1, 0, 3, 99, 1.0, 1.5, True, '1', (1,)])
def test_layers_that_are_not_there_are_not_exported(upto, trained):
    with pytest.raises(ValueError, match=r'is no number of layers to pass through; use 1 to 2, or None for all\.'):
        export.export(NET, trained[0], SHAPE, upto)


@pytest.mark.parametrize(
    'shape', [(7, 6), (9, 7, 6, 3), (7, 6, 1), (3, 7, 7), (7, 0, 3), (7, 6, 3.0), 7, None, 'abc', (19, 6, 3), (7, 3, 3)]
)
def test_images_of_other_shapes_are_not_exported_for(shape, trained):
    with pytest.raises(ValueError, match=r'image|window'):
        export.export(NET, trained[0], shape)


# Weights

ENDINGS = ('.npz', '.safetensors')


@pytest.mark.parametrize('ending', ENDINGS)
def test_weights_come_back_bit_by_bit_with_equal_answers(ending, trained, answers, tmp_path):
    states, images = trained
    path = tmp_path / f'weights{ending}'
    export.save_weights(path, NET, states)
    assert list(tmp_path.iterdir()) == [path]
    weights, thresholds, found = export.load_weights(path)
    fresh = hebbjax.init(NET, jax.random.key(7), SHAPE, weights).layers
    fresh = [state._replace(threshold=threshold) for state, threshold in zip(fresh, thresholds)]
    for old, new in zip(states, fresh):
        np.testing.assert_array_equal(new.w, old.w)
    np.testing.assert_array_equal(fresh[0].threshold, states[0].threshold)
    assert thresholds[1] is None and found == [None, None]
    np.testing.assert_array_equal(jax.jit(lambda images: hebbjax.features(NET, fresh, images))(images), answers[0])


@pytest.mark.parametrize('ending', ENDINGS)
def test_a_norm_and_a_bias_come_back_bit_by_bit(ending, tmp_path):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    layer = Layer(4, rules.instar(1), ASCEND, bias=True, norm=norms.BatchNorm())
    state = layers.LayerState(draw(4, 6), (), (), draw(4), norms.NormState(*draw(4, 4)))
    path = tmp_path / f'weights{ending}'
    export.save_weights(
        path, (layer, dataclasses.replace(layer, bias=False)), (state, state._replace(threshold=None, norm=None))
    )
    weights, thresholds, found = export.load_weights(path)
    np.testing.assert_array_equal(weights[0], state.w)
    np.testing.assert_array_equal(thresholds[0], state.threshold)
    assert thresholds[1] is None and found[1] is None
    for new, old in zip(found[0], state.norm, strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize('ending', ENDINGS)
def test_others_read_kernels_in_flaxs_layout(ending, trained, tmp_path):
    """Read as those do who have numpy or safetensors alone, and convolve with what is found."""
    net = (dataclasses.replace(CONV, patch=patches.raw, prepare=None, send='weights'), NET[1])
    path = tmp_path / f'weights{ending}'
    export.save_weights(path, net, trained[0])
    if ending == '.npz':
        found = dict(np.load(path))
    else:
        from safetensors.numpy import load_file

        found = load_file(path)
    dense = trained[0][1].w
    shapes = {'layer_0.kernel': (3, 2, 3, 4), 'layer_0.threshold': (4,), 'layer_1.kernel': dense.shape[::-1]}
    assert {name: a.shape for name, a in found.items()} == shapes
    np.testing.assert_array_equal(found['layer_1.kernel'].T, dense)
    images = layers.intensities(jnp.asarray(trained[1]))
    settings = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), 'precision': jax.lax.Precision.HIGHEST}
    pads = [(1, 1), (1, 1)]
    theirs = jax.lax.conv_general_dilated(images, found['layer_0.kernel'], (2, 1), pads, **settings)
    ours = layers.predict(net[0], trained[0][0].w, images)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('ending', ENDINGS)
def test_damaged_missing_and_foreign_weights_are_one_sentence(ending, trained, tmp_path):
    path = tmp_path / f'weights{ending}'
    export.save_weights(path, NET, trained[0])
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1], b'', b'something else'):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf'damaged or no \{ending} file'):
            export.load_weights(path)
    with pytest.raises(FileNotFoundError, match='is no file'):
        export.load_weights(tmp_path / f'other{ending}')
    kernel = {'layer_0.kernel': np.ones((3, 2), np.float32)}
    for arrays in (
        {'weight': np.ones((3, 2), np.float32)},
        {'layer_1.kernel': np.ones((3, 2), np.float32)},
        {'layer_0.kernel': np.ones((3,), np.float32)},
        {'layer_0.kernel': np.ones((3, 2), np.int32)},
        kernel | {'layer_0.threshold': np.ones(3, np.float32)},
        kernel | {'layer_0.bias': np.ones(2, np.float32)},
        kernel | {'layer_0.scale': np.ones(2, np.float32)},
        kernel | {f'layer_0.{name}': np.ones(3, np.float32) for name in norms.NormState._fields},
        {},
    ):
        foreign(path, arrays)
        with pytest.raises(ValueError, match=r"holds no weights of hebbjax; they are called 'layer_0\.kernel'"):
            export.load_weights(path)


FOREIGN = ('float4_e2m1fn', 'float8_e3m4', 'float8_e4m3', 'float8_e4m3b11fnuz')  # to safetensors


def drawn_state(rng, dtype, number, size):
    """Draw a layer of a few neurons with finite weights of a dtype, and perhaps a threshold and a norm."""
    layer = Layer(int(rng.integers(1, 5)), rules.instar(1), ASCEND, Window(size))
    draw = lambda *shape: jnp.asarray(np.abs(rng.normal(size=shape)).astype(dtype))  # noqa: E731
    n = layer.features
    norm = norms.NormState(*(draw(n) for _ in range(4))) if number % 2 else None
    state = layers.LayerState(draw(n, (size or 1) ** 2 * 3), (), (), draw(n) if rng.integers(2) else None, norm)
    return layer, state


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('ending', ENDINGS)
def test_weights_of_any_floating_dtype_come_back_bit_by_bit_or_name_the_other_format(ending, dtype, tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / f'weights{ending}'
    net, states = zip(*(drawn_state(rng, jnp.dtype(dtype), number, size) for number, size in enumerate([2, None, 3])))
    if ending == '.safetensors' and dtype in FOREIGN:
        with pytest.raises(ValueError, match=r'safetensors cannot hold these weights .*save them to an \.npz file\.'):
            export.save_weights(path, net, states)
        assert not list(tmp_path.iterdir())
        return
    export.save_weights(path, net, states)
    weights, thresholds, found = export.load_weights(path)
    for state, *new in zip(states, weights, thresholds, found, strict=True):
        wanted = (state.w, state.threshold, state.norm)
        assert_bits(dict(enumerate(jax.tree.leaves(new))), dict(enumerate(jax.tree.leaves(wanted))))
        assert [one is None for one in new] == [one is None for one in wanted]


@pytest.mark.parametrize('ending', ENDINGS)
def test_every_damage_of_weights_is_refused_or_harmless(ending, trained, tmp_path):
    """The parts in which a format keeps its own books are damaged as often as the rest."""
    path = tmp_path / f'weights{ending}'
    export.save_weights(path, NET, trained[0])

    def read():
        weights, thresholds, norms = export.load_weights(path)
        assert norms == [None, None] and thresholds[1] is None
        return {0: weights[0], 1: weights[1], 2: thresholds[0]}

    whole, wanted, hurt = path.read_bytes(), read(), 0
    start = (whole[:400], whole[400:])
    for broken in (*drawn(whole, 150), *(one + start[1] for one in drawn(start[0], 150, seed=1))):
        path.write_bytes(broken)
        hurt += is_refused(read, wanted)
    assert hurt > 200


@pytest.mark.parametrize('ending', ENDINGS)
@given(
    bad=st.sampled_from([np.nan, np.inf, -np.inf]), where=st.integers(0, 4), dtype=st.sampled_from(['f4', 'bfloat16'])
)
def test_numbers_that_are_none_are_neither_saved_nor_loaded(ending, bad, where, dtype, tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / f'weights{ending}'
    layer, state = drawn_state(np.random.default_rng(where), jnp.dtype(dtype), 1, 2)
    state = state._replace(threshold=jnp.zeros_like(state.norm.mean))
    export.save_weights(path, (layer,), (state,))
    arrays, tree = jax.tree.flatten(state)
    arrays[where] = jnp.full_like(arrays[where], bad)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r'^layer_0\.\w+ holds NaN or infinity .*use weights of before that\.'):
        export.save_weights(path, (layer,), (jax.tree.unflatten(tree, arrays),))
    assert path.read_bytes() == before
    names = ['kernel', 'threshold', *norms.NormState._fields]
    bare = dict(zip(names, [np.asarray(a, np.float32) for a in arrays])) | {
        'kernel': np.ones((3, layer.features), 'f4')
    }
    bare[names[where]] = np.full_like(bare[names[where]], bad)
    foreign(path, {f'layer_0.{name}': array for name, array in bare.items()})
    with pytest.raises(ValueError, match=r'layer_0\.kernel in .* holds NaN or infinity'):
        export.load_weights(path)


def foreign(path, arrays):
    """Write arrays as those do who never heard of hebbjax: without a checksum."""
    if path.suffix == '.npz':
        np.savez(path, **arrays)
    else:
        from safetensors.numpy import save_file

        save_file(arrays, path)


@pytest.mark.parametrize('ending', ENDINGS)
@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
@pytest.mark.parametrize('shape', [(5, 3), (2, 3, 1, 4), (0, 3), (2, 0), (2, 3, 0, 4)])
def test_weights_of_others_are_read_unless_they_are_empty(shape, dtype, ending, tmp_path):
    path, kernel = tmp_path / f'weights{ending}', bits(np.random.default_rng(0), 'uint8', shape).astype(dtype)
    foreign(path, {'layer_0.kernel': kernel})
    if 0 in shape:
        with pytest.raises(ValueError, match=r'layer_0.kernel in .* is \[kh, kw, C, N\] or \[D, N\], none of them 0'):
            export.load_weights(path)
    else:
        ((w,), *_) = export.load_weights(path)
        np.testing.assert_array_equal(w, kernel.reshape(-1, shape[-1]).T)


def test_other_endings_are_refused_before_anything_is_touched(trained, tmp_path):
    path = tmp_path / 'weights.pt'
    with pytest.raises(ValueError, match=r"weights go to \.npz or \.safetensors files, not to 'weights\.pt'"):
        export.save_weights(path, NET, trained[0])
    with pytest.raises(ValueError, match='not to'):
        export.load_weights(path)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file_whole(trained, tmp_path, monkeypatch):
    path = tmp_path / 'weights.npz'
    export.save_weights(path, NET, trained[0])
    before = path.read_bytes()

    def fail(*args):
        raise OSError('disk full')

    monkeypatch.setattr(checkpoint.os, 'fsync', fail)
    with pytest.raises(OSError, match='disk full'):
        export.save_weights(path, NET[:1], trained[0][:1])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_without_an_extra_its_name_is_told(trained, exported, tmp_path, monkeypatch):
    for module in ('flatbuffers', 'safetensors', 'safetensors.numpy'):
        monkeypatch.setitem(sys.modules, module, None)
    for call in (lambda: export.export(NET, trained[0], SHAPE), lambda: export.load_exported(exported)):
        with pytest.raises(ImportError, match=r"needs flatbuffers, .* pip install 'hebbjax\[export\]'"):
            call()
    path = tmp_path / 'weights.safetensors'
    with pytest.raises(ImportError, match=r"needs safetensors, .* pip install 'hebbjax\[safetensors\]'"):
        export.save_weights(path, NET, trained[0])
    export.save_weights(tmp_path / 'weights.npz', NET, trained[0])
    assert [file.name for file in pathlib.Path(tmp_path).iterdir()] == ['weights.npz']
