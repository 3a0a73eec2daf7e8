"""Callbacks and loggers that come ready: evaluate, stop early, keep checkpoints, write down, draw, show progress."""

import io
import math
import signal
import struct
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import hebbjax
from hebbjax import layers, rules, training, transforms
from hebbjax.data import load
from hebbjax.support import files
from hebbjax.training import Monitor, Stage

NET = (hebbjax.Layer(8, rules.instar(1), transforms.scale_by_rate(0.1), hebbjax.Window(3)),)
SHAPE = (8, 8, 1)
PAIR = np.zeros((3, *SHAPE), np.uint8), np.zeros(3, np.int32)


@pytest.fixture(scope='module')
def digits():
    images, labels = load('digits', 'train')
    return jnp.asarray(images[:300]), jnp.asarray(labels[:300])


def start(seed=0):
    """A first state."""
    return jax.jit(layers.init, static_argnums=(0, 2))(NET, jax.random.key(seed), SHAPE)


def fit(digits, *some, epochs=3, **how):
    """Train a little, with callbacks."""
    state = how.pop('state', None) or start()
    how = {'watch': Monitor(every=2)} | how  # the same for all, which compiles once
    return training.fit(NET, state, digits[0], stages=[Stage(epochs)], batch=50, callbacks=some, **how)


def metric(values, name='score'):
    """A callback that tells of one value after the other."""
    return lambda context: context.metrics.update(
        {name: values[context.epoch - 1]} if values[context.epoch - 1] else {}
    )


# Early stopping


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
    stop = training.early_stop('score', 2, largest=largest)
    assert len(fit(digits, metric(values), stop, epochs=6).history) == epochs


def test_an_unknown_metric_is_refused_in_the_first_epoch(digits, tmp_path):
    for callback in (training.early_stop('scor'), training.Checkpoints(tmp_path / 'x', best='scor')):
        seen = []
        with pytest.raises(ValueError, match=r"metric 'scor' is unknown; there are .*score"):
            fit(digits, metric([1, 2, 3]), lambda context, seen=seen: seen.append(0), callback)
        assert len(seen) == 1


@pytest.mark.parametrize(
    ('make', 'says'),
    [
        *(
            (lambda one=one, shape=shape: one('.', shape), 'an image shape is')
            for one in (training.Pictures, training.TensorBoard)
            for shape in ((8, 8), (9, 8, 8, 1), (8, 8, 0), 8, 'abc', (8.0, 8, 1))
        )
    ],
)
def test_callbacks_that_would_do_nothing_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


# Checkpoints


def test_checkpoints_keep_the_last_and_the_best_and_training_goes_on_from_them(digits, tmp_path):
    values = [1, 5, 2, 4, 3, 2]
    keeper = training.Checkpoints(tmp_path, keep=2, best='score')
    whole = fit(digits, keeper, metric(values), epochs=6)
    assert keeper.epochs() == [2, 5, 6]
    state, position = training.resume(keeper, start(9), 2)
    assert position.epoch == 2 and position.history == whole.history[:2]
    rest = fit(digits, metric(values), epochs=6, state=state, position=position)
    np.testing.assert_array_equal(rest.state.layers[0].w, whole.state.layers[0].w)


def test_the_best_epoch_is_kept_though_it_was_not_due_and_numbers_that_are_none_are_not(digits, tmp_path):
    keeper = training.Checkpoints(tmp_path, every=100, keep=1, best='score')
    fit(digits, keeper, metric([1, 3, math.nan, 2, math.inf, 1]), epochs=6)
    assert keeper.epochs() == [2, 6]


def test_what_later_callbacks_said_is_in_the_checkpoint(digits, tmp_path):
    """Early stopping and metrics are heard before the checkpoint is written, in whatever order they are given."""
    keeper = training.Checkpoints(tmp_path)
    fit(digits, keeper, metric([3, 2, 1]), training.early_stop('score', 1))
    _, position = training.resume(keeper, start())
    assert position.ended and position.history[-1]['score'] == 2


