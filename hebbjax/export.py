"""Out of the library, for everyone else: trained features as one compiled function, weights as plain arrays.

`export` needs the extra `hebbjax[export]`, weights in `.safetensors` the extra `hebbjax[safetensors]`.
"""

import hashlib
import importlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from hebbjax import checkpoint, checks, files, train
from hebbjax.interop import check_finite, check_kernel, from_kernel, to_kernel
from hebbjax.layers import LayerState
from hebbjax.norms import NormState
from hebbjax.train import Network
from hebbjax.types import Array

PLATFORMS = ('cpu', 'cuda', 'tpu')
DIGEST = 32  # bytes of SHA-256 behind the program; jax's own reader does not look there
SUM = 'sha256'  # its name in the metadata of a .safetensors file
SHORT = {  # safetensors' names of what is no F32, I8 ...
    'BOOL': 'bool',
    'BF16': 'bfloat16',
    'F8_E4M3': 'float8_e4m3fn',
    'F8_E4M3FNUZ': 'float8_e4m3fnuz',
    'F8_E5M2': 'float8_e5m2',
    'F8_E5M2FNUZ': 'float8_e5m2fnuz',
    'F8_E8M0': 'float8_e8m0fnu',
}


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
        ValueError: for another dtype; if states, shape or `upto` do not fit the network, or weights are not finite.
    """
    _need('flatbuffers', 'export')
    train.check_states(train.check_network(net), states)
    image_shape = checks.check_image_shape(image_shape)
    if upto is not None and not (checks.is_count(upto) and upto <= len(net)):
        raise ValueError(
            f'upto={checks.shown(upto)} is no number of layers to pass through; use 1 to {len(net)}, or None for all.'
        )
    if dtype not in ('uint8', 'float32'):
        raise ValueError(f"images of {dtype} cannot be exported for; use 'uint8' or 'float32'.")

    def features(images):
        return jax.vmap(lambda image: train.features(net, states, image[None], upto)[0])(images)

    for number, state in enumerate(states, 1):
        check_finite(f'the state of layer {number}', state.w)
    try:
        jax.eval_shape(features, jax.ShapeDtypeStruct((1, *image_shape), jnp.dtype(dtype)))
    except TypeError as error:  # of a product whose sides do not fit
        raise ValueError(f'images {image_shape} do not pass through this network ({error}); give its own.') from None
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
        ValueError: if it is damaged or something else; in the function, if images have another shape or dtype, or are
            not finite.
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
        return call(checks.check_images(found))

    return features


def save_weights(path: str | os.PathLike, net: Network, states: Sequence[LayerState]) -> None:
    """Write weights under flat names, in flax's layout; an old file is replaced only when the new one is whole.

    'layer_0.kernel' is [kh, kw, C, N], or [D, N] for a dense layer; 'layer_0.threshold' [N] is there where the layer
    has thresholds, or a bias, which it is the negative of; 'layer_0.scale', '.shift', '.mean' and '.var' [N] where it
    has a norm. Kernels are the weights themselves, for patches prepared as the layer prepares them; one for raw
    images comes from `interop.to_linen`.

    In an .npz file, dtypes that numpy does not know, such as bfloat16, are the bits they are, and its entry 'dtypes'
    names them. A .safetensors file has a SHA-256 of its tensors in its metadata, by which `load_weights` finds damage.

    Args:
        path: ends in .npz or .safetensors.
        net: the layers, bottom first.
        states: their states.

    Raises:
        ImportError: for .safetensors, without safetensors.
        ValueError: for another ending, or a dtype that .safetensors files do not have; if the states do not fit the
            network, or weights are not finite.
        OSError: if the file cannot be written.
    """
    ending, arrays = _ending(path), {}
    train.check_states(train.check_network(net), states)
    for number, (layer, state) in enumerate(zip(net, states)):
        arrays[f'layer_{number}.kernel'] = to_kernel(state.w, layer.window.size)
        if state.threshold is not None:
            arrays[f'layer_{number}.threshold'] = state.threshold
        if state.norm is not None:
            arrays |= {f'layer_{number}.{name}': a for name, a in state.norm._asdict().items()}
    for name, array in arrays.items():
        (check_kernel if name.endswith('.kernel') else check_finite)(name, array)
    arrays = {name: np.ascontiguousarray(a) for name, a in arrays.items()}  # safetensors writes others scrambled
    write = checkpoint.write_npz if ending == '.npz' else _write_safetensors
    files.write_whole(pathlib.Path(path), lambda file: write(file, arrays))


def load_weights(path: str | os.PathLike) -> tuple[list[Array], list[Array | None], list[NormState | None]]:
    """Read weights of hebbjax, whoever wrote them under its names.

    Returns:
        Per layer, bottom first, weights [N, D] for `train.init(weights=...)`; thresholds [N], or None; and norms, or
        None. The latter two go into the states: `state._replace(threshold=threshold, norm=norm)`.

    Raises:
        ImportError: for .safetensors, without safetensors.
        FileNotFoundError: if there is no such file.
        ValueError: for another ending; if the file is damaged or holds something else, NaN among it.
    """
    ending, data = _ending(path), _read(path)
    if ending == '.safetensors':
        _need('safetensors', 'safetensors')
    try:
        arrays = checkpoint.read_npz(data) if ending == '.npz' else _read_safetensors(data)
    except Exception as error:  # each format, and each way of being damaged, has its own kind
        raise ValueError(f'{path} is damaged or no {ending} file ({type(error).__name__}); save it again.') from None
    count = sum(name.endswith('.kernel') for name in arrays)
    kernels = [arrays.pop(f'layer_{number}.kernel', None) for number in range(count)]
    thresholds = [arrays.pop(f'layer_{number}.threshold', None) for number in range(count)]
    norms = [[arrays.pop(f'layer_{number}.{name}', None) for name in NormState._fields] for number in range(count)]
    for kernel, threshold, norm in zip(kernels, thresholds, norms):
        beside = [a for a in (threshold, *norm) if a is not None]
        fits = kernel is not None and kernel.ndim in (2, 4)
        fits = fits and all(jnp.issubdtype(a.dtype, jnp.floating) for a in (kernel, *beside))
        if not fits or any(a.shape != kernel.shape[-1:] for a in beside) or len({a is None for a in norm}) > 1:
            count = 0
    if not count or arrays:
        raise ValueError(
            f"{path} holds no weights of hebbjax; they are called 'layer_0.kernel' ([kh, kw, C, N] or [D, N]) and so "
            "on from 0, 'layer_0.threshold', and 'layer_0.scale', '.shift', '.mean' and '.var' together ([N])."
        )
    kernels, thresholds, norms = jax.tree.map(jnp.asarray, (kernels, thresholds, norms))
    for number, (kernel, *beside) in enumerate(zip(kernels, thresholds, norms)):
        check_kernel(f'layer_{number}.kernel in {path}', kernel)
        for array in jax.tree.leaves(beside):
            check_finite(f'what stands beside layer_{number}.kernel in {path}', array)
    weights = [from_kernel(kernel) for kernel in kernels]
    return weights, thresholds, [None if norm[0] is None else NormState(*norm) for norm in norms]


def _write_safetensors(path, arrays):
    save = _need('safetensors.numpy', 'safetensors').save
    try:
        content = save(arrays, {SUM: _checksum(save(arrays))[1]})
    except Exception as error:  # its own kind
        raise ValueError(f'{path} cannot hold these weights ({error}); save them to an .npz file.') from None
    path.write_bytes(content)


def _read_safetensors(content):
    """Read tensors of any kind; the format has no checksum, so files of this library have one in their metadata."""
    wanted, found = _checksum(content)
    if wanted not in (None, found):
        raise ValueError('another checksum')
    arrays = {}
    for name, tensor in _need('safetensors', 'safetensors').deserialize(content):
        kind = tensor['dtype']
        dtype = jnp.dtype(SHORT.get(kind) or f'{kind[0].lower()}{int(kind[1:]) // 8}')  # F32: f4
        arrays[name] = np.frombuffer(tensor['data'], dtype).reshape(tensor['shape'])
    return arrays


def _checksum(content):
    """Give the checksum that a .safetensors file names, or None, and the one that names and tensors have."""
    size = 8 + int.from_bytes(content[:8], 'little')
    header = json.loads(content[8:size])
    named = header.pop('__metadata__', {}).get(SUM)
    return named, hashlib.sha256(json.dumps(header, sort_keys=True).encode() + content[size:]).hexdigest()


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
