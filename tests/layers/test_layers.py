"""One layer: what it sees, sends and learns from."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from table import ASSOCIATIVE, RULES

import hebbjax
from hebbjax import layers, readout, rules, transforms
from hebbjax.layers import activations, initializers, normalization, patches
from hebbjax.layers.layer import Layer, drives, matmul_drives
from hebbjax.layers.microbatch import microbatch_of
from hebbjax.layers.normalization import BatchNorm, NormParams, NormStats
from hebbjax.layers.patches import Window
from hebbjax.readout import Dropout
from hebbjax.readout.head import draw_passing

KROTOV = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.1))


def conv(**settings):
    """A small convolutional layer of 5 filters."""
    return Layer(**{'features': 5, 'rule': rules.krotov(2, 0.4, 3), 'tx': KROTOV, 'window': Window(3, 2, 1)} | settings)


def images_of(rng, count=4, shape=(6, 5, 3)):
    """Random images in [0, 1]."""
    return jnp.asarray(rng.uniform(size=(count, *shape)), jnp.float32)


def test_convolutions_centre_their_patches_and_dense_layers_do_not():
    assert conv().patch_transform is patches.centred
    assert conv(window=Window()).patch_transform is patches.raw
    assert conv(patch_transform=patches.l2).patch_transform is patches.l2


def test_a_layer_predicts_with_its_weights_on_patches_prepared_as_in_learning(rng):
    images, layer = images_of(rng), conv(post=activations.identity)
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    x = reference.patches(np.asarray(images), (3, 3), (2, 2), (1, 1))
    x = x - x.mean(-1, keepdims=True)
    assert state.w.shape == (5, 27)
    np.testing.assert_allclose(layers.forward(layer, state, images), x @ np.asarray(state.w).T, atol=1e-4)
    w = np.asarray(state.w)
    sent = layers.forward(conv(post=activations.identity, output='effective'), state, images)
    np.testing.assert_allclose(sent, x @ (np.sign(w) * w**2).T, atol=1e-4)
    np.testing.assert_array_equal(layers.forward(conv(), state, images) >= 0, True)


def test_a_layer_pools_what_it_fires(rng):
    images, layer = images_of(rng), conv(post=(layers.relu, layers.max_pool(2)))
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    expected = layers.max_pool(2)(layers.forward(conv(), state, images))
    np.testing.assert_array_equal(layers.forward(layer, state, images), expected)


def test_bytes_become_intensities_and_floats_pass():
    pixels = np.array([0, 51, 255], np.uint8).reshape(1, 3, 1, 1)
    for given in (pixels, 257 * pixels.astype(np.uint16)):  # each by the range of its type
        shown = layers.to_intensities(jnp.asarray(given))
        np.testing.assert_allclose(shown.reshape(-1), [0, 0.2, 1], rtol=1e-6)
        assert shown.dtype == jnp.float32
    np.testing.assert_array_equal(layers.to_intensities(jnp.asarray(pixels > 100)).reshape(-1), [0, 0, 1])
    floats = jnp.full((1, 3, 1, 1), 300.0)
    assert layers.to_intensities(floats) is floats


def test_given_weights_are_taken_as_they_are(rng):
    w = jnp.asarray(rng.normal(size=(5, 27)), jnp.float32)
    np.testing.assert_array_equal(layers.init_layer(conv(), jax.random.key(0), (6, 5, 3), w).w, w)
    with pytest.raises(ValueError, match=r'weights of shape \(4, 27\) .* a layer that needs floats of \(5, 27\)'):
        layers.init_layer(conv(), jax.random.key(0), (6, 5, 3), w[:4])


@pytest.mark.parametrize('size', [None, 3])
def test_weights_from_patches_are_prepared_windows_of_images_each_of_another(size, rng):
    layer = Layer(7, rules.instar(), KROTOV, Window(size), patch_transform=patches.l2)
    images = rng.integers(1, 256, (7, 5, 5, 2)).astype(np.uint8)
    w = np.asarray(layers.from_patches(layer, jax.random.key(0), jnp.asarray(images)))
    every = np.asarray(layers.layer_patches(layer, layers.to_intensities(jnp.asarray(images))))  # [B, H', W', D]
    near = np.abs(every.reshape(7, -1, 1, w.shape[1]) - w[None, None]).max(-1).min(1)  # [image, exemplar]
    np.testing.assert_allclose(near.min(0), 0, atol=1e-6)
    assert sorted(near.argmin(0)) == list(range(7)), 'every image gives one'
    more = layers.from_patches(dataclasses.replace(layer, features=20), jax.random.key(0), jnp.asarray(images))
    assert more.shape == (20, w.shape[1]), 'images come again where there are too few'
    assert (layers.from_patches(layer, jax.random.key(1), jnp.asarray(images)) != w).any()
    shape = jax.eval_shape(lambda key: layers.from_patches(layer, key, images), jax.random.key(0)).shape
    assert shape == w.shape, 'images of numpy, and a key that is traced'


def test_drawn_weights_are_standard_normal_and_follow_the_key():
    big = conv(features=400)
    w = layers.init_layer(big, jax.random.key(0), (6, 5, 3)).w
    assert abs(w.mean()) < 0.05 and abs(w.std() - 1) < 0.05
    np.testing.assert_array_equal(w, layers.init_layer(big, jax.random.key(0), (6, 5, 3)).w)
    assert not np.array_equal(w, layers.init_layer(big, jax.random.key(1), (6, 5, 3)).w)


@pytest.mark.parametrize('window', [Window(), Window(3, 2, 1)], ids=['dense', 'convolutional'])
@pytest.mark.parametrize('patch', patches.PATCH_TRANSFORMS.values(), ids=patches.PATCH_TRANSFORMS)
def test_all_zero_patches_change_nothing_and_are_nobodys_wins(window, patch):
    layer = conv(window=window, patch_transform=patch)
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    after, _, info = layers.update_layer(layer, jax.random.key(1), state, jnp.zeros((4, 6, 5, 3)))
    np.testing.assert_array_equal(after.w, state.w)
    assert info.win_counts.sum() == 0 and info.max_update == 0 and info.is_finite


def test_all_zero_patches_among_others_change_nothing(rng):
    """A black image adds no win and no change; with a fixed largest change it does not even dilute."""
    images, layer = images_of(rng), conv()
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    after, _, info = layers.update_layer(layer, jax.random.key(1), state, images)
    padded, _, padded_info = layers.update_layer(
        layer, jax.random.key(1), state, jnp.concatenate([images, jnp.zeros((3, 6, 5, 3))])
    )
    np.testing.assert_allclose(padded.w, after.w, atol=1e-6)
    np.testing.assert_array_equal(padded_info.win_counts, info.win_counts)
    assert info.win_counts.sum() == 4 * 9


def test_wins_count_the_largest_drive_and_the_first_of_equals():
    x = jnp.array([[1.0, 0.0], [0.0, 0.0], [0.0, -1.0], [1.0, 1.0]])
    u = jnp.array([[1.0, 5.0, 5.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [-3.0, -2.0, -1.0]])
    found = rules.count_wins(x, rules.top_k(u, 1)[1][:, 0], 3)
    np.testing.assert_array_equal(found, [1, 1, 1])
    assert found.dtype == jnp.int32


def test_a_layer_learns_from_patches_drawn_from_its_images(rng):
    """The windows are drawn with the first of two keys split from the layer's; the rule sees them prepared."""
    images, layer = images_of(rng), conv(patches_per_image=7)
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    after, _, info = layers.update_layer(layer, jax.random.key(3), state, images)
    assert info.win_counts.sum() == 4 * 7
    x = patches.centred(patches.sample_patches(jax.random.split(jax.random.key(3))[0], layer.window, images, 7))
    w = reference.krotov_step(*(np.asarray(a, np.float64) for a in (x, state.w)), 2, 0.4, 3, 0.1)
    np.testing.assert_allclose(after.w, w, atol=1e-5)
    other, _, _ = layers.update_layer(layer, jax.random.key(4), state, images)
    assert not np.array_equal(other.w, after.w)


