"""Schedules of gradient training: how rates fall, what a step is, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hebbjax.schedules import Milestones, Schedule


def factors(schedule, accuracies):
    """What multiplies the rate in each epoch."""
    state, follow = schedule.pace()
    found = []
    for accuracy in accuracies:
        found.append(float(state.scale))
        state = follow(state, accuracy)
    return found


def test_ten_epochs_at_one_rate_then_it_is_halved_before_each_of_the_next_ten():
    schedule = Milestones()
    found = factors(schedule, np.zeros(schedule.epochs))
    assert found == [1.0] * 10 + [0.5**cuts for cuts in range(1, 11)]
    np.testing.assert_allclose(schedule.rate * found[-1], 9.8e-7, rtol=4e-3)


def test_milestones_may_come_at_once_and_go_unheard():
    assert factors(Milestones(milestones=(0, 2, 2, 99), factor=0.1), [0.9, 0.1, 0.5]) == pytest.approx([0.1, 0.1, 1e-3])


def test_a_step_is_pytorchs_sgd_with_nesterovs_momentum_and_an_l2_penalty_on_everything(rng):
    schedule = Milestones(rate=0.1, momentum=0.8, l2=0.05, milestones=(2,))
    params = {'w': rng.normal(size=(2, 3)), 'shift': rng.normal(size=3)}
    gradients = [{name: rng.normal(size=a.shape) for name, a in params.items()} for _ in range(4)]
    ours = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    tx, (pace, follow) = schedule.tx(), schedule.pace()
    opt = tx.init(ours)
    buf = dict.fromkeys(params, 0)
    for epoch, gradient in enumerate(gradients):
        updates, opt = tx.update(jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), gradient), opt, ours)
        ours = optax.apply_updates(ours, jax.tree.map(lambda u, scale=pace.scale: scale * u, updates))
        pace = follow(pace, 0.0)
        for name, w in params.items():  # as torch.optim.SGD writes it
            g = gradient[name] + 0.05 * w
            buf[name] = 0.8 * buf[name] + g
            params[name] = w - 0.1 * (1 if epoch < 2 else 0.5) * (g + 0.8 * buf[name])
    for name, w in params.items():
        np.testing.assert_allclose(ours[name], w, rtol=1e-5, atol=1e-6)


def test_reduce_on_plateau_counts_epochs_that_are_not_better(relaxed):
    accuracies = [0.1, 0.2, 0.2, 0.15, 0.3, 0.3, 0.3, 0.3, 0.3, 0.29, 0.4, 0.1, 0.4]
    scale, best, bad, expected = 1.0, 0.0, 0, []
    for accuracy in accuracies:
        expected.append(scale)
        best, bad = max(best, accuracy), 0 if accuracy > best else bad + 1
        if bad == 2:
            scale, bad = scale / 2, 0
    assert factors(Schedule(factor=0.5, patience=2), accuracies) == expected
    assert expected[-1] == 1 / 8


@pytest.mark.parametrize('kind', [Schedule, Milestones])
def test_the_same_settings_are_the_same_optimizer(kind):
    """Programs are compiled once for it."""
    assert kind(rate=0.25).tx() is kind(rate=0.25, epochs=3).tx()
    assert kind(rate=0.25).tx() is not kind(rate=0.5).tx()


@pytest.mark.parametrize('kind', [Schedule, Milestones])
@pytest.mark.parametrize(
    'settings, says',
    [
        ({'epochs': 0}, '0 head epochs train nothing; use 1 or more'),
        ({'batch': 501}, 'a batch of 501 does not fit 500 samples; use 1 to 500'),
        ({'batch': 0}, 'a batch of 0 does not fit'),
        ({'rate': 0.0}, 'learning rate 0.0 does not descend; use a rate above 0'),
        ({'rate': float('nan')}, 'learning rate nan'),
        ({'average': 0}, r'a mean over 0 steps has nothing to average; use 1 \(the last\) or more'),
    ],
    ids=str,
)
def test_what_cannot_train_is_refused(kind, settings, says):
    kind().check(500)
    with pytest.raises(ValueError, match=says):
        kind(**settings).check(500)


@pytest.mark.parametrize(
    'settings, says',
    [
        ({'momentum': 1.0}, 'momentum 1.0 never settles; use 0 <= momentum < 1'),
        ({'momentum': -0.5}, 'momentum -0.5'),
        ({'l2': -1e-3}, 'an L2 penalty of -0.001 would make weights grow; use 0 or more'),
        ({'l2': float('nan')}, 'an L2 penalty of nan'),
    ],
)
def test_momentum_and_penalties_out_of_range_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Milestones(**settings).check(500)
