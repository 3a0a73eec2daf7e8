"""The training loop: what callbacks see and may do, one program for all epochs, and going on where one stopped."""

import dataclasses
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import DTYPES, bits
from hypothesis import given
from hypothesis import strategies as st

import hebbjax
from hebbjax import layers, rules, training, transforms
from hebbjax.data.augmentation import random_shift
from hebbjax.rules import teachers
from hebbjax.training import Monitor, Position, Stage
from hebbjax.training.loop import to_metric

NET = (hebbjax.Layer(6, rules.instar(1), transforms.scale_by_rate(0.1), hebbjax.Window(3)),)
TWO = (NET[0], hebbjax.Layer(4, rules.instar(1), transforms.scale_by_rate(0.1), hebbjax.Window(2)))
SHAPE = (8, 8, 1)


@pytest.fixture(scope='module')
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8))


def start(net=NET, seed=0):
    return jax.jit(layers.init, static_argnums=(0, 2))(net, jax.random.key(seed), SHAPE)


def fit(images, *, net=NET, state=None, epochs=3, **how):
    """Train a little."""
    how = {'stages': [Stage(epochs)], 'batch': 5, 'watch': None} | how
    return training.fit(net, state or start(net), images, **how)


def copy(state):
    """Keep what a callback sees: the next epoch is written over it."""
    return jax.device_put(state, may_alias=False)


def weights(state):
    return [np.asarray(layer.w) for layer in state.layers]


