"""Out of the library, for everyone else: trained features as one compiled function, weights as plain arrays.

`export` needs the extra `hebbjax[export]`, weights in `.safetensors` the extra `hebbjax[safetensors]`.
"""

import hashlib
import importlib
import io
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from hebbjax import files, train
from hebbjax.interop import from_kernel, to_kernel
from hebbjax.layers import LayerState
from hebbjax.norms import NormState
from hebbjax.train import Network
from hebbjax.types import Array

PLATFORMS = ('cpu', 'cuda', 'tpu')
DIGEST = 32  # bytes of SHA-256 behind the program; jax's own reader does not look there


def export(
    net: Network,
    states: Sequence[LayerState],
    image_shape: tuple[int, int, int],
    upto: int | None = None,
    dtype: str = 'float32',
) -> bytes:
    """Compile `train.features` of a trained network for any batch size, on CPUs, CUDA GPUs and TPUs.

    How many images there will be is not known, so they do not go through in chunks: a batch's patches and drives lie
    in memory at once.

    Args:
        net: the layers, bottom first.
        states: their states.
        image_shape: (H, W, C).
        upto: how many layers to pass through; None: all.
        dtype: of the images: 'uint8', or 'float32' in [0, 1].

    Returns:
        The bytes of a file. `load_exported` reads it, and so does `jax.export.deserialize`, without hebbjax.

    Raises:
        ImportError: without flatbuffers.
        ValueError: for another dtype.
    """
    _need('flatbuffers', 'export')
    if dtype not in ('uint8', 'float32'):
        raise ValueError(f"images of {dtype} cannot be exported for; use 'uint8' or 'float32'.")

    def features(images):
        return jax.vmap(lambda image: train.features(net, states, image[None], upto)[0])(images)

    shape = jax_export.symbolic_shape('batch')
    images = jax.ShapeDtypeStruct((*shape, *image_shape), jnp.dtype(dtype))
    program = bytes(jax_export.export(jax.jit(features), platforms=PLATFORMS)(images).serialize())
    return program + hashlib.sha256(program).digest()


def load_exported(source: bytes | str | os.PathLike) -> Callable[[Array], Array]:
    """Read what `export` wrote, as a function of images [B, H, W, C] -> features [B, F].

    Args:
        source: the bytes, or the path of a file of them.

    Raises:
        ImportError: without flatbuffers.
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or something else; in the function, if images have another shape or dtype.
    """
    _need('flatbuffers', 'export')
    data = source if isinstance(source, bytes) else _read(source)
    if hashlib.sha256(data[:-DIGEST]).digest() != data[-DIGEST:]:
        named = 'this' if isinstance(source, bytes) else source
        raise ValueError(f'{named} is damaged or no exported network; export it again.')
    program = jax_export.deserialize(bytearray(data[:-DIGEST]))
    (wanted,), call = program.in_avals, jax.jit(program.call)

    def features(images):
        found = jnp.asarray(images)
        if found.shape[1:] != wanted.shape[1:] or found.dtype != wanted.dtype:
            raise ValueError(
                f'images {found.dtype}{list(found.shape)} do not fit a network exported for {wanted.str_short()}.'
            )
        return call(found)

    return features


