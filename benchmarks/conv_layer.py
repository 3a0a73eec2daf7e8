"""One Hebbian step of the papers' convolutional layers, in several forms of the same sum, beside its bare product."""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import timing
from jax import lax
from rich.console import Console

import hebbjax
from hebbjax import layers, rules, transforms
from hebbjax.cli.main import run_command
from hebbjax.layers.layer import matmul_drives
from hebbjax.rules.top_k import check_k


class Shape(NamedTuple):
    """A convolutional layer of a paper."""

    batch: int
    side: int
    channels: int
    window: int
    neurons: int
    rule: str  # krotov or instar


SHAPES = {
    'talloen': Shape(128, 28, 1, 5, 400, 'krotov'),
    'miconi1': Shape(100, 32, 3, 5, 100, 'instar'),
    'miconi2': Shape(100, 14, 100, 3, 196, 'instar'),
    'amato': Shape(100, 32, 3, 5, 96, 'instar'),
}


NEEDED = 'patches_product', 'hebbjax_step'  # what the others are compared with


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Time and memory of one Hebbian step of a convolutional layer, in every form the library knows or refuses."""

    repetitions: int = 9
    """Turns of every contestant; medians are reported."""
    shapes: tuple[str, ...] = tuple(SHAPES)
    """Which layers: talloen (28x28x1, 400 of 5x5), miconi1, miconi2 (14x14x100, 196 of 3x3), amato."""
    batch: int | None = None
    """Images per step; left out: the paper's."""
    steps: int = 4
    """Steps in a turn, one after the other on the same batch."""
    k: int = 4
    """Rank that unlearns, for Krotov-Hopfield."""
    only: tuple[str, ...] | None = None
    """Which forms beside the bare product and the library's step; left out: all of them."""


def make_layer(shape: Shape, k: int, microbatch: int | None = None) -> hebbjax.Layer:
    """Build the layer of a shape on raw patches."""
    rule = rules.krotov(k, 0.4, 2.0) if shape.rule == 'krotov' else rules.instar(1, reduce=rules.sum_over_patches)
    return hebbjax.Layer(
        shape.neurons,
        rule,
        transforms.scale_by_rate(0.01),
        hebbjax.Window(shape.window),
        patch_transform=layers.raw,
        microbatch=microbatch,
    )


def library_step(layer: hebbjax.Layer, w: jax.Array, images: jax.Array) -> jax.Array:
    """Learn from one batch as the library does."""
    state = layers.LayerState(w, (), layer.tx.init(w))
    return layers.update_layer(layer, jax.random.key(0), state, images)[0].w


def convolve(shape: Shape, w: jax.Array, images: jax.Array) -> jax.Array:
    """Compute drives by a convolution. [B, H, W, C] -> [B, H', W', N]."""
    kernel = w.reshape(shape.neurons, shape.window, shape.window, shape.channels).transpose(1, 2, 3, 0)
    return lax.conv_general_dilated(
        images, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision=lax.Precision.HIGHEST
    )


def weight_gradient_step(shape: Shape, k: int, w: jax.Array, images: jax.Array) -> jax.Array:
    """Learn without patches: sum_p pull_pi x_p is the gradient of <pull, convolution> with respect to the filters."""
    u, gradient = jax.vjp(lambda w: convolve(shape, w, images), w)
    rows = u.reshape(-1, shape.neurons)
    if shape.rule == 'krotov':
        pull = rules.krotov_ranks(k, 0.4)(None, rows)
        leak = (pull * rows).sum(0)
    else:
        pull = rules.hard_wta()(None, rows)
        leak = pull.sum(0)
    (summed,) = gradient(pull.reshape(u.shape))
    return w + 0.01 * (summed - leak[:, None] * w)


def forms(shape: Shape, k: int) -> dict[str, Callable]:
    """Give all forms: name -> (w, images) -> an array. Those ending in _step learn, and agree."""
    layer = make_layer(shape, k)
    cut = lambda images: layers.layer_patches(layer, images).reshape(-1, shape.window**2 * shape.channels)  # noqa: E731
    return {
        'patches': lambda w, images: cut(images),
        'patches_product': lambda w, images: matmul_drives(layer, cut(images), w),
        'convolution': partial(convolve, shape),
        'hebbjax_step': partial(library_step, layer),
        'whole_batch_step': partial(library_step, make_layer(shape, k, microbatch=shape.batch)),
        'weight_gradient_step': partial(weight_gradient_step, shape, k),
    }


