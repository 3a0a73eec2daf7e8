"""Layers of a flax model of a user's own learn as ours do, and the rest of it as ever."""

import functools
import inspect

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import first, normal
from flax import nnx

from hebbjax import Layer, Window, layers, rules, transforms
from hebbjax.base import Credit
from hebbjax.interop import flax_layers, flax_models
from hebbjax.layers import patches

ASCEND = transforms.scale_by_rate(1.0)
KROTOV = rules.krotov(2, 0.4, 3.0)
HIGHEST = jax.lax.Precision.HIGHEST


# A user's own models, written by someone who never heard of hebbjax


class Nnx(nnx.Module):
    """Two convolutions and a head."""

    def __init__(self, padding='SAME', strides=1, **own):
        own |= {'kernel_init': first, 'bias_init': first, 'rngs': nnx.Rngs(0)}
        self.conv1 = nnx.Conv(2, 5, (3, 2), strides, padding=padding, **own)
        self.conv2 = nnx.Conv(5, 6, (2, 2), padding='VALID', **own)
        self.head = nnx.Linear(6, 3, kernel_init=first, rngs=nnx.Rngs(0))

    def __call__(self, x):
        x = nnx.relu(self.conv1(x))
        return self.head(nnx.relu(self.conv2(x)).mean((1, 2)))


class Block(linen.Module):
    """A convolution in a block of its own."""

    @linen.compact
    def __call__(self, x):
        return linen.relu(linen.Conv(6, (2, 2), padding='VALID', kernel_init=first, bias_init=first)(x))


class Linen(linen.Module):
    """Two convolutions, the upper one in a block, a hidden layer and a head."""

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(5, (3, 2), kernel_init=first, bias_init=first, name='conv1')(x))
        x = Block(name='block')(x).max((1,))
        x = linen.relu(linen.Dense(5, kernel_init=first, bias_init=first, name='hidden')(x)).mean((1,))
        return linen.Dense(3, kernel_init=first, name='head')(x)


NAMES = ('conv1', 'block/Conv_0', 'hidden')


def loss_of(answers, labels):
    return optax.softmax_cross_entropy_with_integer_labels(answers, labels).mean()


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def own_change(rule, window, kernel, images, patch_transform=patches.raw):
    """What a layer of the library adds to its weights."""
    w = flax_layers.from_kernel(kernel)
    layer = Layer(len(w), rule, ASCEND, window, patch_transform=patch_transform)
    state = layers.LayerState(w, layer.rule.init(w), ASCEND.init(w))
    return layers.update_layer(layer, jax.random.key(1), state, images)[0].w - w


def gradient_of(model, images):
    """The gradient of whatever loss."""
    return nnx.to_pure_dict(nnx.jit(nnx.grad(lambda model: model(images).sum()))(model))


def assert_descends(gradient, change):
    """Compare a kernel's gradient with a change of weights."""
    dw = -np.asarray(flax_layers.from_kernel(gradient))
    np.testing.assert_allclose(dw, change, atol=2e-5 * np.abs(change).max())
    assert np.abs(dw).max() > 1e-3


RULES = {'oja': rules.oja(reduce=rules.mean_over_credit), 'sanger': rules.sanger()}  # krotov: below


@pytest.fixture(scope='module')
def linen_case():
    """Images, parameters, and what reaches each layer, with the window on it."""
    images = normal(np.random.default_rng(0), 3, 5, 4, 2)
    params = jax.jit(Linen().init)(jax.random.key(0), images)
    run = jax.jit(functools.partial(Linen().apply, capture_intermediates=True))
    sent = {
        name: call['__call__'][0]
        for name, call in run(params, images)[1]['intermediates'].items()
        if name in (*NAMES, 'block')
    }
    assert sent['hidden'].ndim == 3  # a dense layer on more than rows
    return (
        images,
        params,
        {
            'conv1': (jnp.pad(images, ((0, 0), (1, 1), (0, 1), (0, 0))), Window((3, 2))),
            'block': (linen.relu(sent['conv1']), Window(2)),
            'hidden': (sent['block'].max((1,)).reshape(-1, 1, 1, 6), Window()),
        },
    )