def test_told_says_what_happened(rng):
    images, layer = images_of(rng), conv()
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    after, _, info = layers.update_layer(layer, jax.random.key(1), state, images)
    np.testing.assert_allclose(info.max_update, jnp.abs(after.w - state.w).max(), atol=1e-6)
    np.testing.assert_allclose(info.max_update, 0.1, rtol=1e-5)
    u = matmul_drives(layer, layers.layer_patches(layer, images), layer.rule.effective_weights(state.w)).reshape(-1, 5)
    np.testing.assert_array_equal(info.win_counts, np.bincount(np.argmax(u, 1), minlength=5))
    assert info.is_finite


@pytest.mark.parametrize(
    'settings, match',
    [
        ({'features': 0}, 'features=0 is out of range; use a whole number from 1 on'),
        ({'precision': 'int4'}, "precision='int4' is unknown; there are highest, float32x3, tensorfloat32, bfloat16"),
        ({'output': 'spikes'}, "output='spikes' is unknown; there are weights, effective, projection, cosine"),
        ({'post': 3}, 'post of a layer is a tuple of parts, functions of maps such as relu or BatchNorm'),
        ({'post': (layers.relu, layers.BatchNorm)}, 'functions of maps such as relu or BatchNorm'),
        ({'pre': (layers.standardise, 'whiten')}, 'pre of a layer is a tuple of parts.*whiten'),
        (
            {'bias': initializers.fan_in, 'homeostasis': hebbjax.Homeostasis()},
            'a bias or adaptive thresholds; leave bias or homeostasis out',
        ),
    ],
)
def test_a_layer_that_cannot_be_is_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        conv(**settings)


