"""The loop of gradient training: choices on validation data alone, the best state kept, resumed to the same bits."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax.layers.layer import init_layer
from hebbjax.readout import Dropout, Milestones, Schedule, fit_gradient, linear_head
from hebbjax.readout.gradient import Carry, best_epoch, gradient_epoch
from hebbjax.readout.hybrid import NetworkModel
from hebbjax.training.checkpoint import load_state, save_state

HEAD = linear_head(3, norm=False, power=None)
MODEL = NetworkModel((HEAD,), 0)
SCHEDULE = Schedule(epochs=5, batch=20, rate=3e-2, patience=1, average=3)


def first(model=MODEL):
    """Params and stats of a head on images of 6 x 6."""
    return model.init([init_layer(layer, jax.random.key(0), (6, 6, 1)) for layer in model.net])


def fit(data, schedule=SCHEDULE, model=MODEL, **how):
    return fit_gradient(model, *first(model), jax.random.key(0), data, data, schedule, **how)


def untimed(result):
    """A curve without its seconds, which are never the same."""
    return [line[:-1] for line in result.curve]


def assert_same(one, other):
    """Parameters and stats, bit for bit."""
    for a, b in zip(jax.tree.leaves(one[:2]), jax.tree.leaves(other[:2]), strict=True):
        np.testing.assert_array_equal(a, b)


class Script(NamedTuple):
    """Stats of a model that gets a scripted share of ten validation samples right, and never the rest."""

    validation: Any  # [12] in one epoch after another
    epoch: Any = np.int32(0)
    lost: Any = np.float32(0)  # added to wrong logits of the second epoch ...
    in_training: Any = np.bool_(True)  # ... on training inputs, or validation inputs


class Scripted(NamedTuple):
    """The model: one program for all scripts."""

    def apply(self, params, script, inputs, key=None):
        training = key is not None
        right = jnp.zeros(len(inputs)) if training else inputs < 10 * script.validation[script.epoch - 1]
        logits = jnp.stack([1 - right, right], 1).astype(jnp.float32) + 0 * params
        hit = (script.epoch == 2 - training) & (script.in_training == training)
        logits += jnp.where(hit, script.lost, 0.0) * (1 - logits)
        return logits, script._replace(epoch=script.epoch + training)


SCRIPTED = Schedule(12, 10, 1.0, patience=2, stop_after=4)


def fit_scripted(validation, script=(), schedule=SCRIPTED, **how):
    samples = jnp.arange(10.0), jnp.ones(10, jnp.int32)
    script = Script(np.float32([*validation, *[0.1] * (12 - len(validation))]), **dict(script))
    script = jax.tree.map(jnp.asarray, script)
    return fit_gradient(Scripted(), jnp.zeros(()), script, jax.random.key(0), samples, samples, schedule, **how)


def test_the_state_of_the_best_validation_epoch_is_kept_the_first_of_equals(relaxed):
    result = fit_scripted([0.3, 0.8, 0.5, 0.8, 0.1])
    assert result.best == best_epoch(result.curve) == 1
    assert int(result.stats.epoch) == 2
    assert [round(line.validation, 3) for line in result.curve] == [0.3, 0.8, 0.5, 0.8, 0.1, 0.1, 0.1]


def test_the_last_epoch_is_kept_where_a_schedule_says_so(relaxed):
    last = Milestones(6, 10, 1.0, l2=0.0, optimizer='adam', choose='last', stop_after=1)
    result = fit_scripted([0.3, 0.8, 0.5, 0.8, 0.1], schedule=last)
    assert result.best == 5 == best_epoch(result.curve) + 4
    assert int(result.stats.epoch) == len(result.curve) == 6  # no matter how long nothing has been better


def test_rates_fall_on_a_plateau_and_training_stops_and_goes_on_from_any_epoch(relaxed):
    """Whether it is left before, at or after the best epoch, or when it had stopped already."""
    script, snapshots = [0.5, 0.7, 0.7, 0.6, 0.7, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9], []
    whole = fit_scripted(script, keep=lambda snapshot: snapshots.append(jax.tree.map(np.array, snapshot)))
    assert len(whole.curve) == 11 and whole.best == 5
    assert [line.rate for line in whole.curve] == [1.0] * 4 + [0.5] * 4 + [0.25] * 2 + [0.125]
    for snapshot in snapshots:
        result = fit_scripted(script, kept=lambda like, snapshot=snapshot: snapshot)
        assert untimed(result) == untimed(whole) and result.best == 5
        assert_same(result, whole)


@pytest.mark.parametrize('lost', [np.nan, np.inf, 1e38])
@pytest.mark.parametrize('training', [True, False], ids=['in training', 'on validation inputs'])
def test_a_training_that_diverged_is_no_result(lost, training, relaxed):
    """In its second epoch; answers and losses that are large are answers and losses."""
    script = {'lost': np.float32(lost), 'in_training': np.bool_(training)}
    if lost == 1e38:
        assert len(fit_scripted([0.3, 0.8, 0.5], script=script).curve) > 3
        return
    what = 'training loss' if training else 'answer to validation inputs'
    with pytest.raises(ValueError, match=rf'diverged: in epoch 2 the {what} is not finite; lower the rate 1, or'):
        fit_scripted([0.3, 0.8, 0.5], script=script)


def through(data, average, *stops, schedule=None):
    """Train one epoch in parts; what it carries then, a copy after each part, and the sum of losses."""
    schedule = schedule or Schedule(batch=20, rate=1e-2, average=average)
    params, stats = first()
    carry, copies, loss = Carry(params, stats, schedule.tx().init(params), params, jnp.zeros((), jnp.int32)), [], 0.0
    carry = jax.tree.map(jnp.copy, carry)
    for part in itertools.pairwise(stops):
        part = tuple(map(jnp.int32, part))
        carry, sums = gradient_epoch(MODEL, schedule, carry, *data, jax.random.key(1), jnp.float32(1), part)
        copies.append(np.array(carry.params[0].w))
        loss += float(sums[0])
    return carry, copies, loss


def test_an_epoch_in_parts_is_the_same_epoch_and_one_program(bars, relaxed):
    before = gradient_epoch._cache_size()
    (whole, _, loss), (parts, _, losses) = through(bars, 1, 0, 3), through(bars, 1, 0, 1, 3)
    assert_same(whole, parts)
    np.testing.assert_allclose(loss, losses, rtol=1e-5)
    assert gradient_epoch._cache_size() == before + 1


@pytest.mark.parametrize('average', [1, 1000])
def test_the_judged_parameters_are_the_mean_of_the_last_steps(bars, average, relaxed):
    """A plain mean while there is nothing to forget; with `average` 1 the last parameters themselves."""
    carry, passed, _ = through(bars, average, 0, 1, 2, 3)
    judged = passed[-1] if average == 1 else np.mean(passed, 0)
    np.testing.assert_allclose(carry.mean[0].w, judged, rtol=1e-5, atol=1e-7)
    assert not np.allclose(passed[0], passed[-1], rtol=1e-3)


@pytest.mark.parametrize(
    'schedule', [SCHEDULE, Milestones(epochs=5, batch=20, rate=3e-2, milestones=(1, 3))], ids=['plateau', 'milestones']
)
def test_a_training_goes_on_to_the_same_bits(schedule, bars, relaxed, tmp_path):
    """Interrupted after the second of five epochs, and read back from a file; given nothing, it is a first start."""
    asked, snapshots = [], []
    whole = fit(bars, schedule, kept=asked.append)
    assert asked[0].curve.shape == (5, 5) and np.isnan(asked[0].curve).all()

    def keep(snapshot):
        snapshots.append(jax.tree.map(np.array, snapshot))
        save_state(tmp_path / 'kept', snapshot)
        if len(snapshots) == 2:
            raise KeyboardInterrupt

    left = fit(bars, schedule, keep=keep)
    assert left.interrupted and untimed(left) == untimed(whole)[:2]
    assert np.isnan(snapshots[1].curve[2:]).all()
    further = []
    for kept in (lambda like: snapshots[1], lambda like: load_state(tmp_path / 'kept', like)):
        result = fit(bars, schedule, kept=kept, keep=further.append)
        assert_same(result, whole)
        assert untimed(result) == untimed(whole) and result.best == whole.best
    assert len(further) == 6


def test_an_interrupt_before_the_first_epoch_is_raised(bars, relaxed):
    def interrupt(*told):
        raise KeyboardInterrupt

    assert len(fit(bars, watch=interrupt).curve) == 1
    with pytest.raises(KeyboardInterrupt):
        fit(bars, kept=interrupt)


def test_another_seed_and_an_equal_model_compile_nothing(bars, relaxed, compilations):
    fit(bars)
    del compilations[:]
    equal = NetworkModel((linear_head(3, norm=False, power=None),), 0)
    fit_gradient(equal, *first(), jax.random.key(7), bars, bars, Schedule(*SCHEDULE))
    assert not compilations


def test_evaluating_changes_nothing_and_does_not_depend_on_company(bars):
    model = NetworkModel((linear_head(3, dropout=0.5),), 0)
    params, stats = first(model)
    answer = jax.jit(model.apply)
    (one, after), (other, _) = (answer(params, stats, bars[0][some]) for some in (slice(0, 6), slice(2, 8)))
    np.testing.assert_allclose(one[2:], other[:4], rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, after, stats)


def test_dropout_of_a_head_silences_whole_maps_and_keeps_the_mean():
    silenced, _ = linear_head(2, dropout=0.5).pre[-1].apply((), jnp.ones((2000, 3, 1, 4)), True, jax.random.key(0))
    assert isinstance(linear_head(2, dropout=0.5).pre[-1], Dropout)
    np.testing.assert_array_equal(silenced.std(1), np.zeros((2000, 1, 4)))
    assert set(np.unique(silenced)) == {0.0, 2.0} and abs(float(silenced.mean()) - 1) < 0.05


def test_labels_and_inputs_that_do_not_fit_are_refused(relaxed):
    samples, start = jnp.arange(10.0), (jnp.zeros(()), jax.tree.map(jnp.asarray, Script(np.zeros(12, np.float32))))
    good = samples, np.arange(10) % 2

    def refuse(says, train=good, validation=good, **settings):
        schedule = Schedule(**{'epochs': 1, 'batch': 5} | settings)
        with pytest.raises(ValueError, match=says):
            fit_gradient(Scripted(), *start, jax.random.key(0), train, validation, schedule)

    for labels, says in (
        (np.arange(10), 'run from 0 to 9 and there are 2 classes'),
        (np.full(10, 0.5), 'labels are whole numbers'),
        (np.zeros(9, int), '9 labels do not fit 10 images'),
        (['a'] * 10, 'labels are classes 0, 1, ..., not <U1'),
    ):
        refuse(says, train=(samples, labels))
        refuse(says, validation=(samples, labels))
    for inputs in (samples[:0], (samples, samples[1:])):
        refuse(r'inputs of \[.*\] samples teach nothing; give as many of each', train=(inputs, good[1]))
    refuse('batch=11 is out of range', batch=11)
    refuse('rate=-1.0 is out of range', rate=-1.0)
