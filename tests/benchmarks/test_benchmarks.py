"""The benchmarks: contestants compute the same, what is written holds, bad input is met at the door."""

import contextlib
import dataclasses
import importlib.util
import io
import json
import pathlib
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tyro
from rich.console import Console

from hebbjax import Layer, LayerState, data, layers, rules, training, transforms
from hebbjax.cli.main import run_command

HERE = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks'
QUIET = Console(quiet=True)
SMALL = ('--synthetic', '--images', '100', '--batch', '30', '--hidden', '40', '--repetitions', '1')
sys.path.insert(0, str(HERE))
import accelerator  # noqa: E402
import amato_layers  # noqa: E402
import cold_start  # noqa: E402
import conv_layer  # noqa: E402
import kills  # noqa: E402
import learned_gradient  # noqa: E402
import miconi_cifar10  # noqa: E402
import miconi_step  # noqa: E402
import monitors  # noqa: E402
import numpy_baseline  # noqa: E402
import numpy_tries  # noqa: E402
import records  # noqa: E402
import scaling  # noqa: E402
import scaling_devices  # noqa: E402
import seeds_at_once  # noqa: E402
import streaming  # noqa: E402
import timing  # noqa: E402
import two_processes  # noqa: E402

# under a name of its own, since there is an experiment of that name
spec = importlib.util.spec_from_file_location('krotov_mnist_benchmark', HERE / 'krotov_mnist.py')
sys.modules[spec.name] = krotov_mnist = importlib.util.module_from_spec(spec)
spec.loader.exec_module(krotov_mnist)
sys.path.remove(str(HERE))
SMALL_NET = miconi_cifar10.Config(features=(8, 6, 4), burn_in=0)


def read_rows(file):
    """What a benchmark wrote: name of the row -> row."""
    return {row['row']: row for row in json.loads(file.read_text())['rows']}


# Contestants compute the same


@pytest.mark.parametrize('k, p', [(2, 2.0), (7, 3.0), (2, 4.5)])
def test_every_contestant_computes_the_librarys_step(k, p, rng):
    x = rng.uniform(size=(50, 60)).astype(np.float32)
    w = rng.normal(size=(30, 60)).astype(np.float32)
    tx = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.02))
    step = jax.jit(partial(conv_layer.library_step, Layer(30, rules.krotov(k, 0.4, p), tx)))
    ours = step(jnp.asarray(w), jnp.asarray(x).reshape(50, 60, 1, 1))
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


def test_torch_computes_the_librarys_step(rng, monkeypatch):
    torch = pytest.importorskip('torch')
    monkeypatch.syspath_prepend(HERE)
    import torch_baseline

    x, w = rng.uniform(size=(50, 60)).astype(np.float32), rng.normal(size=(30, 60)).astype(np.float32)
    expected = w.astype(np.float64)
    numpy_baseline.published(expected, x.astype(np.float64), k=7, delta=0.4, p=3.0, rate=0.02)
    for step in (torch_baseline.step, torch_baseline.sparse_step):
        theirs = step(torch.tensor(w), torch.tensor(x), k=7, delta=0.4, p=3.0, rate=0.02)
        np.testing.assert_allclose(theirs.numpy(), expected, rtol=1e-4, atol=2e-6)


def test_the_torch_step_is_miconis(monkeypatch):
    """Where torch is installed, its step moves weights and thresholds as ours does."""
    pytest.importorskip('torch')
    monkeypatch.syspath_prepend(HERE)
    import torch_miconi

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    matrix = np.eye(3072, dtype=np.float32) + 0.01 * rng.normal(size=(3072, 3072)).astype(np.float32)
    zca = data.Whitening(jnp.zeros(miconi_cifar10.SHAPE), jnp.asarray(matrix + matrix.T))
    net = miconi_step.make_network('triangle_trained', SMALL_NET, zca)
    state = layers.init(net, jax.random.key(0), miconi_cifar10.SHAPE)
    theirs = torch_miconi.Layers([layer.w for layer in state.layers])
    torch_miconi.turn([images], theirs, zca.matrix)()
    after, _ = training.make_train_step(net)(state, jnp.asarray(images))
    for ours, before, w, threshold in zip(after.layers, state.layers, theirs.w, theirs.thresholds):
        moved = w.detach().permute(0, 2, 3, 1).flatten(1).numpy()
        np.testing.assert_allclose(moved, ours.w, atol=1e-5)
        np.testing.assert_allclose(threshold.flatten(), ours.threshold, atol=1e-5)
        assert np.abs(moved - np.asarray(before.w)).max() > 3e-4


