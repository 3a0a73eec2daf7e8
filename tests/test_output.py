"""What commands print may get lost, and what signals tell them is heard: jobs end as they should all the same."""

import contextlib
import dataclasses
import errno
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
import types

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import hebbjax
from hebbjax import callbacks, checkpoint, cli, data, files, interrupt, output, progress, runs
from hebbjax.jobs import recipes, report
from hebbjax.jobs import train as job

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
        return types.SimpleNamespace(interrupted=ends == 130)

    with printing_into(where) as stream, contextlib.redirect_stderr(io.StringIO()) as cried:
        code = code_of(lambda: cli.run_job(Config, run, [], 'job'))
        assert done == sizes
        assert code == (2 if where == 'full' else ends)
        assert ('output cannot be written (No space left on device).' in cried.getvalue()) == (where == 'full')
        assert ('job: error: it does not fit' in cried.getvalue()) == (ends == 2)
        if where == 'file':
            assert [len(line) for line in stream.getvalue().splitlines()] == sizes


@pytest.mark.parametrize('where', ['pipe', 'full', 'closed', 'file'])
@pytest.mark.parametrize('command', ['--help', '-h', '--version', 'train --help', 'cnn --help', 'evaluate --help'])
def test_what_only_prints_ends_quietly_or_in_a_sentence(command, where, capsys):
    with printing_into(where):
        assert code_of(lambda: cli.main(command.split())) == (2 if where == 'full' else 0)
    told = capsys.readouterr().err
    assert told == ('hebbjax: error: output cannot be written (No space left on device).\n' if where == 'full' else '')


def test_what_the_encoding_lacks_is_written_otherwise():
    raw = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(raw, encoding='ascii')):
        assert cli.run_job(Config, lambda config, console: console.print('1.00 ± 0.50'), [], 'job') == 0
        assert raw.getvalue() == b'1.00 \\xb1 0.50\n'


def test_errors_that_cannot_be_said_are_errors_still(monkeypatch):
    with open('/dev/full', 'w') as full:
        monkeypatch.setattr(sys, 'stderr', full)
        assert cli.main(['dance']) == 2


@pytest.mark.parametrize(
    ('line', 'code', 'says'),
    [
        ('{} cnn --help >&-', 0, ''),
        ('{} --help | true; exit ${{PIPESTATUS[0]}}', 0, ''),
        ('JAX_PLATFORMS=nonsense {} cnn', 2, "cnn: error: jax cannot compute on JAX_PLATFORMS='nonsense'"),
    ],
)
def test_a_real_shell_sees_no_traceback(line, code, says):
    command = line.format(f'{shlex.quote(sys.executable)} -m hebbjax')
    done = subprocess.run(['bash', '-c', command], capture_output=True, text=True, timeout=120)
    assert done.returncode == code and says in done.stderr and done.stderr.count('\n') == bool(says), done.stderr


def test_an_experiment_writes_its_results_though_nobody_reads(few_digits, relaxed, tmp_path):
    flags = ['--seeds', '1', '--features', '4', '--head-epochs', '2', '--rows', 'raw_pixels']
    with printing_into('pipe'):
        assert cli.main(['cnn', *flags, '--json', str(tmp_path / 'x.json')]) == 0
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
    report.print_table(title, ('', *['%'] * columns), [(name, *numbers) for name in names], console)
    rows = told.getvalue().splitlines()[-len(names) - 1 : -1]
    for name, row in zip(names, rows, strict=True):
        assert row.startswith(f' {name}') and row.removeprefix(f' {name}').split() == numbers


@pytest.mark.parametrize('columns', ['0', '1', '40', '-3', 'x', ''])
@pytest.mark.parametrize('terminal', [False, True])
def test_a_console_prints_whatever_the_columns(columns, terminal, monkeypatch):
    monkeypatch.setenv('COLUMNS', columns)
    told = io.StringIO()
    told.isatty = lambda: terminal
    monkeypatch.setattr(sys, 'stdout', told)
    console = output.console()
    console.print('[red] :smile: ' + 'long ' * 100)
    if terminal:
        assert console.width == {'1': 1, '40': 40}.get(columns, 80) and told.getvalue().count('l') == 101
    else:
        assert told.getvalue() == '[red] :smile: ' + 'long ' * 100 + '\n'


@given(phase=NAMES, note=NAMES)
def test_what_bars_are_told_is_no_markup(phase, note):
    screen = io.StringIO()
    with progress.bar(Console(file=screen, force_terminal=True, width=300, color_system=None), phase, 2) as tick:
        tick(note)
    assert phase in screen.getvalue() and note in screen.getvalue() and '1/2' in screen.getvalue()


# Notebooks


class Shown(list):
    """What a notebook was told to display, as text."""

    def display(self, one, display_id):
        assert display_id
        self.update(one)
        return self

    def update(self, one):
        self.append(one._repr_mimebundle_((), ())['text/plain'])


@pytest.fixture
def notebook(monkeypatch):
    """IPython's display, and what it shows."""
    shown = Shown()
    monkeypatch.setitem(sys.modules, 'IPython', types.ModuleType('IPython'))
    monkeypatch.setitem(sys.modules, 'IPython.display', types.SimpleNamespace(display=shown.display))
    return shown


@pytest.mark.parametrize('epochs', [1, 3])
def test_bars_are_drawn_in_a_notebook(epochs, notebook):
    with progress.bar(Console(force_jupyter=True), '[b] phase', epochs) as tick:
        for number in range(epochs):
            tick(f'loss [{number}]')
    assert len(notebook) == epochs + 1
    for number, text in enumerate(notebook):
        assert '[b] phase' in text and f'{number}/{epochs}' in text and (f'loss [{number - 1}]' in text or not number)


