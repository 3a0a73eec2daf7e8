"""The kernel network and the dictionary on a few images: rows, JSON, pictures, and what does not fit."""

import json

import dictionary_cifar10
import jax
import jax.numpy as jnp
import kernel_cifar10 as script
import numpy as np
import pytest
from safetensors.numpy import load_file

from hebbjax import data, init, interop, layers, readout
from hebbjax.support import checks
from hebbjax.training import presets

TINY = '--seeds 1 --epochs 1 --neurons 6 8 --batch 10 --shown 30 --patches 8 --whitening-images 30'
DICTIONARY = '--seeds 1 --epochs 1 --neurons 8 --batch 10 --shown 30 --patches 8'


@pytest.fixture(autouse=True)
def unwhitened(monkeypatch):
    """Whitening, which is tested where it belongs, does nothing."""
    monkeypatch.setattr(data, 'fit_whitening', lambda x, **how: data.Whitening(jnp.zeros(x.shape[1:]), jnp.eye(1)))
    monkeypatch.setattr(data, 'whiten', lambda zca, x: x)


@pytest.mark.parametrize('head', ['ridge', 'softmax'])
def test_rows_are_printed_written_and_drawn(head, small_data, tmp_path, capsys):
    files = '--json', str(tmp_path / 'r.json'), '--figure', str(tmp_path / 'f.png')
    flags = [*TINY.split(), '--data-dir', str(small_data), '--rows', 'learned', 'patches', '--head', head, *files]
    assert script.main(flags) == 0
    report = json.loads((tmp_path / 'r.json').read_text())
    rows = {row['row']: row for row in report['rows']}
    assert [*rows] == ['learned', 'patches'] and report['config']['neurons'] == [6, 8]
    for row in rows.values():
        assert row['test_accuracy'][0] > 60, 'a stripe is easily seen'
        assert len(row['readout_seconds']) == 1 and 0 <= row['win_entropy'][0] <= 1
        assert [penalty for penalty, _ in row['penalties'][0]] == report['config']['penalties']
    assert rows['learned']['test_accuracy'] and rows['learned']['win_entropy'] != rows['patches']['win_entropy']
    assert (tmp_path / 'f.png').read_bytes().startswith(b'\x89PNG')
    assert 'learned, seed 0: validation' in capsys.readouterr().out