def assert_same(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_loop_is_epoch_after_epoch(images):
    result = fit(images)
    state, epoch = start(), training.make_train_epoch(NET, batch=5)
    for _ in range(3):
        state, (told,) = epoch(state, images)
    assert_same(result.state, state)
    assert [row['epoch'] for row in result.history] == [1, 2, 3]
    assert result.history[-1]['layer1.max_update'] == pytest.approx(float(told.max_update))
    assert not result.interrupted


def test_metrics_are_what_monitors_told(images):
    seen = []
    result = fit(images, watch=Monitor(every=2), callbacks=[seen.append])
    for context, row in zip(seen, result.history):
        (info,) = context.info
        assert row['layer1.win_entropy'] == pytest.approx(float(info.trace.win_entropy))
        assert row['layer1.dead'] == int(info.trace.dead)
        assert type(row['layer1.dead']) is int
        assert row['layer1.converged'] == pytest.approx(float(info.trace.converged))
        assert row['layer1.sparsity'] == pytest.approx(float(info.trace.observations.sparsity.mean()))
        assert row['seconds'] > 0


def test_callbacks_are_called_in_order_and_build_on_each_other(images):
    order = []

    def adds(context):
        context.metrics['twice'] = 2 * context.epoch
        order.append('adds')

    def reads(context):
        assert context.metrics['twice'] == 2 * context.epoch
        order.append('reads')

    class Last:
        after_all = True

        def __call__(self, context):
            order.append('last')

        def finish(self, context):
            order.append(('finish', context.epoch))

        def __enter__(self):
            order.append('enter')

        def __exit__(self, *error):
            order.append('exit')

    result = fit(images, epochs=2, callbacks=(one for one in [Last(), adds, reads]))
    assert order == ['enter', 'adds', 'reads', 'last', 'adds', 'reads', 'last', ('finish', 2), 'exit']
    assert [row['twice'] for row in result.history] == [2, 4]


def test_callbacks_see_the_state_of_their_epoch(images):
    seen = []
    result = fit(images, callbacks=[lambda context: seen.append((context.epoch, copy(context.state)))])
    assert [epoch for epoch, _ in seen] == [1, 2, 3] and [int(state.step) for _, state in seen] == [4, 8, 12]
    assert_same(seen[-1][1], result.state)
    assert np.abs(weights(seen[0][1])[0] - weights(seen[1][1])[0]).max() > 0  # nothing was written over


def test_stop_ends_the_stage_and_the_next_one_begins(images):
    def impatient(context):
        if context.position.epoch == 2 and context.position.stage == 0:
            context.stop()

    plan = training.plan_stages('greedy', TWO, 3)
    result = fit(images, net=TWO, stages=plan, callbacks=[impatient])
    assert [row['stage'] for row in result.history] == [0, 0, 1, 1, 1]


def test_epochs_and_callbacks_never_compile_anything_anew(images, compilations):
    callbacks = [lambda context: context.metrics.update(x=context.epoch), lambda context: None]
    for seed, epochs in ((1, 2), (2, 4)):  # the functions, the layers and the monitor are new, and equal
        state, net = start(seed=seed), (dataclasses.replace(NET[0]),)
        assert seed == 1 or not compilations.clear()
        augment = random_shift(1)
        fit(images, net=net, state=state, epochs=epochs, callbacks=callbacks, augment=augment, watch=Monitor(every=2))
    assert not compilations


def test_a_training_goes_on_as_if_it_had_never_stopped(images):
    """From every position of a plan of two stages, the first of which is ended early."""

    def impatient(context):
        if context.position == (0, 2, False, context.history):
            context.stop()

    plan, kept = training.plan_stages('greedy', TWO, 3)[:2], {}
    keep = lambda context: kept.update({context.epoch: (copy(context.state), context.position)})  # noqa: E731
    whole = fit(images, net=TWO, stages=plan, callbacks=[impatient, keep])
    strip = lambda history: [{k: v for k, v in row.items() if k != 'seconds'} for row in history]  # noqa: E731
    for state, position in kept.values():
        rest = fit(images, net=TWO, stages=plan, state=state, position=position, callbacks=[impatient])
        assert_same(whole.state, rest.state)
        assert strip(whole.history) == strip(rest.history)
    assert [*kept] == [1, 2, 3, 4, 5]


def test_a_finished_training_stays_as_it_is(images):
    done = fit(images)
    again = fit(images, state=done.state, position=Position(0, 3, history=done.history))
    assert_same(done.state, again.state)
    assert again.history == done.history


def test_seeds_are_trained_each_as_if_it_were_alone(images):
    """One loop, one program; metrics are means, the largest change the largest, and a killed training goes on."""
    keys, kept = jax.vmap(jax.random.key)(jnp.arange(2)), []
    states = training.init_seeds(NET, keys, SHAPE)
    how = {'stages': [Stage(2), Stage(1)], 'watch': Monitor(every=2), 'seeds_at_once': 2}
    many = fit(images, state=states, callbacks=[lambda c: kept.append((copy(c.state), c.position))], **how)
    alone = [fit(images, state=start(seed=seed), **how) for seed in (0, 1)]
    for seed, one in enumerate(alone):
        for ours, wanted in zip(training.take_seed(many.state, seed).layers, one.state.layers, strict=True):
            np.testing.assert_allclose(ours.w, wanted.w, atol=1e-6)
    for row, *rows in zip(many.history, *(one.history for one in alone), strict=True):
        assert row.keys() == rows[0].keys()
        for name in row.keys() - {'seconds'}:
            reduce = max if name.endswith('max_update') else np.mean
            assert row[name] == pytest.approx(reduce([one[name] for one in rows]), abs=1e-5), name
    rest = fit(images, state=kept[1][0], position=kept[1][1], **how)
    assert_same(rest.state, many.state)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(states))


@pytest.mark.parametrize('seeds', [None, 2])
def test_the_device_holds_one_state(images, seeds):
    """Each epoch is written over the one before; the caller's state stays, and Ctrl-C gives the last whole one."""
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    state, contexts, whole = start() if seeds is None else training.init_seeds(NET, keys, SHAPE), [], []

    def interrupt(context):
        contexts.append(context)
        if context.epoch == 3:
            raise KeyboardInterrupt
        whole[:] = [copy(context.state)]

    result = fit(images, state=state, callbacks=[interrupt])
    are_gone = lambda state: [leaf.is_deleted() for leaf in jax.tree.leaves(state)]  # noqa: E731
    assert all(are_gone(contexts[0].state)) and not any(are_gone((state, result.state))) and result.interrupted
    assert_same(result.state, whole[0])
    epoch = training.make_train_epoch(NET, batch=5, watch=None, donate=True)
    program = epoch if seeds is None else training.over_seeds(epoch, 1, donate=True)
    size = sum(w.nbytes for w in jax.tree.leaves([layer.w for layer in state.layers]))
    assert program.lower(state, images).compile().memory_analysis().alias_size_in_bytes >= size


