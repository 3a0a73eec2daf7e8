"""Monitors: what they tell is what is there, they change nothing, and cost no second compilation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hebbjax
from hebbjax import layers, measures, monitor, norms, plasticity, rules, stages, train
from hebbjax.monitor import Monitor

SHAPE = (8, 8, 1)
TX = optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(0.05))
NET = (
    hebbjax.Layer(6, rules.krotov(2, 0.4, 3), TX, hebbjax.Window(3), pool=hebbjax.max_pool(2), glimpses=4),
    hebbjax.Layer(5, rules.instar(1), plasticity.ascend(0.1), hebbjax.Window(2), homeostasis=hebbjax.Homeostasis(0.1)),
)
STEPS, BATCH = 7, 3


@pytest.fixture(scope='module')
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (STEPS * BATCH, *SHAPE), np.uint8))


@pytest.fixture
def state():
    return train.init(NET, jax.random.key(0), SHAPE)


def leaves(state):
    """Numbers of a state, its key aside."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.step, state.layers))]


def step_by_step(state, images):
    """The same epoch, one step at a time: (state before, images of the step, told) of each."""
    order_key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 0x5EED)
    order = jax.random.permutation(order_key, len(images)).reshape(-1, BATCH)
    step = train.make_train_step(NET)
    for chosen in order:
        after, told = step(state, images[chosen])
        yield state, images[chosen], told
        state = after


def test_a_trace_is_what_the_steps_told(images, state):
    watch = Monitor(every=3, windows=72, p=3.0, tolerance=0.9)  # two images of 36 windows
    after, info = train.make_train_epoch(NET, batch=BATCH, watch=watch)(state, images)
    steps = list(step_by_step(state, images))
    for number, (layer, told) in enumerate(zip(NET, info)):
        trace, mine = told.trace, [one[number] for _, _, one in steps]
        np.testing.assert_allclose(trace.change, [one.change for one in mine], rtol=1e-4)
        np.testing.assert_allclose(trace.step_entropy, [measures.win_entropy(one.wins) for one in mine], rtol=1e-5)
        wins = np.sum([one.wins for one in mine], 0)
        np.testing.assert_array_equal(told.wins, wins)
        np.testing.assert_allclose(trace.share, wins / wins.sum(), rtol=1e-6)
        np.testing.assert_allclose(trace.entropy, measures.win_entropy(jnp.asarray(wins)), rtol=1e-6)
        assert int(trace.dead) == (wins == 0).sum()
        norms = np.sum(np.abs(np.asarray(after.layers[number].w)) ** 3, 1)
        np.testing.assert_allclose(trace.norms, norms, rtol=1e-3)
        np.testing.assert_allclose(trace.converged, np.mean(np.abs(norms - 1) < 0.9), atol=1e-6)
        assert trace.step.tolist() == [0, 3, 6]
        for look, at in enumerate((0, 3, 6)):
            before, some, _ = steps[at]
            x = some[:2].astype(jnp.float32) / 255
            for below, own in zip(NET[:number], before.layers):
                x = layers.respond(below, own, x)
            own = before.layers[number]
            u = layers.predict(layer, own.w, x)
            y = np.maximum(np.asarray(u if own.threshold is None else u - own.threshold[None, None, None]), 0)
            seen = jax.tree.map(lambda a, look=look: a[look], trace.seen)
            norms = np.sum(np.abs(np.asarray(own.w)) ** 3, 1)
            np.testing.assert_allclose(seen.norms, norms, rtol=1e-3)
            np.testing.assert_allclose(seen.converged, np.mean(np.abs(norms - 1) < 0.9), atol=1e-6)
            np.testing.assert_allclose(seen.mean, y.mean(), rtol=1e-3)
            np.testing.assert_allclose(seen.variance, y.var(), rtol=1e-2)
            np.testing.assert_allclose(seen.sparsity, np.mean(y == 0), atol=0.02)


@pytest.mark.parametrize('watch', [Monitor(), Monitor(every=1), Monitor(every=3, windows=1)])
def test_who_watches_changes_nothing(watch, images, state):
    alone, plain = train.make_train_epoch(NET, batch=BATCH)(state, images)
    watched, info = train.make_train_epoch(NET, batch=BATCH, watch=watch)(state, images)
    for a, b in zip(leaves(alone), leaves(watched)):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(plain, info):
        np.testing.assert_array_equal(a.wins, b.wins)
        assert a.trace is None and b.trace.step.tolist() == list(range(0, STEPS, watch.every))
        assert b.trace.change.shape == (STEPS,)


def test_steps_are_counted_over_the_whole_training(images, state):
    epoch = train.make_train_epoch(NET, batch=BATCH, watch=Monitor(every=5))
    state, _ = epoch(state, images)
    _, (told, _) = epoch(state, images)
    assert told.trace.step.tolist() == [7, 12]


