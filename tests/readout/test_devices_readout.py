"""What reads out, divided over devices: what one computes, an eighth of the work each, at most a collective a step."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import on_devices
import pytest
from on_devices import collectives, largest_difference

from hebbjax import layers, rules, transforms
from hebbjax.layers import activations, normalization, patches
from hebbjax.layers.lateral import Lateral
from hebbjax.layers.pooling import max_pool
from hebbjax.readout import (
    GradientStage,
    Milestones,
    add_batch,
    fit_gradient,
    fit_hybrid,
    fit_ridge,
    gradient_layer,
    gradient_probe,
    linear_head,
    predict_hybrid,
    probe_features,
    ridge_probe,
    ridge_stats,
    softmax,
    softmax_probe,
    solve_ridge,
)  # fmt: skip
from hebbjax.readout.gradient import Carry, gradient_epoch
from hebbjax.readout.hybrid import NetworkModel, lower_answers
from hebbjax.support import devices, moments

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason='needs eight devices, virtual ones do')

NORM = normalization.BatchNorm(normalization.uniform)
LOWER = layers.Layer(
    4, rules.instar(), transforms.scale_by_rate(0.1), layers.Window(3), post=(activations.relu, max_pool(2), NORM),
    patch_transform=patches.raw, output='cosine',
)  # fmt: skip
NET = (LOWER, gradient_layer(5, layers.Window(2), post=(activations.relu, NORM)), gradient_layer(3, post=()))
CACHED = (dataclasses.replace(LOWER, output='weights', post=()), linear_head(3, pool=2))
SETTLING = (dataclasses.replace(LOWER, output='weights', lateral=Lateral(0.1), post=(activations.relu,)),)


@pytest.fixture(scope='module')
def mesh():
    """Eight devices, as jax makes a mesh."""
    return jax.make_mesh((8,), ('data',))


def doubles(net):
    """First states for images of 6 x 6, in float64."""
    return on_devices.doubles(net, (6, 6, 1)).layers


def divided(one, many):
    """Compile what one device does and what eight do. -> the share of each in the work, and what they send."""
    one, many = one.compile(), many.compile()
    return many.cost_analysis()['flops'] / one.cost_analysis()['flops'], collectives(many)


@pytest.mark.parametrize('net, count', [(NET, 24), (NET, 13), (SETTLING, 3)])
def test_answers_are_those_of_one_device(net, count, mesh, x64, rng):
    """Whether rows divide or not, wherever they lie."""
    states, images = doubles(net), rng.random((count, 6, 6, 1))
    features = functools.partial(layers.features, net, states)
    one = features(images)
    assert features(images, mesh=mesh).shape == one.shape
    assert largest_difference(features(images, mesh=mesh), one) <= 1e-12
    if count % 8 == 0:
        lying = jax.device_put(images, jax.NamedSharding(mesh, jax.P('data')))
        assert largest_difference(features(lying, mesh=mesh), one) <= 1e-12
    probed = functools.partial(probe_features, net[:1], states[:1], images)
    assert largest_difference(probed(), probed(mesh=mesh)) <= 1e-12


def test_cached_drives_are_those_of_one_device(mesh, bars):
    states = layers.init(CACHED, jax.random.key(0), (6, 6, 1)).layers
    one, many = (lower_answers(CACHED[:1], states[:1], bars[0], pool=2, mesh=m) for m in (None, mesh))
    assert largest_difference(one, many) <= 1e-6


def test_a_hybrid_with_batch_norm_is_that_of_one_device(mesh, x64, relaxed, rng):
    """Steps on all samples at once, so that both take the same; the validation set does not divide."""
    train, held = ((rng.random((n, 6, 6, 1)), np.arange(n) % 3) for n in (48, 50))
    stage = GradientStage(1, Milestones(epochs=3, batch=48, rate=0.05))
    fit = functools.partial(fit_hybrid, NET, doubles(NET), stage, jax.random.key(1), train, held)
    one, many = fit(), fit(mesh=mesh)
    assert largest_difference(one.layers, many.layers) <= 1e-12
    assert largest_difference(one.gradient.stats, many.gradient.stats) <= 1e-12
    assert largest_difference(*([line[:4] for line in result.gradient.curve] for result in (one, many))) <= 1e-6
    np.testing.assert_array_equal(predict_hybrid(one, held[0]), predict_hybrid(many, held[0], mesh))


def test_a_head_on_pooled_drives_is_that_of_one_device(mesh, relaxed, bars):
    """Whose moments, of float16, are those of all devices; and a second training compiles nothing."""
    train = bars[0][:56], bars[1][:56]
    states, probes, programs = layers.init(CACHED[:1], jax.random.key(0), (6, 6, 1)).layers, [], []
    for m in (None, mesh, mesh):
        fit = gradient_probe(CACHED[1], Milestones(epochs=2, batch=56, rate=0.05), mesh=m)
        probes.append(fit(CACHED[:1], states, jax.random.key(1), train, bars))
        programs.append(gradient_epoch._cache_size())
    assert largest_difference(probes[0].layers, probes[1].layers) <= 1e-5
    assert largest_difference(probes[1].layers, probes[2].layers) == 0 and programs[1] == programs[2]
    np.testing.assert_array_equal(*(probe.predict(bars[0]) for probe in probes[:2]))


class Counting(NamedTuple):
    """A model that learns nothing, and counts in its stats which samples it was trained on, [count + 1]."""

    def apply(self, params, stats, inputs, key=None):
        seen = devices.sum_over_devices(jnp.zeros_like(stats).at[inputs].add(1)) if key is not None else 0
        return jnp.zeros((len(inputs), 2)) + params, stats + seen


@pytest.mark.parametrize('count', [64, 67, 71])
def test_an_epoch_shows_every_sample_once_at_most_where_they_do_not_divide(count, mesh, relaxed):
    samples = np.arange(1, count + 1), np.arange(count) % 2  # what fills up is number 0
    begin = Counting(), jnp.zeros(()), jnp.zeros(count + 1), jax.random.key(0), samples, samples
    seen = fit_gradient(*begin, Milestones(epochs=1, batch=16), mesh=mesh).stats
    assert seen.sum() == 64 and seen.max() == 1 and seen[0] == 0


@pytest.mark.parametrize('name', ['hybrid', 'cached'])
def test_a_gradient_epoch_is_an_eighth_of_the_work_and_one_collective(name, mesh, relaxed, rng):
    net = NET if name == 'hybrid' else CACHED
    states, mesh = layers.init(net, jax.random.key(0), (6, 6, 1)).layers, devices.check_mesh(mesh)
    model, schedule = NetworkModel(net, 1, 1), Milestones(batch=512)
    inputs = lower_answers(
        net[:1], states[:1], np.float32(rng.random((512, 6, 6, 1))), pool=2 if net == CACHED else None
    )
    carry = Carry(*(learned := model.init(states)), schedule.tx().init(learned[0]), learned[0], jnp.int32(0))
    same = jax.random.key(1), jnp.float32(1), (jnp.int32(0), jnp.int32(1))
    programs = []
    for m in (None, mesh):
        rows = devices.fill_rows((inputs, np.arange(512) % 3), m)
        given = devices.lay(carry, m), *rows, *devices.lay(same, m)
        programs.append(gradient_epoch.lower(model, schedule, *given, mesh=m))
    share, found = divided(*programs)
    assert share == pytest.approx(0.125, abs=0.01)
    assert set(found) == {'all-reduce'} and len(found) <= 3  # two are batch norm's, forth and back


def test_features_are_an_eighth_of_the_work_and_nothing_is_sent(mesh, rng):
    states = layers.init(NET, jax.random.key(0), (6, 6, 1)).layers
    images = np.float32(rng.random((64, 6, 6, 1)))
    calls = (lambda m, x: layers.features(NET, states, x, mesh=m)), lambda m, x: probe_features(NET, states, x, mesh=m)
    for call in calls:
        share, found = divided(*(jax.jit(functools.partial(call, m)).lower(images) for m in (None, mesh)))
        assert share == pytest.approx(0.125, abs=0.01) and found == []


# Ridge regression


def problem(rng, count=500, inputs=40):
    """Features of very different sizes far from zero, one of them constant, and labels."""
    x = rng.normal(size=(count, inputs)) * np.logspace(-2, 1, inputs) + 30
    x[:, 3] = 0.1
    return x, (x @ rng.normal(size=(inputs, 4)) + rng.normal(size=(count, 4))).argmax(1)


@pytest.mark.parametrize('size', [500, 128, 5])
def test_ridge_sums_of_devices_are_those_of_the_host(size, mesh, rng):
    x, labels = problem(rng)
    batches = [(x[i : i + size], labels[i : i + size]) for i in range(0, 500, size)]
    one, many = ridge_stats(batches, 4), ridge_stats(batches, 4, mesh)
    for name, here, there in zip(one._fields, one, many):
        np.testing.assert_allclose(here, there, rtol=1e-12, atol=1e-12 * np.abs(here).max(), err_msg=name)
    assert (many.xx[3] == 0).all() and many.count == 500
    w = fit_ridge(batches, 4).w
    np.testing.assert_allclose(fit_ridge(batches, 4, mesh=mesh).w, w, rtol=1e-8, atol=1e-10 * np.abs(w).max())


def test_wide_sums_of_devices_keep_all_their_digits_and_can_be_added_to(mesh, rng, monkeypatch):
    x = (rng.normal(size=(2000, 60)) @ rng.normal(size=(60, 60)) ** 3).astype(np.float32)  # of all sizes, and dependent
    batches = [(x[:1000], labels := (x[:1000, 0] > 0).astype(int)), (x[1000:], labels)]
    exact = fit_ridge(batches, 2, 1.0).w
    stats = add_batch(ridge_stats(batches[:1], 2, mesh), *batches[1], 2, mesh)
    monkeypatch.setattr(moments, 'WIDE', 30)
    for w in (fit_ridge(batches, 2, 1.0, mesh).w, solve_ridge(stats, 1.0).w):
        assert np.abs(w - exact).max() < 1e-4 * np.abs(exact).max()


def test_ridge_sums_are_an_eighth_of_the_work_and_one_collective_in_all(mesh, rng):
    mesh, rows, programs = devices.check_mesh(mesh), np.float32(rng.random((512, 64))), []
    with jax.enable_x64(True):
        for m in (None, mesh):
            given = devices.fill_rows((rows, rows[:, :4].astype(float), np.ones(512, bool)), m)
            programs.append(moments._add_on_device.lower(m, sums := moments._zeros(m, 64, 4), *given))
        merge = moments._merge.lower(mesh, sums).compile()
    share, found = divided(*programs)
    assert share == pytest.approx(0.125, abs=0.01) and found == []
    assert collectives(merge) == ['all-reduce']


def test_a_ridge_probe_is_that_of_one_device(mesh, bars):
    states = layers.init(NET[:1], jax.random.key(0), (6, 6, 1)).layers
    one, many = (ridge_probe(1e-3, 25, m)(NET[:1], states, None, bars, bars) for m in (None, mesh))
    np.testing.assert_array_equal(one.predict(bars[0]), many.predict(bars[0]))


def test_softmax_regression_divides_rows_and_sums_once_a_step(mesh, bars, rng):
    states = layers.init(NET[:1], jax.random.key(0), (6, 6, 1)).layers
    one, many = (softmax_probe(1e-2, 25, m)(NET[:1], states, None, bars, bars) for m in (None, mesh))
    np.testing.assert_array_equal(one.predict(bars[0]), many.predict(bars[0]))
    x = rng.normal(size=(500, 40)) * np.logspace(-2, 1, 40) + 3
    labels = ((x - 3) @ rng.normal(size=(40, 4)) + rng.normal(size=(500, 4))).argmax(1)
    one, many = (softmax.fit_softmax(x, labels, 4, 1.0, mesh=m).model for m in (None, mesh))
    np.testing.assert_allclose(one.w, many.w, atol=1e-2 * np.abs(one.w).max())
    rows = softmax.stack_rows(
        [(np.float32(rng.random((64, 12))), np.arange(64) % 4, slice(64))] * 2, 2, 12, devices.check_mesh(mesh)
    )
    assert {shard.data.shape for shard in rows.x.addressable_shards} == {(8, 2, 12)}
    unit, products = softmax._products(rows.x, softmax.plan_columns(12))
    program = softmax._solve.lower(rows.x, rows.labels, unit, products, jnp.zeros((4, 12)), jnp.zeros(4), 1.0).compile()
    assert {*collectives(program)} == {'all-reduce'}


def test_an_accelerator_adds_up_by_one_program_and_reads_alike(bars, monkeypatch):
    """As a GPU would, here on a CPU; the last block of 60 images is filled up."""
    states = layers.init(NET[:1], jax.random.key(0), (6, 6, 1)).layers
    one = ridge_probe(1e-3, 25)(NET[:1], states, None, bars, bars)
    monkeypatch.setattr(moments, 'is_on_device', lambda mesh=None: True)
    before = moments._add_on_device._cache_size()
    many = ridge_probe(1e-3, 25)(NET[:1], states, None, bars, bars)
    assert moments._add_on_device._cache_size() == before + 1
    np.testing.assert_array_equal(one.predict(bars[0]), many.predict(bars[0]))
    x = np.ones((4, 3), np.float32)
    with pytest.raises(ValueError, match='features hold NaN or infinite values'):
        fit_ridge([(jnp.asarray(x), [0, 1, 0, 1]), (jnp.asarray(x * np.nan), [0, 1, 0, 1])], 2)


# Bad input


def test_what_does_not_divide_is_refused_before_anything_is_computed(mesh, bars):
    states, other = layers.init(CACHED[:1], jax.random.key(0), (6, 6, 1)).layers, jax.make_mesh((8,), ('x',))
    schedule, head = Milestones(batch=30), CACHED[1]
    with pytest.raises(ValueError, match='a batch of 30 does not divide over 8 devices; use 24 or 32'):
        gradient_probe(head, schedule, mesh=mesh).check(CACHED[:1], states, bars, bars)
    calls = [
        lambda: layers.features(CACHED[:1], states, bars[0], mesh=other),
        lambda: ridge_probe(mesh=other),
        lambda: gradient_probe(head, schedule, mesh=other)(CACHED[:1], states, jax.random.key(0), bars, bars),
        lambda: fit_ridge([(np.eye(4), np.arange(4))], 4, mesh=other),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"a mesh of axes \('x',\) has not the one axis 'data'"):
            call()
