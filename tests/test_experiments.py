"""The scripts in experiments/ are the package's jobs: same flags, same end."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

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


def test_every_table_is_what_its_results_give():
    spec = importlib.util.spec_from_file_location('tables', EXPERIMENTS / 'tables.py')
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    for document in tables.DOCUMENTS:
        text = document.read_text()
        assert tables.MARKED.search(text)
        assert tables.filled(text) == text
    assert tables.accuracy([1.0, 3.0]) == '2.00 ± 1.41'
