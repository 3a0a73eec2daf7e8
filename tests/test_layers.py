"""One layer: what it sees, sends and learns from."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from table import RULES

import hebbjax
from hebbjax import activations, competition, layers, patches, plasticity, rules
from hebbjax.layers import Layer
from hebbjax.patches import Window

KROTOV = optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(0.1))


def conv(**settings):
    """A small convolutional layer of 5 filters."""
    return Layer(**{'features': 5, 'rule': rules.krotov(2, 0.4, 3), 'tx': KROTOV, 'window': Window(3, 2, 1)} | settings)


def images_of(rng, count=4, shape=(6, 5, 3)):
    """Random images in [0, 1]."""
    return jnp.asarray(rng.uniform(size=(count, *shape)), jnp.float32)


def test_convolutions_centre_their_patches_and_dense_layers_do_not():
    assert conv().patch is patches.centred
    assert conv(window=Window()).patch is patches.raw
    assert conv(patch=patches.l2).patch is patches.l2


def test_a_layer_predicts_with_its_weights_on_patches_prepared_as_in_learning(rng):
    images, layer = images_of(rng), conv(fire=activations.identity)
    state = layers.init(layer, jax.random.key(0), (6, 5, 3))
    x = reference.patches(np.asarray(images), (3, 3), (2, 2), (1, 1))
    x = x - x.mean(-1, keepdims=True)
    assert state.w.shape == (5, 27)
    np.testing.assert_allclose(layers.respond(layer, state, images), x @ np.asarray(state.w).T, atol=1e-4)
    w = np.asarray(state.w)
    sent = layers.respond(conv(fire=activations.identity, send='seen'), state, images)
    np.testing.assert_allclose(sent, x @ (np.sign(w) * w**2).T, atol=1e-4)
    np.testing.assert_array_equal(layers.respond(conv(), state, images) >= 0, True)


def test_a_layer_pools_what_it_fires(rng):
    images, layer = images_of(rng), conv(pool=hebbjax.max_pool(2))
    state = layers.init(layer, jax.random.key(0), (6, 5, 3))
    expected = hebbjax.max_pool(2)(layers.respond(conv(), state, images))
    np.testing.assert_array_equal(layers.respond(layer, state, images), expected)


def test_bytes_become_intensities_and_floats_pass():
    pixels = jnp.array([[0, 51, 255]], jnp.uint8)
    np.testing.assert_allclose(layers.intensities(pixels), [[0, 0.2, 1]], rtol=1e-6)
    assert layers.intensities(pixels).dtype == jnp.float32
    floats = jnp.array([[-1.0, 300.0]])
    assert layers.intensities(floats) is floats


def test_given_weights_are_taken_as_they_are(rng):
    w = jnp.asarray(rng.normal(size=(5, 27)), jnp.float32)
    np.testing.assert_array_equal(layers.init(conv(), jax.random.key(0), (6, 5, 3), w).w, w)
    with pytest.raises(ValueError, match=r'weights of shape \(4, 27\) do not fit a layer that needs \(5, 27\)'):
        layers.init(conv(), jax.random.key(0), (6, 5, 3), w[:4])


def test_drawn_weights_are_standard_normal_and_follow_the_key():
    big = conv(features=400)
    w = layers.init(big, jax.random.key(0), (6, 5, 3)).w
    assert abs(w.mean()) < 0.05 and abs(w.std() - 1) < 0.05
    np.testing.assert_array_equal(w, layers.init(big, jax.random.key(0), (6, 5, 3)).w)
    assert not np.array_equal(w, layers.init(big, jax.random.key(1), (6, 5, 3)).w)


@pytest.mark.parametrize('window', [Window(), Window(3, 2, 1)], ids=['dense', 'convolutional'])
@pytest.mark.parametrize('patch', patches.PREPARATIONS.values(), ids=patches.PREPARATIONS)
def test_all_zero_patches_change_nothing_and_are_nobodys_wins(window, patch):
    layer = conv(window=window, patch=patch)
    state = layers.init(layer, jax.random.key(0), (6, 5, 3))
    after, _, told = layers.learn(layer, jax.random.key(1), state, jnp.zeros((4, 6, 5, 3)))
    np.testing.assert_array_equal(after.w, state.w)
    assert told.wins.sum() == 0 and told.change == 0 and told.finite


def test_all_zero_patches_among_others_change_nothing(rng):
    """A black image adds no win and no change; with a fixed largest change it does not even dilute."""
    images, layer = images_of(rng), conv()
    state = layers.init(layer, jax.random.key(0), (6, 5, 3))
    after, _, told = layers.learn(layer, jax.random.key(1), state, images)
    padded, _, told_padded = layers.learn(
        layer, jax.random.key(1), state, jnp.concatenate([images, jnp.zeros((3, 6, 5, 3))])
    )
    np.testing.assert_allclose(padded.w, after.w, atol=1e-6)
    np.testing.assert_array_equal(told_padded.wins, told.wins)
    assert told.wins.sum() == 4 * 9


def test_wins_count_the_largest_drive_and_the_first_of_equals():
    x = jnp.array([[1.0, 0.0], [0.0, 0.0], [0.0, -1.0], [1.0, 1.0]])
    u = jnp.array([[1.0, 5.0, 5.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [-3.0, -2.0, -1.0]])
    found = rules.winners(x, competition.largest(u, 1)[1][:, 0], 3)
    np.testing.assert_array_equal(found, [1, 1, 1])
    assert found.dtype == jnp.int32


def test_a_layer_learns_from_glimpses_of_its_images(rng):
    """The windows are drawn with the first of two keys split from the layer's; the rule sees them prepared."""
    images, layer = images_of(rng), conv(glimpses=7)
    state = layers.init(layer, jax.random.key(0), (6, 5, 3))
    after, _, told = layers.learn(layer, jax.random.key(3), state, images)
    assert told.wins.sum() == 4 * 7
    x = patches.centred(patches.glimpse(jax.random.split(jax.random.key(3))[0], layer.window, images, 7))
    w = reference.krotov_step(*(np.asarray(a, np.float64) for a in (x, state.w)), 2, 0.4, 3, 0.1)
    np.testing.assert_allclose(after.w, w, atol=1e-5)
    other, _, _ = layers.learn(layer, jax.random.key(4), state, images)
    assert not np.array_equal(other.w, after.w)


