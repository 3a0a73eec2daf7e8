"""Seeds in one program: each like its single run, and unlike every other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hebbjax
from hebbjax import Homeostasis, Window, layers, rules, training, transforms
from hebbjax.data import load
from hebbjax.data.augmentation import random_flip
from hebbjax.layers import avg_pool, initializers, standardise, triangle
from hebbjax.layers.patches import raw
from hebbjax.training import parallel

TX = optax.chain(transforms.scale_by_rate(0.02), transforms.keep_pruned(), transforms.project_unit_rows())
HOW = {
    'pre': (standardise,), 'patch_transform': raw, 'homeostasis': Homeostasis(), 'init': initializers.pruned(0.4),
}  # fmt: skip
RULE = rules.instar(1, reduce=rules.sum_over_patches)
NET = (hebbjax.Layer(12, RULE, TX, Window(3), post=(triangle, avg_pool(2)), **HOW),)
init_seeds = jax.jit(parallel.init_seeds, static_argnums=(0, 2))
draw = jax.jit(layers.init, static_argnums=(0, 2))
keys = lambda: jax.vmap(jax.random.key)(jnp.arange(4))  # noqa: E731


def digits(count):
    """Some digits."""
    return jnp.asarray(load('digits', 'train').images[:count])


def test_seeds_differ_in_weights_masks_shuffles_and_flips():
    states = init_seeds(NET, keys(), (8, 8, 1))
    w = np.asarray(states.layers[0].w)
    assert (w[0] != w[1]).any() and ((w[0] != 0) != (w[1] != 0)).any()
    images = digits(60)
    seen = []

    def record(key, some):
        flipped = random_flip(key, some)
        jax.debug.callback(lambda a, b: seen.append((np.asarray(a), np.asarray(b))), some, flipped, ordered=True)
        return flipped

    net = (hebbjax.Layer(2, rules.oja(), transforms.scale_by_rate(0.01)),)
    epoch, states = (
        training.make_train_epoch(net, batch=20, augment=record),
        parallel.init_seeds(net, keys(), (8, 8, 1)),
    )
    for seed in (0, 1):  # ordered callbacks do not vmap, so one seed after the other
        jax.block_until_ready(epoch(parallel.take_seed(states, seed), images))
    jax.effects_barrier()
    first, second = seen[:3], seen[3:]
    assert any((a != b).any() for (a, _), (b, _) in zip(first, second))  # another order
    mirrored = [[(a != b).any((1, 2, 3)) for a, b in part] for part in (first, second)]
    assert (np.concatenate(mirrored[0]) != np.concatenate(mirrored[1])).any()  # other flips
    assert (mirrored[0][0] != mirrored[0][1]).any()  # and others in every step
    assert 0.2 < np.mean(mirrored) < 0.8


def test_an_epoch_in_one_program_is_each_seeds_own_epoch():
    """Shuffle and flips included, so no seed borrows another's key."""
    images = digits(40)
    epoch = training.make_train_epoch(NET, batch=20, augment=random_flip)
    together, told = parallel.over_seeds(epoch, 2)(init_seeds(NET, keys(), (8, 8, 1)), images)
    for seed in range(3):
        alone, what = epoch(draw(NET, jax.random.key(seed), (8, 8, 1)), images)
        for many, one in zip(together.layers, alone.layers):
            np.testing.assert_allclose(many.w[seed], one.w, atol=1e-5)
        np.testing.assert_allclose(told[0].win_rates[seed], what[0].win_rates, atol=1e-6)


