"""What watching costs: an epoch of the Fashion-MNIST layer alone, watched as by default, and watched at every step."""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import timing
from rich.console import Console

from hebbjax import data, layers, training
from hebbjax.cli.main import run_command
from hebbjax.cli.settings import Krotov


@dataclasses.dataclass(frozen=True)
class Config(timing.Common):
    """Epochs of the Fashion-MNIST layer (400 filters of 5 x 5, 1000 patches a step), watched and not."""

    repetitions: int = 41
    """Turns of every contestant; medians are reported."""
    features: int = 400
    """N, filters."""
    images: int = 55_000
    """Images per epoch."""
    batch: int = 1000
    """Images per step."""
    synthetic: bool = False
    """Noise instead of Fashion-MNIST."""
    data_dir: pathlib.Path | None = None
    """Where prepared data lies; else HEBBJAX_DATA_DIR, TFDS_DATA_DIR, tensorflow-datasets' own default."""


WATCHES = {'not_watched': None, 'default': training.Monitor(), 'every_step': training.Monitor(every=1)}


def run(config: Config, console: Console) -> list[timing.Row]:
    """Time epochs in turn, print a table, write the JSON."""
    device = config.prepare()
    if config.synthetic:
        images = np.random.default_rng(0).integers(0, 256, (config.images, 28, 28, 1), np.uint8)
    else:
        images = data.load('fashion_mnist', 'train', data_dir=config.data_dir).images[: config.images]
    images = jax.device_put(jnp.asarray(images), device)
    settings = Krotov(dataset='fashion_mnist', features=config.features, batch=config.batch, pool=1).resolve()
    net = settings.recipe(len(images)).net
    state = jax.device_put(layers.init(net, jax.random.key(0), images.shape[1:]), device)
    rows, turns = {}, {}
    for name, watch in WATCHES.items():
        epoch = training.make_train_epoch(net, batch=config.batch, watch=watch)
        program, seconds = timing.compiled(epoch, state, images)
        rows[name] = timing.Row(name, [], len(images) // config.batch, seconds)
        turns[name] = lambda program=program: program(state, images)
    for name, seconds in timing.in_turn(turns, config.repetitions, console).items():
        rows[name].seconds = seconds
    alone = np.array(rows['not_watched'].seconds)
    for row in rows.values():
        row.more['times_not_watched'] = float(np.median(np.array(row.seconds) / alone))  # of the same turn
    columns = {**timing.TIMES, 'times not watched': lambda row: f'{row.more["times_not_watched"]:.3f}'}
    timing.show('milliseconds a step', columns, list(rows.values()), console)
    timing.write(config.json, list(rows.values()), dataclasses.asdict(config), device)
    return list(rows.values())


if __name__ == '__main__':
    sys.exit(run_command(Config, run, sys.argv[1:], 'monitors.py'))
