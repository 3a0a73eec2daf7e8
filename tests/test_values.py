"""Specs by value: equal settings are equal layers, whatever process made them, and other settings are others."""

import copy
import dataclasses
import functools
import io
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import joblib
import numpy as np
import optax
import pytest
from table import RULES

import hebbjax
from hebbjax import activations, initial, maps, norms, plasticity, prototypes, rules, teachers, train, values, whitening
from hebbjax.layers import Layer
from hebbjax.patches import Window

MORE = {
    'som': lambda: maps.som((3, 2)),
    'abstaining': lambda: prototypes.abstaining(prototypes.nearest(2, by='distance')),
    'own': lambda: rules.local(lambda key, u: 2 * u, lambda u, y: rules.Credit(y, y, y)),
}
MAKE = {row.name: row.make for row in RULES} | MORE


def network(rate=0.1, scale=2.0, zca=None):
    """A network with everything in it that a user may write."""
    white = None if zca is None else functools.partial(whitening.apply, zca)
    return (
        Layer(
            5,
            rules.krotov(2, 0.4, 3.0),
            optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(plasticity.anneal(rate, 3, 4))),
            Window(3),
            initial=lambda key, shape: scale * jax.random.normal(key, shape),
            fire=jax.nn.relu,
            prepare=white,
        ),
        Layer(
            6,
            prototypes.nearest(1),
            optax.chain(plasticity.ascend(0.1), plasticity.masked(), plasticity.unit_rows()),
            fire=activations.repu(2),
            initial=initial.pruned(0.5),
            norm=norms.BatchNorm(norms.uniform),
            teacher=teachers.groups(3, 1, 3),
        ),
    )


@pytest.mark.parametrize('name', MAKE)
def test_rules_of_the_same_settings_are_equal_and_survive_pickling(name):
    one, other = MAKE[name](), MAKE[name]()
    assert one == other and hash(one) == hash(other)
    again = pickle.loads(pickle.dumps(one))
    assert again == one and hash(again) == hash(one)


def test_rules_of_other_settings_differ():
    made = {name: make() for name, make in MAKE.items()}
    assert len(set(made.values())) == len(made)
    assert rules.krotov(2, 0.4, 3.0) != rules.krotov(2, 0.5, 3.0)
    assert rules.instar(1) != rules.instar(2) and rules.instar(1) != 'instar'


def test_networks_are_equal_by_value_and_copies_are_equal():
    net = network()
    assert net == network() and hash(net) == hash(network())
    for copied in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), dump_and_load(net)):
        assert copied == net and hash(copied) == hash(net)
    for other in (network(rate=0.2), network(scale=3.0), network(scale=2)):
        assert other != net


def dump_and_load(thing):
    """There and back by joblib, which scikit-learn's users save pipelines with."""
    file = io.BytesIO()
    joblib.dump(thing, file)
    file.seek(0)
    return joblib.load(file)


def test_what_a_setting_holds_in_arrays_counts(rng):
    fitted = [whitening.fit(jnp.asarray(rng.normal(size=(9, 2, 2, 1)), jnp.float32), epsilon=0.1) for _ in range(2)]
    one, other = (network(zca=zca) for zca in fitted)
    assert one == network(zca=jax.tree.map(jnp.copy, fitted[0])) != other


def test_a_copied_network_learns_the_same_bits_and_compiles_nothing_new(rng):
    images = jnp.asarray(rng.integers(0, 256, (12, 6, 6, 1), np.uint8))
    labels = np.arange(12) % 3
    state = train.init(network(), jax.random.key(0), (6, 6, 1))
    expected, _ = train.train_step(network(), state, images, labels)
    count = train._sweep._cache_size()
    copied, state = pickle.loads(pickle.dumps((network(), jax.device_get(state._replace(key=None)))))
    state = jax.tree.map(jnp.asarray, state)._replace(key=train.init(network(), jax.random.key(0), (6, 6, 1)).key)
    found, _ = train.train_step(copied, state, images, labels)
    for a, b in zip(jax.tree.leaves(found.layers), jax.tree.leaves(expected.layers)):
        np.testing.assert_array_equal(a, b)
    assert train._sweep._cache_size() == count


SCRIPT = """
import pickle, sys, jax
from hebbjax import train
net = pickle.load(open(sys.argv[1], 'rb'))
print(hash(train.init(net, jax.random.key(0), (6, 6, 1)).layers[0].w.tobytes()) != 0, len(net), net[0].features)
"""


def test_a_network_is_read_by_another_process(tmp_path):
    """Functions without a name are taken along: this file is not imported there."""
    path = tmp_path / 'net.pkl'
    path.write_bytes(pickle.dumps(network()))
    done = subprocess.run([sys.executable, '-c', SCRIPT, path], capture_output=True, text=True, cwd='/')
    assert done.stdout.split() == ['True', '2', '5'], done.stderr


SCALE = 2.0


def test_globals_that_a_function_refers_to_count(monkeypatch):
    def layer():
        return Layer(3, rules.hebb(), plasticity.ascend(0.1), initial=lambda key, shape: SCALE * jnp.ones(shape))

    before = layer()
    assert before == layer()
    monkeypatch.setitem(globals(), 'SCALE', 3.0)
    assert layer() != before


def test_numbers_of_other_types_are_other_settings():
    kinds = [1, 1.0, True, np.float32(1), '1']
    assert len({values.value_of(one) for one in kinds}) == len(kinds)


def test_what_is_traced_or_unknown_is_only_itself():
    thing = object()
    assert values.value_of(thing) == values.value_of(thing) != values.value_of(object())
    seen = []

    def f(rate):
        tx = plasticity.ascend(rate)
        net = (Layer(3, rules.hebb(), tx),)
        assert net == net and net != (Layer(3, rules.hebb(), plasticity.ascend(rate + 1)),)
        seen.append(hash(net))
        return rate

    jax.jit(f)(1.0)
    assert seen


def test_a_function_that_refers_to_itself_comes_to_an_end():
    def build():
        def count(n):
            return n if n < 1 else count(n - 1)

        return count

    assert values.value_of(build()) == values.value_of(build())


def test_rates_may_be_mapped_over():
    """A rate that is traced makes a layer of its own in every trace, and nothing leaks out of it."""
    images = jnp.full((4, 3, 3, 1), 255, jnp.uint8)

    def learned(rate):
        net = (Layer(2, rules.hebb(), plasticity.ascend(rate)),)
        state = train.init(net, jax.random.key(0), (3, 3, 1))
        return train.train_step(net, state, images)[0].layers[0].w - state.layers[0].w

    for _ in range(2):
        small, large = jax.vmap(learned)(jnp.array([0.5, 1.0]))
        np.testing.assert_allclose(2 * small, large, rtol=1e-4)
        assert np.abs(large).max() > 1e-2


def test_replacing_a_setting_makes_another_layer():
    layer = network()[0]
    assert hash(layer) == hash(dataclasses.replace(layer))
    assert dataclasses.replace(layer, fire=activations.identity) != layer
    assert hebbjax.max_pool(2) == hebbjax.max_pool(np.int64(2))
