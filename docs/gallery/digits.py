"""What the pages of the gallery share: the same 1,200 digits, learning from them, and a picture of what was learned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gallery.results import measured

import hebbjax
from hebbjax import Layer, data, layers, plots, rules, transforms

__all__ = ['Layer', 'data', 'draw', 'images', 'jax', 'jnp', 'labels', 'layers', 'learn', 'measured', 'np', 'optax',
           'plots', 'rate', 'rules', 'transforms', 'x']  # fmt: skip

np.set_printoptions(precision=3, suppress=True)
images, labels = map(jnp.asarray, data.load('digits', 'train'))  # uint8 [1200, 8, 8, 1]
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
