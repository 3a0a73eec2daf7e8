"""Training on parts of what does not fit memory: one part is an array; several are one epoch, and resumed alike."""

import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

import hebbjax
from hebbjax import data, layers, rules, training, transforms
from hebbjax.rules import teachers
from hebbjax.support.shards import Shards, draw_order
from hebbjax.training import Monitor

NET = (
    hebbjax.Layer(6, rules.instar(1), transforms.scale_by_rate(0.1), hebbjax.Window(3)),
    hebbjax.Layer(4, rules.instar(1), transforms.scale_by_rate(0.1), hebbjax.Window(2)),
)
SHAPE, BATCH = (8, 8, 1), 5
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
LABELS = np.arange(40) % 4


def start(net=NET, seed=0):
    return layers.init(net, jax.random.key(seed), SHAPE)


def fit(images, state=None, epochs=2, net=NET, **how):
    how = {'stages': training.plan_stages('simultaneous', net, epochs), 'watch': Monitor(every=2)} | how
    return training.fit(net, state or start(net), images, batch=BATCH, **how)


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one.layers), jax.tree.leaves(other.layers), strict=True):
        np.testing.assert_array_equal(a, b)


def infos():
    """A callback, and what it saw of every epoch."""
    seen = []
    return seen, lambda context: seen.append(context.info)


def test_one_part_is_an_array_bit_for_bit():
    (one, see_one), (other, see_other) = infos(), infos()
    array = fit(IMAGES, labels=LABELS, callbacks=[see_one])
    shards = fit(data.open_shards((IMAGES, LABELS), 40), callbacks=[see_other])
    assert_same(array.state, shards.state)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    drop = lambda rows: [{name: row[name] for name in row if name != 'seconds'} for row in rows]  # noqa: E731
    assert drop(array.history) == drop(shards.history)


def test_an_epoch_is_one_over_each_part_in_the_order_that_key_and_step_draw():
    shards = data.open_shards((IMAGES, LABELS), 10)
    seen, see = infos()
    result = fit(shards, callbacks=[see])
    state, epoch, orders = start(), training.make_train_epoch(NET, batch=BATCH, watch=Monitor(every=2)), []
    for number in range(2):
        order, told = draw_order(jax.random.key_data(state.key), int(state.step), 4), []
        orders.append(order)
        for part in order:
            state, info = epoch(state, *shards[part])
            told.append(info)
        for layer, joined in enumerate(seen[number]):
            parts = [info[layer] for info in told]
            wins = sum(np.asarray(part.win_counts) for part in parts)
            np.testing.assert_array_equal(joined.win_counts, wins)
            assert joined.max_update == max(part.max_update for part in parts) and joined.is_finite
            np.testing.assert_allclose(joined.win_rates, np.mean([part.win_rates for part in parts], 0), rtol=1e-6)
            trace = joined.trace
            np.testing.assert_allclose(trace.win_share, wins / wins.sum(), rtol=1e-6)
            assert trace.dead == (wins == 0).sum()
            np.testing.assert_array_equal(trace.norms, parts[-1].trace.norms)
            assert trace.max_update.shape == (8,) and trace.observations.mean.shape == (4,)
            np.testing.assert_array_equal(trace.observed_steps, 8 * number + np.arange(0, 8, 2))
    assert_same(result.state, state)
    assert result.state.step == 16 and sorted(orders[0]) == sorted(orders[1]) == [0, 1, 2, 3] and orders[0] != orders[1]
    assert result.history[-1]['layer1.max_update'] == seen[-1][0].max_update
    assert set(fit(IMAGES).history[-1]) == set(result.history[-1])


def test_every_image_is_seen_once_an_epoch():
    lit = np.zeros((40, *SHAPE), np.uint8)
    lit.reshape(40, -1)[np.arange(40), np.arange(40)] = 255  # each image has a pixel of its own
    net = (hebbjax.Layer(1, rules.hebb(), transforms.scale_by_rate(1e-3)),)
    dense = layers.init(net, jax.random.key(0), SHAPE, [np.ones((1, 64), np.float32)])
    counted = fit(data.open_shards(lit, 10), dense, net=net, epochs=1, watch=None).state.layers[0].w - 1
    once = fit(lit, dense, net=net, epochs=1, watch=None).state.layers[0].w - 1
    np.testing.assert_allclose(counted, once, atol=1e-4)
    assert (np.asarray(counted)[0, :40] > 0).all() and not np.asarray(counted)[0, 40:].any()


