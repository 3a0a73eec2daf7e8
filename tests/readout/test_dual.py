"""Ridge regression of products of images: against the primal in float64, in any blocks; by gradient, over many."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import readout
from hebbjax.readout import dual, linear
from hebbjax.support import checks, moments
from hebbjax.support.moments import solve_refined


def problem(rng, count=130, inputs=400, classes=4):
    """Features of very different sizes around a common level, more than images, that tell something of the labels."""
    x = rng.normal(size=(count, inputs)) * np.logspace(-1, 1, inputs)
    labels = (x @ rng.normal(size=(inputs, classes)) + 100 * rng.normal(size=(count, classes))).argmax(1)
    return (x + 30).astype(np.float32), labels


def cut(x, size):
    """Blocks of columns."""
    return [x[:, at : at + size] for at in range(0, x.shape[1], size)]


def in_float64(x, labels, classes, penalty):
    """Weights and bias of the primal."""
    x, y = x.astype(np.float64), np.eye(classes)[labels]
    centred = x - x.mean(0)
    w = np.linalg.solve(centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T @ (y - y.mean(0)))
    return w, y.mean(0) - x.mean(0) @ w


@pytest.mark.parametrize('penalty', [1.0, 1e2, 1e5])
@pytest.mark.parametrize('size', [1, 150, 400])
def test_it_is_the_primal(penalty, size, rng, monkeypatch):
    monkeypatch.setattr(moments, 'PANEL', 50)
    monkeypatch.setattr(dual, 'CHUNK', 50)  # so that the matrix has several tiles
    x, labels = problem(rng)
    found = readout.fit_dual(cut(x, size), labels, 4, penalty)
    w, b = in_float64(x, labels, 4, penalty)
    assert np.abs(found.model.w - w).max() < 2e-6 * max(1, 10 / penalty) * np.abs(w).max()
    np.testing.assert_allclose(found.model.b, b, atol=1e-3)
    assert found.penalty == penalty and found.accuracies == ()


def test_a_common_level_costs_no_digits(rng):
    x, labels = problem(rng)
    raised = np.round(x * 2**6) / 2**6 + np.float32(10_000)
    models = [readout.fit_dual(cut(a, 100), labels, 4, 10.0).model for a in (raised - np.float32(10_000), raised)]
    np.testing.assert_allclose(models[1].w, models[0].w, atol=3e-6 * np.abs(models[0].w).max())


def test_images_that_are_held_out_choose_a_penalty_as_in_the_primal(rng):
    x, labels = problem(rng, 300, 200)
    penalties = (1e6, 1.0, 1e4, 1e2)
    found = readout.fit_dual(lambda: iter(cut(x, 90)), labels, 4, penalties, 120)
    stats = readout.ridge_stats([(x[:180], labels[:180])], 4)
    judge = readout.choose_ridge(stats, penalties, [(x[180:250], labels[180:250]), (x[250:], labels[250:])])
    assert found[1:] == judge[1:]
    assert len({share for _, share in found.accuracies}) > 2
    assert dict(found.accuracies)[found.penalty] == max(share for _, share in found.accuracies)
    one = readout.fit_dual(cut(x, 90), labels, 4, 1e2, 120)
    assert one.accuracies == (judge.accuracies[-1],)  # one of them is told as well


def test_penalties_that_float32_cannot_solve_for_are_told_and_refused(rng):
    x, labels = problem(rng, 300, 2000)
    x[:150] = x[150:]  # every image twice: half of the matrix is zero without a penalty
    found = readout.fit_dual([x[:200]], labels[:200], 4, (1e-9, 1e3), 40)
    assert np.isnan(found.accuracies[0][1]) and found.penalty == 1e3
    with pytest.raises(
        ValueError, match=r'^penalty=1e-09 is lost in rounding beside products of .*; use one ten times'
    ):
        readout.fit_dual([x], labels, 4, 1e-9)


@pytest.mark.parametrize(
    'kind, shift', [(np.asarray, 1.0), (np.asarray, np.logspace(-2, 2, 80)), (jnp.asarray, np.logspace(-2, 2, 80))]
)
def test_what_float32_solves_for_is_refined_to_float64(kind, shift, rng, monkeypatch):
    monkeypatch.setattr(moments, 'CHUNK', 33)
    monkeypatch.setattr(moments, 'PANEL', 33)
    half = rng.normal(size=(80, 60)).astype(np.float32)
    a, y = 100 * half @ half.T, rng.normal(size=(80, 3))
    exact = np.linalg.solve(a.astype(np.float64) + np.diag(np.broadcast_to(shift, 80)), y)
    np.testing.assert_allclose(solve_refined(kind(a), shift, y), exact, atol=1e-6 * np.abs(exact).max())
    if kind is np.asarray:
        assert not solve_refined(a, shift, 0 * y).any()
    assert solve_refined(kind(a), 1e-9, y) is None


@pytest.mark.parametrize('panel', [4096, 128])  # all in one, or in some: BLAS crashes at larger ones
def test_wide_primal_products_are_of_float32_and_their_solution_of_float64(panel, rng, monkeypatch):
    x, labels = problem(rng, 900, 300)
    exact = readout.fit_ridge([(x, labels)], 4, 10.0)
    monkeypatch.setattr(moments, 'WIDE', 299)
    monkeypatch.setattr(moments, 'PANEL', panel)
    for unit in (1, 1e-25, 1e25):  # squares of the last two are beyond float32
        scaled = x * np.float32(unit)
        found = readout.fit_ridge([(scaled[:400], labels[:400]), (scaled[400:], labels[400:])], 4, 10.0 * unit**2)
        assert 0 < np.abs(found.w * unit - exact.w).max() < 1e-5 * np.abs(exact.w).max()
    with pytest.raises(ValueError, match='penalty=0 is lost in rounding'):
        readout.fit_ridge([(np.concatenate([x, x], 1), labels)], 4, 0)
    stats = readout.ridge_stats([(x, labels)], 4)
    np.testing.assert_array_equal(stats.xx, stats.xx.T)
    halves = readout.add_batch(None, x, labels, 4)  # of large products the lower triangle, whether or not a file's
    assert (halves.xx[0, -1] == 0) == (panel == 128)
    for array in halves:
        getattr(array, 'setflags', dict)(write=False)
    np.testing.assert_array_equal(readout.solve_ridge(halves, 10.0).w, readout.solve_ridge(stats, 10.0).w)
    choice = readout.choose_ridge(stats, (10.0, 1e3), [(x, labels)])
    np.testing.assert_allclose(choice.model.w, exact.w, atol=1e-5 * np.abs(exact.w).max())


def test_few_features_are_judged_at_small_penalties_in_float64(rng):
    x, labels = problem(rng, 300, 40)
    stats = readout.ridge_stats([(x[:200], labels[:200])], 4)
    found = readout.choose_ridge(stats, (1e-9, 10.0), [(x[200:], labels[200:])])
    for penalty, share in found.accuracies:
        assert share == readout.linear_accuracy(readout.solve_ridge(stats, penalty), [(x[200:], labels[200:])])


def test_a_penalty_that_eigenvectors_refuse_may_be_the_one_that_is_chosen(rng):
    """Columns that repeat others: Cholesky solves for a penalty that `solve_ridge` does not know to three digits."""
    x, _ = problem(rng, 300, 20)
    x, labels = np.concatenate([x, x], 1), x[:, :4].argmax(1)
    stats = readout.ridge_stats([(x[:200], labels[:200])], 4)
    with pytest.raises(ValueError, match='the features depend on each other'):
        readout.solve_ridge(stats, 1e-11)
    found = readout.choose_ridge(stats, (1e-11, 1e9), [(x[200:], labels[200:])])
    assert found.penalty == 1e-11
    assert found.accuracies[0][1] == readout.linear_accuracy(found.model, [(x[200:], labels[200:])])


def test_a_class_that_held_out_images_alone_have_is_read_wrong(rng):
    x, labels = problem(rng, 60, 80, 3)
    labels[:40], labels[40:] = labels[:40] % 2, 2
    found = readout.fit_dual([x], labels, 2, (1.0, 2.0), held_out=20)
    assert [share for _, share in found.accuracies] == [0, 0]


# In jnp


@pytest.mark.parametrize('inputs', [6, 40])
def test_outputs_of_jnp_are_those_of_float64_have_slopes_and_go_over_many(inputs, rng, x64):
    """With more images than features, or fewer."""
    x, labels = problem(rng, 30, inputs, 3)
    model, y = readout.fit_ridge([(x[:20], labels[:20])], 3, 5.0), np.eye(3)[labels[:20]]
    x = jnp.asarray(x, float)
    way = jnp.asarray(rng.normal(size=x.shape))

    def outputs(step):
        moved = x + step * way
        return readout.ridge_outputs(moved[:20], y, moved[20:], 5.0 + step)

    many = jax.jit(lambda steps: jax.lax.map(outputs, steps))(jnp.asarray([0, 1e-5, -1e-5]))
    # of one: `vmap` of more may wait forever on two cores, see there
    np.testing.assert_allclose(jax.jit(jax.vmap(outputs))(jnp.zeros(1)), many[:1], atol=1e-10)
    np.testing.assert_allclose(many[0], x[20:] @ model.w + model.b[None], atol=1e-8)
    slope = jax.jit(jax.grad(lambda step: jnp.sum(outputs(step) ** 3)))(0.0)
    np.testing.assert_allclose(slope, (jnp.sum(many[1] ** 3) - jnp.sum(many[2] ** 3)) / 2e-5, rtol=1e-5)


# Bad input


@pytest.mark.parametrize('targets, others', [((4, 2), (2, 3)), ((5, 2), (2, 4)), ((5,), (2, 3))], ids=str)
def test_outputs_of_arrays_that_do_not_fit_each_other_are_refused(targets, others):
    says = f'shapes (5, 3), {targets}, {others} do not fit; give [b, F], [b, K] and [n, F].'
    with pytest.raises(ValueError, match=re.escape(says)):
        readout.ridge_outputs(jnp.ones((5, 3)), jnp.ones(targets), jnp.ones(others))


def test_a_matrix_that_the_memory_cannot_hold_is_refused_before_features_are_seen(monkeypatch):
    monkeypatch.setattr(checks, 'host_memory', lambda: 8 * 50_000**2)

    def blocks():
        raise AssertionError('nothing is computed')

    says = r'^the Gram matrix of 100000 images takes 75 GiB and the machine has 19; use 50000 of them at most, or pool '
    with pytest.raises(ValueError, match=says):
        readout.fit_dual(blocks, np.arange(100_000) % 10, 10)


@pytest.mark.parametrize(
    'blocks, says',
    [
        ([], 'at least one block'),
        (iter([np.ones((4, 9))]), 'blocks are gone through twice, and .* is no list; give a list, or a function'),
        (np.ones((4, 9)), 'is no list'),
        ([np.ones((3, 9))], r'a block of shape \(3, 9\) does not fit 4 labels; give \[4, f\]'),
        ([np.ones((4, 0))], r'a block of shape \(4, 0\)'),
        ([np.full((4, 9), np.nan)], 'NaN or infinite'),
        ([np.full((4, 9), 'a')], 'features are numbers, not <U1'),
        ([np.full((4, 9), 1j)], 'features are numbers, not complex128'),
        ([1e20 * np.eye(4, 9)], 'squares of these features add up to inf, beyond float32; divide'),
        ([1e-20 * np.eye(4, 9)], 'beyond float32; divide'),
    ],
)
def test_blocks_that_do_not_fit_are_refused(blocks, says):
    with np.errstate(over='ignore', invalid='ignore'), pytest.raises(ValueError, match=says):
        readout.fit_dual(blocks, [0, 1, 0, 1], 2)


def test_settings_that_do_not_fit_are_refused(rng):
    x, labels = problem(rng)
    stats = readout.ridge_stats([(x, labels)], 4)
    for call, says in (
        (lambda: readout.fit_dual([x], labels, 3), 'labels run from 0 to 3 and there are 3 classes'),
        (lambda: readout.fit_dual([x], labels, 4, (1.0, 2.0)), 'held_out=0 is out of range; use a whole number from 1'),
        (lambda: readout.fit_dual([x], labels, 4, ()), r'penalty=\(\) chooses among none'),
        (lambda: readout.choose_ridge(stats, (1.0, 2.0), []), 'at least one batch of held-out'),
        (lambda: linear.check_penalties([1.0]), r'penalty=\[1.0\] is out of range'),
    ):
        with pytest.raises(ValueError, match=says):
            call()