def test_all_forms_of_a_convolutional_step_agree(tmp_path):
    file = tmp_path / 'conv.json'
    for shape in ('talloen', 'amato'):  # Krotov-Hopfield, and winner-take-all
        conv_layer.run(conv_layer.Config(shapes=(shape,), batch=2, steps=1, repetitions=1, json=file), QUIET)
        rows = read_rows(file)
        assert set(rows) == {
            'drive_product', 'patches', 'patches_product', 'convolution', 'hebbjax_step', 'whole_batch_step',
            'weight_gradient_step',
        }  # fmt: skip
        for name, row in rows.items():
            assert row['mebibytes'] > 0 and row['shape'] == shape
            assert (row['difference'] is not None) == name.endswith('_step')
            assert not name.endswith('_step') or row['difference'] <= 1e-5


def test_amatos_layers_learn_alike_in_both_forms(tmp_path, monkeypatch):
    monkeypatch.setattr(amato_layers, 'LAYERS', (1, 2))  # without and with a teacher
    file = tmp_path / 'amato.json'
    amato_layers.run(amato_layers.Config(batch=2, repetitions=1, json=file), QUIET)
    rows = read_rows(file)
    assert set(rows) == {'four_layers', *(f'layer{n}{form}' for n in (1, 2) for form in ('', '_products'))}
    for row in rows.values():
        assert 0 < row['mebibytes'] < row['process_mebibytes']
    macs = rows['layer1']['gflop_per_second'] * rows['layer1']['seconds_per_step'] / 2 * 1e9
    assert macs == pytest.approx(2 * 28 * 28 * 75 * 96)


def test_forms_that_disagree_are_reported():
    w = jnp.zeros((2, 3))
    with pytest.raises(ArithmeticError, match='other_step differs from hebbjax_step'):
        conv_layer.disagreement(w, {'hebbjax_step': w + 1, 'other_step': w + 1.001})
    state = LayerState(w, (), ())
    calls = {'layer1': lambda: (state._replace(w=w + 1),), 'layer1_products': lambda: w + 1.01}
    with pytest.raises(ArithmeticError, match=r'layer1 differs from layer1_products by 1\.0e-02'):
        amato_layers.check_forms(calls, {'layer1': (None, state)})


# What is written holds


def test_the_mnist_benchmark_writes_every_row_once_per_setting(tmp_path, monkeypatch):
    infos, make_epochs = [], krotov_mnist.hebbjax_epochs

    def recorded(*args):
        turn, seconds = make_epochs(*args)
        assert seconds > 0
        return (lambda: infos.append(turn()) or infos[-1]), seconds

    monkeypatch.setattr(krotov_mnist, 'hebbjax_epochs', recorded)
    file = tmp_path / 'speed.json'
    config = krotov_mnist.Config(
        synthetic=True, images=100, batch=30, hidden=40, k=(7, 2), p=(3.0,), repetitions=2, json=file
    )
    krotov_mnist.run(config, QUIET)
    written = json.loads(file.read_text())
    names = [row['row'] for row in written['rows'] if row['k'] == 7]
    assert names[:5] == ['hebbjax', 'drive_product', 'numpy_published', 'numpy_published_float32', 'numpy_best']
    assert {row['k'] for row in written['rows']} == {2, 7}
    for row in written['rows']:
        assert row['steps'] == 4 and row['repetitions'] == 2  # the last batch of 10 is kept
        assert 0 < row['spread'][0] <= row['seconds_per_step'] <= row['spread'][1]
        assert row['gflop_per_second'] == pytest.approx(2 * 100 * 784 * 40 / 4 / row['seconds_per_step'] / 1e9)
    assert written['config']['batch'] == 30 and written['config']['data'] == 'synthetic'
    assert written['versions']['jax'] and written['device']
    assert [int(info[0].win_counts.sum()) for info in infos] == [100] * 6  # every image, in every epoch


