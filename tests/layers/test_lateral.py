"""Lateral inhibition: against loops, what M must be, what sees it, what cannot settle; and what it is famous for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import hebbjax
from hebbjax import data, interop, layers, readout, rules, training, transforms
from hebbjax.layers import Homeostasis, Lateral, Layer, Window
from hebbjax.layers.layer import settled_drive
from hebbjax.readout import feature_cache
from hebbjax.training import comparison

update_layer = jax.jit(layers.update_layer, static_argnums=0)
key = lambda: jax.random.key(0)  # noqa: E731
sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
EVERYONE, SOME = Lateral(0.1, 6, 0.5), Lateral(0.3, 4, 0.7, jax.nn.sigmoid, target=0.4)


def layer(**settings):
    """Five neurons on 3 x 3 windows, which inhibit each other."""
    own = {'rule': rules.oja(), 'tx': transforms.scale_by_rate(0.02), 'window': Window(3), 'post': (), **settings}
    return Layer(5, **{'lateral': EVERYONE, 'patch_transform': layers.raw} | own)


def started(spec, rng, shape=(5, 4, 2)):
    """A state in which neurons do inhibit each other."""
    state = layers.init_layer(spec, key(), shape)
    m = 0.3 * rng.uniform(size=(5, 5)) * (1 - np.eye(5))
    return state._replace(w=state.w / 4, lateral=jnp.asarray(m, state.w.dtype))


def images_of(rng, count=6, shape=(5, 4, 2)):
    """Random images in [0, 1]."""
    return jnp.asarray(rng.uniform(size=(count, *shape)), jax.dtypes.canonicalize_dtype(float))


@pytest.mark.parametrize('microbatch', [None, 4])
@pytest.mark.parametrize('window', [Window(), Window(3, 1, 1)])
@pytest.mark.parametrize('lateral', [EVERYONE, SOME])
def test_a_step_is_that_of_loops(lateral, window, microbatch, rng, x64):
    """Weights leak by, winners are, thresholds see, and the layer sends what neurons settle at."""
    f = sigmoid if lateral is SOME else lambda v: v
    rule, judge = (rules.instar(2), reference.winners(2)) if lateral is SOME else (rules.oja(), lambda y: np.array(y))
    spec = layer(rule=rule, lateral=lateral, window=window, microbatch=microbatch, homeostasis=Homeostasis(0.5))
    state, images = started(spec, rng), images_of(rng)
    state = state._replace(threshold=jnp.asarray(rng.normal(size=5)) / 3)
    size, padding = ((5, 4), (0, 0)) if window.size is None else ((3, 3), (1, 1))
    x, w, m = (
        reference.patches(np.asarray(images), size, (1, 1), padding),
        np.asarray(state.w),
        np.asarray(state.lateral),
    )
    settle = functools.partial(reference.settle_sideways, m=m.tolist(), steps=lateral.steps, pace=lateral.pace, f=f)
    rows, threshold = x.reshape(-1, x.shape[-1]), np.asarray(state.threshold)
    y = np.array([settle(reference.above(w @ patch, threshold)) for patch in rows])
    dw = (reference.instar if lateral is SOME else reference.oja)(
        rows, w, compete=lambda u: judge(settle(u)), threshold=threshold
    )
    after, sent, info = update_layer(spec, key(), state, images)
    np.testing.assert_allclose(sent.reshape(y.shape), y, atol=1e-12)
    np.testing.assert_allclose(layers.forward(spec, state, images), sent, atol=1e-12)
    np.testing.assert_allclose(after.w, w + 0.02 * dw, atol=1e-12)
    np.testing.assert_allclose(after.lateral, reference.inhibit(y, m, lateral.rate, lateral.target), atol=1e-12)
    assert info.is_finite and info.win_counts.sum() == len(y)
    if lateral is SOME:
        share = np.bincount(np.argsort(-y)[:, :2].reshape(-1), minlength=5) / len(y)
        np.testing.assert_allclose(after.threshold, state.threshold + 0.5 * (share - 0.4), atol=1e-12)


@pytest.mark.parametrize(
    'rule, output, drawn',
    [
        (rules.oja(), 'weights', 3),
        (rules.krotov(2, 0.4, 3.0), 'weights', None),
        (rules.instar(1, metric='cosine'), 'projection', None),
        (rules.instar(1, metric='cosine'), 'cosine', None),
    ],
)
def test_what_a_step_sends_is_what_the_layer_answers(rule, output, drawn, rng):
    """Whether drives of learning and of prediction are the same product, or not; and with drawn patches."""
    spec = layer(rule=rule, output=output, patches_per_image=drawn, post=(layers.relu,))
    state, images = started(spec, rng), images_of(rng)
    _, sent, _ = update_layer(spec, key(), state, images)
    np.testing.assert_allclose(sent, layers.forward(spec, state, images), atol=1e-5)
    alone = layers.forward(dataclasses.replace(spec, lateral=None), state, images)
    assert jnp.abs(sent - alone).max() > 0.01


def test_neurons_that_sit_a_step_out_win_nothing_and_all_others_settle(rng):
    """A competition's bias is subtracted from what neurons settled at, so that +inf comes through."""
    held = rules.oja(2)._replace(competition_bias=lambda key, w, state: jnp.where(jnp.arange(5) < 2, jnp.inf, 0))
    after, _, info = update_layer(spec := layer(rule=held), key(), started(spec, rng), images_of(rng))
    assert info.is_finite and not info.win_counts[:2].any() and info.win_counts.sum() == 36
    assert jnp.abs(after.lateral).max() > 0


