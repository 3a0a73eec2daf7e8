"""Networks: steps, epochs, keys, evaluation, compilation, and the promises about state."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import hebbjax
from hebbjax import data, layers, learning, plasticity, rules, train
from hebbjax.layers import Layer
from hebbjax.patches import Window
from hebbjax.stages import Stage

SHAPE = (8, 8, 3)
TX = optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(0.05))
NET = (
    Layer(6, rules.krotov(3, 0.4, 3), TX, Window(3, 1, 1), pool=hebbjax.max_pool(2)),
    Layer(5, rules.instar(2), plasticity.ascend(0.1), Window(3, 1), glimpses=2),
)
DENSE = (Layer(4, rules.krotov(), TX),)


@pytest.fixture(scope='module')
def images():
    """Twenty images in bytes."""
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8))


@pytest.fixture(scope='module')
def step():
    """One compiled step for all tests that only use it."""
    return train.make_train_step(NET)


@pytest.fixture(scope='module')
def epoch():
    """One compiled epoch for all tests that only use it."""
    return train.make_train_epoch(NET, batch=6)


def start(seed=0, net=NET, weights=None):
    """A first state."""
    return train.init(net, jax.random.key(seed), SHAPE, weights)


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
    for before, then, told in zip(state.layers, after.layers, info):
        assert told.change > 0 and told.finite
        np.testing.assert_allclose(jnp.abs(then.w - before.w).max(), told.change, atol=1e-6)
    assert [int(told.wins.sum()) for told in info] == [6 * 64, 6 * 2]


def test_every_layer_learns_from_what_the_layer_below_sent_before_it_learned(images, step):
    state = start()
    after, _ = step(state, images[:6])
    keys = jax.random.split(jax.random.fold_in(state.key, 0), 2)
    x = images[:6].astype(jnp.float32) / 255
    for layer, key, before, then in zip(NET, keys, state.layers, after.layers):
        alone, _, _ = learning.learn(layer, key, before, x)
        np.testing.assert_allclose(then.w, alone.w, atol=1e-5)
        x = layers.respond(layer, before, x)


def test_jit_changes_nothing(images, step):
    state = start()
    (jitted, info), (eager, info_eager) = step(state, images[:6]), train.train_step(NET, state, images[:6])
    assert_same(jitted, eager, atol=1e-5)
    for told, told_eager in zip(info, info_eager):
        np.testing.assert_array_equal(told.wins, told_eager.wins)


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


def test_weights_keep_their_dtype(images, step):
    assert {layer.w.dtype for layer in step(start(), images[:6])[0].layers} == {jnp.dtype('float32')}


@pytest.mark.parametrize('where', [(0, 0, 0, 0), (3, 4, 4, 1)])
def test_one_bad_pixel_is_told(images, where):
    net = NET[:1]
    step = train.make_train_step(net)
    floats = images[:6].astype(jnp.float32) / 255
    for bad in (jnp.nan, jnp.inf):
        _, info = step(start(net=net), floats.at[where].set(bad))
        assert not info[0].finite
    assert step(start(net=net), floats)[1][0].finite


def test_one_bad_step_is_told_of_the_whole_epoch(images, epoch):
    floats = images.astype(jnp.float32) / 255
    assert all(told.finite for told in epoch(start(), floats)[1])
    bad = floats.at[:3].set(jnp.nan)
    with pytest.raises(ValueError, match=r'images hold .* non-finite values, the first in image 0'):
        epoch(start(), bad)
    assert not jax.jit(epoch)(start(), bad)[1][0].finite  # traced, images have no values that could be looked at


@pytest.mark.parametrize('neurons', [200, 2000])
@pytest.mark.parametrize('k', [2, 7])
def test_no_sort_and_one_product_stand_in_a_compiled_step(k, neurons, images):
    """On a CPU, XLA may rewrite a top_k whose output is sliced into a full sort, many times slower."""
    net = (Layer(neurons, rules.krotov(k, 0.4, 3), TX),)
    compiled = train.make_train_step(net).lower(start(net=net), images).compile().as_text()
    assert ' sort(' not in compiled
    assert len(re.findall(r' dot\(', compiled)) == 1
    two = jax.jit(lambda u: jnp.sort(u @ u.T) @ u).lower(jnp.ones((9, 200))).compile().as_text()
    assert ' sort(' in two  # so this test would see one
    assert len(re.findall(r' dot\(', two)) == 2


# First states


def test_given_weights_are_not_drawn_anew(rng):
    w = jnp.asarray(rng.normal(size=(5, 54)), jnp.float32)
    state = start(weights=[None, w])
    np.testing.assert_array_equal(state.layers[1].w, w)
    drawn = start()
    np.testing.assert_array_equal(state.layers[0].w, drawn.layers[0].w)
    assert not np.array_equal(drawn.layers[1].w, w)


def test_given_weights_of_another_shape_or_number_are_refused():
    with pytest.raises(ValueError, match=r'layer 2: weights of shape \(5, 53\) do not fit'):
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
        start(net=(Layer(6, rules.krotov(), TX, Window(3, 1, 1), pool=hebbjax.max_pool(9)),))


# Epochs


def test_an_epoch_is_its_steps_in_a_shuffled_order(images):
    """Dense and without glimpses, so that the order alone decides; the scan does what a Python loop does."""
    net = DENSE
    epoch, step = train.make_train_epoch(net, batch=5), train.make_train_step(net)
    state = start(net=net)
    order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(state.key, 0), 0x5EED), 20)
    looped, wins, change = state, 0, 0
    for chosen in order.reshape(4, 5):
        looped, info = step(looped, images[chosen])
        wins, change = wins + info[0].wins, max(change, info[0].change)
    scanned, info = epoch(state, images)
    assert_same(scanned, looped, atol=1e-5)
    np.testing.assert_array_equal(info[0].wins, wins)
    np.testing.assert_allclose(info[0].change, change, rtol=1e-5)
    assert not np.array_equal(order, np.arange(20))


@pytest.mark.parametrize('keep_last', [False, True])
def test_images_left_over_sit_out_unless_they_are_kept(images, keep_last):
    net = DENSE
    epoch = train.make_train_epoch(net, batch=6, keep_last=keep_last)
    state, info = epoch(start(net=net), images)
    assert state.step == (4 if keep_last else 3)
    assert info[0].wins.sum() == (20 if keep_last else 18)
    assert train.make_train_epoch(net, batch=5, keep_last=keep_last)(start(net=net), images)[0].step == 4


def test_an_epoch_sees_every_image_once():
    """Image i drives neuron i alone, so the wins of an epoch say who was seen; left over are others each time."""
    eye = jnp.eye(7).reshape(7, 7, 1, 1)
    net = (Layer(7, rules.krotov(), plasticity.ascend(0.0)),)
    state = train.init(net, jax.random.key(0), (7, 1, 1), [jnp.eye(7)])
    _, info = train.make_train_epoch(net, batch=3, keep_last=True)(state, eye)
    np.testing.assert_array_equal(info[0].wins, 1)
    epoch, left = train.make_train_epoch(net, batch=3), set()
    for _ in range(12):
        state, info = epoch(state, eye)
        assert sorted(info[0].wins.tolist()) == [0, 1, 1, 1, 1, 1, 1]
        left.add(int(jnp.argmin(info[0].wins)))
    assert len(left) > 2


def test_labels_are_shuffled_with_their_images():
    """A teacher is the label of its own image, in every batch."""
    net = DENSE
    marked = jnp.broadcast_to(jnp.arange(20, dtype=jnp.float32)[:, None, None, None] / 32, (20, *SHAPE))
    plain_rule = net[0].rule

    def gather(sums, key, x, u, teacher, threshold):
        return sums._replace(leak=jnp.abs(teacher - x[:, :1]).max())

    def change(sums, w, state):
        return jnp.full_like(w, sums.leak), state

    def teach(labels, above):
        return jnp.tile(labels[:, None], (1, 4)).astype(jnp.float32) / 32

    rule = plain_rule._replace(gather=gather, change=change)
    spy = (Layer(4, rule, plasticity.ascend(1.0), teacher=teach),)
    epoch = train.make_train_epoch(spy, batch=6, keep_last=True)
    assert epoch(start(net=spy), marked, jnp.arange(20))[1][0].change == 0
    assert epoch(start(net=spy), marked, jnp.arange(20)[::-1])[1][0].change > 0


def test_a_teacher_hears_the_weights_of_the_layers_above_as_they_were(images):
    """The lowest learns its signal as its weights; the one above has changed in the same step."""
    heard = []

    def teach(labels, above):
        heard.append(tuple(w.shape for w in above))
        return jnp.tile(sum(w.mean() for w in above)[None, None], (len(labels), 4))

    def gather(sums, key, x, u, teacher, threshold):
        return sums._replace(leak=teacher[0])

    def change(sums, w, state):
        return jnp.zeros_like(w) + sums.leak[:, None], state

    told = Layer(
        4, rules.krotov()._replace(gather=gather, change=change), plasticity.ascend(1.0), Window(3), teacher=teach
    )
    net = (told, Layer(3, rules.krotov(), TX, Window(2)), Layer(2, rules.instar(), TX))
    state = start(net=net)
    after, _ = train.make_train_step(net)(state, images[:6], jnp.zeros(6, int))
    assert heard == [((3, 16), (2, 75))]
    signal = sum(layer.w.mean() for layer in state.layers[1:])
    np.testing.assert_allclose(after.layers[0].w - state.layers[0].w, np.full((4, 27), signal), atol=1e-5)


def test_a_teacher_needs_labels(images):
    net = (NET[0], Layer(5, rules.instar(), TX, teacher=lambda labels, above: jax.nn.one_hot(labels, 5)))
    says = r'layer 2 has a teacher, which needs labels; call with \(state, images, labels\)'
    with pytest.raises(ValueError, match=says):
        train.train_step(net, start(net=net), images)


def test_a_batch_larger_than_the_data_or_below_1_is_refused(images):
    with pytest.raises(ValueError, match='a batch of 21 is larger than the 20 images; use batch <= 20'):
        train.make_train_epoch(NET, batch=21)(start(), images)
    with pytest.raises(ValueError, match='a batch of 0 images teaches nothing; use a whole number, 1 or more'):
        train.make_train_epoch(NET, batch=0)


def test_many_epochs_compile_once(images):
    epoch = train.make_train_epoch(NET, batch=6, keep_last=True)
    state = start()
    for _ in range(3):
        state, _ = epoch(state, images)
    epoch(start(seed=1), images)
    assert epoch._cache_size() == 1


def test_a_state_is_still_there_after_a_step_and_an_epoch(images, epoch, step):
    """Nothing looks at the state before: on a CPU, numpy's view of an array would keep it from being donated."""
    state = start()
    step(state, images[:6])
    first = epoch(state, images)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert_same(epoch(state, images), first)
    assert_same(state, start())


