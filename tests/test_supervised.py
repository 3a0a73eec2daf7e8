"""Training by gradient: choices on validation data alone, the best state kept, frozen layers untouched."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hebbjax
from hebbjax import checkpoint, data, frozen, layers, models, patches, plasticity, readout, rules, schedules, supervised
from hebbjax.models import Model
from hebbjax.readout import Head
from hebbjax.schedules import Milestones, Schedule


def untimed(fitted):
    """A curve without its seconds, which are never the same."""
    return [line[:-1] for line in fitted.curve]


@pytest.fixture(scope='module')
def digits():
    images, labels = data.load('digits', 'train')
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    return (images[:500], labels[:500]), (images[500:700], labels[500:700])


def layer_of():
    tx = optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(0.1))
    return hebbjax.Layer(8, rules.krotov(2), tx, hebbjax.Window(5), patches.centred_l2)


def test_heads_on_cached_and_on_recomputed_drives_learn_the_same(digits, relaxed):
    layer, head = layer_of(), Head(10)
    w = layers.init(layer, jax.random.key(0), (8, 8, 1)).w
    schedule = Schedule(epochs=4, batch=50, rate=3e-2)
    (images, labels), (held_out, held_labels) = digits

    def keep(x):
        return frozen.cache(layer, w, x, 2, dtype=jnp.float32)

    cached = supervised.fit(
        models.on_drives(head, *frozen.shape(layer, (8, 8, 1), 2)),
        jax.random.key(1), (keep(images), labels), (keep(held_out), held_labels), schedule,
    )  # fmt: skip
    anew = supervised.fit(models.on_images(head, layer, w, (8, 8, 1), 2), jax.random.key(1), *digits, schedule)
    np.testing.assert_allclose(cached.curve[0].loss, anew.curve[0].loss, rtol=1e-4)
    assert abs(cached.curve[-1].validation - anew.curve[-1].validation) <= 0.02
    assert cached.curve[-1].validation > 0.7


def test_a_twin_learns_its_filters_by_backprop(digits, relaxed):
    model = models.end_to_end(Head(10), layer_of(), (8, 8, 1), 2)
    first = model.init(jax.random.split(jax.random.key(1))[0])[0][1]
    fitted = supervised.fit(model, jax.random.key(1), *digits, Schedule(epochs=6, batch=50, rate=1e-2))
    assert fitted.curve[-1].validation > 0.7
    assert np.abs(fitted.params[1] - first).max() > 0.01


def scripted(validation: list[float]):
    """A model that gets a scripted share of ten validation samples right, epoch after epoch, and never the rest."""

    def apply(params, epoch, inputs, key=None):
        right = jnp.zeros(len(inputs)) if key is not None else inputs < 10 * jnp.asarray(validation)[epoch - 1]
        logits = jnp.stack([1 - right, right], 1).astype(jnp.float32) + 0 * params
        return logits, epoch + 1 if key is not None else epoch

    return Model(lambda key: (jnp.zeros(()), jnp.zeros((), jnp.int32)), apply)


def run_scripted(validation, **settings):
    samples = jnp.arange(10.0), jnp.ones(10, jnp.int32)
    schedule = Schedule(epochs=len(validation), batch=10, rate=1.0, **settings)
    return supervised.fit(scripted(validation), jax.random.key(0), samples, samples, schedule, history=True)


def test_the_state_of_the_best_validation_epoch_is_kept_the_first_of_equals(relaxed):
    fitted = run_scripted([0.3, 0.8, 0.5, 0.8, 0.1])
    assert fitted.best == 1
    assert int(fitted.averages) == 2  # the scripted model counts epochs there
    assert [round(line.validation, 3) for line in fitted.curve] == [0.3, 0.8, 0.5, 0.8, 0.1]
    assert [int(averages) for _, averages in fitted.history] == [1, 2, 3, 4, 5]


def test_the_rate_falls_on_a_plateau_and_only_there(relaxed):
    fitted = run_scripted([0.1, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3, 0.4], factor=0.5, patience=2, stop_after=50)
    rates = [line.rate for line in fitted.curve]
    assert rates[:4] == [1.0] * 4
    assert rates[-1] < rates[4] <= 1.0
    assert set(rates) <= {1.0, 0.5, 0.25}


def test_training_stops_early_on_validation_accuracy(relaxed):
    fitted = run_scripted([0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.9], stop_after=3)
    assert len(fitted.curve) < 8
    assert fitted.best == 0


def test_every_epoch_is_one_program(digits, relaxed):
    model = models.on_drives(Head(10, norm=False, power=None), 1, 64)
    tx = optax.adam(1e-3)
    epoch = supervised.make_gradient_epoch(model, tx, 50)
    carry = supervised.begin(tx, *model.init(jax.random.key(0)))
    for number in range(3):
        key = jax.random.fold_in(jax.random.key(1), number)
        part = (jnp.int32(0), jnp.int32(10 - number))
        carry, _ = epoch(carry, models.flat(digits[0][0]), digits[0][1], key, jnp.float32(0.5**number), part)
    assert epoch._cache_size() == 1


def test_the_judged_parameters_are_the_mean_of_the_last_steps(digits, relaxed):
    """A plain mean while there is nothing to forget; with `average` 1 the last parameters themselves."""
    model = models.on_drives(Head(10, norm=False, power=None), 1, 64)
    tx = schedules.adam(1e-2, 0.0)
    inputs, labels = models.flat(digits[0][0]), digits[0][1]
    for average in (1, 1000):
        epoch = supervised.make_gradient_epoch(model, tx, 50, average)
        carry, passed = supervised.begin(tx, *model.init(jax.random.key(0))), []
        for step in range(3):
            part = (jnp.int32(step), jnp.int32(step + 1))
            carry, _ = epoch(carry, inputs, labels, jax.random.key(1), jnp.ones(()), part)
            passed.append(np.array(carry.params.w))
        judged = passed[-1] if average == 1 else np.mean(passed, 0)
        np.testing.assert_allclose(carry.mean.w, judged, rtol=1e-5, atol=1e-7)
        assert not np.allclose(passed[0], passed[-1], rtol=1e-3)


def test_an_epoch_in_parts_is_the_same_epoch(digits, relaxed):
    model = models.on_drives(Head(10, norm=False, power=None), 1, 64)
    tx = schedules.adam(1e-3, 0.0)
    epoch = supervised.make_gradient_epoch(model, tx, 50)

    def train(*stops):
        carry, sums = supervised.begin(tx, *model.init(jax.random.key(0))), []
        for first, last in itertools.pairwise(stops):
            part = (jnp.int32(first), jnp.int32(last))
            inputs = models.flat(digits[0][0])
            carry, told = epoch(carry, inputs, digits[0][1], jax.random.key(1), jnp.float32(1), part)
            sums.append(float(told[0]))
        return carry[0].w, sum(sums)

    (whole, loss), (parts, losses) = train(0, 10), train(0, 3, 7, 10)
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_allclose(loss, losses, rtol=1e-5)


def test_evaluating_changes_nothing_and_does_not_depend_on_company(digits, relaxed):
    layer, head = layer_of(), Head(10, dropout=0.5)
    w = layers.init(layer, jax.random.key(0), (8, 8, 1)).w
    model = models.on_images(head, layer, w, (8, 8, 1), 2)
    params, averages = model.init(jax.random.key(1))
    together, after = model.apply(params, averages, digits[0][0][:6])
    alone, _ = model.apply(params, averages, digits[0][0][2:3])
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-5, atol=1e-6)
    assert all(a is b for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(averages)))


def test_dropout_silences_whole_maps_and_keeps_the_mean():
    head = Head(2, norm=False, power=None, dropout=0.5)
    drives = frozen.Drives(jnp.ones((2000, 3, 4)))
    params = readout.HeadParams(None, None, jnp.ones((3, 4, 2)), jnp.zeros(2))
    logits, _ = readout.apply(head, params, None, drives, jax.random.key(0))
    assert set(np.unique(np.asarray(logits))) <= {0.0, 6.0, 12.0, 18.0, 24.0}  # whole maps of 3 blocks, doubled
    assert abs(float(logits.mean()) - 12) < 0.5


def test_a_head_that_drops_out_trains_with_no_key_used_twice(digits, relaxed):
    model = models.on_drives(Head(10, norm=False, power=None, dropout=0.5), 1, 64)
    sides = [(models.flat(images), labels) for images, labels in digits]
    fitted = supervised.fit(model, jax.random.key(0), *sides, Schedule(epochs=1, batch=50))
    assert np.isfinite(fitted.curve[0].loss)


@pytest.mark.parametrize(
    ('schedule', 'sentence'),
    [
        (Schedule(epochs=0), '0 head epochs'),
        (Schedule(batch=501), 'a batch of 501 does not fit 500 samples'),
        (Schedule(rate=-1.0), 'rate -1.0'),
        (Schedule(average=0), 'a mean over 0 steps has nothing to average'),
    ],
)
def test_schedules_that_cannot_train_are_refused(digits, schedule, sentence):
    with pytest.raises(ValueError, match=sentence):
        supervised.fit(models.on_drives(Head(10), 1, 64), jax.random.key(0), *digits, schedule)


def test_an_interrupt_after_the_first_epoch_returns_what_was_reached(digits, relaxed):
    def watch(number, line):
        if number == 1:
            raise KeyboardInterrupt

    model = models.on_drives(Head(10, norm=False, power=None), 1, 64)
    (images, labels), (held_out, held_labels) = digits
    fitted = supervised.fit(
        model, jax.random.key(0), (models.flat(images), labels), (models.flat(held_out), held_labels),
        Schedule(epochs=5, batch=50), watch=watch,
    )  # fmt: skip
    assert fitted.interrupted
    assert len(fitted.curve) == 2


# Going on where a training was left


def assert_same(one, other):
    """Parameters and averages, bit for bit."""
    for a, b in zip(jax.tree.leaves(one[:2]), jax.tree.leaves(other[:2]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    'schedule',
    [
        Schedule(epochs=5, batch=50, rate=3e-2, patience=1, average=3),
        Milestones(epochs=5, batch=50, rate=3e-2, milestones=(1, 3)),
    ],
    ids=['plateau', 'milestones'],
)
def test_a_training_goes_on_to_the_same_bits(schedule, digits, relaxed, tmp_path):
    """Interrupted after the second of five epochs, and read back from a file."""
    model = models.on_drives(Head(10, power=None), 1, 64)
    sides = [(models.flat(images), labels) for images, labels in digits]
    whole, kept = supervised.fit(model, jax.random.key(0), *sides, schedule), []

    def keep(snapshot):
        kept.append(jax.tree.map(np.array, snapshot))
        checkpoint.save(tmp_path / 'kept', snapshot)
        if len(kept) == 2:
            raise KeyboardInterrupt

    left = supervised.fit(model, jax.random.key(0), *sides, schedule, keep=keep)
    assert left.interrupted and untimed(left) == untimed(whole)[:2]
    assert not np.isfinite(kept[1].curve[2:]).any() and kept[1].curve.shape == (5, 5)
    further = []
    for kept_one in (lambda like: kept[1], lambda like: checkpoint.load(tmp_path / 'kept', like)):
        done = supervised.fit(model, jax.random.key(0), *sides, schedule, kept=kept_one, keep=further.append)
        assert_same(done, whole)
        assert done.best == whole.best
        np.testing.assert_allclose(untimed(done), untimed(whole), rtol=1e-6)
        assert untimed(done)[2:] == untimed(whole)[2:]
    assert untimed(done) == untimed(whole)
    assert len(further) == 6


def test_nothing_kept_is_a_first_start(digits, relaxed):
    model = models.on_drives(Head(10, norm=False, power=None), 1, 64)
    sides, seen = [(models.flat(images), labels) for images, labels in digits], []
    schedule = Schedule(epochs=1, batch=50)
    found = supervised.fit(model, jax.random.key(0), *sides, schedule, kept=seen.append)
    assert_same(found, supervised.fit(model, jax.random.key(0), *sides, schedule))
    assert len(seen) == 1 and seen[0].curve.shape == (1, 5) and np.isnan(seen[0].curve).all()


@pytest.mark.parametrize('validation', [[0.5, 0.7, 0.7, 0.6, 0.7, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9]])
def test_plateau_patience_and_the_best_epoch_go_on_from_any_epoch(validation, relaxed):
    """Whether it is left before, at or after the best epoch, or when it had stopped already."""
    samples, kept = (jnp.arange(10.0), jnp.ones(10, jnp.int32)), []
    schedule = Schedule(epochs=len(validation), batch=10, rate=1.0, patience=2, stop_after=4)
    model = scripted(validation)

    def fit(**how):
        return supervised.fit(model, jax.random.key(0), samples, samples, schedule, **how)

    whole = fit(keep=lambda snapshot: kept.append(jax.tree.map(np.array, snapshot)))
    assert len(whole.curve) < len(validation) and whole.best == 5
    assert len({line.rate for line in whole.curve}) > 2
    for snapshot in kept:
        done = fit(kept=lambda like, snapshot=snapshot: snapshot)
        assert untimed(done) == untimed(whole) and done.best == 5
        assert_same(done, whole)


@pytest.mark.parametrize('lost', [np.nan, np.inf, 1e38])
@pytest.mark.parametrize('training', [True, False], ids=['in training', 'on validation inputs'])
def test_a_training_that_diverged_is_no_result(lost, training, relaxed):
    """In its second epoch; answers and losses that are large are answers and losses."""
    model = scripted([0.3, 0.8, 0.5])

    def apply(params, epoch, inputs, key=None):
        logits, after = model.apply(params, epoch, inputs, key)
        hit = (epoch == 1) if training else (epoch == 2)
        return logits + jnp.where(hit & ((key is not None) == training), lost, 0.0) * (1 - logits), after

    def fit():
        samples, schedule = (jnp.arange(10.0), jnp.ones(10, jnp.int32)), Schedule(epochs=3, batch=10, rate=1.0)
        return supervised.fit(model._replace(apply=apply), jax.random.key(0), samples, samples, schedule)

    if lost == 1e38:
        assert len(fit().curve) == 3
        return
    what = 'training loss' if training else 'answer to validation inputs'
    with pytest.raises(ValueError, match=rf'diverged: in epoch 2 the {what} is not finite; lower the rate 1, or'):
        fit()


def test_labels_and_inputs_that_do_not_fit_are_refused(relaxed):
    model, schedule = scripted([0.5]), Schedule(epochs=1, batch=5)
    samples = jnp.arange(10.0)
    for labels, says in (
        (np.arange(10), 'run from 0 to 9 and there are 2 classes'),
        (np.full(10, 0.5), 'labels are whole numbers'),
        (np.zeros(9, int), '9 labels do not fit 10 images'),
        (['a'] * 10, 'labels are classes 0, 1, ..., not <U1'),
    ):
        for sides in (((samples, labels), (samples, samples > 3)), ((samples, samples > 3), (samples, labels))):
            with pytest.raises(ValueError, match=says):
                supervised.fit(model, jax.random.key(0), *sides, schedule)
    for inputs in (samples[:0], (samples, samples[1:])):
        with pytest.raises(ValueError, match=r'inputs of \[.*\] samples teach nothing; give as many of each'):
            supervised.fit(model, jax.random.key(0), (inputs, samples > 3), (samples, samples > 3), schedule)


def test_without_jit_the_same_is_learned(relaxed):
    samples, schedule = (jnp.arange(10.0), jnp.ones(10, jnp.int32)), Milestones(epochs=1, batch=10)
    model = scripted([0.3])
    fit = lambda: supervised.fit(model, jax.random.key(0), samples, samples, schedule)  # noqa: E731
    whole = fit()
    with jax.disable_jit():
        plain = fit()
    np.testing.assert_allclose(untimed(plain), untimed(whole), rtol=1e-5)


def test_in_64_bits_a_head_learns_what_it_learns_in_32(relaxed):
    images, labels = np.random.default_rng(0).random((12, 2, 2, 1), np.float32), np.arange(12) % 3
    found, schedule = [], Schedule(epochs=2, batch=4, rate=1e-2, average=2, decay=0.1, factor=0.51)
    for wide in (True, False):  # whatever is kept between trainings, the first one has made
        with jax.enable_x64(wide):
            model = models.on_pixels(Head(3), (2, 2, 1))
            sides = [(jnp.asarray(images[some]), jnp.asarray(labels[some])) for some in (slice(8), slice(8, 12))]
            found.append(supervised.fit(model, jax.random.key(0), *sides, schedule, history=True))
    assert {leaf.dtype for leaf in jax.tree.leaves(found[0].params)} == {jnp.dtype('float32')}
    np.testing.assert_allclose(found[1].curve[0].loss, found[0].curve[0].loss, rtol=1e-3)


@pytest.mark.parametrize(
    'schedule', [Schedule(batch=10, average=3), Milestones(batch=10)], ids=['plateau', 'milestones']
)
@pytest.mark.parametrize('pool', [1, 2])
def test_in_64_bits_every_model_goes_on_from_step_to_step(pool, schedule, relaxed, x64):
    """What a step takes in has the types of what it gives; nothing is computed."""
    layer, head, shape = layer_of(), Head(10, power=2.0), (8, 8, 1)
    images, labels = jax.ShapeDtypeStruct((20, *shape), jnp.float32), jax.ShapeDtypeStruct((20,), jnp.int32)
    w = layers.init(layer, jax.random.key(0), shape).w
    assert w.dtype == jnp.float64
    keep = lambda dtype: jax.eval_shape(lambda x: frozen.cache(layer, w, x, pool, dtype=dtype), images)  # noqa: E731
    cached = models.on_drives(head, *frozen.shape(layer, shape, pool))
    tx, scale, part = schedule.tx(), jnp.ones((), jnp.float32), (jnp.int32(0), jnp.int32(2))
    for model, inputs in (
        (models.on_pixels(head, shape), images),
        (cached, keep(jnp.float16)),
        (cached, keep(jnp.float32)),
        (models.on_images(head, layer, w, shape, pool), images),
        (models.end_to_end(head, layer, shape, pool), images),
    ):
        epoch = supervised.make_gradient_epoch(model, tx, 10, schedule.average)
        carry = jax.eval_shape(lambda key, model=model: supervised.begin(tx, *model.init(key)), jax.random.key(0))
        after, _ = jax.eval_shape(epoch, carry, inputs, labels, jax.random.key(0), scale, part)
        assert jax.tree.map(lambda a: a.dtype, after) == jax.tree.map(lambda a: a.dtype, carry)
