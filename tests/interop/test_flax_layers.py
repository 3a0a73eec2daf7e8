"""Trained layers go to flax and back with equal outputs."""

import dataclasses

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import DTYPES, FLOATS, bits
from draws import first, normal
from flax import nnx

from hebbjax import Homeostasis, Layer, Window, init, layers, readout, rules, transforms
from hebbjax.interop import flax_layers
from hebbjax.layers import initializers, normalization, patches
from hebbjax.rules.competition import subtract_threshold

ASCEND = transforms.scale_by_rate(1.0)
KROTOV = rules.krotov(2, 0.4, 3.0)
HIGHEST = jax.lax.Precision.HIGHEST


# Weights, out and in

CASES = {
    'stride': {'window': Window((3, 2), stride=(2, 1), padding=(1, 2)), 'patch_transform': patches.raw},
    'centred on padding': {'window': Window(3, padding=1), 'output': 'effective', 'homeostasis': Homeostasis()},
    'bias, projected': {'window': Window(2), 'output': 'projection', 'bias': initializers.zeros},
    'dense, centred': {'window': Window(), 'patch_transform': patches.centred, 'output': 'effective'},
}


@pytest.mark.parametrize('case', CASES)
def test_a_flax_layer_answers_with_the_drives_of_the_layer(case, rng):
    layer = Layer(4, KROTOV, ASCEND, **CASES[case])
    images = normal(rng, 2, 6, 5, 3)
    w = normal(rng, 4, patches.lay_grid(layer.window, images.shape[1:]).inputs)
    state = layers.init_layer(layer, jax.random.key(0), images.shape[1:], w)
    if state.threshold is not None:
        state = state._replace(threshold=normal(rng, 4))
    drives = jax.jit(lambda images: subtract_threshold(layers.drives(layer, state.w, images), state.threshold))(images)
    dense = layer.window.size is None
    shown = images.reshape(2, -1) if dense else images
    drives = drives.reshape(2, -1) if dense else drives
    module, params = flax_layers.to_nnx(layer, state), flax_layers.to_linen(layer, state)
    np.testing.assert_allclose(module(shown), drives, rtol=1e-5, atol=1e-5)
    own = {'use_bias': 'bias' in params, 'precision': HIGHEST}
    if dense:
        twin = linen.Dense(4, **own)
    else:
        grid = patches.lay_grid(layer.window, images.shape[1:])
        twin = linen.Conv(4, grid.size, grid.stride, padding=grid.padding, **own)
    np.testing.assert_array_equal(twin.apply({'params': params}, shown), module(shown))


