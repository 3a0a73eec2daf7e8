"""Who learns when: plans, frozen layers, orders of a sweep; which weights moved and which did not, bit for bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hebbjax
from hebbjax import layers, rules, training, transforms
from hebbjax.layers import max_pool, relu
from hebbjax.training.stages import Stage

SHAPE = (8, 8, 1)
TX = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.05))
NET = (  # three layers, three rules
    hebbjax.Layer(6, rules.krotov(2, 0.4, 3), TX, hebbjax.Window(3), post=(relu, max_pool(2))),
    hebbjax.Layer(
        5, rules.instar(1), transforms.scale_by_rate(0.1), hebbjax.Window(2), homeostasis=hebbjax.Homeostasis(0.1)
    ),
    hebbjax.Layer(4, rules.oja(), transforms.scale_by_rate(0.01), hebbjax.Window(2)),
)


def frozen(*numbers):
    """The network, with these layers frozen."""
    return tuple(dataclasses.replace(layer, frozen=n in numbers) for n, layer in enumerate(NET))


@pytest.fixture(scope='module')
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8))


@pytest.fixture
def state():
    return jax.jit(layers.init, static_argnums=(0, 2))(NET, jax.random.key(0), SHAPE)


def same(one, other):
    """Whether two layer states are equal in every bit."""
    return all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))


def moved(before, after):
    """Numbers of the layers whose state is not what it was, bit for bit."""
    return [n for n, (a, b) in enumerate(zip(before.layers, after.layers)) if not same(a, b)]


def test_a_plan_is_a_sequence_of_stages():
    assert training.plan_stages('simultaneous', NET, 7) == (Stage(7, None, 'simultaneous'),)
    assert training.plan_stages('sequential', NET, 7) == (Stage(7, None, 'sequential'),)
    assert training.plan_stages('greedy', NET, 7) == (Stage(7, (0,)), Stage(7, (1,)), Stage(7, (2,)))
    assert training.plan_stages('greedy', frozen(1), 7) == (Stage(7, (0,)), Stage(7, (2,)))
    assert training.learning_layers(None, frozen(0, 2)) == (False, True, False)
    assert training.learning_layers(Stage(1, (0, 2)), NET) == (True, False, True)


def test_layers_that_a_stage_does_not_name_stay_bit_for_bit(images, state):
    after, told = training.make_train_epoch(NET, batch=5, stage=Stage(1, (0, 2)))(state, images)
    assert moved(state, after) == [0, 2]
    assert [number for number, info in enumerate(told) if info is not None] == [0, 2]


def test_a_layer_above_a_frozen_one_learns_what_it_learns_above_one_that_rests(images, state):
    one, _ = training.make_train_epoch(frozen(0, 2), batch=5)(state, images)
    other, _ = training.make_train_epoch(NET, batch=5, stage=Stage(1, (1,)))(state, images)
    assert same(one.layers, other.layers) and moved(state, one) == [1]


def test_in_a_sweep_each_layer_is_fed_from_before_or_after_the_update_below(images, state):
    """Two algorithms; simultaneous is the default."""
    x, ends = np.float32(images) / 255, []
    for stage in (None, Stage(1, order='sequential')):

        @jax.jit
        def learn(state, x, stage=stage):
            keys, learned = jax.random.split(jax.random.fold_in(state.key, 0), 3), []
            for number, (layer, before) in enumerate(zip(NET, state.layers)):
                learned.append(layers.update_layer(layer, keys[number], before, x)[0])
                x = layers.forward(layer, before if stage is None else learned[-1], x)
            return learned

        after, _ = training.make_train_step(NET, stage=stage)(state, images)
        for ours, wanted in zip(after.layers, learn(state, x), strict=True):
            np.testing.assert_allclose(ours.w, wanted.w, atol=1e-5)
        ends.append(after.layers)
    assert same(ends[0][0], ends[1][0])  # the lowest layer is fed the same
    assert np.abs(np.asarray(ends[0][1].w) - ends[1][1].w).max() > 1e-4


def test_greedy_training_finishes_a_layer_before_the_next(images, state):
    seen = []
    result = training.fit(
        NET, state, images, stages=training.plan_stages('greedy', NET, 2), batch=5, watch=None,
        callbacks=[lambda context: seen.append(jax.device_put(context.state, may_alias=False))],
    )  # fmt: skip
    assert [moved(a, b) for a, b in zip([state, *seen], seen)] == [[0], [0], [1], [1], [2], [2]]
    assert same(result.state.layers, seen[-1].layers)


@pytest.mark.parametrize(
    ('make', 'says'),
    [
        (lambda: Stage(1, order='sideways'), "order='sideways' is unknown; there are simultaneous, sequential"),
        (lambda: training.learning_layers(Stage(1, (3,)), NET), r'3 among its layers=\(3,\); there are 0 to 2'),
        (lambda: Stage(1, (-1,)), r'names layers by their numbers, 0 the lowest, not \(-1,\)'),
        (lambda: training.learning_layers(Stage(1, (1,)), frozen(1)), r'1 among its layers=\(1,\), which is frozen'),
        (lambda: training.learning_layers(None, frozen(0, 1, 2)), 'no layer learns'),
        (lambda: training.learning_layers(Stage(1, ()), NET), 'no layer learns'),
        (lambda: training.plan_stages('upward', NET, 1), "plan='upward' is unknown; there are simultaneous"),
        (lambda: training.make_train_epoch(NET, batch=2, stage=Stage(1, (9,))), r'9 among its layers=\(9,\)'),
        (lambda: training.make_train_step(frozen(0, 1, 2)), 'no layer learns'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_sentence(make, says):
    with pytest.raises(ValueError, match=says):
        make()
