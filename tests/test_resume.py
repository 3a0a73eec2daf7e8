"""Checkpoints along a training: kept, refused; and a process that is really killed goes on as if it had not been."""

import pathlib
import random
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import DTYPES, assert_bits, bits, drawn, is_refused

import hebbjax
from hebbjax import files, plasticity, resume, rules, train

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'benchmarks'))
import kills

W = '.layers[0].w'


def state_of(features=6, seed=0, rule=rules.instar):
    """A first state."""
    layer = hebbjax.Layer(features, rule(), plasticity.ascend(0.1), hebbjax.Window(3))
    return train.init((layer,), jax.random.key(seed), (8, 8, 1))


def plain(state):
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
            for x in jax.tree.leaves(state)]  # fmt: skip


@pytest.fixture
def kept(tmp_path):
    """Three checkpoints."""
    kept = resume.Checkpoints(tmp_path / 'kept', keep=3)
    for epoch in (1, 2, 3):
        kept.save(epoch, state_of(seed=epoch), {'epoch': epoch, 'values': [1.5, None]})
    return kept


def test_a_state_comes_back_bit_for_bit_with_its_key_and_record(kept):
    for epoch, wanted in ((1, 1), (None, 3)):
        state, record = kept.restore(state_of(seed=9), epoch)
        assert all((a == b).all() for a, b in zip(plain(state), plain(state_of(seed=wanted)), strict=True))
        assert record == {'epoch': wanted, 'values': [1.5, None]}
    assert jax.random.normal(state.key) == jax.random.normal(state_of(seed=3).key)


def test_the_last_few_and_the_best_are_kept(tmp_path):
    for largest, best in ((True, 2), (False, 4)):
        kept = resume.Checkpoints(tmp_path / str(largest), keep=2, best='score', largest=largest)
        assert kept.best() is None
        for epoch, score in enumerate([3, 9, None, 1, 5, 4], 1):
            kept.save(epoch, state_of(), metrics={} if score is None else {'score': score, 'other': 100})
        assert kept.epochs() == sorted({best, 5, 6}) and kept.best() == best
        assert sorted(path.name for path in kept.folder.iterdir()) == sorted(map(str, kept.epochs()))


def test_another_network_is_refused_naming_the_leaf(kept):
    with pytest.raises(ValueError, match=r'leaf \.layers\[0\]\.w is float32\[6, 9\], wanted float32\[7, 9\]'):
        kept.restore(state_of(7))
    with pytest.raises(ValueError, match=r'leaf .*threshold: the file lacks it'):
        layer = hebbjax.Layer(6, rules.instar(), plasticity.ascend(0.1), hebbjax.Window(3),
                              homeostasis=hebbjax.Homeostasis(0.1))  # fmt: skip
        kept.restore(train.init((layer,), jax.random.key(0), (8, 8, 1)))


