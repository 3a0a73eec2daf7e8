"""The command line: jobs by name, one sentence and exit code 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import tyro
from rich.console import Console

from hebbjax import output
from hebbjax.interrupt import listening

USAGE = """usage: hebbjax [COMMAND] [flags]

Experiments: Hebbian features beside their controls, over seeds; a table at the end.
  cnn         Hebbian convolution under a trained head; the default, on embedded digits
  dense       Krotov and Hopfield's dense network
  miconi      three Hebbian layers on CIFAR-10 (Miconi 2021, table 1)
  amato       Hebbian and gradient layers on CIFAR-10 in any mixture (Amato 2019)

One network at a time, watched, in a run folder.
  train cnn | dense | miconi    train a network into a new folder
  train --resume RUN            go on with one that was interrupted
  evaluate RUN                  judge it by a classifier, beside controls
  picture RUN                   draw all that the folder holds

  data NAME   download and prepare mnist, fashion_mnist or cifar10, without TensorFlow

hebbjax cnn --help, and likewise for the others, lists the flags; hebbjax --version tells the version.
Exit code 0, or 2 for what cannot be done; 130 after Ctrl-C and 143 after SIGTERM, which keep what was reached."""

COMMANDS = ('cnn', 'dense', 'miconi', 'amato', 'train', 'evaluate', 'picture', 'data')


@dataclasses.dataclass(frozen=True)
class Data:
    """Download a data set and prepare it for tensorflow-datasets, checksums verified, without TensorFlow."""

    name: tyro.conf.Positional[str]
    """mnist, fashion_mnist or cifar10."""
    data_dir: pathlib.Path | None = None
    """Where to; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""


@output.lasting()
def run_job(config: type, job: Callable, argv: Sequence[str], prog: str) -> int:
    """Read flags into a configuration, run a job, and turn what went wrong into a sentence and an exit code.

    Args:
        config: dataclass of the flags.
        job: (config, console) -> an object whose `interrupted` says whether the user ended it early.
        argv: the flags.
        prog: name of the command, for messages.

    Returns:
        0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    with listening() as listener:
        try:
            settings = tyro.cli(config, args=list(argv), prog=prog)
            listener()
            result = job(settings, output.console())
        except (ValueError, OSError, ModuleNotFoundError) as error:
            print(f'{prog}: error: {error}', file=sys.stderr)
            return 2
        except (RuntimeError, AssertionError, MemoryError) as error:
            if (trouble := no_room(error) or no_device()) is None:
                raise
            print(f'{prog}: error: {trouble}', file=sys.stderr)
            return 2
        except KeyboardInterrupt as stop:
            print(f'{prog}: interrupted; {stop.args[0] if stop.args else "nothing was reached yet"}', file=sys.stderr)
            return listener.code
        return listener.code if getattr(result, 'interrupted', False) else 0


def no_room(error: Exception) -> str | None:
    """Say that memory was not enough, if that is so; jax has no kind of its own for it."""
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
        return 'this needs more memory than there is; use fewer neurons, images or seeds at once, or smaller batches.'
    return None


def no_device() -> str | None:
    """Say that jax finds nothing to compute on, if that is so."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second for cuda where jax was installed without it
        asked, reason = os.environ.get('JAX_PLATFORMS', ''), str(error).partition(' (set JAX_PLATFORMS')[0]
        because = f' ({reason})' if reason else ''
        return f'jax cannot compute on JAX_PLATFORMS={asked!r}{because}; use JAX_PLATFORMS=cpu, or leave it unset.'
    return None


def prepare_data(settings: Data, console: Console) -> None:
    """Prepare a data set and say where it lies."""
    from hebbjax import prepare

    folder = prepare.prepare(settings.name, settings.data_dir)
    console.print(f'{settings.name} lies prepared in {folder}', highlight=False, soft_wrap=True)


@output.lasting()
def main(argv: Sequence[str] | None = None) -> int:
    """Run `hebbjax`, the console command and `python -m hebbjax`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] in (['--help'], ['-h']):
        print(USAGE)
        return 0
    if argv[:1] == ['--version']:
        print(f'hebbjax {sys.modules[__package__].__version__}')
        return 0
    name, rest = (argv[0], argv[1:]) if argv and not argv[0].startswith('-') else ('cnn', argv)
    if name not in COMMANDS:
        print(f'hebbjax: error: {name!r} is no command; there are {", ".join(COMMANDS)}.', file=sys.stderr)
        return 2
    if name == 'data':
        return run_job(Data, prepare_data, rest, 'hebbjax data')
    if name == 'train':
        return train(rest)
    # late: jax is slow to import; a usage text is not
    from hebbjax.jobs import amato, cnn, dense, evaluate, miconi, picture

    settings, job = {
        'cnn': (cnn.Config, cnn.run),
        'dense': (dense.Config, dense.run),
        'miconi': (miconi.Config, miconi.run),
        'amato': (amato.Config, amato.run),
        'evaluate': (evaluate.Evaluate, evaluate.run),
        'picture': (picture.Picture, picture.run),
    }[name]
    return run_job(settings, job, rest, f'hebbjax {name}')


def run() -> None:
    """Be the console command."""
    with listening() as listener:
        try:
            code = main()
        except KeyboardInterrupt:  # while something is still being imported, say
            print('hebbjax: interrupted; nothing was reached yet', file=sys.stderr)
            code = listener.code
    leave(code)


def leave(code: int) -> None:
    """End the process; after Ctrl-C or SIGTERM at once, without waiting for what still computes.

    XLA would finish its epoch first, and falls over where it was compiling.
    """
    if code > 128:
        os._exit(code)  # what was printed is flushed
    sys.exit(code)


def train(argv: Sequence[str]) -> int:
    """Run `hebbjax train NETWORK ...` or `hebbjax train --resume RUN`."""
    if argv[:1] in (['--help'], ['-h']):
        print(USAGE)
        return 0
    from hebbjax.jobs import recipes, train

    if any(word.partition('=')[0] == '--resume' for word in argv):
        return run_job(train.Resume, train.resume, argv, 'hebbjax train')
    name, rest = argv[:1], argv[1:]
    if name not in [[known] for known in recipes.RECIPES]:
        asked = repr(name[0]) if name else 'nothing'
        there = ', '.join(recipes.RECIPES)
        print(
            f'hebbjax train: error: {asked} is no network; there are {there}; or go on with --resume RUN.',
            file=sys.stderr,
        )
        return 2
    return run_job(recipes.RECIPES[name[0]], train.run, rest, f'hebbjax train {name[0]}')
