"""Seeds in one program: each like its single run, and unlike every other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hebbjax
from hebbjax import (
    Homeostasis,
    Window,
    activations,
    augment,
    data,
    decoding,
    initial,
    parallel,
    plasticity,
    rules,
    train,
)

TX = optax.chain(plasticity.ascend(0.02), plasticity.masked(), plasticity.unit_rows())
NET = (
    hebbjax.Layer(
        12, rules.instar(1, reduce=rules.total), TX, Window(3), prepare=hebbjax.whitening.standardise,
        patch=hebbjax.patches.raw, homeostasis=Homeostasis(), fire=activations.triangle, pool=hebbjax.avg_pool(2),
        initial=initial.pruned(0.4),
    ),
    hebbjax.Layer(
        10, rules.instar(1, reduce=rules.total), TX, Window(2), prepare=hebbjax.whitening.standardise,
        patch=hebbjax.patches.raw, homeostasis=Homeostasis(), fire=activations.triangle, initial=initial.pruned(0.3),
    ),
)  # fmt: skip
keys = lambda: jax.vmap(jax.random.key)(jnp.arange(3))  # noqa: E731


def digits(count=400):
    """Some digits and their labels."""
    images, labels = data.load('digits', 'train')
    return jnp.asarray(images[:count]), jnp.asarray(labels[:count])


@pytest.mark.parametrize('at_once', [1, 2, 3])
def test_a_step_of_many_seeds_is_each_ones_own_step(at_once):
    images, _ = digits(50)
    states = parallel.init_seeds(NET, keys(), (8, 8, 1))
    together, told = parallel.over_seeds(lambda s, x: train.train_step(NET, s, x), at_once)(states, images)
    single = train.make_train_step(NET)
    for seed in range(3):
        alone, what = single(train.init(NET, jax.random.key(seed), (8, 8, 1)), images)
        for many, one in zip(together.layers, alone.layers):
            np.testing.assert_allclose(many.w[seed], one.w, atol=1e-6)
            np.testing.assert_allclose(many.threshold[seed], one.threshold, atol=1e-6)
        np.testing.assert_array_equal(told[0].wins[seed], what[0].wins)


def test_seeds_differ_in_weights_masks_shuffles_and_flips():
    states = parallel.init_seeds(NET, keys(), (8, 8, 1))
    w = states.layers[0].w
    assert (w[0] != w[1]).any() and ((w[0] != 0) != (w[1] != 0)).any()
    images, _ = digits(60)
    seen = []

    def record(key, some):
        flipped = augment.flip(key, some)
        jax.debug.callback(lambda a, b: seen.append((np.asarray(a), np.asarray(b))), some, flipped, ordered=True)
        return flipped

    epoch = train.make_train_epoch(NET, batch=20, augment=record)
    for seed in (0, 1):  # ordered callbacks do not vmap, so one seed after the other
        jax.block_until_ready(epoch(jax.tree.map(lambda a, seed=seed: a[seed], states), images))
    jax.effects_barrier()
    first, second = seen[:3], seen[3:]
    assert any((a != b).any() for (a, _), (b, _) in zip(first, second))  # another order
    mirrored = [[(a != b).any((1, 2, 3)) for a, b in part] for part in (first, second)]
    assert (np.concatenate(mirrored[0]) != np.concatenate(mirrored[1])).any()  # other flips
    assert (mirrored[0][0] != mirrored[0][1]).any()  # and others in every step
    assert 0.2 < np.mean(mirrored) < 0.8


def test_an_epoch_in_one_program_is_each_seeds_own_epoch():
    """Shuffle and flips included, so no seed borrows another's key."""
    images, _ = digits(40)
    epoch = train.make_train_epoch(NET, batch=20, augment=augment.flip)
    together, told = parallel.over_seeds(epoch, 3)(parallel.init_seeds(NET, keys(), (8, 8, 1)), images)
    for seed in range(3):
        alone, what = epoch(train.init(NET, jax.random.key(seed), (8, 8, 1)), images)
        for many, one in zip(together.layers, alone.layers):
            np.testing.assert_allclose(many.w[seed], one.w, atol=1e-5)
        np.testing.assert_allclose(told[0].rates[seed], what[0].rates, atol=1e-6)


def test_whole_runs_agree_in_accuracy():
    images, labels = digits(1000)
    finals = []
    for at_once in (1, 3):
        states = parallel.init_seeds(NET, keys(), (8, 8, 1))
        epoch = parallel.over_seeds(train.make_train_epoch(NET, batch=50), at_once)
        for _ in range(3):
            states, _ = epoch(states, images[:800])
        assert epoch._cache_size() == 1
        reached = []
        for seed in range(3):
            features = train.features(NET, jax.tree.map(lambda a, seed=seed: a[seed], states).layers, images)
            head = decoding.ridge([(features[:800], labels[:800])], 10)
            reached.append(decoding.accuracy(head, [(features[800:], labels[800:])]))
        finals.append(reached)
    assert min(map(min, finals)) > 0.7
    assert abs(np.mean(finals[0]) - np.mean(finals[1])) < max(np.std(finals[0], ddof=1), 0.02)


def test_how_many_fit(monkeypatch):
    assert parallel.seeds_at_once(NET, (8, 8, 1), 100, 10) == 1
    monkeypatch.setattr(parallel.jax, 'default_backend', lambda: 'gpu')
    assert parallel.seeds_at_once(NET, (8, 8, 1), 100, 10) == 10
    assert 1 <= parallel.seeds_at_once(NET, (8, 8, 1), 10**6, 100) < 100
    with pytest.raises(ValueError, match='0 seeds at once'):
        parallel.over_seeds(lambda s: s, 0)