def value_and_gradient(apply, images, params):
    loss = lambda params: loss_of(apply(params, images), jnp.array([0, 1, 2]))  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    return value, flat(gradient)


def flat(params):
    return params['params'] | {'block': params['params']['block']['Conv_0']}


@pytest.fixture(scope='module')
def plain(linen_case):
    """Loss and gradient of the unmodified model."""
    return value_and_gradient(Linen().apply, *linen_case[:2])


@pytest.mark.parametrize('name', RULES)
def test_layers_of_a_linen_model_change_as_ours_do_and_the_head_as_ever(name, linen_case, plain):
    """One backward pass gives the change of every Hebbian layer, from its own input, and the head's own gradient."""
    (images, params, below), rule = linen_case, RULES[name]
    value, gradient = value_and_gradient(flax_models.hebbify_linen(Linen(), rule, NAMES), images, params)
    assert value == plain[0]
    jax.tree.map(np.testing.assert_array_equal, gradient['head'], plain[1]['head'])
    for name, (x, window) in below.items():
        assert_descends(gradient[name]['kernel'], own_change(rule, window, flat(params)[name]['kernel'], x))
        assert np.abs(plain[1][name]['bias']).max() > 0
        np.testing.assert_array_equal(gradient[name]['bias'], 0)


PADDINGS = {'SAME': ((1, 1), (0, 1)), 2: ((2, 2), (2, 2)), ((0, 2), (1, 0)): ((0, 2), (1, 0))}


@pytest.mark.parametrize('padding', PADDINGS, ids=str)
def test_strides_and_paddings_are_those_of_the_model(padding, rng):
    images = normal(rng, 3, 5, 4, 2)
    conv = nnx.Conv(2, 5, (3, 2), (2, 1), padding=padding, kernel_init=first, rngs=nnx.Rngs(0))
    model = flax_models.hebbify_nnx(nnx.Sequential(conv), KROTOV, ('layers/0',), patch_transform=patches.centred_l2)
    padded = jnp.pad(images, ((0, 0), *PADDINGS[padding], (0, 0)))
    change = own_change(KROTOV, Window((3, 2), (2, 1)), conv.kernel[...], padded, patches.centred_l2)
    assert_descends(gradient_of(model, images)['layers'][0]['kernel'], change)


def test_layers_of_an_nnx_model_change_as_ours_do_and_credit_goes_no_further_down(rng):
    images = normal(rng, 3, 5, 4, 2)
    model = flax_models.hebbify_nnx(Nnx(), KROTOV, ('conv2', 'head'))
    gradient = gradient_of(model, images)

    @nnx.jit
    def answers(model):
        x = nnx.relu(model.conv1(images))
        return x, nnx.relu(model.conv2(x)).mean((1, 2), keepdims=True)

    sent, pooled = answers(model)
    for name, x, window in (('conv2', sent, Window(2)), ('head', pooled, Window())):
        assert_descends(gradient[name]['kernel'], own_change(KROTOV, window, getattr(model, name).kernel[...], x))
        np.testing.assert_array_equal(gradient[name]['bias'], 0)
    np.testing.assert_array_equal(gradient['conv1']['kernel'], 0)


def test_a_later_rule_takes_the_place_of_an_earlier_one(rng):
    rows, gradients = normal(rng, 4, 3), []
    for earlier in ((rules.hebb(),), ()):
        model = nnx.Sequential(nnx.Linear(3, 5, kernel_init=first, rngs=nnx.Rngs(0)))
        for rule in (*earlier, KROTOV):
            flax_models.hebbify_nnx(model, rule, ['layers/0'])
        gradients.append(gradient_of(model, rows))
    jax.tree.map(np.testing.assert_array_equal, *gradients)


