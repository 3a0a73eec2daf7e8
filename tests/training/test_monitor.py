"""Monitors: what they tell is what is there, they change nothing, and cost no second compilation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hebbjax
from hebbjax import layers, rules, training, transforms
from hebbjax.layers import BatchNorm, PartState, gauss_pool, initializers, max_pool, relu
from hebbjax.layers.normalization import NormParams, NormStats
from hebbjax.layers.patches import raw
from hebbjax.training import monitor as monitoring
from hebbjax.training.monitor import Monitor

SHAPE = (8, 8, 1)
TX = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.05))
NET = (
    hebbjax.Layer(6, rules.krotov(2, 0.4, 3), TX, hebbjax.Window(3), post=(relu, max_pool(2)), patches_per_image=4),
    hebbjax.Layer(
        5, rules.instar(1), transforms.scale_by_rate(0.1), hebbjax.Window(2), homeostasis=hebbjax.Homeostasis(0.1)
    ),
)
STEPS, BATCH = 7, 3


@pytest.fixture(scope='module')
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (STEPS * BATCH, *SHAPE), np.uint8))


@pytest.fixture
def state():
    return draw(NET, jax.random.key(0), SHAPE)


draw = jax.jit(layers.init, static_argnums=(0, 2))


def leaves(state):
    """Numbers of a state, its key aside."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.step, state.layers))]


@jax.jit
def activations(states, x):
    """What every layer sends before pooling, from the first weights up."""
    first = layers.drives(NET[0], states[0].w, x)
    second = layers.drives(NET[1], states[1].w, layers.forward(NET[0], states[0], x))
    return jax.nn.relu(first), jax.nn.relu(second - states[1].threshold[None, None, None])


def step_by_step(state, images):
    """The same epoch, one step at a time: (activations before the step of its first two images, info) of each."""
    order_key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 0x5EED)
    order = jax.random.permutation(order_key, len(images)).reshape(-1, BATCH)
    images, step = np.asarray(images), training.make_train_step(NET)
    for chosen in np.asarray(order):
        after, info = step(state, images[chosen])
        yield activations(state.layers, np.float32(images[chosen[:2]]) / 255), jax.device_get(info)
        state = after


def entropy(wins):
    """Entropy of shares of wins, 1 where all are alike."""
    share = wins[wins > 0] / wins.sum()
    return -(share * np.log(share)).sum() / np.log(len(wins))


WATCH = Monitor(every=3, windows=72, p=3.0, tolerance=0.9)  # two images of 36 windows


@pytest.fixture(scope='module')
def watched():
    return training.make_train_epoch(NET, batch=BATCH, watch=WATCH)


def test_a_trace_is_what_the_steps_told(images, state, watched):
    after, infos = jax.device_get(watched(state, images)[0].layers), jax.device_get(watched(state, images)[1])
    steps = list(step_by_step(state, images))
    for number, info in enumerate(infos):
        trace, told = info.trace, [infos[number] for _, infos in steps]
        np.testing.assert_allclose(trace.max_update, [step.max_update for step in told], rtol=1e-4)
        wins = np.sum([step.win_counts for step in told], 0)
        np.testing.assert_array_equal(info.win_counts, wins)
        np.testing.assert_allclose(trace.win_share, wins / wins.sum(), rtol=1e-6)
        np.testing.assert_allclose(trace.win_entropy, entropy(wins), rtol=1e-5)
        assert int(trace.dead) == (wins == 0).sum()
        norms = np.sum(np.abs(after[number].w) ** 3, 1)
        np.testing.assert_allclose(trace.norms, norms, rtol=1e-3)
        np.testing.assert_allclose(trace.converged, np.mean(np.abs(norms - 1) < 0.9), atol=1e-6)
        assert trace.observed_steps.tolist() == [0, 3, 6]
        for look, (answers, _) in enumerate(steps[::3]):
            y, (mean, variance, sparsity) = np.asarray(answers[number]), (a[look] for a in trace.observations)
            np.testing.assert_allclose(mean, y.mean(), rtol=1e-3)
            np.testing.assert_allclose(variance, y.var(), rtol=1e-2)
            np.testing.assert_allclose(sparsity, np.mean(y == 0), atol=0.02)


def test_who_watches_changes_nothing_and_compiles_once(images, state, watched, compilations):
    alone, plain = training.make_train_epoch(NET, batch=BATCH)(state, images)
    after, infos = watched(state, images)
    del compilations[:]
    again = training.make_train_epoch(NET, batch=BATCH, watch=Monitor(every=3, windows=72, p=3.0, tolerance=0.9))
    _, (later, _) = again(after, images)
    assert not compilations
    assert later.trace.observed_steps.tolist() == [7, 10, 13]  # counted over the whole training
    for a, b in zip(leaves(alone), leaves(after)):  # other programs, which round otherwise
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(plain, infos):
        np.testing.assert_array_equal(a.win_counts, b.win_counts)
        assert a.trace is None and b.trace.max_update.shape == (STEPS,)