def test_seeds_that_are_none_are_refused():
    with pytest.raises(ValueError, match='at_once=0 is out of range'):
        parallel.over_seeds(lambda s: s, 0)
    with pytest.raises(ValueError, match=r'keys are an array of them, such as jax.random.split\(key, 3\), not 3'):
        parallel.init_seeds(NET, 3, (8, 8, 1))
    with pytest.raises(ValueError, match='keys are an array of them'):
        parallel.init_seeds(NET, jax.random.split(jax.random.key(0), 0), (8, 8, 1))
    with pytest.raises(ValueError, match='number of a seed=3 is out of range; use a whole number from 0 to 2'):
        training.take_seed({'w': jnp.arange(3)}, 3)
    assert jax.jit(training.take_seed)({'w': jnp.arange(3)}, 2)['w'] == 2


SIMPLE = {'rule': RULE, 'tx': transforms.scale_by_rate(0.1), 'window': Window(3)}
TRACED = {
    'homeostasis-rate': lambda v: {'homeostasis': Homeostasis(rate=v)},
    'homeostasis-winners': lambda v: {'homeostasis': Homeostasis(winners=v)},
    'momentum': lambda v: {'post': (layers.BatchNorm(momentum=v), triangle)},
    'density': lambda v: {'init': initializers.pruned(v)},
    'som-radius': lambda v: {'rule': rules.som((2, 2), radius=v)},
    'som-tau': lambda v: {'rule': rules.som((2, 2), tau=10 * v)},
}


@pytest.mark.parametrize('name', TRACED)
def test_runs_of_several_settings_are_one_program(name):
    images, values = digits(6), jnp.array([0.4, 0.9])

    def learn(value):
        net = (hebbjax.Layer(4, **SIMPLE | TRACED[name](value)),)
        state = layers.init(net, jax.random.key(0), images.shape[1:])
        for _ in range(2):
            state, _ = training.train_step(net, state, images)
        return state.layers

    many, one = jax.jit(jax.vmap(learn))(values), jax.jit(learn)
    for number, value in enumerate(values):
        for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one(value))):
            np.testing.assert_allclose(a[number], b, rtol=1e-5, atol=1e-5)
    leaves = jax.tree.leaves(many)
    assert any((leaf[0] != leaf[1]).any() for leaf in leaves)


def test_one_state_and_many_are_told_apart_and_data_is_checked_at_the_door():
    one, many = draw(NET, jax.random.key(0), (8, 8, 1)), init_seeds(NET, keys(), (8, 8, 1))
    images, rate = digits(20), transforms.scale_by_rate(0.1)
    net = (hebbjax.Layer(4, rules.instar(1), rate, teacher=rules.one_hot(4)),)
    epoch = training.over_seeds(hebbjax.make_train_epoch(NET, batch=10), at_once=2)
    for call in (lambda: epoch(one, images), lambda: training.take_seed(one, 0)):
        with pytest.raises(ValueError, match='states of many seeds have an axis of them in front'):
            call()
    step = hebbjax.make_train_step(NET)
    for call in (lambda: hebbjax.features(NET, many.layers, images), lambda: step(many, images)):
        with pytest.raises(ValueError, match='of many seeds take one by'):
            call()
    taught = training.over_seeds(hebbjax.make_train_epoch(net, batch=10), at_once=1)
    states = parallel.init_seeds(net, keys(), (8, 8, 1))
    for labels, says in ((np.array(['a'] * 20), 'labels are classes'), (np.full(20, 4), 'labels run from 4 to 4')):
        with pytest.raises(ValueError, match=says):
            taught(states, images, labels)
    floats = jnp.asarray(images, jnp.float32) / 255
    with pytest.raises(ValueError, match='1 non-finite values'):
        epoch(many, floats.at[3, 2, 1].set(jnp.nan))
    _, (info,) = training.over_seeds(step, at_once=4)(many, floats.at[3, 2, 1].set(jnp.nan))
    assert not info.is_finite.any()  # a step, of which there are many, says what it met in place of looking before
    named = taught(states, images, np.eye(4)[np.arange(20) % 4])[0]  # one-hot, made whole numbers at the door
    np.testing.assert_array_equal(named.layers[0].w, taught(states, images, np.arange(20) % 4)[0].layers[0].w)
