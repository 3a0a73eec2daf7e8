"""Checkpoints along a training: kept, refused; and a process that is really killed goes on as if it had not been."""

import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import DTYPES, WIDE, assert_bits, bits, drawn, is_refused
from hypothesis import given
from hypothesis import strategies as st

import hebbjax
from hebbjax import layers, rules, training, transforms
from hebbjax.support import files
from hebbjax.training import checkpoint, load_state, save_state


def state_of(features=6, seed=0, **more):
    """A first state."""
    net = (hebbjax.Layer(features, rules.instar(), transforms.scale_by_rate(0.1), hebbjax.Window(3), **more),)
    return jax.jit(layers.init, static_argnums=(0, 2))(net, jax.random.key(seed), (8, 8, 1))


def context_of(epoch, state, *scores, **metrics):
    """A training after an epoch."""
    rows = [{'epoch': number, 'stage': 0} for number in range(1, epoch + 1)]
    rows[-1] |= metrics
    rows = [row | ({} if score is None else {'score': score}) for row, score in zip(rows, scores)] or rows
    return training.CallbackContext((), [training.Stage(99)], training.Position(0, epoch, history=(*rows,)), state)


def plain(state):
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
            for x in jax.tree.leaves(state)]  # fmt: skip


def assert_equal(one, other):
    assert all((a == b).all() for a, b in zip(plain(one), plain(other), strict=True))


@pytest.fixture
def keeper(tmp_path):
    """Three checkpoints."""
    keeper = checkpoint.Checkpoints(tmp_path / 'kept', keep=3)
    for epoch in (1, 2, 3):
        keeper.save(context_of(epoch, state_of(seed=epoch), loss=1.5))
    return keeper


def test_a_state_comes_back_bit_for_bit_with_its_key_and_position(keeper):
    for epoch, wanted in ((1, 1), (None, 3)):
        state, position = training.resume(keeper, state_of(seed=9), epoch)
        assert_equal(state, state_of(seed=wanted))
        assert position == context_of(wanted, None, loss=1.5).position
    assert jax.random.normal(state.key) == jax.random.normal(state_of(seed=3).key)


def test_the_last_few_and_the_best_are_kept(tmp_path):
    scores, state = [3, 9, None, 1, 9, math.nan, 4], state_of()
    for largest, best in ((True, 2), (False, 4)):
        keeper = checkpoint.Checkpoints(tmp_path / str(largest), keep=2, best='score', largest=largest)
        for epoch in range(1, 8):
            keeper.save(context_of(epoch, state, *scores[:epoch]))
        assert keeper.epochs() == sorted({best, 6, 7})
        assert sorted(path.name for path in keeper.folder.iterdir()) == sorted(map(str, keeper.epochs()))


def test_another_network_is_refused_naming_the_leaf(keeper):
    with pytest.raises(ValueError, match=r'leaf \.layers\[0\]\.w is float32\[6, 9\], wanted float32\[7, 9\]'):
        training.resume(keeper, state_of(7))
    with pytest.raises(ValueError, match=r'another network: leaf .*threshold is none, wanted float32\[6\]'):
        training.resume(keeper, state_of(homeostasis=hebbjax.Homeostasis(0.1)))


