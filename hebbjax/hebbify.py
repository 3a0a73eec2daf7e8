"""A flax model of your own, unmodified, whose layers learn by a rule while the rest learns by gradient.

Its chosen Conv and Linear (Dense) layers answer as before; going backward, they hand the optimizer the rule's change as
if it were a gradient, and nothing to anyone else (`teach`). So one backward pass, one optimizer and one jitted step
train Hebbian layers and the head together. No credit goes down: a Hebbian layer learns from its own input alone, and
wherever its output reaches the loss (`stop_gradient` in between cuts it off).

Layers are called by their path in the model, as in its parameters: 'conv1', 'encoder/conv1'.
"""

import functools
from collections.abc import Callable, Collection, Iterable

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from jax import lax

from hebbjax import checks, layers, learning, plasticity
from hebbjax.interop import from_kernel, refuse
from hebbjax.layers import Layer, LayerState
from hebbjax.patches import Preparation, Window, raw
from hebbjax.types import Array, LearningRule


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def teach(layer: Layer, seed: int, kernel: Array, images: Array, y: Array) -> Array:
    """Pass y on as it is; going backward, give `-dw` to the kernel, and zeros to images and y.

    Args:
        layer: rule, window and preparation of patches; the rule has no state.
        seed: of what the rule draws.
        kernel: [kh, kw, C, N], or [D, N].
        images: what the user's layer sees, padding included, [B, H, W, C].
        y: what it makes of it.
    """
    return y


def _forward(layer, seed, kernel, images, y):
    # What a rule draws is to be new in every step, and nobody counts the steps of a pure model: its answer differs.
    return y, (kernel, images, lax.bitcast_convert_type(jnp.sum(y, dtype=jnp.float32), jnp.uint32))


def _backward(layer, seed, kept, cotangent):
    kernel, images, number = kept
    w = layers.widened(from_kernel(kernel))  # [N, D]
    state = LayerState(w, layer.rule.init(w), ())
    key = jax.random.fold_in(jax.random.key(seed), number)
    sums, _, finite = learning.gather(layer, key, state, layers.intensities(images))
    dw, _ = layer.rule.change(sums, w, state.rule)  # [N, D]
    dw = jnp.where(finite, dw, jnp.nan)  # so that NaN reaches the weights and is found there
    # Zeros in full, so that no layer below is passed over in the backward pass, and with it its own change.
    return -dw.T.reshape(kernel.shape).astype(kernel.dtype), jnp.zeros_like(images), jnp.zeros_like(cotangent)


teach.defvjp(_forward, _backward)


def nnx_model(
    model: nnx.Module, rule: LearningRule, only: Collection[str], *, patch: Preparation = raw, seed: int = 0
) -> nnx.Module:
    """Let layers of a built nnx model learn by a rule; what the model computes stays the same.

    Args:
        model: any nnx model.
        rule: any learning rule without a state of its own.
        only: names of the nnx.Conv and nnx.Linear layers that learn; the head is not among them.
        patch: how patches are prepared for the rule, and for nothing else.
        seed: of what the rule draws.

    Returns:
        The same model. `nnx.grad` of any loss gives `-dw` for the kernels of these layers and zero for their biases.

    Raises:
        ValueError: if there is no such layer, or it is named twice; if the rule has a state, imposes a teacher or
            refuses weights of a layer's shape; when first traced, if a layer is a convolution that is not 2-D, or
            dilated or grouped.
    """
    only = _names(only)
    if not isinstance(model, nnx.Module):
        raise ValueError(f'nnx_model takes an nnx.Module, not {type(model).__name__}; linen_model is for linen.')
    found = {
        '/'.join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, nnx.Conv | nnx.Linear)
    }
    _check(only, found)
    for name in only:
        _check_rule(name, rule, found[name].kernel)
    for name in only:
        for attribute, value in _hooks(found[name], rule, patch, seed, name).items():
            setattr(found[name], attribute, value)
    return model


