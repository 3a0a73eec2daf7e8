"""Callbacks and loggers that come ready: evaluate, stop early, keep checkpoints, write down, draw, show progress."""

import csv
import dataclasses
import io
import math
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import hebbjax
from hebbjax import callbacks, data, evaluation, files, loggers, loop, plasticity, rules, supervised, train
from hebbjax.monitor import Monitor
from hebbjax.readout import Head
from hebbjax.stages import Stage

NET = (hebbjax.Layer(8, rules.instar(1), plasticity.ascend(0.1), hebbjax.Window(3)),)
SHAPE = (8, 8, 1)
PAIR = np.zeros((3, *SHAPE), np.uint8), np.zeros(3, np.int32)
NO_COUNTS = [0, -1, True, 2.5, 2.0, '2', math.nan, None]


@pytest.fixture(scope='module')
def digits():
    images, labels = data.load('digits', 'train')
    return jnp.asarray(images[:300]), jnp.asarray(labels[:300])


def fit(digits, *some, epochs=3, **how):
    """Train a little, with callbacks."""
    state = how.pop('state', None) or train.init(NET, jax.random.key(0), SHAPE)
    return loop.fit(NET, state, digits[0], stages=[Stage(epochs)], batch=50, callbacks=some, **how)


def metric(values, name='score'):
    """A callback that tells of one value after the other."""
    return lambda moment: moment.metrics.update({name: values[moment.epoch - 1]} if values[moment.epoch - 1] else {})


# Evaluation


def test_evaluation_adds_accuracies_of_a_fresh_ridge(digits):
    kept, held_out = tuple(a[:200] for a in digits), tuple(a[200:] for a in digits)
    outcome = fit(digits, callbacks.evaluate(kept, held_out, epochs=2), epochs=4)
    assert ['validation_accuracy' in row for row in outcome.history] == [True, True, False, True]
    states = outcome.state.layers
    read = evaluation.ridge()(NET, states, None, kept, held_out)
    hits = np.asarray(read.predict(held_out[0])) == np.asarray(held_out[1])
    assert outcome.history[-1]['validation_accuracy'] == pytest.approx(100 * hits.mean())
    assert 60 < outcome.history[-1]['validation_accuracy'] < outcome.history[-1]['train_accuracy'] <= 100


def test_a_head_trained_by_gradient_evaluates_as_well(digits, relaxed):
    schedule = supervised.Schedule(epochs=3, batch=20, rate=1e-2)
    readout = evaluation.gradient(Head(10, power=None), schedule)
    outcome = fit(digits, callbacks.evaluate(digits, digits, readout, name='fit'), epochs=1)
    assert outcome.history[0]['validation_fit'] > 50
    read = readout(NET, outcome.state.layers, jax.random.key(0), digits, digits)
    counts = evaluation.confusion(read, *digits, 10)
    assert counts.sum() == 300 and counts.sum(1).tolist() == np.bincount(digits[1]).tolist()
    assert 100 * np.trace(counts) / 300 == pytest.approx(evaluation.accuracy(read, *digits))
    assert len(read.curve) == 3


@pytest.mark.parametrize('by', ['ridge', 'gradient'])
def test_evaluating_again_compiles_nothing(by, digits, relaxed):
    traced, seen = [], []

    def fire(u):  # runs when the layer is traced, and never else
        traced.append(u.shape)
        return jax.nn.relu(u)

    head, schedule = Head(10, power=None), supervised.Schedule(epochs=1, batch=50)
    readout = evaluation.ridge() if by == 'ridge' else evaluation.gradient(head, schedule)
    net = (dataclasses.replace(NET[0], fire=fire),)
    loop.fit(
        net, train.init(net, jax.random.key(0), SHAPE), digits[0], stages=[Stage(3)], batch=50,
        callbacks=[callbacks.evaluate(digits, digits, readout), lambda moment: seen.append(len(traced))],
    )  # fmt: skip
    assert seen[0] == seen[2] > 0