def test_what_is_not_there_is_said(kept, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no checkpoint of epoch 7; there are those of epochs \[1, 2, 3\]'):
        kept.restore(state_of(), 7)
    with pytest.raises(FileNotFoundError, match=r'no checkpoint of any epoch'):
        resume.Checkpoints(tmp_path / 'empty').restore(state_of())
    with pytest.raises(ValueError, match='epoch 2 does not come after 3'):
        kept.save(2, state_of())


def test_every_damage_is_refused_or_harmless_and_others_are_named(kept):
    """Each file of a checkpoint in turn: a bit flipped, the end cut off, gone."""
    whole, hurt = plain(state_of(seed=3)), 0
    for path in sorted(path for path in (kept.folder / '3').rglob('*') if path.is_file() and path.stat().st_size):
        content = path.read_bytes()
        for broken in (bytes([*content[:-9], content[-9] ^ 0x10, *content[-8:]]), content[: len(content) // 2], None):
            path.unlink() if broken is None else path.write_bytes(broken)
            try:
                state, _ = kept.restore(state_of())
                assert all((a == b).all() for a, b in zip(plain(state), whole)), path
            except ValueError as error:
                hurt += 1
                assert 'damaged' in str(error) and 'epochs [1, 2]' in str(error) and '\n' not in str(error)
            path.write_bytes(content)
    assert hurt >= 30
    kept.restore(state_of())


def test_drawn_damage_is_refused_or_harmless(kept):
    whole = {f'{number}': leaf for number, leaf in enumerate(plain(state_of(seed=3)))}
    paths, hurt = sorted(path for path in (kept.folder / '3').rglob('*') if path.is_file() and path.stat().st_size), 0
    for number, path in enumerate(paths):
        content = path.read_bytes()
        for broken in drawn(content, 4, seed=number):
            path.write_bytes(broken)
            read = lambda: {f'{n}': leaf for n, leaf in enumerate(plain(kept.restore(state_of())[0]))}  # noqa: E731
            hurt += is_refused(read, whole)
        path.write_bytes(content)
    assert hurt > 2 * len(paths)


def test_every_dtype_and_empty_leaves_come_back_bit_for_bit(tmp_path):
    rng, kept = np.random.default_rng(0), resume.Checkpoints(tmp_path)
    state = {name: jnp.asarray(bits(rng, name, rng.integers(1, 4, rng.integers(3)))) for name in DTYPES}
    state |= {'empty': jnp.zeros((0, 3), jnp.bfloat16)}
    kept.save(1, state)
    assert_bits(kept.restore(jax.tree.map(jnp.zeros_like, state))[0], state)
    with jax.enable_x64(True):
        wide = {'wide': jnp.ones((2, 3), jnp.float64)}
        kept.save(2, wide)
        assert_bits(kept.restore(wide)[0], wide)
    with pytest.raises(ValueError, match=r'2 was saved with JAX_ENABLE_X64=1: .*open it with JAX_ENABLE_X64=1 as well'):
        kept.restore({'wide': jnp.ones((2, 3))})


@pytest.mark.parametrize('epoch', [-1, 1.5, True, '2', None])
def test_epochs_that_are_no_number_are_refused(epoch, tmp_path):
    with pytest.raises(ValueError, match=rf'epoch {epoch!r} is no whole number from 0 on'):
        resume.Checkpoints(tmp_path / 'none').save(epoch, state_of())
    assert not list(tmp_path.iterdir())


def test_metrics_that_are_no_numbers_count_as_not_measured(tmp_path):
    kept = resume.Checkpoints(tmp_path, best='score', keep=9)
    for epoch, score in enumerate([1, 'high', np.float32(3), None, np.ones(3), float('nan')], 1):
        kept.save(epoch, state_of(), metrics={'score': score})
    assert kept.best() == 3


def test_a_checkpoint_that_was_cut_off_before_its_checksums_is_whole(kept):
    (kept.folder / '3' / resume.SUMS).unlink()
    state, _ = kept.restore(state_of())
    assert all((a == b).all() for a, b in zip(plain(state), plain(state_of(seed=3))))


def test_a_changed_weight_is_named(kept, monkeypatch):
    read = kept._read

    def flipped(epoch, **item):  # as a disk would: the arrays' own format noticed nothing
        found = read(epoch, **item)
        return found if 'record' in item else found | {W: found[W] + np.float32(1)}

    monkeypatch.setattr(kept, '_read', flipped)
    with pytest.raises(ValueError, match=r'leaf \.layers\[0\]\.w is not what was saved; there are others'):
        kept.restore(state_of())


def test_a_full_disk_is_one_sentence_and_leaves_what_was_kept(tmp_path):
    """A limit on the size of files stands for it, in a process of its own."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
from test_resume import state_of
from hebbjax import resume as r
kept = r.Checkpoints({str(tmp_path)!r})
kept.save(1, state_of())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    kept.save(2, state_of())
except OSError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert 'the checkpoint of epoch 2 could not be written' in told.stdout, told.stderr
    assert told.stdout.count('\n') == 1 and 'epochs [1] are kept' in told.stdout
    kept = resume.Checkpoints(tmp_path)
    assert kept.epochs() == [1] and sorted(path.name for path in tmp_path.iterdir()) == ['1']
    kept.restore(state_of())


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r'checkpoints cannot be kept in .*file/x .*name a folder of yours'):
        resume.Checkpoints(tmp_path / 'file' / 'x').begin()


def test_a_killed_training_ends_in_the_same_bits(tmp_path):
    """Three kills at drawn moments, one of them inside a save; benchmarks/kills.py does twenty."""
    draw = random.Random(0)
    whole = kills.start(tmp_path / 'whole', 25)
    folder = tmp_path / 'killed'
    for beyond, longest in (('save begins 4', 0.01), ('save ends 9', 0.05), ('epoch 13', 0.05)):
        told = kills.start(folder, 25, draw.uniform(0, longest), beyond)
        assert kills.differences(told, whole) == [] and ['epoch', '25'] not in [words[:2] for words in told]
    told = kills.start(folder, 25)
    assert int(told[0][1]) >= 12 and kills.differences(told, whole) == []
    assert told[-2][:2] == ['save', 'begins'] and told[-3] == whole[-3] and told[-3][:2] == ['epoch', '25']
    assert [row['epoch'] for row in files.read_lines(folder / 'metrics.jsonl')] == list(range(1, 26))
    assert kills.differences([['epoch', '25', '0']], whole) == ['25']