def linen_model(
    model: linen.Module, rule: LearningRule, only: Collection[str], *, patch: Preparation = raw, seed: int = 0
) -> Callable:
    """Let layers of a linen model learn by a rule; what the model computes stays the same.

    Args:
        model: any linen model.
        rule, only, patch, seed: as in `nnx_model`, for linen.Conv and linen.Dense.

    Returns:
        A function to call instead of `model.apply`, with the gradients of `nnx_model`.

    Raises:
        ValueError: as `nnx_model`, but that of names and model when first traced.
    """
    only = _names(only)
    if not isinstance(model, linen.Module):
        raise ValueError(
            f'linen_model takes a linen.Module, not {type(model).__name__}; nnx_model is for nnx, and what '
            'linen_model gave learns already.'
        )

    def apply(*args, **more):
        found = set()

        def intercept(call, args, kwargs, context):
            module, name = context.module, '/'.join(context.module.path)
            if name and context.method_name == '__call__' and isinstance(module, linen.Conv | linen.Dense):
                found.add(name)
            if name not in found.intersection(only):
                return call(*args, **kwargs)
            return module.clone(**_hooks(module, rule, patch, seed, name)).apply(module.variables, *args, **kwargs)

        with linen.intercept_methods(intercept):
            out = model.apply(*args, **more)
        _check(only, found)
        return out

    return apply


def partition(
    hebbian: optax.GradientTransformation, rest: optax.GradientTransformation, only: Collection[str]
) -> optax.GradientTransformationExtraArgs:
    """Split an optimizer: one part for the kernels of Hebbian layers, none for their biases, one for all the rest.

    Args:
        hebbian: `dw` [N, D] -> the change that is added, as in `Layer.tx`; chained from `plasticity`.
        rest: your own, such as `optax.adam(1e-3)`.
        only: names of the Hebbian layers, as `nnx_model` or `linen_model` was given them.

    Raises:
        ValueError: if a layer is named twice, or none is; if its init is given parameters without such a layer, or with
            layers stacked into one by a scan; if `hebbian` descends.
    """
    only = _names(only)
    plasticity.check_ascends(hebbian)

    def labels(params):
        found = set()

        def label(path, leaf):
            path = jax.tree_util.keystr(path, simple=True, separator='/')  # params/conv1/kernel, conv1/kernel/value
            name, _, parameter = path.removeprefix('params/').removesuffix('/value').rpartition('/')
            found.add(name)
            if name in only and parameter == 'kernel' and jnp.ndim(leaf) not in (2, 4):
                raise ValueError(
                    f'{name} has kernels of many layers in one, {leaf.shape}, which no rule can tell apart; '
                    'build these layers one by one.'
                )
            return ('hebbian' if parameter == 'kernel' else 'still') if name in only else 'rest'

        tree = jax.tree_util.tree_map_with_path(label, params)
        _check(only, found)
        return tree

    def update(updates, state, params=None):
        dw = jax.tree.map(lambda gradient: -from_kernel(gradient), updates)
        change, state = hebbian.update(dw, state, jax.tree.map(from_kernel, params))
        return jax.tree.map(lambda change, gradient: change.T.reshape(gradient.shape), change, updates), state

    ascending = optax.GradientTransformation(lambda params: hebbian.init(jax.tree.map(from_kernel, params)), update)
    return optax.partition({'hebbian': ascending, 'still': optax.set_to_zero(), 'rest': rest}, labels)


def _names(only) -> tuple[str, ...]:
    """Give names of layers, each once, or refuse what is none."""
    if isinstance(only, str) or not isinstance(only, Iterable):
        raise ValueError(f'only=... is a list of names of layers, such as only=["conv1"], not {checks.shown(only)}.')
    names = tuple(only)
    if not names:
        raise ValueError('only=... names no layer that is to learn by a rule; name one or more, such as ["conv1"].')
    for place, name in enumerate(names):
        if not isinstance(name, str) or name in names[:place]:
            raise ValueError(
                f'only=... has {checks.shown(name)}, which is no name or there twice; name every layer once.'
            )
    return names


