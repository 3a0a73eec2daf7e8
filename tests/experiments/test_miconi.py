"""Miconi's table on a few random images: rows of every kind run, and the JSON shows what it should."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import miconi_cifar10 as miconi
import numpy as np
import pytest
import tables

import hebbjax
from hebbjax import data, layers

SHAPE = (24, 24, 3)
TINY = '--seeds 2 --epochs 1 --features 8 6 4 --batch 20 --burn-in 1 --whitening-images 30'
PLAIN = {'pre': (layers.standardise,)}


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    """Smaller images; and whitening of images does nothing: that it whitens is tested where it belongs."""
    fit, whiten = data.fit_whitening, data.whiten
    quick = lambda x, **recipe: data.Whitening(jnp.zeros(SHAPE), jnp.eye(1)) if x.ndim == 4 else fit(x, **recipe)  # noqa: E731
    monkeypatch.setattr(miconi, 'SHAPE', SHAPE)
    monkeypatch.setattr(data, 'fit_whitening', quick)
    monkeypatch.setattr(data, 'whiten', lambda zca, x: whiten(zca, x) if zca.matrix.size > 1 else x)


def run(folder, *flags):
    return miconi.main([*TINY.split(), '--data-dir', str(folder), *map(str, flags)])


def test_the_table_its_json_and_its_pictures(small_data, tmp_path, capsys):
    (tmp_path / 'figures').mkdir()
    files = '--json', tmp_path / 'table.json', '--figures', tmp_path / 'figures'
    assert run(small_data, '--rows', 'triangle_trained', *files) == 0
    report = json.loads((tmp_path / 'table.json').read_text())
    (row,) = report['rows']
    papers = row['paper_l1_quadrants'], row['paper_l2_quadrants'], row['paper']
    assert row['row'] == 'triangle_trained' and papers == miconi.PAPER['triangle_trained']
    for name in ('l1_quadrants', 'l2_quadrants', 'test_accuracy', 'train_accuracy'):
        assert len(row[name]) == 2 and all(0 <= value <= 100 for value in row[name])
    assert max(row['l1_quadrants']) > 60, 'a stripe is easily seen'
    assert max(row['norm_error']) < 1e-6 and row['winners'] == [1, 1, 1]
    assert all(0.2 < share < 0.8 for share in row['nonzero'])
    assert report['config']['features'] == [8, 6, 4] and 'figures' not in report['config']
    drawn = sorted((tmp_path / 'figures').iterdir())
    assert [path.name for path in drawn] == [f'triangle_trained_layer{n}.png' for n in (1, 2, 3)]
    assert '64.55' in capsys.readouterr().out
    assert '| triangle_trained |' in tables.lay_out([report])


def test_seeds_may_come_one_by_one(small_data, tmp_path):
    def learn(*flags):
        path = tmp_path / f'{"_".join(flags)}.json'
        assert run(small_data, '--rows', 'triangle_patches', 'triangle_trained', '--json', path, *flags) == 0
        return json.loads(path.read_text())

    both, first, second = learn(), learn('--seeds', '1'), learn('--seeds', '1', '--first-seed', '1')
    for whole, joined in zip(both['rows'], tables.join_seeds([first, second])):
        for name in ('test_accuracy', 'train_accuracy', 'l1_quadrants', 'l2_quadrants'):
            assert joined[name] == whole[name], name
    assert len({*whole['test_accuracy']}) == 2, 'seeds differ, so that their order tells'


def test_rows_and_seeds_share_programs(small_data, compilations):
    """What reads out a trained network reads out the untrained one; of table 1, 218 programs before they did."""
    jax.clear_caches()
    compilations.clear()
    assert run(small_data, '--rows', 'triangle_untrained', 'triangle_trained') == 0
    assert len(compilations) <= 45


def test_the_twin_learns_end_to_end_what_hebbian_layers_see(small_data, tmp_path, capsys, relaxed):
    flags = [*TINY.replace('8 6 4', '16 16 16').split(), '--rows', 'backprop', '--backprop-epochs', '20']
    assert miconi.main([*flags, '--data-dir', str(small_data), '--json', str(tmp_path / 'twin.json')]) == 0
    report = json.loads((tmp_path / 'twin.json').read_text())
    (row,) = report['rows']
    assert len(row['test_accuracy']) == len(row['validation_accuracy']) == 2 and min(row['test_accuracy']) > 60
    assert row['paper'] is None and len(row['curve']['validation']) <= 20
    make = lambda name: miconi.make_network(miconi.ROWS[name], miconi.Config(), PLAIN)  # noqa: E731
    of_both = [[(one.features, one.window, one.pre) for one in make(name)] for name in ('backprop', 'triangle_trained')]
    assert of_both[0] == of_both[1]
    assert '| backprop |' in tables.lay_out([report]) and 'backprop' in capsys.readouterr().out


def test_ctrl_c_keeps_rows_that_were_finished(small_data, tmp_path, monkeypatch):
    def run_row(row, *args):
        if row == 'triangle_trained':
            raise KeyboardInterrupt
        more = {name: [1.0] for name in ('l1_quadrants', 'l2_quadrants')}
        return miconi.ResultRow(row, [50.0], [60.0], None, more=more)

    monkeypatch.setattr(miconi, 'run_row', run_row)
    assert run(small_data, '--rows', 'winners_2', 'triangle_trained', '--json', tmp_path / 'r.json') == 130
    report = json.loads((tmp_path / 'r.json').read_text())
    assert report['interrupted'] and [row['row'] for row in report['rows']] == ['winners_2']
    assert run(small_data, '--rows', 'triangle_trained') == 130


def test_ablations_name_every_finding_of_the_paper():
    variants = miconi.Config(rows=('default_trained', 'ablations')).variants
    assert list(variants)[:2] == ['default_trained', 'triangle_only'] and len(variants) == 13
    assert len(set(miconi.ROWS.values())) == len(miconi.ROWS)
    for variant in miconi.ROWS.values():  # each makes a network
        net = miconi.make_network(variant, miconi.Config(features=(8, 6, 4)), PLAIN)
        assert [layer.homeostasis is None for layer in net] == [variant.learns != 'winners'] * 3
    assert [miconi.count_winners(miconi.ROWS['winners_200'], features) for features in (100, 400)] == [50, 200]


def test_weights_move_after_the_burn_in_and_untrained_ones_never():
    config = miconi.Config(features=(8, 6, 4), burn_in=1, rate=10.0)
    variant = dataclasses.replace(miconi.ROWS['triangle_trained'], density=0.3)
    images = jax.random.uniform(jax.random.key(1), (10, *SHAPE))
    net = miconi.make_network(variant, config, PLAIN)
    step, states = hebbjax.make_train_step(net), [hebbjax.init(net, jax.random.key(0), SHAPE)]
    for _ in range(2):
        states.append(step(states[-1], images)[0])
    untrained = miconi.make_network(dataclasses.replace(variant, filters='initialised'), config, PLAIN)
    for layer, first, second, third in zip(untrained, *(state.layers for state in states)):
        np.testing.assert_allclose(second.w, first.w, atol=1e-6)
        assert jnp.abs(third.w - first.w).max() > 1e-3
        assert (third.threshold != second.threshold).any()
        np.testing.assert_array_equal(third.w == 0, first.w == 0)  # pruned connections stay away
        assert not layer.tx.update(third.w, layer.tx.init(third.w), third.w)[0].any()

    # layers are read out as the next layer sees them
    layer, *_ = states[-1].layers
    features = miconi.read_layers(net, states[-1].layers, images)
    assert [x.shape for x in features] == [(10, 32), (10, 24), (10, 4)]
    seen = layers.standardise(jax.jit(layers.forward, static_argnums=0)(net[0], layer, images))  # [10, 10, 10, 8]
    np.testing.assert_allclose(features[0][:, :8], seen[:, :5, :5].mean((1, 2)), atol=1e-5)


def test_winners_send_1_and_all_others_0():
    net = miconi.make_network(miconi.ROWS['k_winners_for_both'], miconi.Config(features=(8, 6, 4)), PLAIN)
    u = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    np.testing.assert_array_equal(jax.jit(net[0].post[0])(u).sum(-1), 4)
    assert [layer.homeostasis.winners for layer in net] == [4, 3, 2]


def test_images_are_normalised_whitened_and_normalised(monkeypatch):
    """By the notebook's recipe, fitted to so many normalised images, the first and others in equal steps."""
    asked = {}

    def fit(x, **recipe):
        asked.update(recipe, count=len(x), mean=float(jnp.abs(x.mean((1, 2, 3))).max()), first=x[1])
        return data.Whitening(jnp.zeros(SHAPE), jnp.eye(1))

    monkeypatch.setattr(data, 'fit_whitening', fit)
    images = np.random.default_rng(0).integers(0, 255, (60, *SHAPE)).astype(np.uint8)
    first = miconi.fit_first(images, 30, 'image')
    assert asked.pop('count') == 30 and asked.pop('mean') < 1e-5
    normal = layers.standardise(images[2:3].astype(np.float32) / 255)[0]
    np.testing.assert_allclose(asked.pop('first'), normal, atol=1e-5)
    assert asked == data.WHITENING_SETTINGS['miconi_notebook']
    assert [first['pre'][number] for number in (0, 2)] == [layers.standardise] * 2 and len(first['pre']) == 3