def test_ridge_refuses_more_features_than_it_can_take_in(digits):
    wide = (dataclasses.replace(NET[0], features=1001),)
    states = train.init(wide, jax.random.key(0), SHAPE).layers
    with pytest.raises(ValueError, match='4004 features'):
        evaluation.ridge()(wide, states, None, digits, digits)


# Stopping early


@pytest.mark.parametrize(
    ('values', 'largest', 'epochs'),
    [
        ([1, 2, 3, 4, 5, 6], True, 6),
        ([3, 2, 2, 4, 5, 6], True, 3),
        ([3, 4, 4, 4, 5, 6], True, 4),
        ([3, 2, 1, 4, 5, 6], False, 5),
        ([3, None, 2, None, 1, 9], True, 5),  # what was not measured does not count
        ([math.nan, 1, 2, 3, 4, 5], True, 6),  # what is no number is the worst
        ([1, math.nan, math.nan, 3, 4, 5], True, 3),
    ],
)
def test_training_stops_when_a_metric_has_not_become_better(values, largest, epochs, digits):
    stop = callbacks.early_stop('score', 2, largest=largest)
    assert len(fit(digits, metric(values), stop, epochs=6).history) == epochs


def test_an_unknown_metric_is_refused_in_the_first_epoch(digits, tmp_path):
    for callback in (callbacks.early_stop('scor'), callbacks.Checkpoint(tmp_path / 'x', best='scor')):
        seen = []
        with pytest.raises(ValueError, match=r"metric 'scor' is unknown; there are .*score"):
            fit(digits, metric([1, 2, 3]), lambda moment, seen=seen: seen.append(0), callback)
        assert len(seen) == 1


@pytest.mark.parametrize(
    ('make', 'says'),
    [
        (lambda: callbacks.every(0, print), 'every 0 epochs is never'),
        *((lambda patience=one: callbacks.early_stop(patience=patience), 'a patience of .*whole') for one in NO_COUNTS),
        *((lambda epochs=one: callbacks.every(epochs, print), 'every .* epochs is never') for one in NO_COUNTS),
        *(
            (lambda keep=one: callbacks.Checkpoint('never', keep=keep), 'leaves none to go on from')
            for one in NO_COUNTS
        ),
        *((lambda n=one: loggers.Pictures('.', SHAPE, count=n), 'units make no picture') for one in NO_COUNTS[:-1]),
        *(
            (lambda one=one, shape=shape: one('.', shape), 'an image shape is')
            for one in (loggers.Pictures, loggers.TensorBoard)
            for shape in ((8, 8), (9, 8, 8, 1), (8, 8, 0), 8, 'abc', (8.0, 8, 1))
        ),
        (lambda: callbacks.evaluate((), (), epochs=0), 'every 0 epochs is never'),
        (lambda: callbacks.evaluate((), ()), r'train are two arrays, \(images, labels\), and not tuple'),
        (lambda: callbacks.evaluate(PAIR, PAIR[0]), 'validation are two arrays'),
        (lambda: callbacks.evaluate(PAIR, (PAIR[0], PAIR[1][1:])), '2 labels do not fit 3 images'),
        (lambda: callbacks.evaluate((PAIR[0], PAIR[1] - 1), PAIR), 'labels run from -1 to -1'),
        (lambda: callbacks.evaluate(PAIR, PAIR, 'ridge'), "a readout is one such as .*, not 'ridge'"),
        (lambda: loggers.Log('.', epochs=0), 'every 0 epochs is never'),
        (lambda: loggers.Pictures('.', SHAPE, epochs=-1), 'every -1 epochs is never'),
        (lambda: callbacks.Checkpoint('never', keep=0), 'keep=0 checkpoints leaves none'),
    ],
)
def test_callbacks_that_would_do_nothing_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


# Checkpoints


