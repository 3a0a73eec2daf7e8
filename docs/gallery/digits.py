"""What every page of the gallery does: learn from the same 1,200 digits, and read a number that was measured."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hebbjax
from hebbjax import Layer, data, layers, plots, rules, transforms

__all__ = ['Layer', 'data', 'draw', 'images', 'jax', 'jnp', 'labels', 'layers', 'learn', 'measured', 'np', 'optax',
           'plots', 'rate', 'rules', 'transforms', 'x']  # fmt: skip

RESULTS = pathlib.Path(hebbjax.__file__).parents[1] / 'experiments' / 'results'

images, labels = map(jnp.asarray, data.load('digits', 'train'))  # uint8 [1198, 8, 8, 1]
x = layers.centred_l2(layers.to_intensities(images).reshape(len(images), -1))  # [P, 64], as neurons see them
rate = transforms.scale_by_rate


def learn(rule, *tx, images=images, neurons=16, epochs=20, batch=50, spread=1.0):
    """Let dense neurons learn from the digits by a rule and optax transformations. -> weights w [N, 64]."""
    init = jax.nn.initializers.normal(spread)
    net = (Layer(neurons, rule, optax.chain(*tx), patch_transform=layers.centred_l2, init=init),)
    state = hebbjax.init(net, jax.random.key(0), images.shape[-3:])
    epoch = hebbjax.make_train_epoch(net, batch=batch)
    for _ in range(epochs):
        state, _ = epoch(state, images)
    return np.asarray(state.layers[0].w)


def draw(w, title=' '):
    """Draw weights as pictures of 8 x 8 pixels: red pulls the neuron's drive up, blue down."""
    return plots.filter_grid(w, (8, 8, 1), title=title)


def measured(file, row, measure='test_accuracy'):
    """Read what an experiment measured over its seeds, as mean ± standard deviation, from experiments/results."""
    rows = json.loads((RESULTS / file).read_text())['rows']
    found = next(line for line in rows if line['row'] == row)
    values = np.atleast_1d(found[measure] if measure in found else found['measures'][measure])
    return f'{values.mean():.4g}' + (f' ± {values.std(ddof=1):.2g}' if len(values) > 1 else '')
