"""Comparisons: four rows on one draw of weights, seeds, scores, what is refused, what Ctrl-C leaves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import layers, rules, transforms
from hebbjax.layers import initializers, patches
from hebbjax.readout import Milestones, gradient_probe, linear_head
from hebbjax.training.comparison import Entry, diversity, initial_state, score_entries, train_entries
from hebbjax.training.stages import Stage

LAYER = layers.Layer(6, rules.oja(), transforms.scale_by_rate(0.05), layers.Window(3), post=())
TWIN = dataclasses.replace(LAYER, patch_transform=patches.raw, init=initializers.fan_in)
SCHEDULE = Milestones(epochs=3, batch=20, rate=0.05)
HEAD = linear_head(2, pool=2)
ENTRIES = {
    'raw pixels': Entry((), gradient_probe(linear_head(2, norm=False, power=None), SCHEDULE)),
    'untrained': Entry((LAYER,), gradient_probe(HEAD, SCHEDULE), paper=50.0),
    'hebbian': Entry((LAYER,), gradient_probe(HEAD, SCHEDULE), (Stage(2),), 20, start=layers.from_patches),
    'backprop': Entry((TWIN,), gradient_probe(HEAD, SCHEDULE, start=0), seeds=1),
}


@pytest.fixture(scope='module')
def data():
    """Bright rows or bright columns in noise, in three splits of 40."""
    rng = np.random.default_rng(0)
    labels, images = np.arange(120) % 2, rng.uniform(0, 0.5, (120, 6, 6, 1))
    images[labels == 0, 2] += 0.5
    images[labels == 1, :, 2] += 0.5
    images, labels = jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32)
    return [(images[at : at + 40], labels[at : at + 40]) for at in (0, 40, 80)]


@pytest.fixture(scope='module')
def trained(data):
    """Every entry on two seeds, and in which order they came."""
    told = []
    networks, interrupted = train_entries(
        ENTRIES, 2, *data[:2], on_trained=lambda name, seed, result: told.append((name, seed)),
        callbacks=lambda name, seed: (lambda context: told.append(name),),
    )  # fmt: skip
    assert not interrupted
    return networks, told


def test_every_network_is_trained_on_every_seed_in_turn(trained):
    networks, told = trained
    names = [(name, seed) for seed in range(2) for name in ENTRIES if (name, seed) != ('backprop', 1)]
    assert list(networks) == names
    assert told == [
        *names[:2], 'hebbian', 'hebbian', *names[2:4], *names[4:6], 'hebbian', 'hebbian', names[6],
    ]  # fmt: skip
    for result in networks.values():
        assert result.seconds > 0 and result.compile_seconds > 0
        best = 100 * max(line.validation for line in result.probe.curve)
        assert result.validation_accuracy == pytest.approx(best, abs=0.01)


def test_features_are_those_that_each_row_promises(trained, data):
    def filters(name, seed=0):
        return np.asarray(trained[0][name, seed].probe.layers[0].w)

    def first(name):
        layer_key, _ = jax.random.split(jax.random.key(0))
        return np.asarray(initial_state(ENTRIES[name], layer_key, data[0][0]).layers[0].w)

    np.testing.assert_array_equal(filters('untrained'), first('untrained'))
    assert np.abs(filters('untrained') - filters('untrained', 1)).max() > 0.1
    for name in ('hebbian', 'backprop'):
        assert np.abs(filters(name) - first(name)).max() > 1e-3
    assert trained[0]['raw pixels', 0].probe.layers[0].w.shape == (2, 36)


def test_scores_read_the_test_split_once_with_what_was_reached(trained, data):
    rows = score_entries(ENTRIES, trained[0], data[2], data[1][0][:10])
    assert [row.row for row in rows] == list(ENTRIES)
    assert [len(row.test_accuracy) for row in rows] == [2, 2, 2, 1]
    assert rows[0].as_json()['paper'] is None and rows[1].as_json()['paper'] == 50
    assert np.mean(rows[3].test_accuracy) > 80
    assert all(len(row.more['curve'][part]) == 3 for row in rows for part in ('train', 'validation'))
    assert 'win_entropy' not in rows[0].more and len(rows[2].more['win_entropy']) == 2
    some = {key: result for key, result in trained[0].items() if key[0] == 'hebbian'}
    assert [row.row for row in score_entries(ENTRIES, some, data[2])] == ['hebbian']


def test_a_bank_of_equal_filters_has_collapsed(data):
    state = layers.init((LAYER,), jax.random.key(0), (6, 6, 1)).layers[0]
    collapsed = state._replace(w=jnp.tile(state.w[:1], (6, 1)))
    fine, bad = (diversity(LAYER, own, data[0][0][:10]) for own in (state, collapsed))
    assert bad['distinct_winners'] == 1 and bad['nearest_cosine_median'] == pytest.approx(1)
    assert fine['distinct_winners'] > 1 and fine['nearest_cosine_max'] < 0.99


def test_ctrl_c_leaves_what_was_finished(data):
    def interrupt(name, seed, result):
        raise KeyboardInterrupt

    networks, interrupted = train_entries(ENTRIES, 2, *data[:2], on_trained=interrupt)
    assert interrupted and list(networks) == [('raw pixels', 0)]
    hebbian = {'hebbian': ENTRIES['hebbian']}
    stop = lambda name, seed: (lambda context: interrupt(name, seed, context),)  # noqa: E731
    assert train_entries(hebbian, 1, *data[:2], callbacks=stop) == ({}, True)


def test_what_does_not_fit_is_refused_before_the_first_hour(data):
    train, validation = data[:2]

    def refuse(says, validation=validation, seeds=1, **changes):
        entries = ENTRIES | {'hebbian': ENTRIES['hebbian']._replace(**changes)}
        reached = []
        with pytest.raises(ValueError, match=says):
            train_entries(entries, seeds, train, validation, on_trained=lambda *told: reached.append(told))
        assert not reached

    refuse('^seeds=0 is out of range', seeds=0)
    refuse('^hebbian: batch=0 is out of range', batch=0)
    refuse('^hebbian: batch=30 is out of range; use a whole number from 1 to 20', batch=30, shown=20)
    refuse(f'^hebbian: batch={len(train[0]) + 1} is out of range', batch=len(train[0]) + 1)
    refuse(
        '^hebbian: .* does not fit images of 6 x 6; use a smaller window',
        net=(dataclasses.replace(LAYER, window=layers.Window(7)),),
    )
    refuse('^hebbian: a stage has 1 among its layers', stages=(Stage(1, layers=(1,)),))
    refuse(
        r'^hebbian: max_pool\(5\) does not fit maps of 4 x 4', probe=gradient_probe(linear_head(2, pool=5), SCHEDULE)
    )
    refuse('^raw pixels: labels run from 0 to 2 and there are 2', validation=(validation[0], np.arange(40) % 3))