def test_miconis_step_is_timed_beside_its_products(tmp_path, monkeypatch, capsys):
    make_network = miconi_step.make_network
    products, operands, flops = miconi_step.drive_products(make_network('triangle_trained', SMALL_NET, None), 2)
    assert [a.shape for a in operands] == [(1568, 75), (8, 75), (288, 72), (6, 72), (32, 54), (4, 54)]
    assert flops == 2 * (1568 * 75 * 8 + 288 * 72 * 6 + 32 * 54 * 4)
    assert [u.shape for u in jax.eval_shape(products, *operands)] == [(1568, 8), (288, 6), (32, 4)]
    # what is timed is the same for small images and one layer
    monkeypatch.setattr(miconi_step, 'make_network', lambda *args: make_network(*args)[:1])
    monkeypatch.setattr(miconi_step, 'SHAPE', (16, 16, 3))
    monkeypatch.setattr(miconi_step, 'SETTINGS', SMALL_NET)
    flags = ['--batch', '2', '--steps', '1', '--repetitions', '1', '--json', str(tmp_path / 'step.json')]
    assert run_command(miconi_step.Config, miconi_step.run, flags, 'miconi_step.py') == 0
    rows = read_rows(tmp_path / 'step.json')
    assert {'hebbjax', 'hebbjax_epoch', 'frozen', 'drive_products'} <= set(rows)
    for row in rows.values():
        np.testing.assert_allclose(row['images_per_second'] * row['seconds_per_step'], 2)
    assert rows['drive_products']['fraction_of_product'] == rows['hebbjax']['times_hebbjax'] == 1
    assert 'images/s' in capsys.readouterr().out


def test_contestants_take_turns():
    order = []
    turns = {name: lambda name=name: order.append(name) for name in 'ab'}
    seconds = timing.in_turn(turns, 2, QUIET)
    assert order == ['b', 'a', 'a', 'b', 'b', 'a'] or order == ['a', 'b', 'b', 'a', 'a', 'b']
    assert [len(some) for some in seconds.values()] == [2, 2]


def test_scaling_is_measured(monkeypatch):
    monkeypatch.setattr(scaling, 'TABLES', {'batch': [(4, 10)], 'patches': [(1, 10)], 'hidden': []})
    rows = scaling.run(scaling.Config(tables=('batch', 'patches'), repetitions=1, steps=2), QUIET)
    assert [row.row for row in rows] == ['batch 4 x 10', 'patches 1 x 10']
    assert [scaling.drives_per_step(row) for row in rows] == [40, 5760]


@pytest.mark.skipif(jax.device_count() < 2, reason='needs two devices, virtual ones do')
def test_what_is_divided_over_devices_is_told_by_the_programs(tmp_path, relaxed):
    file = tmp_path / 'x.json'
    how = {'devices': (1, 2), 'batch': 4, 'neurons': 2, 'repetitions': 1, 'json': file}
    scaling_devices.run(scaling_devices.Config(programs=('features', 'gradient'), **how), QUIET)
    rows = read_rows(file)
    assert rows['features on 1']['flops_of_one'] == 1 and rows['features on 2']['flops_of_one'] == pytest.approx(
        0.5, abs=0.01
    )
    assert rows['features on 2']['collectives'] == 0 < rows['gradient on 2']['collectives']


def test_many_seeds_are_timed_and_repeat(tmp_path, monkeypatch):
    make_network = seeds_at_once.make_network
    monkeypatch.setattr(seeds_at_once, 'make_network', lambda *args: make_network(*args)[:1])
    monkeypatch.setattr(seeds_at_once, 'SHAPE', (16, 16, 3))
    monkeypatch.setattr(seeds_at_once, 'SETTINGS', SMALL_NET)
    config = seeds_at_once.Config(repetitions=1, seeds=(2,), batch=2, steps=1, json=tmp_path / 'x.json')
    seeds_at_once.run(config, QUIET)
    row = read_rows(tmp_path / 'x.json')['2 seeds']
    assert row['identical'] and row['images_per_second'] == pytest.approx(4 / row['seconds_per_step'])


def test_an_accelerators_rows_are_written_part_by_part(tmp_path, monkeypatch):
    outcomes = {
        'conv_layer': {'rows': [{'row': 'a'}], 'date': 'today'},
        'seeds': 'no torch',
        'miconi_step': {'rows': []},
    }
    monkeypatch.setattr(accelerator, 'run_part', lambda name, *_: outcomes[name])
    file = tmp_path / 'x.json'
    config = accelerator.Config(device='cpu', json=file, parts=tuple(outcomes))
    assert accelerator.run(config, QUIET) == [{'row': 'conv_layer: a'}]
    assert json.loads(file.read_text()) == {
        'rows': [{'row': 'conv_layer: a'}],
        'date': 'today',
        'config': {'seconds': 240},
    }
    with pytest.raises(ValueError, match='no part could run'):
        accelerator.run(dataclasses.replace(config, seconds=1), QUIET)