def test_checkpoints_keep_the_last_and_the_best_and_training_goes_on_from_them(digits, tmp_path):
    values = [1, 5, 2, 4, 3, 2]
    keeper = callbacks.Checkpoint(tmp_path, keep=2, best='score')
    whole = fit(digits, keeper, metric(values), epochs=6)
    assert keeper.kept.epochs() == [2, 5, 6] and keeper.kept.best() == 2
    state, position = callbacks.resume(keeper.kept, train.init(NET, jax.random.key(9), SHAPE), 2)
    assert position.epoch == 2 and position.history == whole.history[:2]
    rest = fit(digits, metric(values), epochs=6, state=state, position=position)
    np.testing.assert_array_equal(rest.state.layers[0].w, whole.state.layers[0].w)


def test_the_best_epoch_is_kept_though_it_was_not_due_and_numbers_that_are_none_are_not(digits, tmp_path):
    keeper = callbacks.Checkpoint(tmp_path, epochs=100, keep=1, best='score')
    fit(digits, keeper, metric([1, 3, math.nan, 2, math.inf, 1]), epochs=6)
    assert keeper.kept.epochs() == [2, 6] and keeper.kept.best() == 2


def test_ctrl_c_during_a_gradient_readout_is_heard(digits, relaxed, monkeypatch):
    schedule = supervised.Schedule(epochs=5, batch=50)
    readout = evaluation.gradient(Head(10, power=None), schedule)
    fit_head = supervised.fit
    monkeypatch.setattr(supervised, 'fit', lambda *a, **k: fit_head(*a, **k)._replace(interrupted=True))
    outcome = fit(digits, callbacks.evaluate(digits, digits, readout))
    assert outcome.interrupted and not outcome.history


def test_what_later_callbacks_said_is_in_the_checkpoint(digits, tmp_path):
    """Early stopping and metrics are heard before the checkpoint is written, in whatever order they are given."""
    keeper = callbacks.Checkpoint(tmp_path)
    fit(digits, keeper, metric([3, 2, 1]), callbacks.early_stop('score', 1))
    _, position = callbacks.resume(keeper.kept, train.init(NET, jax.random.key(0), SHAPE))
    assert position.ended and position.history[-1]['score'] == 2


def test_an_interrupted_training_is_kept(digits, tmp_path):
    def impatient(moment):
        if moment.epoch == 3:
            raise KeyboardInterrupt

    keeper = callbacks.Checkpoint(tmp_path, epochs=100)
    assert fit(digits, impatient, keeper, epochs=5).interrupted
    assert keeper.kept.epochs() == [1, 2]  # the first is due, the second the last whole one


# Used again


@pytest.mark.parametrize(('first', 'second'), [(1, 3), (3, 2)])
def test_a_checkpoint_refuses_another_training_before_its_first_epoch(first, second, digits, tmp_path):
    keeper, seen = callbacks.Checkpoint(tmp_path), []
    fit(digits, keeper, epochs=first)
    files_before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    for again in (keeper, callbacks.Checkpoint(tmp_path)):
        with pytest.raises(
            ValueError, match=rf'holds a checkpoint of epoch {first}, and this training stands at 0; go on'
        ):
            fit(digits, seen.append, again, epochs=second)
    assert not seen
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == files_before
    keeper.kept.forget(0)
    fit(digits, keeper, epochs=second)
    assert keeper.kept.epochs()[-1] == second


