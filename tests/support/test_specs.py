"""Specs by value: equal settings are equal layers, whatever process made them, and other settings are others."""

import copy
import dataclasses
import functools
import io
import itertools
import os
import pathlib
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import joblib
import numpy as np
import optax
from table import ASSOCIATIVE, MEMORY, RULES

from hebbjax import layers, rules, transforms
from hebbjax.base import Credit
from hebbjax.data import fit_whitening, whiten
from hebbjax.layers import BatchNorm, Layer, Window, activations, initializers, normalization
from hebbjax.support import specs
from hebbjax.training import step

MORE = {
    'som': lambda: rules.som((3, 2)),
    'abstaining': lambda: rules.random_abstention(rules.instar(2, metric='euclidean')),
    'own': lambda: rules.local(lambda key, u: 2 * u, lambda u, y: Credit(y, y, y)),
}
MAKE = {row.name: row.make for row in RULES + MEMORY + ASSOCIATIVE} | MORE


def network(rate=0.1, scale=2.0, zca=None):
    """A network with everything in it that a user may write."""
    tx = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(transforms.linear_by_epoch(rate, 3, 4)))
    unit_tx = optax.chain(transforms.scale_by_rate(0.1), transforms.keep_pruned(), transforms.project_unit_rows())
    return (
        Layer(
            5,
            rules.krotov(2, 0.4, 3.0),
            tx,
            Window(3),
            pre=() if zca is None else (functools.partial(whiten, zca),),
            post=(jax.nn.relu,),
            init=lambda key, shape: scale * jax.random.normal(key, shape),
        ),
        Layer(
            6,
            rules.instar(1, metric='cosine'),
            unit_tx,
            post=(activations.repu(2), BatchNorm(normalization.uniform)),
            init=initializers.pruned(0.5),
            teacher=rules.groups(3, 1, 3),
        ),
    )


def test_rules_of_the_same_settings_are_equal_and_survive_pickling():
    for name, make in MAKE.items():
        rule, other = make(), make()
        assert rule == other and hash(rule) == hash(other), name
        again = pickle.loads(pickle.dumps(rule))
        assert again == rule and hash(again) == hash(rule), name


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
    zca, another = (fit_whitening(rng.normal(size=(9, 2, 2, 1)).astype(np.float32), epsilon=0.1) for _ in range(2))
    assert network(zca=zca) == network(zca=jax.tree.map(jnp.copy, zca)) != network(zca=another)


def test_a_copied_network_learns_the_same_bits_and_compiles_nothing_new(rng):
    images = jnp.asarray(rng.integers(0, 256, (12, 6, 6, 1), np.uint8))
    state = layers.init(network()[:1], jax.random.key(0), (6, 6, 1))
    expected, _ = step.train_step(network()[:1], state, images)
    count = step.sweep._cache_size()
    copied, arrays = pickle.loads(pickle.dumps((network()[:1], jax.device_get(state._replace(key=None)))))
    restored = jax.tree.map(jnp.asarray, arrays)._replace(key=jax.random.split(jax.random.key(0))[1])
    trained, _ = step.train_step(copied, restored, images)
    np.testing.assert_array_equal(trained.layers[0].w, expected.layers[0].w)
    assert step.sweep._cache_size() == count


SCRIPT = """
import pickle, sys, jax
from hebbjax import init
net = pickle.load(open(sys.argv[1], 'rb'))
print(len(net), net[0].features, jax.eval_shape(lambda: init(net, jax.random.key(0), (6, 6, 1)).layers[0].w).shape)
"""


def test_a_network_is_read_by_another_process(tmp_path):
    """Functions without a name are taken along: this file is not imported there."""
    path = tmp_path / 'net.pkl'
    path.write_bytes(pickle.dumps(network()))
    root = pathlib.Path(specs.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, path],
        capture_output=True,
        text=True,
        cwd='/',
        env=os.environ | {'PYTHONPATH': str(root)},
    )
    assert done.stdout.strip() == '2 5 (5, 9)', done.stderr


SCALE = 2.0


def test_globals_that_a_function_refers_to_count(monkeypatch):
    def layer():
        return Layer(3, rules.hebb(), transforms.scale_by_rate(0.1), init=lambda key, shape: SCALE * jnp.ones(shape))

    before = layer()
    assert before == layer()
    monkeypatch.setitem(globals(), 'SCALE', 3.0)
    assert layer() != before


