"""One epoch of Krotov and Hopfield's dense network on MNIST: hebbjax, numpy, torch and the bare matrix product.

Every contestant learns from the same batches (60,000 images in 58 batches of 1024 and one of 608), in the same run,
in turn. hebbjax runs a whole epoch as one program, data resident as uint8, shuffled on the device; the others get
their batches ready-made, in the floating type they compute in.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpy_baseline
import optax
import timing
from rich.console import Console

import hebbjax
from hebbjax import data, layers, rules, transforms
from hebbjax.cli.main import run_command
from hebbjax.layers.layer import matmul_drives

RATE, DELTA = 0.02, 0.4


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Seconds per epoch of Krotov-Hopfield learning: hebbjax against numpy, torch and the bare product, in one run."""

    hidden: int = 2000
    """N, hidden units."""
    batch: int = 1024
    """Images per step; the last, smaller batch is kept."""
    images: int = 60_000
    """Images per epoch, from the first."""
    k: tuple[int, ...] = (7, 2)
    """Ranks that unlearn."""
    p: tuple[float, ...] = (3.0, 2.0)
    """Exponents of the norm."""
    only: tuple[str, ...] | None = None
    """Which rows to time; left out: all that can run here."""
    precision: str = 'highest'
    """Of hebbjax's products: highest (float32), float32x3 (as accurate), tensorfloat32 or bfloat16."""
    synthetic: bool = False
    """Random images of MNIST's shape, although MNIST is there."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""


def load(config: Config, console: Console) -> tuple[np.ndarray, str]:
    """Read MNIST's training images, uint8 [n, 28, 28, 1], or make some of its shape, and say so.

    Returns:
        the images, and 'mnist' or 'synthetic'.
    """
    if not config.synthetic:
        try:
            images, _ = data.load('mnist', 'train', data_dir=config.data_dir)
            if len(images) < config.images:
                raise ValueError(f'--images {config.images} is more than the {len(images)} of MNIST.')
            return images[: config.images], 'mnist'
        except FileNotFoundError:
            if config.data_dir is not None:
                raise
            console.print('MNIST is not there: synthetic images of its shape (one pixel in five is lit).')
    rng = np.random.default_rng(0)
    shape = (config.images, 28, 28, 1)
    lit = rng.random(shape, dtype=np.float32) < 0.2
    return (rng.integers(1, 256, shape) * lit).astype(np.uint8), 'synthetic'


def make_layer(config: Config, k: int, p: float) -> hebbjax.Layer:
    """Build the layer of one setting."""
    return hebbjax.Layer(
        config.hidden,
        rules.krotov(k, DELTA, p),
        optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(RATE)),
        precision=config.precision,
    )


def hebbjax_epochs(config: Config, k: int, p: float, images: jax.Array) -> tuple[Callable, float]:
    """Compile the epoch, state donated; give a turn that learns one more epoch, and the seconds of compiling."""
    net = (make_layer(config, k, p),)
    state = hebbjax.init(net, jax.random.key(0), images.shape[1:])
    epoch = hebbjax.make_train_epoch(net, batch=config.batch, keep_last=True, donate=True)
    program, seconds = timing.compiled(epoch, state, images)

    def turn():
        nonlocal state
        state, info = program(state, images)
        return info

    return turn, seconds


def product_epoch(config: Config, k: int, p: float, images: jax.Array) -> tuple[Callable, float]:
    """Compile the drive products of an epoch and nothing else: what no step can do without."""
    spec, steps = make_layer(config, k, p), steps_of(config)
    x = images.reshape(len(images), -1).astype(jnp.float32) / 255
    w = jnp.asarray(np.random.default_rng(0).standard_normal((config.hidden, x.shape[1]), np.float32))

    def products(x, w):
        def step(number, last):
            # w depends on the last product, lest they be seen to be the same; all of u is kept until it is counted
            rows = jax.lax.dynamic_slice_in_dim(x, number * config.batch, config.batch)
            u = jax.lax.optimization_barrier(matmul_drives(spec, rows, w + 0 * last))
            return u[0, 0]

        whole = len(x) // config.batch
        last = jax.lax.fori_loop(0, whole, step, jnp.zeros(()))
        if whole < steps:
            last += jax.lax.optimization_barrier(matmul_drives(spec, x[whole * config.batch :], w))[0, 0]
        return last

    program, seconds = timing.compiled(jax.jit(products), x, w)
    return lambda: program(x, w), seconds


def steps_of(config: Config) -> int:
    """Count the batches of an epoch, the last, smaller one among them."""
    return -(-config.images // config.batch)


def contestants(config: Config, k: int, p: float, images: np.ndarray, device: jax.Device) -> dict[str, tuple]:
    """Build all rows that can run here: name -> (turn, seconds of compiling)."""
    on_device = jax.device_put(images, device)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    inputs = images[0].size
    settings = {'hidden': config.hidden, 'batch': config.batch, 'k': k, 'delta': DELTA, 'p': p, 'rate': RATE}
    numpy_turn = lambda step, dtype: (numpy_baseline.epoch(step, dtype, images, **settings), 0.0)  # noqa: E731
    published, best = numpy_baseline.published, numpy_baseline.make_best(config.hidden, inputs, threads=threads)
    build = {
        'hebbjax': lambda: hebbjax_epochs(config, k, p, on_device),
        'drive_product': lambda: product_epoch(config, k, p, on_device),
        'numpy_published': lambda: numpy_turn(published, np.float64),
        'numpy_published_float32': lambda: numpy_turn(published, np.float32),
        'numpy_best': lambda: numpy_turn(best, np.float32),
    }
    try:
        import torch_baseline
    except ImportError:
        pass
    else:
        torch_device = 'cuda' if device.platform == 'gpu' else 'cpu'
        for name in ('torch_eager', 'torch_compile', 'torch_sparse', 'torch_sparse_compile'):
            build[name] = lambda name=name: (torch_baseline.epoch(name, torch_device, images, **settings), 0.0)
    wanted = config.only or tuple(build)
    timing.refuse_unknown('only', wanted, build, 'cannot run here')
    return {name: build[name]() for name in wanted}


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time every setting, print a table each, write the JSON."""
    device = config.prepare()
    settings = [(k, p) for k in config.k for p in config.p]
    for k, p in settings:
        layers.init_layer(make_layer(config, k, p), jax.random.key(0), (28, 28, 1))  # refuses what cannot compete
    images, kind = load(config, console)
    rows = []
    with jax.default_device(device):
        for k, p in settings:
            rows += time_setting(config, k, p, images, device, console)
    timing.write(config.json, rows, {**dataclasses.asdict(config), 'data': kind}, device)
    return rows


