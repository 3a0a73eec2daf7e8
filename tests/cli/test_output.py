"""What commands print may get lost, and what signals tell them is heard: jobs end as they should all the same."""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import hebbjax
from hebbjax import training
from hebbjax.cli import main, output, run_folder, tables
from hebbjax.cli import train as job
from hebbjax.data.datasets import command_of
from hebbjax.support import files

NAMES = st.text(st.sampled_from('ab1 ßé日:_-.[]/\\$"\'`%{}'), min_size=1, max_size=12) | st.sampled_from(
    ['[red]', '[/b]', 'a[/b]', '[link=x]y', ':smile:', '{task}', 'Ünï cödé 日本', "it's", '$HOME']
)


# Output that nobody reads


@contextlib.contextmanager
def printing_into(where):
    """Let sys.stdout be a pipe that nobody reads, a device that is full, a descriptor that was closed, or a file."""
    if where == 'pipe':
        reader, writer = os.pipe()
        os.close(reader)
        stream = os.fdopen(writer, 'w')
    else:
        make = {'full': functools.partial(open, '/dev/full', 'w'), 'closed': lambda: None, 'file': io.StringIO}
        stream = make[where]()
    before = sys.stdout
    sys.stdout = stream
    try:
        yield stream
        assert sys.stdout is stream
    finally:
        sys.stdout = before
        if stream is not None:
            stream.close()  # as Python does in the end: it may say nothing


def code_of(command):
    """Run a command as a process would end."""
    try:
        return command()
    except SystemExit as end:
        return end.code


@dataclasses.dataclass(frozen=True)
class Config:
    """A job."""


@given(
    where=st.sampled_from(['pipe', 'full', 'closed', 'file']),
    sizes=st.lists(st.sampled_from([0, 1, 100, 70_000]), min_size=1, max_size=4),
    ends=st.sampled_from([0, 2, 130]),
    rich=st.booleans(),
)
def test_a_job_goes_on_when_its_output_is_lost_and_ends_as_it_would(where, sizes, ends, rich):
    done = []

    def run(config, console):
        for size in sizes:
            console.print('x' * size, highlight=False, soft_wrap=True) if rich else print('x' * size)
            sys.stdout.flush()
            done.append(size)
        if ends == 2:
            raise ValueError('it does not fit')
        return ends == 130

    with printing_into(where) as stream, contextlib.redirect_stderr(io.StringIO()) as cried:
        code = code_of(lambda: main.run_command(Config, run, [], 'job'))
        assert done == sizes
        assert code == ends
        assert ('job: error: it does not fit' in cried.getvalue()) == (ends == 2)
        if where == 'file':
            assert [len(line) for line in stream.getvalue().splitlines()] == sizes


@pytest.mark.parametrize('where', ['pipe', 'full', 'closed', 'file'])
@pytest.mark.parametrize('command', ['--help', '-h', '--version', 'train --help', 'compare --help', 'evaluate --help'])
def test_what_only_prints_ends_quietly(command, where, capsys):
    with printing_into(where):
        assert code_of(lambda: main.main(command.split())) == 0
    assert capsys.readouterr().err == ''


def test_what_the_encoding_lacks_is_written_otherwise():
    raw = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(raw, encoding='ascii')):
        assert main.run_command(Config, lambda config, console: console.print('1.00 ± 0.50'), [], 'job') == 0
        assert raw.getvalue() == b'1.00 \\xb1 0.50\n'


def test_errors_that_cannot_be_said_are_errors_still(monkeypatch):
    with open('/dev/full', 'w') as full:
        monkeypatch.setattr(sys, 'stderr', full)
        assert main.main(['dance']) == 2


def test_a_real_shell_sees_no_traceback():
    line = f'{shlex.quote(sys.executable)} -m hebbjax train --help | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(['bash', '-c', line], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ''


def test_an_experiment_writes_its_results_though_nobody_reads(few_digits, relaxed, tmp_path):
    flags = [
        '--seeds',
        '1',
        '--features',
        '6',
        '--epochs',
        '3',
        '--head-epochs',
        '2',
        '--rows',
        'untrained',
    ]  # as in test_compare
    with printing_into('pipe'):
        assert main.main([*flags, '--json', str(tmp_path / 'x.json')]) == 0
    assert len(json.loads((tmp_path / 'x.json').read_text())['rows'][0]['test_accuracy']) == 1


# Tables, and names in them


@given(
    width=st.integers(1, 200),
    terminal=st.booleans(),
    title=NAMES | st.just(''),
    names=st.lists(NAMES, min_size=1, max_size=4),
    number=st.floats(allow_nan=False, allow_infinity=False),
    columns=st.integers(1, 12),
)
def test_tables_are_never_cut_and_names_are_no_markup(width, terminal, title, names, number, columns):
    told = io.StringIO()
    console = Console(file=told, width=width, force_terminal=terminal, color_system=None)
    numbers = [f'{number / (n + 1):.2f}' for n in range(columns)]
    tables.print_table(title, ('', *['%'] * columns), [(name, *numbers) for name in names], console)
    for name, row in zip(names, told.getvalue().splitlines()[-len(names) :], strict=True):
        assert row.startswith(name) and row.removeprefix(name).split() == numbers