@pytest.mark.parametrize(
    'make', [train.make_train_step, lambda net, donate: train.make_train_epoch(net, batch=5, donate=donate)]
)
def test_a_donated_state_is_gone_and_learning_is_the_same(images, make):
    net = DENSE
    kept, _ = make(net, donate=False)(start(net=net), images)
    state = start(net=net)
    donated, _ = make(net, donate=True)(state, images)
    assert state.layers[0].w.is_deleted()
    assert_same(donated, kept)


# Evaluation


def test_features_change_nothing(images, epoch):
    state, _ = epoch(start(), images)
    before = plain(state)
    once = train.features(NET, state.layers, images)
    np.testing.assert_array_equal(train.features(NET, state.layers, images), once)
    for a, b in zip(plain(state), before):
        np.testing.assert_array_equal(a, b)


def test_features_of_an_image_do_not_depend_on_its_company(images, epoch, rng):
    state, _ = epoch(start(), images)
    together = np.asarray(train.features(NET, state.layers, images))
    scale = np.abs(together).max()
    order = rng.permutation(20)
    shuffled = train.features(NET, state.layers, images[order])
    np.testing.assert_allclose(shuffled, together[order], atol=1e-6 * scale)
    for few in (slice(3, 4), slice(5, 12)):
        np.testing.assert_allclose(train.features(NET, state.layers, images[few]), together[few], atol=1e-6 * scale)


