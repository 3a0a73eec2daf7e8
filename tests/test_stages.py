"""Who learns when: plans, frozen layers, orders of a sweep; which weights moved and which did not, bit for bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hebbjax
from hebbjax import hybrid, layers, learning, loop, plasticity, rules, stages, supervised, train
from hebbjax.readout import Head
from hebbjax.stages import Stage

SHAPE = (8, 8, 1)
TX = optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(0.05))
NET = (  # three layers, three rules
    hebbjax.Layer(6, rules.krotov(2, 0.4, 3), TX, hebbjax.Window(3), pool=hebbjax.max_pool(2)),
    hebbjax.Layer(5, rules.instar(1), plasticity.ascend(0.1), hebbjax.Window(2), homeostasis=hebbjax.Homeostasis(0.1)),
    hebbjax.Layer(4, rules.oja(), plasticity.ascend(0.01), hebbjax.Window(2)),
)
DEPTH = range(len(NET))


def frozen(*numbers):
    """The network, with these layers frozen."""
    return tuple(dataclasses.replace(layer, frozen=n in numbers) for n, layer in enumerate(NET))


@pytest.fixture(scope='module')
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8))


@pytest.fixture
def state():
    return train.init(NET, jax.random.key(0), SHAPE)


def same(one, other):
    """Whether two layer states are equal in every bit."""
    return all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))


def moved(before, after):
    """Numbers of the layers whose state is not what it was, bit for bit."""
    return [n for n, (a, b) in enumerate(zip(before.layers, after.layers)) if not same(a, b)]


def test_a_plan_is_a_sequence_of_stages():
    assert stages.plan('parallel', NET, 7) == (Stage(7, None, 'parallel'),)
    assert stages.plan('in_order', NET, 7) == (Stage(7, None, 'in_order'),)
    assert stages.plan('layerwise', NET, 7) == (Stage(7, (0,)), Stage(7, (1,)), Stage(7, (2,)))
    assert stages.plan('layerwise', frozen(1), 7) == (Stage(7, (0,)), Stage(7, (2,)))
    assert stages.learning(None, frozen(0, 2)) == (False, True, False)
    assert stages.learning(Stage(1, (0, 2)), NET) == (True, False, True)


@pytest.mark.parametrize('learning', [(0,), (1,), (0, 2)])
def test_layers_that_a_stage_does_not_name_stay_bit_for_bit(learning, images, state):
    epoch = train.make_train_epoch(NET, batch=5, stage=Stage(1, learning))
    after, told = epoch(state, images)
    assert moved(state, after) == list(learning)
    assert [n for n, one in enumerate(told) if one is not None] == list(learning)


@pytest.mark.parametrize('cold', [(0,), (1, 2)])
def test_frozen_layers_stay_bit_for_bit_and_those_above_learn_from_them(cold, images, state):
    net = frozen(*cold)
    after, _ = train.make_train_epoch(net, batch=5)(state, images)
    assert moved(state, after) == [n for n in DEPTH if n not in cold]


def test_a_layer_above_a_frozen_one_learns_what_it_learns_above_one_that_rests(images, state):
    one, _ = train.make_train_epoch(frozen(0, 2), batch=5)(state, images)
    other, _ = train.make_train_epoch(NET, batch=5, stage=Stage(1, (1,)))(state, images)
    assert same(one.layers, other.layers)


@pytest.mark.parametrize('order', stages.ORDERS)
def test_in_a_sweep_each_layer_is_fed_from_before_or_after_the_update_below(order, images, state):
    after, _ = train.make_train_step(NET, stage=Stage(1, order=order))(state, images)
    keys = jax.random.split(jax.random.fold_in(state.key, 0), 3)
    x = images.astype(jnp.float32) / 255
    for number, layer in enumerate(NET):
        then, _, _ = learning.learn(layer, keys[number], state.layers[number], x)
        np.testing.assert_allclose(after.layers[number].w, then.w, atol=1e-5)
        x = layers.respond(layer, then if order == 'in_order' else state.layers[number], x)


def test_the_two_orders_are_two_algorithms(images, state):
    parallel, in_order = (
        train.make_train_step(NET, stage=Stage(1, order=order))(state, images)[0] for order in stages.ORDERS
    )
    assert same(parallel.layers[0], in_order.layers[0])  # the lowest layer is fed the same
    assert float(jnp.abs(parallel.layers[1].w - in_order.layers[1].w).max()) > 1e-4


def test_the_parallel_order_is_the_default(images, state):
    assert same(train.make_train_step(NET)(state, images)[0].layers,
                train.make_train_step(NET, stage=Stage(1))(state, images)[0].layers)  # fmt: skip


def test_layerwise_training_finishes_a_layer_before_the_next(images, state):
    seen = []
    outcome = loop.fit(
        NET, state, images, stages=stages.plan('layerwise', NET, 2), batch=5, watch=None,
        callbacks=[lambda moment: seen.append(moment.state)],
    )  # fmt: skip
    assert [moved(a, b) for a, b in zip([state, *seen], seen)] == [[0], [0], [1], [1], [2], [2]]
    assert same(outcome.state.layers, seen[-1].layers)


@pytest.mark.parametrize('start', [1, 3])
def test_from_some_layer_on_training_is_supervised_and_what_lies_below_stays(start, images, state, relaxed):
    labels = jnp.asarray(np.random.default_rng(1).integers(0, 3, 20))
    last = hybrid.Supervised(start, Head(3), supervised.Schedule(epochs=2, batch=5, rate=0.05))
    seen = []
    outcome = loop.fit(
        NET, state, images, labels, stages=[Stage(1), last], batch=5, validation=(images, labels),
        callbacks=[lambda moment: seen.append(moment.state)],
    )  # fmt: skip
    assert moved(seen[-1], outcome.state) == list(DEPTH[start:])
    learned = [a.w for a in outcome.state.layers[start:]]
    found = outcome.taught.fitted.params[1] if start < 3 else ()
    assert all((a == own.w).all() for a, own in zip(learned, found, strict=True))
    assert outcome.taught.below == start
    assert len(outcome.taught.fitted.curve) == 2


def test_supervised_layers_lower_the_loss_and_the_head_alone_less(images, state, relaxed):
    labels = jnp.asarray(np.random.default_rng(1).integers(0, 2, 20))
    schedule = supervised.Schedule(epochs=30, batch=10, rate=0.02)
    losses = {}
    for start in (0, 3):
        stage = hybrid.Supervised(start, Head(2), schedule)
        taught = hybrid.learn(NET, state.layers, stage, jax.random.key(1), (images, labels), (images, labels))
        losses[start] = [line.loss for line in taught.fitted.curve]
    assert losses[0][-1] < 0.5 * losses[0][0] and losses[0][-1] < losses[3][-1]


@pytest.mark.parametrize(
    ('make', 'says'),
    [
        (lambda: Stage(0), 'a stage of 0 epochs teaches nothing'),
        (lambda: Stage(1, order='sideways'), "one of parallel, in_order, not 'sideways'"),
        (lambda: stages.learning(Stage(1, (3,)), NET), r'3 among its layers=\(3,\); there are 0 to 2'),
        (lambda: Stage(1, (-1,)), r'names layers by their numbers, 0 the lowest, not \(-1,\)'),
        (lambda: stages.learning(Stage(1, (1,)), frozen(1)), r'1 among layers=\(1,\) of a stage is frozen'),
        (lambda: stages.learning(None, frozen(0, 1, 2)), 'no layer learns'),
        (lambda: stages.learning(Stage(1, ()), NET), 'no layer learns'),
        (lambda: stages.plan('greedy', NET, 1), "'greedy' is no plan; there are parallel, in_order, layerwise"),
        (lambda: train.make_train_epoch(NET, batch=2, stage=Stage(1, (9,))), r'9 among its layers=\(9,\)'),
        (lambda: train.make_train_step(frozen(0, 1, 2)), 'no layer learns'),
        (lambda: hybrid.Supervised(4, Head(2), supervised.Schedule()).check(3), 'from start=4 on; use 0 to 3'),
        (lambda: hybrid.Supervised(3, None, supervised.Schedule()).check(3), 'from start=3 on; use 0 to 2'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_sentence(make, says):
    with pytest.raises(ValueError, match=says):
        make()
