"""Out of the library, for everyone else: trained features as one compiled function, weights as plain arrays."""

import hashlib
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from hebbjax.base import AnyPath, Array
from hebbjax.interop.flax_layers import check_finite, from_kernel, to_kernel
from hebbjax.layers.chain import Shape
from hebbjax.layers.layer import LayerState
from hebbjax.layers.network import Network, check_network, check_states, features
from hebbjax.rules.products import assumed_backend
from hebbjax.support import files
from hebbjax.support.checks import check_choice, check_image_shape, check_images, require

DIGEST = 32  # bytes of SHA-256 behind the program; jax's own reader does not look there


def export_features(net: Network, states: Sequence[LayerState], image_shape: Shape, upto: int | None = None,
                    dtype: str = 'float32') -> bytes:  # fmt: skip
    """Compile `layers.features` of a trained network for any batch size, on CPUs, CUDA GPUs and TPUs: a file's bytes.

    `load_exported` reads them, and so does `jax.export.deserialize`, without hebbjax. How many images there will be is
    not known, so no microbatches are made: all patches lie in memory at once.

    Args:
        upto: how many layers to pass through; None: all.
        dtype: of the images: 'uint8', or 'float32' in [0, 1].
    """
    files.import_extra('flatbuffers', 'export')
    require(dtype in ('uint8', 'float32'), f"images of {dtype} cannot be exported for; use 'uint8' or 'float32'.")
    check_finite(_name_arrays(net, states)[0])

    def program(images):
        return jax.vmap(lambda image: features(net, states, image[None], upto)[0])(images)

    shape = *jax_export.symbolic_shape('batch'), *check_image_shape(image_shape)
    images = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    with assumed_backend('cpu'):  # whose forms run everywhere
        exported = jax_export.export(jax.jit(program), platforms=('cpu', 'cuda', 'tpu'))(images)
    content = bytes(exported.serialize())
    return content + hashlib.sha256(content).digest()


def load_exported(source: bytes | AnyPath) -> Callable[[Array], Array]:
    """Read what `export_features` wrote, bytes or a file of them: a function of images [B, H, W, C] -> [B, F]."""
    files.import_extra('flatbuffers', 'export')
    content = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
    is_whole = hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:]
    require(is_whole, f'{"this" if content is source else source} is damaged or no exported network; export it again.')
    program = jax_export.deserialize(bytearray(content[:-DIGEST]))
    (wanted,), call = program.in_avals, jax.jit(program.call)

    def exported_features(images):
        images = jnp.asarray(images)
        fits, came = (images.shape[1:], images.dtype) == (wanted.shape[1:], wanted.dtype), jax.typeof(images)
        require(fits, f'images {came.str_short()} do not fit a network exported for {wanted.str_short()}.')
        return call(check_images(images))

    return exported_features


def check_weights_path(path: AnyPath) -> pathlib.Path:
    """Return the path of a file of weights, or refuse an ending that says nothing, or one that needs an extra."""
    path = pathlib.Path(path)
    check_choice(f'ending of {path.name}', path.suffix, ('.npz', '.safetensors'))
    if path.suffix != '.npz':
        files.import_extra('safetensors', 'safetensors')
    return path


def save_weights(path: AnyPath, net: Network, states: Sequence[LayerState]) -> None:
    """Write weights to .npz or .safetensors, in flax's layout; an old file is replaced when the new one is whole.

    'layer_0.kernel' is [kh, kw, C, N], or [D, N] for a dense layer; 'layer_0.threshold' [N] is there where the layer
    has thresholds, or a bias, which it is the negative of, and 'layer_0.lateral' [N, N] where it has lateral
    connections; 'layer_0.post.2.params.scale' and so on are what the parts of its chains have. Kernels are the weights
    themselves, for patches prepared as the layer prepares them; one for raw images comes from `to_linen`. A SHA-256 of
    the tensors is in the metadata of safetensors, which have no checksum; in .npz, dtypes that numpy does not know are
    the bits they are, and the entry 'dtypes' names them.
    """
    path, (arrays, _) = check_weights_path(path), _name_arrays(net, states)
    check_finite(arrays)
    arrays = {name: np.asarray(a, order='C') for name, a in arrays.items()}  # safetensors writes others scrambled
    if path.suffix == '.npz':
        return files.write_whole(path, lambda file: files.write_npz(file, arrays))
    content = files.import_extra('safetensors.numpy', 'safetensors').save(arrays, {'sha256': _digest(arrays)})
    return files.write_whole(path, lambda file: file.write_bytes(content))


def load_weights(path: AnyPath, net: Network, states: Sequence[LayerState]) -> tuple[LayerState, ...]:
    """Read weights, whoever wrote them under the names of `save_weights`, into states; all else in them stays."""
    path, (wanted, structure) = check_weights_path(path), _name_arrays(net, states)
    content = path.read_bytes()
    with files.reading(path, 'save it again'):
        if path.suffix == '.npz':
            arrays = files.read_npz(content)
        else:
            with files.import_extra('safetensors', 'safetensors').safe_open(path, 'np') as file:
                arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
            require(metadata.get('sha256', _digest(arrays)) == _digest(arrays), 'another checksum')
    kind = lambda array: 'floats' if jnp.issubdtype(array.dtype, jnp.floating) else array.dtype  # noqa: E731
    for name in wanted | arrays:  # floats of any width are alike
        came, fits = (f'{kind(a[name])} {[*a[name].shape]}' if name in a else 'missing' for a in (arrays, wanted))
        require(came == fits, f'{path} holds weights of another network: {name} is {came}, and here it is {fits}.')
    arrays = {name: jnp.asarray(arrays[name], array.dtype) for name, array in wanted.items()}
    check_finite(arrays)
    saved = jax.tree.unflatten(structure, arrays.values())
    return tuple(state._replace(w=from_kernel(parts.pop('kernel')), **parts) for state, parts in zip(states, saved))


def _name_arrays(net, states):
    """Name what is saved of states, as in 'layer_0.post.2.params.scale', in the order of leaves; and give its tree."""
    check_states(check_network(net), states)
    kernels = [to_kernel(state.w, layer.window.size) for layer, state in zip(net, states)]
    kinds = 'threshold', 'pre', 'post', 'lateral'
    saved = [{'kernel': w} | {kind: getattr(s, kind) for kind in kinds} for w, s in zip(kernels, states)]
    leaves, structure = jax.tree_util.tree_flatten_with_path(saved)
    return {f'layer_{jax.tree_util.keystr(path, simple=True, separator=".")}': a for path, a in leaves}, structure


def _digest(arrays):
    tensors = (f'{name} {a.dtype} {a.shape} '.encode() + a.tobytes() for name, a in sorted(arrays.items()))
    return hashlib.sha256(b''.join(tensors)).hexdigest()
