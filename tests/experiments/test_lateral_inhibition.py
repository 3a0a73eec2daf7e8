"""Each part of the experiment on lateral inhibition, small: what tells its rows apart, and what is measured."""

import json

import jax
import lateral
import numpy as np
import pytest
import tables

from hebbjax import layers, rules


def run(folder, flags, tmp_path):
    """The rows of a report, by their names, and the picture's first bytes."""
    files = tmp_path / 'r.json', tmp_path / 'f.png'
    flags = [*flags.split(), '--data-dir', str(folder), '--json', str(files[0]), '--figure', str(files[1])]
    assert lateral.main(flags) == 0
    report = json.loads(files[0].read_text())
    assert files[1].read_bytes().startswith(b'\x89PNG') and '| lateral |' in tables.lay_out([report])
    return {row['row']: row['measures'] for row in report['rows']}


def test_bars_come_apart_with_inhibition_alone(tmp_path, small_data):
    rows = run(small_data, '--part bars --seeds 1 --side 4 --images 10000 --epochs 10', tmp_path)
    units = {row: measures['bars of 8 with a unit'][0] for row, measures in rows.items()}
    assert units['lateral'] == 8 and units['none'] <= 1
    assert rows['lateral']['bars of 8 with a field'] == [8]
    assert rows['winner_takes_all']['active units per image'] == [1.0]


@pytest.mark.parametrize('part, rows', [('whitened', ['lateral', 'none']), ('subspace', ['lateral', 'none', 'sanger'])])
def test_patches_are_measured_before_and_after(part, rows, tmp_path, small_data):
    measured = run(small_data, f'--part {part} --seeds 1 --epochs 20', tmp_path)
    assert list(measured) == rows and all(len(values) == 1 for row in measured.values() for values in row.values())
    before, after = (np.mean(list(measured['lateral'].values())[n]) for n in (0, 1))
    assert after < before  # of 60 images, in 20 steps


def test_what_is_measured_is_what_it_says(rng):
    y = rng.normal(size=(1000, 1))
    assert lateral.correlation(np.concatenate([y, -2 * y], 1)) == pytest.approx(1)
    x = rng.normal(size=(500, 3)) * [5.0, 2.0, 0.1]
    components = np.linalg.svd(x - x.mean(0), full_matrices=False)[2]
    state = lambda w: layers.LayerState(w, (), ())  # noqa: E731
    assert lateral.principal_angle(state(np.array([[1.0, 2], [3, -1]]) @ components[:2]), x) < 1e-6
    assert lateral.principal_angle(state(components[[0, 2]]), x) == pytest.approx(np.pi / 2)
    turned = np.stack([components[0], np.cos(0.01) * components[1] + np.sin(0.01) * components[2]])
    assert lateral.principal_angle(state(turned), x) == pytest.approx(0.01)
    inhibited = state(turned)._replace(lateral=np.array([[0, 0.5], [0.2, 0]]))
    np.testing.assert_allclose((np.eye(2) + inhibited.lateral) @ lateral.neural_filters(inhibited), turned)
    assert lateral.count_pairs(np.eye(4)[[2, 0, 0]], np.eye(4)[:3]) == 2
    images, there = lateral.draw_bars(jax.random.key(0), 400, 4)
    assert abs(there.mean() - 1 / 8) < 0.02
    np.testing.assert_array_equal(images[..., 0], np.maximum(there[:, :4, None], there[:, None, 4:]))


def test_rows_differ_in_what_they_say():
    config = lateral.Config(side=4)
    with_m, without, wins = (lateral.bar_layer(config, row) for row in ('lateral', 'none', 'winner_takes_all'))
    assert with_m.lateral.target == 1 / 8 and without.lateral is wins.lateral is None
    assert with_m.features == without.features == 8 and wins.rule == rules.instar(1)
    assert with_m.lateral.activation is without.post[0] is lateral.fire


def test_a_part_that_there_is_not_is_refused(refused):
    assert "--part='faces' is unknown; there are whitened, subspace, bars." in refused(
        lateral.main, ['--part', 'faces']
    )
