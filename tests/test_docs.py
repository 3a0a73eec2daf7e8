"""The Python of the README and of every page runs, block after block, as a reader would paste it."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def blocks(page) -> list[str]:
    return re.findall(r'^```python\n(.*?)^```', page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize('page', [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_every_python_block_runs(page, relaxed, capsys):
    space = {}
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f'{page.name}, block {number}', 'exec'), space)
    if page.stem == 'README':
        assert float(space['accuracy']) > 0.8 and 'validation accuracy' in capsys.readouterr().out


def test_the_readme_can_be_read_in_one_sitting():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 250


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', page.read_text()):
        assert (page.parent / link).exists(), link
