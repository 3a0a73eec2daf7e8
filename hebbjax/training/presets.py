"""Networks by name, with settings for the images at hand: those of known data sets were chosen on validation splits.

They are what the commands and the scikit-learn estimators train (recipes and figures: experiments/RESULTS.md).
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hebbjax import data, rules, transforms
from hebbjax.base import Array, Key
from hebbjax.layers.activations import relu, triangle, triangle_to
from hebbjax.layers.chain import Shape
from hebbjax.layers.homeostasis import Homeostasis
from hebbjax.layers.initializers import pruned, scaled_normal
from hebbjax.layers.layer import Layer, from_patches, to_intensities
from hebbjax.layers.network import Network
from hebbjax.layers.normalization import BatchNorm, standardise
from hebbjax.layers.patches import PATCH_TRANSFORMS, Window, raw
from hebbjax.layers.pooling import avg_pool, max_pool
from hebbjax.readout.schedules import Schedule
from hebbjax.support import checks


class Twin(NamedTuple):
    """How the end-to-end backprop twin of a layer learns: all that is chosen for it, on validation images."""

    schedule: Schedule
    patch_transform: str = 'raw'  # what happens to its patches, one of `PATCH_TRANSFORMS`
    threshold: float = 0.0  # of its head, at first, see `readout.linear_head`
    flips: bool = False  # whether its training images are mirrored at random
    shift: int = 0  # pixels by which they move at most

    @property
    def augment(self) -> Callable[[Key, Array], Array] | None:
        """What they pass, or None."""
        move = data.random_shift(self.shift) if self.shift else None
        if not self.flips:
            return move
        moved = lambda key, images: images if move is None else move(key, images)  # noqa: E731
        return lambda key, images: data.random_flip(jax.random.fold_in(key, 1), moved(key, images))


# of schedules: epochs, batch, rate, its factor after so many epochs without a better accuracy; more than these end it
CNN = {
    'seeds': 3, 'epochs': 300, 'backprop_seeds': 1, 'features': 400, 'window': 5, 'pool': 4, 'k': 2, 'delta': 0.4,
    'p': 2.0, 'patch_transform': 'centred_l2', 'maximum': 'layer', 'spread': 1.0, 'start': 'drawn', 'rate': 0.04,
    'batch': 1000, 'patches_per_image': 1, 'power': 1.0, 'threshold': 1.5, 'shift': 0, 'validation': 1 / 12,
    'head': Schedule(20, 256, 1e-3, 0.3, 2, 5, average=1000),
    'twin': Twin(Schedule(20, 64, 1e-3, 0.3, 2, 5), 'centred_l2', 1.5),
}  # fmt: skip
DENSE = CNN | {
    'epochs': 25, 'features': 2000, 'window': 0, 'pool': 1, 'patch_transform': 'l2', 'maximum': 'unit', 'power': 2.0,
    'patches_per_image': 0, 'threshold': 0.0, 'head': Schedule(30, 256, 3e-4, 0.3, 2, 5, average=1000),
    'twin': Twin(Schedule(20, 256, 3e-4, 0.3, 2, 5)),
}  # fmt: skip
DIGITS, CIFAR10 = {'seeds': 5, 'backprop_seeds': 5, 'batch': 100, 'validation': 1 / 6}, {'validation': 1 / 10}
CNN_DIGITS = CNN | DIGITS | {
    'epochs': 60, 'features': 32, 'window': 6, 'pool': 3, 'patch_transform': 'contrast', 'patches_per_image': 8,
    'threshold': 0.0, 'head': Schedule(60, 50, 1e-2, 0.3, 5, 11), 'twin': Twin(Schedule(60, 50, 3e-3, 0.3, 5, 11)),
}  # fmt: skip
DENSE_DIGITS = DENSE | DIGITS | {
    'features': 100, 'head': Schedule(30, 50, 3e-3, 0.3, 2, 5), 'twin': Twin(Schedule(20, 50, 3e-3, 0.3, 2, 5)),
}  # fmt: skip
DENSE_MNIST = DENSE | {
    'epochs': 5, 'start': 'patches', 'delta': 1.0, 'maximum': 'layer', 'power': 3.0, 'threshold': -1.0, 'shift': 1,
    'head': Schedule(50, 256, 1e-3, 0.3, 3, 7, average=1000),
    'twin': Twin(Schedule(30, 64, 1e-3, 0.3, 3, 7), 'l2', 1.0, shift=1),
}  # fmt: skip
FASHION = CNN | {'twin': CNN['twin']._replace(flips=True, shift=1)}  # what is mirrored is of its class
TUNED = {
    'cnn': {'digits': CNN_DIGITS, 'mnist': CNN, 'fashion_mnist': FASHION, 'cifar10': FASHION | CIFAR10},
    'dense': {'digits': DENSE_DIGITS, 'mnist': DENSE_MNIST, 'fashion_mnist': DENSE, 'cifar10': DENSE | CIFAR10},
}
FIRST_WEIGHTS = {'drawn': None, 'patches': from_patches}  # of the lowest layer
SMALL, FEW, STEPS = 12, 20_000, 600  # pixels a side and images, up to which they are; steps that few are learned in


class Recipe(NamedTuple):
    """A network and how its layers learn; what `training.fit` asks for."""

    net: Network
    epochs: int
    batch: int  # images per step
    augment: Callable[[Key, Array], Array] | None = None
    start: Callable[[Layer, Key, Array], Array] | None = None
    """(layer, key, images) -> first weights of the lowest layer; None: as its initializer draws them."""


def recipe(name: str, images: Array, **settings: Any) -> Recipe:
    """Give a network for images [n, H, W, C], with settings chosen from their size and number, or given here.

    Args:
        name: 'krotov', one Krotov-Hopfield layer (Talloen et al. 2021), a convolution with max pooling, dense where
            images are smaller than 5 pixels a side, or `window` is 0; 'miconi' or 'softhebb', three layers each.
        settings: `epochs`, `batch`, and those of `krotov_layer`, `miconi_network` and `softhebb_network`.

    Example:
        >>> chosen = recipe('krotov', data.load('digits')[0], features=16)
        >>> chosen.net[0].features, chosen.batch
        (16, 100)
    """
    checks.check_choice('name', name, RECIPES)
    count, image_shape = len(checks.check_images(images)), tuple(images.shape[1:])
    if name == 'krotov':
        kind = 'cnn' if settings.get('window', min(image_shape[:2]) // 5) else 'dense'
        chosen = settings_by_size(kind, image_shape, count, settings.get('window'))
    else:
        epochs, batch = {'miconi': (20, 100), 'softhebb': (1, 10)}[name]
        chosen = {'epochs': epochs, 'batch': min(batch, count)}
    own = {'epochs', 'batch', *(['start'] if name == 'krotov' else []), *inspect.signature(RECIPES[name]).parameters}
    unknown = settings.keys() - (own - {'steps', 'images'})
    checks.require(not unknown, f'{name} has no setting {", ".join(sorted(unknown))}; leave it out.')
    full = {'start': 'drawn'} | chosen | settings
    fits = name == 'krotov' or isinstance(full.get('features', ()), tuple | list)
    checks.require(fits, f'{name} has layers, and features={full.get("features")} is no tuple of their neurons.')
    checks.check_choice('start', full['start'], FIRST_WEIGHTS)
    checks.check_count('epochs', full['epochs'])
    checks.check_count('batch', full['batch'], 1, count)
    return build_recipe(name, full, count, images)


def build_recipe(name: str, settings: Mapping[str, Any], count: int, images: Array | None = None) -> Recipe:
    """Build a network by name for so many images, out of all its settings; Miconi's whitens what `images` tell."""
    build, epochs, batch = RECIPES[name], settings['epochs'], settings['batch']
    steps = count // batch * (1 if name == 'krotov' else epochs)  # of an epoch, or of all
    known = {**settings, 'steps': steps, 'images': images}
    net = build(**{key: known[key] for key in inspect.signature(build).parameters if key in known})
    augment, start = data.random_flip if name == 'miconi' else None, FIRST_WEIGHTS[settings.get('start', 'drawn')]
    return Recipe(net if isinstance(net, tuple) else (net,), epochs, batch, augment, start)