@pytest.mark.parametrize('name', accelerator.PARTS)
def test_an_accelerators_parts_are_flags_that_benchmarks_take(name):
    script, *flags = accelerator.PARTS[name]
    module = {'krotov_mnist.py': krotov_mnist}.get(script) or sys.modules[script.removesuffix('.py')]
    assert tyro.cli(module.Config, args=[*flags, '--device', 'gpu', '--json', 'x.json']).device == 'gpu'


def test_starts_are_measured(tmp_path, monkeypatch, capsys):
    """The first start, which fills the cache, is a process; what it does is done here once more."""
    monkeypatch.setitem(sys.modules, 'krotov_mnist', krotov_mnist)
    start, caches = cold_start.start, []

    def start_here(config, *cache):
        caches.append(cache)
        if len(caches) == 1:
            return start(config, *cache)
        return float(len(caches))

    monkeypatch.setattr(cold_start, 'start', start_here)
    file = tmp_path / 'start.json'
    cold_start.run(cold_start.Config(repetitions=1, hidden=10, images=20, batch=10, json=file), QUIET)
    (filling,), cold, (warm,) = caches
    assert filling == warm and cold == ()
    rows = read_rows(file)
    assert [rows[name]['seconds_per_step'] for name in ('cold_start', 'warm_start')] == [2, 3]
    assert rows['warm_start']['cache_bytes'] > 0
    cold_start.child('10', '10', '20')
    reading, epoch = map(float, capsys.readouterr().out.split())
    assert reading > 0 and epoch > 0


def test_processes_are_started_on_the_device_that_is_named(monkeypatch):
    found = []

    def run(command, env, **how):
        found.append(env.get('JAX_PLATFORMS'))
        return subprocess.CompletedProcess(command, 0, '0 0', '')

    monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
    monkeypatch.setattr(cold_start.subprocess, 'run', run)
    for device in (None, 'gpu'):
        cold_start.start(cold_start.Config(device=device))
        assert kills.Config(device=device).environment['JAX_PLATFORMS'] == found[-1]
    assert found == ['cpu', 'gpu']


def test_the_cost_of_watching_is_a_ratio_of_the_same_turns(tmp_path, monkeypatch):
    monkeypatch.delitem(monitors.WATCHES, 'every_step')
    file = tmp_path / 'x.json'
    config = monitors.Config(repetitions=1, features=8, images=40, batch=20, synthetic=True, json=file)
    rows = {row.row: row for row in monitors.run(config, QUIET)}
    assert list(rows) == ['not_watched', 'default']
    assert rows['not_watched'].more['times_not_watched'] == 1
    ratio = rows['default'].seconds[0] / rows['not_watched'].seconds[0]
    assert read_rows(file)['default']['times_not_watched'] == pytest.approx(ratio) and rows['default'].steps == 2


def test_parts_are_timed_beside_the_array_and_their_memory_is_told(tmp_path):
    file = tmp_path / 'x.json'
    config = streaming.Config(
        repetitions=1, features=3, images=80, parts=4, batch=10, epochs=2, folder=tmp_path, json=file
    )
    streaming.run(config, QUIET)
    rows = read_rows(file)
    assert [row['steps'] for row in rows.values()] == [16] * 3 and rows['resident']['times_resident'] == 1
    assert rows['parts']['allowed_mebibytes'] == pytest.approx(40 * 32 * 32 * 3 / 2**20)
    assert [path.name for path in tmp_path.iterdir()] == ['x.json']
    with pytest.raises(ValueError, match='--images 80 make no 3 equal parts'):
        streaming.run(dataclasses.replace(config, parts=3), QUIET)


def test_gradients_through_learning_are_measured_beside_the_learning(tmp_path):
    file = tmp_path / 'x.json'
    config = learned_gradient.Config(repetitions=1, features=3, side=8, batch=2, steps=4, timed=2, json=file)
    learned_gradient.run(config, QUIET)
    rows = read_rows(file)
    assert [row['steps'] for row in rows.values()] == [1, 2, 2, 2, 2]
    assert rows['training']['times_training'] == rows['one_step']['times_memory_of_a_step'] == 1
    memory = {name: row['temporary_mebibytes'] for name, row in rows.items()}
    assert 0 < memory['one_step'] <= memory['gradient'] < memory['gradient_not_rematerialised']


