"""The two searches on digits, at tiny settings, and the rule that one of them searches."""

import json

import evolve_digits
import jax.numpy as jnp
import numpy as np
import pytest
import search_losses
import tables
from table import change

from hebbjax import rules

TINY = '--population 8 --generations 2 --at-once 4 --features 4 --epochs 2 --batch 40 --seeds 2'


@pytest.mark.parametrize(
    'script, more, rows', [(evolve_digits, '--evolved softhebb', 6), (search_losses, '--terms 2', 6)]
)
def test_a_search_is_reported_and_drawn(script, more, rows, small_data, tmp_path, relaxed, capsys):
    report, figure = tmp_path / 'r.json', tmp_path / 'f.png'
    flags = [
        *TINY.split(),
        *more.split(),
        '--data-dir',
        str(small_data),
        '--json',
        str(report),
        '--figure',
        str(figure),
    ]
    assert script.main(flags) == 0
    written = json.loads(report.read_text())
    measures = {row['row']: row['measures'] for row in written['rows']}
    assert len(measures) == rows and figure.read_bytes().startswith(b'\x89PNG')
    accuracies = [value for of in measures.values() for value in of['test %']]
    assert len(accuracies) == 2 * rows and np.mean(accuracies) > 50  # of three classes
    assert 'test %' in tables.lay_out([written]) and '16 trainings in' in capsys.readouterr().out


def test_what_cannot_be_searched_is_refused(small_data, refused):
    flags = [*TINY.split(), '--data-dir', str(small_data)]
    says = 'a population of 8 does not divide into groups of at_once=3; use 2.'
    assert says in refused(search_losses.main, [*flags, '--at-once', '3'])
    assert "--evolved='oja' is unknown" in refused(evolve_digits.main, [*flags, '--evolved', 'oja'])


def test_softhebb_is_what_its_equation_says(rng, x64):
    """The winner by its share of the softmax, all others away by the strength times theirs; leak by the drive."""
    x, w = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    expected = np.zeros_like(w)
    for patch in x:
        u = w @ patch
        y = np.exp(u / 0.7) / np.exp(u / 0.7).sum()
        y = np.where(np.arange(4) == u.argmax(), y, -0.4 * y)
        expected += y[:, None] * (patch - u[:, None] * w) / 5
    np.testing.assert_allclose(change(evolve_digits.softhebb(0.7, 0.4), x, w), expected, atol=1e-12)


def test_published_settings_are_where_a_search_starts():
    for family, published in evolve_digits.PUBLISHED.items():
        np.testing.assert_allclose(evolve_digits.bounded(family, evolve_digits.unbounded(family)), published, rtol=1e-5)
    x, w = jnp.ones((3, 4)), jnp.arange(8.0).reshape(2, 4)
    delta, p, _ = map(float, evolve_digits.bounded('krotov', evolve_digits.unbounded('krotov')))
    np.testing.assert_allclose(
        change(evolve_digits.RULES['krotov'](delta, p), x, w), change(rules.krotov(2, 0.4, 2.0), x, w), rtol=1e-4
    )


def test_the_losses_of_the_paper_are_its_rules(rng):
    x, w = (np.asarray(rng.normal(size=size), np.float32) for size in ((5, 3), (4, 3)))
    compete = rules.soft_wta(0.3)
    for name, rule in {'hebb': rules.hebb, 'instar': rules.instar, 'oja': rules.oja}.items():
        by_taylor = rules.taylor(search_losses.learned.to_theta(search_losses.LOSSES[name]), compete)
        np.testing.assert_allclose(change(by_taylor, x, w), change(rule(compete), x, w), rtol=1e-4, atol=1e-5)
