"""Download and prepare a data set with tensorflow-datasets' own downloader, checksums and writer, without TensorFlow.

Its builders need that to un-gzip, to open files and to encode PNG; a subclass reads the archives by itself.
"""

import contextlib
import gzip
import io
import os
import pathlib
import sys
import tarfile
from typing import Any

import numpy as np

from hebbjax.base import AnyPath
from hebbjax.data.datasets import PREPARED, calling_tfds, data_dir_of, open_builder
from hebbjax.support.checks import check_choice, require
from hebbjax.support.shards import Split


def prepare_dataset(name: str, data_dir: AnyPath | None = None) -> pathlib.Path:
    """Prepare 'mnist', 'fashion_mnist' or 'cifar10' as array_record files, unless it is there; gives its directory.

    Checksums are verified, progress is shown on stderr, downloads stay in `data_dir_of(data_dir)`, made if missing.
    """
    require(name != 'digits', 'digits comes with scikit-learn, there is nothing to prepare.')
    check_choice('dataset', name, PREPARED)
    directory = data_dir_of(data_dir)
    builder, is_prepared = open_builder(name, directory)
    target = pathlib.Path(builder.data_dir)
    if is_prepared:
        return target
    if target.exists():  # tensorflow-datasets would take it for prepared and do nothing
        raise FileExistsError(f'{target} exists but is not a prepared data set; delete it and run the command again.')
    place = next(path for path in target.parents if os.path.exists(path))  # what is missing will be made in it
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f'{place} is not a directory that may be written; choose another --data-dir.')
    with calling_tfds(f'{name} could not be prepared in {directory}', name, directory):
        import requests
        import tensorflow_datasets as tfds

        # asked once, as tensorflow-datasets would go on asking a dead source for minutes; some servers refuse HEAD
        with requests.get(min(type(builder).url_infos), stream=True, timeout=5) as reply:
            reply.raise_for_status()
        config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
        with contextlib.redirect_stdout(sys.stderr):  # its one line, to where its progress bars go
            kind: Any = _builder_class(name)  # whose base class, not it, is abstract
            builder = kind(data_dir=directory, file_format='array_record')
            builder.download_and_prepare(download_config=config)  # written beside the target, renamed at the end
    return target


def _builder_class(name):
    """Give the official builder of a data set, with names, version, features and keys, but fed with encoded bytes."""
    import tensorflow_datasets as tfds

    official = tfds.builder_cls(name)
    read = _read_cifar if name == 'cifar10' else _read_idx

    class Encoded(official, skip_registration=True):
        __module__ = official.__module__  # recorded in dataset_info.json

        def _split_generators(self, dl_manager):
            splits, classes = read(dl_manager.download({url.rpartition('/')[2]: url for url in official.url_infos}))
            if classes:
                self.info.features['label'].names = classes
            return {split: self._generate_examples(split, part) for split, part in splits.items()}

        def _generate_examples(self, split, part):
            for number, (image, label) in enumerate(zip(*part, strict=True)):
                named = {'id': f'{split}_{number:05d}'} if 'id' in self.info.features else {}
                yield number, {'image': _png(image), 'label': int(label), **named}

    Encoded.name = official.name
    return Encoded


def _read_idx(files):
    """Read the four gzipped files of MNIST's format -> splits, and None: the class names are the builder's."""

    def read(name, header):  # sizes, then the values as bytes
        return np.frombuffer(gzip.decompress(pathlib.Path(files[f'{name}-ubyte.gz']).read_bytes()), np.uint8)[header:]

    parts = [(read(f'{name}-images-idx3', 16), read(f'{name}-labels-idx1', 8)) for name in ('train', 't10k')]
    train, test = (Split(images.reshape(-1, 28, 28, 1), labels) for images, labels in parts)
    return {'train': train, 'test': test}, None


def _read_cifar(files):
    """Read CIFAR-10's tar file: rows of one label and 32 x 32 red, green and blue values each, and the class names."""
    with tarfile.open(files['cifar-10-binary.tar.gz']) as tar:
        read = lambda name: tar.extractfile(f'cifar-10-batches-bin/{name}').read()  # noqa: E731
        parts = [b''.join(read(f'data_batch_{number}.bin') for number in range(1, 6)), read('test_batch.bin')]
        classes = read('batches.meta.txt').decode().split()
    rows = [np.frombuffer(part, np.uint8).reshape(-1, 1 + 3 * 32 * 32) for part in parts]
    train, test = (Split(row[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), row[:, 0]) for row in rows)
    return {'train': train, 'test': test}, classes


def _png(image):
    """Encode uint8 [H, W, 1] or [H, W, 3] as PNG."""
    from PIL import Image

    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer := io.BytesIO(), format='png')
    return buffer.getvalue()
