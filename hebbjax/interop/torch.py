"""Trained layers as weights of torch.nn.Conv2d and Linear, in numpy arrays, and back; torch itself is not needed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from hebbjax.interop.flax_layers import check_finite, from_kernel, to_linen
from hebbjax.layers.layer import LayerState
from hebbjax.layers.network import Network, check_network, check_states
from hebbjax.support.checks import require, show


def to_torch(net: Network, states: Sequence[LayerState], names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Give a state dict of modules that answer, on raw images [B, C, H, W], with the layers' drives, before `post`.

    'name.weight' is [N, C, kh, kw] of a Conv2d with the layer's stride, padding and edges, or [N, D] of a Linear behind
    a Flatten for a dense layer; 'name.bias' [N] is there where the layer has thresholds, or a bias. What it does to
    patches is folded in, and refused where no convolution does it, as by `to_linen`.

    Args:
        names: of the modules, one for each layer; None: '0', '1', ...

    Example:
        >>> import jax, hebbjax
        >>> net = (hebbjax.Layer(4, hebbjax.rules.oja(), hebbjax.transforms.scale_by_rate(0.1), hebbjax.Window(3)),)
        >>> state = hebbjax.init(net, jax.random.key(0), (8, 8, 1))
        >>> {name: weights.shape for name, weights in to_torch(net, state.layers, ['conv1']).items()}
        {'conv1.weight': (4, 1, 3, 3)}
    """
    tensors = {}
    for number, (name, layer, state) in enumerate(_name(net, states, names), 1):
        try:
            params = to_linen(layer, state)
            window = _window(layer, state)
        except ValueError as error:
            raise ValueError(f'layer {number}: {error}') from None
        weight = np.asarray(params['kernel']).reshape(*window, layer.features).transpose(3, 2, 0, 1)
        weight = weight if layer.window.size else weight.reshape(layer.features, -1)
        tensors[f'{name}.weight'] = np.array(weight, order='C')  # a copy of one's own, which torch may write to
        if 'bias' in params:
            tensors[f'{name}.bias'] = np.array(params['bias'])
    return tensors


def from_torch(tensors: Mapping[str, Any], net: Network, states: Sequence[LayerState],
               names: Iterable[str] | None = None) -> tuple[LayerState, ...]:  # fmt: skip
    """Put a state dict of torch, tensors on the CPU or arrays, into states as `to_torch` names it; all else stays.

    A layer then answers as its module did where it leaves patches raw; one without thresholds has no place for a bias.
    """
    require(isinstance(tensors, Mapping), f'a state dict is wanted, not {show(tensors)}; call .state_dict().')
    taken = []
    for number, (name, layer, state) in enumerate(_name(net, states, names), 1):
        own = f'layer {number} predicts with weights that are not its own, output={layer.output!r}'
        require(layer.output == 'weights', f"{own}; weights come back to a layer with output='weights'.")
        require(f'{name}.weight' in tensors, f'{name}.weight is missing; there are {show([*tensors])}.')
        weight, (*sides, inputs) = np.asarray(tensors[f'{name}.weight']), _window(layer, state)
        shape = (layer.features, inputs, *sides)
        wanted = shape if layer.window.size else (layer.features, inputs * sides[0] * sides[1])
        fits = weight.shape == wanted and jnp.issubdtype(weight.dtype, jnp.floating)
        came = f'{name}.weight is {weight.dtype} {[*weight.shape]}'
        require(fits, f'{came}, and layer {number} takes floats {[*wanted]}.')
        bias = np.asarray(tensors.get(f'{name}.bias', np.zeros(layer.features, np.float32)))
        require(bias.shape == (layer.features,), f'{name}.bias {[*bias.shape]} does not fit {layer.features} neurons.')
        check_finite({f'{name}.weight': weight, f'{name}.bias': bias})
        way = 'give the layer one, Layer(..., bias=initializers.zeros), or leave it out of the state dict'
        require(state.threshold is not None or not bias.any(), f'layer {number} has no place for {name}.bias; {way}.')
        w = from_kernel(jnp.asarray(weight.reshape(shape).transpose(2, 3, 1, 0), state.w.dtype))
        threshold = None if state.threshold is None else jnp.asarray(-bias, state.threshold.dtype)
        taken.append(state._replace(w=w, threshold=threshold))
    return tuple(taken)


def _name(net, states, names) -> list[tuple[Any, Any, LayerState]]:
    """Pair the names of modules with layers and states."""
    net = check_network(net)
    check_states(net, states)
    is_list = isinstance(names, Iterable) and not isinstance(names, str)
    names = [*map(str, range(len(net)))] if names is None else [*names] if is_list else [names]
    fits = len({*names}) == len(net) == len(names) and all(isinstance(name, str) for name in names)
    require(fits, f'names={show(names)} do not fit {len(net)} layers; name a module for each, all different.')
    return [*zip(names, net, states)]


def _window(layer, state: LayerState) -> tuple[int, ...]:
    """Give (kh, kw, C) of the windows of a layer, of a dense one the shape of its images."""
    if layer.window.size is None:
        shape = getattr(state.made_for, 'shape', ())
        came = f'a dense layer of {state.w.shape[1]} inputs flattens images of shape {shape}'
        require(math.prod(shape) == state.w.shape[1], f'{came}; give states of init.')
        return tuple(shape)
    kh, kw = np.broadcast_to(layer.window.size, 2).tolist()
    return kh, kw, state.w.shape[1] // (kh * kw)
