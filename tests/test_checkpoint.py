"""States come back bit by bit, or not at all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from damage import DTYPES, WIDE, assert_bits, bits, drawn, is_refused
from hypothesis import given
from hypothesis import strategies as st

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
        checkpoint.save(path, state)
        assert_bits(checkpoint.load(path, jax.tree.map(jnp.zeros_like, state)), state)


def test_what_jax_does_not_hold_comes_back_as_numpys(path):
    """Without x64 an array of jax would round it."""
    state = {'wide': np.random.default_rng(0).normal(size=3), 'own': jnp.ones(2)}
    checkpoint.save(path, state)
    assert_bits(checkpoint.load(path, state), state)


@pytest.mark.parametrize(
    'leaf', ['text', b'bytes', print, np.array('2026', 'M8[Y]'), object()], ids=lambda leaf: type(leaf).__name__
)
def test_leaves_that_are_no_numbers_are_refused_when_they_are_saved(leaf, tmp_path):
    with pytest.raises(ValueError, match=r"made of arrays and keys, and leaf \['what'\] is .*; leave it out\."):
        checkpoint.save(tmp_path / 'state.npz', {'what': leaf})
    assert not list(tmp_path.iterdir())


def test_every_damage_is_refused_or_harmless(path):
    rng = np.random.default_rng(0)
    state = {'w': jnp.asarray(bits(rng, 'float32', (30, 50))), 'half': jnp.asarray(bits(rng, 'bfloat16', (7,)))}
    checkpoint.save(path, state)
    whole, hurt = path.read_bytes(), 0
    seams = whole[-600:]  # where the zip format keeps its own books
    for broken in (*drawn(whole, 200), *(whole[:-600] + end for end in drawn(seams, 400, seed=1))):
        path.write_bytes(broken)
        hurt += is_refused(lambda: checkpoint.load(path, state), state)
    assert hurt > 300


@pytest.mark.parametrize('dtype', WIDE)
def test_a_state_of_another_width_names_the_mode_that_it_was_saved_in(dtype, path):
    narrow = {'w': jnp.zeros((2, 3), checkpoint.NARROW[dtype])}
    with jax.enable_x64(True):
        wide = {'w': jnp.zeros((2, 3), dtype)}
        checkpoint.save(path, wide)
    with pytest.raises(ValueError, match=rf'was saved with JAX_ENABLE_X64=1: leaf .* is {dtype}.*; open it with JAX'):
        checkpoint.load(path, narrow)
    checkpoint.save(path, narrow)
    with pytest.raises(ValueError, match=rf'saved without JAX_ENABLE_X64=1: leaf .*wanted {dtype}.*; open it without'):
        checkpoint.load(path, wide)
    with pytest.raises(ValueError, match='another network'):
        checkpoint.load(path, {'w': jnp.zeros((2, 3), jnp.bfloat16)})


def test_a_file_of_the_first_version_is_read(path):
    """As `save` wrote it before it knew dtypes that numpy does not."""
    names = np.array('{"format": "hebbjax state 1", "leaves": ["[\'w\']"]}')
    np.savez(path, names=names, **{'0': np.arange(3, dtype=np.float32)})
    assert_bits(checkpoint.load(path, {'w': jnp.zeros(3)}), {'w': np.arange(3, dtype=np.float32)})