def _check(only, found):
    for name in only:
        if name not in found:
            raise ValueError(
                f'no layer {name!r} to learn by a rule; name some of {", ".join(sorted(found)) or "none"}.'
            )


def _hooks(module, rule, patch, seed, name) -> dict:
    """Say which attributes of a flax layer to set, and to what, for it to learn."""

    def still(*operands, **more):
        x, kernel, bias = promote(*operands, **more)
        return x, kernel, lax.stop_gradient(bias)

    conv = isinstance(module, nnx.Conv | linen.Conv)
    product, hook = ('conv_general_dilated', _conv) if conv else ('dot_general', _linear)
    promote, maker = module.promote_dtype, getattr(module, f'{product}_cls', None)
    plain = maker() if maker else getattr(module, product) or getattr(lax, product)  # flax's own order
    learn = functools.partial(_learn, rule, patch, seed, name)
    hooks = {product: functools.partial(hook, plain, learn), 'promote_dtype': still}
    return hooks | ({f'{product}_cls': None} if maker else {})


def _conv(plain, learn, x, kernel, strides, padding, **more):
    """Convolve and learn, called as flax calls `lax.conv_general_dilated`."""
    if kernel.ndim != 4:
        raise ValueError(f'a convolution with a kernel {kernel.shape} is not 2-D; leave this layer out.')
    refuse(more, 'lhs_dilation', 'rhs_dilation', 'feature_group_count')
    y = plain(*lax.stop_gradient((x, kernel)), strides, padding, **more)
    size = kernel.shape[:2]
    pads = lax.padtype_to_pads(x.shape[1:3], size, strides, padding) if isinstance(padding, str) else padding
    return learn(Window(size, tuple(strides)), kernel, jnp.pad(x, ((0, 0), *pads, (0, 0))), y)


def _linear(plain, learn, x, kernel, *args, **more):
    """Multiply and learn, called as flax calls `lax.dot_general`."""
    y = plain(*lax.stop_gradient((x, kernel)), *args, **more)
    return learn(Window(), kernel, x.reshape(-1, 1, 1, x.shape[-1]), y)


def _learn(rule, patch, seed, name, window, kernel, images, y):
    _check_rule(name, rule, kernel)
    nothing = lambda u: u[..., :0]  # noqa: E731  what such a layer would send is not asked for
    layer = Layer(kernel.shape[-1], rule, optax.identity(), window, patch=patch, fire=nothing)
    return teach(layer, seed, kernel, images, y)


def _check_rule(name, rule, kernel) -> None:
    """Refuse a rule that cannot teach a layer of this name and kernel; nothing is computed."""
    if not isinstance(rule, LearningRule):
        raise ValueError(f'layers learn by a rule such as rules.krotov(), not by {checks.shown(rule)}.')
    w = jax.eval_shape(from_kernel, jax.ShapeDtypeStruct(kernel.shape, jnp.float32))
    try:
        state = jax.eval_shape(rule.init, w)
    except ValueError as error:
        raise ValueError(f'layer {name!r}: {error}') from None
    if jax.tree.leaves(state):
        raise ValueError(
            'a rule with a state of its own has no place to keep it in a flax layer; '
            'use one without, or train a hebbjax.Layer and take its kernel over.'
        )
    if not _takes(rule, w, taught=False) and _takes(rule, w, taught=True):
        raise ValueError(
            'a rule that imposes a teacher hears of no labels in a flax layer; '
            'use one whose neurons compete, or train a hebbjax.Layer with a teacher and take its kernel over.'
        )


def _takes(rule, w, taught) -> bool:
    """Say whether a rule takes a patch in, with a teacher or without; nothing is computed."""

    def gather(w):
        x, u = jnp.zeros_like(w[:1]), jnp.zeros_like(w[:, 0])[None]
        return rule.gather(rule.start(w), jax.random.key(0), x, u, u if taught else None)

    try:
        jax.eval_shape(gather, jax.ShapeDtypeStruct(w.shape, jnp.float32))
    except ValueError:
        return False
    return True