@partial(jax.jit, static_argnums=(0, 1, 2, 4))
def learn_in_parts(rule, output, sizes, images, neurons):
    """What a layer learns, sends and tells for microbatches of several sizes, and what it answers before, in all."""
    found = []
    for size in sizes:
        how = {'microbatch': size, 'output': output, 'post': (layers.relu, layers.max_pool(2))}
        layer = Layer(neurons, rule, transforms.scale_by_rate(0.1), Window(3), **how)
        state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
        after, sent, info = layers.update_layer(layer, jax.random.key(1), state, images)
        found.append((after.w, sent, info.win_counts))
    return found, layers.forward(layer, state, images)


WITHOUT_MEMORY = RULES + [row for row in ASSOCIATIVE if not row.make().sequential]
PARTS = [(row, 'weights', (7, 3)) for row in WITHOUT_MEMORY] + [(RULES[-1], 'effective', (7, 1, 4))]


@pytest.mark.parametrize('row, output, sizes', PARTS, ids=lambda value: getattr(value, 'name', str(value)))
def test_a_batch_may_be_seen_in_microbatches(row, output, sizes, rng):
    """What is learned, info and sent on does not depend on how many images are looked at together."""
    neurons = 27 if row.square else 6
    ((w, sent, wins), *others), answer = learn_in_parts(row.make(), output, sizes, images_of(rng, 7), neurons)
    np.testing.assert_allclose(sent, answer, rtol=1e-5, atol=1e-6)
    for other in others:
        np.testing.assert_allclose(other[0], w, rtol=2e-5, atol=1e-5 * np.abs(w).max())
        np.testing.assert_allclose(other[1], sent, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(other[2], wins)


def test_microbatches_fit_the_cache_and_divide_the_batch_where_they_can():
    layer = Layer(196, rules.instar(), transforms.scale_by_rate(0.1), Window(3))
    assert microbatch_of(layer, (100, 14, 14, 100)) == 5  # 6 would fit: 144 positions x (900 + 196) numbers each
    assert microbatch_of(layer, (101, 14, 14, 100)) == 6  # a prime batch leaves a rest
    assert microbatch_of(layer, (4, 14, 14, 100)) == 4
    assert microbatch_of(layer, (100, 300, 300, 100)) == 1
    assert microbatch_of(Layer(2000, rules.instar(), transforms.scale_by_rate(0.1)), (1024, 28, 28, 1)) == 1024
    for other, size in (({'microbatch': 8}, 8), ({'microbatch': 800}, 100)):
        assert microbatch_of(dataclasses.replace(layer, **other), (100, 14, 14, 100)) == size


def test_memory_is_a_microbatchs_not_a_batchs():
    """100 images of 14 x 14 x 100 have 49 MiB of patches; a step needs a fraction of that."""
    layer = Layer(196, rules.instar(), transforms.scale_by_rate(0.1), Window(3), patch_transform=patches.raw)
    shapes = jax.eval_shape(lambda key: layers.init_layer(layer, key, (14, 14, 100)), jax.random.key(0))
    step = jax.jit(lambda key, state, images: layers.update_layer(layer, key, state, images)[::2])
    used = step.lower(jax.random.key(0), shapes, jax.ShapeDtypeStruct((100, 14, 14, 100), 'float32')).compile()
    memory = used.memory_analysis()
    whole = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert whole < 40 * 2**20


# What is sent: cosines, biases, norms, and inputs dropped out


def test_a_layer_sends_cosines_which_nothing_black_has(rng):
    images = images_of(rng).at[0, :4].set(0)
    layer = conv(
        rule=rules.instar(metric='cosine', reduce=rules.mean_over_credit),
        output='cosine',
        patch_transform=patches.raw,
        post=activations.identity,
    )
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    x = reference.patches(np.asarray(images), (3, 3), (2, 2), (1, 1))
    w = np.asarray(state.w)
    length = np.linalg.norm(x, axis=-1, keepdims=True) * np.linalg.norm(w, axis=1)
    cosine = np.where(length > 0, x @ w.T / np.where(length > 0, length, 1), 0)
    assert (length == 0).any()
    sent = layers.forward(layer, state, images)
    np.testing.assert_allclose(sent, cosine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(sent)[(length == 0).all(-1)], 0)
    slopes = jax.grad(lambda w, x: layers.forward(layer, state._replace(w=w), x).sum(), (0, 1))(state.w, images)
    assert all(np.isfinite(slope).all() and np.abs(slope).max() > 0 for slope in slopes)
    _, sent, _ = layers.update_layer(layer, jax.random.key(1), state, images)
    np.testing.assert_allclose(sent, cosine, atol=1e-5)


def test_a_bias_starts_small_is_subtracted_and_is_left_alone_by_hebbian_learning(rng):
    images, layer = images_of(rng), conv(features=300, bias=initializers.fan_in)
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    bound = 27**-0.5
    assert -bound <= state.threshold.min() < -0.95 * bound and 0.95 * bound < state.threshold.max() <= bound
    other = layers.init_layer(layer, jax.random.key(1), (6, 5, 3))
    assert not np.array_equal(state.threshold, other.threshold)
    np.testing.assert_array_equal(state.w, layers.init_layer(conv(features=300), jax.random.key(0), (6, 5, 3)).w)
    drive = drives(layer, state.w, images)
    expected = np.maximum(np.asarray(drive) - np.asarray(state.threshold), 0)
    np.testing.assert_allclose(layers.forward(layer, state, images), expected, atol=1e-5)
    after, sent, info = layers.update_layer(layer, jax.random.key(1), state, images)
    np.testing.assert_array_equal(after.threshold, state.threshold)
    np.testing.assert_allclose(sent, expected, atol=1e-5)
    assert info.max_update > 0


def test_a_bias_is_drawn_apart_from_the_connections():
    layer = conv(features=1000, bias=initializers.fan_in, init=initializers.pruned(0.5))
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    agree = np.mean((np.asarray(state.w[:, 0]) != 0) == (np.asarray(state.threshold) < 0))
    assert 0.4 < agree < 0.6


NORM = BatchNorm(normalization.uniform)
NORMED = {'post': (layers.relu, layers.max_pool(2), NORM), 'patch_transform': patches.raw}


def normed_state(layer, rng):
    """A state with running averages of its own, and scales of both signs, which tell where the pooling stands."""
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    scale, shift, mean, var = (jnp.asarray(a, jnp.float32) for a in rng.uniform(0.5, 2, (4, 5)))
    norm = layers.PartState(NormParams(scale.at[::2].multiply(-1), shift), NormStats(mean, var, jnp.ones(())))
    return state._replace(post=(*state.post[:2], norm))


def test_what_is_pooled_is_normalised_by_running_averages_in_answers_and_by_the_batch_in_learning(rng):
    images, layer = images_of(rng), conv(**NORMED)
    state = normed_state(layer, rng)
    pooled = layers.forward(layer, state, images, parts=2)
    sent = layers.forward(layer, state, images)
    np.testing.assert_allclose(sent, NORM.apply(state.post[2], pooled)[0], rtol=1e-5, atol=1e-5)
    by_batch, moved = NORM.apply(state.post[2], pooled, train=True)
    assert np.abs(sent - by_batch).max() > 0.1
    learned, in_learning, _ = layers.update_layer(layer, jax.random.key(1), state, images)
    in_training, trained = readout.forward_train(layer, state, images, jax.random.key(1))
    for z, after in ((in_learning, learned), (in_training, trained)):
        np.testing.assert_allclose(z, by_batch, rtol=1e-4, atol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after.post[2], moved)


@pytest.mark.parametrize('how', [{'microbatch': 3}, {'patches_per_image': 4}], ids=str)
def test_running_averages_move_by_the_whole_batch_however_it_is_looked_at(how, rng):
    images = images_of(rng, 7)
    layer = conv(**NORMED)
    state = normed_state(layer, rng)
    sent, trained = readout.forward_train(layer, state, images, jax.random.key(1))
    after, out, _ = layers.update_layer(dataclasses.replace(layer, **how), jax.random.key(1), state, images)
    np.testing.assert_allclose(out, sent, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after.post, trained.post)


def test_parts_may_stand_in_any_order_and_before_the_weights(rng):
    """SoftHebb normalises before the weights, Talloen between drive and pooling, Amato behind pooling."""
    images = images_of(rng)
    orders = {
        'softhebb': {'pre': (BatchNorm(),), 'post': (layers.relu, layers.max_pool(2))},
        'talloen': {'post': (BatchNorm(shift=-0.5), layers.relu, layers.max_pool(2))},
        'amato': {'post': (layers.relu, layers.max_pool(2), BatchNorm())},
        'miconi': {'pre': (layers.standardise,), 'post': (layers.triangle, layers.avg_pool(2))},
    }
    for name, chains in orders.items():
        layer = conv(patch_transform=patches.raw, **chains)
        state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
        after, sent, _ = layers.update_layer(layer, jax.random.key(1), state, images)
        x = images
        for number, part in enumerate(layer.pre):
            x = part(x) if callable(part) else part.apply(state.pre[number], x, train=True)[0]
        u = drives(layer, state.w, x)
        for number, part in enumerate(layer.post):
            u = part(u) if callable(part) else part.apply(state.post[number], u, train=True)[0]
        np.testing.assert_allclose(sent, u, rtol=1e-4, atol=1e-5, err_msg=name)
        before, now = (jax.tree.leaves((s.pre, s.post)) for s in (state, after))
        assert (name == 'miconi') == all(np.array_equal(a, b) for a, b in zip(before, now)), name
        only = layers.update_layer(
            dataclasses.replace(layer, post=()), jax.random.key(1), state._replace(post=()), images
        )
        np.testing.assert_array_equal(only[0].w, after.w, err_msg=f'{name}: what is sent teaches nobody')


def test_inputs_are_dropped_out_in_gradient_training_alone_and_the_rest_makes_up_for_them(rng):
    layer = Layer(4, rules.instar(), KROTOV, Window(1), patch_transform=patches.raw, pre=Dropout(0.75), post=())
    images = 1 + images_of(rng, 50, (8, 8, 4))
    state = layers.init_layer(layer, jax.random.key(0), (8, 8, 4), jnp.eye(4))
    np.testing.assert_allclose(layers.forward(layer, state, images), images, rtol=1e-6)
    _, sent, _ = layers.update_layer(layer, jax.random.key(1), state, images)
    np.testing.assert_allclose(sent, images, rtol=1e-6)
    first, again, other = (readout.forward_train(layer, state, images, jax.random.key(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    passed = np.asarray(first) != 0
    assert 0.23 < passed.mean() < 0.27 and (passed != (np.asarray(other) != 0)).any()
    np.testing.assert_allclose(np.asarray(first)[passed], 4 * np.asarray(images)[passed], rtol=1e-6)
    maps = dataclasses.replace(layer, pre=(Dropout(0.75, maps=True),))
    whole = np.asarray(readout.forward_train(maps, state, images, jax.random.key(1))[0]) != 0
    np.testing.assert_array_equal(whole.all((1, 2)), whole.any((1, 2)))


@pytest.mark.parametrize('rate', [0.5, 0.25, 3 / 256, 0.3])
def test_a_share_of_inputs_is_silenced_whether_bits_or_whole_numbers_draw_it(rate):
    passes = jax.jit(lambda key: draw_passing(key, rate, (101, 333)))(jax.random.key(0))
    assert passes.shape == (101, 333) and passes.dtype == bool
    np.testing.assert_allclose(1 - np.mean(passes), rate, atol=0.01)
    np.testing.assert_allclose(1 - np.mean(passes, 0), rate, atol=0.3)  # no column has it all


# Who is taught, and who is held back


def taught_rule():
    """Learns the sum of what each patch's teacher tells a neuron, times the patch."""

    def accumulate(stats, key, x, u, teacher, threshold):
        return stats._replace(pull=stats.pull + teacher.T @ x)

    return rules.krotov()._replace(accumulate=accumulate, finalize=lambda stats, w, state: (stats.pull, state))


@pytest.mark.parametrize('how', [{'microbatch': 7}, {'microbatch': 2}, {'patches_per_image': 9}], ids=str)
def test_a_teacher_tells_every_patch_of_its_own_image(how, rng):
    """Images of one colour each, so that it does not matter which patches are seen."""
    colours, signal = rng.uniform(size=(7, 3)), rng.normal(size=(7, 5))
    images = jnp.asarray(np.broadcast_to(colours[:, None, None], (7, 5, 5, 3)), jnp.float32)
    layer = conv(
        rule=taught_rule(), tx=transforms.scale_by_rate(1.0), window=Window(3), patch_transform=patches.raw, **how
    )
    state = layers.init_layer(layer, jax.random.key(0), (5, 5, 3))
    after, _, _ = layers.update_layer(layer, jax.random.key(1), state, images, jnp.asarray(signal, jnp.float32))
    np.testing.assert_allclose(after.w - state.w, 9 * signal.T @ np.tile(colours, 9), atol=1e-4)


@pytest.mark.parametrize('shape', [(4,), (3, 5), (4, 6), (4, 9, 5)])
def test_a_signal_that_is_not_one_per_image_and_neuron_is_refused(shape, rng):
    layer = conv()
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    with pytest.raises(ValueError, match=r'a teacher .*of'):
        layers.update_layer(layer, jax.random.key(1), state, images_of(rng), jnp.ones(shape))


@pytest.mark.parametrize('how', [{}, {'patches_per_image': 2}], ids=['all', 'drawn'])
def test_a_rules_competition_bias_is_added_to_the_thresholds_and_has_a_key_of_its_own(how, rng):
    heard, keys = [], []

    def accumulate(stats, key, x, u, teacher, threshold):
        heard.append(threshold)
        keys.append(key)
        return rules.krotov().accumulate(stats, key, x, u, teacher, threshold)

    def competition_bias(key, w, state):
        keys.append(key)
        return jnp.arange(5.0)

    layer = conv(
        rule=rules.krotov()._replace(accumulate=accumulate, competition_bias=competition_bias),
        homeostasis=hebbjax.Homeostasis(),
        **how,
    )
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))._replace(threshold=jnp.full(5, 0.5))
    layers.update_layer(layer, jax.random.key(1), state, images_of(rng))
    np.testing.assert_allclose(heard[0], np.arange(5) + 0.5)
    used = [*keys, *jax.random.split(jax.random.key(1)), jax.random.key(1)]
    own = tuple(jax.random.key_data(keys[0]).tolist())
    assert own not in {tuple(jax.random.key_data(key).tolist()) for key in used[1:]}
    bare = dataclasses.replace(layer, homeostasis=None)
    layers.update_layer(bare, jax.random.key(1), state._replace(threshold=None), images_of(rng))
    np.testing.assert_allclose(heard[1], np.arange(5))


def test_who_is_held_back_without_end_wins_nothing(rng):
    out = jnp.array([0, jnp.inf, jnp.inf, 0, jnp.inf])
    layer = conv(rule=rules.instar()._replace(competition_bias=lambda key, w, state: out))
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    after, _, info = layers.update_layer(layer, jax.random.key(1), state, images_of(rng))
    np.testing.assert_array_equal(np.any(after.w != state.w, axis=1), np.isfinite(out))
    assert info.win_counts.sum() == 36 and info.win_counts[np.isinf(out)].sum() == 0


def test_a_products_slopes_are_those_of_its_definition(rng):
    """Drives are computed as rows, for speed."""
    x, w, c = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 3, 4, 6), (5, 6), (2, 3, 4, 5)))
    for precision, error in (('highest', 1e-5), ('float32x3', 1e-5), ('bfloat16', 0.1)):
        layer = conv(precision=precision)
        rows = lambda x, w, layer=layer: jnp.sum(c * matmul_drives(layer, x, w))  # noqa: E731
        definition = lambda x, w: jnp.sum(c * jnp.einsum('bhwd,nd->bhwn', x, w))  # noqa: E731
        for found, slope in zip(jax.grad(rows, (0, 1))(x, w), jax.grad(definition, (0, 1))(x, w)):
            np.testing.assert_allclose(found, slope, rtol=error, atol=error)


