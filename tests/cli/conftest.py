"""What tests of commands share: one tiny run, trained and evaluated once, and how a command is called."""

import pathlib
import shutil

import jax
import pytest
from draws import cut

from hebbjax import data
from hebbjax.cli import main
from hebbjax.support import files

SIZES = ['--features', '6', '--epochs', '3', '--head-epochs', '2']  # everywhere the same, so that programs are shared


@pytest.fixture(scope='session')
def finished_run(tmp_path_factory):
    """A run that was evaluated. Tests change copies, see `folder`."""
    folder = tmp_path_factory.mktemp('runs') / 'run'
    with pytest.MonkeyPatch.context() as patched, jax.numpy_dtype_promotion('standard'):
        whole = data.read
        patched.setattr(data, 'read', lambda *args, **how: cut(whole(*args, **how), 300))
        train = ['train', 'cnn', *SIZES, '--every', '2', '--monitor-every', '2', '--run', str(folder)]
        assert main.main(train) == 0
        assert main.main(['evaluate', str(folder)]) == 0
    evaluation = files.read_json(folder / 'evaluation.json')
    for row in evaluation['rows']:  # as classifiers trained by gradient have them
        row['curve'] = {'train': [50.0, 60.0], 'validation': [40.0, 55.0]}
    files.write_json(folder / 'evaluation.json', evaluation)
    return folder


@pytest.fixture
def folder(finished_run, few_digits, tmp_path):
    """A copy of a finished run."""
    return pathlib.Path(shutil.copytree(finished_run, tmp_path / 'run'))


@pytest.fixture
def call(capsys):
    """(command line) -> exit code, stdout, stderr, neither with a traceback."""

    def call_command(*argv):
        capsys.readouterr()
        try:
            code = main.main(
                [str(word) for part in argv for word in (part if isinstance(part, list | tuple) else [part])]
            )
        except SystemExit as ended:  # tyro's own
            code = ended.code
        printed = capsys.readouterr()
        assert 'Traceback' not in printed.err + printed.out
        return code, printed.out, printed.err

    return call_command


@pytest.fixture
def refuse(call):
    """(command line) -> the one sentence that a command is refused with."""

    def refuse_command(*argv):
        code, _, said = call(*argv)
        assert code == 2 and said.count('\n') == 1, said
        return said

    return refuse_command