def test_patches_are_normalised_whitened_and_normalised(monkeypatch):
    asked = []
    monkeypatch.setattr(data, 'fit_whitening', lambda x, epsilon: asked.append((x.shape, epsilon)) or 'zca')
    monkeypatch.setattr(data, 'whiten', lambda zca, x: x[:, ::-1] ** 3)
    first = miconi.fit_first(np.random.default_rng(0).integers(0, 255, (30, *SHAPE)).astype(np.uint8), 30, 'patch')
    assert asked == [((30 * 25, 75), 1e-3)] and first['pre'] == (layers.standardise,)
    x = jax.random.uniform(jax.random.key(0), (1, 2, 3, 75))
    rows = layers.standardise(layers.standardise(x.reshape(-1, 75))[:, ::-1] ** 3)
    np.testing.assert_allclose(first['patch_transform'](x), rows.reshape(x.shape), atol=1e-5)


@pytest.mark.parametrize(
    'flags, says',
    [
        ('--burn-in 3', '--burn-in 3 leaves nothing of 3 steps to learn in; use fewer than those.'),
        ('--rows hebbian', "--rows='hebbian' is unknown; there are default_untrained, "),
        ('--seeds 0', '--seeds=0 is out of range; use a whole number from 1 to 1000.'),
        ('--rate 0', '--rate=0.0 is out of range'),
        ('--penalty 0', '--penalty=0.0 is out of range'),
        ('--batch 61', '--batch 61 is larger than the 60 training images'),
        ('--images 10', '--batch 20 is larger than the 10 training images'),
        ('--features 0 8 6', '--features[0]=0 is out of range'),
        ('--json /nowhere/table.json', 'is no folder; make it first'),
        ('--figures /nowhere', 'is no folder; make it first'),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence(flags, says, small_data, refused):
    assert says in refused(miconi.main, [*TINY.split(), '--data-dir', str(small_data), *flags.split()])
