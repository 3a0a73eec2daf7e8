"""The rule that CONTRIBUTING.md adds in one file and one row inherits what it is said to inherit."""

import types

import pytest
import reference
import table
import test_rules
from test_docs import ROOT, blocks

from hebbjax import rules


@pytest.fixture
def row():
    """The row of the page, made of its file, its loops and its line."""
    file, judge, line = blocks(ROOT / 'CONTRIBUTING.md')
    own, loops = {}, dict(vars(reference))
    exec(compile(file, 'hebbjax/rules/decay.py', 'exec'), own)
    exec(compile(judge, 'tests/reference.py', 'exec'), loops)
    there = vars(table) | {
        'rules': types.SimpleNamespace(**vars(rules), decaying_hebb=own['decaying_hebb']),
        'reference': types.SimpleNamespace(decaying_hebb=loops['decaying_hebb']),
    }
    return eval(line, there)


def test_the_rule_of_the_page_passes_what_rules_inherit(row, rng, x64):
    test_rules.test_a_rule_equals_its_loops(row, rng, x64)
    test_rules.test_a_layer_learns_what_the_loops_learn_under_vmap_and_compiles_once(row, rng, x64)


def test_the_rule_of_the_page_keeps_float32(row):
    test_rules.test_a_rule_keeps_float32(row)


def test_a_wrong_rule_would_not_pass(row, rng, x64):
    wrong = row._replace(make=lambda: rules.hebb(2))
    with pytest.raises(AssertionError):
        test_rules.test_a_rule_equals_its_loops(wrong, rng, x64)
