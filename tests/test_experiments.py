"""The scripts in experiments/ are the package's jobs: same flags, same end."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

from hebbjax.jobs import report

EXPERIMENTS = pathlib.Path(__file__).parents[1] / 'experiments'


@pytest.mark.parametrize('script', ['fashion_mnist_cnn.py', 'krotov_mnist.py'])
def test_a_script_explains_itself_and_refuses_what_it_cannot_do(script):
    run = [sys.executable, str(EXPERIMENTS / script)]
    told = subprocess.run([*run, '--help'], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0
    assert '--head-epochs' in told.stdout and '--json' in told.stdout
    told = subprocess.run([*run, '--dataset', 'nothing'], capture_output=True, text=True, timeout=120)
    assert told.returncode == 2
    assert told.stderr.startswith(f'{script}: error: ') and 'Traceback' not in told.stderr


@pytest.mark.parametrize('script', [EXPERIMENTS / 'tables.py', EXPERIMENTS.parent / 'benchmarks' / 'records.py'])
def test_every_table_is_what_its_results_give(script):
    spec = importlib.util.spec_from_file_location(script.stem, script)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for document in made.DOCUMENTS:
        text = document.read_text()
        assert report.MARKED.search(text)
        assert report.fill_tables(text, script.parent / 'results', made.table) == text