def test_an_interrupted_training_is_kept(digits, tmp_path):
    def impatient(context):
        if context.epoch == 3:
            raise KeyboardInterrupt

    keeper = training.Checkpoints(tmp_path, every=100)
    assert fit(digits, impatient, keeper, epochs=5).interrupted
    assert keeper.epochs() == [1, 2]  # the first is due, the second the last whole one


# Used again


@pytest.mark.parametrize(('first', 'second'), [(1, 3), (3, 2)])
def test_a_checkpoint_refuses_another_training_before_its_first_epoch(first, second, digits, tmp_path):
    keeper, seen = training.Checkpoints(tmp_path), []
    fit(digits, keeper, epochs=first)
    files_before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    for again in (keeper, training.Checkpoints(tmp_path)):
        with pytest.raises(
            ValueError, match=rf'holds a checkpoint of epoch {first}, and this training stands at 0; go on'
        ):
            fit(digits, seen.append, again, epochs=second)
    assert not seen
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == files_before
    keeper.forget(0)
    fit(digits, keeper, epochs=second)
    assert keeper.epochs()[-1] == second


def test_every_other_callback_begins_afresh_with_another_training(digits, tmp_path):
    """Used for a long training, then for a shorter one: it leaves what a fresh one leaves."""

    def make(folder):
        folder.mkdir()
        screen = io.StringIO()
        bar = training.Progress(Console(file=screen, force_terminal=True, width=200), 3, 300)
        score = metric([3, 2, 4, 1, 5])
        return screen, [
            score, training.early_stop('score', 2), bar, training.Log(folder, every=1),
            training.Pictures(folder, SHAPE), training.TensorBoard(folder / 'events', every=9),
        ]  # fmt: skip

    used, fresh = tmp_path / 'used', tmp_path / 'fresh'
    screen, some = make(used)
    fit(digits, *some, epochs=3)
    screen.truncate(0)
    again = fit(digits, *some, epochs=2, state=start(1))
    anew = fit(digits, *make(fresh)[1], epochs=2, state=start(1))
    timeless = lambda rows: [{n: v for n, v in row.items() if 'seconds' not in n} for row in rows]  # noqa: E731
    assert timeless(again.history) == timeless(anew.history) and len(again.history) == 2
    for name in ('metrics.jsonl', 'details.jsonl'):
        assert timeless(files.read_lines(used / name)) == timeless(files.read_lines(fresh / name))
    shown = screen.getvalue()
    assert '2/2' in shown and 'images/s' in shown
    assert [path.name for path in sorted(fresh.glob('*.png'))] == ['layer1_epoch0001.png', 'layer1_epoch0002.png']
    for path in fresh.glob('*.png'):
        assert path.read_bytes() == (used / path.name).read_bytes()
    steps = [e.step for e in events(used / 'events') if any(v.tag == 'layer1/max_update' for v in e.summary.value)]
    assert steps[-2:] == [1, 2]


def test_a_training_that_fails_at_once_leaves_the_log_of_the_one_before(digits, tmp_path):
    log = training.Log(tmp_path, every=1)
    fit(digits, log)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match='is larger than the 300 images'):
        training.fit(NET, start(), digits[0], stages=[Stage(1)], batch=301, callbacks=[log])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupted_epoch_takes_back_what_it_said_and_no_more(digits, tmp_path):
    count = lambda: [len(files.read_lines(tmp_path / name)) for name in ('metrics.jsonl', 'details.jsonl')]  # noqa: E731

    def impatient(context):
        if context.epoch == 2:
            raise KeyboardInterrupt

    def interrupt_first(context):
        raise KeyboardInterrupt

    fit(digits, training.Log(tmp_path, every=1), epochs=3)
    assert count() == [3, 3]
    fit(digits, impatient, training.Log(tmp_path, every=1))
    assert count() == [1, 1]
    fit(digits, training.Log(tmp_path, every=1), epochs=3)
    assert fit(digits, interrupt_first, training.Log(tmp_path, every=1)).interrupted
    assert count() == [3, 3]
    assert fit(digits, training.Log(tmp_path, every=1), impatient, epochs=3).interrupted
    assert count() == [1, 1]