def settings_by_size(network: str, image_shape: Shape, count: int, window: int | None = None) -> dict[str, Any]:
    """Choose settings of a 'cnn' or 'dense' network for images of no known data set, by size, number, and any `window`.

    Windows, pooling blocks and batches fit; about 6 x 6 maxima of each neuron are left, as of Fashion-MNIST. Few images
    (below 20,000) are learned from in as many steps as digits are, by fewer neurons with about 4 x 4 maxima each.
    """
    checks.check_choice('network', network, TUNED)
    side = min(checks.check_image_shape(image_shape)[:2])
    chosen = {'cnn': (CNN, CNN_DIGITS), 'dense': (DENSE, DENSE_DIGITS)}[network][side <= SMALL]
    if network == 'cnn':
        checks.check_count('window', window or chosen['window'])
        window = min(window or chosen['window'], side)
        maxima = 4 if count < FEW else 6  # a side; on 2,000 images 4 are as good
        pool = chosen['pool'] if side <= SMALL else max(1, round((side - window + 1) / maxima))
        chosen = chosen | {'window': window, 'pool': min(pool, side - window + 1)}
    if count < FEW:
        batch = max(1, min(100, count // 2))  # half of them may be held out
        few = {'batch': batch, 'epochs': math.ceil(STEPS / max(1, count // batch)), 'validation': 1 / 6, 'seeds': 3}
        few |= {'patches_per_image': 8} if network == 'cnn' else {}
        few |= {} if side <= SMALL else {'features': 100}
        if network == 'cnn' and side > SMALL:  # on validation images, 1500 to learn from, 3 seeds: Fashion-MNIST 87.6
            few |= {'spread': 0.2, 'maximum': 'unit'}  # and not 87.3 %, CIFAR-10 53.5 and not 51.1 %
        twin, length = chosen['twin'], {'epochs': 60, 'batch': min(50, batch)}
        few['head'] = chosen['head']._replace(**length)
        few['twin'] = twin._replace(schedule=twin.schedule._replace(**length))
        chosen = chosen | few
    return chosen


def krotov_layer(
    epochs: int, steps: int, *, features: int, window: int = 5, pool: int = 1, k: int = 2, delta: float = 0.4,
    p: float = 2.0, patch_transform: str = 'centred_l2', maximum: str = 'layer', spread: float = 1.0,
    rate: float = 0.04, patches_per_image: int = 1, output: str = 'weights', precision: str = 'highest',
) -> Layer:  # fmt: skip
    """Build a Krotov-Hopfield layer whose rate falls over `epochs` of `steps` each, to an `epochs`-th in the last.

    Args:
        window: side of the filters in pixels; 0: the whole image, a dense layer.
        pool: side of the max-pooling blocks; 1: none.
        maximum: what changes are divided by, the largest of the 'layer' or of each 'unit'.
        spread: deviation of the first weights.
        patches_per_image: patches drawn of each image in a step; 0: all of them.
    """
    checks.check_choice('patch_transform', patch_transform, PATCH_TRANSFORMS)
    falling = transforms.scale_by_rate(transforms.linear_by_epoch(rate, epochs, steps))
    tx = optax.chain(transforms.scale_by_max_abs(maximum), falling)
    post = (relu, max_pool(pool)) if pool > 1 else (relu,)
    how = {'patch_transform': PATCH_TRANSFORMS[patch_transform], 'post': post, 'output': output, 'precision': precision}
    how |= {'init': jax.nn.initializers.normal(spread), 'patches_per_image': patches_per_image or None}
    return Layer(features, rules.krotov(k, delta, p), tx, Window(window or None), **how)


def miconi_network(
    steps: int, images: Array | None = None, *, features: tuple[int, int, int] = (100, 196, 400), rate: float = 1.0,
    burn_in: int | None = None, whitening_images: int = 9000,
) -> Network:  # fmt: skip
    """Build Miconi's three layers (2021, table 1: triangle activation, pruned connections) for so many steps in all.

    Args:
        images: what ZCA is fitted to; without them nothing is whitened, and all shapes are right.
        rate: factor on the published rates, 1e-4, 1e-4 and 1e-3 per patch won.
        burn_in: steps in which only thresholds adapt; None: 201, as published, or a quarter of fewer than 804 steps.
        whitening_images: how many of the images, in equal steps; the regularisation of ZCA depends on their number.
    """
    checks.require(len(features) == 3, f'{len(features)} numbers of neurons are not those of three layers; give three.')
    burn_in = min(201, steps // 4) if burn_in is None else burn_in
    checks.require(burn_in < steps, f'burn_in={burn_in} leaves nothing of {steps} steps to learn in; use fewer.')
    first = ()
    if images is not None:  # in equal steps, as the authors' notebook does
        images = images[:: max(1, len(images) // whitening_images)][:whitening_images]
        images = standardise(to_intensities(jnp.asarray(images)))
        whitening = data.fit_whitening(images, **data.WHITENING_SETTINGS['miconi_notebook'])
        first = functools.partial(data.whiten, whitening), standardise
    net, rule = [], rules.instar(1, reduce=rules.sum_over_patches)
    how = {'patch_transform': raw, 'post': (triangle, avg_pool(2)), 'homeostasis': Homeostasis(winners=1)}
    published = zip(features, (5, 3, 3), (1e-4, 1e-4, 1e-3), (1.0, 0.01, 0.01), (first, (), ()))
    for neurons, size, published_rate, density, white in published:
        rates = optax.constant_schedule(0.0), optax.constant_schedule(rate * published_rate)
        step = transforms.scale_by_rate(optax.join_schedules(rates, [burn_in]))
        tx = optax.chain(step, transforms.keep_pruned(), transforms.project_unit_rows())
        net.append(Layer(neurons, rule, tx, Window(size), pre=(standardise, *white), init=pruned(density), **how))
    return tuple(net)


def softhebb_network(
    features: tuple[int, ...] = (96, 384, 1536), *, rates: tuple[float, ...] = (0.08, 0.005, 0.01),
    temperatures: tuple[float, ...] = (1.0, 1 / 0.65, 1 / 0.25), powers: tuple[float, ...] = (0.7, 1.4, 1.0),
    init: Callable[[Key, tuple[int, int]], Array] | None = None, precision: str = 'highest',
) -> Network:  # fmt: skip
    """Build SoftHebb's three layers (Journé et al. 2023): windows of 5 x 5, 3 x 3 and 3 x 3 over mirrored edges.

    Every layer normalises what it sees by the batch, sends a triangle to a power, and pools: maxima of 4 x 4 with
    stride 2, in the last layer means of 2 x 2. It learns in one epoch, 10 images a step; more of them make it worse.

    Args:
        rates: where rows are longer than 1 by 1; they fall as lengths come to 1.
        temperatures: of the soft winner-take-all, in units of the drive.
        powers: of the triangle.
        init, precision: first weights (None: `scaled_normal(25.0)`, as published), and that of products, see `Layer`.
    """
    for name, values in (('rates', rates), ('temperatures', temperatures), ('powers', powers)):
        came = f'{len(features)} layers have {len(values)} {name}'
        checks.require(len(values) >= len(features), f'{came}; give one for each.')
    net = []
    for number, (neurons, rate, temperature, power) in enumerate(zip(features, rates, temperatures, powers)):
        size, last = 3 if number else 5, number == len(features) - 1
        tx = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_norm_gap(), transforms.scale_by_rate(rate))
        how = {'pre': BatchNorm(), 'patch_transform': raw, 'init': init or scaled_normal(25.0), 'precision': precision}
        how |= {'post': (triangle_to(power), avg_pool(2) if last else max_pool(4, 2, 1))}
        net.append(Layer(neurons, rules.softhebb(temperature), tx, Window(size, 1, size // 2, 'reflect'), **how))
    return tuple(net)


RECIPES = {'krotov': krotov_layer, 'miconi': miconi_network, 'softhebb': softhebb_network}
