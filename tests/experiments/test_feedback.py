"""Answers that come back: occluded digits with and without settling, and associative memories."""

import json

import hopfield
import jax
import jax.numpy as jnp
import numpy as np
import settling_digits


def measures(main, flags, tmp_path):
    """What a script wrote: row -> heading -> values; it drew, too."""
    report, figure = tmp_path / 'r.json', tmp_path / 'f.png'
    assert main([*flags.split(), '--json', str(report), '--figure', str(figure)]) == 0
    assert figure.read_bytes().startswith(b'\x89PNG')
    return {row['row']: row['measures'] for row in json.loads(report.read_text())['rows']}


def test_memories_break_where_they_should(tmp_path, relaxed):
    found = measures(hopfield.main, '--sizes 60 --loads 0.05 0.5 --seeds 1', tmp_path)
    assert found.keys() == {'hebb, N = 60', 'delta, N = 60', 'sequence, N = 60'}
    wrong = {row.split(',')[0]: (of['wrong % at 0.05'], of['wrong % at 0.5']) for row, of in found.items()}
    assert all(few == [0] for few, _ in wrong.values())
    assert min(wrong['hebb'][1]) > 10 and min(wrong['sequence'][1]) > 10 and wrong['delta'][1] == [0]
    assert all(0.05 < load < 0.5 for load in found['hebb, N = 60']['load at 5 % wrong'])
    assert found['delta, N = 60']['load at 5 % wrong'] == [0.5]


def test_a_memory_breaks_between_loads_that_were_measured():
    np.testing.assert_allclose(hopfield.breaking_load((0.1, 0.2, 0.4), [0.0, 0.025, 0.075]), 0.3)
    assert hopfield.breaking_load((0.1, 0.2), [0.2, 0.3]) == 0.1
    assert hopfield.breaking_load((0.1, 0.2), [0.0, 0.05]) == 0.2


def test_occluded_digits_are_read_with_and_without_settling(small_data, tmp_path, relaxed):
    flags = '--seeds 1 --units 12 --per-class 2 --winners 1 --epochs 2 --batch 50 --sides 0 5 --gains 0.5 --steps 2'
    flags += ' --rows untrained groups'
    found = measures(settling_digits.main, f'{flags} --data-dir {small_data}', tmp_path)
    assert [*found] == [f'{row}, {how}' for row in ('untrained', 'groups') for how in ('plain', 'settled')]
    assert all([*of] == ['clean', '5 px', 'top', 'gain', 'steps', 'learned'] for of in found.values())
    assert found['groups, plain']['clean'][0] > 60 and found['groups, plain']['gain'] == [0.0]
    assert found['groups, settled']['gain'] == [0.5] and found['groups, settled']['steps'] == [2.0]


def test_a_square_of_the_asked_side_is_hidden_wherever_it_fits():
    images = jnp.ones((200, 8, 8, 1))
    hidden = np.asarray(1 - settling_digits.occlude(jax.random.key(0), images, 3)[..., 0])
    np.testing.assert_array_equal(hidden.sum((1, 2)), 9)
    np.testing.assert_array_equal(np.sort(hidden.any(1).sum(1)), 3)  # columns of each
    assert (hidden.sum(0) > 0).all() and len({image.tobytes() for image in hidden}) == 36
    np.testing.assert_array_equal(settling_digits.occlude(jax.random.key(0), images, 0), images)
    each = np.asarray(1 - settling_digits.occlude(jax.random.key(0), images[:3], jnp.array([[1], [8], [2]])))
    np.testing.assert_array_equal(each.sum((1, 2, 3)), [1, 64, 4])