def test_where_a_stage_ends_everything_is_due_however_it_ends(images):
    due = []

    def impatient(context):
        if (context.position.stage, context.position.epoch) == (0, 2):
            context.stop()
        due.append((context.epoch, context.is_due(100), context.epochs))

    fit(images, net=TWO, stages=training.plan_stages('greedy', TWO, 4), callbacks=[impatient])
    assert due == [(1, True, 8), (2, True, 6), (3, False, 6), (4, False, 6), (5, False, 6), (6, True, 6)]


def test_what_callbacks_add_is_plain_numbers_to_those_behind_them(images):
    seen = []
    adds = lambda context: context.metrics.update(x=jnp.float32(2), y=np.float32(3))  # noqa: E731
    fit(images, epochs=1, callbacks=[adds, lambda context: seen.extend((context.metrics['x'], context.metrics['y']))])
    assert seen == [2.0, 3.0] and {type(one) for one in seen} == {float}


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_ctrl_c_that_python_drops_is_heard_all_the_same(images, hearing):
    class Finalised:
        def __del__(self):  # what is raised here is only written to stderr
            signal.raise_signal(signal.SIGINT)

    def drops(context):
        if context.epoch == 2:
            Finalised()

    result = fit(images, epochs=5, callbacks=[drops])
    assert result.interrupted and len(result.history) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_the_epoch_is_compiled_or_finished_waits(images, hearing):
    """Both would leave something half done; then it is heard."""
    order = []

    def slow(key, some):  # is traced while the epoch is compiled
        signal.raise_signal(signal.SIGINT)
        order.append('compiled')
        return some

    class Finishing:
        def __call__(self, context):
            raise AssertionError('no epoch was to begin')

        def finish(self, context):
            signal.raise_signal(signal.SIGINT)
            order.append('finished')

    result = fit(images, callbacks=[Finishing()], augment=slow)
    assert result.interrupted and order == ['compiled', 'finished'] and not result.history


@pytest.mark.parametrize('when', [1, 2])
def test_ctrl_c_in_a_callback_leaves_the_last_whole_epoch(when, images):
    """An epoch whose callbacks were not all heard is not whole: going on, they are all heard."""
    finished = []

    class Fragile:
        def __call__(self, context):
            context.metrics['half'] = True
            if context.epoch == when:
                raise KeyboardInterrupt

        def finish(self, context):
            finished.append(context.epoch)

    result = fit(images, callbacks=[Fragile()])
    assert result.interrupted and len(result.history) == when - 1 and finished == [when - 1]
    assert_same(result.state, fit(images, epochs=when - 1).state if when > 1 else start())


def test_an_error_in_a_callback_is_the_callers_and_context_managers_are_left(images):
    left = []

    class Careful:
        def __enter__(self):
            return self

        def __call__(self, context):
            raise OSError('disk full')

        def __exit__(self, *error):
            left.append(error[0])

    with pytest.raises(OSError, match='disk full'):
        fit(images, callbacks=[Careful()])
    assert left == [OSError]


def test_an_augmentation_that_is_none_or_makes_no_pixels_is_refused(images):
    for augment, says in (
        (3, 'augment=3 is no function of a key and images; give one, or leave it'),
        (lambda key, some: (255 * some).astype(jnp.int32), 'int32 images do not say what white is; use uint8'),
    ):
        with pytest.raises(ValueError, match=says):
            fit(images, augment=augment)


