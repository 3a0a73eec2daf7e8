"""States on disk: the simple form, one file, whole or not at all.

A state is any pytree of arrays and typed keys. A file can only be read into a state of the same shape: structure,
shapes and dtypes are compared leaf by leaf before anything is taken over.
"""

import json
import os
import pathlib
import tempfile
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

FORMAT = 'hebbjax state 1'


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _leaves(state) -> dict:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def save(path: str | os.PathLike, state) -> None:
    """Write a state to one npz file, keys included; an old file is replaced only when the new one is whole.

    Args:
        path: of the file.
        state: any pytree of arrays and typed keys.

    Raises:
        OSError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    leaves = _leaves(state)
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f'.{path.stem}-', suffix='.npz')
    try:
        with os.fdopen(handle, 'wb') as file:
            np.savez(file, **{f'{i}': _plain(leaf) for i, leaf in enumerate(leaves.values())},
                     names=np.array(json.dumps({'format': FORMAT, 'leaves': list(leaves)})))  # fmt: skip
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


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
    saved, wanted = dict(zip(header['leaves'], arrays)), _leaves(like)
    for name in [*wanted, *saved]:
        if (name in saved) != (name in wanted):
            where = 'the file lacks it' if name in wanted else 'the network lacks it'
            raise ValueError(f'{path} holds another network: leaf {name}: {where}.')
    restored = []
    for name, leaf in wanted.items():
        expected, array = _plain(leaf), saved[name]
        if (array.shape, array.dtype) != (expected.shape, expected.dtype):
            raise ValueError(
                f'{path} holds another network: leaf {name} is {array.dtype}{list(array.shape)}, '
                f'wanted {expected.dtype}{list(expected.shape)}.'
            )
        value = jnp.asarray(array)
        restored.append(jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else value)
    return jax.tree.unflatten(jax.tree.structure(like), restored)
