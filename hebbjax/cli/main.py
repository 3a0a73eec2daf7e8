"""The command line: commands by name; bad input ends in one sentence and exit code 2, Ctrl-C in 130, SIGTERM in 143."""

import dataclasses
import importlib
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import tyro

from hebbjax.cli import flags, launch
from hebbjax.cli.output import lasting_output, make_console
from hebbjax.support.checks import check_choice, require
from hebbjax.support.signals import listen

COMMANDS = ('compare', 'train', 'evaluate', 'plot', 'show', 'features', 'data')
USAGE = """usage: hebbjax [COMMAND] [flags]

  compare                       Hebbian features beside their controls, over seeds; where no command is named
  train cnn | dense | miconi    train a network, watched, into a new run folder
  train --resume RUN            go on with one that was interrupted
  evaluate RUN                  judge it by a classifier, beside controls
  plot RUN                      draw all that the folder holds
  show RUN                      the same and all numbers as one HTML page
  features --dataset IMAGES     write features of images and their labels, as .npz or .npy
  data NAME                     download and prepare mnist, fashion_mnist or cifar10, without TensorFlow

hebbjax compare --help, train cnn --help, and so on, list the flags; hebbjax --version tells the version.
Exit code 0, or 2 for what cannot be done; 130 after Ctrl-C and 143 after SIGTERM, which keep what was reached."""


@dataclasses.dataclass(frozen=True)
class PrepareData:
    """Download a data set and prepare it for tensorflow-datasets, checksums verified, without TensorFlow."""

    name: tyro.conf.Positional[str]  # mnist, fashion_mnist or cifar10
    data_dir: pathlib.Path | None = None  # Where to; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' default


def prepare_data(settings: PrepareData, console) -> None:
    """Prepare a data set and say where it lies."""
    from hebbjax.data.download import prepare_dataset

    console.print(f'{settings.name} lies prepared in {prepare_dataset(settings.name, settings.data_dir)}')


def find_command(name: str, words: Sequence[str]) -> tuple[type, Callable]:
    """Give the flags of a command and what is done with them; of all others nothing is imported."""
    if name == 'data':
        return PrepareData, prepare_data
    module = importlib.import_module(f'hebbjax.cli.{name}')
    if name == 'train':
        return module.find_train(words)
    return getattr(module, name.title()), getattr(module, f'run_{name}')


@lasting_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Run `hebbjax`, the console command and `python -m hebbjax`. -> its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv in (['--version'], ['--help'], ['-h'], ['train', '--help'], ['train', '-h']):
        print(f'hebbjax {sys.modules["hebbjax"].__version__}' if argv == ['--version'] else USAGE)
        return 0
    name, words = (argv[0], argv[1:]) if argv and not argv[0].startswith('-') else ('compare', argv)
    try:
        check_choice('command', name, COMMANDS)
        settings, command = find_command(name, words)
    except ValueError as error:
        print(f'hebbjax: error: {error}', file=sys.stderr)
        return 2
    return run_command(settings, command, words, f'hebbjax {name}')


@lasting_output()
def run_command(settings, command: Callable, argv: Sequence[str], prog: str) -> int:
    """Read the flags of a dataclass, or of one whose values are the defaults, and run `command(settings, console)`,
    which says True where it was ended early. -> exit code.
    """
    kind = settings if isinstance(settings, type) else type(settings)
    wide, defaults = launch.with_cache(kind), {}
    if kind is not settings:
        defaults['default'] = wide(**vars(settings))
    with listen() as listener:
        try:
            chosen = vars(tyro.cli(wide, args=list(argv), prog=prog, **defaults)).copy()
            listener()
            if (folder := chosen.pop('compilation_cache')) is not None:
                launch.keep_programs(folder)
            chosen = kind(**chosen)
            flags.check_settings(chosen)
            for name, value in vars(chosen).items():
                is_lost = isinstance(value, tuple) and argv.count(flags.flag(name)) > 1  # the last alone counts
                require(not is_lost, f'{flags.flag(name)} is given twice; name all its values behind one.')
            launch.start(chosen)
            is_interrupted = command(chosen, make_console()) is True
        except (ValueError, OSError, ImportError, RuntimeError, AssertionError, MemoryError) as error:
            words = ' '.join(str(error).split())
            if isinstance(error, OSError) and error.filename and error.strerror:  # the system's own
                words = f'{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}.'
            elif isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in words:  # jax has no kind of its own
                words = 'this needs more memory than there is; use fewer neurons, images or seeds, or smaller batches.'
            elif isinstance(error, RuntimeError | AssertionError):
                words = launch.missing_device()
                if words is None:  # a bug
                    raise
            print(f'{prog}: error: {words}', file=sys.stderr)
            launch.leave(2)
            return 2
        except KeyboardInterrupt as stop:
            print(f'{prog}: interrupted; {stop.args[0] if stop.args else "nothing was reached yet"}', file=sys.stderr)
            launch.leave(listener.code)
            return listener.code
        return listener.code if is_interrupted else 0


def run() -> None:
    """Be the console command. After a signal the process ends at once: XLA would finish its epoch first."""
    with listen() as listener:
        try:
            code = main()
        except KeyboardInterrupt:  # while something is still being imported, say
            code = listener.code
    (os._exit if code > 128 else sys.exit)(code)
