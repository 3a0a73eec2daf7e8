"""What leaves the library answers as it did inside; what comes in is whole, or refused."""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export as jax_export

import hebbjax
from hebbjax import (
    Homeostasis,
    Layer,
    Window,
    activations,
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
    flipped = bytearray(exported)
    flipped[len(flipped) // 2] ^= 1
    for damaged in (exported[:-1], exported[: len(exported) // 2], b'', b'else', bytes(flipped)):
        with pytest.raises(ValueError, match='this is damaged or no exported network; export it again'):
            export.load_exported(damaged)
    with pytest.raises(FileNotFoundError, match='is no file'):
        export.load_exported(tmp_path / 'none')


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
    export.save_weights(path, (layer, NET[1]), (state, state._replace(threshold=None, norm=None)))
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
    for foreign in (
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
        if ending == '.npz':
            np.savez(path, **foreign)
        else:
            from safetensors.numpy import save_file

            save_file(foreign, path)
        with pytest.raises(ValueError, match=r"holds no weights of hebbjax; they are called 'layer_0\.kernel'"):
            export.load_weights(path)


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

    monkeypatch.setattr(export.os, 'fsync', fail)
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