def test_every_other_callback_begins_afresh_with_another_training(digits, tmp_path):
    """Used for a long training, then for a shorter one: it leaves what a fresh one leaves."""

    def make(folder):
        folder.mkdir()
        screen = io.StringIO()
        bar = callbacks.Progress(Console(file=screen, force_terminal=True, width=200), 3, 300)
        score = metric([3, 2, 4, 1, 5])
        return screen, [
            score, callbacks.early_stop('score', 2), bar, loggers.Log(folder, epochs=1),
            loggers.Pictures(folder, SHAPE), loggers.TensorBoard(folder / 'events', epochs=9),
        ]  # fmt: skip

    used, fresh = tmp_path / 'used', tmp_path / 'fresh'
    screen, some = make(used)
    fit(digits, *some, epochs=3)
    screen.truncate(0)
    again = fit(digits, *some, epochs=2, state=train.init(NET, jax.random.key(1), SHAPE))
    anew = fit(digits, *make(fresh)[1], epochs=2, state=train.init(NET, jax.random.key(1), SHAPE))
    timeless = lambda rows: [{n: v for n, v in row.items() if 'seconds' not in n} for row in rows]  # noqa: E731
    assert timeless(again.history) == timeless(anew.history) and len(again.history) == 2
    for name in ('metrics.jsonl', 'details.jsonl'):
        assert timeless(files.read_lines(used / name)) == timeless(files.read_lines(fresh / name))
    assert len((used / 'metrics.csv').read_text().splitlines()) == 3
    told = screen.getvalue()
    assert '2/2' in told and 'images/s' in told
    assert [path.name for path in sorted(used.glob('*.png'))] == ['layer1_epoch0001.png', 'layer1_epoch0002.png']
    for path in used.glob('*.png'):
        assert path.read_bytes() == (fresh / path.name).read_bytes()
    steps = [e.step for e in events(used / 'events') if any(v.tag == 'layer1/change' for v in e.summary.value)]
    assert steps[-2:] == [1, 2]


def test_a_training_that_fails_at_once_leaves_the_log_of_the_one_before(digits, tmp_path):
    log = loggers.Log(tmp_path, epochs=1)
    fit(digits, log)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match='is larger than the 300 images'):
        loop.fit(
            NET, train.init(NET, jax.random.key(0), SHAPE), digits[0], stages=[Stage(1)], batch=301, callbacks=[log]
        )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_log_without_a_folder_or_with_foreign_lines_refuses_before_the_first_epoch(digits, tmp_path):
    seen = []
    with pytest.raises(FileNotFoundError, match='is no folder to write a log into; make it first'):
        fit(digits, seen.append, loggers.Log(tmp_path / 'none'))
    for line in ('3', 'null', '[]', '{}', '{"epoch": "1"}', '{"epoch": null}', '{"epoch": 0}', '"text"'):
        (tmp_path / loggers.Log.DETAILS).write_text('{"epoch": 1}\n' + line + '\n')
        with pytest.raises(ValueError, match=r'details\.jsonl is damaged: line 2 is of no epoch; delete the line'):
            fit(digits, seen.append, loggers.Log(tmp_path))
    assert not seen


@pytest.mark.parametrize(
    'record', [None, 3, [], {}, {'epoch': 1}, {'history': 3}, {'history': [], 'more': 1}], ids=repr
)
def test_a_checkpoint_that_tells_of_no_training_is_refused(record, tmp_path):
    kept, state = callbacks.Checkpoints(tmp_path), train.init(NET, jax.random.key(0), SHAPE)
    kept.save(1, state, record)
    with pytest.raises(
        ValueError, match=r'says nothing of where a training stood; read it with Checkpoints\.restore\.'
    ):
        callbacks.resume(kept, state)


def test_what_is_called_now_and_then_has_its_beginning_and_end_all_the_same(digits, tmp_path):
    keeper, screen = callbacks.Checkpoint(tmp_path, epochs=9), io.StringIO()
    bar = callbacks.Progress(Console(file=screen, force_terminal=True, width=200), 5, 300)

    def impatient(moment):
        if moment.epoch == 3:
            raise KeyboardInterrupt

    fit(digits, impatient, callbacks.every(2, keeper), callbacks.every(2, bar), epochs=5)
    assert keeper.kept.epochs() == [1, 2] and '2/5' in screen.getvalue()
    with pytest.raises(ValueError, match='holds a checkpoint of epoch 2'):
        fit(digits, callbacks.every(2, keeper))


# Logs


