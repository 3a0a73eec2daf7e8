"""Arrays in memory, and data sets that give examples one by one, as images and labels."""

import collections
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hebbjax.data import pictures
from hebbjax.data.forms import Found, find_keys, to_nhwc, to_numpy
from hebbjax.support.checks import require


def read_arrays(source: Any, notes: list[str], *, channels_first=None, **how) -> Found:
    """Read images, or (images, labels), of many forms, or examples, see `read_examples`.

    Args:
        source: images are an array of numpy, jax or torch, or a list: [n, H, W], [n, H, W, C] or, as `to_nhwc` says,
            [n, C, H, W]; labels whole numbers, names, a column [n, 1], or one-hot rows [n, K].
        channels_first: whether images are [C, H, W]; None: recognised.
    """
    images, labels = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    if hasattr(images, 'ndim'):
        _refuse_keys(**how)
        return Found(to_nhwc(to_numpy(images), channels_first, notes), labels)
    found = read_examples(images, notes, channels_first=channels_first, **how)
    require(labels is None or found.labels is None, 'images come with labels of their own; leave out the others.')
    return found if labels is None else found._replace(labels=labels)


def read_examples(
    examples: Any, notes: list[str], *, resize=None, channels_first=None, images_key=None, labels_key=None
) -> Found:
    """Read examples one by one into one array: of anything with `len` and indices, as data sets of Hugging Face are.

    An example is (image, label), a dict that holds both, or an image alone; images may be pillow's.
    """
    fits = hasattr(examples, '__len__') and hasattr(examples, '__getitem__')
    fits = fits and not isinstance(examples, str | bytes | Mapping)  # which data.load takes for paths and arrays
    require(fits, f'{type(examples).__name__} holds no images; give an array, or what has len() and [i].')
    require(len(examples) > 0, 'there are no images among 0 examples; give some.')
    conversions, labels = collections.Counter(), []
    is_named = isinstance(examples[0], Mapping)
    keys = find_keys(examples[0], images_key, labels_key) if is_named else _refuse_keys(images_key, labels_key)
    if None in keys:
        notes.append(f'there are no labels by name among {", ".join(map(str, examples[0]))}; name them by labels_key.')

    def decode_each() -> Iterator[tuple[str, np.ndarray]]:
        for index in range(len(examples)):
            example = examples[index]
            if isinstance(example, Mapping):
                image, label = (example.get(key) if key is not None else None for key in keys or (None, None))
            else:  # (image, label), or an image, which may have two rows
                is_pair = isinstance(example, tuple | list) and len(example) == 2
                is_pair = is_pair and (hasattr(example[0], 'getbands') or np.ndim(example[0]) >= 2)
                image, label = (example[0], example[1]) if is_pair else (example, None)
            labels.append(label if isinstance(label, str) or label is None else to_numpy(label))
            if hasattr(image, 'getbands'):  # pillow's
                yield f'image {index}', pictures.decode(image, conversions)
            else:
                yield f'image {index}', to_nhwc(to_numpy(image)[None], channels_first, [] if index else notes)[0]

    images = pictures.gather(decode_each(), len(examples), resize, conversions)
    notes += pictures.describe(conversions)
    missing = sum(label is None for label in labels)
    require(missing in (0, len(labels)), f'{missing} of {len(labels)} examples have no label; leave these out.')
    # names of classes, where a data set has them as torchvision's and Hugging Face's do
    features = getattr(examples, 'features', None)
    feature = features.get(keys[1]) if keys and isinstance(features, Mapping) else None
    names = getattr(feature, 'names', None) or getattr(examples, 'classes', None)
    are_names = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return Found(images, None if missing else labels, tuple(names) if are_names else ())


def _refuse_keys(images_key=None, labels_key=None, **how) -> tuple:
    fits = images_key is None and labels_key is None
    require(fits, 'images_key and labels_key name what stands in a dict or a file, and here is none; leave them out.')
    return ()
