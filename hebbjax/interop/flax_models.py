"""A flax model of your own, unmodified, whose chosen layers learn by a rule while the rest learns by gradient.

They answer as before; going backward, they hand the optimizer the rule's change as if it were a gradient, and no credit
to anyone below. Layers are called by their path in the model, as in its parameters: 'conv1', 'encoder/conv1'.
"""

import functools
from collections.abc import Callable, Collection, Iterable

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from jax import lax

from hebbjax.base import Array, LearningRule
from hebbjax.interop.flax_layers import check_plain_window, from_kernel
from hebbjax.layers.layer import Layer, LayerState, to_float32
from hebbjax.layers.patches import PatchTransform, Window, raw
from hebbjax.layers.update import accumulate_layer
from hebbjax.support.checks import require, show
from hebbjax.transforms import check_ascends


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def hebbian_gradient(layer: Layer, seed: int, kernel: Array, images: Array, y: Array) -> Array:
    """Pass y on as it is; going backward, give `-dw` to the kernel, and zeros to images and y.

    `layer` has the rule, without a state, which draws by `seed`, the window and the transform of patches. `images`
    [B, H, W, C] are what the user's layer sees, padding included, and makes y of by `kernel` [kh, kw, C, N] or [D, N].
    """
    return y


def _backward(layer, seed, residuals, cotangent):
    kernel, images, number = residuals
    w = to_float32(from_kernel(kernel))  # [N, D]
    state = LayerState(w, layer.rule.init(w), ())
    require(not jax.tree.leaves(state.rule), 'a flax layer has no place for the state of a rule; use one without.')
    key = jax.random.fold_in(jax.random.key(seed), number)
    seen = images.astype(jnp.float32) if images.dtype.itemsize < 4 else images  # numbers as they are
    stats, is_finite, *_ = accumulate_layer(layer, key, state, seen)
    dw, _ = layer.rule.finalize(stats, w, state.rule)  # [N, D]
    dw = jnp.where(is_finite, dw, jnp.nan)  # so that NaN reaches the weights and is found there
    # Zeros in full, so that no layer below is passed over in the backward pass, and with it its own change.
    return -dw.T.reshape(kernel.shape).astype(kernel.dtype), jnp.zeros_like(images), jnp.zeros_like(cotangent)


# What a rule draws is to be new in every step, and nobody counts the steps of a pure model: its answer differs.
_number_of = lambda y: lax.bitcast_convert_type(jnp.sum(y, dtype=jnp.float32), jnp.uint32)  # noqa: E731
hebbian_gradient.defvjp(lambda layer, seed, kernel, images, y: (y, (kernel, images, _number_of(y))), _backward)


