"""Controls: filters of each kind are what they are called; what adapts settles; weights stay."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hebbjax import layers, rules, transforms
from hebbjax.layers import BatchNorm, Homeostasis, Window, initializers
from hebbjax.readout import ridge_probe
from hebbjax.training import controls
from hebbjax.training.comparison import Entry, initial_state, train_entries
from hebbjax.training.stages import Stage

TX = optax.chain(transforms.scale_by_rate(0.05), transforms.keep_pruned(), transforms.project_unit_rows())
HOW = {'pre': BatchNorm(momentum=0.2), 'patch_transform': layers.raw, 'post': (layers.triangle, layers.avg_pool(2))}
NET = (
    layers.Layer(5, rules.instar(1), TX, Window(3, 1, 1), **HOW),
    layers.Layer(6, rules.instar(1), TX, Window(2), **HOW, init=initializers.pruned(0.4), homeostasis=Homeostasis()),
)
ENTRY = Entry(NET, ridge_probe(), (Stage(1),), batch=10)


@pytest.fixture(scope='module')
def data():
    """Noise with a bright or a dark corner, in two splits of 40."""
    rng = np.random.default_rng(0)
    labels, images = np.arange(80) % 2, rng.uniform(0, 0.5, (80, 6, 6, 2))
    images[labels == 0, :3, :3] += 0.5
    pair = jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32)
    return [tuple(part[at : at + 40] for part in pair) for at in (0, 40)]


@pytest.fixture(scope='module')
def trained(data):
    """The network and all its controls, on one seed."""
    entries = controls.with_controls(ENTRY, controls.CONTROLS, ENTRY._replace(stages=()), shown=30)
    networks, interrupted = train_entries(entries, 1, *data)
    assert not interrupted
    return {name: network.probe.layers for (name, _), network in networks.items()}


def test_filters_are_of_unit_length_and_of_another_kind_each(trained):
    assert list(trained) == list(controls.CONTROLS)
    for name in ('patches', 'centred_patches', 'gaussian', 'learned'):
        for state in trained[name]:
            np.testing.assert_allclose(jnp.linalg.norm(state.w, axis=1), 1, rtol=1e-5)
    kinds = [np.asarray(trained[name][0].w) for name in controls.CONTROLS[:5]]
    assert all(np.abs(one - other).max() > 0.1 for n, one in enumerate(kinds) for other in kinds[:n])
    first = layers.init(NET, jax.random.split(jax.random.key(0))[0], (6, 6, 2)).layers
    for own, drawn in zip(trained['initialised'], first):
        np.testing.assert_array_equal(own.w, drawn.w)


def test_filters_that_are_patches_are_found_in_what_reaches_the_layer(trained, data):
    """Of the second layer in the answers of the first, where connections that do not exist are left out."""
    x, own = data[0][0], trained['patches'][1]
    maps = layers.activations_of(NET, trained['patches'], x, 1)
    normal, _ = layers.apply_chain(NET[1].pre, own.pre, maps)
    rows = np.asarray(layers.extract_patches(NET[1].window, normal)).reshape(-1, own.w.shape[1])
    assert 0.2 < np.mean(np.asarray(own.w) != 0) < 0.7
    for w in np.asarray(own.w):
        exists = w != 0
        cosine = rows[:, exists] @ w[exists] / np.maximum(np.linalg.norm(rows[:, exists], axis=1), 1e-9)
        assert cosine.max() > 0.95  # batch norm went by 6 images when they were cut, by running averages now


def test_patches_of_a_pruned_lowest_layer_leave_out_what_does_not_exist(data):
    bottom = dataclasses.replace(NET[0], init=initializers.pruned(0.4))
    entry = controls.controlled(ENTRY._replace(net=(bottom,)), 'patches')
    w = np.asarray(initial_state(entry, jax.random.key(0), data[0][0]).layers[0].w)
    drawn = np.asarray(layers.init((bottom,), jax.random.key(0), (6, 6, 2)).layers[0].w)
    assert np.mean(drawn == 0) > 0.2 and not w[drawn == 0].any()
    np.testing.assert_allclose(np.linalg.norm(w, axis=1), 1, rtol=1e-5)


def test_what_adapts_has_settled_and_weights_have_not_moved(trained, data):
    for name in ('patches', 'gaussian', 'initialised'):
        below, above = trained[name]
        assert float(jnp.abs(below.pre[0].stats.mean - 0.3).max()) < 0.2 and float(below.pre[0].stats.mean.min()) > 0.03
        assert above.threshold.any()  # three steps of 10 images moved thresholds, and averages
    bare = tuple(dataclasses.replace(layer, pre=(), homeostasis=None) for layer in NET)
    still = controls.controlled(ENTRY._replace(net=bare), 'gaussian')
    ran = []
    networks, _ = train_entries({'still': still}, 1, *data, callbacks=lambda *_: (ran.append,))
    assert not ran and networks['still', 0].probe.layers[0].w.shape == (5, 18)


def test_flat_patches_are_passed_over(data):
    images = jnp.zeros((40, 6, 6, 2)).at[:, :3].set(data[0][0][:, :3])
    layer = dataclasses.replace(NET[0], pre=(), window=Window(3), patch_transform=layers.centred_l2, features=20)
    w = controls.patch_rows(layer, jax.random.key(0), images)
    assert np.mean(~np.any(layers.from_patches(layer, jax.random.key(0), images), axis=1)) > 0.1
    np.testing.assert_allclose(jnp.linalg.norm(w, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize('prepare', [layers.centred, layers.contrast])
@pytest.mark.parametrize('kind', ['patches', 'centred_patches'])
def test_what_rounding_leaves_of_a_plain_wall_is_no_patch(prepare, kind, data):
    """Less its mean, a patch of one value is not 0, but a millionth of it; walls are grey, half of all that is seen."""
    images = jnp.full((40, 9, 9, 2), 0.7).at[:30, :6, :6].set(data[0][0][:30])
    layer = dataclasses.replace(NET[0], pre=(), window=Window(3), patch_transform=prepare, features=40)
    cut = layers.from_patches(layer, jax.random.key(0), images)
    w = controls.STARTS[kind](layer, jax.random.key(0), images)
    length = jnp.linalg.norm(cut, axis=1)
    assert np.mean(length < 1e-5) > 0.3 and np.any((length > 0) & (length < 1e-5))
    np.testing.assert_allclose(jnp.linalg.norm(w, axis=1), 1, rtol=1e-5)
    assert np.abs(w.sum(1)).max() < 1e-4  # what rounding leaves is one number, 4.2 in sum where it is of length 1


def test_neither_an_outlier_nor_a_bad_image_takes_the_others_patches_away(data):
    images = (1e-5 * data[0][0][:40]).at[3].multiply(1e5)
    layer = dataclasses.replace(NET[0], pre=(), window=Window(3), patch_transform=layers.raw, features=20)
    for start in (controls.STARTS['patches'], controls.STARTS['centred_patches']):
        np.testing.assert_allclose(jnp.linalg.norm(start(layer, jax.random.key(0), images), axis=1), 1, rtol=1e-5)
    layer = dataclasses.replace(layer, patch_transform=lambda x: jnp.sqrt(x - 0.1))
    w = controls.patch_rows(layer, jax.random.key(0), data[0][0])
    assert jnp.isnan(w).any(), 'what is no number is to be found in the weights'


def test_patches_are_cut_out_of_what_leaves_pre(data):
    pad = lambda x: jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))  # noqa: E731
    layer = dataclasses.replace(NET[0], window=Window(8), pre=pad)  # larger than the images of 6 x 6
    assert controls.patch_rows(layer, jax.random.key(0), data[0][0]).shape == (5, 8 * 8 * 2)


@pytest.mark.parametrize(
    'build, says',
    [
        (lambda: controls.with_controls(ENTRY, ('backprop',)), 'no backprop twin; leave backprop out'),
        (lambda: controls.with_controls(ENTRY, ()), 'no network is named; there are learned, patches'),
        (lambda: controls.with_controls(ENTRY, ('random',)), "control='random' is unknown; there are learned, patches"),
        (lambda: controls.controlled(ENTRY._replace(net=()), 'patches'), 'pixels have no filters'),
        (lambda: controls.patch_rows(NET[0], jax.random.key(0), jnp.ones((1, 2, 2, 2))), '1 images have 4; give more'),
    ],
)
def test_controls_that_a_network_cannot_have_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()