def test_a_models_own_convolution_and_half_precision_are_honoured(rng, relaxed):
    images, called = normal(rng, 3, 5, 4, 2), []

    def convolve(*args, **more):
        called.append(more['precision'])
        return jax.lax.conv_general_dilated(*args, **more)

    own = {'dtype': jnp.bfloat16, 'conv_general_dilated': convolve, 'precision': HIGHEST, 'padding': 'VALID'}
    conv = nnx.Conv(2, 5, (3, 2), kernel_init=first, rngs=nnx.Rngs(0), **own)
    model = nnx.Sequential(conv)
    answers = model(images)
    flax_models.hebbify_nnx(model, KROTOV, ('layers/0',))
    np.testing.assert_array_equal(model(images), answers)
    assert called == [HIGHEST, HIGHEST]
    kernel, shown = (a.astype(jnp.bfloat16).astype(jnp.float32) for a in (conv.kernel[...], images))
    change = own_change(KROTOV, Window((3, 2)), kernel, shown)
    gradient = gradient_of(model, images)['layers'][0]['kernel']
    assert gradient.dtype == jnp.float32
    np.testing.assert_allclose(-flax_layers.from_kernel(gradient), change, rtol=1e-2)  # rounded once, at the end
    layer, half = Layer(5, KROTOV, ASCEND, Window((3, 2))), jnp.bfloat16
    taught = lambda kernel: flax_models.hebbian_gradient(layer, 0, kernel, images.astype(half), jnp.zeros(())).sum()  # noqa: E731
    assert jax.eval_shape(jax.grad(taught), kernel.astype(half)).dtype == half


