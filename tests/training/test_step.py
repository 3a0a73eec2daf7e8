"""Networks: steps, epochs, keys, evaluation, compilation, and the promises about state."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hebbjax import layers, rules, training, transforms
from hebbjax.layers import max_pool, relu
from hebbjax.layers.layer import Layer
from hebbjax.layers.patches import Window
from hebbjax.training.stages import Stage

SHAPE = (8, 8, 3)
TX = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.05))
NET = (
    Layer(6, rules.krotov(3, 0.4, 3), TX, Window(3, 1, 1), post=(relu, max_pool(2))),
    Layer(5, rules.instar(2), transforms.scale_by_rate(0.1), Window(3, 1), patches_per_image=2),
)
DENSE = (Layer(4, rules.oja(), transforms.scale_by_rate(0.001)),)


@pytest.fixture(scope='module')
def images():
    """Twenty images in bytes."""
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8))


@pytest.fixture(scope='module')
def step():
    """One compiled step for all tests that only use it."""
    return training.make_train_step(NET)


@pytest.fixture(scope='module')
def epoch():
    """One compiled epoch for all tests that only use it."""
    return training.make_train_epoch(NET, batch=6)


def start(seed=0, net=NET, weights=None):
    """A first state, drawn in one program."""
    return draw(net, jax.random.key(seed), SHAPE, weights)


draw = jax.jit(layers.init, static_argnums=(0, 2))


def plain(tree):
    """Keys as numbers, so that states can be compared."""
    is_key = lambda a: jnp.issubdtype(a.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(a) if is_key(a) else a) for a in jax.tree.leaves(tree)]


def assert_same(one, other, **tolerance):
    """Two states, leaf by leaf."""
    for a, b in zip(plain(one), plain(other), strict=True):
        np.testing.assert_allclose(a, b, **({'rtol': 0} | tolerance))


# Steps


def test_a_step_changes_every_layer_and_counts(images, step):
    state = start()
    after, info = step(state, images[:6])
    assert after.step == 1
    np.testing.assert_array_equal(jax.random.key_data(after.key), jax.random.key_data(state.key))
    for before, then, info_of in zip(state.layers, after.layers, info):
        assert info_of.max_update > 0 and info_of.is_finite
        np.testing.assert_allclose(jnp.abs(then.w - before.w).max(), info_of.max_update, atol=1e-6)
    assert [int(layer.win_counts.sum()) for layer in info] == [6 * 64, 6 * 2]


def test_bytes_and_intensities_teach_the_same(images, step):
    state = start()
    floats = images[:6].astype(jnp.float32) / 255
    assert_same(step(state, images[:6])[0], step(state, floats)[0], atol=1e-6)


def test_every_step_draws_anew_and_a_key_repeats_everything(images, epoch):
    first, _ = epoch(start(), images)
    assert_same(epoch(start(), images)[0], first)
    other = epoch(start()._replace(key=jax.random.key(9)), images)[0]
    assert not np.array_equal(other.layers[1].w, first.layers[1].w)
    later = epoch(start()._replace(step=jnp.asarray(3, jnp.int32)), images)[0]
    assert not np.array_equal(later.layers[1].w, first.layers[1].w)


def test_one_bad_pixel_is_told_of_a_step_and_of_the_whole_epoch(images, step):
    floats = np.array(images, np.float32) / 255
    for where in ((0, 0, 0, 0), (3, 4, 4, 1)):
        bad = floats[:6].copy()
        bad[where] = np.inf
        assert not step(start(), bad)[1][0].is_finite
    epoch, bad = training.make_train_epoch(DENSE, batch=5), floats.copy()
    bad[:3], traced = np.nan, jax.jit(epoch)  # traced images have no values that could be looked at
    with pytest.raises(ValueError, match=r'images hold .* non-finite values, the first in image 0'):
        epoch(start(net=DENSE), bad)
    assert not traced(start(net=DENSE), bad)[1][0].is_finite
    assert traced(start(net=DENSE), floats)[1][0].is_finite


@pytest.mark.parametrize(('k', 'neurons'), [(2, 200), (7, 2000)])
def test_no_sort_and_one_product_stand_in_a_compiled_step(k, neurons, images):
    """On a CPU, XLA may rewrite a top_k whose output is sliced into a full sort, many times slower."""
    net = (Layer(neurons, rules.krotov(k, 0.4, 3), TX),)
    compiled = training.make_train_step(net).lower(start(net=net), images).compile().as_text()
    assert ' sort(' not in compiled
    assert len(re.findall(r' dot\(', compiled)) == 1
    if k == 2:  # so this test would see one
        two = jax.jit(lambda u: jnp.sort(u @ u.T) @ u).lower(jnp.ones((9, 200))).compile().as_text()
        assert ' sort(' in two and len(re.findall(r' dot\(', two)) == 2


# First states


def test_given_weights_are_not_drawn_anew(rng):
    w = jnp.asarray(rng.normal(size=(5, 54)), jnp.float32)
    state = start(weights=[None, w])
    np.testing.assert_array_equal(state.layers[1].w, w)
    drawn = start()
    np.testing.assert_array_equal(state.layers[0].w, drawn.layers[0].w)
    assert not np.array_equal(drawn.layers[1].w, w)


def test_given_weights_of_another_shape_or_number_are_refused():
    with pytest.raises(ValueError, match=r'layer 2: weights of shape \(5, 53\) .* do not fit'):
        start(weights=[None, jnp.ones((5, 53))])
    for weights in ([None], [None] * 3):
        with pytest.raises(ValueError, match='weights'):
            start(weights=weights)


def test_a_layer_that_does_not_fit_is_refused_by_name():
    small = Layer(4, rules.krotov(), TX, Window(5))
    with pytest.raises(
        ValueError, match=r'layer 2: window \(5, 5\) with padding \(0, 0\) does not fit images of 4 x 4'
    ):
        start(net=(NET[0], small))
    with pytest.raises(ValueError, match='layer 1: k=7 is more than the 6 neurons that compete'):
        start(net=(Layer(6, rules.krotov(7), TX), small))
    with pytest.raises(ValueError, match=r'layer 1: max_pool\(9\) does not fit maps of 8 x 8'):
        start(net=(Layer(6, rules.krotov(), TX, Window(3, 1, 1), post=(relu, max_pool(9))),))


# Epochs


def test_an_epoch_is_its_steps_in_a_shuffled_order(images):
    """Dense and without drawn patches, so that the order alone decides; the scan does what a Python loop does."""
    net = DENSE
    epoch, step = training.make_train_epoch(net, batch=5), training.make_train_step(net)
    state = start(net=net)
    order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(state.key, 0), 0x5EED), 20)
    looped, wins, change = state, 0, 0
    for chosen in order.reshape(4, 5):
        looped, info = step(looped, images[chosen])
        wins, change = wins + info[0].win_counts, max(change, info[0].max_update)
    scanned, info = epoch(state, images)
    assert_same(scanned, looped, atol=1e-5)
    np.testing.assert_array_equal(info[0].win_counts, wins)
    np.testing.assert_allclose(info[0].max_update, change, rtol=1e-5)
    assert not np.array_equal(order, np.arange(20))


@pytest.mark.parametrize('keep_last', [False, True])
def test_images_left_over_sit_out_unless_they_are_kept(images, keep_last):
    net = DENSE
    epoch = training.make_train_epoch(net, batch=6, keep_last=keep_last)
    state, info = epoch(start(net=net), images)
    assert state.step == (4 if keep_last else 3)
    assert info[0].win_counts.sum() == (20 if keep_last else 18)


def test_an_epoch_sees_every_image_once():
    """Image i drives neuron i alone, so the wins of an epoch say who was seen; left over are others each time."""
    eye = jnp.eye(7).reshape(7, 7, 1, 1)
    net = (Layer(7, rules.krotov(), transforms.scale_by_rate(0.0)),)
    state = draw(net, jax.random.key(0), (7, 1, 1), [jnp.eye(7)])
    epoch, left = training.make_train_epoch(net, batch=3), set()
    for _ in range(12):
        state, info = epoch(state, eye)
        assert sorted(info[0].win_counts.tolist()) == [0, 1, 1, 1, 1, 1, 1]
        left.add(int(jnp.argmin(info[0].win_counts)))
    assert len(left) > 2


def test_labels_are_shuffled_with_their_images():
    """A teacher is the label of its own image, in every batch."""
    net = DENSE
    marked = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None, None] / 32, (20, *SHAPE))
    plain_rule = net[0].rule

    def accumulate(stats, key, x, u, teacher, threshold):
        return stats._replace(leak=jnp.abs(teacher - x[:, :1]).max())

    def finalize(stats, w, state):
        return jnp.full_like(w, stats.leak), state

    def teach(labels, above):
        return jnp.tile(labels[:, None], (1, 4)).astype(jnp.float32) / 32

    rule = plain_rule._replace(accumulate=accumulate, finalize=finalize)
    spy = (Layer(4, rule, transforms.scale_by_rate(1.0), teacher=teach),)
    epoch = training.make_train_epoch(spy, batch=6, keep_last=True)
    assert epoch(start(net=spy), marked, np.arange(20))[1][0].max_update == 0
    assert epoch(start(net=spy), marked, np.arange(20)[::-1])[1][0].max_update > 0


def test_a_teacher_hears_the_weights_of_the_layers_above_as_they_were(images):
    """The lowest learns its signal as its weights; the one above has changed in the same step."""
    heard = []

    def teach(labels, above):
        heard.append(tuple(w.shape for w in above))
        return jnp.tile(sum(w.mean() for w in above)[None, None], (len(labels), 4))

    def accumulate(stats, key, x, u, teacher, threshold):
        return stats._replace(leak=teacher[0])

    def finalize(stats, w, state):
        return jnp.zeros_like(w) + stats.leak[:, None], state

    taught = Layer(
        4,
        rules.hebb()._replace(accumulate=accumulate, finalize=finalize),
        transforms.scale_by_rate(1.0),
        Window(3),
        teacher=teach,
    )
    net = (taught, Layer(2, rules.hebb(), TX))
    state = start(net=net)
    after, _ = training.make_train_step(net)(state, images[:6], jnp.zeros(6, int))
    assert heard == [((2, 144),)]
    signal = np.mean(state.layers[1].w)
    np.testing.assert_allclose(after.layers[0].w, np.asarray(state.layers[0].w) + signal, atol=1e-5)


def test_a_teacher_needs_labels(images):
    net = (NET[0], Layer(5, rules.instar(), TX, teacher=lambda labels, above: jax.nn.one_hot(labels, 5)))
    says = r'layer 2 has a teacher, which needs labels; call with \(state, images, labels\)'
    with pytest.raises(ValueError, match=says):
        training.train_step(net, start(net=net), images)


def test_a_batch_larger_than_the_data_is_refused(images):
    with pytest.raises(ValueError, match='a batch of 21 is larger than the 20 images; use batch <= 20'):
        training.make_train_epoch(NET, batch=21)(start(), images)


def test_equal_steps_and_epochs_compile_once(images, epoch, compilations):
    state, _ = epoch(start(), images)
    epoch.lower(start(), images).compile()
    del compilations[:]
    again = training.make_train_epoch(tuple(dataclasses.replace(layer) for layer in NET), batch=6)
    assert again == epoch and hash(again) == hash(epoch)
    again(state, images)
    assert not compilations
    assert training.make_train_epoch(NET, batch=6, keep_last=True) != epoch


def test_a_state_is_still_there_after_a_step_and_an_epoch(images, epoch, step):
    """Nothing looks at the state before: on a CPU, numpy's view of an array would keep it from being donated."""
    state = start()
    step(state, images[:6])
    first = epoch(state, images)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert_same(epoch(state, images), first)
    assert_same(state, start())


