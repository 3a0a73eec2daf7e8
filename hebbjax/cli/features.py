"""Write what a network answers to images, for any classifier elsewhere."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from rich.console import Console

from hebbjax import interop, layers, readout, training
from hebbjax.base import Array
from hebbjax.cli import flags, run_folder
from hebbjax.cli.settings import Source, check_fits, hold_out
from hebbjax.cli.train import Watched, begin_again, check_shape, read_run
from hebbjax.interop.export import check_weights_path
from hebbjax.layers import LayerState, Network
from hebbjax.readout.blocks import over_blocks
from hebbjax.support import files
from hebbjax.support.checks import check_choice, check_count, require
from hebbjax.support.moments import WIDE
from hebbjax.training import presets
from hebbjax.training.comparison import initial_state


@dataclasses.dataclass(frozen=True)
class Features(Source):
    """Write the features of images and their labels: what a network answers that learned from them, without labels.

    It is trained here (--recipe), or comes from a run (--run) or from a file of weights (--weights). An .npz file holds
    `features` [n, F], `labels` [n], names of `classes`, and of test images, where there are such, `test_features` and
    `test_labels`; beside an .npy file, of the training images alone, lies NAME-labels.npy. Where there are labels, a
    linear probe (ridge regression) is fitted and judged by the test images, or by --test of all, unseen by it.
    """

    dataset: str | None = None  # digits, mnist ...; a folder, .npz, .npy, .csv, .parquet; left out: the run's or digits
    out: pathlib.Path = pathlib.Path('features.npz')  # File to write, .npz or .npy
    recipe: flags.choice(*presets.RECIPES) | None = None  # krotov; miconi or softhebb, three layers; left out: krotov
    features: tuple[flags.Count, ...] | None = None  # Neurons of its layers; left out: chosen by size and number
    epochs: flags.Count | None = None  # Epochs to train it; left out: chosen by size and number of the images
    seed: flags.Seed = 0  # Draws weights and order
    run: pathlib.Path | None = None  # Run folder of a network that was trained before
    epoch: flags.CountOrZero | None = None  # Which checkpoint of the run; left out: the last
    weights: pathlib.Path | None = None  # Weights of the recipe, .npz or .safetensors, instead of training
    save_weights: pathlib.Path | None = None  # File for the weights, .npz or .safetensors
    upto: flags.Count | None = None  # Layers to pass through; left out: all


def run_features(settings: Features, console: Console) -> None:
    """Find or train a network, and write what it answers to all images."""
    ending = settings.out.suffix
    check_choice(f'ending of {settings.out.name}', ending, ('.npz', '.npy'))
    beside = settings.out.with_name(f'{settings.out.stem}-labels.npy')
    files.check_writable(settings.out, settings.save_weights, *([beside] if ending == '.npy' else []))
    other = [f'--{name}' for name in ('recipe', 'features', 'epochs', 'weights') if getattr(settings, name) is not None]
    require(not (settings.run and other), f'the network of --run is as it was trained; leave {", ".join(other)} out.')
    require(settings.run or settings.epoch is None, '--epoch is that of a checkpoint; name its run by --run.')
    for path in filter(None, (settings.weights, settings.save_weights)):
        check_weights_path(path)
    used = [settings.out, settings.dataset, settings.weights, settings.save_weights]
    places = [os.path.realpath(os.path.expanduser(path)) for path in used if path is not None]
    require(places[0] not in places[1:], f'--out {settings.out} is also what is read or saved here; name another file.')

    run = None if settings.run is None else read_run(settings.run, settings.data_dir)
    settings = settings.of_run(run[0]) if run else dataclasses.replace(settings, dataset=settings.dataset or 'digits')
    splits = settings.splits()
    if ending == '.npy' and 'test' in splits:
        console.print('features of the test images are left out; an .npz file holds both')
        splits = ('train',)
    readings = ((split, settings.read_whole(split, console)) for split in splits)
    # on the device, and nowhere else: there is one copy of the images while the network learns
    parts = {split: reading._replace(images=jax.device_put(reading.images)) for split, reading in readings}
    images, sizes = parts['train'].images, {part.images.shape[1:] for part in parts.values()}
    came = f'{settings.dataset} has images of {" and ".join(map(str, sorted(sizes)))}'
    require(len(sizes) == 1, f'{came} in its parts; bring them to one size by --resize.')
    net, states = from_run(settings, *run, images) if run else from_recipe(settings, images, console)
    if settings.save_weights:
        interop.save_weights(settings.save_weights, net, states)

    answer = lambda part: layers.features(net, states, part, settings.upto)  # noqa: E731
    arrays = {'classes': np.array(parts['train'].classes)} if parts['train'].classes else {}
    for split, part in parts.items():
        prefix = '' if split == 'train' else f'{split}_'
        arrays[f'{prefix}features'] = over_blocks(answer, part.images)
        arrays |= {} if part.labels is None else {f'{prefix}labels': part.labels}
    count, width = arrays['features'].shape
    if ending == '.npz':
        files.write_whole(settings.out, lambda file: files.write_npz(file, arrays))
    for path, name in {settings.out: 'features', beside: 'labels'}.items() if ending == '.npy' else ():
        if name in arrays:
            files.write_whole(path, lambda file, name=name: np.save(file, arrays[name]))
    console.print(f'{settings.out}: {width} features of {count} images')
    if 'labels' in arrays:
        console.print(f'linear probe: {probe(arrays, settings.test)}')


def from_recipe(settings: Features, images: Array, console: Console) -> tuple[Network, tuple[LayerState, ...]]:
    """Train a recipe's network on images, or read its weights."""
    given = {name: value for name in ('features', 'epochs') if (value := getattr(settings, name)) is not None}
    name = settings.recipe or 'krotov'
    if name == 'krotov' and 'features' in given:
        require(len(given['features']) == 1, '--features of krotov are one number, the neurons of its layer.')
        given['features'] = given['features'][0]
    recipe = presets.recipe(name, images, **given)
    check_count('--upto', settings.upto or 1, 1, len(recipe.net))
    check_fits(recipe.net, images.shape[1:])
    state = initial_state(recipe, jax.random.key(settings.seed), images)
    if settings.weights is not None:
        return recipe.net, interop.load_weights(settings.weights, recipe.net, state.layers)
    console.print(f'{name}: {recipe.epochs} epochs of {len(images)} images of {settings.dataset}')
    how = {'stages': (training.Stage(recipe.epochs),), 'batch': recipe.batch, 'augment': recipe.augment, 'watch': None}
    progress = training.Progress(console, recipe.epochs, len(images))
    result = training.fit(recipe.net, state, images, callbacks=[progress], **how)
    if result.interrupted:
        raise KeyboardInterrupt
    return recipe.net, result.state.layers