def test_a_kill_is_told_where_it_struck(tmp_path, monkeypatch):
    """What is killed is a process; what is left alone, before it and after it, trains here."""
    start = kills.start

    def start_here(folder, epochs, kill_after=None, beyond='from', env=None):
        if kill_after is not None:
            return start(folder, epochs, kill_after, beyond, env)
        folder.mkdir(exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            kills.child(str(folder), str(epochs))
        return [line.split() for line in printed.getvalue().splitlines()]

    monkeypatch.setattr(kills, 'start', start_here)
    config = kills.Config(repetitions=1, epochs=3, longest=0.05, json=tmp_path / 'x.json')
    killed, last = kills.run(config, QUIET)
    assert killed['identical'] and last['identical'] and last['to_epoch'] == 3
    assert last['from_epoch'] in (killed['to_epoch'], killed['to_epoch'] - 1)
    assert set(json.loads((tmp_path / 'x.json').read_text())) == {'rows', 'config', 'versions', 'device'}


def test_the_records_are_what_the_results_give():
    text = records.DOCUMENT.read_text()
    assert records.fill_tables(text) == text and text.count('<!-- table: ') > 5
    assert (records.main(['--help']), records.main(['all'])) == (0, 2)


# Bad input


@pytest.mark.parametrize(
    'script, flags, says',
    [
        (krotov_mnist, (*SMALL, '--batch', '0'), '--batch 0 measures nothing; use 1 or more'),
        (krotov_mnist, (*SMALL, '--batch', '101'), '--batch 101 is larger than the 100 images'),
        (krotov_mnist, (*SMALL, '--k', '41'), 'k=41 is more than the 40 neurons'),
        (krotov_mnist, (*SMALL, '--k', '1'), 'k=1 is out of range'),
        (krotov_mnist, (*SMALL, '--p', '1'), 'p=1.0 is out of range'),
        (krotov_mnist, (*SMALL, '--device', 'abacus'), '--device abacus is not there; jax finds cpu'),
        (krotov_mnist, (*SMALL, '--only', 'fortran'), '--only fortran cannot run here; there are hebbjax'),
        (
            krotov_mnist,
            (*SMALL, '--precision', 'int4'),
            "precision='int4' is unknown; there are highest, float32x3, tensorfloat32, bfloat16",
        ),
        (krotov_mnist, ('--data-dir', '/nowhere'), '/nowhere'),
        (krotov_mnist, (*SMALL, '--json', '/nowhere/a.json'), '/nowhere/a.json cannot be written'),
        (conv_layer, ('--shapes', 'lenet'), '--shapes lenet is unknown; there are talloen, miconi1'),
        (conv_layer, ('--k', '401'), 'k=401 is more than the 400 neurons'),
        (conv_layer, ('--shapes', 'miconi1', 'amato', '--k', '97'), 'k=97 is more than the 96 neurons'),  # of the last
        (krotov_mnist, (*SMALL, '--p', '2', '1'), 'p=1.0 is out of range'),
        (krotov_mnist, (*SMALL, '--k', '2', '0'), '--k 0 measures nothing'),
        (numpy_tries, ('--hidden', '3', '--k', '7'), 'k=7 is more than the 3 neurons'),
        (
            streaming,
            ('--images', '40', '--parts', '4', '--batch', '6'),
            '--batch 6 does not divide the 10 images of a part',
        ),
        (miconi_step, ('--variant', 'nothing'), '--variant nothing is unknown; there are default_untrained'),
        (scaling, ('--tables', 'seconds'), '--tables seconds is unknown'),
        (scaling, ('--tables',), '--tables names nothing; name one or more, or leave it out'),
        (monitors, ('--synthetic', '--images', '10', '--batch', '20'), '--batch 20 is larger than the 10 images'),
        (two_processes, ('--images', '9', '--batch', '2'), '--images 9 does not divide over two processes'),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(script, flags, says, tmp_path, capsys):
    file = tmp_path / 'out.json'
    flags = flags if '--json' in flags else (*flags, '--json', str(file))
    assert run_command(script.Config, script.run, flags, 'benchmark') == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line and line.startswith('benchmark: error: ')
    assert list(tmp_path.iterdir()) == []