def measure(name: str, shape: Shape, config: Config, console: Console) -> list[timing.Row]:
    """Time all forms of one layer in turn, hold those that learn to the same numbers, print a table."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((shape.batch, shape.side, shape.side, shape.channels), np.float32))
    w = jnp.asarray(rng.standard_normal((shape.neurons, shape.window**2 * shape.channels), np.float32))
    known = forms(shape, config.k)
    timing.refuse_unknown('only', config.only or (), known)
    wanted = [form for form in known if config.only is None or form in (*config.only, *NEEDED)]
    built = {form: timing.compiled(jax.jit(known[form]), w, images) for form in wanted}
    x = jax.jit(known['patches'])(w, images)
    product = timing.compiled(jax.jit(lambda w, x: matmul_drives(make_layer(shape, config.k), x, w)), w, x)
    calls = {form: partial(program, w, images) for form, (program, _) in built.items()}
    calls = {'drive_product': partial(product[0], w, x), **calls}
    built = {'drive_product': product, **built}
    difference = disagreement(w, {form: calls[form]() for form in built if form.endswith('_step')})
    again = lambda call: [jax.block_until_ready(call()) for _ in range(config.steps)][-1]  # noqa: E731
    seconds = timing.in_turn({form: partial(again, call) for form, call in calls.items()}, config.repetitions, console)
    flops = 2.0 * len(x) * w.size * config.steps
    rows = [
        timing.Row(
            form, seconds[form], config.steps, took, flops, {'shape': name, 'mebibytes': timing.mebibytes(program)}
        )
        for form, (program, took) in built.items()
    ]
    base = next(row for row in rows if row.row == 'patches_product').median
    for row in rows:
        row.more['times_patches_product'] = row.median / base
        row.more['difference'] = difference.get(row.row)
    columns = {
        **timing.TIMES,
        'of patches + product': lambda row: f'{row.more["times_patches_product"]:.2f}x',
        'MiB': lambda row: '-' if row.more['mebibytes'] is None else f'{row.more["mebibytes"]:.1f}',
        'difference': lambda row: '' if row.more['difference'] is None else f'{row.more["difference"]:.0e}',
    }
    rule = f'Krotov-Hopfield, k = {config.k}' if shape.rule == 'krotov' else 'hard winner-take-all'
    title = f'{name}: {shape.batch} x {shape.side} x {shape.side} x {shape.channels} to {shape.neurons} of '
    timing.show(f'{title}{shape.window} x {shape.window}, {rule}', columns, rows, console)
    return rows


def disagreement(w: jax.Array, learned: dict[str, jax.Array], tolerance: float = 1e-4) -> dict[str, float]:
    """Give each form's largest difference to the library's, in units of the largest change, or refuse it.

    Two forms round differently, so that of many thousand patches one may be won by another neuron.
    """
    change = jnp.abs(learned['hebbjax_step'] - w).max()
    apart = {form: float(jnp.abs(w - learned['hebbjax_step']).max() / change) for form, w in learned.items()}
    for form, difference in apart.items():
        if not difference <= tolerance:
            raise ArithmeticError(f'{form} differs from hebbjax_step by {difference:.1e} of the largest change.')
    return apart


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time every layer asked for, write the JSON."""
    device, rows = config.prepare(), []
    timing.refuse_unknown('shapes', config.shapes, SHAPES)
    for name in config.shapes:  # before the first of them is measured
        check_k(config.k, SHAPES[name].neurons)
    with jax.default_device(device):
        for name in config.shapes:
            shape = SHAPES[name]
            if config.batch is not None:
                shape = shape._replace(batch=config.batch)
            rows += measure(name, shape, config, console)
    timing.write(config.json, rows, dataclasses.asdict(config), device)
    return rows


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'conv_layer.py'))
