"""Download and prepare a data set with tensorflow-datasets' own downloader, checksums and writer, without TensorFlow.

The official builders need TensorFlow three times: to un-gzip, to open files and to encode PNG. A subclass that reads
the archives with the standard library and yields encoded bytes avoids all three, and writes the same examples in the
same order. Afterwards `hebbjax.data.load` reads the directory, and so does `tensorflow_datasets.data_source`.
"""

import contextlib
import gzip
import io
import os
import pathlib
import sys
import tarfile
import urllib.parse

import numpy as np

from hebbjax.data import Split, check_name, command_of, data_dir_of, open_builder, quiet


def prepare(name, data_dir=None) -> pathlib.Path:
    """Prepare a data set as array_record files, unless it is there already.

    The downloads stay in `downloads` beside the data set, so that a second attempt need not fetch them again.
    tensorflow-datasets shows its progress on stderr.

    Args:
      name: 'mnist', 'fashion_mnist' or 'cifar10'.
      data_dir: directory of prepared data sets, see `hebbjax.data.data_dir_of`; made if it is missing.

    Returns:
      The directory of the prepared data set, `data_dir/name/version`.

    Raises:
      ValueError: for an unknown name or digits, files of another format, and downloads with a wrong checksum.
      ConnectionError: if the source does not answer within 5 s, or breaks off.
      PermissionError, NotADirectoryError, OSError: if the directory cannot be written.
    """
    check_name(name)
    if name == 'digits':
        raise ValueError('digits comes with scikit-learn, there is nothing to prepare')
    directory = data_dir_of(data_dir)
    with quiet():
        builder = open_builder(name, directory)
        target = pathlib.Path(builder.data_dir)
        if builder.is_prepared():
            return target
    if target.exists():  # tensorflow-datasets would take it for prepared and do nothing
        raise FileExistsError(f'{target} exists but is not a prepared data set; delete it and run the command again')
    _check_writable(directory)
    _check_writable(target.parent)
    retry = f'run `{command_of(name, data_dir)}`'
    _check_source(min(type(builder).url_infos), name, directory, retry)
    _build(name, directory, retry)
    return target


def _check_writable(directory):
    while not os.path.exists(directory):  # what is missing will be made in the nearest parent that exists
        directory = directory.parent
    if not directory.is_dir():
        raise NotADirectoryError(f'{directory} is not a directory; choose another --data-dir')
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f'{directory} may not be written; change its permissions or choose another --data-dir')


def _check_source(url, name, directory, retry):
    """Ask once: tensorflow-datasets would go on asking a dead source for minutes."""
    import requests

    try:
        with requests.get(
            url, stream=True, timeout=5
        ) as reply:  # some servers refuse HEAD; stream leaves the body there
            trouble = '' if reply.ok else f'answers with HTTP status {reply.status_code}'
    except requests.RequestException as error:
        trouble = f'does not answer ({type(error).__name__})'
    if trouble:
        raise ConnectionError(
            f'{name} is not prepared in {directory} and {urllib.parse.urlsplit(url).netloc} {trouble}; '
            f'{retry} on a machine with network, and copy the directory from there if need be'
        )


def _build(name, directory, retry):
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
    # Its one line on stdout goes where its progress bars go.
    with quiet(), contextlib.redirect_stdout(sys.stderr):
        try:
            builder = _builder_class(name)(data_dir=directory, file_format='array_record')
            builder.download_and_prepare(download_config=config)  # written beside the target, renamed at the end
        except NonMatchingChecksumError as error:
            raise ValueError(
                f'the download of {name} has another checksum than tensorflow-datasets registered, so the file was '
                f'changed or damaged on its way and was not used; {retry} again'
            ) from error
        except (requests.RequestException, DownloadError) as error:
            raise ConnectionError(
                f'the download of {name} broke off ({type(error).__name__}); {retry} again'
            ) from error
        except (ImportError, MemoryError):
            raise
        except Exception as error:
            kind = OSError if isinstance(error, OSError) else ValueError
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip('.')
            raise kind(f'{name} could not be prepared in {directory} ({reason}); {retry} again') from error


def _builder_class(name):
    """Return the official builder of `name`, with names, version, features and keys, but fed with encoded bytes."""
    import tensorflow_datasets as tfds

    official = tfds.builder_cls(name)
    read = _read_cifar if name == 'cifar10' else _read_idx

    class Encoded(official, skip_registration=True):
        """The official builder without TensorFlow."""

        __module__ = official.__module__  # recorded in dataset_info.json

        def _split_generators(self, dl_manager):
            files = dl_manager.download({url.rpartition('/')[2]: url for url in official.url_infos})
            splits, classes = read(files)
            if classes:
                self.info.features['label'].names = classes
            return {split: self._generate_examples(split, part) for split, part in splits.items()}

        def _generate_examples(self, split, part):
            named = 'id' in self.info.features
            for i, (image, label) in enumerate(zip(*part, strict=True)):
                example = {'image': _png(image), 'label': int(label)}
                yield i, example | ({'id': f'{split}_{i:05d}'} if named else {})

    Encoded.name = official.name
    return Encoded


def _read_idx(files):
    """Read the four gzipped files of MNIST's format; the class names are the builder's."""
    splits = {}
    for split, prefix in (('train', 'train'), ('test', 't10k')):
        images = _idx(files[f'{prefix}-images-idx3-ubyte.gz'])  # [n, H, W]
        splits[split] = Split(images[..., None], _idx(files[f'{prefix}-labels-idx1-ubyte.gz']))
    return splits, None


def _idx(path):
    """Read one idx file: 0, 0, type, rank; the sizes as big-endian int32; the values as bytes."""
    with gzip.open(path) as file:
        data = file.read()
    rank = data[3]
    sizes = np.frombuffer(data, '>i4', rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(sizes)


def _read_cifar(files):
    """Read CIFAR-10's tar file: rows of one label and 32 x 32 red, green and blue values each, and the class names."""
    with tarfile.open(files['cifar-10-binary.tar.gz']) as tar:

        def member(name):
            return tar.extractfile(f'cifar-10-batches-bin/{name}').read()

        batches = {'train': [f'data_batch_{i}.bin' for i in range(1, 6)], 'test': ['test_batch.bin']}
        data = {split: b''.join(member(name) for name in names) for split, names in batches.items()}
        classes = member('batches.meta.txt').decode().split()
    rows = {split: np.frombuffer(raw, np.uint8).reshape(-1, 1 + 3 * 32 * 32) for split, raw in data.items()}
    return {s: Split(r[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), r[:, 0]) for s, r in rows.items()}, classes


def _png(image):
    """Encode uint8 [H, W, 1] or [H, W, 3] as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, format='png')
    return buffer.getvalue()
