"""All GPU rows of RECORDS.md in one run of at most four minutes: each part is a benchmark, started by itself.

A part that takes too long, or cannot run, is left out and said; the others' results are written as they end.
"""

import os

os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # else this process would keep the GPU's memory

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import timing
from rich.console import Console

from hebbjax.cli.main import run_command
from hebbjax.cli.tables import print_table
from hebbjax.support import files

HERE = pathlib.Path(__file__).resolve().parent
EPOCH = 'krotov_mnist.py', '--p', '2', '--synthetic', '--repetitions', '5'
PARTS = {
    'krotov_highest': (*EPOCH, '--k', '7', '2', '--only', 'hebbjax', 'drive_product', 'torch_eager', 'torch_sparse'),
    'krotov_float32x3': (*EPOCH, '--k', '2', '--precision', 'float32x3', '--only', 'hebbjax', 'drive_product'),
    'krotov_tensorfloat32': (*EPOCH, '--k', '2', '--precision', 'tensorfloat32', '--only', 'hebbjax', 'drive_product'),
    'krotov_bfloat16': (*EPOCH, '--k', '2', '--precision', 'bfloat16', '--only', 'hebbjax', 'drive_product'),
    'conv_layer': ('conv_layer.py', '--repetitions', '5', '--only', 'hebbjax_step'),
    'miconi_step': ('miconi_step.py', '--repetitions', '5'),
    'seeds': ('seeds_at_once.py', '--seeds', '1', '10', '100'),
    'deterministic': ('seeds_at_once.py', '--seeds', '1', '--deterministic'),
    'cold_start': ('cold_start.py', '--repetitions', '1'),
    'krotov_compile': (*EPOCH, '--k', '2', '--only', 'hebbjax', 'torch_compile'),
}
"""What is run, the most wanted first: name -> script and flags."""


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Run every benchmark that a GPU is asked for, and write its rows of RECORDS.md."""

    device: str | None = 'gpu'
    """cpu, gpu or tpu."""
    json: pathlib.Path | None = HERE / 'results' / 'accelerator.json'
    """File for all results, those that RECORDS.md shows."""
    seconds: int = 240
    """For all parts together; what would begin later is left out."""
    parts: tuple[str, ...] = tuple(PARTS)
    """Which parts, in this order."""


def run_part(name: str, seconds: float, device: str, console: Console) -> dict | str:
    """Run a benchmark in a process of its own. -> its JSON, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / f'{name}.json'
        script, *flags = PARTS[name]
        command = [sys.executable, str(HERE / script), *flags, '--device', device, '--json', str(out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
        except subprocess.TimeoutExpired:
            return f'took longer than the {seconds:.0f} seconds that were left'
        if done.returncode:
            return (done.stderr.strip().splitlines() or ['it failed'])[-1]
        console.print(done.stdout)
        return json.loads(out.read_text())


def run(config: Config, console: Console) -> list[dict]:
    """Run the parts in turn, each while there is time, write what there is after each."""
    device = config.prepare().platform
    timing.refuse_unknown('parts', config.parts, PARTS)
    began, rows, left_out, first = time.perf_counter(), [], [], None
    for name in config.parts:
        left = config.seconds - (time.perf_counter() - began)
        result = run_part(name, left, device, console) if left > 5 else 'no time was left'
        if isinstance(result, str):
            left_out.append([name, result])
            continue
        first = first or result
        rows += [{**row, 'row': f'{name}: {row["row"]}'} for row in result['rows']]
        if config.json is not None:
            files.write_json(config.json, {**first, 'rows': rows, 'config': {'seconds': config.seconds}})
    if left_out:
        print_table('left out', ('part', 'why'), left_out, console)
    if not rows:
        raise ValueError('no part could run; see above.')
    return rows


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'accelerator.py'))