def hebbify_nnx(
    model: nnx.Module, rule: LearningRule, only: Collection[str], *, patch_transform: PatchTransform = raw,
    seed: int = 0,
) -> nnx.Module:  # fmt: skip
    """Let nnx.Conv and nnx.Linear layers of a built model, named in `only`, learn by a rule without a state.

    What the model computes stays the same; `nnx.grad` of any loss gives `-dw` for the kernels of these layers and zero
    for their biases. The rule sees patches by `patch_transform`, and draws by `seed`.
    """
    only, kind = _check_only(only), type(model).__name__
    require(isinstance(model, nnx.Module), f'hebbify_nnx takes an nnx.Module, not {kind}; hebbify_linen is for linen.')
    modules = {'/'.join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    modules = {name: module for name, module in modules.items() if isinstance(module, nnx.Conv | nnx.Linear)}
    _check_present(only, modules)
    for name in only:
        for attribute, value in _hooks(modules[name], rule, patch_transform, seed).items():
            setattr(modules[name], attribute, value)
    return model


def hebbify_linen(
    model: linen.Module, rule: LearningRule, only: Collection[str], *, patch_transform: PatchTransform = raw,
    seed: int = 0,
) -> Callable:  # fmt: skip
    """Let linen.Conv and linen.Dense layers learn by a rule, as `hebbify_nnx`: a function to call for `model.apply`."""
    only, kind = _check_only(only), type(model).__name__
    require(isinstance(model, linen.Module), f'hebbify_linen takes a linen.Module, not {kind}; is it one already?')

    def apply(*args, **kwargs):
        names = set()

        def intercept(call, args, kwargs, context):
            module, name = context.module, '/'.join(context.module.path)
            if name and context.method_name == '__call__' and isinstance(module, linen.Conv | linen.Dense):
                names.add(name)
            if name not in names.intersection(only):
                return call(*args, **kwargs)
            return module.clone(**_hooks(module, rule, patch_transform, seed)).apply(module.variables, *args, **kwargs)

        with linen.intercept_methods(intercept):
            out = model.apply(*args, **kwargs)
        _check_present(only, names)
        return out

    return apply


def partition_optimizer(hebbian: optax.GradientTransformation, rest: optax.GradientTransformation,
                        only: Collection[str]) -> optax.GradientTransformationExtraArgs:  # fmt: skip
    """Split an optimizer: one part for the kernels of Hebbian layers, none for their biases, one for all the rest.

    `hebbian` makes of `dw` [N, D] the change that is added, as `Layer.tx`; `only` names layers as in `hebbify_nnx`.
    """
    only = _check_only(only)
    check_ascends(hebbian)

    def labels(params):
        names = set()

        def label(path, leaf):
            path = jax.tree_util.keystr(path, simple=True, separator='/')  # params/conv1/kernel, conv1/kernel/value
            name, _, parameter = path.removeprefix('params/').removesuffix('/value').rpartition('/')
            names.add(name)
            if name not in only or parameter != 'kernel':
                return 'frozen' if name in only else 'rest'
            shape = jnp.shape(leaf)
            require(len(shape) in (2, 4), f'{name} has many kernels in one, {shape}; build these layers one by one.')
            return 'hebbian'

        tree = jax.tree_util.tree_map_with_path(label, params)
        _check_present(only, names)
        return tree

    def update(gradients, state, params=None):
        dw = jax.tree.map(lambda gradient: -from_kernel(gradient), gradients)
        change, state = hebbian.update(dw, state, jax.tree.map(from_kernel, params))
        return jax.tree.map(lambda change, gradient: change.T.reshape(gradient.shape), change, gradients), state

    ascending = optax.GradientTransformation(lambda params: hebbian.init(jax.tree.map(from_kernel, params)), update)
    return optax.partition({'hebbian': ascending, 'frozen': optax.set_to_zero(), 'rest': rest}, labels)


def _check_only(only):
    names = tuple(only) if isinstance(only, Iterable) and not isinstance(only, str) else ()
    fits = names and all(isinstance(name, str) for name in names) and len({*names}) == len(names)
    require(fits, f'only=... names each layer that learns by a rule once, as in ["conv1"], not {show(only)}.')
    return names


def _check_present(only, names):
    for name in only:
        present = ', '.join(sorted(names)) or 'none'
        require(name in names, f'no layer {name!r} to learn by a rule; name some of {present}.')


def _hooks(module, rule, patch_transform, seed):
    """Say which attributes of a flax layer to set, and to what, for it to learn."""
    require(isinstance(rule, LearningRule), f'layers learn by a rule such as rules.krotov(), not {show(rule)}.')
    conv = isinstance(module, nnx.Conv | linen.Conv)
    product, hook = ('conv_general_dilated', _conv) if conv else ('dot_general', _linear)
    promote, maker = module.promote_dtype, getattr(module, f'{product}_cls', None)
    plain = maker() if maker else getattr(module, product) or getattr(lax, product)  # flax's own order

    def promote_without_bias(*operands, **more):
        x, kernel, bias = promote(*operands, **more)
        return x, kernel, lax.stop_gradient(bias)

    def learn(window, kernel, images, y):
        chains = {'patch_transform': patch_transform, 'post': lambda u: u[..., :0]}  # nobody asks what it sends
        layer = Layer(kernel.shape[-1], rule, optax.identity(), window, **chains)
        return hebbian_gradient(layer, seed, kernel, images, y)

    hooks = {product: functools.partial(hook, plain, learn), 'promote_dtype': promote_without_bias}
    return hooks | ({f'{product}_cls': None} if maker else {})


def _conv(plain, learn, x, kernel, strides, padding, **more):
    """Convolve and learn, called as flax calls `lax.conv_general_dilated`."""
    require(kernel.ndim == 4, f'a convolution with a kernel {kernel.shape} is not 2-D; leave this layer out.')
    check_plain_window(more, 'lhs_dilation', 'rhs_dilation', 'feature_group_count')
    y = plain(*lax.stop_gradient((x, kernel)), strides, padding, **more)
    size = kernel.shape[:2]
    pads = lax.padtype_to_pads(x.shape[1:3], size, strides, padding) if isinstance(padding, str) else padding
    return learn(Window(size, tuple(strides)), kernel, jnp.pad(x, ((0, 0), *pads, (0, 0))), y)


def _linear(plain, learn, x, kernel, *args, **more):
    """Multiply and learn, called as flax calls `lax.dot_general`."""
    y = plain(*lax.stop_gradient((x, kernel)), *args, **more)
    return learn(Window(), kernel, x.reshape(-1, 1, 1, x.shape[-1]), y)