def test_logs_are_lines_and_a_table(digits, tmp_path):
    outcome = fit(digits, metric([7, None, 8]), loggers.Log(tmp_path, epochs=2), watch=Monitor(every=2))
    lines = files.read_lines(tmp_path / 'metrics.jsonl')
    assert lines == [dict(row) for row in outcome.history]
    rows = list(csv.DictReader((tmp_path / 'metrics.csv').read_text().splitlines()))
    assert [row['score'] for row in rows] == ['7', '', '8']
    assert [float(row['layer1.change']) for row in rows] == [row['layer1.change'] for row in outcome.history]
    details = files.read_lines(tmp_path / 'details.jsonl')
    assert [(row['epoch'], row['layer']) for row in details] == [(1, 1), (2, 1), (3, 1)]
    counts, edges = details[-1]['histogram']
    assert sum(counts) == outcome.state.layers[0].w.size and len(edges) == len(counts) + 1
    assert sum(details[-1]['share']) == pytest.approx(1, abs=1e-5) and len(details[-1]['norms']) == 8
    assert details[-1]['step'] == [12, 14, 16]


def test_a_resumed_log_drops_what_was_written_beyond_the_checkpoint(digits, tmp_path):
    keeper = callbacks.Checkpoint(tmp_path / 'kept', keep=9)
    fit(digits, loggers.Log(tmp_path, epochs=1), keeper, epochs=4)
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"epoch": 5, "cut o')  # killed while writing
    state, position = callbacks.resume(keeper.kept, train.init(NET, jax.random.key(0), SHAPE), 2)
    whole = fit(digits, loggers.Log(tmp_path, epochs=1), epochs=4, state=state, position=position)
    lines = files.read_lines(tmp_path / 'metrics.jsonl')
    assert lines == [dict(row) for row in whole.history] and [row['epoch'] for row in lines] == [1, 2, 3, 4]
    assert [row['epoch'] for row in files.read_lines(tmp_path / 'details.jsonl')] == [1, 2, 3, 4]


def test_pictures_are_drawn_now_and_then(digits, tmp_path):
    fit(digits, loggers.Pictures(tmp_path / 'new', SHAPE, epochs=2), epochs=5)
    drawn = sorted(path.name for path in (tmp_path / 'new').iterdir())
    assert drawn == [f'layer1_epoch{epoch:04d}.png' for epoch in (1, 2, 4, 5)]
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in (tmp_path / 'new').iterdir())


def events(folder):
    """Read event files back: records of (length, crc, event, crc)."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack('<Q', content[:8])
            found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def test_event_files_hold_scalars_histograms_and_pictures(digits, tmp_path):
    pytest.importorskip('tensorboardX')
    outcome = fit(digits, loggers.TensorBoard(tmp_path, SHAPE, epochs=2))
    written = {}
    for event in events(tmp_path):
        for value in event.summary.value:
            written.setdefault(value.tag, {})[event.step] = value
    change = {epoch: value.simple_value for epoch, value in written['layer1/change'].items()}
    assert change == {row['epoch']: pytest.approx(row['layer1.change']) for row in outcome.history}
    assert set(written['layer1/w']) == set(written['layer1/fields']) == {1, 2, 3}
    assert written['layer1/w'][3].histo.num == outcome.state.layers[0].w.size
    assert written['layer1/fields'][3].image.encoded_image_string.startswith(b'\x89PNG')
    assert 'epoch' not in written


def test_without_tensorboard_one_sentence_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'hebbjax\[tensorboard\]'"):
        loggers.TensorBoard(tmp_path / 'x')
    assert not (tmp_path / 'x').exists()


# Progress


def test_the_bar_tells_rate_and_metrics_on_a_terminal_and_nothing_elsewhere(digits):
    for terminal in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=terminal, width=200)
        fit(digits, metric([1, 2, 3], 'validation_accuracy'), callbacks.Progress(console, 3, 300))
        told = screen.getvalue()
        assert ('images/s' in told) == ('change 0.' in told) == ('accuracy 3' in told) == ('3/3' in told) == terminal
        assert terminal or told == ''


def test_json_lines_survive_numbers_that_are_none(tmp_path):
    files.write_lines(tmp_path / 'x', [{'a': math.nan}])
    files.append_lines(tmp_path / 'x', [{'a': 1}])
    assert [row['a'] for row in files.read_lines(tmp_path / 'x')] == [None, 1]
    assert (tmp_path / 'x').read_text() == '{"a": null}\n{"a": 1}\n'
    assert files.read_lines(tmp_path / 'missing') == []
