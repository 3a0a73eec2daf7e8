"""Products and sums of rows, in every form that a backend may be given: all equal what they are defined to be."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbjax
from hebbjax import layers, rules, transforms
from hebbjax.layers.layer import Layer
from hebbjax.layers.patches import Window
from hebbjax.rules import products, top_k
from hebbjax.rules.products import PRECISIONS, add_by_product, add_one_by_one, add_rows, arithmetic, assumed_backend
from hebbjax.rules.top_k import by_argmax, by_ranking, by_sweeps, by_tournament
from hebbjax.support import devices

INF = float('inf')
TX = transforms.scale_by_rate(0.1)


def lowered(f, *args, platform='cpu'):
    """What a program is, before it is compiled for a platform that need not be there."""
    return jax.jit(f).trace(*args).lower(lowering_platforms=(platform,)).as_text()


# Who is largest


@pytest.mark.parametrize('form', [by_sweeps, by_ranking, by_tournament, by_argmax], ids=lambda form: form.__name__)
def test_every_form_finds_the_largest_the_first_among_equals(form, rng):
    for k, neurons in ((1, 40), (2, 40), (4, 333)):
        if form is by_argmax and k > 1:
            continue
        find = jax.jit(partial(form, k=k))
        for levels in (2, 10**6):  # many equals, none
            u = rng.integers(-levels, levels, (30, neurons)).astype(np.float32)
            u[:, neurons // 2 :][rng.random((30, neurons - neurons // 2)) < 0.2] = -INF
            u[0, 1:], u[1] = -INF, -INF  # one takes part, nobody does
            values, indices = map(np.asarray, find(u))
            order = np.argsort(-u, axis=1, kind='stable')[:, :k]
            expected = np.take_along_axis(u, order, 1)
            np.testing.assert_array_equal(values, expected)
            np.testing.assert_array_equal(indices[expected > -INF], order[expected > -INF])
            assert indices.dtype == np.int32 and ((indices >= 0) & (indices < neurons)).all()
        u[2, 3] = np.nan
        spoiled, indices = map(np.asarray, find(u))
        np.testing.assert_array_equal(np.delete(spoiled, 2, 0), np.delete(values, 2, 0))
        assert ((indices >= 0) & (indices < neurons)).all()


def test_the_form_is_that_of_the_backend_that_a_program_is_lowered_for():
    find = lambda k, n, platform: lowered(lambda u: top_k(u, k), jnp.zeros((8, n)), platform=platform)  # noqa: E731
    assert 'chlo.top_k' in find(2, 400, 'cpu') and 'chlo.top_k' not in find(2, 400, 'cuda')  # a tournament, sweeps
    assert 'chlo.top_k' not in find(2, 300, 'cpu') and 'chlo.top_k' in find(9, 400, 'cuda')
    is_argmax = lambda text: 'comparison_direction = NE' in text or 'compare  NE' in text or 'NE,' in text  # noqa: E731
    assert is_argmax(find(1, 30, 'cuda')) and not is_argmax(find(1, 30, 'cpu'))
    for platform, dots in (('cpu', 0), ('cuda', 1), ('tpu', 1)):
        args = jnp.zeros((10, 3)), jnp.zeros((320, 1), jnp.int32), (1,), jnp.ones((320, 3))
        assert lowered(add_rows, *args, platform=platform).count('dot_general') == dots
        few = jnp.zeros((10, 3)), jnp.zeros((319, 1), jnp.int32), (1,), jnp.ones((319, 3))
        assert lowered(add_rows, *few, platform=platform).count('dot_general') == 0
        with arithmetic('highest', True):
            again = lowered(lambda *a: add_rows(*a), *few, platform=platform)
        assert again.count('dot_general') == dots


# Whose rows add up


@pytest.mark.parametrize('form', [add_one_by_one, add_by_product], ids=lambda form: form.__name__)
@pytest.mark.parametrize('wide', [False, True])
def test_every_form_adds_up_what_winners_won(form, wide, rng):
    n, d = (300, 5) if wide else (4, 5)
    winners = rng.integers(0, n + 1, (50, 2))  # n: nobody
    x, given = rng.normal(size=(50, d)).astype(np.float32), rng.normal(size=50).astype(np.float32)
    sums, counts = rng.normal(size=(n, d)).astype(np.float32), np.arange(n, dtype=np.int32)
    expected, weights = sums.astype(float), counts.copy()
    for p in range(50):
        for i, credit in zip(winners[p], (1, given[p])):
            if i < n:
                expected[i] += credit * x[p]
        weights[winners[p, 0] : winners[p, 0] + 1] += p % 2
    form = jax.jit(form)
    found = form(sums, winners, (1, given), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    counted = form(counts, winners[:, :1], (np.arange(50, dtype=np.int32) % 2,), None)
    np.testing.assert_array_equal(counted, weights)
    assert (found.dtype, counted.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_allclose(form(sums[:, 0], winners, (given, -0.5), None).sum(), sum(
        [sums[:, 0].sum(), given[winners[:, 0] < n].sum(), -0.5 * (winners[:, 1] < n).sum()]), rtol=1e-4)  # fmt: skip


RULES = {
    'krotov': lambda: rules.krotov(3, 0.4, 3.0),
    'instar': rules.instar,
    'two': lambda: rules.oja(2, reduce=rules.mean_over_credit),
    'cosine': lambda: rules.instar(metric='cosine'),
}


@pytest.mark.parametrize('name', RULES)
@pytest.mark.parametrize('settings', [{}, {'deterministic': True}, {'window': Window(2)}], ids=str)
def test_a_step_is_the_same_in_the_forms_of_a_gpu(name, settings, rng):
    """Neurons that a teacher keeps out, patches of nobody, and all-zero ones among them."""
    layer = Layer(41, RULES[name](), TX, **settings)
    state = layers.init_layer(layer, jax.random.key(0), (3, 4, 2))
    images = rng.uniform(size=(260, 3, 4, 2)).astype(np.float32)
    images[:5] = 0
    teacher = (rng.random((260, 41)) < 0.3).astype(np.float32)
    teacher[7] = 0
    step = jax.jit(layers.update_layer, static_argnums=0)
    learn = lambda: step(layer, jax.random.key(1), state, images, teacher)  # noqa: E731
    here = learn()
    with assumed_backend('gpu'):
        there = learn()
    np.testing.assert_allclose(there[0].w, here[0].w, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(there[2].win_counts, here[2].win_counts)
    np.testing.assert_allclose(there[2].win_rates, here[2].win_rates, rtol=1e-5)


def test_a_deterministic_layer_adds_no_rows_on_a_gpu():
    net = (Layer(900, rules.krotov(2), TX), Layer(30, rules.instar(2), TX))
    state = hebbjax.init(net, jax.random.key(0), (3, 3, 1))

    def adding(net, platform):
        step = lambda state, images: hebbjax.train_step(net, state, images)[0].layers  # noqa: E731
        floats = [line for line in lowered(step, state, jnp.zeros((99, 3, 3, 1)), platform=platform).splitlines()
                  if 'stablehlo.scatter"' in line]  # fmt: skip
        return len(floats)

    exact = tuple(dataclasses.replace(layer, deterministic=True) for layer in net)
    assert adding(net, 'cuda') > 0 and adding(exact, 'cuda') == 0 and adding(exact, 'cpu') == adding(net, 'cpu') > 0


def test_forms_pass_under_vmap_scan_and_grad(rng):
    x, w = rng.normal(size=(640, 6)).astype(np.float32), rng.normal(size=(20, 6)).astype(np.float32)
    rule = rules.krotov(2)

    def slope(w):  # of where training ends on where it began
        learn = lambda w, _: (w + 1e-3 * rule.update(jax.random.key(0), x, x @ w.T, w, ())[0], None)  # noqa: E731
        return jax.grad(lambda w: jnp.sum(jax.lax.scan(learn, w, None, 2)[0] ** 2))(w)

    here, mapped = jax.jit(slope)(w), jax.jit(jax.vmap(slope))(jnp.stack([w, w]))
    with assumed_backend('gpu'):
        there = jax.jit(slope)(w)
    np.testing.assert_allclose(mapped, jnp.stack([here, here]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-4)


def test_rules_called_from_python_compile_once(rng, capsys):
    x, w = jnp.asarray(rng.normal(size=(64, 3)), jnp.float32), jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    rule, compiled = rules.krotov(2), []
    learn = lambda: rule.update(jax.random.key(0), x, x @ w.T, w, ())  # noqa: E731
    learn()
    listen = lambda name, *_, **__: compiled.append(name) if 'backend_compile' in name else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    learn()
    assert compiled == []


# One precision


def test_a_precision_is_that_of_all_products_of_a_layer():
    layer = Layer(8, rules.oja(rules.soft_wta(1.0)), TX, lateral=layers.Lateral(rate=0.1))
    state = layers.init_layer(layer, jax.random.key(0), (4, 4, 1))
    kinds = {
        'highest': 'precision = [HIGHEST, HIGHEST]', 'tensorfloat32': 'precision = [HIGH, HIGH]',
        'float32x3': 'num_primitive_operations = 3', 'bfloat16': 'xbf16>, tensor<',
    }  # fmt: skip
    assert kinds.keys() == {*PRECISIONS}
    for precision, says in kinds.items():
        spec = dataclasses.replace(layer, precision=precision)
        learn = lambda state, images, spec=spec: layers.update_layer(spec, jax.random.key(0), state, images)[0]  # noqa: E731
        text = lowered(learn, state, jnp.ones((6, 4, 4, 1)), platform='cuda')
        found = [line for line in text.splitlines() if 'dot_general' in line]
        assert len(found) == 4 and all(says in line for line in found), found  # drives, settling, pull, y y'
    assert 'HIGHEST' in lowered(products.matmul, jnp.ones((2, 2)), jnp.ones((2, 2)), platform='cuda')  # a rule alone


def test_precisions_of_one_product(rng):
    """bfloat16 rounds operands, not their sum; three passes are exact on a CPU, and of float64 there are none."""
    a, b = rng.uniform(1, 2, (20, 1000)).astype(np.float32), rng.uniform(1, 2, (1000, 7)).astype(np.float32)
    exact = a.astype(float) @ b
    for precision, least, most in (
        ('highest', 0, 1e-6), ('float32x3', 0, 1e-6), ('tensorfloat32', 0, 1e-3), ('bfloat16', 1e-6, 2**-8),
    ):  # fmt: skip
        with arithmetic(precision):
            assert least <= np.abs(products.matmul(jnp.asarray(a), jnp.asarray(b)) / exact - 1).max() < most
    with jax.enable_x64(True), arithmetic('float32x3'):
        double = products.matmul(jnp.asarray(a, float), jnp.asarray(b, float))
        assert double.dtype == jnp.float64
        np.testing.assert_allclose(double, exact, rtol=1e-13)


@pytest.mark.parametrize('left', [(6, 4), (2, 3, 4), (2, 0, 4)], ids=str)
@pytest.mark.parametrize('right', [(4, 5), (4,)], ids=str)
def test_a_product_of_rounded_numbers_and_its_slopes_are_those_of_rounded_numbers(left, right, rng):
    a, b, g = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (left, right, left[:-1] + right[1:]))
    rounded = lambda a: np.asarray(a.astype(jnp.bfloat16), float)  # noqa: E731
    rows_of = lambda a: a.reshape(math.prod(left[:-1]), 4)  # noqa: E731
    rows, columns = rows_of(rounded(a)), rounded(b).reshape(4, -1)

    def multiply(a, b):  # whatever is transposed
        with arithmetic('bfloat16'):
            return products.matmul(a, b), products.matmul(b.T, rows_of(a).T).T.reshape(g.shape)

    of_many = lambda a, b: [u[1] for u in jax.vmap(multiply)(jnp.stack([2 * a, a]), jnp.stack([b, b]))]  # noqa: E731
    for run in (multiply, jax.jit(multiply), jax.jit(of_many)):
        for u in run(a, b):
            np.testing.assert_allclose(u, (rows @ columns).reshape(g.shape), rtol=1e-6, atol=1e-6)
    up = rounded(g).reshape(len(rows), columns.shape[1])
    wanted = (up @ columns.T).reshape(a.shape), (rows.T @ up).reshape(b.shape)
    for turn in range(2):
        loss = lambda a, b, turn=turn: (g * multiply(a, b)[turn]).sum()  # noqa: E731
        for slope, exact in zip(jax.jit(jax.grad(loss, (0, 1)))(a, b), wanted):
            np.testing.assert_allclose(slope, exact, rtol=1e-6, atol=1e-6)


def test_rounded_products_lie_row_by_row_on_a_cpu_and_slopes_are_rounded_too():
    """There others are turned into float32, which takes twice as long where a CPU multiplies bfloat16 by itself."""
    x, w = jnp.ones((6, 4)), jnp.ones((5, 4))

    def learn(x, w):
        with arithmetic('bfloat16'):
            return jax.value_and_grad(lambda x, w: products.matmul(x, w.T).sum(), (0, 1))(x, w)

    for platform, laid in (('cpu', 9), ('cuda', 0)):
        found = [line for line in lowered(learn, x, w, platform=platform).splitlines() if 'dot_general' in line]
        assert len(found) == 3 and all(line.count('bf16') == 2 for line in found), found
        assert lowered(learn, x, w, platform=platform).count('LayoutConstraint') == laid


@pytest.mark.skipif(jax.device_count() < 8, reason='needs eight devices, virtual ones do')
@pytest.mark.parametrize('precision', PRECISIONS)
def test_the_slope_of_what_devices_share_is_the_sum_of_theirs(precision, rng):
    x, w = (jnp.asarray(rng.integers(-4, 5, shape), jnp.float32) for shape in ((16, 4), (5, 4)))

    def slope(x, w):
        with arithmetic(precision):
            of_both = lambda w: (products.matmul(x, w.T) + products.matmul(w, x.T).T).sum()  # noqa: E731
            return jax.grad(of_both)(w)

    divided = devices.divide(slope, devices.check_mesh(jax.make_mesh((8,), ('data',))), devices.ROWS, devices.SAME)
    np.testing.assert_array_equal(jax.jit(divided)(x, w), np.tile(2 * x.sum(0), (5, 1)))


def test_the_backend_in_use_is_that_of_the_mesh_or_the_default_device():
    assert products.backend_in_use() == 'cpu'
    with jax.default_device(jax.devices('cpu')[0]):
        assert products.backend_in_use() == 'cpu'
    with assumed_backend('gpu'):
        assert products.backend_in_use() == 'gpu'
    with jax.set_mesh(jax.make_mesh((1,), ('data',))):
        assert products.backend_in_use() == 'cpu'
