"""Schedules of gradient training: how rates fall, what a step is, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hebbjax import cli
from hebbjax.hybrid import Supervised
from hebbjax.norms import BatchNorm
from hebbjax.readout import Head
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
        'milestones': (None, 3, 'ab', (1.5,), (True,), (-1,), (2, 1), (float('nan'),), (None,), (3, 5, 4)),
        'factor': (*NO_NUMBER, *BELOW, 0, 2), 'stop_after': (*NO_COUNT, 0), 'average': (*NO_COUNT, 0),
    },
    Head: {
        'classes': (*NO_COUNT, 0, 1), 'norm': (None, 1, 'yes', 0.0), 'threshold': NO_NUMBER,
        'power': (*NO_NUMBER[1:], *BELOW, 0, 0.99, np.float32(0.5)),
        'dropout': (*NO_NUMBER, *BELOW, 1, np.float32(1.5)),
    },
    BatchNorm: {'momentum': (*NO_NUMBER, *BELOW, 1, np.float32(2)), 'epsilon': (*NO_NUMBER, *BELOW, 0, np.float32(0))},
    Supervised: {'start': (*NO_COUNT, 3, 10**20)},
}  # fmt: skip
GIVEN = {Head: {'classes': 3}, Supervised: {'start': 0, 'head': Head(3), 'schedule': Schedule()}}


@pytest.mark.parametrize(
    'kind, setting', [(kind, setting) for kind, settings in HOSTILE.items() for setting in settings], ids=str
)
def test_what_is_no_setting_is_met_with_a_sentence(kind, setting):
    """Schedules are looked at when their data are known, stages when their network is, all else when built."""

    def build(**settings):
        built = kind(**GIVEN.get(kind, {}) | settings)
        if kind not in (Head, BatchNorm):
            built.check(2 if kind is Supervised else 500)

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
    Head(np.int64(3), True, np.float32(1.5), np.float32(0.5), np.float64(0.1))
    BatchNorm(momentum=np.float32(0.5), epsilon=np.float64(1e-3))


@pytest.mark.parametrize('flag', ['--head-rate', '--head-decay', '--threshold', '--power', '--dropout'])
def test_a_command_refuses_before_it_trains_and_leaves_nothing(flag, few_digits, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for value in ('nan', 'inf', '-1'):
        if (flag, value) == ('--threshold', '-1'):
            continue  # a neuron that starts by sending more than its mean
        assert cli.main(['dense', '--dataset', 'digits', '--json', 'found.json', flag, value]) == 2
        assert capsys.readouterr().err.startswith('hebbjax dense: error: ')
        assert not list(tmp_path.iterdir())