def test_a_product_that_flax_is_told_to_make_is_honoured(rng):
    rows, made = normal(rng, 4, 3), []

    def maker():
        made.append(True)
        return jax.lax.dot_general

    class Own(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(2, dot_general_cls=maker, name='hidden')(x)

    params = {'params': {'hidden': {'kernel': normal(rng, 3, 2), 'bias': normal(rng, 2)}}}
    apply = flax_models.hebbify_linen(Own(), KROTOV, ('hidden',))
    gradient = jax.jit(jax.grad(lambda params: apply(params, rows).sum()))(params)['params']['hidden']['kernel']
    assert made
    change = own_change(KROTOV, Window(), params['params']['hidden']['kernel'], rows[:, None, None])
    assert_descends(gradient, change)


def test_random_competitions_draw_anew_when_anything_changed_and_by_the_seed(rng):
    drawn = lambda key, u: jax.random.normal(key, u.shape)  # noqa: E731
    drawing = rules.local(drawn, lambda u, y: Credit(y, 0 * y, 0 * y), reduce=rules.sum_over_patches)
    layer, rows, kernel = Layer(2, drawing, ASCEND), normal(rng, 4, 1, 1, 3), normal(rng, 3, 2)

    @functools.partial(jax.jit, static_argnums=2)
    def draws(kernel, rows, seed=0):
        answer = lambda kernel: flax_models.hebbian_gradient(layer, seed, kernel, rows, rows @ kernel).sum()  # noqa: E731
        return jax.grad(answer)(kernel)

    once = draws(kernel, rows)
    np.testing.assert_array_equal(draws(kernel, rows), once)
    for other in (draws(kernel, rows * 1.0001), draws(kernel * 1.0001, rows), draws(kernel, rows, 1)):
        assert np.abs(other - once).max() > 0.1


def test_what_cannot_learn_is_refused(linen_case):
    images, params, _ = linen_case
    with pytest.raises(ValueError, match="no layer 'conv3' to learn by a rule; name some of conv1, conv2, head"):
        flax_models.hebbify_nnx(Nnx(), KROTOV, ('conv3',))
    with pytest.raises(ValueError, match="no layer 'block' to learn by a rule; name some of block/Conv_0, conv1, head"):
        flax_models.hebbify_linen(Linen(), KROTOV, ('block',))(params, images)
    stateful = rules.oja()._replace(init=lambda w: jnp.zeros(len(w)))
    for rule, settings, says in (
        (stateful, {}, 'no place for the state of a rule'),
        (rules.instar(6), {}, r'k=6 is more than the 5 neurons that compete; use '),
        (rules.instar(None), {}, 'imposes its teacher'),
        (KROTOV, {'kernel_dilation': 2}, r'rhs_dilation=\(2, 2\) makes of a convolution what no window is'),
        (KROTOV, {'input_dilation': (1, 2)}, 'lhs_dilation'),
    ):
        with pytest.raises(ValueError, match=says):
            jax.eval_shape(
                nnx.grad(lambda model: model(images).sum()), flax_models.hebbify_nnx(Nnx(**settings), rule, ('conv1',))
            )
    own = {'kernel_init': first, 'rngs': nnx.Rngs(0)}
    grouped = nnx.Sequential(nnx.Conv(2, 4, (2, 2), feature_group_count=2, **own))
    with pytest.raises(ValueError, match='feature_group_count=2'):
        flax_models.hebbify_nnx(grouped, KROTOV, ('layers/0',))(images)
    line = nnx.Sequential(nnx.Conv(2, 4, (2,), **own))
    with pytest.raises(ValueError, match=r'kernel \(2, 2, 4\) is not 2-D'):
        flax_models.hebbify_nnx(line, KROTOV, ('layers/0',))(images[0])
    with pytest.raises(ValueError, match="no layer 'conv' to learn by a rule; name some of hidden"):
        flax_models.partition_optimizer(ASCEND, optax.sgd(0.1), ('conv',)).init(
            {'hidden': {'kernel': jnp.ones((2, 3))}}
        )
    with pytest.raises(ValueError, match=r'hidden has many kernels in one, \(4, 2, 3\); .* one by one'):
        flax_models.partition_optimizer(ASCEND, optax.sgd(0.1), ('hidden',)).init(
            {'hidden': {'kernel': jnp.ones((4, 2, 3))}}
        )


@pytest.mark.parametrize(
    ('only', 'says'),
    [
        ('conv1', r'names each layer that learns by a rule once, as in \["conv1"\], not \'conv1\''),
        (None, 'names each layer .*, not None'),
        ((), r'names each layer .*, not \(\)'),
        (('conv1', 'conv2', 'conv1'), r"not \('conv1', 'conv2', 'conv1'\)"),
        ((None, 'conv1'), r"not \(None, 'conv1'\)"),
    ],
)
def test_names_that_are_no_list_of_layers_are_refused_at_once(only, says):
    for make in (
        lambda: flax_models.hebbify_nnx(nnx.Sequential(), KROTOV, only),
        lambda: flax_models.hebbify_linen(Linen(), KROTOV, only),
        lambda: flax_models.partition_optimizer(ASCEND, optax.sgd(0.1), only),
    ):
        with pytest.raises(ValueError, match=says):
            make()


def test_models_of_another_kind_and_models_that_learn_already_are_refused():
    learns = flax_models.hebbify_linen(Linen(), KROTOV, ['hidden'])
    for model in (learns, Nnx(), Linen, None):
        with pytest.raises(ValueError, match=r'hebbify_linen takes a linen.Module, not '):
            flax_models.hebbify_linen(model, KROTOV, ['hidden'])
    for model in (learns, Linen(), Nnx, None):
        with pytest.raises(ValueError, match=r'hebbify_nnx takes an nnx.Module, not .*; hebbify_linen is for linen'):
            flax_models.hebbify_nnx(model, KROTOV, ['hidden'])
    for rule in ('krotov', rules.krotov, None):
        with pytest.raises(ValueError, match=r'layers learn by a rule such as rules\.krotov\(\), not '):
            flax_models.hebbify_nnx(Nnx(), rule, ['conv1'])


# Training, in ten lines: the README's snippets


def nnx_step(model):
    names = ('conv1', 'conv2')
    flax_models.hebbify_nnx(model, rules.krotov(k=2, delta=0.4, p=3.0), names)
    ascent = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.003))
    optimizer = nnx.Optimizer(model, flax_models.partition_optimizer(ascent, optax.adam(3e-2), names), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, images, labels):
        gradients = nnx.grad(lambda model: loss_of(model(images), labels))(model)
        optimizer.update(model, gradients)

    return step, optimizer