def test_linear_neurons_settle_at_the_inverse_and_gradients_go_through(rng, x64):
    m, u = jnp.asarray(0.2 * rng.uniform(size=(5, 5)) * (1 - np.eye(5))), jnp.asarray(rng.normal(size=(3, 2, 5)))
    settle = functools.partial(Lateral(0.1, 80, 0.7).settle, m)
    inverse = np.linalg.inv(np.eye(5) + m)
    np.testing.assert_allclose(jax.jit(settle)(u), u @ inverse.T, atol=1e-10)
    np.testing.assert_allclose(jax.jacrev(settle)(u[0, 0]), inverse, atol=1e-10)
    np.testing.assert_allclose(jax.jacfwd(settle)(u[0, 0]), inverse, atol=1e-10)


def test_connections_are_what_they_must_be_and_seeds_and_rates_map(rng):
    """A zero diagonal; with a target symmetric and never negative; every mapped rate is that rate alone."""
    images = images_of(rng)

    def learn(spec, state):
        return jax.lax.scan(lambda s, _: (layers.update_layer(spec, key(), s, images)[0], None), state, None, 20)[0]

    for lateral in (EVERYONE, SOME):
        spec = layer(lateral=lateral)
        state = layers.init_layer(spec, key(), (5, 4, 2))
        state = state._replace(w=state.w / 4)

        def with_rate(rate, spec=spec, state=state):
            return learn(dataclasses.replace(spec, lateral=dataclasses.replace(spec.lateral, rate=rate)), state)

        mapped = jax.jit(jax.vmap(with_rate))(jnp.array([0.0, 0.05, 0.1])).lateral
        assert not mapped[0].any() and jnp.isfinite(mapped).all()
        np.testing.assert_allclose(jax.jit(with_rate)(0.05).lateral, mapped[1], atol=1e-5)
        m = np.asarray(mapped[2])
        assert np.abs(m).max() > 0.01 and not np.diag(m).any()
        assert (np.allclose(m, m.T) and m.min() >= 0) == (lateral is SOME)


def test_nothing_inhibits_anew_where_nothing_learns(rng):
    """A frozen layer, and one that a stage leaves out, keep their states bit for bit; with none there is no M."""
    net = (layer(post=(layers.relu,)), layer(window=Window(), frozen=True), layer(window=Window(), lateral=None))
    state, images = layers.init(net, key(), (5, 4, 2)), images_of(rng)
    for stage, moves in ((None, [True, False]), (training.Stage(1, (2,)), [False, False])):
        after, _ = hebbjax.make_train_step(net, stage=stage)(state, images)
        pairs = [(old.lateral, new.lateral) for old, new in zip(state.layers, after.layers)]
        assert [bool((old != new).any()) for old, new in pairs[:2]] == moves and pairs[2] == (None, None)


@pytest.mark.parametrize('activation', [layers.identity, layers.relu])
def test_gains_that_diverge_are_told_of_patch_by_patch(activation, rng):
    """They grow without end, or swing between two answers for ever; of other patches nothing is lost."""
    lateral, m = Lateral(0.1, 9, 1.0, activation), jnp.array([[0, 2.0, 0], [2.0, 0, 0], [0, 0, 0]])
    y = lateral.settle(m, jnp.array([[1.0, 0.9, 0], [0, 0, 3.0], [0, 0, 0]]))
    assert jnp.isnan(y[0]).all()
    np.testing.assert_array_equal(y[1:], [[0, 0, 3], [0, 0, 0]])
    slower = dataclasses.replace(lateral, steps=60, pace=0.3)
    assert jnp.isfinite(slower.settle(m, jnp.array([[1.0, 0.2, 1.0]]))).all() == (activation is layers.relu)

    spec = layer(lateral=Lateral(0.1, activation=activation))
    state = started(spec, rng)._replace(lateral=jnp.asarray(4 * (1 - np.eye(5)), jnp.float32))
    state, images = state._replace(w=jnp.abs(state.w)), images_of(rng)
    assert not update_layer(spec, key(), state, images)[2].is_finite
    assert update_layer(spec, key(), state, 0 * images)[2].is_finite  # nothing moves, nothing diverges
    whole = layers.init((spec,), key(), (5, 4, 2))._replace(layers=(state,))
    with pytest.raises(ValueError, match=r'layer 1 are no longer finite: .* its lateral connections do not settle'):
        training.fit((spec,), whole, images, stages=[training.Stage(1)], batch=3)