@pytest.mark.parametrize('columns', ['1', '40', '-3', 'x', ''])
@pytest.mark.parametrize('terminal', [False, True])
def test_a_console_prints_whatever_the_columns(columns, terminal, monkeypatch):
    monkeypatch.setenv('COLUMNS', columns)
    told = io.StringIO()
    told.isatty = lambda: terminal
    monkeypatch.setattr(sys, 'stdout', told)
    console = output.make_console()
    console.print('[red] :smile: ' + 'long ' * 100)
    if terminal:
        assert console.width == {'1': 1, '40': 40}.get(columns, 80) and told.getvalue().count('l') == 101
    else:
        assert told.getvalue() == '[red] :smile: ' + 'long ' * 100 + '\n'


# Devices, versions, commands


@pytest.mark.parametrize('error', [RuntimeError("Unable to initialize backend 'cuda'"), AssertionError()])
def test_a_device_that_is_not_there_is_named(error, capsys, monkeypatch):
    def raises(error):
        raise error

    with pytest.raises(type(error)):  # a bug, as there is a device
        main.run_command(Config, lambda *args: raises(error), [], 'job')
    monkeypatch.setattr(jax, 'devices', lambda: raises(error))
    assert main.run_command(Config, lambda *args: raises(error), [], 'job') == 2
    line = capsys.readouterr().err
    assert line.startswith('job: error: JAX_PLATFORMS=cpu names no device that jax finds; ') and line.count('\n') == 1


def test_programs_are_kept_where_a_flag_says(tmp_path):
    """In a folder that is made, and found again by the next process, which compiles nothing anew."""
    script = (
        'import sys, jax; from hebbjax.cli import main; seen = []\n'
        'jax.monitoring.register_event_listener(lambda name, **_: seen.append(name))\n'
        'code = main.main(sys.argv[1:])\n'
        'print(code, *(seen.count(f"/jax/compilation_cache/cache_{what}") for what in ("hits", "misses")))'
    )
    flags = ['--features', '2', '--epochs', '1', '--out', str(tmp_path / 'f.npz'), '--compilation-cache']
    command, env = [sys.executable, '-c', script, 'features', *flags], os.environ | {'XDG_CACHE_HOME': str(tmp_path)}
    ends = [subprocess.run(command, env=env, capture_output=True, text=True) for _ in range(2)]
    (code, _, cold), (again, hits, misses) = (map(int, end.stdout.split()[-3:]) for end in ends)
    assert code == again == 0 < cold <= hits and not misses
    assert any((tmp_path / 'hebbjax').iterdir())


def test_a_folder_that_cannot_keep_programs_is_named(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert main.main(['compare', '--compilation-cache', str(tmp_path / 'file' / 'deeper')]) == 2
    assert capsys.readouterr().err == f'hebbjax compare: error: {tmp_path / "file" / "deeper"}: not a directory.\n'


def test_the_version_is_told(capsys, monkeypatch):
    assert main.main(['--version']) == 0
    assert capsys.readouterr().out == f'hebbjax {hebbjax.__version__}\n'
    assert hebbjax.__version__ == importlib.metadata.version('hebbjax')

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, 'version', missing)
        assert importlib.reload(hebbjax).__version__ == '0+unknown'
    importlib.reload(hebbjax)


@given(name=NAMES)
def test_commands_that_are_suggested_can_be_pasted(name):
    folder = pathlib.Path('/', name)
    assert shlex.split(command_of('mnist', folder)) == ['hebbjax', 'data', 'mnist', '--data-dir', str(folder)]


# Signals


def test_sigterm_keeps_a_checkpoint(tmp_path):
    """Of a job in the background too, which goes on ignoring Ctrl-C."""
    flags = ['train', 'dense', '--features', '20', '--epochs', '1000', '--batch', '20', '--monitor-every', '0',
             '--callbacks', 'log', 'checkpoint', '--save-every', '1000', '--run']  # fmt: skip
    folder = tmp_path / 'Ünï cödé 日本'
    start = 'import runpy, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); '
    start += "runpy.run_module('hebbjax', run_name='__main__', alter_sys=True)"
    with subprocess.Popen(
        [sys.executable, '-c', start, *flags, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        lines = folder / 'metrics.jsonl'
        while not lines.exists() or len(files.read_lines(lines)) < 3:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        process.terminate()
        said, cried = process.communicate(timeout=60)
    assert process.returncode == 143 and cried == ''
    _, _, command = said.partition('interrupted; go on with: ')
    assert shlex.split(command) == ['hebbjax', 'train', '--resume', str(folder)]
    settings, about = job.read_run(folder, None)
    checkpoints = training.Checkpoints(folder / run_folder.CHECKPOINTS)
    _, position = training.resume(checkpoints, settings.start(None, about).state)
    assert len(position.history) == len(files.read_lines(lines)) >= 2