def test_features_stop_at_any_depth(images):
    state = start()
    x = images.astype(jnp.float32) / 255
    for depth in range(3):
        found = train.features(NET, state.layers, images, upto=depth)
        np.testing.assert_allclose(found, x.reshape(20, -1), atol=1e-5)
        if depth < 2:
            x = layers.respond(NET[depth], state.layers[depth], x)
    assert train.features(NET, state.layers, images).shape == (20, 20)


# vmap: over keys, rates and deltas


def test_one_step_for_many_keys_equals_each_alone(images, step):
    states = jax.jit(jax.vmap(lambda key: train.init(NET, key, SHAPE)))(jax.random.split(jax.random.key(0), 3))
    many, _ = jax.vmap(lambda state: step(state, images[:6]))(states)
    for i in range(3):
        one = jax.tree.map(lambda a, i=i: a[i], states)
        assert_same(jax.tree.map(lambda a, i=i: a[i], many), step(one, images[:6])[0], atol=1e-6)


@pytest.mark.parametrize(
    'net_of, values',
    [
        (lambda rate: (Layer(6, rules.krotov(), plasticity.ascend(rate), Window(3, 2)),), [0.0, 0.001, 0.01]),
        (lambda delta: (Layer(6, rules.krotov(3, delta, 3), TX, Window(3, 2)),), [0.0, 0.2, 0.4]),
        (lambda p: (Layer(6, rules.krotov(3, 0.4, p), TX, Window(3, 2)),), [1.5, 2.0, 3.5]),
    ],
    ids=['rate', 'delta', 'p'],
)
def test_what_a_rule_is_built_with_can_be_mapped(images, net_of, values):
    """Built inside the mapped function; only shapes and counts are Python numbers."""

    def learned(value):
        net = net_of(value)
        state = train.init(net, jax.random.key(0), SHAPE)
        return train.train_step(net, state, images)[0].layers[0].w

    together = jax.vmap(learned)(jnp.array(values))
    for w, value in zip(together, values):
        np.testing.assert_allclose(w, learned(value), atol=1e-5)
    assert np.abs(together[1] - together[2]).max() > 1e-3