def test_layers_that_do_not_learn_are_looked_at_and_have_no_winners(images, state):
    epoch = train.make_train_epoch(NET, batch=BATCH, watch=Monitor(every=4), stage=stages.Stage(1, (1,)))
    _, (below, above) = epoch(state, images)
    assert below.wins is None and above.wins.sum() > 0
    assert not below.trace.share.any() and not below.trace.change.any()
    np.testing.assert_allclose(below.trace.seen.norms[-1], jnp.sum(state.layers[0].w ** 2, 1), rtol=1e-5)
    assert float(below.trace.seen.variance[0]) > 0


def test_the_smaller_last_batch_is_watched_as_well(images, state):
    epoch = train.make_train_epoch(NET, batch=4, watch=Monitor(every=2), keep_last=True)
    _, (told, _) = epoch(state, images)  # 21 images: five steps of 4, one of 1
    assert told.trace.change.shape == (6,) and told.trace.step.tolist() == [0, 2, 4]


def test_seeds_are_watched_side_by_side(images):
    states = jax.vmap(lambda key: train.init(NET, key, SHAPE))(jax.vmap(jax.random.key)(jnp.arange(2)))
    epoch = train.make_train_epoch(NET, batch=BATCH, watch=Monitor(every=3))
    _, many = jax.vmap(epoch, in_axes=(0, None))(states, images)
    _, one = epoch(train.init(NET, jax.random.key(1), SHAPE), images)
    np.testing.assert_allclose(many[0].trace.seen.norms[1], one[0].trace.seen.norms, rtol=1e-3)


def test_a_watched_epoch_compiles_once(images, state):
    epoch = train.make_train_epoch(NET, batch=BATCH, watch=Monitor(every=2))
    for _ in range(3):
        state, _ = epoch(state, images)
    assert epoch._cache_size() == 1


@pytest.mark.parametrize(
    ('watch', 'says'),
    [
        (Monitor(every=0), 'every=0 sees nothing; use 1 or more'),
        (Monitor(windows=0), 'windows=0 sees nothing'),
        (Monitor(p=0.0), 'p=0.0 judges nothing; use more than 0'),
        (Monitor(tolerance=-1.0), 'tolerance=-1.0 judges nothing'),
    ],
)
def test_a_monitor_that_sees_nothing_is_refused(watch, says):
    with pytest.raises(ValueError, match=says):
        train.make_train_epoch(NET, batch=BATCH, watch=watch)


def test_a_dead_neuron_is_counted_dead():
    w = jnp.stack([jnp.ones(9), jnp.zeros(9)])
    net = (hebbjax.Layer(2, rules.instar(1), plasticity.ascend(0.1), hebbjax.Window(3), patch=hebbjax.patches.raw),)
    state = train.init(net, jax.random.key(0), (3, 3, 1), [w])
    _, (told,) = train.make_train_epoch(net, batch=2, watch=Monitor())(state, jnp.ones((4, 3, 3, 1)))
    assert int(told.trace.dead) == 1 and told.trace.share.tolist() == [1.0, 0.0] and float(told.trace.entropy) == 0


def test_a_look_is_a_pure_function(images, state):
    (first, second) = monitor.look(Monitor(), NET, state.layers, images[:2])
    assert first.norms.shape == (6,) and second.norms.shape == (5,)


def test_a_look_tells_what_fires_and_passes_up_what_is_pooled_and_normalised(images):
    plain = hebbjax.Layer(6, rules.instar(1), TX, hebbjax.Window(3))
    below = dataclasses.replace(plain, pool=hebbjax.max_pool(2), norm=norms.BatchNorm(), bias=True)
    above = hebbjax.Layer(5, rules.instar(1), TX, hebbjax.Window(2), patch=hebbjax.patches.raw)
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.uniform(0.1, 1, shape), jnp.float32)  # noqa: E731
    states = (
        layers.LayerState(draw(6, 9) - 0.5, (), (), draw(6) - 0.5, norms.NormState(*draw(4, 6))),
        layers.LayerState(draw(5, 24) - 0.5, (), ()),
    )
    x = layers.intensities(images[:4])

    @jax.jit
    def both(x):
        fired = (
            layers.respond(plain, states[0], x),
            layers.respond(above, states[1], layers.respond(below, states[0], x)),
        )
        return monitor.look(Monitor(), (below, above), states, x), fired

    for seen, y in zip(*both(x)):
        np.testing.assert_allclose(seen.mean, y.mean(), rtol=1e-4)
        np.testing.assert_allclose(seen.variance, y.var(), rtol=1e-4)
        np.testing.assert_allclose(seen.sparsity, (y == 0).mean(), rtol=1e-6)
        assert 0 < float(seen.sparsity) < 1
