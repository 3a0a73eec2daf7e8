"""States on disk: the simple form, one file, whole or not at all. Checkpoints along a training: `hebbjax.resume`.

A state is any pytree of arrays and typed keys. It can only be read into a state of the same shape: structure, shapes
and dtypes are compared leaf by leaf before anything is taken over.
"""

import io
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from hebbjax import files

FORMAT = 'hebbjax state 1'
DTYPES = 'dtypes'  # the entry of an npz file that names those which numpy's own format does not know, such as bfloat16
NARROW = {'float64': 'float32', 'int64': 'int32', 'uint64': 'uint32', 'complex128': 'complex64'}  # without x64


def is_key(leaf) -> bool:
    """Say whether a leaf is an array of typed keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def plain(leaf) -> np.ndarray:
    """Give a leaf as numbers; a key as its data."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def leaves_of(state) -> dict:
    """Name every leaf of a state: `.layers[0].w` -> leaf."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def numbers(state) -> dict[str, np.ndarray]:
    """Give every leaf of a state as numbers, by its name.

    Raises:
        ValueError: if a leaf has none, naming it.
    """
    found = {name: plain(leaf) for name, leaf in leaves_of(state).items()}
    for name, array in found.items():
        if array.dtype.kind in 'OSUMm':
            raise ValueError(f'a state is made of arrays and keys, and leaf {name} is {array.dtype}; leave it out.')
    return found


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of any dtype of jax; those that numpy's format does not know, as the bits they are."""
    foreign = {name: array.dtype.name for name, array in arrays.items() if array.dtype.isbuiltin == 2}
    known = {name: a.view(f'u{a.itemsize}') if name in foreign else a for name, a in arrays.items()}
    with path.open('wb') as file:
        np.savez(file, **known, **({DTYPES: np.array(json.dumps(foreign))} if foreign else {}))
        file.flush()
        os.fsync(file.fileno())


def read_npz(content: bytes) -> dict[str, np.ndarray]:
    """Read what `write_npz`, or numpy, wrote; damage raises whatever the format's reader makes of it."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:  # entries as a whole, which alone are held against their sums
        entries = {name.removesuffix('.npy'): io.BytesIO(file.read(name)) for name in file.namelist()}
    arrays = {name: np.lib.format.read_array(entry, allow_pickle=False) for name, entry in entries.items()}
    foreign = json.loads(str(arrays.pop(DTYPES, '{}')))
    return {name: a.view(jnp.dtype(foreign[name])) if name in foreign else a for name, a in arrays.items()}


def save(path: str | os.PathLike, state) -> None:
    """Write a state to one npz file, keys included; an old file is replaced only when the new one is whole.

    Args:
        path: of the file.
        state: any pytree of arrays and typed keys.

    Raises:
        ValueError: if a leaf is no array.
        OSError: if the file cannot be written.
    """
    leaves = numbers(state)
    names = np.array(json.dumps({'format': FORMAT, 'leaves': list(leaves)}))
    arrays = {f'{number}': leaf for number, leaf in enumerate(leaves.values())} | {'names': names}
    files.write_whole(pathlib.Path(path), lambda file: write_npz(file, arrays))


def load(path: str | os.PathLike, like):
    """Read a state back, into the structure of another one.

    Args:
        path: of a file that `save` wrote.
        like: a state of the same structure, such as a fresh `train.init(...)`; its values are not used.

    Returns:
        The state, every leaf with the shape and dtype of `like`'s.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or something else, holds another network, or was saved in another mode of
            jax: the first leaf that differs.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is no file; save a state there first, or name another.')
    content = path.read_bytes()
    try:
        arrays = read_npz(content)
        header = json.loads(str(arrays['names']))
        saved = {name: arrays[str(number)] for number, name in enumerate(header['leaves'])}
    except Exception as error:  # the readers of zip files and of arrays raise anything
        raise ValueError(f'{path} is damaged or no saved state ({type(error).__name__}); save it again.') from None
    compare(path, {name: kind(array) for name, array in saved.items()}, like)
    return rebuild(saved, like)


def kind(leaf: np.ndarray) -> str:
    """Say what a leaf is: `float32[400, 25]`."""
    return f'{leaf.dtype}{list(leaf.shape)}'


def compare(path, saved: Mapping[str, str], like) -> None:
    """Refuse a file whose leaves (name -> kind) are not those of a state.

    Raises:
        ValueError: naming the first leaf that differs.
    """
    wanted = {name: kind(leaf) for name, leaf in numbers(like).items()}
    for name in [*wanted, *saved]:
        if (name in saved) != (name in wanted):
            where = 'the file lacks it' if name in wanted else 'the network lacks it'
            raise ValueError(f'{path} holds another network: leaf {name}: {where}.')
        if saved[name] == wanted[name]:
            continue
        if _narrow(saved[name]) == _narrow(wanted[name]):
            how = 'without' if _narrow(saved[name]) == saved[name] else 'with'
            raise ValueError(
                f'{path} was saved {how} JAX_ENABLE_X64=1: leaf {name} is {saved[name]}, wanted {wanted[name]}; '
                f'open it {how} JAX_ENABLE_X64=1 as well.'
            )
        raise ValueError(f'{path} holds another network: leaf {name} is {saved[name]}, wanted {wanted[name]}.')


def _narrow(kind):
    dtype, bracket, shape = kind.partition('[')
    return NARROW.get(dtype, dtype) + bracket + shape


def rebuild(saved: Mapping[str, np.ndarray], like):
    """Put leaves into the structure of a state, keys as keys; what is no array of jax there is numpy's here."""
    restored = []
    for name, leaf in leaves_of(like).items():
        value = jnp.asarray(saved[name]) if isinstance(leaf, jax.Array) else saved[name]
        restored.append(jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf)) if is_key(leaf) else value)
    return jax.tree.unflatten(jax.tree.structure(like), restored)
