"""A batch divided over devices: the same sums, an eighth of the work each, one collective a step."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import table
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from on_devices import collectives, doubles, largest_difference

import hebbjax
from hebbjax import Homeostasis, Window, rules, training, transforms
from hebbjax.data.augmentation import random_flip
from hebbjax.layers import (
    AngleKernel,
    Decorrelate,
    PartState,
    avg_pool,
    gauss_pool,
    initializers,
    max_pool,
    mean_over_devices,
    relu,
    standardise,
    triangle,
)
from hebbjax.layers.lateral import Lateral
from hebbjax.layers.normalization import BatchNorm
from hebbjax.layers.patches import raw
from hebbjax.support import devices

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason='needs eight devices, virtual ones do')

RATE = transforms.scale_by_rate(0.1)
KROTOV_TX = optax.chain(transforms.scale_by_max_abs(), RATE)
KROTOV = (hebbjax.Layer(24, rules.krotov(4, 0.4, 3.0), KROTOV_TX, Window(3), post=(relu, max_pool(2))),)
RULE = rules.instar(1, reduce=rules.sum_over_patches)
TX = optax.chain(transforms.scale_by_rate(1e-3), transforms.keep_pruned(), transforms.project_unit_rows())
MICONI = tuple(
    hebbjax.Layer(
        features, RULE, TX, Window(3), pre=(standardise,), post=(triangle, avg_pool(2)), patch_transform=raw,
        homeostasis=Homeostasis(winners=1), init=initializers.pruned(density),
    )
    for features, density in ((12, 1.0), (16, 0.3))
)  # fmt: skip
NEAREST = rules.instar(1, metric='cosine', reduce=rules.mean_over_credit)
AMATO = tuple(
    hebbjax.Layer(n, NEAREST, RATE, Window(3), post=(relu, max_pool(2), BatchNorm()), output='cosine')
    for n in (12, 16)
)  # fmt: skip
KERNEL = tuple(
    hebbjax.Layer(
        n, rules.instar(1, metric='cosine'), RATE, Window(3, 1, 1), patch_transform=raw, output=AngleKernel(),
        post=(gauss_pool(2), Decorrelate()),
    )
    for n in (12, 16)
)  # fmt: skip
NETS = {'krotov': KROTOV, 'miconi': MICONI, 'amato': AMATO, 'kernel': KERNEL}
STAGE = training.plan_stages('simultaneous', KROTOV, 1)[0]


@pytest.fixture(scope='module')
def mesh():
    """Eight devices, as jax makes a mesh."""
    return jax.make_mesh((8,), ('data',))


def images_of(rng, count=32, side=10, channels=3):
    """Images at random."""
    return rng.random((count, side, side, channels))


@pytest.mark.parametrize('name', NETS)
def test_steps_on_eight_devices_are_those_of_one(name, mesh, x64, rng):
    net = NETS[name]
    one = many = doubles(net, (10, 10, 3))
    step, divided = training.make_train_step(net), training.make_train_step(net, mesh=mesh)
    for _ in range(4):
        images = images_of(rng)
        one, info = step(one, images)
        many, told = divided(many, images)
    assert largest_difference(one, many) <= 1e-12
    for here, there in zip(info, told):
        np.testing.assert_array_equal(here.win_counts, there.win_counts)
        np.testing.assert_allclose(here.win_rates, there.win_rates, rtol=1e-12)
        assert bool(there.is_finite)
    assert many.layers[0].w.sharding.is_fully_replicated


SOME = ['hebb-soft_wta', 'instar-weighted', 'nearest-distance-2', 'sanger', 'krotov-k5-delta0.0-p1.5']
SOME += ['trace-2-weighted', 'bcm']


@pytest.mark.parametrize('name', SOME)
def test_every_kind_of_rule_is_divided_in_microbatches(name, x64, rng):
    rule = next(row for row in [*table.RULES, *table.MEMORY] if row.name == name).make()
    net = (hebbjax.Layer(6, rule, RATE, Window(3), microbatch=2, lateral=Lateral(0.1) if name == 'bcm' else None),)
    state = doubles(net, (4, 4, 2))
    images = images_of(rng, 12, 4, 2)
    images = images.reshape(4, 3, *images.shape[1:]) if rule.sequential else images
    mesh = jax.make_mesh((2,), ('data',), devices=jax.devices()[:2])
    assert largest_difference(training.make_train_step(net)(state, images), training.make_train_step(net, mesh=mesh)(state, images)) <= 1e-12  # fmt: skip  # noqa: E501


@dataclasses.dataclass(frozen=True)
class MeanFree:
    """A part of one's own, which goes by the whole batch and keeps what it saw of it."""

    def init(self, key, shape):
        return PartState(stats=jnp.zeros(shape[-1]))

    def apply(self, state, x, train=False, key=None):
        mean = mean_over_devices(x.mean((0, 1, 2))) if train else state.stats
        return x - mean[None, None, None], state._replace(stats=mean)