def test_an_excitation_without_bound_overflows_into_what_is_told_of():
    y = Lateral(0.1, 500).settle(jnp.array([[0, -3.0], [-3.0, 0]]), jnp.ones((1, 2)))
    assert not jnp.isfinite(y).any()


@pytest.mark.parametrize(
    'build, says',
    [
        (lambda: Lateral(0.1, activation='relu'), 'activation of lateral connections is a function such'),
        (lambda: layer(lateral=0.1), 'lateral of a layer is a Lateral or None, not 0.1.'),
        (lambda: Lateral(0.1, target=1.0), 'target=1.0 is out of range; use a finite number > 0 and < 1.'),
        (lambda: Lateral(0.1, pace=1.5), 'pace=1.5 is out of range; use a finite number > 0 and <= 1.'),
        (lambda: SOME.settle(None, jnp.ones((1, 3))), r'connections None .* each other needs \(3, 3\)'),
        (lambda: SOME.settle(jnp.ones((2, 2)), jnp.ones((1, 3))), r'\(2, 2\) in a state: .* make it with init'),
        (lambda: interop.to_nnx(layer(), layers.init_layer(layer(), key(), (5, 4, 2))), 'no convolution settles'),
        (lambda: feature_cache.pooled_drives(layer(), jnp.ones((5, 18)), jnp.ones((1, 5, 4, 2))), 'drives of a layer'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()


def test_specs_are_equal_by_value():
    assert Lateral(0.1, activation=layers.repu(2)) == Lateral(0.1, activation=layers.repu(2)) != Lateral(0.1)
    assert len({layer(), layer(lateral=Lateral(0.1, 6, 0.5)), layer(lateral=SOME)}) == 2


def test_layers_above_see_what_settled_and_gradients_leave_connections_alone(rng, relaxed):
    """In gradient training above it, of the layer itself, and with it cached or not."""
    below, head = layer(lateral=Lateral(0.05, 8, 0.5)), readout.linear_head(3, norm=False, power=1.0)
    images, labels = jnp.asarray(rng.uniform(size=(24, 5, 4, 2)), jnp.float32), jnp.arange(24) % 3
    states = layers.init((below, head), key(), (5, 4, 2)).layers
    states = (started(below, rng), states[1])
    assert feature_cache.pooled_parts(below, head) is None
    schedule = readout.Schedule(epochs=2, batch=8, rate=0.01)
    for start in (0, 1):
        stage = readout.GradientStage(start, schedule)
        result = readout.fit_hybrid((below, head), states, stage, key(), (images, labels), (images, labels))
        np.testing.assert_array_equal(result.layers[0].lateral, states[0].lateral)
        assert (result.layers[0].w != states[0].w).any() == (start == 0)
        settled = layers.features((below,), result.layers[:1], images)
        drives = layers.drives(below, result.layers[0].w, images)
        np.testing.assert_allclose(settled, settled_drive(below, result.layers[0], drives).reshape(24, -1), atol=1e-5)
        logits = jax.nn.relu(settled) @ result.layers[1].w.T - result.layers[1].threshold[None]
        np.testing.assert_array_equal(readout.predict_hybrid(result, images), logits.argmax(1))


def test_connections_are_kept_with_the_weights_and_go_out_with_the_network(rng, tmp_path):
    net = (layer(), layer(lateral=None, window=Window()))
    fresh, images = layers.init(net, key(), (5, 4, 2)), images_of(rng)
    state = fresh._replace(layers=(started(net[0], rng), fresh.layers[1]))
    answers = layers.features(net, state.layers, images)
    training.save_state(tmp_path / 'state.npz', state)
    interop.save_weights(tmp_path / 'w.safetensors', net, state.layers)
    exported = interop.load_exported(interop.export_features(net, state.layers, (5, 4, 2)))
    np.testing.assert_allclose(exported(images), answers, atol=1e-5)
    for read in (
        training.load_state(tmp_path / 'state.npz', fresh).layers,
        interop.load_weights(tmp_path / 'w.safetensors', net, fresh.layers),
    ):
        np.testing.assert_array_equal(read[0].lateral, state.layers[0].lateral)
        np.testing.assert_array_equal(layers.features(net, read, images), answers)


def test_winners_are_told_by_what_they_settled_at():
    """Neurons that the third one silences do not win in what a comparison says of a bank."""
    spec = Layer(3, rules.instar(1), transforms.scale_by_rate(0.1), lateral=Lateral(0.1, 20, 0.5))
    images = jnp.array([[1, 0, 0.9], [0, 1, 0.9]]).reshape(2, 1, 1, 3)
    state = layers.init_layer(spec, key(), (1, 1, 3), jnp.eye(3))
    silenced = state._replace(lateral=jnp.zeros((3, 3)).at[:2, 2].set(1.0))
    winners = [comparison.diversity(spec, each, images)['distinct_winners'] for each in (state, silenced)]
    assert winners == [2, 1]


# What it is famous for, small


def learn(net, images, epochs, batch=100, seed=0):
    """Train, and give the first and last states of the only layer."""
    state = layers.init(net, jax.random.key(seed), images.shape[1:])
    epoch, first = hebbjax.make_train_epoch(net, batch=batch), state.layers[0]
    for _ in range(epochs):
        state, (info,) = epoch(state, images)
    assert info.is_finite
    return first, state.layers[0]


def correlation(y):
    """Root mean square of correlations between two outputs."""
    c = np.corrcoef(np.asarray(y, np.float64).T)
    return np.sqrt((c[~np.eye(len(c), dtype=bool)] ** 2).mean())


@pytest.fixture(scope='module')
def patches():
    """Patches of 3 x 3 of the embedded digits, every input less its mean."""
    images = layers.to_intensities(jnp.asarray(data.load('digits', 'train').images))
    x = layers.sample_patches(key(), Window(3), images, 2)
    x = x - x.mean(0, keepdims=True)
    return x / x.std()


def similarity_net(neurons, rate, steps, lateral):
    """A linear layer whose rate falls, with connections or without."""
    move = transforms.scale_by_rate(optax.linear_schedule(rate, rate / 100, steps))
    own = {'post': (), 'init': jax.nn.initializers.normal(0.25), 'lateral': lateral}
    return (Layer(neurons, rules.oja(), move, **own),)


def test_outputs_decorrelate_on_whitened_patches(patches):
    """By 10 and more; without lateral connections they do not."""
    x = data.whiten(data.fit_whitening(patches), patches).reshape(-1, 3, 3, 1)
    fallen = []
    for lateral in (Lateral(0.05, 20, 0.2), None):
        net = similarity_net(6, 0.05, 20 * (len(x) // 100), lateral)
        states = learn(net, x, 20)
        before, after = (correlation(layers.features(net, (state,), x)) for state in states)
        fallen.append(before / after)
    assert fallen[0] > 10 > 2 > fallen[1]


def test_the_subspace_is_that_of_the_principal_components(patches):
    x, net = patches.reshape(-1, 3, 3, 1), similarity_net(2, 0.05, 480, Lateral(0.05, 20, 0.2))
    _, state = learn(net, x, 20)
    filters = np.linalg.solve(np.eye(2) + np.asarray(state.lateral, np.float64), np.asarray(state.w, np.float64))
    span = np.linalg.qr(filters.T)[0]
    components = np.linalg.svd(np.asarray(patches, np.float64), full_matrices=False)[2][:2]
    assert np.arcsin(np.linalg.norm(components - components @ span @ span.T, 2)) < 0.01


def test_every_bar_gets_a_unit_of_its_own():
    """Földiák 1990: 16 bars, 16 units; without inhibition all of them learn the same."""
    there = jax.random.bernoulli(key(), 1 / 8, (2000, 16))
    images = (there[:, :8, None] | there[:, None, 8:])[..., None].astype(jnp.float32)
    fire = lambda v: jax.nn.sigmoid(10 * v)  # noqa: E731
    units = []
    for lateral in (Lateral(0.2, 20, 0.25, fire, target=1 / 8), None):
        net = (Layer(16, rules.instar(rules.linear() if lateral else rules.graded(fire)),
                     transforms.scale_by_rate(0.05), post=() if lateral else (fire,), lateral=lateral,
                     init=lambda key, shape: layers.patches.l2(jax.random.uniform(key, shape)),
                     homeostasis=Homeostasis(0.05, winners=2)),)  # fmt: skip
        _, state = learn(net, images, 7, batch=20)
        y = np.asarray(layers.features(net, (state,), images))
        c = np.corrcoef(y.T, np.asarray(there).T)[:16, 16:]
        units.append(np.sum((c.max(0) > 0.9) & (c[c.argmax(0)].argmax(1) == np.arange(16))))
    assert units[0] == 16 and units[1] <= 1