def linen_step(model, params):
    names = ('conv1', 'block/Conv_0', 'hidden')
    apply = flax_models.hebbify_linen(model, rules.krotov(k=2, delta=0.4, p=3.0), names)
    ascent = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.003))
    tx = flax_models.partition_optimizer(ascent, optax.adam(3e-2), names)
    state = tx.init(params)

    @jax.jit
    def step(params, state, images, labels):
        gradients = jax.grad(lambda params: loss_of(apply(params, images), labels))(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step, state


def lines_of(function):
    """Lines between a function's head and its return."""
    return [line for line in inspect.getsource(function).splitlines() if line.strip()][1:-1]


@pytest.fixture
def batch(rng):
    """Images of three kinds, told apart by which channels are bright."""
    kinds = np.array([[1, 0], [0, 1], [1, 1]])[np.arange(12) % 3]  # [12, 2]
    images = rng.normal(size=(12, 5, 4, 2)) / 4 + kinds[:, None, None]
    return jnp.asarray(images, jnp.float32), jnp.arange(12) % 3


def check_training(losses, before, after):
    assert losses[1] < 0.7 * losses[0]
    for name, layer in before.items():
        assert np.abs(after[name]['kernel'] - layer['kernel']).max() > 5e-3, name
        if name == 'head':
            assert np.abs(after[name]['bias'] - layer['bias']).max() > 0
        else:
            np.testing.assert_array_equal(after[name]['bias'], layer['bias'])
            assert np.abs(layer['bias']).max() > 0


def test_an_nnx_model_trains_in_ten_lines(batch, relaxed):
    assert len(lines_of(nnx_step)) <= 10
    model = Nnx()
    what = lambda: jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Param)))  # noqa: E731
    lost = nnx.jit(lambda model: loss_of(model(batch[0]), batch[1]))
    before, losses = what(), [lost(model)]
    step, optimizer = nnx_step(model)
    for _ in range(40):
        step(model, optimizer, *batch)
    check_training([*losses, lost(model)], before, what())


def test_a_linen_model_trains_in_ten_lines(batch, relaxed):
    assert len(lines_of(linen_step)) <= 10
    model = Linen()
    params = before = jax.jit(model.init)(jax.random.key(0), batch[0])
    lost = jax.jit(lambda params: loss_of(model.apply(params, batch[0]), batch[1]))
    losses = [lost(params)]
    step, state = linen_step(model, params)
    for _ in range(40):
        params, state = step(params, state, *batch)
    check_training([*losses, lost(params)], flat(before), flat(params))


def test_the_hebbian_part_of_an_optimizer_sees_rows_of_neurons(rng):
    tx = optax.chain(transforms.scale_by_rate(0.5), transforms.project_unit_rows())
    split = flax_models.partition_optimizer(tx, optax.sgd(1.0), ('conv',))
    conv = {'kernel': normal(rng, 3, 2, 2, 5), 'bias': normal(rng, 5)}
    params = {'params': {'conv': conv, 'head': {'kernel': normal(rng, 4, 2)}}}
    gradients = jax.tree.map(lambda a: normal(rng, *a.shape), params)
    update = jax.jit(lambda tx, gradients, params: tx.update(gradients, tx.init(params), params)[0], static_argnums=0)
    moved = optax.apply_updates(params, update(split, gradients, params))['params']
    w, dw = (flax_layers.from_kernel(tree['params']['conv']['kernel']) for tree in (params, gradients))
    change = update(tx, -dw, w)
    np.testing.assert_allclose(flax_layers.from_kernel(moved['conv']['kernel']), w + change, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(moved['conv']['bias'], conv['bias'])
    expected = params['params']['head']['kernel'] - gradients['params']['head']['kernel']
    np.testing.assert_array_equal(moved['head']['kernel'], expected)


def test_an_optimizer_that_goes_against_the_rule_is_refused(relaxed):
    """Losses go down, rules up: the part for Hebbian layers is given dw."""
    for descending in (optax.sgd(0.1), optax.adam(1e-3)):
        with pytest.raises(ValueError, match=r'tx descends.*end it with transforms\.scale_by_rate\(rate\)'):
            flax_models.partition_optimizer(descending, optax.adam(1e-3), ['conv1'])


def test_maps_that_look_like_channels_first_are_learned_from(rng):
    model = nnx.Sequential(nnx.Conv(8, 4, (3, 3), padding='VALID', kernel_init=first, rngs=nnx.Rngs(0)))
    model = flax_models.hebbify_nnx(model, rules.oja(), ('layers/0',))
    slope = nnx.grad(lambda model, x: model(x).sum())(model, normal(rng, 2, 3, 8, 8))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(slope))