def test_features_of_softhebb_stand_beside(small_data, tmp_path):
    net, path = presets.softhebb_network(), tmp_path / 'softhebb.safetensors'
    interop.save_weights(path, net, init(net, jax.random.key(0), (24, 24, 3)).layers)
    flags = [*TINY.split(), '--rows', 'learned', '--no-flips', '--data-dir', str(small_data)]
    assert script.main([*flags, '--beside', str(path), str(path), '--json', str(tmp_path / 'r.json')]) == 0
    report = json.loads((tmp_path / 'r.json').read_text())
    (row,) = report['rows']
    assert report['config']['beside'] == [path.name] * 2
    assert row['test_accuracy'][0] > 60 and row['paper'] is None  # the paper's is of one network
    alone, beside = (script.Config(neurons=(6, 8), first_layer=True, beside=paths) for paths in ((), (path, path)))
    own = script.make_network(alone, (), 200)
    states = init(own, jax.random.key(0), (24, 24, 3)).layers
    images = jax.random.uniform(jax.random.key(1), (3, 24, 24, 3))
    without, found = (script.read_layers(config, (24, 24, 3))(own, states, images) for config in (alone, beside))
    maps = layers.activations_of(net, init(net, jax.random.key(0), (24, 24, 3)).layers, images)
    above = readout.quadrants(layers.standardise(maps))
    np.testing.assert_array_equal(found[:, : without.shape[1]], without)
    np.testing.assert_allclose(found[:, without.shape[1] :], jnp.concatenate([above, above], 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('first', [False, True])
def test_the_first_layer_is_read_out_by_means_of_blocks(first):
    config = script.Config(neurons=(6, 8), first_layer=first)
    net = script.make_network(config, (), 200)
    states, images = (
        init(net, jax.random.key(0), (32, 32, 3)).layers,
        jax.random.uniform(jax.random.key(1), (3, 32, 32, 3)),
    )
    maps = np.asarray(layers.activations_of(net[:1], states[:1], images))  # [3, 16, 16, 6]
    means = np.stack([maps[:, i : i + 4, j : j + 4].mean((1, 2)) for i in range(0, 16, 4) for j in range(0, 16, 4)], 1)
    expected = layers.standardise(jnp.asarray(means.reshape(3, -1)))
    above = layers.features(net, states, images)
    mesh = jax.make_mesh((2,), ('data',)) if first else None
    found = script.read_layers(config, (32, 32, 3))(net, states, images, mesh=mesh)
    np.testing.assert_allclose(found[:, : above.shape[1]], above, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[:, above.shape[1] :], expected[:, : first * 96], rtol=1e-4, atol=1e-4)


def test_more_features_than_memory_holds_are_refused_before_learning(small_data, refused, monkeypatch):
    """Room for the second layer's 3 x 3 positions of 8 neurons, and not for 3 x 3 blocks of the first one's 6."""
    monkeypatch.setattr(checks, 'host_memory', lambda: 16 * 100**2)
    monkeypatch.setattr(script.winners.comparison, 'learn', None)
    said = refused(script.main, [*TINY.split(), '--data-dir', str(small_data), '--first-layer'])
    assert 'learned: ridge regression on 126 features takes' in said


@pytest.mark.parametrize('rows', ['learned', 'patches'])
def test_both_layers_tell_what_they_see(rows, small_data, tmp_path):
    flags = [*TINY.split(), '--rows', rows, '--first-layer', '--data-dir', str(small_data)]
    assert script.main([*flags, '--json', str(tmp_path / 'r.json')]) == 0
    (row,) = json.loads((tmp_path / 'r.json').read_text())['rows']
    assert row['test_accuracy'][0] > 60 and row['paper'] is None  # the paper's is of the second layer


@pytest.mark.parametrize(
    'flags, says',
    [
        ('--first-layer --strides 9 1', 'layer 1: avg_pool(4) does not fit maps of 3 x 3; use a smaller one'),
        ('--batch 500', '--batch 500 is larger than the 30 images learned from; use 30 at most'),
        ('--sigma 0', '--sigma=0.0 is out of range'),
        ('--rows backprop', '--rows'),
        ('--beside nowhere.safetensors', 'nowhere.safetensors'),
        ('--neurons 0 8', '--neurons[0]=0 is out of range'),
    ],
)
def test_what_does_not_fit_is_refused(flags, says, small_data, refused):
    assert says in refused(script.main, [*TINY.split(), '--data-dir', str(small_data), *flags.split()])


def test_a_gaussian_larger_than_the_maps_is_refused(small_data, refused):
    said = refused(script.main, [*TINY.split(), '--data-dir', str(small_data), '--strides', '2', '6'])
    assert 'layer 2: gauss_pool(6) looks at 13 x 13 positions, and maps are 12 x 12; use a smaller one' in said


@pytest.mark.parametrize('send', ['sigmoid', 'nearest'])
def test_a_dictionary_is_learned_read_out_and_drawn(send, small_data, tmp_path, monkeypatch):
    monkeypatch.undo()  # patches are whitened
    files = '--json', str(tmp_path / 'r.json'), '--figure', str(tmp_path / 'f.png'), '--weights', str(tmp_path)
    flags = [*DICTIONARY.split(), '--data-dir', str(small_data), '--rows', 'learned', 'patches', '--send', send, *files]
    assert dictionary_cifar10.main(flags) == 0
    rows = {row['row']: row for row in json.loads((tmp_path / 'r.json').read_text())['rows']}
    assert [*rows] == ['learned', 'patches'] and all(row['test_accuracy'][0] > 60 for row in rows.values())
    assert (tmp_path / 'f.png').read_bytes().startswith(b'\x89PNG')
    w, cut = (load_file(tmp_path / f'{row}_0.safetensors')['layer_0.kernel'] for row in rows)
    assert w.shape == (6, 6, 3, 8) and np.abs(w - cut).max() > 0.01
    np.testing.assert_allclose(np.sqrt((w**2).sum((0, 1, 2))), 1, rtol=1e-5)


@pytest.mark.parametrize(
    'flags, says',
    [
        ('--share 1', '--share=1.0 is out of range'),
        ('--send relu', '--send'),
        ('--block 20', 'avg_pool(20) does not fit maps of 19 x 19; use a smaller one'),
        ('--batch 500', '--batch 500 is larger than the 30 images learned from; use 30 at most'),
    ],
)
def test_a_dictionary_that_does_not_fit_is_refused(flags, says, small_data, refused):
    assert says in refused(
        dictionary_cifar10.main, [*DICTIONARY.split(), '--data-dir', str(small_data), *flags.split()]
    )