@pytest.mark.parametrize('size', [(3, 2), None])
def test_a_layer_answers_as_the_flax_layer_that_it_was_made_of(size, rng):
    images = normal(rng, 2, 6, 5, 3)
    own = {'use_bias': False, 'precision': HIGHEST, 'kernel_init': first, 'rngs': nnx.Rngs(0)}
    module = nnx.Conv(3, 4, size, (1, 2), padding=[(1, 1), (0, 0)], **own) if size else nnx.Linear(90, 4, **own)
    window = Window(size, stride=(1, 2), padding=(1, 0)) if size else Window()
    w = flax_layers.from_flax(module)
    np.testing.assert_array_equal(w, flax_layers.from_flax({'kernel': module.kernel[...]}))
    layer = Layer(4, rules.oja(), ASCEND, window, patch_transform=patches.raw)
    state = init((layer,), jax.random.key(0), images.shape[1:], weights=[w]).layers[0]
    expected = module(images if size else images.reshape(2, -1))
    drives = jax.jit(lambda images: layers.drives(layer, state.w, images))(images).reshape(expected.shape)
    np.testing.assert_allclose(drives, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(flax_layers.from_flax(flax_layers.to_nnx(layer, state)), w)
    mask = jnp.arange(8.0).reshape(2, 2, 1, 2)
    masked = nnx.Conv(1, 2, (2, 2), mask=mask, kernel_init=first, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(flax_layers.from_flax(masked), flax_layers.from_kernel(masked.kernel[...] * mask))
    assert flax_layers.from_flax(nnx.Linear(3, 2, kernel_init=first, rngs=nnx.Rngs(0))).shape == (
        2,
        3,
    )  # its bias is zero


def test_a_bias_comes_back_as_the_threshold_that_it_was():
    layer = Layer(4, rules.oja(), ASCEND, bias=initializers.zeros)
    w, threshold = np.eye(4, 6, dtype=np.float32), np.arange(4, dtype=np.float32)
    state = layers.LayerState(jnp.asarray(w), (), (), jnp.asarray(threshold))
    for source in (flax_layers.to_linen(layer, state), flax_layers.to_nnx(layer, state)):
        jax.tree.map(np.testing.assert_array_equal, flax_layers.from_flax(source, bias=True), (w, threshold))
    np.testing.assert_array_equal(flax_layers.from_flax({'kernel': jnp.ones((3, 2))}, bias=True)[1], np.zeros(2))
    listed = flax_layers.from_flax({'kernel': jnp.ones((3, 2)), 'bias': [1.0, 2.0]}, bias=True)
    np.testing.assert_array_equal(listed[1], [-1, -2])


def test_mirrored_edges_are_those_of_a_convolution_that_keeps_the_size(rng):
    images = jnp.asarray(rng.uniform(size=(2, 6, 5, 3)), jnp.float32)
    layer = layers.Layer(4, rules.oja(), transforms.scale_by_rate(0.1), Window(3, 1, 1, 'reflect'), post=())
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    np.testing.assert_allclose(
        flax_layers.to_nnx(layer, state)(images), layers.forward(layer, state, images), atol=1e-5
    )
    with pytest.raises(ValueError, match='mirrors edges of odd windows'):
        flax_layers.to_nnx(dataclasses.replace(layer, window=Window(3, 1, 2, 'reflect')), state)


def test_weights_that_no_kernel_holds_are_refused(rng):
    images = normal(rng, 2, 6, 5, 3)

    def out(**settings):
        layer = Layer(4, KROTOV, ASCEND, Window(3), **settings)
        return flax_layers.to_nnx(layer, layers.init_layer(layer, jax.random.key(0), images.shape[1:]))

    for transform in (patches.l2, patches.centred_l2, patches.contrast):
        with pytest.raises(ValueError, match=f'{transform.__name__} is not linear in the patch'):
            out(patch_transform=transform)
    with pytest.raises(ValueError, match='no kernel does what standardise does; put it around that layer'):
        out(pre=normalization.standardise)
    with pytest.raises(ValueError, match=r'weights \(4, 27\) do not fill windows of \(5, 2\)'):
        flax_layers.to_kernel(jnp.ones((4, 27)), (5, 2))
    with pytest.raises(ValueError, match=r'sends cosines; take the whole layer out with export_features'):
        out(output='cosine')
    with pytest.raises(ValueError, match=r'no kernel does what BatchNorm does; .*pass dataclasses.replace'):
        out(post=(layers.relu, normalization.BatchNorm(), readout.Dropout(0.1)))
    own = {'rngs': nnx.Rngs(0), 'kernel_init': first, 'use_bias': False}
    for name, module in {
        'kernel_dilation': nnx.Conv(2, 4, (2, 2), kernel_dilation=2, **own),
        'feature_group_count': nnx.Conv(2, 4, (2, 2), feature_group_count=2, **own),
    }.items():
        with pytest.raises(ValueError, match=f'{name}=.* makes of a convolution what no window is'):
            flax_layers.from_flax(module)
    with pytest.raises(ValueError, match=r'no place among weights; take it with from_flax\(..., bias=True\)'):
        flax_layers.from_flax({'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(2)})
    with pytest.raises(ValueError, match=r"give an nnx.Conv, an nnx.Linear or parameters \{'kernel'"):
        flax_layers.from_flax({'scale': jnp.ones(3)})


def kernels(dtype):
    """Draw kernels of all good and bad shapes."""
    rng = np.random.default_rng(0)
    for ndim in range(6):
        shape = tuple(rng.integers(1, 4, ndim))
        yield ndim in (2, 4), bits(rng, 'uint8', shape).astype(dtype)
    yield False, np.zeros((0, 3), dtype)
    yield False, np.zeros((2, 2, 1, 0), dtype)


@pytest.mark.parametrize('dtype', DTYPES)
def test_kernels_of_floating_point_numbers_alone_are_taken(dtype):
    xp = jnp if dtype in ('float32', 'int32') else np
    for fits, kernel in kernels(dtype):
        if fits and dtype in FLOATS:
            kernel = np.ones_like(kernel)
            w = flax_layers.from_flax({'kernel': xp.asarray(kernel)})
            assert w.dtype == kernel.dtype and w.shape == (kernel.shape[-1], kernel[..., 0].size)
            continue
        with pytest.raises(ValueError, match=r'the kernel of dict is .*; give .* floats \[kh, kw, C, N\] or'):
            flax_layers.from_flax({'kernel': xp.asarray(kernel)})


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_not_taken_over(bad, rng):
    for shape in ((3, 2), (2, 2, 3, 4), (300, 200)):
        kernel, bias = np.ones(shape, np.float32), np.zeros(shape[-1], np.float32)
        hurt = kernel.copy()
        hurt[tuple(rng.integers(shape))] = bad
        for given in ({'kernel': hurt}, {'kernel': hurt, 'bias': bias}, {'kernel': kernel, 'bias': bias + bad}):
            with pytest.raises(ValueError, match=r'^(kernel|bias) holds NaN or infinity'):
                flax_layers.from_flax(given, bias=True)
        layer = Layer(shape[-1], rules.oja(), ASCEND)
        state = layers.LayerState(jnp.asarray(hurt.reshape(-1, shape[-1]).T), (), ())
        for out in (flax_layers.to_linen, flax_layers.to_nnx):
            with pytest.raises(ValueError, match=r'^kernel holds NaN or infinity'):
                out(layer, state)


def test_what_does_not_belong_together_is_one_sentence():
    layer, state = Layer(4, rules.oja(), ASCEND), layers.LayerState(jnp.ones((4, 6)), (), ())
    whole = layers.TrainState(0, 0, (state,))
    for call, says in (
        (lambda: flax_layers.from_flax({'kernel': [[1.0, 2.0]]}), 'the kernel of dict is list'),
        (
            lambda: flax_layers.from_flax({'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(7)}, bias=True),
            r'bias \[7\] .* 3 neu',
        ),
        (lambda: flax_layers.to_linen(layer, whole), 'layer 1 has 4 neurons, and its state weights of shape'),
        (lambda: flax_layers.to_nnx(layer, whole.layers), 'layer 1 has 4 neurons, and its state weights of shape'),
        (lambda: flax_layers.to_linen((layer,), state), r'a network is a tuple of layers, at least one, not \(\('),
        (
            lambda: flax_layers.to_linen(Layer(5, rules.oja(), ASCEND), state),
            r'layer 1 has 5 neurons, and its state weights of shape \(4, 6\)',
        ),
        (lambda: flax_layers.to_kernel(jnp.ones(3)), r'weights are \[N, D\], one row per neuron, and these are \(3,\)'),
        *(
            (lambda size=size: flax_layers.to_kernel(jnp.ones((3, 4)), size), 'do not fill windows of')
            for size in (0, -1, 2.5, True, (2, 0), (2, None))
        ),
    ):
        with pytest.raises(ValueError, match=says):
            call()