def test_what_is_not_there_is_said(keeper, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no checkpoint of epoch 7; there are those of epochs \[1, 2, 3\]'):
        training.resume(keeper, state_of(), 7)
    with pytest.raises(FileNotFoundError, match=r'no checkpoint of any epoch'):
        training.resume(checkpoint.Checkpoints(tmp_path / 'empty'), state_of())


def test_every_damage_is_refused_or_harmless_and_others_are_named(keeper, capfd):
    """Each file of a checkpoint in turn: a bit flipped, the end cut off, gone."""
    whole, like, hurt = state_of(seed=3), state_of(), 0
    for path in sorted(path for path in (keeper.folder / '3').rglob('*') if path.is_file() and path.stat().st_size):
        content = path.read_bytes()
        for broken in (bytes([*content[:-9], content[-9] ^ 0x10, *content[-8:]]), content[: len(content) // 2], None):
            path.unlink() if broken is None else path.write_bytes(broken)
            try:
                state, position = training.resume(checkpoint.Checkpoints(keeper.folder), like)
                assert_equal(state, whole)
                assert position.epoch == 3 and position.history[-1]['loss'] == 1.5
            except ValueError as error:
                hurt += 1
                assert 'damaged' in str(error) and 'epochs [1, 2]' in str(error) and '\n' not in str(error)
            path.write_bytes(content)
    assert hurt >= 24
    training.resume(keeper, like)
    assert capfd.readouterr().err == ''


def test_dtypes_and_empty_leaves_come_back_bit_for_bit(tmp_path):
    rng, keeper = np.random.default_rng(0), checkpoint.Checkpoints(tmp_path)
    dtypes = ['bool', 'int8', 'uint8', 'uint16', 'int32', 'uint32', 'float16', 'bfloat16', 'float32', 'complex64']
    state = {name: jnp.asarray(bits(rng, name, rng.integers(1, 4, rng.integers(3)))) for name in dtypes}
    state |= {'empty': jnp.zeros((0, 3), jnp.bfloat16)}
    keeper.save(context_of(1, state))
    assert_bits(training.resume(keeper, {name: jnp.asarray(np.zeros_like(a)) for name, a in state.items()})[0], state)


def test_a_full_disk_is_one_sentence_and_leaves_what_was_kept(keeper, monkeypatch):
    class Full:
        def save(self, epoch, args):
            raise OSError(28, 'No space left on device')

    monkeypatch.setattr(keeper, '_manager', Full())
    with pytest.raises(
        OSError, match=r'kept/4 could not be written \(.*No space left.*\); epochs \[1, 2, 3\] are kept\.$'
    ):
        keeper.save(context_of(4, state_of()))
    assert keeper.epochs() == [1, 2, 3] and sorted(path.name for path in keeper.folder.iterdir()) == ['1', '2', '3']


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r'checkpoints cannot be kept in .*file/x .*name a folder of yours'):
        checkpoint.Checkpoints(tmp_path / 'file' / 'x').begin(context_of(1, None))


def test_a_checkpoint_that_was_cut_off_before_its_checksums_is_whole(keeper):
    (keeper.folder / '3' / checkpoint.SUMS).unlink()
    assert_equal(training.resume(keeper, state_of())[0], state_of(seed=3))


# Killed, and gone on with


class Saving(training.Checkpoints):
    """A checkpoint that tells when it is being written."""

    tell: object

    def save(self, context):
        self.tell('save', context.epoch, '')
        super().save(context)


def train(folder, epochs, tell):
    """Train, from the folder's last checkpoint on, and tell the checksum of every state."""
    how = {'patches_per_image': 4, 'homeostasis': hebbjax.Homeostasis(0.1)}
    net = (hebbjax.Layer(32, rules.instar(1), transforms.scale_by_rate(0.1), hebbjax.Window(5), **how),)
    images = np.random.default_rng(0).integers(0, 256, (100, 12, 12, 1), np.uint8)
    state = jax.jit(layers.init, static_argnums=(0, 2))(net, jax.random.key(0), images.shape[1:])
    position = training.START
    keeper = Saving(folder / 'checkpoints', keep=2, best='layer1.win_entropy')
    keeper.tell = tell
    if keeper.epochs():
        state, position = training.resume(keeper, state)
    bits = lambda state: zlib.crc32(b''.join(leaf.tobytes() for leaf in checkpoint.leaf_arrays(state).values()))  # noqa: E731
    tell('from', len(position.history), bits(state))
    training.fit(
        net, state, images, stages=training.plan_stages('sequential', net, epochs), batch=50,
        watch=training.Monitor(every=2), position=position,
        callbacks=[lambda c: tell('epoch', c.epoch, bits(c.state)), training.Log(folder, every=5), keeper],
    )  # fmt: skip


def killed(folder, epochs, at, after):
    """Train in a process of its own that is killed some seconds after it has told something; what it told."""
    command = [sys.executable, __file__, str(folder), str(epochs), at, str(after)]
    path = os.pathsep.join([str(pathlib.Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {'PYTHONPATH': path}, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def child(folder, epochs, at, after):
    """What the process does."""

    def tell(what, epoch, bits):
        print(what, epoch, bits, flush=True)
        if f'{what} {epoch}' == at:
            threading.Timer(float(after), os.kill, (os.getpid(), signal.SIGKILL)).start()

    train(pathlib.Path(folder), int(epochs), tell)


def test_a_killed_training_ends_in_the_same_bits(tmp_path):
    """Killed inside a save and between two; what goes on is held to what was never interrupted, epoch by epoch."""
    whole, folder, rest = [], tmp_path / 'killed', []
    (tmp_path / 'whole').mkdir()
    folder.mkdir()
    train(tmp_path / 'whole', 7, lambda *told: whole.append(told))
    wanted = {epoch: bits for what, epoch, bits in whole if what != 'save'}
    for at, after in (('save 3', 0.01), ('epoch 5', 0.05)):
        states = {int(epoch): int(*bits) for what, epoch, *bits in killed(folder, 7, at, after) if what != 'save'}
        assert states == {epoch: wanted[epoch] for epoch in states} and 7 not in states
    train(folder, 7, lambda *told: rest.append(told))
    assert rest[0][0] == 'from' and rest[0][1] >= 4 and rest[-1][:2] == ('save', 7)
    assert all(wanted[epoch] == bits for what, epoch, bits in rest if what != 'save')
    assert [row['epoch'] for row in files.read_lines(folder / 'metrics.jsonl')] == list(range(1, 8))


# One file


def network_of(features=5, seed=0):
    tx = transforms.scale_by_rate(transforms.linear_by_epoch(0.1, 5, 2))
    net = (hebbjax.Layer(features, rules.oja(), tx, hebbjax.Window(3)),)
    return net, jax.jit(hebbjax.init, static_argnums=(0, 2))(net, jax.random.key(seed), (6, 6, 1))


def test_a_saved_state_comes_back_bit_by_bit_and_goes_on_as_if_nothing_happened(tmp_path):
    net, state = network_of()
    step = hebbjax.make_train_step(net)
    images = jax.random.uniform(jax.random.key(9), (4, 6, 6, 1))
    state, _ = step(state, images)
    save_state(tmp_path / 'state.npz', state)
    back = load_state(tmp_path / 'state.npz', network_of(seed=7)[1])
    assert jax.random.key_data(back.key).tolist() == jax.random.key_data(state.key).tolist()
    one, other = step(state, images)[0], step(back, images)[0]
    np.testing.assert_array_equal(one.layers[0].w, other.layers[0].w)
    assert int(other.step) == 2
    assert [path.name for path in tmp_path.iterdir()] == ['state.npz']


def test_a_file_of_another_network_is_refused_naming_the_leaf(tmp_path):
    save_state(tmp_path / 'state.npz', network_of(5)[1])
    with pytest.raises(
        ValueError, match=r'another network: leaf \.layers\[0\]\.w is float32\[5, 9\], wanted float32\[6, 9\]'
    ):
        load_state(tmp_path / 'state.npz', network_of(6)[1])
    with pytest.raises(ValueError, match=r"leaf \['more'\] is none, wanted float32\[3\]"):
        load_state(tmp_path / 'state.npz', {'more': jnp.zeros(3)})


def test_damaged_and_missing_files_are_one_sentence(tmp_path):
    _, state = network_of()
    path = tmp_path / 'state.npz'
    save_state(path, state)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b'', b'not a state'):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r'state\.npz is damaged \(.+\); save it again'):
            load_state(path, state)
    with pytest.raises(FileNotFoundError, match=r'other\.npz'):
        load_state(tmp_path / 'other.npz', state)


def test_a_failed_save_leaves_the_old_file_whole(tmp_path, monkeypatch):
    _, state = network_of()
    path = tmp_path / 'state.npz'
    save_state(path, state)
    before = path.read_bytes()

    def fail(*args, **more):
        raise OSError('disk full')

    monkeypatch.setattr(files.np, 'savez', fail)
    with pytest.raises(OSError, match='disk full'):
        save_state(path, state)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    """Of a file."""
    return tmp_path_factory.mktemp('state') / 'state.npz'


@given(st.lists(st.tuples(st.sampled_from([*DTYPES, *WIDE]), SHAPES), min_size=1, max_size=6), st.integers(0, 99))
def test_every_dtype_of_jax_comes_back_bit_for_bit(path, leaves, seed):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(any(dtype in WIDE for dtype, _ in leaves)):
        state = {f'{number}': jnp.asarray(bits(rng, *leaf)) for number, leaf in enumerate(leaves)}
        save_state(path, state)
        assert_bits(load_state(path, jax.tree.map(jnp.zeros_like, state)), state)


def test_what_jax_does_not_hold_comes_back_as_numpys(path):
    """Without x64 an array of jax would round it."""
    state = {'wide': np.random.default_rng(0).normal(size=3), 'own': jnp.ones(2)}
    save_state(path, state)
    assert_bits(load_state(path, state), state)


@pytest.mark.parametrize(
    'leaf', ['text', b'bytes', print, np.array('2026', 'M8[Y]'), object()], ids=lambda leaf: type(leaf).__name__
)
def test_leaves_that_are_no_numbers_are_refused_when_they_are_saved(leaf, tmp_path):
    with pytest.raises(ValueError, match=r"made of arrays and keys, and leaf \['what'\] is .*; leave it out\."):
        save_state(tmp_path / 'state.npz', {'what': leaf})
    assert not list(tmp_path.iterdir())


def test_every_damage_of_a_file_is_refused_or_harmless(path):
    rng = np.random.default_rng(0)
    state = {'w': jnp.asarray(bits(rng, 'float32', (30, 50))), 'half': jnp.asarray(bits(rng, 'bfloat16', (7,)))}
    save_state(path, state)
    whole, hurt = path.read_bytes(), 0
    seams = whole[-600:]  # where the zip format keeps its own books
    for broken in (*drawn(whole, 200), *(whole[:-600] + end for end in drawn(seams, 400, seed=1))):
        path.write_bytes(broken)
        hurt += is_refused(lambda: load_state(path, state), state)
    assert hurt > 300


def test_a_state_of_another_width_is_refused_naming_both(path):
    with jax.enable_x64(True):
        save_state(path, {'w': jnp.zeros((2, 3), jnp.float64)})
    with pytest.raises(ValueError, match=r'leaf .* is float64\[2, 3\], wanted float32\[2, 3\]'):
        load_state(path, {'w': jnp.zeros((2, 3))})


def test_a_file_of_the_first_version_is_read(path):
    """As `save` wrote it before it knew dtypes that numpy does not."""
    names = np.array('{"format": "hebbjax state 1", "leaves": ["[\'w\']"]}')
    np.savez(path, names=names, **{'0': np.arange(3, dtype=np.float32)})
    assert_bits(load_state(path, {'w': jnp.zeros(3)}), {'w': np.arange(3, dtype=np.float32)})


if __name__ == '__main__':
    child(*sys.argv[1:])


def test_a_folder_that_somebody_deleted_is_begun_anew(keeper):
    shutil.rmtree(keeper.folder)
    fresh = training.CallbackContext((), [training.Stage(99)], training.START, state_of())
    keeper.begin(fresh)
    keeper.save(context_of(1, state_of(seed=1), loss=1.5))
    assert keeper.epochs() == [1]