def test_told_says_what_happened(rng):
    images, layer = images_of(rng), conv()
    state = layers.init(layer, jax.random.key(0), (6, 5, 3))
    after, _, told = layers.learn(layer, jax.random.key(1), state, images)
    np.testing.assert_allclose(told.change, jnp.abs(after.w - state.w).max(), atol=1e-6)
    np.testing.assert_allclose(told.change, 0.1, rtol=1e-5)
    u = layers.product(layer, layers.look(layer, images), layer.rule.seen(state.w)).reshape(-1, 5)
    np.testing.assert_array_equal(told.wins, np.bincount(np.argmax(u, 1), minlength=5))
    assert told.finite


def test_a_teacher_reaches_the_rule(rng):
    heard = []
    plain = rules.krotov()

    def gather(sums, key, x, u, teacher, threshold):
        heard.append(teacher)
        return plain.gather(sums, key, x, u)

    layer = conv(rule=plain._replace(gather=gather))
    layers.learn(layer, jax.random.key(1), layers.init(layer, jax.random.key(0), (6, 5, 3)), images_of(rng), 'labels')
    assert heard == ['labels']


@pytest.mark.parametrize(
    'settings, match',
    [
        ({'features': 0}, 'layer of 0 neurons cannot learn; use features >= 1'),
        ({'glimpses': 0}, 'glimpses=0 shows the layer nothing'),
        ({'chunk': 0}, 'chunk=0 looks at no image; use 1 or more, or None'),
        ({'precision': 'int4'}, "precision 'int4' is unknown; there are highest, tensorfloat32, bfloat16"),
        ({'send': 'spikes'}, "sends 'weights' or 'seen' drives, not 'spikes'"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        conv(**settings)


def test_precision_is_chosen_in_one_place(rng):
    """bfloat16 rounds the operands of the drives, not their sum: each drive is off by 2^-8 at most."""
    x, w = (
        jnp.asarray(rng.uniform(1, 2, (20, 1000)), jnp.float32),
        jnp.asarray(rng.uniform(1, 2, (7, 1000)), jnp.float32),
    )
    exact = np.asarray(x, float) @ np.asarray(w, float).T
    error = {name: np.abs(layers.product(conv(precision=name), x, w) / exact - 1).max() for name in layers.PRECISIONS}
    assert error['highest'] < 1e-6 and error['tensorfloat32'] < 1e-3
    assert 1e-6 < error['bfloat16'] < 2**-8
    rounded = [np.asarray(a.astype(jnp.bfloat16), float) for a in (x, w)]
    np.testing.assert_allclose(layers.product(conv(precision='bfloat16'), x, w), rounded[0] @ rounded[1].T, rtol=1e-5)


CHUNKED = [(row, 3, 'weights') for row in RULES] + [(RULES[-1], size, 'seen') for size in (1, 4)]


@pytest.mark.parametrize('row, size, send', CHUNKED, ids=lambda value: getattr(value, 'name', str(value)))
def test_a_batch_may_be_seen_in_chunks(row, size, send, rng):
    """What is learned, told and sent on does not depend on how many images are looked at together."""
    images, told, sent, w = images_of(rng, 7), [], [], []
    for chunk in (7, size):
        layer = Layer(
            6, row.make(), plasticity.ascend(0.1), Window(3), chunk=chunk, send=send, pool=hebbjax.max_pool(2)
        )
        state = layers.init(layer, jax.random.key(0), (6, 5, 3))
        after, out, what = jax.jit(partial(layers.learn, layer))(jax.random.key(1), state, images)
        np.testing.assert_allclose(out, layers.respond(layer, state, images), rtol=1e-5, atol=1e-6)
        told, sent, w = [*told, what.wins], [*sent, out], [*w, after.w]
    np.testing.assert_allclose(w[1], w[0], rtol=2e-5, atol=1e-5 * np.abs(w[0]).max())
    np.testing.assert_allclose(sent[1], sent[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(told[1], told[0])


def test_chunks_fit_the_cache_and_divide_the_batch_where_they_can():
    layer = Layer(196, rules.instar(), plasticity.ascend(0.1), Window(3))
    assert layers.chunk_of(layer, (100, 14, 14, 100)) == 5  # 6 would fit: 144 positions x (900 + 196) numbers each
    assert layers.chunk_of(layer, (101, 14, 14, 100)) == 6  # a prime batch leaves a rest
    assert layers.chunk_of(layer, (4, 14, 14, 100)) == 4
    assert layers.chunk_of(layer, (100, 300, 300, 100)) == 1
    assert layers.chunk_of(Layer(2000, rules.instar(), plasticity.ascend(0.1)), (1024, 28, 28, 1)) == 1024
    for other, size in (({'chunk': 8}, 8), ({'chunk': 800}, 100)):
        assert layers.chunk_of(dataclasses.replace(layer, **other), (100, 14, 14, 100)) == size


def test_memory_is_a_chunks_not_a_batchs():
    """100 images of 14 x 14 x 100 have 49 MiB of patches; a step needs a fraction of that."""
    layer = Layer(196, rules.instar(), plasticity.ascend(0.1), Window(3), patch=patches.raw)
    shapes = jax.eval_shape(lambda key: layers.init(layer, key, (14, 14, 100)), jax.random.key(0))
    step = jax.jit(lambda key, state, images: layers.learn(layer, key, state, images)[::2])
    used = step.lower(jax.random.key(0), shapes, jax.ShapeDtypeStruct((100, 14, 14, 100), 'float32')).compile()
    memory = used.memory_analysis()
    whole = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert whole < 40 * 2**20