def test_layers_that_do_not_learn_are_looked_at_and_have_no_winners(images, state):
    epoch = training.make_train_epoch(NET, batch=BATCH, watch=Monitor(every=1), stage=training.Stage(1, (1,)))
    _, (below, above) = epoch(state, images)
    assert below.win_counts is None and above.win_counts.sum() > 0
    assert not np.any(below.trace.win_share) and not np.any(below.trace.max_update)
    np.testing.assert_allclose(below.trace.norms, np.sum(np.square(state.layers[0].w), 1), rtol=1e-5)
    assert np.shape(below.trace.observations.variance) == (STEPS,) and np.all(below.trace.observations.variance)


def test_a_dead_neuron_is_counted_dead_and_the_smaller_last_batch_is_watched():
    w = jnp.stack([jnp.ones(9), jnp.zeros(9)])
    net = (hebbjax.Layer(2, rules.instar(1), transforms.scale_by_rate(0.1), hebbjax.Window(3), patch_transform=raw),)
    state = draw(net, jax.random.key(0), (3, 3, 1), [w])
    epoch = training.make_train_epoch(net, batch=2, watch=Monitor(every=2), keep_last=True)
    _, (told,) = epoch(state, jnp.ones((5, 3, 3, 1)))
    assert int(told.trace.dead) == 1 and told.trace.win_share.tolist() == [1.0, 0.0]
    assert float(told.trace.win_entropy) == 0
    assert told.trace.max_update.shape == (3,) and told.trace.observed_steps.tolist() == [0, 2]


def test_a_look_tells_what_fires_and_passes_up_what_is_pooled_and_normalised(images):
    plain = hebbjax.Layer(6, rules.instar(1), TX, hebbjax.Window(3))
    below = dataclasses.replace(plain, post=(relu, max_pool(2), BatchNorm()), bias=initializers.zeros)
    above = hebbjax.Layer(5, rules.instar(1), TX, hebbjax.Window(2), patch_transform=raw)
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.uniform(0.1, 1, shape), jnp.float32)  # noqa: E731
    norm = PartState(NormParams(*draw(2, 6)), NormStats(*draw(2, 6), jnp.ones(())))
    states = (
        layers.LayerState(draw(6, 9) - 0.5, (), (), draw(6) - 0.5, post=(PartState(), PartState(), norm)),
        layers.LayerState(draw(5, 24) - 0.5, (), (), post=(PartState(),)),
    )
    x = layers.to_intensities(images[:4])

    @jax.jit
    def both(x):
        fired = (
            layers.forward(plain, states[0]._replace(post=(PartState(),)), x),
            layers.forward(above, states[1], layers.forward(below, states[0], x)),
        )
        return training.observe((below, above), states, x), fired

    for seen, y in zip(*both(x)):
        np.testing.assert_allclose(seen.mean, y.mean(), rtol=1e-4)
        np.testing.assert_allclose(seen.variance, y.var(), rtol=1e-4)
        np.testing.assert_allclose(seen.sparsity, (y == 0).mean(), rtol=1e-6)
        assert 0 < float(seen.sparsity) < 1


def test_whatever_pools_is_looked_at_before_it(images):
    layer = hebbjax.Layer(6, rules.instar(1), TX, hebbjax.Window(3), post=(relu, gauss_pool(1)))
    states, x = hebbjax.init((layer,), jax.random.key(0), SHAPE).layers, layers.to_intensities(images[:4])
    (seen,) = training.observe((layer,), states, x)
    fired = layers.forward(dataclasses.replace(layer, post=relu), states[0]._replace(post=(PartState(),)), x)
    np.testing.assert_allclose([seen.mean, seen.sparsity], [fired.mean(), (fired == 0).mean()], rtol=1e-5)


@pytest.mark.parametrize(
    'pre, side, looked_at',
    [
        (lambda x: jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))), 9, 1),  # larger than the images of 8 x 8: 16 windows
        (max_pool(2), 4, 5),  # one window
    ],
)
def test_a_look_counts_windows_of_what_leaves_pre(pre, side, looked_at, images):
    shown = []
    spy = lambda u: shown.append(len(u)) or u  # noqa: E731
    net = (hebbjax.Layer(4, rules.instar(1), TX, hebbjax.Window(side), pre=pre, post=spy),)
    epoch = hebbjax.make_train_epoch(net, batch=7, watch=Monitor(every=1, windows=5))
    epoch(hebbjax.init(net, jax.random.key(0), SHAPE), images)
    assert looked_at in shown


def test_shares_of_many_seeds_are_those_of_each_and_compiled_once(compilations):
    many = np.array([[3, 0, 1, 0, 0], [1, 1, 1, 1, 1]])
    whatever = monitoring.Trace(*[np.zeros(1)] * 7, monitoring.Observation(*[np.zeros(1)] * 3))
    shares = monitoring.join_traces([whatever], many)[:3]
    before = len(compilations)
    for one, own in zip(many, zip(*shares)):
        for got, wanted in zip(own, monitoring.join_traces([whatever], one)[:3]):
            np.testing.assert_array_equal(got, wanted)
    assert shares[2].tolist() == [3, 0] and len(compilations) == before