def test_a_resumed_training_goes_on_bit_for_bit(tmp_path):
    shards = data.open_shards((IMAGES, LABELS), 10)
    stages = training.plan_stages('greedy', NET, 3)
    whole = fit(shards, stages=stages)
    checkpoints = training.Checkpoints(tmp_path / 'run')

    def interrupt(context):
        if context.epoch == 2:
            raise KeyboardInterrupt

    assert fit(shards, stages=stages, callbacks=[checkpoints, interrupt]).interrupted
    state, position = training.resume(checkpoints, start())
    rest = fit(shards, state, stages=stages, position=position)
    assert_same(rest.state, whole.state)


def test_parts_share_one_program(compilations):
    fit(data.open_shards(IMAGES, 20), epochs=1)
    seen = len(compilations)
    fit(data.open_shards(IMAGES[::-1].copy(), 20), epochs=3)
    assert len(compilations) == seen


def test_no_more_than_two_parts_lie_in_memory():
    others = []

    def read(number):
        time.sleep(0.05)  # by now the part before the last has been let go of
        others.append(sum(array.shape == (8, *SHAPE) for array in jax.live_arrays()))
        return IMAGES[number * 8 : number * 8 + 8], None

    fit(Shards(read, 5), epochs=2)
    assert max(others) == 1 and len(others) == 12  # two to see what they are like; none beyond the last epoch


def test_ctrl_c_amid_the_parts_leaves_the_last_whole_epoch(hearing):
    reads, threads = [], threading.active_count()

    def read(number):
        reads.append(number)
        if len(reads) == 9:  # the third part of the second epoch is read
            os.kill(os.getpid(), signal.SIGINT)
        return IMAGES[number * 10 : number * 10 + 10], None

    result = fit(Shards(read, 4), epochs=3)
    assert result.interrupted and len(result.history) == 1 and result.state.step == 8
    assert_same(result.state, fit(Shards(read, 4), epochs=1).state)
    assert threading.active_count() == threads


def test_a_part_that_cannot_be_read_ends_training_in_a_sentence(tmp_path):
    whole = [tmp_path / f'{number}.npy' for number in range(4)]
    for number, file in enumerate(whole):
        np.save(file, IMAGES[number * 10 : number * 10 + 10])
    shards = data.open_shards(whole)
    whole[2].unlink()
    with pytest.raises(ValueError, match=r'shards\[2\] cannot be read: .*2.npy does not exist') as error:
        fit(shards)
    assert '\n' not in str(error.value)


def test_what_is_wrong_with_parts_is_refused():
    shards = data.open_shards((IMAGES, LABELS), 10)
    with pytest.raises(ValueError, match='Shards bring labels of their own; leave the others out'):
        fit(shards, labels=LABELS)
    with pytest.raises(ValueError, match='a batch of 5 is larger than the 4 images'):
        fit(data.open_shards(IMAGES, 4))
    taught = (hebbjax.Layer(4, rules.instar(1), transforms.scale_by_rate(0.1), teacher=teachers.one_hot(4)),)
    with pytest.raises(ValueError, match='labels run from 0 to 4'):  # of a later part alone
        fit(data.open_shards((IMAGES, np.where(np.arange(40) == 39, 4, LABELS)), 10), start(taught), net=taught)


def test_seeds_take_parts_too():
    shards, net = data.open_shards((IMAGES, LABELS), 20), NET[:1]
    keys = lambda: jax.random.split(jax.random.key(0), 2)  # noqa: E731
    seeds = fit(shards, training.init_seeds(net, keys(), SHAPE), net=net)
    first = fit(shards, layers.init(net, keys()[0], SHAPE), net=net)
    assert seeds.history[0].keys() == first.history[0].keys()
    np.testing.assert_allclose(seeds.state.layers[0].w[0], first.state.layers[0].w, atol=1e-6)


def test_parts_are_divided_over_devices():
    shards, net, mesh = data.open_shards(IMAGES, 18), NET[:1], jax.make_mesh((5,), ('data',))  # 18 do not divide
    divided = fit(shards, start(net), net=net, mesh=mesh, watch=None)
    state, epoch = start(net), training.make_train_epoch(net, batch=BATCH, mesh=mesh)
    for _ in range(2):
        for part in draw_order(jax.random.key_data(state.key), int(state.step), 2):
            state, _ = epoch(state, shards[part].images)
    assert_same(divided.state, state)
