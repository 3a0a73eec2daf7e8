"""The Python of the README, of every page and of docstrings runs, as a reader would paste it; so do its commands.

Cells of pages and notebooks that the site's build executes (docs/conf.py: a cell that fails fails the build) are run
there, and not a second time here.
"""

import ast
import doctest
import importlib
import json
import pathlib
import re
import shlex
import tomllib

import numpy as np
import pytest
import tyro
from PIL import Image

from hebbjax.cli import main

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PAGES = [ROOT / 'README.md', *sorted(DOCS.rglob('*.md'))]
NOTEBOOKS = sorted(DOCS.rglob('*.ipynb'))

SOURCES = [path.relative_to(ROOT) for path in sorted((ROOT / 'hebbjax').rglob('*.py')) if '>>> ' in path.read_text()]
MODULES = ['.'.join(path.with_suffix('').parts) for path in SOURCES]


def name(page: pathlib.Path) -> str:
    return str(page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT))


def blocks(page: pathlib.Path, language: str = 'python') -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: pathlib.Path) -> list[list[str]]:
    """What a page says to `hebbjax`, line by line: [words behind the name]."""
    lines = [shlex.split(line, comments=True) for block in blocks(page, 'sh') for line in block.splitlines()]
    return [words[1:] for words in lines if words[:1] == ['hebbjax']]


@pytest.mark.parametrize('page', [page for page in PAGES if blocks(page)], ids=name)
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


def read_flags(settings, command, argv, prog):
    """Stands in the place of `main.run_command`: reads the flags, and runs nothing."""
    kind, defaults = (settings, {}) if isinstance(settings, type) else (type(settings), {'default': settings})
    tyro.cli(kind, args=list(argv), prog=prog, **defaults)
    return 0


@pytest.mark.parametrize('page', [page for page in PAGES if commands(page)], ids=name)
def test_every_command_has_the_flags_that_pages_show(page, monkeypatch):
    monkeypatch.setattr(main, 'run_command', read_flags)
    for words in commands(page):
        assert main.main(words) == 0, words


def test_a_page_that_shows_a_flag_that_does_not_exist_is_found(monkeypatch, capsys):
    monkeypatch.setattr(main, 'run_command', read_flags)
    with pytest.raises(SystemExit):
        main.main(['train', 'cnn', '--no-such-flag', '3'])
    assert main.main(['no-such-command']) == 2


def test_the_first_page_leads_from_a_folder_of_images_to_filters(tmp_path, monkeypatch, capsys):
    (tmp_path / 'photos').mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = np.kron(rng.integers(0, 2, (6, 6)), np.full((4, 4), 255))  # blocks, which have edges
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / 'photos' / f'{number}.png')
    monkeypatch.chdir(tmp_path)
    (install, *_), first = blocks(DOCS / 'index.md', 'sh'), commands(DOCS / 'index.md')
    assert len(install.splitlines()) <= 5 and first[0][0] == 'train'
    for words in first:
        assert main.main([*words, *(['--epochs', '2'] if words[0] == 'train' else [])]) == 0
    assert list((tmp_path / 'runs/photos/pictures').glob('*.png')) and (tmp_path / 'runs/photos/report.html').exists()
    assert np.load(tmp_path / 'features.npz')['features'].shape[0] == 40


def test_pages_can_be_read_in_one_sitting():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 250
    for page in PAGES[1:]:
        assert len(page.read_text().splitlines()) <= 130, page


@pytest.mark.parametrize('page', [*PAGES, *sorted(ROOT.glob('C*.md'))], ids=name)
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_version_is_the_same_wherever_it_stands():
    version = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']
    first = re.search(r'^## \[(.*)\] - (.*)$', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    citation = (ROOT / 'CITATION.cff').read_text()
    assert first[1] == version and f'\nversion: {version}\ndate-released: {first[2]}\n' in citation


@pytest.mark.parametrize('page', NOTEBOOKS, ids=name)
def test_notebooks_are_python_without_outputs(page):
    cells = json.loads(page.read_text())['cells']
    assert cells
    for cell in cells:
        if cell['cell_type'] == 'code':
            assert not cell['outputs'] and cell['execution_count'] is None
            ast.parse(''.join(cell['source']))


def test_the_build_runs_every_cell_and_fails_with_it():
    settings = (DOCS / 'conf.py').read_text()
    assert re.search(r"^nb_execution_mode, nb_execution_raise_on_error.* = 'force', True", settings, re.MULTILINE)
    assert 'sphinx-build -W' in (ROOT / '.ci' / 'run').read_text()
    for page in PAGES[1:]:
        if '{code-cell}' in page.read_text():  # what makes the build execute a page
            assert page.read_text().startswith('---\nfile_format: mystnb\n---\n'), page
