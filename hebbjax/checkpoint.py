"""States on disk: the simple form, one file, whole or not at all. Checkpoints along a training: `hebbjax.resume`.

A state is any pytree of arrays and typed keys. It can only be read into a state of the same shape: structure, shapes
and dtypes are compared leaf by leaf before anything is taken over.
"""

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


def is_key(leaf) -> bool:
    """Say whether a leaf is an array of typed keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def plain(leaf) -> np.ndarray:
    """Give a leaf as numbers; a key as its data."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def leaves_of(state) -> dict:
    """Name every leaf of a state: `.layers[0].w` -> leaf."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def save(path: str | os.PathLike, state) -> None:
    """Write a state to one npz file, keys included; an old file is replaced only when the new one is whole.

    Args:
        path: of the file.
        state: any pytree of arrays and typed keys.

    Raises:
        OSError: if the file cannot be written.
    """
    leaves = leaves_of(state)
    names = np.array(json.dumps({'format': FORMAT, 'leaves': list(leaves)}))
    arrays = {f'{number}': plain(leaf) for number, leaf in enumerate(leaves.values())}

    def fill(name):
        with name.open('wb') as file:
            np.savez(file, **arrays, names=names)
            file.flush()
            os.fsync(file.fileno())

    files.write_whole(pathlib.Path(path), fill)


def load(path: str | os.PathLike, like):
    """Read a state back, into the structure of another one.

    Args:
        path: of a file that `save` wrote.
        like: a state of the same structure, such as a fresh `train.init(...)`; its values are not used.

    Returns:
        The state, every leaf with the shape and dtype of `like`'s.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or something else, or holds another network: the first leaf that differs.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is no file; save a state there first, or name another.')
    try:
        with path.open('rb') as opened, np.load(opened, allow_pickle=False) as file:
            header = json.loads(str(file['names']))
            arrays = [file[str(i)] for i in range(len(header['leaves']))]
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} is damaged or no saved state ({type(error).__name__}); save it again.') from None
    saved = dict(zip(header['leaves'], arrays))
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
    wanted = {name: kind(plain(leaf)) for name, leaf in leaves_of(like).items()}
    for name in [*wanted, *saved]:
        if (name in saved) != (name in wanted):
            where = 'the file lacks it' if name in wanted else 'the network lacks it'
            raise ValueError(f'{path} holds another network: leaf {name}: {where}.')
        if saved[name] != wanted[name]:
            raise ValueError(f'{path} holds another network: leaf {name} is {saved[name]}, wanted {wanted[name]}.')


def rebuild(saved: Mapping[str, np.ndarray], like):
    """Put leaves into the structure of a state, keys as keys."""
    restored = []
    for name, leaf in leaves_of(like).items():
        value = jnp.asarray(saved[name])
        restored.append(jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf)) if is_key(leaf) else value)
    return jax.tree.unflatten(jax.tree.structure(like), restored)