@pytest.mark.parametrize(
    'rule, output, products',
    [
        (rules.krotov(), 'weights', 1),
        (rules.krotov(p=3.0), 'effective', 1),
        (rules.krotov(p=3.0), 'weights', 2),
        (rules.instar(metric='cosine', reduce=rules.mean_over_credit), 'cosine', 1),
    ],
)
def test_what_is_sent_comes_from_the_product_that_was_learned_from(rule, output, products):
    layer = conv(features=40, rule=rule, output=output)
    state = layers.init_layer(layer, jax.random.key(0), (6, 5, 3))
    step = jax.make_jaxpr(lambda state, x: layers.update_layer(layer, jax.random.key(1), state, x)[:2])
    assert str(step(state, jnp.ones((2, 6, 5, 3)))).count('dot_general[') == products


def test_maps_that_look_like_channels_first_are_none(rng):
    net = (conv(features=8, window=Window((1, 3))), conv(features=3, window=Window((1, 2)), post=()))
    states = layers.init(net, jax.random.key(0), (1, 10, 1)).layers  # layer 2 sees 1 x 8 x 8
    assert states[1].made_for.shape == (1, 8, 8)
    images = images_of(rng, 2, (1, 10, 1))
    assert layers.features(net, states, images).shape == (2, 21)
    state, _ = hebbjax.make_train_step(net)(layers.init(net, jax.random.key(0), (1, 10, 1)), images)
    assert state.step == 1 and (state.layers[1].w != states[1].w).any()