def test_a_donated_state_is_gone_and_learning_is_the_same(images):
    epoch = functools.partial(training.make_train_epoch, batch=5)
    for make, x in ((training.make_train_step, images[:5]), (epoch, images)):
        plainly, _ = make(DENSE)(start(net=DENSE), x)
        state = start(net=DENSE)
        donated, _ = make(DENSE, donate=True)(state, x)
        assert state.layers[0].w.is_deleted()
        assert_same(donated, plainly)


# Evaluation


def test_features_of_an_image_do_not_depend_on_its_company(images, epoch, rng):
    state, _ = epoch(start(), images)
    together = np.asarray(layers.features(NET, state.layers, images))
    scale = np.abs(together).max()
    order = rng.permutation(20)
    shuffled = layers.features(NET, state.layers, images[order])
    np.testing.assert_allclose(shuffled, together[order], atol=1e-6 * scale)
    np.testing.assert_allclose(layers.features(NET, state.layers, images[5:12]), together[5:12], atol=1e-6 * scale)


def test_features_stop_at_any_depth(images):
    state = start()
    x = np.array(images, np.float32) / 255
    np.testing.assert_allclose(layers.features(NET, state.layers, images, upto=0), x.reshape(20, -1), atol=1e-5)
    x = jax.jit(layers.forward, static_argnums=0)(NET[0], state.layers[0], x)
    np.testing.assert_allclose(layers.features(NET, state.layers, images, upto=1), x.reshape(20, -1), atol=1e-5)
    assert layers.features(NET, state.layers, images).shape == (20, 20)


