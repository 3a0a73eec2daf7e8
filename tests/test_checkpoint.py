"""States come back bit by bit, or not at all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hebbjax
from hebbjax import checkpoint, plasticity, rules


def state_of(features=5, seed=0):
    tx = optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(plasticity.anneal(0.1, 5, 2)))
    net = (hebbjax.Layer(features, rules.krotov(2), tx, hebbjax.Window(3)),)
    return net, hebbjax.init(net, jax.random.key(seed), (6, 6, 1))


def test_a_state_comes_back_bit_by_bit_and_goes_on_as_if_nothing_happened(tmp_path):
    net, state = state_of()
    step = hebbjax.make_train_step(net)
    images = jax.random.uniform(jax.random.key(9), (4, 6, 6, 1))
    state, _ = step(state, images)
    checkpoint.save(tmp_path / 'state.npz', state)
    back = checkpoint.load(tmp_path / 'state.npz', state_of(seed=7)[1])
    assert jax.random.key_data(back.key).tolist() == jax.random.key_data(state.key).tolist()
    one, other = step(state, images)[0], step(back, images)[0]
    np.testing.assert_array_equal(one.layers[0].w, other.layers[0].w)
    assert int(other.step) == 2
    assert [path.name for path in tmp_path.iterdir()] == ['state.npz']


def test_another_network_is_refused_naming_the_leaf(tmp_path):
    checkpoint.save(tmp_path / 'state.npz', state_of(5)[1])
    with pytest.raises(
        ValueError, match=r'another network: leaf \.layers\[0\]\.w is float32\[5, 9\], wanted float32\[6, 9\]'
    ):
        checkpoint.load(tmp_path / 'state.npz', state_of(6)[1])
    with pytest.raises(ValueError, match='the file lacks it'):
        checkpoint.load(tmp_path / 'state.npz', {'more': jnp.zeros(3)})


def test_damaged_and_missing_files_are_one_sentence(tmp_path):
    _, state = state_of()
    path = tmp_path / 'state.npz'
    checkpoint.save(path, state)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b'', b'not a state'):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match='damaged or no saved state'):
            checkpoint.load(path, state)
    with pytest.raises(FileNotFoundError, match='is no file'):
        checkpoint.load(tmp_path / 'other.npz', state)


def test_a_failed_save_leaves_the_old_file_whole(tmp_path, monkeypatch):
    _, state = state_of()
    path = tmp_path / 'state.npz'
    checkpoint.save(path, state)
    before = path.read_bytes()

    def fail(*args, **more):
        raise OSError('disk full')

    monkeypatch.setattr(checkpoint.np, 'savez', fail)
    with pytest.raises(OSError, match='disk full'):
        checkpoint.save(path, state)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