def save_weights(path: str | os.PathLike, net: Network, states: Sequence[LayerState]) -> None:
    """Write weights under flat names, in flax's layout; an old file is replaced only when the new one is whole.

    'layer_0.kernel' is [kh, kw, C, N], or [D, N] for a dense layer; 'layer_0.threshold' [N] is there where the layer
    has thresholds, or a bias, which it is the negative of; 'layer_0.scale', '.shift', '.mean' and '.var' [N] where it
    has a norm. Kernels are the weights themselves, for patches prepared as the layer prepares them; one for raw
    images comes from `interop.to_linen`.

    Args:
        path: ends in .npz or .safetensors.
        net: the layers, bottom first.
        states: their states.

    Raises:
        ImportError: for .safetensors, without safetensors.
        ValueError: for another ending.
        OSError: if the file cannot be written.
    """
    ending, arrays = _ending(path), {}
    for number, (layer, state) in enumerate(zip(net, states)):
        arrays[f'layer_{number}.kernel'] = to_kernel(state.w, layer.window.size)
        if state.threshold is not None:
            arrays[f'layer_{number}.threshold'] = state.threshold
        if state.norm is not None:
            arrays |= {f'layer_{number}.{name}': a for name, a in state.norm._asdict().items()}
    arrays = {name: np.ascontiguousarray(a) for name, a in arrays.items()}  # safetensors writes others scrambled

    def fill(name):
        with name.open('wb') as file:
            if ending == '.npz':
                np.savez(file, **arrays)
            else:
                file.write(_need('safetensors.numpy', 'safetensors').save(arrays))
            file.flush()
            os.fsync(file.fileno())

    files.write_whole(pathlib.Path(path), fill)


def load_weights(path: str | os.PathLike) -> tuple[list[Array], list[Array | None], list[NormState | None]]:
    """Read weights of hebbjax, whoever wrote them under its names.

    Returns:
        Per layer, bottom first, weights [N, D] for `train.init(weights=...)`; thresholds [N], or None; and norms, or
        None. The latter two go into the states: `state._replace(threshold=threshold, norm=norm)`.

    Raises:
        ImportError: for .safetensors, without safetensors.
        FileNotFoundError: if there is no such file.
        ValueError: for another ending; if the file is damaged or holds something else.
    """
    ending, data = _ending(path), _read(path)
    read = _need('safetensors.numpy', 'safetensors').load if ending == '.safetensors' else _unzip
    try:
        arrays = read(data)
    except Exception as error:  # each format, and each way of being damaged, has its own kind
        raise ValueError(f'{path} is damaged or no {ending} file ({type(error).__name__}); save it again.') from None
    count = sum(name.endswith('.kernel') for name in arrays)
    kernels = [arrays.pop(f'layer_{number}.kernel', None) for number in range(count)]
    thresholds = [arrays.pop(f'layer_{number}.threshold', None) for number in range(count)]
    norms = [[arrays.pop(f'layer_{number}.{name}', None) for name in NormState._fields] for number in range(count)]
    for kernel, threshold, norm in zip(kernels, thresholds, norms):
        fits = kernel is not None and kernel.ndim in (2, 4) and kernel.dtype.kind == 'f'
        beside = [a for a in (threshold, *norm) if a is not None]
        if not fits or any(a.shape != kernel.shape[-1:] for a in beside) or len({a is None for a in norm}) > 1:
            count = 0
    if not count or arrays:
        raise ValueError(
            f"{path} holds no weights of hebbjax; they are called 'layer_0.kernel' ([kh, kw, C, N] or [D, N]) and so "
            "on from 0, 'layer_0.threshold', and 'layer_0.scale', '.shift', '.mean' and '.var' together ([N])."
        )
    weights = [from_kernel(jnp.asarray(kernel)) for kernel in kernels]
    thresholds = [None if threshold is None else jnp.asarray(threshold) for threshold in thresholds]
    return weights, thresholds, [None if norm[0] is None else NormState(*map(jnp.asarray, norm)) for norm in norms]


def _unzip(data):
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return dict(file)


def _ending(path):
    ending = pathlib.Path(path).suffix
    if ending not in ('.npz', '.safetensors'):
        raise ValueError(f'weights go to .npz or .safetensors files, not to {pathlib.Path(path).name!r}; rename it.')
    return ending


def _need(module, extra):
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition('.')[0]
        raise ImportError(f"this needs {package}, which is not there; pip install 'hebbjax[{extra}]'.") from None


def _read(path):
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is no file; save one there first, or name another.')
    return path.read_bytes()