def test_the_progress_of_a_training_is_drawn_in_a_notebook(notebook):
    moment = types.SimpleNamespace(history=[{'layer1.change': 0.5}], metrics={'seconds': 2.0}, epochs=4)
    with callbacks.Progress(Console(force_jupyter=True), 4, 300) as shown:
        shown(moment)
    assert '1/4' in notebook[-1] and '150 images/s, change 0.5' in notebook[-1]
    with callbacks.Progress(Console(force_jupyter=True, quiet=True), 4, 300) as shown:
        shown(moment)
    assert len(notebook) == 2


# Devices, versions, commands


@pytest.mark.parametrize('fails', [RuntimeError("Unable to initialize backend 'cuda': no GPU"), AssertionError()])
def test_a_device_that_is_not_there_is_named(fails, monkeypatch, capsys):
    def raises(*args):
        raise fails

    assert_raises = pytest.raises(type(fails))
    with assert_raises:  # what has nothing to do with devices
        cli.run_job(Config, raises, [], 'job')
    monkeypatch.setattr(jax, 'devices', raises)
    monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
    assert cli.run_job(Config, raises, [], 'job') == 2
    told = capsys.readouterr().err
    assert told.startswith("job: error: jax cannot compute on JAX_PLATFORMS='cuda'") and str(fails) in told
    assert told.endswith('; use JAX_PLATFORMS=cpu, or leave it unset.\n') and told.count('\n') == 1


def test_the_version_is_told(capsys, monkeypatch):
    assert cli.main(['--version']) == 0
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
    for what in ('train --resume', 'evaluate', 'picture'):
        assert shlex.split(job.command(what, folder)) == ['hebbjax', *what.split(), str(folder)]
    with pytest.raises(KeyboardInterrupt) as stopped, job.resumable(folder):
        raise KeyboardInterrupt
    with pytest.raises(OSError) as full, job.resumable(folder):
        raise OSError(errno.ENOSPC, 'No space left on device')
    for told in (stopped, full):
        _, _, command = str(told.value).partition('go on with: ')
        assert shlex.split(command) == ['hebbjax', 'train', '--resume', str(folder)]
    assert shlex.split(data.command_of('mnist', folder)) == ['hebbjax', 'data', 'mnist', '--data-dir', str(folder)]


# Signals


class Finalised:
    """What raises a signal where Python drops the exception."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.fixture
def handlers():
    """Signal handlers as they were, after a test."""
    before = {number: signal.getsignal(number) for number in interrupt.USUAL}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('number', interrupt.USUAL)
@pytest.mark.parametrize('background', [False, True])
@pytest.mark.parametrize('nested', [False, True])
@pytest.mark.parametrize('how', ['raised', 'held', 'dropped'])
def test_both_signals_are_heard_wherever_they_arrive(number, background, nested, how, handlers):
    """Except that a job in the background, which ignores Ctrl-C, goes on ignoring it."""
    usual = interrupt.USUAL | ({signal.SIGINT: signal.SIG_IGN} if background else {})
    for one, handler in usual.items():
        signal.signal(one, handler)
    deaf, order = background and number == signal.SIGINT, []
    with interrupt.listening() as listener:
        with interrupt.listening() if nested else contextlib.nullcontext(listener) as inner:
            try:
                if how == 'held':
                    with interrupt.undisturbed():
                        signal.raise_signal(number)
                        order.append('through')
                elif how == 'dropped':
                    Finalised(number)
                    inner()
                else:
                    signal.raise_signal(number)
            except KeyboardInterrupt:
                order.append('heard')
        assert inner is listener
        assert listener.code == (130 if deaf else 128 + number)
    assert order == ['through'] * (how == 'held') + ['heard'] * (not deaf)
    assert {one: signal.getsignal(one) for one in usual} == usual


@pytest.mark.parametrize('number', interrupt.USUAL)
def test_a_signal_that_somebody_handles_is_left_to_him(number, handlers):
    theirs = []
    signal.signal(number, lambda *told: theirs.append(told[0]))
    with interrupt.listening() as listener:
        signal.raise_signal(number)
        with interrupt.undisturbed():
            signal.raise_signal(number)
            assert theirs == [number]
    listener()
    assert theirs == [number, number]


def test_sigterm_keeps_a_checkpoint_and_going_on_ends_in_the_same_bits(tmp_path, capsys):
    """And the commands that it suggests can be pasted, whatever its folder is called."""
    flags = ['train', 'dense', '--dataset', 'digits', '--features', '20', '--epochs', '200', '--batch', '20', '--look',
             '0', '--callbacks', 'log', 'checkpoint', '--save-every', '1000', '--run']  # fmt: skip
    folder, whole = tmp_path / 'Ünï cödé 日本', tmp_path / '[/b] $x'
    # a job in the background, as shells start it
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
    assert 2 <= len(files.read_lines(lines)) < 200
    assert cli.main(shlex.split(command)[1:]) == 0
    assert cli.main([*flags, str(whole)]) == 0
    _, _, suggested = capsys.readouterr().out.rpartition('next: ')
    assert shlex.split(suggested) == ['hebbjax', 'evaluate', f'{whole},', 'hebbjax', 'picture', str(whole)]
    kept = []
    for one in (folder, whole):
        config = recipes.rebuild(runs.config_of(one), one, None)
        state, _ = callbacks.Checkpoints(one / runs.CHECKPOINTS).restore(config.subject().state)
        kept.append([checkpoint.plain(leaf) for leaf in checkpoint.leaves_of(state).values()])
    for ours, theirs in zip(*kept, strict=True):
        np.testing.assert_array_equal(ours, theirs)