def test_a_log_without_a_folder_or_with_foreign_lines_refuses_before_the_first_epoch(digits, tmp_path):
    seen = []
    with pytest.raises(FileNotFoundError, match='none is no folder; make it first, or name another'):
        fit(digits, seen.append, training.Log(tmp_path / 'none'))
    for line in ('3', 'null', '[]', '{}', '{"epoch": "1"}', '{"epoch": null}', '{"epoch": 0}', '"text"'):
        (tmp_path / training.Log.DETAILS).write_text('{"epoch": 1}\n' + line + '\n')
        with pytest.raises(
            ValueError, match=r'details\.jsonl is damaged: a line is of no epoch; delete it, or the file'
        ):
            fit(digits, seen.append, training.Log(tmp_path))
    assert not seen


def test_ctrl_c_between_two_checkpoints_keeps_the_last_whole_epoch(digits, tmp_path):
    keeper = training.Checkpoints(tmp_path, every=9)

    def impatient(context):
        if context.epoch == 3:
            raise KeyboardInterrupt

    fit(digits, impatient, keeper, epochs=5)
    assert keeper.epochs() == [1, 2]
    with pytest.raises(ValueError, match='holds a checkpoint of epoch 2'):
        fit(digits, keeper)


def test_ctrl_c_while_a_checkpoint_is_written_waits_until_its_epoch_is_whole(digits, tmp_path, hearing):
    class Pressed(training.Checkpoints):
        at = 2

        def save(self, context):
            if context.epoch == self.at:
                signal.raise_signal(signal.SIGINT)
            super().save(context)

    (tmp_path / 'kept').mkdir()
    log, keeper = training.Log(tmp_path, every=1), Pressed(tmp_path / 'kept', keep=9)
    result = fit(digits, log, keeper, epochs=4)
    assert result.interrupted and len(result.history) == 2 and keeper.epochs() == [1, 2]
    keeper.at = None
    state, position = training.resume(keeper, start())
    fit(digits, log, keeper, epochs=4, state=state, position=position)
    for name in ('metrics.jsonl', 'details.jsonl'):
        assert [row['epoch'] for row in files.read_lines(tmp_path / name)] == [1, 2, 3, 4]


# Logs


def test_logs_are_lines_of_scalars_and_of_details(digits, tmp_path):
    result = fit(digits, metric([7, None, 8]), training.Log(tmp_path, every=2))
    lines = files.read_lines(tmp_path / 'metrics.jsonl')
    assert lines == [dict(row) for row in result.history]
    details = files.read_lines(tmp_path / 'details.jsonl')
    assert [(row['epoch'], row['layer']) for row in details] == [(1, 1), (2, 1), (3, 1)]
    counts, edges = details[-1]['histogram']
    assert sum(counts) == result.state.layers[0].w.size and len(edges) == len(counts) + 1
    assert sum(details[-1]['win_share']) == pytest.approx(1, abs=1e-5) and len(details[-1]['norms']) == 8
    assert details[-1]['step'] == [12, 14, 16]


def test_a_resumed_log_drops_what_was_written_beyond_the_checkpoint(digits, tmp_path):
    keeper = training.Checkpoints(tmp_path / 'kept', keep=9)
    fit(digits, training.Log(tmp_path, every=1), keeper, epochs=4)
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"epoch": 5, "cut o')  # killed while writing
    state, position = training.resume(keeper, start(), 2)
    whole = fit(digits, training.Log(tmp_path, every=1), epochs=4, state=state, position=position)
    lines = files.read_lines(tmp_path / 'metrics.jsonl')
    assert lines == [dict(row) for row in whole.history] and [row['epoch'] for row in lines] == [1, 2, 3, 4]
    assert [row['epoch'] for row in files.read_lines(tmp_path / 'details.jsonl')] == [1, 2, 3, 4]


