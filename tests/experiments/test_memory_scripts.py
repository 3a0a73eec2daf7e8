"""Rules with memory: the three scripts on little, and what they measure."""

import json

import bcm_selectivity as bcm
import numpy as np
import pytest
import tables
import trace_bars as bars
import trace_digits as digits


def report_of(script, flags, folder):
    """Run a script, and give its rows: row -> heading -> values; tables can be made of them, and a picture is there."""
    files = folder / 'r.json', folder / 'f.png'
    assert script.main([*flags.split(), '--json', str(files[0]), '--figure', str(files[1])]) == 0
    report = json.loads(files[0].read_text())
    assert files[1].read_bytes().startswith(b'\x89PNG') and tables.lay_out([report]).count('\n|') >= 4
    return {row['row']: row['measures'] for row in report['rows']}


def test_bars_are_told_apart_by_orientation_through_a_trace(tmp_path):
    rows = report_of(bars, '--seeds 1 --sweeps 400', tmp_path)
    assert rows['trace']['bits of orientation'] == [2] and rows['trace']['bits of position'] == [0]
    assert rows['no_trace']['bits of orientation'][0] < 1.5


def test_bits_and_invariance_are_what_they_say():
    """Winners by orientation, by position, and two orientations under one neuron."""
    o, p = np.indices((4, 8))
    measured = [bars.measure(np.eye(8)[winner]) for winner in (o, p, o // 2)]
    assert [m['bits of orientation'] for m in measured] == pytest.approx([2, 0, 1])
    assert [m['bits of position'] for m in measured] == pytest.approx([0, 3, 0])
    assert [m['invariant orientations %'] for m in measured] == [100, 0, 0]
    drawn = bars.draw_bars()
    assert drawn.sum((2, 3, 4)).min() >= 4 and not (drawn.sum(1) > 1).any()  # no two positions share a cell


def test_bcm_becomes_selective_where_oja_does_not(tmp_path):
    rows = report_of(bcm, '--seeds 1 --steps 800 --cosines 0.3 --patterns 3 --inputs 6', tmp_path)
    selective = {row: values['selectivity at cosine 0.3'][0] for row, values in rows.items()}
    assert selective['bcm'] > 0.6 > 0.4 > selective['untrained'] > selective['oja']
    x = np.asarray(bcm.draw_patterns(bcm.jax.random.key(0), bcm.Config(), 0.5))
    np.testing.assert_allclose(x @ x.T, 0.5 + 0.5 * np.eye(6), atol=1e-5)
    np.testing.assert_allclose(bcm.selectivity(np.array([[1.0, 3, 0], [1, 0, 0]])), [0, 0.5, 0])


def test_turned_digits_are_judged_at_every_angle(few_digits, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(digits, 'ANGLES', (-45, 0, 15))
    monkeypatch.setattr(digits, 'CHOICES', {'trace': ((1, 0.1, 0.1),), 'no_trace': ((1, 1.0, 0.1),)})
    rows = report_of(digits, '--seeds 1 --epochs 1 --features 8 --images 120', tmp_path)
    assert [*rows][:5] == ['pixels', 'simple', 'untrained', 'patches', 'no_trace: winners 1, eta 1, rate 0.1']
    for values in rows.values():
        assert values['nearest upright'][0] > values['nearest 45-60°'][0] > 0
    assert 'trace, winners, eta, rate (1, 0.1, 0.1): validation' in capsys.readouterr().out
    turned = digits.turn(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8))
    assert turned.shape == (3, 2, 12, 12, 1)
    assert 0 < turned[1, :, 2:10, 2:10].mean() < 1 and turned[1].sum() == pytest.approx(turned[1, :, 2:10, 2:10].sum())