def test_a_part_of_ones_own_sees_the_whole_batch(mesh, x64, rng):
    net = (hebbjax.Layer(5, rules.hebb(), RATE, Window(3), pre=(MeanFree(),), patch_transform=raw),)
    images, state = images_of(rng), doubles(net, (10, 10, 3))
    one, _ = hebbjax.make_train_step(net)(state, images)
    many, _ = hebbjax.make_train_step(net, mesh=mesh)(state, images)
    np.testing.assert_allclose(many.layers[0].w, one.layers[0].w, rtol=1e-12)
    np.testing.assert_allclose(many.layers[0].pre[0].stats, one.layers[0].pre[0].stats, rtol=1e-12)


def test_teachers_and_sequential_stages_are_divided(mesh, x64, rng):
    lower = hebbjax.Layer(8, rules.instar(1), RATE, Window(3), post=(relu,))
    net = (lower, hebbjax.Layer(5, rules.instar(None), RATE, teacher=rules.one_hot(5)))
    state, images, labels = doubles(net, (6, 6, 1)), images_of(rng, 16, 6, 1), None
    labels = np.arange(16) % 5
    stage = training.Stage(1, order='sequential')
    one = training.make_train_step(net, stage=stage)(state, images, labels)
    assert largest_difference(one, training.make_train_step(net, stage=stage, mesh=mesh)(state, images, labels)) < 1e-12


@pytest.mark.parametrize('name', NETS)
def test_an_eighth_of_the_work_and_one_collective_a_layer(name, mesh, rng):
    # whole batches at once, since XLA counts a loop's body once
    net = tuple(dataclasses.replace(layer, features=64, microbatch=256) for layer in NETS[name])
    state, images = hebbjax.init(net, jax.random.key(0), (10, 10, 3)), np.float32(images_of(rng, 256))
    makes = [training.make_train_step]
    makes += [functools.partial(training.make_train_epoch, batch=256)] if name == 'krotov' else []
    for make in makes:
        divided = make(net, mesh=mesh)
        _, there, data = divided.place(state, images)
        many = divided.lower(there, *data).compile()
        share = many.cost_analysis()['flops'] / make(net).lower(state, images).compile().cost_analysis()['flops']
        assert share == pytest.approx(0.125, abs=0.01)
        found = collectives(many)
        allowed = sum(1 + any(isinstance(part, BatchNorm) for part in layer.post) for layer in net)
        assert set(found) == {'all-reduce'} and len(found) <= allowed


# A neuron that is signalled 1 and begins at zero becomes, in one step, the sum of the images that it was shown.
SUMS = (
    hebbjax.Layer(1, rules.instar(None, reduce=rules.sum_over_patches), optax.identity(), teacher=rules.one_hot(1)),
)


def shown(program, images):
    """The images that one step of an epoch is made of, added up."""
    state = hebbjax.init(SUMS, jax.random.key(0), images.shape[1:], [np.zeros((1, images[0].size), np.float32)])
    return np.asarray(program(state, images, np.zeros(len(images), int))[0].layers[0].w)[0]


@pytest.mark.parametrize('count', [96, 101, 103])
def test_an_epoch_shows_every_image_once_at_most_where_they_do_not_divide(count, mesh):
    images = np.eye(count, dtype=np.float32).reshape(count, 1, count, 1)
    program = training.make_train_epoch(SUMS, batch=96, mesh=mesh)
    seen = shown(program, images)
    assert seen.sum() == 96 and set(seen) <= {0.0, 1.0}
    state = hebbjax.init(SUMS, jax.random.key(0), images.shape[1:])
    first, later = (np.asarray(program(state._replace(step=jnp.int32(n)), images, np.zeros(count, int))[0].layers[0].w)
                    for n in (0, 1))  # fmt: skip
    assert count == 96 or (first != later).any()  # others sit out


def test_an_epoch_goes_through_the_batches_that_its_keys_say(mesh, x64, rng):
    images, state = images_of(rng, 64), doubles(AMATO, (10, 10, 3))
    many, _ = training.make_train_epoch(AMATO, batch=16, mesh=mesh)(state, images)
    key = jax.random.fold_in(jax.random.fold_in(state.key, 0), 0x5EED)
    orders = [8 * n + jax.random.permutation(jax.random.fold_in(key, n), 8) for n in range(8)]
    one, step = state, training.make_train_step(AMATO)
    for number in range(4):
        one, _ = step(one, images[np.concatenate([order[2 * number : 2 * number + 2] for order in orders])])
    assert largest_difference(one, many) <= 1e-12


def test_devices_draw_by_keys_of_their_own(mesh):
    draw = devices.divide(lambda key: jax.random.uniform(devices.own_key(key))[None], devices.check_mesh(mesh),
                          devices.SAME, out=devices.ROWS)  # fmt: skip
    assert len(set(np.asarray(jax.jit(draw)(jax.random.key(0))).tolist())) == 8
    one_sided = np.zeros((8, 4, 4, 1), np.float32)
    one_sided[:, :, 0] = 1
    program = training.make_train_epoch(SUMS, batch=8, mesh=mesh, augment=random_flip)
    assert 0 < shown(program, one_sided).reshape(4, 4)[0, 0] < 8  # of eight alike some are flipped


