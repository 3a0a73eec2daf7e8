"""The command line: jobs by name, one sentence and exit code 2 for bad input, 130 after Ctrl-C."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Sequence

import tyro
from rich.console import Console

USAGE = """usage: hebbjax [cnn | dense | miconi | data NAME] [flags]

  cnn         Hebbian convolution under a trained head, beside its controls; the default, on embedded digits
  dense       Krotov and Hopfield's dense network, beside its controls
  miconi      three Hebbian layers on CIFAR-10, untrained and trained (Miconi 2021, table 1)
  data NAME   download and prepare mnist, fashion_mnist or cifar10, without TensorFlow

hebbjax cnn --help, and likewise for the others, lists the flags."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Download a data set and prepare it for tensorflow-datasets, checksums verified, without TensorFlow."""

    name: tyro.conf.Positional[str]
    """mnist, fashion_mnist or cifar10."""
    data_dir: pathlib.Path | None = None
    """Where to; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""


def run_job(config: type, job: Callable, argv: Sequence[str], prog: str) -> int:
    """Read flags into a configuration, run a job, and turn what went wrong into a sentence and an exit code.

    Args:
        config: dataclass of the flags.
        job: (config, console) -> an object whose `interrupted` says whether the user ended it early.
        argv: the flags.
        prog: name of the command, for messages.

    Returns:
        0, 2 for bad input, 130 after Ctrl-C.
    """
    console = Console()
    try:
        settings = tyro.cli(config, args=list(argv), prog=prog)
        result = job(settings, console)
    except (ValueError, OSError) as error:
        print(f'{prog}: error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f'{prog}: interrupted before anything was reached', file=sys.stderr)
        return 130
    return 130 if getattr(result, 'interrupted', False) else 0


def prepare_data(settings: Data, console: Console) -> None:
    """Prepare a data set and say where it lies."""
    from hebbjax import prepare

    console.print(f'{settings.name} lies prepared in {prepare.prepare(settings.name, settings.data_dir)}')


def main(argv: Sequence[str] | None = None) -> int:
    """Run `hebbjax`, the console command and `python -m hebbjax`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] in (['--help'], ['-h']):
        print(USAGE)
        return 0
    name, rest = (argv[0], argv[1:]) if argv and not argv[0].startswith('-') else ('cnn', argv)
    if name not in ('cnn', 'dense', 'miconi', 'data'):
        print(f'hebbjax: error: {name!r} is no command; there are cnn, dense, miconi and data.', file=sys.stderr)
        return 2
    if name == 'data':
        return run_job(Data, prepare_data, rest, 'hebbjax data')
    from hebbjax.jobs import cnn, dense, miconi  # late: jax is slow to import, and a usage text does not need it

    job = {'cnn': cnn, 'dense': dense, 'miconi': miconi}[name]
    return run_job(job.Config, job.run, rest, f'hebbjax {name}')