# vmap: over keys, rates and deltas


def test_what_a_rule_is_built_with_can_be_mapped(images):
    """Built inside the mapped function; only shapes and counts are Python numbers."""

    def learned(rate, delta, p):
        tx = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(rate))
        net = (Layer(6, rules.krotov(3, delta, p), tx, Window(3, 2)),)
        return training.train_step(net, start(net=net), images)[0].layers[0].w

    values = np.array([[0.001, 0.0, 1.5], [0.01, 0.4, 3.5], [0.05, 0.2, 2.0]], np.float32)
    together = np.asarray(jax.jit(jax.vmap(learned))(*values.T))
    np.testing.assert_allclose(together[1], learned(0.01, 0.4, 3.5), atol=1e-5)
    assert np.abs(together[1] - together[2]).max() > 1e-3


# Outside of jit


def test_what_is_called_outside_of_jit_compiles_once_for_equal_networks(images, compilations):
    """Loops over parts of a batch have new bodies at every call; so had networks, which compared by identity."""

    def build():
        tx = optax.chain(transforms.scale_by_rate(0.05))
        return (Layer(6, rules.krotov(3, 0.4, 3), tx, Window(3, 1, 1), microbatch=3),)  # twenty images in a loop

    def everything():
        net = build()
        state = start(net=net)
        state, _ = training.train_step(net, state, images, stage=Stage(1))
        return state.layers[0].w, layers.features(net, state.layers, images)

    first = everything()
    assert compilations
    del compilations[:]
    again = everything()
    assert not compilations
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