def test_training_many_seeds_at_once_is_as_useful_as_one_by_one():
    """Three whole trainings on handwritten digits; the seeds differ, the two ways of running them do not."""
    train_set, test_set = data.load('digits', 'train'), data.load('digits', 'test')
    fit, held = jnp.asarray(train_set.images), jnp.asarray(test_set.images)
    schedule = plasticity.anneal(0.04, epochs=4, steps_per_epoch=len(fit) // 50)
    tx = optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(schedule))
    net = (Layer(60, rules.krotov(2, 0.4, 3), tx),)
    epoch = train.make_train_epoch(net, batch=50)

    def trained(key):
        state = train.init(net, key, fit.shape[1:])
        return lax.fori_loop(0, 4, lambda _, state: epoch(state, fit)[0], state).layers

    def accuracy(found):
        seen, unseen = (np.asarray(train.features(net, found, images), np.float64) for images in (fit, held))
        goals = np.eye(10)[train_set.labels]
        head = np.linalg.solve(seen.T @ seen + 1e-2 * len(seen) * np.eye(60), seen.T @ goals)
        return (np.argmax(unseen @ head, 1) == test_set.labels).mean()

    keys = jax.random.split(jax.random.key(0), 3)
    many, alone = jax.jit(jax.vmap(trained))(keys), jax.jit(trained)
    together = [accuracy(jax.tree.map(lambda a, i=i: a[i], many)) for i in range(3)]
    apart = [accuracy(alone(key)) for key in keys]
    assert min(together) > 0.8
    np.testing.assert_allclose(np.mean(together), np.mean(apart), atol=0.02)
    np.testing.assert_allclose(together, apart, atol=0.05)
    assert len({float(layer.w.sum()) for layer in (alone(key)[0] for key in keys)}) == 3


# Outside of jit


def test_what_is_called_outside_of_jit_compiles_once_for_equal_networks(images, compilations):
    """Loops over parts of a batch have new bodies at every call; so had networks, which compared by identity."""

    def build():
        parts = {'chunk': 3}  # twenty images in loops
        return (
            Layer(6, rules.krotov(3, 0.4, 3), optax.chain(plasticity.ascend(0.05)), Window(3, 1, 1), **parts),
            Layer(5, rules.instar(2), plasticity.ascend(0.1), Window(3, 1), **parts),
        )

    def everything():
        net = build()
        state = start(net=net)
        one, _ = train.train_step(net, state, images)
        two, _ = train.train_step(net, one, images, stage=Stage(1, (0,)))
        return train.features(net, two.layers, images), train.features(net, two.layers, images, upto=1)

    first = everything()
    assert compilations
    del compilations[:]
    again = everything()
    assert not compilations
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)


def test_steps_run_plainly_where_jit_is_switched_off(images):
    state = start(net=DENSE)
    jitted, told = train.train_step(DENSE, state, images)
    with jax.disable_jit():
        plainly, told_plainly = train.train_step(DENSE, state, images)
        seen = train.features(DENSE, state.layers, images)
    assert_same(plainly, jitted, atol=1e-6)
    assert told[0].finite and told_plainly[0].finite
    np.testing.assert_allclose(seen, train.features(DENSE, state.layers, images), atol=1e-5)
