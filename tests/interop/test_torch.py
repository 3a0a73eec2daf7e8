"""Trained layers answer as torch's do with their weights: by a plain correlation, and by torch where it is there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

from hebbjax import Homeostasis, Layer, Window, init, interop, layers, rules, transforms
from hebbjax.layers import initializers, patches

ASCEND = transforms.scale_by_rate(1.0)
SHAPE = 6, 5, 3  # an order of height, width and channels that is taken for another is seen
CASES = {
    'stride': {'window': Window((3, 2), stride=(2, 1), padding=(1, 2)), 'patch_transform': patches.raw},
    'thresholds': {'window': Window(3), 'output': 'effective', 'homeostasis': Homeostasis()},
    'dense': {'bias': initializers.zeros, 'output': 'projection'},
}


def drawn(rng, *layers_, shape=SHAPE):
    """A network and states as a training might have left them, drawn on the host."""
    states = jax.eval_shape(lambda key: init(layers_, key, shape), jax.random.key(0)).layers
    return layers_, jax.tree.map(lambda leaf: normal(rng, *leaf.shape), states)


def correlate(weight, bias, images, stride, padding):
    """Convolve as torch does: weight [N, C, kh, kw], images [B, C, H, W] -> [B, N, H', W']."""
    padded = np.pad(images, ((0, 0), (0, 0), *((pad, pad) for pad in padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], (2, 3))[
        :, :, :: stride[0], :: stride[1]
    ]
    return np.einsum('bcijkl,nckl->bnij', windows, weight) + bias[:, None, None]


def answer_by_numpy(layer, weight, bias, images):
    if weight.ndim == 2:
        return images.reshape(len(images), -1) @ weight.T + bias
    return correlate(weight, bias, images, *(np.broadcast_to(part, 2).tolist() for part in layer.window[1:3]))


def answer_by_torch(layer, weight, bias, images):
    torch = pytest.importorskip('torch')
    if weight.ndim == 2:
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(weight.shape[1], len(weight)))
    else:
        how = [tuple(np.broadcast_to(part, 2).tolist()) for part in layer.window[1:3]]
        module = torch.nn.Sequential(torch.nn.Conv2d(weight.shape[1], len(weight), weight.shape[2:], *how))
    number = len(module) - 1
    tensors = {f'{number}.weight': torch.from_numpy(weight), f'{number}.bias': torch.from_numpy(bias)}
    module.load_state_dict(tensors)
    return module(torch.from_numpy(images)).detach().numpy()


@pytest.mark.parametrize('answer', [answer_by_numpy, answer_by_torch])
@pytest.mark.parametrize('case', CASES)
def test_a_module_with_these_weights_answers_with_the_drives_of_the_layer(case, answer, rng):
    (layer,), states = net, _ = drawn(rng, Layer(4, rules.krotov(2, 0.4, 3.0), ASCEND, **CASES[case]))
    images = normal(rng, 2, *SHAPE)
    weights = interop.to_torch(net, states)
    assert set(weights) == {'0.weight', '0.bias'} if case != 'stride' else {'0.weight'}
    weight, bias = weights['0.weight'], weights.get('0.bias', np.zeros(4, np.float32))
    seen = answer(layer, weight, bias, np.array(images.transpose(0, 3, 1, 2), order='C'))
    plain = dataclasses.replace(layer, post=(layers.identity,))
    drives = np.asarray(jax.jit(lambda: layers.activations_of((plain,), states, images))())  # [B, H', W', N]
    np.testing.assert_allclose(seen.reshape(2, 4, -1), drives.transpose(0, 3, 1, 2).reshape(2, 4, -1), atol=1e-4)


def test_a_stack_goes_out_and_comes_back_under_the_names_of_its_modules(rng):
    conv = Layer(4, rules.oja(), ASCEND, Window((3, 2)), patch_transform=patches.raw, post=(layers.relu,))
    net, states = drawn(rng, conv, Layer(5, rules.oja(), ASCEND, bias=initializers.zeros))
    weights = interop.to_torch(net, states, ['conv', 'fc'])
    assert {name: array.shape for name, array in weights.items()} == {
        'conv.weight': (4, 3, 3, 2), 'fc.weight': (5, 4 * 4 * 4), 'fc.bias': (5,)
    }  # fmt: skip
    assert all(array.flags.c_contiguous and array.flags.writeable for array in weights.values())
    empty = jax.tree.map(jnp.zeros_like, states)
    back = interop.from_torch(weights | {'head.weight': np.ones(3)}, net, empty, ['conv', 'fc'])
    assert jax.tree.structure(back) == jax.tree.structure(states)
    for state, came in zip(states, back):
        np.testing.assert_array_equal(came.w, state.w)
    np.testing.assert_array_equal(back[1].threshold, states[1].threshold)
    del weights['fc.bias']  # Linear(bias=False)
    assert not interop.from_torch(weights, net, states, ['conv', 'fc'])[1].threshold.any()


def test_what_torch_cannot_do_or_does_not_have_is_one_sentence(rng):
    plain = Layer(4, rules.oja(), ASCEND, Window(3))
    net, states = drawn(rng, plain)
    dense, dense_states = drawn(rng, Layer(4, rules.oja(), ASCEND))
    normalised = dataclasses.replace(plain, patch_transform=patches.l2)
    projected = dataclasses.replace(plain, output='projection')
    weight = np.ones((4, 3, 3, 3), np.float32)
    for call, says in (
        (
            lambda: interop.to_torch((plain, normalised), drawn(rng, plain, normalised)[1]),
            'layer 2: unit_rows is not linear',
        ),
        (lambda: interop.to_torch(net, states, 3), r'names=\[3\] do not fit 1 layers; name a module for each'),
        (lambda: interop.to_torch(net, states, ['a', 'b']), r"names=\['a', 'b'\] do not fit 1 layers"),
        (lambda: interop.to_torch(net, ()), '0 states do not fit 1 layers'),
        (
            lambda: interop.to_torch(dense, [dense_states[0]._replace(made_for=None)]),
            r'layer 1: a dense layer of 90 inputs flattens images of shape \(\); give states of init',
        ),
        (lambda: interop.from_torch([weight], net, states), r'a state dict is wanted, .* call .state_dict\(\)'),
        (lambda: interop.from_torch({'conv.weight': weight}, net, states), r"0.weight is missing; there are \['conv"),
        (
            lambda: interop.from_torch({'0.weight': weight[..., :2]}, net, states),
            r'0.weight is float32 \[4, 3, 3, 2\], and layer 1 takes floats \[4, 3, 3, 3\]',
        ),
        (
            lambda: interop.from_torch({'0.weight': weight.astype(int)}, net, states),
            '0.weight is int64 .* takes floats',
        ),
        (lambda: interop.from_torch({'0.weight': weight * np.nan}, net, states), '0.weight holds NaN or infinity'),
        (
            lambda: interop.from_torch({'0.weight': weight, '0.bias': np.ones(4)}, net, states),
            r'layer 1 has no place for 0.bias; give the layer one',
        ),
        (
            lambda: interop.from_torch({'0.weight': weight, '0.bias': np.ones(5)}, net, states),
            r'0.bias \[5\] does not fit 4 neurons',
        ),
        (
            lambda: interop.from_torch({'0.weight': weight}, (projected,), states),
            "layer 1 predicts with weights that are not its own, output='projection'",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            call()