@pytest.mark.parametrize(
    'other, says',
    [
        (
            {'window': Window(5)},
            r'layer 1 has 4 neurons, and its state weights of shape \(4, 9\) for Window\(5\); give the states that',
        ),
        ({'window': Window((2, 4))}, r'shape \(4, 9\) for Window\(\(2, 4\)\); give the states'),
        ({'homeostasis': layers.Homeostasis()}, 'of layer 1 and its state only one has its threshold; give the states'),
        ({'bias': initializers.zeros}, 'of layer 1 and its state only one has its threshold'),
        ({'lateral': layers.Lateral(0.1)}, 'of layer 1 and its state only one has its lateral'),
    ],
)
def test_states_of_another_layer_are_refused(other, says):
    plain = Layer(4, rules.hebb(1), transforms.scale_by_rate(0.1), Window(3))
    changed = dataclasses.replace(plain, **other)
    state, images = hebbjax.init((plain,), jax.random.key(0), (6, 6, 1)), np.ones((2, 6, 6, 1), np.float32)
    for answer in (
        lambda net: hebbjax.features(net, state.layers, images),
        lambda net: hebbjax.train_step(net, state, images),
    ):
        answer((plain,))
        with pytest.raises(ValueError, match=says):
            answer((changed,))
    if 'window' not in other:
        with pytest.raises(ValueError, match=says):
            hebbjax.features((plain,), hebbjax.init((changed,), jax.random.key(0), (6, 6, 1)).layers, images)


