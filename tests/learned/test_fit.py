"""Rules found by gradient: known ones come back, what is not finite is told, what has no gradient is refused."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hebbjax.learned.fit import fit_rule

RECOVERY = pathlib.Path(__file__).parents[2] / 'experiments' / 'learned_recovery.py'
KEY = jax.random.key(0)
ZEROS = jnp.zeros(3)
TARGET = jnp.array([1.0, -2.0, 0.5])


def distance(theta, key):
    """A loss with one minimum."""
    return jnp.sum((theta - TARGET) ** 2)


def test_four_rules_come_back_from_their_trajectories(tmp_path):
    """Hebb's, Oja's, a random one, the instar under a softmax: all 27 coefficients, in a process with all of XLA."""
    file, picture = tmp_path / 'r.json', tmp_path / 'f.png'
    environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
    command = [
        sys.executable,
        RECOVERY,
        '--noise',
        '0',
        '--seeds',
        '1',
        '--steps',
        '600',
        '--json',
        file,
        '--figure',
        picture,
    ]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    found, control = (row['measures'] for row in json.loads(file.read_text())['rows'])
    assert picture.read_bytes().startswith(b'\x89PNG') and list(found) == ['hebb', 'oja', 'random', 'instar, softmax']
    for name, (error,) in found.items():
        assert error < 0.02 < 0.4 < control[name][0]


def test_any_optimizer_descends_any_pytree(relaxed):
    told = []
    theta = {'a': jnp.zeros(2), 'b': [jnp.zeros(())]}
    loss = lambda theta, key: jnp.sum((theta['a'] - TARGET[:2]) ** 2) + (theta['b'][0] - 3) ** 2  # noqa: E731
    for tx in (None, optax.sgd(0.1), optax.lion(0.02)):
        fit = fit_rule(loss, theta, KEY, tx=tx, steps=330, every=100, watch=lambda *now: told.append(now))
        np.testing.assert_allclose(fit.theta['a'], TARGET[:2], atol=0.3)
        assert fit.losses.shape == (330,) and fit.losses[-1] < 0.2 < fit.losses[0] and not fit.skipped
    assert [number for number, *_ in told] == 3 * [100, 200, 300, 330]
    assert told[3][1] == fit_rule(loss, theta, KEY, steps=330).losses[-1]


def test_steps_have_keys_of_their_own_and_gradients_are_clipped(relaxed):
    noisy = lambda theta, key: jnp.sum(theta) * 1e6 + jax.random.uniform(key)  # noqa: E731
    fit = fit_rule(noisy, ZEROS, KEY, tx=optax.sgd(1.0), steps=4, clip=0.5)
    assert len({*(fit.losses - fit.losses.astype(int)).tolist()}) == 4
    np.testing.assert_allclose(fit.theta, -4 * 0.5 / 3**0.5, rtol=1e-5)


@pytest.mark.parametrize('spoil', ['loss', 'slope'])
def test_steps_that_are_not_finite_change_nothing_and_are_told(spoil, relaxed):
    def loss(theta, key):
        bad = jax.random.uniform(key) < 0.3
        if spoil == 'loss':
            return jnp.where(bad, jnp.inf, distance(theta, key))
        root = jnp.where(bad, theta[0] - jax.lax.stop_gradient(theta[0]), 1.0)  # whose slope is infinite at 0
        return distance(theta, key) + jnp.sqrt(root)

    tx = optax.adam(0.1)
    with pytest.warns(
        UserWarning, match=r'of 40 steps had a loss or gradient that was not finite, and changed nothing'
    ):
        fit = fit_rule(loss, ZEROS, KEY, tx=tx, steps=40)
    assert 4 < fit.skipped < 25 and fit.skipped == np.isnan(fit.losses).sum()
    clean = fit_rule(distance, ZEROS, KEY, tx=tx, steps=40 - fit.skipped)
    np.testing.assert_allclose(fit.theta, clean.theta, rtol=1e-4)  # as if those steps had not been


def test_where_nothing_is_finite_nothing_is_given(relaxed):
    with pytest.raises(ValueError, match=r'^5 of 5 steps had .* and none had one that was; start smaller'):
        fit_rule(lambda theta, key: jnp.sum(theta) / 0.0, ZEROS, KEY, steps=5)


@pytest.mark.parametrize('name, clip', [('line search', 1e6), ('polyak', 1.0), ('plateau', 1.0)])
def test_optimizers_that_ask_for_the_loss_are_told_it(name, clip, relaxed):
    plateau = optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=20))
    tx = {'line search': optax.lbfgs(), 'polyak': optax.polyak_sgd(), 'plateau': plateau}[name]
    np.testing.assert_allclose(fit_rule(distance, ZEROS, KEY, steps=150, tx=tx, clip=clip).theta, TARGET, atol=0.05)


def test_ctrl_c_gives_what_was_reached(relaxed):
    def interrupt(done, loss, theta):
        if done == 20:
            raise KeyboardInterrupt

    fit = fit_rule(distance, ZEROS, KEY, steps=100, every=10, watch=interrupt)
    assert fit.interrupted and len(fit.losses) == 20
    np.testing.assert_allclose(fit.theta, fit_rule(distance, ZEROS, KEY, steps=20).theta, rtol=1e-6)


@pytest.mark.parametrize(
    'objective, theta, says',
    [
        (
            lambda theta, key: jnp.argmax(theta),
            ZEROS,
            r'one float, a loss, not ShapeDtypeStruct\(shape=\(\), dtype=int32\)',
        ),
        (lambda theta, key: theta, ZEROS, r'one float, a loss, not ShapeDtypeStruct\(shape=\(3,\)'),
        (lambda theta, key: (distance(theta, key), 1), ZEROS, 'an objective gives one float, a loss, not '),
        (lambda theta, key: jnp.mean(theta > 0), ZEROS, r'is flat: all of 5 gradients were zero; .* by evolution'),
        (distance, jnp.zeros(3, int), 'a rule is learned by a pytree of floats'),
        (distance, (), 'a rule is learned by a pytree of floats, at least one'),
        (distance, {'a': ZEROS, 'n': jnp.zeros(0, int)}, 'a rule is learned by a pytree of floats'),
    ],
)
def test_what_has_no_gradient_is_refused_and_told_so(objective, theta, says, relaxed):
    with pytest.raises(ValueError, match=says):
        fit_rule(objective, theta, KEY, steps=5)


def test_settings_out_of_range_are_refused(relaxed):
    for how in ({'steps': 0}, {'every': 0}, {'clip': 0}, {'clip': np.nan}, {'steps': 2.5}):
        with pytest.raises(ValueError, match='is out of range'):
            fit_rule(distance, ZEROS, KEY, **{'steps': 2} | how)
    with pytest.raises(ValueError, match='one key is wanted'):
        fit_rule(distance, ZEROS, 0, steps=2)