def test_weights_that_are_no_longer_finite_end_training_in_a_sentence(images):
    wild = (NET[0], hebbjax.Layer(4, rules.hebb(), transforms.scale_by_rate(1e30), hebbjax.Window(2)))
    with pytest.raises(ValueError, match='weights of layer 2 are no longer finite'):
        fit(images, net=wild)


@pytest.mark.parametrize(
    ('how', 'says'),
    [
        ({'callbacks': ['evaluate']}, "callback 'evaluate' is no function of a context"),
        ({'callbacks': 'evaluate'}, r"callbacks are a list, such as callbacks=\[...\], and this is 'evaluate'"),
        ({'callbacks': print}, r'callbacks are a list, such as callbacks=\[...\], and this is <built-in'),
        ({'callbacks': None}, 'callbacks are a list'),
        ({'stages': Stage(2)}, r'stages are a list, such as stages=\[...\], and this is Stage'),
        ({'stages': 3}, 'stages are a list'),
        ({'stages': [Stage(2), 3]}, 'a stage is a training.Stage, not 3'),
        ({'stages': ['simultaneous']}, "not 'simultaneous'"),
        ({'stages': [Stage(1), Stage(1, (1,))]}, '1'),  # found before the first one is trained
        *(
            ({'batch': batch}, '^batch=.* is out of range; use a whole number from 1 on')
            for batch in (True, 2.5, 5.0, 0, -1, None, '5')
        ),
        ({'watch': True}, 'what is watched is a training.Monitor, or None for nothing, not True'),
        ({'watch': 20}, 'or None for nothing, not 20'),
        ({'watch': lambda told: told}, 'or None for nothing, not <function'),
        ({'position': (0, 1, False, ())}, 'a training goes on at a training.Position, not'),
        ({'position': Position(0, 2)}, 'a training at epoch 2 of stage 0, with 0 of its epochs in its history, cannot'),
        ({'position': Position(0, 1, history=({'stage': 0}, {'stage': 0}))}, 'with 2 of its epochs in its history'),
        ({'position': Position(0, 1, history=({'stage': 0},))}, 'give .* both state and position of training.resume'),
        ({'state': start().layers}, 'training goes on from the TrainState that init makes, not from tuple'),
        (
            {'state': start().layers, 'position': Position(0, 1, history=({'stage': 0},))},
            'training goes on from the TrainState that init makes, not from tuple',
        ),
        ({'state': start(TWO)}, '2 states do not fit 1 layers'),
        ({'net': NET[0], 'state': start()}, r'write \(layer,\)'),
        ({'stages': []}, 'at least one stage'),
        ({'seeds_at_once': 0}, 'seeds_at_once=0 is out of range; use a whole number from 1'),
        ({'seeds_at_once': 'x'}, "seeds_at_once='x' is out of range"),
        ({'position': Position(-1)}, 'at epoch 0 of stage -1'),
        ({'batch': 21}, 'a batch of 21 is larger than the 20 images'),
        ({'position': Position(7)}, r'at epoch 0 of stage 7, .* cannot go on in stages of \[3\] epochs; give the'),
    ],
)
def test_what_does_not_fit_is_refused_before_training(how, says, images):
    with pytest.raises(ValueError, match=says):
        fit(images, **how)


LABELS = np.arange(20) % 3
TAUGHT = (hebbjax.Layer(3, rules.instar(None), transforms.scale_by_rate(0.1), teacher=teachers.one_hot(3)),)


def test_labels_in_any_form_that_says_the_same_teach_the_same(images):
    forms = [LABELS.tolist(), LABELS.astype(np.float32), np.eye(3)[LABELS]]
    ends = [fit(images, net=TAUGHT, labels=labels).state for labels in forms]
    assert np.abs(weights(ends[0])[0] - weights(start(TAUGHT))[0]).max() > 0
    for end in ends[1:]:
        assert_same(ends[0], end)


def test_images_on_the_host_are_learned_from_as_on_the_device(images):
    host = np.asarray(images) / 255  # float64, which jax does not hold
    assert_same(fit(host).state, fit(jnp.asarray(host)).state)
    assert_same(fit(np.asarray(images)).state, fit(images).state)


