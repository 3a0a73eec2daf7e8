"""Drives by a kernel of the angle, channels decorrelated by the weights: against loops, who sees them, their costs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import hebbjax
from hebbjax import layers, plots, readout, rules, training, transforms
from hebbjax.layers import AngleKernel, Decorrelate, Layer, Window, kernel

key = lambda: jax.random.key(0)  # noqa: E731
UNIT = optax.chain(transforms.scale_by_rate(0.3), transforms.project_unit_rows())


def layer(**settings):
    """Seven neurons on 3 x 3 windows."""
    own = {'rule': rules.instar(1, metric='cosine'), 'tx': UNIT, 'window': Window(3, 1, 1), 'output': AngleKernel(0.7)}
    return Layer(
        7, **{**own, 'post': (layers.gauss_pool(2), Decorrelate(0.7)), 'patch_transform': layers.raw} | settings
    )


def images_of(rng, count=5):
    """Random images; the corner of the first is black, so that one patch is all zero."""
    images = rng.normal(size=(count, 6, 5, 2))
    images[0, :2, :2] = 0
    return jnp.asarray(images, jax.dtypes.canonicalize_dtype(float))


def inverse_root(w, sigma):
    """The matrix of `Decorrelate`, in float64."""
    w = np.asarray(w, np.float64) / np.linalg.norm(np.asarray(w, np.float64), axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.exp((w @ w.T - 1) / sigma**2))
    return vectors @ np.diag(1 / (np.sqrt(np.maximum(values, 0)) + kernel.SOFT)) @ vectors.T


def drives(images, w, sigma):
    """Drives by loops, [B, H', W', N]."""
    x = reference.patches(np.asarray(images), (3, 3), (1, 1), (1, 1))
    out = np.zeros((*x.shape[:-1], len(w)))
    for place in np.ndindex(x.shape[:-1]):
        length = np.sqrt(sum(value**2 for value in x[place]))
        for i, row in enumerate(np.asarray(w)):
            if length:
                out[(*place, i)] = length * np.exp((row @ x[place] / np.linalg.norm(row) / length - 1) / sigma**2)
    return out


@pytest.mark.parametrize('drawn', [None, 3])
@pytest.mark.parametrize('microbatch', [None, 2])
def test_a_step_sends_what_loops_give_and_learns_by_the_angle(microbatch, drawn, rng, x64):
    spec, images = layer(microbatch=microbatch, patches_per_image=drawn), images_of(rng)
    state = layers.init_layer(spec, key(), (6, 5, 2))
    after, sent, info = jax.jit(layers.update_layer, static_argnums=0)(spec, key(), state, images)
    pooled = layers.gauss_pool(2)(jnp.asarray(drives(images, state.w, 0.7)))
    np.testing.assert_allclose(sent, pooled @ inverse_root(state.w, 0.7), atol=1e-10)
    np.testing.assert_allclose(layers.forward(spec, state, images), sent, atol=1e-10)
    np.testing.assert_allclose(readout.forward_train(spec, state, images, key())[0], sent, atol=1e-10)
    assert info.is_finite
    np.testing.assert_allclose(jnp.linalg.norm(after.w, axis=1)[info.win_counts > 0], 1)
    as_cosine = layers.update_layer(dataclasses.replace(spec, output='cosine', post=()), key(), state, images)[0]
    np.testing.assert_allclose(after.w, as_cosine.w, atol=1e-12)  # a kernel that rises changes no winner


def test_black_patches_send_nothing_and_every_slope_is_finite(rng):
    spec, images = layer(post=()), images_of(rng)
    state = layers.init_layer(spec, key(), (6, 5, 2))
    assert not layers.forward(spec, state, images)[0, 0, 0].any()
    for post in ((), layer().post):
        spec = layer(post=post)
        state = layers.init_layer(spec, key(), (6, 5, 2))
        loss = lambda w, x, spec=spec, state=state: (layers.forward(spec, state._replace(w=w), x) ** 2).sum()  # noqa: E731
        slopes = jax.grad(loss, (0, 1))(state.w, images)
        assert all(jnp.isfinite(slope).all() and slope.any() for slope in slopes)


def matrix_of(w):
    """Ask for what each channel alone, at a position of its own, becomes. [N, N]"""
    return Decorrelate().bind(w)(jnp.eye(len(w))[None, None])[0, 0]


def test_float32_decorrelates_as_float64_does(rng):
    w = jnp.asarray(rng.normal(size=(64, 27)), jnp.float32)
    matrix = matrix_of(w)
    np.testing.assert_allclose(matrix, inverse_root(w, 0.6), rtol=1e-3, atol=1e-4)
    unit = np.asarray(w, np.float64) / np.linalg.norm(w, axis=1, keepdims=True)
    kappa = np.exp((unit @ unit.T - 1) / 0.36)
    # what neurons send of their own weights has the kernel for inner products, but for what is added to roots
    np.testing.assert_allclose((answers := kappa @ np.asarray(matrix)) @ answers.T, kappa, atol=0.05)
    np.testing.assert_allclose(matrix_of(3 * w), matrix, atol=1e-3)  # the angle alone counts


def test_a_dead_or_doubled_neuron_spoils_nothing(rng):
    w = jnp.asarray(rng.normal(size=(6, 9)), jnp.float32).at[1].set(0).at[3].set(rng.normal())
    w = w.at[2].set(w[0])
    np.testing.assert_allclose(matrix_of(w).sum(), inverse_root_or_dead(w).sum(), rtol=1e-2)


def inverse_root_or_dead(w):
    """As `inverse_root`, of weights of which one may be all zero: at a right angle to everyone, and to itself."""
    length = np.linalg.norm(np.asarray(w, np.float64), axis=1, keepdims=True)
    unit = np.asarray(w) / np.where(length, length, 1)
    values, vectors = np.linalg.eigh(np.exp((unit @ unit.T - 1) / 0.36))
    return vectors @ np.diag(1 / (np.sqrt(np.maximum(values, 0)) + kernel.SOFT)) @ vectors.T


def test_weights_are_decomposed_once_for_all_microbatches_and_only_where_it_is_asked_for(rng):
    images = images_of(rng)
    for post, count in ((layer().post, 1), ((layers.relu,), 0)):
        spec = layer(post=post, microbatch=1)
        state = layers.init_layer(spec, key(), (6, 5, 2))
        program = jax.make_jaxpr(lambda s, x, spec=spec: layers.forward(spec, s, x))(state, images)
        assert sum('eigh' in str(step.primitive) for step in inner(program.jaxpr)) == count
        assert 'eigh' not in str([step for step in inner(program.jaxpr) if step.primitive.name == 'scan'])
    state = layers.init_layer(layer(), key(), (6, 5, 2))
    for asked in (False, True):  # whether anybody looks at what it sends
        learn = jax.jit(lambda s, x, asked=asked: layers.update_layer(layer(), key(), s, x)[: 1 + asked])
        assert ('syevd' in learn.lower(state, images).compile().as_text()) == asked


def inner(jaxpr):
    """The steps of a program, and of those within its calls, not of its loops."""
    for step in jaxpr.eqns:
        yield step
        if step.primitive.name != 'scan':
            for value in step.params.values():
                yield from inner(value.jaxpr) if hasattr(value, 'jaxpr') else ()


def test_miconi_s_layers_and_whoever_watches_them_see_decorrelated_channels(rng):
    """Higher layers of another kind; the monitor, what comes down, seeds and pictures take them as they are."""
    post = (layers.triangle, layers.avg_pool(2), Decorrelate())
    net = (layer(post=(layers.relu,)), layer(output='weights', pre=(layers.standardise,), post=post))
    state = hebbjax.init(net, key(), (6, 5, 2))
    images, without = images_of(rng), (net[0], dataclasses.replace(net[1], post=post[:2]))
    sent = layers.activations_of(net, state.layers, images)
    plain = layers.activations_of(without, state.layers, images)
    np.testing.assert_allclose(sent, plain @ inverse_root(state.layers[1].w, 0.6), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        layers.settled_activations(net, state.layers, images, gain=0.1, steps=0), sent, atol=1e-5
    )
    result = training.fit(net, state, images, stages=[training.Stage(1)], batch=5)
    assert jnp.isfinite(layers.activations_of(net, result.state.layers, images)).all()
    above = (*net, Layer(3, rules.oja(), UNIT, Window()))
    state = hebbjax.init(above, key(), (6, 5, 2))
    assert plots.receptive_fields(above, state.layers, (6, 5, 2)).shape[0] == 3


def test_a_kernel_without_a_width_and_weights_where_there_are_none_are_refused():
    for part in (AngleKernel, Decorrelate):
        with pytest.raises(ValueError, match='sigma=0 is out of range; use a finite number > 0'):
            part(0)
    with pytest.raises(ValueError, match=r'pre of a layer is a tuple of parts'):
        layer(pre=(Decorrelate(),))
    with pytest.raises(ValueError, match=r'output=0\.6 is unknown'):
        layer(output=0.6)
