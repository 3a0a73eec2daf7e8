"""What a disk may do to a file, drawn; and what a reader may make of it: the same bits, or one sentence."""

from collections.abc import Callable, Iterator

import numpy as np


def drawn(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Draw damaged forms of a file: a bit flipped (half of them), the end cut off, bytes behind it."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        place, broken = int(rng.integers(len(content))), bytearray(content)
        if number % 4 < 2:
            broken[place] ^= 1 << int(rng.integers(8))
        elif number % 4 == 2:
            del broken[place:]
        else:
            broken += rng.bytes(1 + place % 40)
        yield bytes(broken)


def is_refused(read: Callable[[], dict[str, np.ndarray]], wanted: dict[str, np.ndarray]) -> bool:
    """Say whether reading is refused, in one sentence; else the very bits have to be there."""
    try:
        arrays = read()
    except ValueError as error:
        said = str(error)
        assert said.endswith('.') and '\n' not in said and len(said) < 400, said
        return True
    assert_bits(arrays, wanted)
    return False


def assert_bits(arrays: dict, wanted: dict) -> None:
    """Compare arrays bit by bit, NaN and all."""
    assert arrays.keys() == wanted.keys()
    for name in wanted:
        a, b = np.asarray(arrays[name]), np.asarray(wanted[name])
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), name


def bits(rng: np.random.Generator, dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Draw an array of any dtype of jax: any bits where all of them mean something."""
    dtype = np.dtype(dtype)
    if dtype.kind in 'fciu' or dtype.name.startswith(('bfloat16', 'float8')):
        return np.frombuffer(rng.bytes(dtype.itemsize * int(np.prod(shape))), dtype).reshape(shape)
    return rng.integers(0, 2, shape).astype(dtype)


INTEGERS = [f'{sign}{bits}' for sign in ('int', 'uint') for bits in (2, 4, 8, 16, 32)]
EIGHTS = ['e3m4', 'e4m3', 'e4m3b11fnuz', 'e4m3fn', 'e4m3fnuz', 'e5m2', 'e5m2fnuz', 'e8m0fnu']
FLOATS = ['float4_e2m1fn', *(f'float8_{kind}' for kind in EIGHTS), 'float16', 'bfloat16', 'float32']
DTYPES = ['bool', 'complex64', *INTEGERS, *FLOATS]
WIDE = ['int64', 'uint64', 'float64', 'complex128']  # with x64