@pytest.mark.parametrize(
    ('labels', 'says'),
    [
        (LABELS[:19], '19 labels do not fit 20 images'),
        (LABELS - 1, 'labels run from -1 to 1'),
        (LABELS + 0.5, 'labels are whole numbers, and that of image 0 is'),
        (LABELS.astype(str), 'labels are classes 0, 1, ..., not <U'),
        (np.zeros((20, 3)), 'or one-hot '),
        (3, 'labels are one class for each image'),
        (LABELS + 1, 'labels run from 1 to 3 and there are 3 classes; use 0 to 2'),
    ],
)
def test_labels_that_say_no_class_are_refused_before_anything_is_computed(labels, says, images):
    seen = []
    with pytest.raises(ValueError, match=says):
        fit(images, net=TAUGHT, callbacks=[seen.append], labels=labels)
    assert not seen


@given(st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 20 * 64 - 1), st.booleans())
def test_images_that_are_no_numbers_are_refused_before_anything_is_computed(bad, place, device):
    images, seen = np.ones((20, *SHAPE), np.float32), []
    images.flat[place] = bad
    images = jnp.asarray(images) if device else images
    with pytest.raises(ValueError, match=rf'1 non-finite values, the first in image {place // 64}'):
        fit(images, callbacks=[seen.append])
    assert not seen


def test_a_training_begins_with_begin_and_may_be_refused_by_it(images):
    order = []

    class Picky:
        def __init__(self, refuses):
            self.refuses = refuses

        def begin(self, context):
            order.append((context.epoch, context.epochs, context.epochs_left))
            if self.refuses:
                raise ValueError('not this one')

        def __enter__(self):
            order.append('enter')

        def __exit__(self, *error):
            order.append('exit')

        def __call__(self, context):
            order.append('epoch')

    fit(images, epochs=1, callbacks=[Picky(False)])
    assert order == [(0, 1, 1), 'enter', 'epoch', 'exit']
    order.clear()
    with pytest.raises(ValueError, match='not this one'):
        fit(images, callbacks=[Picky(False), Picky(True), order.append])
    assert order == [(0, 3, 3), (0, 3, 3)]


@given(st.sampled_from(DTYPES), st.sampled_from([np, jnp]), st.integers(0, 9))
def test_metrics_of_any_one_real_number_become_plain(dtype, xp, seed):
    array = bits(np.random.default_rng(seed), dtype, ())
    given = xp.asarray(array)
    if dtype == 'complex64':
        with pytest.raises(ValueError, match="metrics are numbers, and 'x' was made"):
            to_metric('x', given)
    else:
        metric = to_metric('x', given)
        assert type(metric) is float
        np.testing.assert_equal(metric, float(array))


@pytest.mark.parametrize(
    'value', ['high', '3', b'3', None, [1.0], {}, np.ones(2), jnp.ones((1, 2)), np.zeros(0), 1j, np.str_('3'), print,
              jax.random.key(0), np.array('2026', 'M8[Y]'), np.array(['3'])], ids=repr
)  # fmt: skip
def test_metrics_that_are_no_number_are_refused_with_their_name(value, images):
    seen = []
    with pytest.raises(
        ValueError, match=r"^metrics are numbers, and 'odd' was made .*; give a float, nan where there is none\.$"
    ):
        fit(images, callbacks=[lambda context: context.metrics.update(odd=value), seen.append])
    assert not seen


def test_an_unknown_metric_is_refused_with_those_there_are(images):
    with pytest.raises(ValueError, match=r"'accuracy' is unknown; there are epoch, stage, seconds, layer1\.max_update"):
        fit(images, callbacks=[lambda context: context.values_of('accuracy')])


def test_due_is_the_first_every_nth_and_the_last(images):
    due = []
    fit(images, epochs=7, callbacks=[lambda context: due.append(context.is_due(3))])
    assert due == [True, False, True, False, False, True, True]
