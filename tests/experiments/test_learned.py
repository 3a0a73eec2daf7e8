"""A rule that is transferred, at tiny settings; rules that come back, and their errors: tests/learned/test_fit.py."""

import json

import learned_recovery
import learned_transfer
import numpy as np
import tables

TRANSFER = (
    '--dataset digits --images 120 --seeds 1 --features 4 --length 4 --batch 8 --patches 3 --rates 0.1 '
    '--digits-features 4 --digits-length 3 --digits-images 40 --steps 3'
)


def test_errors_are_drawn_over_noise():
    config = learned_recovery.Config(noise=(0.0, 0.01, 0.1))
    (axes,) = learned_recovery.draw(config, np.ones((2, 3, 4)) * np.array([0.1, 1, 10]).reshape(1, 3, 1)).axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(0.01, 1), (0.1, 10)])  # zero noise has no place there
    assert len(axes.lines) == 4 * 3 + 1 and axes.get_yscale() == 'log'


def test_random_rules_are_drawn_anew_and_tame():
    (hebb, oja, random, instar), (_, _, other, _) = map(learned_recovery.draw_rules, (0, 1))
    assert np.count_nonzero(hebb) == 1 and np.count_nonzero(oja) == np.count_nonzero(instar) == 2
    assert np.count_nonzero(random) == np.count_nonzero(other) == 4 and np.any(random != other)
    assert all(b + c <= 2 for _, b, c in np.argwhere(random)) and np.abs(random[random != 0]).min() >= 0.4


def test_a_transfer_is_reported_and_drawn(small_data, tmp_path, relaxed, capsys):
    report, figure = tmp_path / 'r.json', tmp_path / 'f.png'
    flags = [*TRANSFER.split(), '--data-dir', str(small_data), '--json', str(report), '--figure', str(figure)]
    assert learned_transfer.main(flags) == 0
    written = json.loads(report.read_text())
    rows = {row['row']: row['measures'] for row in written['rows']}
    named = ['untrained', 'image patches', 'oja', 'instar', 'krotov', 'instar of digits', 'learned']
    assert list(rows) == named and figure.read_bytes().startswith(b'\x89PNG')
    assert all(50 < of['digits test %'][0] <= 100 for of in rows.values())  # of three stripes
    assert '| learned |' in tables.lay_out([written]) and 'held-out error on digits from' in capsys.readouterr().out