def test_what_is_watched_is_of_all_devices(mesh, x64, rng):
    images, watch = images_of(rng, 32), training.Monitor(every=1, windows=10**6)
    state = doubles(KROTOV, (10, 10, 3))
    _, (one,) = training.make_train_epoch(KROTOV, batch=32, watch=watch)(state, images)
    _, (many,) = training.make_train_epoch(KROTOV, batch=32, watch=watch, mesh=mesh)(state, images)
    assert largest_difference(one, many) <= 1e-12


def test_a_training_on_a_mesh_compiles_once_and_compares_to_one_device(mesh, rng, compilations):
    images = np.float32(images_of(rng, 100))
    how = {'stages': training.plan_stages('greedy', MICONI, 2), 'batch': 16}
    state = hebbjax.init(MICONI, jax.random.key(0), (10, 10, 3))
    first = training.fit(MICONI, state, images, mesh=mesh, **how)
    before = len(compilations)
    again = training.fit(MICONI, state, images, mesh=mesh, **how)
    assert len(compilations) == before and largest_difference(first.state, again.state) == 0
    one = training.fit(MICONI, state, images, **how)
    assert [row.keys() for row in first.history] == [row.keys() for row in one.history]
    assert int(first.state.step) == int(one.state.step) == 24


@pytest.mark.parametrize('kind', [AxisType.Auto, AxisType.Explicit])
def test_images_may_lie_on_either_kind_of_mesh_or_in_a_jitted_function(kind, rng):
    mesh = jax.make_mesh((8,), ('data',), axis_types=(kind,))
    images, step = np.float32(images_of(rng)), training.make_train_step(KROTOV, mesh=mesh)
    state = hebbjax.init(KROTOV, jax.random.key(0), (10, 10, 3))
    wanted = step(state, images)
    divided = jax.device_put(images, NamedSharding(mesh, PartitionSpec('data')))
    assert largest_difference(step(state, divided), wanted) == 0
    assert largest_difference(jax.jit(step)(state, images), wanted) == 0


def test_seeds_are_divided_over_a_mesh_of_seeds(rng):
    states = training.init_seeds(KROTOV, jax.random.split(jax.random.key(0), 8), (10, 10, 3))
    images, epoch = np.float32(images_of(rng)), training.make_train_epoch(KROTOV, batch=16)
    mesh = jax.make_mesh((4,), ('seed',), devices=jax.devices()[:4])
    one, many = training.over_seeds(epoch, 1), training.over_seeds(epoch, 1, mesh)
    assert largest_difference(one(states, images), many(states, images)) == 0
    compiled = many.lower(states, images).compile()
    assert collectives(compiled) == []
    # two states after each other on each device, where one device has eight: a loop's body is counted once
    share = compiled.cost_analysis()['flops'] / one.lower(states, images).compile().cost_analysis()['flops']
    assert share == pytest.approx(1, abs=0.05)
    result = training.fit(KROTOV, states, images, stages=[STAGE], batch=16, mesh=mesh)
    alone = training.fit(KROTOV, states, images, stages=[STAGE], batch=16)
    assert largest_difference(result.state, alone.state) == 0
    with pytest.raises(ValueError, match='seeds of 8 does not divide over 3 devices; use 6 or 9'):
        training.over_seeds(epoch, 1, jax.make_mesh((3,), ('seed',), devices=jax.devices()[:3]))(states, images)


@pytest.mark.parametrize(
    'mesh, batch, says',
    [
        (8, 16, 'devices are given as a jax.sharding.Mesh, not 8; use jax.make_mesh'),
        ('other', 16, "has not the one axis 'data'; use jax.make_mesh"),
        ('data', 12, 'a batch of 12 does not divide over 8 devices; use 8 or 16'),
        ('data', 4, 'a batch of 4 does not divide over 8 devices; use 8'),
    ],
)
def test_what_does_not_divide_is_refused(mesh, batch, says, rng):
    mesh = mesh if isinstance(mesh, int) else jax.make_mesh((8,), (mesh,))
    images, state = np.float32(images_of(rng)), hebbjax.init(KROTOV, jax.random.key(0), (10, 10, 3))
    with pytest.raises(ValueError, match=re.escape(says)):
        training.fit(KROTOV, state, images, stages=[STAGE], batch=batch, mesh=mesh)
    with pytest.raises(ValueError, match=re.escape(says)):
        training.make_train_step(KROTOV, mesh=mesh)(state, images[:batch])
    if batch == 12:
        epoch = training.make_train_epoch(KROTOV, batch=16, mesh=mesh, keep_last=True)
        with pytest.raises(ValueError, match='a last batch of 12 does not divide over 8 devices'):
            epoch(state, images[:28])


def test_sums_over_devices_keep_integers_whole(mesh):
    many = np.array([2**30 // 8 + n for n in range(8)], np.int32)
    add = devices.divide(lambda n: devices.sum_over_devices((n[0], jnp.float32(1.5)))[0], devices.check_mesh(mesh),
                         devices.ROWS)  # fmt: skip
    assert int(jax.jit(add)(many)) == many.sum()
