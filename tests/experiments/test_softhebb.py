"""SoftHebb's script on a few images, and what it leaves for margins: rows, weights, JSON, pictures, refusals."""

import json

import jax
import margins
import numpy as np
import pytest
import softhebb_cifar10 as softhebb
import tables

import hebbjax
from hebbjax import data, interop
from hebbjax.training import comparison, presets

SMALL = ['--features', '4', '6', '8', '--seeds', '1', '--batch', '5', '--settling', '20', '--validation', '0.2']
SMALL += ['--head-epochs', '2', '--head-batch', '10']
NEURONS = '--neurons 4 --seeds 2 --epochs 1 --batch 10 --patches 4 --validation 0.2'


def test_rows_weights_and_margins_of_depth(small_data, relaxed, tmp_path, monkeypatch, refused, capsys):
    files = '--weights', str(tmp_path), '--json', str(tmp_path / 'r.json'), '--figure', str(tmp_path / 'f.png')
    assert softhebb.main([*SMALL, '--data-dir', str(small_data), '--rows', 'learned', *files]) == 0
    report = json.loads((tmp_path / 'r.json').read_text())
    assert [row['row'] for row in report['rows']] == ['learned'] and report['rows'][0]['paper'] == 80.3
    assert len(report['rows'][0]['curve']['train']) == 2 == report['rows'][0]['epoch'][0]  # the last is kept
    assert (tmp_path / 'f.png').read_bytes().startswith(b'\x89PNG')
    assert '| learned |' in tables.lay_out([report])

    net = presets.softhebb_network((4, 6, 8))
    first = hebbjax.init(net, jax.random.split(jax.random.key(0))[0], (24, 24, 3)).layers
    learned = interop.load_weights(tmp_path / 'learned_0.safetensors', net, first)
    for own, drawn in zip(learned, first):
        lengths, before = (np.linalg.norm(state.w, axis=1) for state in (own, drawn))
        assert np.abs(lengths - 1).mean() < np.abs(before - 1).mean()  # rows shrink towards length 1

    flags = ['--axis', 'depth', '--rows', 'learned', '--features', '4', '6', '8', '--seeds', '1']
    flags += ['--weights', str(tmp_path), '--data-dir', str(small_data), '--validation', '0.2', '--batch', '5']
    assert margins.main([*flags, '--json', str(tmp_path / 'm.json'), '--figure', str(tmp_path / 'm.png')]) == 0
    report = json.loads((tmp_path / 'm.json').read_text())
    places = [(row['kind'], row['at']) for row in report['rows']]
    assert places == [('learned', depth) for depth in (1, 2, 3)]
    assert (tmp_path / 'm.png').read_bytes().startswith(b'\x89PNG')
    assert '| depth | learned, test % |' in tables.lay_out([report])

    flags = [*flags[4:], '--axis', 'labels', '--labels', '15', '--twin-steps', '2', '--rows', 'learned', 'backprop']
    assert margins.main([*flags, '--json', str(tmp_path / 'l.json')]) == 0
    report = json.loads((tmp_path / 'l.json').read_text())
    assert [(row['kind'], row['at']) for row in report['rows']] == [('learned', 15), ('backprop', 15)]
    assert {row['network'] for row in report['rows']} == {'SoftHebb'}
    monkeypatch.setattr(comparison, 'judge', lambda *args: pytest.fail('one was read out before another was missed'))
    flags[flags.index('--seeds') + 1] = '2'
    assert 'learned_1.safetensors' in refused(margins.main, flags)


def test_margins_over_neurons(small_data, tmp_path, monkeypatch):
    monkeypatch.setattr(data, 'fit_whitening', lambda x, **how: data.Whitening(np.zeros(x.shape[1:]), np.eye(1)))
    monkeypatch.setattr(data, 'whiten', lambda zca, x: x)
    flags = NEURONS.split()
    assert margins.main([*flags, '--data-dir', str(small_data), '--json', str(tmp_path / 'n.json')]) == 0
    report = json.loads((tmp_path / 'n.json').read_text())
    assert [(row['kind'], row['at']) for row in report['rows']] == [
        (kind, 4) for kind in ('learned', 'patches', 'gaussian')
    ]
    assert all(len(row['test_accuracy']) == 2 for row in report['rows'])


def test_margins_over_labels_and_depth_of_a_kernel_network(small_data, relaxed, tmp_path, monkeypatch):
    monkeypatch.setattr(data, 'fit_whitening', lambda x, **how: data.Whitening(np.zeros(x.shape[1:]), np.eye(1)))
    monkeypatch.setattr(data, 'whiten', lambda zca, x: x)
    shared = ['--kernel', '4', '6', '--seeds', '1', '--epochs', '1', '--batch', '10', '--validation', '0.2']
    shared += ['--data-dir', str(small_data), '--rows', 'learned']
    flags = ['--axis', 'depth', *shared, 'gaussian', '--json', str(tmp_path / 'd.json')]
    assert margins.main(flags) == 0
    report = json.loads((tmp_path / 'd.json').read_text())
    places = [(row['kind'], row['axis'], row['at']) for row in report['rows']]
    assert places == [(kind, 'depth', depth) for kind in ('learned', 'gaussian') for depth in (1, 2)]
    flags = [*shared, 'backprop', '--axis', 'labels', '--labels', '15', '--twin-steps', '2', '--penalties', '2', '5']
    assert margins.main([*flags, '--json', str(tmp_path / 'l.json'), '--figure', str(tmp_path / 'l.png')]) == 0
    report = json.loads((tmp_path / 'l.json').read_text())
    assert [(row['kind'], row['axis']) for row in report['rows']] == [('learned', 'labels'), ('backprop', 'labels')]
    assert [penalty for penalty, _ in report['rows'][0]['penalties'][0]] == report['config']['penalties'] == [2.0, 5.0]
    assert (tmp_path / 'l.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    'script, flags, says',
    [
        (softhebb, '--batch 500', '--batch 500 is larger than the 48 training images'),
        (softhebb, '--rows random', '--rows'),
        (softhebb, '--weights nowhere', '--weights nowhere is no folder; make it first'),
        (softhebb, '--dataset imagenet', '--dataset'),
        (softhebb, '--rows', 'no network is named; there are learned, patches'),
        (softhebb, '--settling 4', 'patches: batch=5 is out of range; use a whole number from 1 to 4'),
        (margins, '--axis depth --rows learned backprop', '--axis depth has no backprop but one of --weights'),
        (margins, '--rows backprop', '--axis neurons has no backprop but one of --weights'),
        (margins, '--weights .', '--weights are read for --axis depth and labels; leave them out, or name the axis.'),
        (margins, '--neurons', '--rows, --neurons, --labels and --penalties name one or more each.'),
        (margins, '--json x.png --figure x.png', 'one file is named for two results; give each its own.'),
        (margins, '--axis depth --weights nowhere', 'give one that softhebb_cifar10.py wrote'),
        (margins, '--axis width', '--axis'),
        (margins, '--axis labels --labels 500 --validation 0.2 --batch 10', 'per_class=500 is more labels than class'),
    ],
)
def test_what_does_not_fit_is_refused(script, flags, says, small_data, refused):
    own = SMALL if script is softhebb else []
    assert says in refused(script.main, [*own, '--data-dir', str(small_data), *flags.split()])