@dataclasses.dataclass(frozen=True)
class Count:
    """A part that says it treats every image by itself, and counts batches all the same."""

    by_image = True

    def init(self, key, shape):
        return layers.PartState(stats=jnp.zeros(()))

    def apply(self, state, x, train=False, key=None):
        return x, state._replace(stats=state.stats + 1.0) if train else state


def test_a_part_with_a_state_of_its_own_sees_a_batch_once(rng):
    layer = Layer(3, rules.hebb(), transforms.scale_by_rate(0.1), Window(3), post=(Count(),), microbatch=2)
    state = layers.init((layer,), jax.random.key(0), (5, 5, 1))
    moved, _ = hebbjax.make_train_step((layer,))(state, images_of(rng, 6, (5, 5, 1)))
    assert float(moved.layers[0].post[0].stats) == 1


def test_layers_of_many_weights_see_more_images_at_once_than_fit_the_cache():
    """Each microbatch goes through all weights, and through what they are to change by."""
    layer = Layer(1536, rules.softhebb(), transforms.scale_by_rate(0.1), Window(3))
    assert microbatch_of(layer, (10, 10, 10, 384)) == 10  # 64 positions x (3456 + 1536) numbers each
    assert (
        microbatch_of(dataclasses.replace(layer, features=384), (10, 18, 18, 96)) == 2
    )  # of 331,776 weights, 3 would fit


def test_settings_that_cannot_be_traced_are_refused_and_others_may_be(rng):
    images = images_of(rng, 3, (4, 4, 1))

    def answer(sigma, *post):
        layer = Layer(4, rules.oja(), transforms.scale_by_rate(0.1), output=layers.AngleKernel(sigma), post=post)
        state = layers.init((layer,), jax.random.key(0), (4, 4, 1))
        return layers.features((layer,), state.layers, images)

    both = jax.vmap(answer)(jnp.array([0.4, 0.9]))
    np.testing.assert_allclose(both[1], answer(0.9), rtol=1e-5)
    with pytest.raises(ValueError, match='cannot be traced'):
        jax.vmap(lambda share: answer(0.6, layers.nearest(share)))(jnp.array([0.3, 0.6]))
