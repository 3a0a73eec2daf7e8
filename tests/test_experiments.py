"""The scripts in experiments/ are the package's jobs: same flags, same end."""

import pathlib
import subprocess
import sys

import pytest

EXPERIMENTS = pathlib.Path(__file__).parents[1] / 'experiments'


@pytest.mark.parametrize('script', sorted(path.name for path in EXPERIMENTS.glob('*.py')))
def test_a_script_explains_itself_and_refuses_what_it_cannot_do(script):
    run = [sys.executable, str(EXPERIMENTS / script)]
    told = subprocess.run([*run, '--help'], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0
    assert '--head-epochs' in told.stdout and '--json' in told.stdout
    told = subprocess.run([*run, '--dataset', 'nothing'], capture_output=True, text=True, timeout=120)
    assert told.returncode == 2
    assert told.stderr.startswith(f'{script}: error: ') and 'Traceback' not in told.stderr