def time_setting(config, k, p, images, device, console) -> list[timing.Row]:
    """Time one setting: all contestants in turn."""
    built = contestants(config, k, p, images, device)
    seconds = timing.in_turn({name: turn for name, (turn, _) in built.items()}, config.repetitions, console)
    flops = 2.0 * images.size * config.hidden
    rows = [
        timing.Row(name, seconds[name], steps_of(config), built[name][1], flops, {'k': k, 'p': p}) for name in built
    ]
    by_name = {row.row: row for row in rows}
    ours, bare = by_name.get('hebbjax'), by_name.get('drive_product')
    for row in rows:
        row.more['times_hebbjax'] = row.median / ours.median if ours else None
        row.more['fraction_of_product'] = bare.median / row.median if bare else None
    ratio = lambda value, unit: '-' if value is None else f'{value:.2f}{unit}'  # noqa: E731
    columns = {
        **timing.TIMES,
        'epoch s': lambda row: f'{row.median * row.steps:.3f}',
        'ours': lambda row: ratio(row.more['times_hebbjax'], 'x'),
        'product': lambda row: ratio(row.more['fraction_of_product'], ''),
        'GFLOP/s': lambda row: f'{row.flops / row.steps / row.median / 1e9:.0f}',
        'compile s': lambda row: f'{row.compile_seconds:.1f}',
    }
    title = f'k = {k}, p = {p:g}, {config.hidden} units, {steps_of(config)} batches of {config.batch}'
    if config.images % config.batch:
        title += f' (the last of {config.images % config.batch}, kept)'
    timing.show(f'{title}, {device.device_kind}', columns, rows, console)
    console.print('ms a step, median and range; ours: times hebbjax; product: share that the drives take', style='dim')
    return rows


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'krotov_mnist.py'))