def test_of_many_seeds_means_are_told_and_the_first_is_drawn(digits, tmp_path):
    states = training.init_seeds(NET, jax.random.split(jax.random.key(0), 2), SHAPE)
    some = [training.Log(tmp_path), training.Pictures(tmp_path, SHAPE), training.TensorBoard(tmp_path / 'e', SHAPE)]
    keeper = training.Checkpoints(tmp_path / 'kept')
    many = fit(digits, *some, keeper, epochs=1, state=states)
    (row,) = files.read_lines(tmp_path / 'details.jsonl')
    assert sum(row['histogram'][0]) == many.state.layers[0].w[0].size and len(row['norms']) == 8
    assert files.read_lines(tmp_path / 'metrics.jsonl') == [dict(row) for row in many.history]
    assert len(list(tmp_path.glob('*.png'))) == 1
    state, _ = training.resume(keeper, states)
    np.testing.assert_array_equal(state.layers[0].w, many.state.layers[0].w)
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(states.key))


def test_pictures_are_drawn_now_and_then(digits, tmp_path):
    fit(digits, training.Pictures(tmp_path / 'new', SHAPE, every=2), epochs=5)
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
    result = fit(digits, training.TensorBoard(tmp_path, SHAPE, every=2))
    written = {}
    for event in events(tmp_path):
        for value in event.summary.value:
            written.setdefault(value.tag, {})[event.step] = value
    change = {epoch: value.simple_value for epoch, value in written['layer1/max_update'].items()}
    assert change == {row['epoch']: pytest.approx(row['layer1.max_update']) for row in result.history}
    assert set(written['layer1/w']) == set(written['layer1/fields']) == {1, 2, 3}
    assert written['layer1/w'][3].histo.num == result.state.layers[0].w.size
    assert written['layer1/fields'][3].image.encoded_image_string.startswith(b'\x89PNG')
    assert 'epoch' not in written


def test_without_tensorboard_one_sentence_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)
    with pytest.raises(ImportError, match=r"pip install 'hebbjax\[tensorboard\]'"):
        training.TensorBoard(tmp_path / 'x')
    assert not (tmp_path / 'x').exists()


# Progress


def test_the_bar_tells_rate_and_metrics_on_a_terminal_and_nothing_elsewhere(digits):
    for terminal in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=terminal, width=200)
        fit(digits, metric([1, 2, 3], 'validation_accuracy'), training.Progress(console, 3, 300))
        shown = screen.getvalue()
        assert (
            ('images/s' in shown)
            == ('max_update 0.' in shown)
            == ('accuracy 3' in shown)
            == ('3/3' in shown)
            == terminal
        )
        assert terminal or shown == ''


@given(phase=st.text('[]/b :abc', min_size=1, max_size=9), note=st.text('[]/b :abc', min_size=1, max_size=9))
def test_what_bars_are_told_is_no_markup(phase, note):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=300, color_system=None)
    with training.progress_bar(console, phase, 2) as advance:
        advance(note)
    assert phase in screen.getvalue() and note in screen.getvalue() and '1/2' in screen.getvalue()


class Cell(list):
    """What a notebook was told to display, as text."""

    def display(self, bar, display_id):
        assert display_id
        self.update(bar)
        return self

    def update(self, bar):
        self.append(bar._repr_mimebundle_((), ())['text/plain'])


def test_the_progress_of_a_training_is_drawn_in_a_notebook(monkeypatch):
    cell = Cell()
    monkeypatch.setitem(sys.modules, 'IPython', types.ModuleType('IPython'))
    monkeypatch.setitem(sys.modules, 'IPython.display', types.SimpleNamespace(display=cell.display))
    context = types.SimpleNamespace(history=[{'layer1.max_update': 0.5}], metrics={'seconds': 2.0}, epochs=4, epoch=1)
    with training.Progress(Console(force_jupyter=True), 4, 300) as bar:
        bar(context)
    assert '0/4' in cell[0] and '1/4' in cell[1] and '150 images/s, max_update 0.5' in cell[1]
    with training.Progress(Console(force_jupyter=True, quiet=True), 4, 300) as bar:
        bar(context)
    assert len(cell) == 2