def test_numbers_of_other_types_are_other_settings():
    kinds = [1, 1.0, True, np.float32(1), '1']
    assert len({specs.value_of(kind) for kind in kinds}) == len(kinds)


def test_what_is_traced_or_unknown_is_only_itself():
    thing = object()
    assert specs.value_of(thing) == specs.value_of(thing) != specs.value_of(object())
    seen = []

    def f(rate):
        tx = transforms.scale_by_rate(rate)
        net = (Layer(3, rules.hebb(), tx),)
        assert net == net and net != (Layer(3, rules.hebb(), transforms.scale_by_rate(rate + 1)),)
        seen.append(hash(net))
        return rate

    jax.eval_shape(f, 1.0)
    assert seen


def test_a_function_that_refers_to_itself_comes_to_an_end():
    def build():
        def count(n):
            return n if n < 1 else count(n - 1)

        return count

    assert specs.value_of(build()) == specs.value_of(build())


def test_rates_may_be_mapped_over():
    """A rate that is traced makes a layer of its own in every trace, and nothing leaks out of it."""
    images = jnp.full((4, 3, 3, 1), 255, jnp.uint8)

    def learned(rate):
        net = (Layer(2, rules.hebb(), transforms.scale_by_rate(rate)),)
        state = layers.init(net, jax.random.key(0), (3, 3, 1))
        return step.train_step(net, state, images)[0].layers[0].w - state.layers[0].w

    for _ in range(2):
        small, large = jax.vmap(learned)(jnp.array([0.5, 1.0]))
        np.testing.assert_allclose(2 * small, large, rtol=1e-4)
        assert np.abs(large).max() > 1e-2


def test_replacing_a_setting_makes_another_layer():
    layer = network()[0]
    assert hash(layer) == hash(dataclasses.replace(layer))
    assert dataclasses.replace(layer, post=(activations.identity,)) != layer
    assert layers.max_pool(2) == layers.max_pool(np.int64(2))


class Experiment:
    """What users write: settings in an object, and functions that read them."""

    gain = 1.0

    def net(self):
        rule = rules.local(1, lambda u, y: Credit(self.gain * y, self.gain * y, y))
        return (Layer(3, rule, transforms.scale_by_rate(0.1), post=(self.send,)),)

    def send(self, u):
        return self.gain * u


def test_what_an_object_holds_counts_as_it_is_when_a_layer_is_built():
    """Else a layer built after a change would run the program of the one before."""
    experiment = Experiment()
    images = jnp.asarray(np.random.default_rng(0).random((4, 3, 3, 1)), jnp.float32)
    changes, answers = [], []
    for gain in (1.0, 5.0):
        experiment.gain = gain
        net = experiment.net()
        assert net == experiment.net() and hash(net) == hash(experiment.net())
        state = layers.init(net, jax.random.key(0), (3, 3, 1))
        moved, _ = step.make_train_step(net)(state, images)
        changes.append(np.asarray(moved.layers[0].w - state.layers[0].w))
        answers.append(np.asarray(layers.features(net, state.layers, images)))
    np.testing.assert_allclose(changes[1], 5 * changes[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(answers[1], 5 * answers[0], rtol=1e-6)


def test_a_mesh_is_the_same_after_it_was_asked_something():
    """It keeps answers beside its devices, and a training on it is not compiled anew for that."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ('never',))
    before = specs.value_of(mesh)
    assert mesh.size == len(mesh.local_devices) == 1 and specs.value_of(mesh) == before
    assert specs.value_of(jax.sharding.Mesh(np.array(jax.devices()[:1]), ('other',))) != before


def test_a_web_of_objects_is_walked_through_once():
    """Forty objects, each of which refers to the next twice, have 2^40 paths."""
    nodes = [Experiment() for _ in range(40)]
    for node, other in itertools.pairwise(nodes):
        node.left = node.right = other
    nodes[-1].left = nodes[0]
    value = specs.value_of(nodes[0].send)
    assert value == specs.value_of(nodes[0].send)
    nodes[-1].gain = 2.0
    assert value != specs.value_of(nodes[0].send)