def from_run(settings: Features, run: Watched, about: dict, images: Array) -> tuple[Network, tuple[LayerState, ...]]:
    """Read a run's network from a checkpoint."""
    check_shape(images.shape[1:], about)
    net, first = begin_again(run, about)
    check_count('--upto', settings.upto or 1, 1, len(net))
    checkpoints = training.Checkpoints(settings.run / run_folder.CHECKPOINTS)
    return net, training.resume(checkpoints, first, settings.epoch)[0].layers


def probe(arrays: Mapping[str, np.ndarray], share: float) -> str:
    """Say how well a linear classifier tells held-out images apart by their features, or why that is not known."""
    features, labels = arrays['features'], arrays['labels']
    if features.shape[1] > WIDE:
        return f'not fitted, {features.shape[1]} features are more than the {WIDE} of ridge regression here'
    if np.ptp(labels) == 0:
        return 'not fitted, there is one class'
    train, test = (features, labels), (arrays.get('test_features'), arrays.get('test_labels'))
    if test[1] is None:
        try:
            train, test = ((features[part], labels[part]) for part in hold_out(labels, len(labels), share, seed=1))
        except ValueError as error:  # too few for their classes
            return f'not fitted, {error}'
    model = readout.fit_ridge([train], classes=int(labels.max()) + 1)
    return f'{100 * readout.linear_accuracy(model, [test]):.2f} % of {len(test[1])} held-out images'
