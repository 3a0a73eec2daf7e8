"""The benchmarks: contestants compute the same, what is written holds, bad input is met at the door."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import hebbjax
from hebbjax import cli, layers, learning, patches, plasticity, rules, train, whitening
from hebbjax.jobs import stack, variants

HERE = pathlib.Path(__file__).resolve().parents[1] / 'benchmarks'
sys.path.insert(0, str(HERE))
import amato_layers  # noqa: E402
import cold_start  # noqa: E402
import conv_layer  # noqa: E402
import kills  # noqa: E402
import krotov_mnist  # noqa: E402
import miconi_step  # noqa: E402
import monitors  # noqa: E402
import numpy_baseline  # noqa: E402
import numpy_tries  # noqa: E402
import scaling  # noqa: E402
import timing  # noqa: E402

QUIET = Console(quiet=True)
SMALL = ('--synthetic', '--images', '100', '--batch', '30', '--hidden', '40', '--repetitions', '1')


@pytest.mark.parametrize('p', [2.0, 3.0, 4.5])
@pytest.mark.parametrize('k', [2, 7])
def test_every_contestant_computes_the_librarys_step(k, p, rng):
    x = rng.uniform(size=(50, 60)).astype(np.float32)
    w = rng.normal(size=(30, 60)).astype(np.float32)
    layer = hebbjax.Layer(
        30, rules.krotov(k, 0.4, p), optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(0.02)),
        patch=patches.raw,
    )  # fmt: skip
    state = layers.init(layer, jax.random.key(0), (60, 1, 1), jnp.asarray(w))
    images = jnp.asarray(x).reshape(50, 60, 1, 1)
    ours = learning.learn(layer, jax.random.key(1), state, images)[0].w
    settings = {'k': k, 'delta': 0.4, 'p': p, 'rate': 0.02}
    steps = {
        'published': (numpy_baseline.published, np.float64),
        'published, float32': (numpy_baseline.published, np.float32),
        'best': (numpy_baseline.make_best(30, 60, threads=1), np.float32),
        'best, two threads': (numpy_baseline.make_best(30, 60, threads=2), np.float32),
    }
    for name, (step, dtype) in steps.items():
        theirs = w.astype(dtype)
        step(theirs, x.astype(dtype), **settings)
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=2e-6, err_msg=name)
        assert np.abs(theirs - w).max() > 0.019


def test_every_form_tried_in_numpy_is_right(rng):
    u = rng.normal(size=(30, 50)).astype(np.float32)
    for k in (2, 7):
        right = np.argsort(-u, axis=1)[:, [0, k - 1]].T
        for form in numpy_tries.SELECTIONS.values():
            np.testing.assert_array_equal(form(u, k), right)
    owner, given = rng.integers(0, 9, 40), rng.normal(size=(40, 6)).astype(np.float32)
    right = np.stack([given[owner == i].sum(0) for i in range(12)])
    for form in numpy_tries.ADDITIONS.values():
        dw = np.zeros((12, 6), np.float32)
        form(dw, owner, given)
        np.testing.assert_allclose(dw, right, atol=1e-5)


def test_torch_computes_the_librarys_step(rng):
    torch = pytest.importorskip('torch')
    import torch_baseline

    x, w = rng.uniform(size=(50, 60)).astype(np.float32), rng.normal(size=(30, 60)).astype(np.float32)
    expected = w.astype(np.float64)
    numpy_baseline.published(expected, x.astype(np.float64), k=7, delta=0.4, p=3.0, rate=0.02)
    for step in (torch_baseline.step, torch_baseline.sparse_step):
        found = step(torch.tensor(w), torch.tensor(x), k=7, delta=0.4, p=3.0, rate=0.02)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=2e-6)


def test_the_mnist_benchmark_writes_every_row_once_per_setting(tmp_path):
    file = tmp_path / 'speed.json'
    config = krotov_mnist.Config(
        synthetic=True, images=100, batch=30, hidden=40, k=(7, 2), p=(3.0,), repetitions=2, json=file
    )
    krotov_mnist.run(config, QUIET)
    told = json.loads(file.read_text())
    names = [row['row'] for row in told['rows'] if row['k'] == 7]
    assert names[:5] == ['hebbjax', 'drive_product', 'numpy_published', 'numpy_published_float32', 'numpy_best']
    assert {row['k'] for row in told['rows']} == {2, 7}
    for row in told['rows']:
        assert row['steps'] == 4 and row['repetitions'] == 2  # the last batch of 10 is kept
        assert 0 < row['spread'][0] <= row['seconds_per_step'] <= row['spread'][1]
        assert row['gflop_per_second'] == pytest.approx(2 * 100 * 784 * 40 / 4 / row['seconds_per_step'] / 1e9)
    assert (
        told['config']['batch'] == 30
        and told['config']['data'] == 'synthetic'
        and told['versions']['jax']
        and told['device']
    )


def test_an_epoch_of_the_benchmark_learns_from_every_image():
    config = krotov_mnist.Config(synthetic=True, images=50, batch=20, hidden=10)
    images = jnp.asarray(krotov_mnist.load(config, QUIET)[0])
    turn, seconds = krotov_mnist.hebbjax_epochs(config, 2, 2.0, images)
    assert seconds > 0
    for _ in range(2):
        assert turn()[0].wins.sum() == 50


@pytest.mark.parametrize('shape', conv_layer.SHAPES)
def test_all_forms_of_a_convolutional_step_agree(shape, tmp_path):
    file = tmp_path / 'conv.json'
    conv_layer.run(conv_layer.Config(shapes=(shape,), batch=2, repetitions=1, json=file), QUIET)
    rows = {row['row']: row for row in json.loads(file.read_text())['rows']}
    assert set(rows) == {
        'drive_product', 'patches', 'patches_product', 'convolution', 'hebbjax_step', 'whole_batch_step',
        'weight_gradient_step',
    }  # fmt: skip
    for name, row in rows.items():
        assert row['mebibytes'] > 0
        assert (row['difference'] is not None) == name.endswith('_step')
        assert not name.endswith('_step') or row['difference'] <= 1e-5


def test_forms_that_disagree_are_reported():
    w = jnp.zeros((2, 3))
    with pytest.raises(ArithmeticError, match='other_step differs from hebbjax_step'):
        conv_layer.disagreement(w, {'hebbjax_step': w + 1, 'other_step': w + 1.001})


def test_contestants_take_turns():
    order = []
    turns = {name: lambda name=name: order.append(name) for name in 'ab'}
    seconds = timing.in_turn(turns, 2, QUIET)
    assert order == ['b', 'a', 'a', 'b', 'b', 'a'] or order == ['a', 'b', 'b', 'a', 'a', 'b']
    assert [len(some) for some in seconds.values()] == [2, 2]


def test_scaling_and_starts_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, 'TABLES', {'batch': [(4, 10), (8, 10)], 'patches': [(1, 10)]})
    rows = scaling.run(scaling.Config(tables=('batch', 'patches'), repetitions=1, steps=2), QUIET)
    assert [row.row for row in rows] == ['batch 4 x 10', 'batch 8 x 10', 'patches 1 x 10']
    file = tmp_path / 'start.json'
    cold_start.run(cold_start.Config(repetitions=1, hidden=10, images=20, batch=10, json=file), QUIET)
    cold, warm = json.loads(file.read_text())['rows']
    assert cold['seconds_per_step'] > 0 and warm['cache_bytes'] > 0


@pytest.mark.parametrize(
    'script, flags, says',
    [
        (krotov_mnist, (*SMALL, '--batch', '0'), '--batch 0 measures nothing; use 1 or more'),
        (krotov_mnist, (*SMALL, '--batch', '101'), '--batch 101 is larger than the 100 images'),
        (krotov_mnist, (*SMALL, '--k', '41'), 'k=41 is more than the 40 neurons'),
        (krotov_mnist, (*SMALL, '--k', '1'), 'would punish the winner itself'),
        (krotov_mnist, (*SMALL, '--p', '1'), 'has no norm to converge to'),
        (krotov_mnist, (*SMALL, '--device', 'abacus'), '--device abacus is not there; jax finds cpu'),
        (krotov_mnist, (*SMALL, '--only', 'fortran'), '--only fortran cannot run here; there are hebbjax'),
        (krotov_mnist, (*SMALL, '--precision', 'int4'), "precision 'int4' is unknown"),
        (krotov_mnist, ('--data-dir', '/nowhere'), '/nowhere'),
        (krotov_mnist, (*SMALL, '--json', '/nowhere/a.json'), '/nowhere/a.json cannot be written'),
        (conv_layer, ('--shapes', 'lenet'), '--shapes lenet is unknown; there are talloen, miconi1'),
        (conv_layer, ('--k', '401'), 'k=401 is more than the 400 neurons'),
        (scaling, ('--tables', 'seconds'), '--tables seconds is unknown'),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(script, flags, says, tmp_path, capsys):
    file = tmp_path / 'out.json'
    flags = flags if '--json' in flags else (*flags, '--json', str(file))
    assert cli.run_job(script.Config, script.run, flags, 'benchmark') == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line and line.startswith('benchmark: error: ')
    assert list(tmp_path.iterdir()) == []


def test_miconis_step_is_timed_beside_its_products(tmp_path, capsys):
    flags = ['--batch', '2', '--steps', '1', '--repetitions', '1', '--json', str(tmp_path / 'step.json')]
    assert cli.run_job(miconi_step.Config, miconi_step.run, flags, 'miconi_step.py') == 0
    rows = {row['row']: row for row in json.loads((tmp_path / 'step.json').read_text())['rows']}
    assert {'hebbjax', 'hebbjax_epoch', 'frozen', 'drive_products'} <= set(rows)
    for row in rows.values():
        np.testing.assert_allclose(row['images_per_second'] * row['seconds_per_step'], 2)
    assert rows['drive_products']['fraction_of_product'] == rows['hebbjax']['times_hebbjax'] == 1
    assert 'images/s' in capsys.readouterr().out
    flags = ['--variant', 'nothing']
    assert cli.run_job(miconi_step.Config, miconi_step.run, flags, 'miconi_step.py') == 2
    assert '--variant nothing is unknown; there are default_untrained' in capsys.readouterr().err


def test_the_torch_step_is_miconis():
    """Where torch is installed, its step moves weights and thresholds as ours does."""
    pytest.importorskip('torch')
    import torch_miconi

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    zca = np.eye(3072, dtype=np.float32) + 0.01 * rng.normal(size=(3072, 3072)).astype(np.float32)
    white = whitening.Whitening(jnp.zeros(stack.SHAPE), jnp.asarray(zca + zca.T))
    config = variants.Config(features=(12, 10, 8), burn_in=0)
    net = stack.network(variants.ROWS['triangle_trained'], config, stack.around(white))
    state = train.init(net, jax.random.key(0), stack.SHAPE)
    theirs = torch_miconi.Layers([one.w for one in state.layers])
    torch_miconi.turn([images], theirs, white.matrix)()
    after, _ = train.make_train_step(net)(state, jnp.asarray(images))
    for ours, before, w, threshold in zip(after.layers, state.layers, theirs.w, theirs.thresholds):
        moved = w.detach().permute(0, 2, 3, 1).flatten(1).numpy()
        np.testing.assert_allclose(moved, ours.w, atol=1e-5)
        np.testing.assert_allclose(threshold.flatten(), ours.threshold, atol=1e-5)
        assert np.abs(moved - np.asarray(before.w)).max() > 3e-4


def test_the_cost_of_watching_is_a_ratio_of_the_same_turns(tmp_path):
    file = tmp_path / 'x.json'
    config = monitors.Config(repetitions=1, features=8, images=40, batch=20, synthetic=True, json=file)
    rows = {row.row: row for row in monitors.run(config, QUIET)}
    assert list(rows) == ['not_watched', 'default', 'every_step']
    assert rows['not_watched'].more['times_not_watched'] == 1
    written = json.loads(file.read_text())['rows']
    ratio = rows['every_step'].seconds[0] / rows['not_watched'].seconds[0]
    assert written[2]['times_not_watched'] == pytest.approx(ratio) and rows['default'].steps == 2


def test_a_kill_is_told_where_it_struck(tmp_path):
    config = kills.Config(repetitions=1, epochs=6, longest=0.05, json=tmp_path / 'x.json')
    first, last = kills.run(config, QUIET)
    assert first['identical'] and last['identical'] and last['to_epoch'] == 6
    assert last['from_epoch'] in (first['to_epoch'], first['to_epoch'] - 1)
    assert set(json.loads((tmp_path / 'x.json').read_text())) == {'rows', 'config', 'versions', 'device'}


def test_amatos_layers_learn_alike_in_both_forms(tmp_path):
    file = tmp_path / 'amato.json'
    assert cli.run_job(amato_layers.Config, amato_layers.run,
                       ['--batch', '2', '--repetitions', '1', '--json', str(file)], 'amato_layers.py') == 0  # fmt: skip
    rows = {row['row']: row for row in json.loads(file.read_text())['rows']}
    assert set(rows) == {'four_layers', *(f'layer{n}{form}' for n in (1, 2, 3, 4) for form in ('', '_products'))}
    for row in rows.values():
        assert 0 < row['mebibytes'] < row['process_mebibytes']


def test_layers_that_learn_otherwise_are_reported():
    state = layers.LayerState(jnp.zeros((2, 3)), (), ())
    calls = {'layer1': lambda: (state._replace(w=state.w + 1),), 'layer1_products': lambda: state.w + 1.01}
    with pytest.raises(ArithmeticError, match=r'layer1 differs from layer1_products by 1\.0e-02'):
        amato_layers.check(calls, {'layer1': (None, (None, state), 0.0)})
