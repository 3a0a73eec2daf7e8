"""The training loop: what callbacks see and may do, one program for all epochs, and going on where one stopped."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import DTYPES, bits
from hypothesis import given
from hypothesis import strategies as st

import hebbjax
from hebbjax import hybrid, loop, plasticity, prototypes, rules, stages, supervised, teachers, train
from hebbjax.moment import Position
from hebbjax.monitor import Monitor
from hebbjax.readout import Head
from hebbjax.stages import Stage

NET = (hebbjax.Layer(6, rules.instar(1), plasticity.ascend(0.1), hebbjax.Window(3)),)
TWO = (NET[0], hebbjax.Layer(4, rules.instar(1), plasticity.ascend(0.1), hebbjax.Window(2)))
SHAPE = (8, 8, 1)


@pytest.fixture(scope='module')
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8))


def start(net=NET, seed=0):
    return train.init(net, jax.random.key(seed), SHAPE)


def fit(images, *, net=NET, state=None, epochs=3, **how):
    """Train a little."""
    how = {'stages': [Stage(epochs)], 'batch': 5, 'watch': None} | how
    return loop.fit(net, state or start(net), images, **how)


def weights(state):
    return [np.asarray(layer.w) for layer in state.layers]


def assert_same(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_loop_is_epoch_after_epoch(images):
    outcome = fit(images)
    state, epoch = start(), train.make_train_epoch(NET, batch=5)
    for _ in range(3):
        state, (told,) = epoch(state, images)
    assert_same(outcome.state, state)
    assert [row['epoch'] for row in outcome.history] == [1, 2, 3]
    assert outcome.history[-1]['layer1.change'] == pytest.approx(float(told.change))
    assert not outcome.interrupted and outcome.taught is None


def test_metrics_are_what_monitors_told(images):
    seen = []
    outcome = fit(images, watch=Monitor(every=2), callbacks=[seen.append])
    for moment, row in zip(seen, outcome.history):
        (told,) = moment.told
        assert row['layer1.win_entropy'] == pytest.approx(float(told.trace.entropy))
        assert row['layer1.dead'] == int(told.trace.dead)
        assert row['layer1.converged'] == pytest.approx(float(told.trace.seen.converged[-1]))
        assert row['layer1.sparsity'] == pytest.approx(float(told.trace.seen.sparsity.mean()))
        assert row['seconds'] > 0


def test_callbacks_are_called_in_order_and_build_on_each_other(images):
    order = []

    def adds(moment):
        moment.metrics['twice'] = 2 * moment.epoch
        order.append('adds')

    def reads(moment):
        assert moment.metrics['twice'] == 2 * moment.epoch
        order.append('reads')

    class Last:
        after_all = True

        def __call__(self, moment):
            order.append('last')

        def finish(self, moment):
            order.append(('finish', moment.epoch))

        def __enter__(self):
            order.append('enter')

        def __exit__(self, *error):
            order.append('exit')

    outcome = fit(images, epochs=2, callbacks=(one for one in [Last(), adds, reads]))
    assert order == ['enter', 'adds', 'reads', 'last', 'adds', 'reads', 'last', ('finish', 2), 'exit']
    assert [row['twice'] for row in outcome.history] == [2, 4]


def test_callbacks_see_the_state_of_their_epoch(images):
    seen = []
    outcome = fit(images, callbacks=[lambda moment: seen.append((moment.epoch, moment.state))])
    assert [epoch for epoch, _ in seen] == [1, 2, 3] and [int(state.step) for _, state in seen] == [4, 8, 12]
    assert_same(seen[-1][1], outcome.state)
    assert np.abs(weights(seen[0][1])[0] - weights(seen[1][1])[0]).max() > 0  # nothing was written over


def test_stop_ends_the_stage_and_the_next_one_begins(images):
    def impatient(moment):
        if moment.position.epoch == 2 and moment.position.stage == 0:
            moment.stop()

    plan = stages.plan('layerwise', TWO, 3)
    outcome = fit(images, net=TWO, stages=plan, callbacks=[impatient])
    assert [row['stage'] for row in outcome.history] == [0, 0, 1, 1, 1]


def test_epochs_and_callbacks_never_compile_anything_anew(images):
    traced = []

    def augment(key, some):
        traced.append(some.shape)  # runs when traced, and never again
        return some

    callbacks = [lambda moment: moment.metrics.update(x=moment.epoch), lambda moment: None]
    for seed in (1, 2):
        fit(images, state=start(seed=seed), epochs=4, callbacks=callbacks, augment=augment, watch=Monitor(every=2))
    assert len(traced) == 1


@pytest.mark.parametrize('cut', [1, 2, 3, 4])
def test_a_training_goes_on_as_if_it_had_never_stopped(cut, images):
    """From every position of a plan of two stages, the first of which is ended early."""

    def impatient(moment):
        if moment.position == (0, 2, False, moment.history):
            moment.stop()

    plan, kept = stages.plan('layerwise', TWO, 3)[:2], {}
    keep = lambda moment: kept.update({moment.epoch: (moment.state, moment.position)})  # noqa: E731
    whole = fit(images, net=TWO, stages=plan, callbacks=[impatient, keep])
    state, position = kept[cut]
    rest = fit(images, net=TWO, stages=plan, state=state, position=position, callbacks=[impatient])
    assert_same(whole.state, rest.state)
    strip = lambda history: [{k: v for k, v in row.items() if k != 'seconds'} for row in history]  # noqa: E731
    assert strip(whole.history) == strip(rest.history)


def test_a_finished_training_stays_as_it_is(images):
    done = fit(images)
    again = fit(images, state=done.state, position=Position(0, 3, history=done.history))
    assert_same(done.state, again.state)
    assert again.history == done.history


def test_a_supervised_stage_is_the_same_from_a_checkpoint_before_it(images, relaxed):
    labels = jnp.asarray(np.arange(20) % 3)
    last = hybrid.Supervised(1, Head(3), supervised.Schedule(epochs=2, batch=5))
    how = {'stages': [Stage(2), last], 'batch': 5, 'validation': (images, labels), 'watch': None}
    kept = []
    whole = loop.fit(NET, start(), images, labels, callbacks=[kept.append], **how)
    rest = loop.fit(NET, kept[-1].state, images, labels, position=kept[-1].position, **how)
    ours, theirs = ([line[:-1] for line in one.taught.fitted.curve] for one in (whole, rest))  # but for the seconds
    assert ours == theirs


@pytest.mark.parametrize('stopped', [False, True])
def test_checkpoints_never_hold_what_a_supervised_stage_made_of_the_layers(stopped, images, relaxed):
    """What is kept is what the stage began with, so that it is trained anew to the same bits."""
    finished = []

    class Keeps:
        def __call__(self, moment):
            if stopped and moment.position.epoch == 1:
                moment.stop()

        def finish(self, moment):
            finished.append(moment)

    labels = jnp.asarray(np.arange(20) % 3)
    how = {'stages': [Stage(2), hybrid.Supervised(0, Head(3), supervised.Schedule(epochs=2, batch=5))], 'batch': 5,
           'validation': (images, labels), 'watch': None}  # fmt: skip
    whole = loop.fit(NET, start(), images, labels, callbacks=[Keeps()], **how)
    (moment,) = finished
    assert np.abs(weights(moment.state)[0] - weights(whole.state)[0]).max() > 0
    rest = loop.fit(NET, moment.state, images, labels, position=moment.position, **how)
    assert_same(whole.state, rest.state)


def test_where_a_stage_ends_everything_is_due_however_it_ends(images):
    due = []

    def impatient(moment):
        if (moment.position.stage, moment.position.epoch) == (0, 2):
            moment.stop()
        due.append((moment.epoch, moment.due(100), moment.epochs))

    fit(images, net=TWO, stages=stages.plan('layerwise', TWO, 4), callbacks=[impatient])
    assert due == [(1, True, 8), (2, True, 8), (3, False, 6), (4, False, 6), (5, False, 6), (6, True, 6)]


def test_what_callbacks_add_is_plain_numbers_to_those_behind_them(images):
    seen = []
    adds = lambda moment: moment.metrics.update(x=jnp.float32(2), y=np.float32(3))  # noqa: E731
    fit(images, epochs=1, callbacks=[adds, lambda moment: seen.extend((moment.metrics['x'], moment.metrics['y']))])
    assert seen == [2.0, 3.0] and {type(one) for one in seen} == {float}


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_ctrl_c_that_python_drops_is_heard_all_the_same(images, hearing):
    class Finalised:
        def __del__(self):  # what is raised here is only written to stderr
            signal.raise_signal(signal.SIGINT)

    def drops(moment):
        if moment.epoch == 2:
            Finalised()

    outcome = fit(images, epochs=5, callbacks=[drops])
    assert outcome.interrupted and len(outcome.history) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_the_epoch_is_compiled_or_finished_waits(images, monkeypatch, hearing):
    """Both would leave something half done; then it is heard."""
    compile_, order = loop.compiled, []

    def slow(*args):
        signal.raise_signal(signal.SIGINT)
        order.append('compiled')
        return compile_(*args)

    class Finishing:
        def __call__(self, moment):
            raise AssertionError('no epoch was to begin')

        def finish(self, moment):
            signal.raise_signal(signal.SIGINT)
            order.append('finished')

    monkeypatch.setattr(loop, 'compiled', slow)
    outcome = fit(images, callbacks=[Finishing()])
    assert outcome.interrupted and order == ['compiled', 'finished'] and not outcome.history


@pytest.mark.parametrize('when', [1, 2])
def test_ctrl_c_in_a_callback_leaves_the_last_whole_epoch(when, images):
    """An epoch whose callbacks were not all heard is not whole: going on, they are all heard."""
    finished = []

    class Fragile:
        def __call__(self, moment):
            moment.metrics['half'] = True
            if moment.epoch == when:
                raise KeyboardInterrupt

        def finish(self, moment):
            finished.append(moment.epoch)

    outcome = fit(images, callbacks=[Fragile()])
    assert outcome.interrupted and len(outcome.history) == when - 1 and finished == [when - 1]
    assert_same(outcome.state, fit(images, epochs=when - 1).state if when > 1 else start())


def test_an_error_in_a_callback_is_the_callers_and_context_managers_are_left(images):
    left = []

    class Careful:
        def __enter__(self):
            return self

        def __call__(self, moment):
            raise OSError('disk full')

        def __exit__(self, *error):
            left.append(error[0])

    with pytest.raises(OSError, match='disk full'):
        fit(images, callbacks=[Careful()])
    assert left == [OSError]


def test_weights_that_are_no_longer_finite_end_training_in_a_sentence(images):
    wild = (NET[0], hebbjax.Layer(4, rules.hebb(), plasticity.ascend(1e30), hebbjax.Window(2)))
    with pytest.raises(ValueError, match='weights of layer 2 are no longer finite'):
        fit(images, net=wild)


@pytest.mark.parametrize(
    ('how', 'says'),
    [
        ({'callbacks': ['evaluate']}, "callback 'evaluate' is no function of a moment"),
        ({'callbacks': 'evaluate'}, r"callbacks are a list, such as callbacks=\[...\], and this is 'evaluate'"),
        ({'callbacks': print}, r'callbacks are a list, such as callbacks=\[...\], and this is <built-in'),
        ({'callbacks': None}, 'callbacks are a list'),
        ({'callbacks': [print, repr, print]}, 'callback <built-in function print> is there twice'),
        ({'stages': Stage(2)}, r'stages are a list, such as stages=\[...\], and this is Stage'),
        ({'stages': 3}, 'stages are a list'),
        ({'stages': [Stage(2), 3]}, r'a stage is a stages.Stage, or the last one a hybrid.Supervised, not 3'),
        ({'stages': ['parallel']}, "not 'parallel'"),
        ({'stages': [Stage(1), Stage(1, (1,))]}, '1'),  # found before the first one is trained
        *(({'batch': batch}, 'use a whole number, 1 or more') for batch in (True, 2.5, 5.0, 0, -1, None, '5')),
        ({'watch': True}, 'what is watched is told by a monitor.Monitor, or None for nothing, not True'),
        ({'watch': 20}, 'or None for nothing, not 20'),
        ({'watch': lambda told: told}, 'or None for nothing, not <function'),
        *(
            ({'position': position}, 'a training goes on at a moment.Position with its stage and epoch')
            for position in (
                None,
                3,
                (0, 1, False, ()),
                Position(-1),
                Position(0, -1),
                Position(0.0),
                Position(0, True),
            )
        ),
        ({'position': Position(0, 2)}, 'has a history of as many epochs of it, and this has 0'),
        ({'position': Position(0, 1, history=({'stage': 0}, {'stage': 0}))}, 'of as many epochs of it, and this has 2'),
        ({'state': start().layers}, 'training goes on from the TrainState that init makes, not from tuple'),
        ({'state': start(TWO)}, '2 states do not fit 1 layers'),
        ({'net': NET[0], 'state': start()}, r'write \(layer,\)'),
        ({'stages': []}, 'at least one stage'),
        ({'stages': [hybrid.Supervised(2, Head(2), supervised.Schedule())]}, 'from start=2 on; use 0 to 1'),
        ({'stages': [hybrid.Supervised(1, Head(2), supervised.Schedule()), Stage(1)]}, 'comes last'),
        ({'stages': [hybrid.Supervised(1, Head(2), supervised.Schedule())]}, 'needs labels, and validation'),
        ({'batch': 21}, 'a batch of 21 is larger than the 20 images'),
        ({'watch': Monitor(every=0)}, 'every=0 sees nothing'),
        ({'position': Position(7)}, 'stands at epoch 0 of stage 7 cannot go on in stages of'),
        ({'position': Position(0, 9)}, 'stands at epoch 9 of stage 0'),
    ],
)
def test_what_does_not_fit_is_refused_before_training(how, says, images):
    with pytest.raises(ValueError, match=says):
        fit(images, **how)


LABELS = np.arange(20) % 3
TAUGHT = (hebbjax.Layer(3, prototypes.nearest(None), plasticity.ascend(0.1), teacher=teachers.one_hot(3)),)


def test_labels_in_any_form_that_says_the_same_teach_the_same(images):
    forms = [
        LABELS.tolist(),
        LABELS.astype(np.int64),
        LABELS.astype(np.uint8),
        LABELS.astype(np.float32),
        LABELS[:, None],
        jnp.eye(3)[LABELS],
        jnp.asarray(LABELS),
    ]
    ends = [fit(images, net=TAUGHT, labels=labels).state for labels in forms]
    assert np.abs(weights(ends[0])[0] - weights(start(TAUGHT))[0]).max() > 0
    for end in ends[1:]:
        assert_same(ends[0], end)


def test_images_on_the_host_are_learned_from_as_on_the_device(images):
    for one in (np.asarray(images), np.asarray(images) / 255):  # the latter float64, which jax does not hold
        assert_same(fit(one).state, fit(jnp.asarray(one)).state)


@pytest.mark.parametrize('where', ['labels', 'validation'])
@pytest.mark.parametrize(
    ('labels', 'says'),
    [
        (LABELS[:19], '19 labels do not fit 20 images'),
        (LABELS - 1, 'labels run from -1 to 1'),
        (LABELS + 0.5, 'labels are whole numbers, and that of image 0 is 0.5'),
        (LABELS.astype(str), 'labels are classes 0, 1, ..., not <U'),
        (np.zeros((20, 3)), 'one-hot rows'),
        (3, 'labels are one class for each image'),
        (LABELS + 1, 'labels run from 1 to 3 and there are 3 classes; use 0 to 2'),
    ],
)
def test_labels_that_say_no_class_are_refused_before_anything_is_computed(labels, says, where, images):
    last, seen = hybrid.Supervised(1, Head(3), supervised.Schedule()), []
    given = {'labels': LABELS, 'validation': (images, LABELS)}
    given[where] = labels if where == 'labels' else (images, labels)
    with pytest.raises(ValueError, match=says):
        fit(images, stages=[Stage(1), last], callbacks=[seen.append], **given)
    assert not seen


@given(st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 20 * 64 - 1), st.booleans())
def test_images_that_are_no_numbers_are_refused_before_anything_is_computed(bad, place, device):
    images, seen = np.ones((20, *SHAPE), np.float32), []
    images.flat[place] = bad
    images = jnp.asarray(images) if device else images
    with pytest.raises(ValueError, match=rf'1 non-finite values, the first in image {place // 64}'):
        fit(images, callbacks=[seen.append])
    with pytest.raises(ValueError, match=rf'1 non-finite values, the first in image {place // 64}'):
        fit(np.ones_like(images), callbacks=[seen.append], validation=(images, LABELS))
    assert not seen


@pytest.mark.parametrize('given', [None, 3, (1,), (1, 2, 3), 'ab'])
def test_validation_is_two_arrays(given, images):
    last = hybrid.Supervised(1, Head(3), supervised.Schedule())
    with pytest.raises(
        ValueError, match=r'validation( are two arrays|=\(images, labels\) to be judged by|images must)?'
    ):
        fit(images, labels=LABELS, stages=[last], validation=given)


def test_a_training_begins_with_begin_and_may_be_refused_by_it(images):
    order = []

    class Picky:
        def __init__(self, refuses):
            self.refuses = refuses

        def begin(self, moment):
            order.append((moment.epoch, moment.epochs, moment.left))
            if self.refuses:
                raise ValueError('not this one')

        def __enter__(self):
            order.append('enter')

        def __exit__(self, *error):
            order.append('exit')

        def __call__(self, moment):
            order.append('epoch')

    fit(images, epochs=1, callbacks=[Picky(False)])
    assert order == [(0, 1, 1), 'enter', 'epoch', 'exit']
    order.clear()
    with pytest.raises(ValueError, match='not this one'):
        fit(images, callbacks=[Picky(False), Picky(True), order.append])
    assert order == [(0, 3, 3), (0, 3, 3)]


@given(st.sampled_from(DTYPES), st.integers(0, 3), st.sampled_from([np, jnp]), st.integers(0, 9))
def test_metrics_of_any_one_real_number_become_plain(dtype, ndim, xp, seed):
    array = bits(np.random.default_rng(seed), dtype, (1,) * ndim)
    given = xp.asarray(array)
    if dtype == 'complex64':
        with pytest.raises(ValueError, match="metrics are numbers, and 'x' was made"):
            loop.as_metric('x', given)
    else:
        found = loop.as_metric('x', given)
        assert type(found) is float
        np.testing.assert_equal(found, float(array.reshape(())))


@pytest.mark.parametrize(
    'value', ['high', '3', b'3', None, [1.0], {}, np.ones(2), jnp.ones((1, 2)), np.zeros(0), 1j, np.str_('3'), print,
              jax.random.key(0), np.array('2026', 'M8[Y]'), np.array(['3'])], ids=repr
)  # fmt: skip
def test_metrics_that_are_no_number_are_refused_with_their_name(value, images):
    seen = []
    with pytest.raises(
        ValueError, match=r"^metrics are numbers, and 'odd' was made .*; give a float, nan where there is none\.$"
    ):
        fit(images, callbacks=[lambda moment: moment.metrics.update(odd=value), seen.append])
    assert not seen


def test_an_unknown_metric_is_refused_with_those_there_are(images):
    with pytest.raises(ValueError, match=r"'accuracy' is unknown; there are epoch, stage, seconds, layer1\.change"):
        fit(images, callbacks=[lambda moment: moment.known('accuracy')])


def test_due_is_the_first_every_nth_and_the_last(images):
    due = []
    fit(images, epochs=7, callbacks=[lambda moment: due.append(moment.due(3))])
    assert due == [True, False, True, False, False, True, True]
