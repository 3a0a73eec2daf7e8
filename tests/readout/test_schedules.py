"""Schedules of gradient training: how rates fall, what a step is; settings of theirs and of heads that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hebbjax import layers
from hebbjax.layers.normalization import BatchNorm
from hebbjax.readout import GradientStage, Milestones, Schedule, hybrid, linear_head


def factors(schedule, accuracies):
    """What multiplies the rate in each epoch."""
    return [schedule.scale(accuracies[:epoch]) for epoch in range(len(accuracies))]


def test_ten_epochs_at_one_rate_then_it_is_halved_before_each_of_the_next_ten():
    schedule = Milestones()
    scales = factors(schedule, [0.0] * schedule.epochs)
    assert scales == [1.0] * 10 + [0.5**cuts for cuts in range(1, 11)]
    np.testing.assert_allclose(schedule.rate * scales[-1], 9.8e-7, rtol=4e-3)


def test_milestones_may_come_at_once_and_go_unheard():
    assert factors(Milestones(milestones=(0, 2, 2, 99), factor=0.1), [0.9, 0.1, 0.5]) == pytest.approx([0.1, 0.1, 1e-3])


def test_a_step_is_pytorchs_sgd_with_nesterovs_momentum_and_an_l2_penalty_on_everything(rng):
    schedule = Milestones(rate=0.1, momentum=0.8, l2=0.05, milestones=(2,))
    params = {'w': rng.normal(size=(2, 3)), 'shift': rng.normal(size=3)}
    gradients = [{name: rng.normal(size=a.shape) for name, a in params.items()} for _ in range(4)]
    ours = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    tx = schedule.tx()
    opt, buf = tx.init(ours), dict.fromkeys(params, 0)
    for epoch, gradient in enumerate(gradients):
        updates, opt = tx.update(jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), gradient), opt, ours)
        scale = schedule.scale([0.0] * epoch)
        ours = optax.apply_updates(ours, jax.tree.map(lambda u, scale=scale: scale * u, updates))
        for name, w in params.items():  # as torch.optim.SGD writes it
            g = gradient[name] + 0.05 * w
            buf[name] = 0.8 * buf[name] + g
            params[name] = w - 0.1 * (1 if epoch < 2 else 0.5) * (g + 0.8 * buf[name])
    for name, w in params.items():
        np.testing.assert_allclose(ours[name], w, rtol=1e-5, atol=1e-6)


def test_reduce_on_plateau_counts_epochs_that_are_not_better(relaxed):
    accuracies = [0.1, 0.2, 0.2, 0.15, 0.3, 0.3, 0.3, 0.3, 0.3, 0.29, 0.4, 0.1, 0.4]
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=2, rtol=0.0, atol=1e-7)
    update = jax.jit(lambda state, loss: plateau.update(jnp.zeros(()), state, value=loss)[1])
    state, expected = plateau.init(jnp.zeros(())), []
    for accuracy in accuracies:
        expected.append(float(state.scale))
        state = update(state, jnp.float32(1 - accuracy))
    assert factors(Schedule(factor=0.5, patience=2), accuracies) == expected
    assert expected[-1] == 1 / 8


def test_weight_decay_is_for_matrices(relaxed):
    tx, params = Schedule(rate=0.1, decay=0.5).tx(), {'w': jnp.ones((2, 2)), 'b': jnp.ones(2)}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates['w'], -0.05 * np.ones((2, 2)), rtol=1e-6)
    np.testing.assert_array_equal(updates['b'], np.zeros(2))


@pytest.mark.parametrize(
    'kind, settings, says',
    [
        (Milestones, {'batch': 501}, 'batch=501 is out of range; use a whole number from 1 to 500'),
        (Schedule, {'rate': 0.0}, 'rate=0.0 is out of range; use a finite number > 0'),
        (Milestones, {'average': 0}, 'average=0 is out of range; use a whole number from 1 on'),
        (Milestones, {'momentum': 1.0}, 'momentum=1.0 is out of range; use a finite number >= 0 and < 1'),
        (Milestones, {'l2': -1e-3}, 'l2=-0.001 is out of range; use a finite number >= 0'),
    ],
    ids=str,
)
def test_refusals_say_what_fits(kind, settings, says):
    kind().check(500)
    with pytest.raises(ValueError, match=says):
        kind(**settings).check(500)


NO_NUMBER = (None, 'one', '1', float('nan'), float('inf'), -float('inf'), np.float32('nan'), np.float64('inf'), [1], 1j)
NO_COUNT = (*NO_NUMBER, 1.5, 2.0, True, False, -1, np.float32(3), np.int64(-2), np.bool_(True))
BELOW = (-1e-9, -1, np.float32(-0.5), np.int32(-3))
HOSTILE = {
    Schedule: {
        'epochs': (*NO_COUNT, 0), 'batch': (*NO_COUNT, 0, 501), 'rate': (*NO_NUMBER, *BELOW, 0, np.float32(0)),
        'factor': (*NO_NUMBER, *BELOW, 0, 1.01), 'patience': NO_COUNT, 'stop_after': (*NO_COUNT, 0),
        'decay': (*NO_NUMBER, *BELOW), 'average': (*NO_COUNT, 0),
    },
    Milestones: {
        'epochs': (*NO_COUNT, 0), 'batch': (*NO_COUNT, 0, 501), 'rate': (*NO_NUMBER, *BELOW, 0),
        'momentum': (*NO_NUMBER, *BELOW, 1, 1.5, np.float32(1)), 'l2': (*NO_NUMBER, *BELOW),
        'milestones': (None, 3, 'ab', (1.5,), (True,), (-1,), (2, 1), (float('nan'),), (None,), (3, 5, 4), [1]),
        'optimizer': (None, 'rmsprop', 1, ['adam']), 'choose': (None, 'first', 0),
        'factor': (*NO_NUMBER, *BELOW, 0, 2), 'stop_after': (*NO_COUNT, 0), 'average': (*NO_COUNT, 0),
    },
    linear_head: {
        'classes': (*NO_COUNT, 0, 1), 'norm': (None, 1, 'yes', 0.0), 'threshold': NO_NUMBER, 'pool': (*NO_COUNT[1:], 0),
        'power': (*NO_NUMBER[1:], *BELOW, 0, 0.99, np.float32(0.5)),
        'dropout': (*NO_NUMBER, *BELOW, 1, np.float32(1.5)),
    },
    BatchNorm: {'momentum': (*NO_NUMBER, *BELOW, 1, np.float32(2)), 'epsilon': (*NO_NUMBER, *BELOW, 0, np.float32(0))},
    GradientStage: {'start': (*NO_COUNT, 2, 10**20), 'schedule': (10, 'fast', Schedule)},
}  # fmt: skip
NET = (linear_head(3, pool=2), linear_head(3))
STATES = jax.eval_shape(lambda key: layers.init(NET, key, (4, 4, 1)).layers, jax.random.key(0))
PAIR = np.zeros((500, 4, 4, 1), np.float32), np.arange(500) % 3
GIVEN = {linear_head: {'classes': 3}, GradientStage: {'start': 0, 'schedule': Schedule()}}


@pytest.mark.parametrize(
    'kind, setting',
    [(kind, setting) for kind, settings in HOSTILE.items() for setting in settings],
    ids=lambda part: getattr(part, '__name__', part),
)
def test_what_is_no_setting_is_met_with_a_sentence(kind, setting):
    """Schedules are looked at when their data are known, stages when their network is, all else when built."""

    def build(**settings):
        built = kind(**GIVEN.get(kind, {}) | settings)
        if kind is GradientStage:
            hybrid.check_stage(NET, STATES, built, PAIR, PAIR)
        elif kind not in (linear_head, BatchNorm):
            built.check(500)

    build()
    for value in HOSTILE[kind][setting]:
        with pytest.raises(ValueError) as error:
            build(**{setting: value})
        said = str(error.value)
        assert said.endswith('.') and '\n' not in said and len(said) < 200, said


def test_numbers_of_numpy_are_numbers():
    Schedule(np.int64(3), np.int32(5), np.float32(0.1), np.float64(0.5), np.int8(2), np.int64(3), np.float32(0)).check(
        5
    )
    Milestones(rate=np.float32(0.1), momentum=np.float64(0), milestones=(np.int64(1), 2, 2)).check(500)
    linear_head(np.int64(3), power=np.float32(1.5), threshold=np.float32(0.5), dropout=np.float64(0.1), pool=np.int8(2))
    BatchNorm(momentum=np.float32(0.5), epsilon=np.float64(1e-3))
