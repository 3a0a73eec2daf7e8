"""A data set in equal parts, each read when its turn comes: two of them lie in memory, whatever there is in all."""

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from hebbjax.support.checks import check_count, require


class Split(NamedTuple):
    """One split of a data set, in its order on disk, or a part of one."""

    images: np.ndarray  # [n, H, W, C] uint8; of one's own also uint16, bool, or float32
    labels: Any  # [n] int32, classes 0 .. K - 1; None where there are none


@dataclasses.dataclass(frozen=True, eq=False)
class Shards:
    """A data set in `count` parts of as many images each, at least one, such as `data.open_shards` makes.

    `len()` counts parts, `[i]` reads one, a loop reads ahead. The first, read at once, says what all of them are like.

    Example:
        >>> shards = Shards(lambda part: (np.full((10, 8, 8, 1), part, np.uint8), None), 6)
        >>> len(shards), shards.shape, shards[5].images.max()
        (6, (60, 8, 8, 1), np.uint8(5))
    """

    read: Callable[[int], Any]  # number -> (images [b, H, W, C], labels [b] or None), and what `data.Reading` adds
    count: int  # of parts
    class_count: int | None = None  # where it is known without reading everything
    first: Any = dataclasses.field(default=None, init=False, repr=False)  # of parts: shape, dtype, labelled, classes

    def __post_init__(self) -> None:
        check_count('count', self.count)
        object.__setattr__(self, 'first', self._read(0)[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [n, H, W, C] of all images."""
        return (self.count * self.first[0][0], *self.first[0][1:])

    @property
    def dtype(self) -> np.dtype:
        return self.first[1]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes 0 .. K - 1; () where they are unknown."""
        return self.first[3]

    def count_classes(self) -> int:
        """Say how many classes there are; where nothing else tells, all parts are read for it."""
        return len(self.classes) or self.class_count or 1 + max(int(np.max(part.labels)) for part in self)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Split:
        return self._read(range(self.count)[number])[0]

    def __iter__(self) -> Iterator[Split]:
        return read_ahead(self.__getitem__, range(self.count))

    def _read(self, number: int) -> tuple[Split, tuple]:
        """Read a part, which is like the first one. -> the part, what it is like."""
        try:
            images, labels, *more = self.read(number)
            require(hasattr(images, 'dtype'), f'its images are no array, but {type(images).__name__}')
            require(labels is None or len(labels) == len(images), f'it has {len(images)} images, and labels of others')
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # of whatever reads it
            reason = ' '.join(str(error).split())[:300].rstrip('.') or type(error).__name__
            raise ValueError(f'shards[{number}] cannot be read: {reason}.') from error
        like = images.shape, images.dtype, labels is not None, tuple(more[0]) if more else ()
        if self.first not in (None, like):
            came, wanted = map(_describe, (like, self.first))
            raise ValueError(f'shards[{number}] holds {came}, and shards[0] {wanted}; make all parts alike.')
        return Split(images, labels), like


def _describe(like: tuple) -> str:
    shape, dtype, labelled, classes = like
    labels = f'{"with" if labelled else "no"} labels' + (f' of {", ".join(classes)}'[:60] if classes else '')
    return f'{shape[0]} images of {" x ".join(map(str, shape[1:]))}, {dtype}, {labels}'


def parts_of(data: Any) -> Any:
    """Give Shards as they are, and a pair of images and labels as the one part of a list."""
    return data if isinstance(data, Shards) else [data]


def draw_order(key: np.ndarray, number: int, count: int) -> list[int]:
    """Draw the order of parts by the words of a key, of many keys the first one's, and a number such as a step's."""
    words = np.asarray(key, np.uint32).reshape(-1, np.shape(key)[-1])[0]
    return np.random.default_rng([*words.tolist(), int(number)]).permutation(count).tolist()


def read_ahead(read: Callable[[int], Any], numbers: Iterable[int]) -> Generator[Any]:
    """Give what is read of one number after the other, each read on a thread while the one before it is used.

    No more than two lie in memory, if who uses one lets go of it for the next.
    """
    numbers, x64, device = iter(numbers), jax.config.jax_enable_x64, jax.config.jax_default_device

    def read_as_here(number: int) -> Any:  # a thread does not inherit what contexts set
        with jax.enable_x64(x64), jax.default_device(device):
            return read(number)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        begin = lambda: [pool.submit(read_as_here, number) for number in itertools.islice(numbers, 1)]  # noqa: E731
        coming = begin()
        while coming:
            part, coming = coming.pop().result(), begin()
            yield part
            del part
