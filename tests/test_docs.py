"""The Python of the README, of every page and of docstrings runs, as a reader would paste it."""

import doctest
import importlib
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]

SOURCES = [path.relative_to(ROOT) for path in sorted((ROOT / 'hebbjax').rglob('*.py')) if '>>> ' in path.read_text()]
MODULES = ['.'.join(path.with_suffix('').parts) for path in SOURCES]


def blocks(page) -> list[str]:
    return re.findall(r'^```python\n(.*?)^```', page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize('page', [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_every_python_block_runs(page, relaxed, capsys):
    space = {}
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f'{page.name}, block {number}', 'exec'), space)
    if page.stem == 'README':
        assert float(space['accuracy']) > 0.8 and 'validation accuracy' in capsys.readouterr().out


@pytest.mark.parametrize('module', MODULES)
def test_every_example_in_a_docstring_runs(module, relaxed):
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried > 0 and failed == 0


def test_the_readme_can_be_read_in_one_sitting():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 250


@pytest.mark.parametrize('page', [*PAGES, *sorted(ROOT.glob('C*.md'))], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_version_is_the_same_wherever_it_stands():
    version = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']
    first = re.search(r'^## \[(.*)\] - (.*)$', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    citation = (ROOT / 'CITATION.cff').read_text()
    assert first[1] == version and f'\nversion: {version}\ndate-released: {first[2]}\n' in citation
