"""Reading, preparing and checking image data. Nothing here leaves the machine: the source is a loopback server."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import logging
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import data
from hebbjax.data import datasets, download
from hebbjax.data.datasets import PREPARED

REAL = os.environ.get('HEBBJAX_DATA_DIR')


def fake(name):
    """Splits of the true shapes whose first pixel is the index, so that the order on disk can be read off."""
    rng = np.random.default_rng(PREPARED.index(name))
    shape = (32, 32, 3) if name == 'cifar10' else (28, 28, 1)
    splits = {}
    for split, n in (('train', 100), ('test', 30)):
        images = rng.integers(0, 256, (n, *shape), np.uint8)
        images[:, 0, 0, 0] = np.arange(n)
        splits[split] = data.Split(images, rng.integers(0, 10, n).astype(np.uint8))
    return splits


def idx_gz(values):
    header = struct.pack(f'>HBB{values.ndim}i', 0, 8, values.ndim, *values.shape)
    return gzip.compress(header + values.tobytes())


def archive(name):
    """The files as the source serves them: four gzipped idx files, or one tar file of binary batches."""
    splits = fake(name)
    if name != 'cifar10':
        return {
            f'{prefix}-{kind}-ubyte.gz': idx_gz(values)
            for split, prefix in (('train', 'train'), ('test', 't10k'))
            for kind, values in (('images-idx3', splits[split].images[..., 0]), ('labels-idx1', splits[split].labels))
        }
    rows = {s: np.c_[p.labels, p.images.transpose(0, 3, 1, 2).reshape(len(p.labels), -1)] for s, p in splits.items()}
    members = {f'data_batch_{i + 1}.bin': part.tobytes() for i, part in enumerate(np.split(rows['train'], 5))}
    members['test_batch.bin'] = rows['test'].tobytes()
    members['batches.meta.txt'] = '\n'.join(f'class{i}' for i in range(10)).encode() + b'\n\n'
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz') as tar:
        for member, content in members.items():
            info = tarfile.TarInfo(f'cifar-10-batches-bin/{member}')
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return {'cifar-10-binary.tar.gz': buffer.getvalue()}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, content, missing = self.server.files.get(self.path, (404, b'', 0))
        self.send_response(status)
        self.send_header('Content-Length', str(len(content) + missing))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # whoever only asks whether we are here hangs up early
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def server():
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.files = {}
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class NoTensorFlow:
    """Stands first among the finders and fails whoever imports tensorflow."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        assert name != 'tensorflow', 'tensorflow was imported'


def serve(patch, server, name, files, *, status=200, missing=0, checksum_of=None, port=None):
    """Make the server the source of `name`, and the checksums of these files the registered ones."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    infos = {}
    for file, content in files.items():
        server.files[f'/{name}/{file}'] = status, content, missing
        registered = content if checksum_of is None else checksum_of
        infos[f'http://127.0.0.1:{port or server.server_port}/{name}/{file}'] = checksums.UrlInfo(
            size=tfds.core.utils.Size(len(registered)), checksum=hashlib.sha256(registered).hexdigest(), filename=file
        )
    patch.setattr(tfds.builder_cls(name), 'url_infos', infos)
    patch.setattr(checksums, 'get_all_url_infos', lambda: dict(infos))
    patch.setenv('NO_PROXY', '127.0.0.1')
    patch.setattr(sys, 'meta_path', [NoTensorFlow, *sys.meta_path])


@pytest.fixture(scope='module')
def prepared(server, tmp_path_factory):
    """A directory with all three data sets, made by hebbjax from files of the true formats."""
    directory = tmp_path_factory.mktemp('prepared')
    for name in PREPARED:
        with pytest.MonkeyPatch.context() as patch:
            serve(patch, server, name, archive(name))
            assert download.prepare_dataset(name, directory).parent == directory / name
    return directory


@pytest.fixture
def copy(prepared, tmp_path):
    shutil.copytree(prepared / 'mnist', tmp_path / 'mnist')
    return tmp_path


def refusal(kind, call, *args, **how):
    """What a call is refused with: the right kind of error, and one line of readable length."""
    with pytest.raises(kind) as error:
        call(*args, **how)
    text = str(error.value)
    assert error.type is kind and '\n' not in text and 20 < len(text) < 500 and text.endswith('.'), text
    return text


# Reading


def test_what_was_prepared_is_what_loads_in_the_order_of_tensorflow_datasets(prepared):
    """The official keys are the indices; the order on disk is theirs, hashed, and the same for every data set."""
    for name in PREPARED:
        for split, wanted in fake(name).items():
            images, labels = data.load(name, split, data_dir=prepared)
            order = images[:, 0, 0, 0]
            assert images.dtype == np.uint8 and labels.dtype == np.int32
            assert sorted(order) == list(range(len(wanted.labels)))
            np.testing.assert_array_equal(images, wanted.images[order])
            np.testing.assert_array_equal(labels, wanted.labels[order])
            part = data.load(name, split, data_dir=prepared, part=(1, 3))
            np.testing.assert_array_equal(part.images, images[1 : len(images) // 3 * 3 : 3])
        assert order[:6].tolist() == [16, 13, 27, 19, 15, 6]


def test_prepared_directory_is_an_official_one(prepared):
    import tensorflow_datasets as tfds

    source = tfds.data_source('cifar10', split='test', data_dir=prepared, download=False)
    example = source[0]
    assert source.dataset_info.features['label'].names == [f'class{i}' for i in range(10)]
    assert example['id'] == f'test_{example["image"][0, 0, 0]:05d}'.encode()
    info = (prepared / 'fashion_mnist' / '3.0.1' / 'dataset_info.json').read_text()
    assert 'tensorflow_datasets.image_classification.mnist' in info and 'hebbjax' not in info


@pytest.mark.skipif(not REAL, reason='HEBBJAX_DATA_DIR names no directory of prepared data')
def test_real_mnist():
    if not (pathlib.Path(REAL) / 'mnist').is_dir():
        pytest.skip('mnist is not prepared in HEBBJAX_DATA_DIR')
    images, labels = data.load('mnist', 'test')
    assert images.shape == (10000, 28, 28, 1) and images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert 30 < images.mean() < 37


def test_digits_need_nothing(monkeypatch):
    monkeypatch.setenv('HEBBJAX_DATA_DIR', '/nowhere')
    train, test = data.load('digits'), data.load('digits', 'test')
    assert train.images.shape == (1200, 8, 8, 1) and test.images.shape == (597, 8, 8, 1)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int32
    assert set(np.unique(train.images)) == {round(v * 255 / 16) for v in range(17)}
    assert train.labels[:10].tolist() == list(range(10))
    assert min(np.bincount(test.labels, minlength=10)) > 50
    assert data.digest(*train) == data.digest(*data.load('digits')) != data.digest(*test)


def test_tensorflow_is_never_tried(prepared, tmp_path):
    (tmp_path / 'tensorflow').mkdir()
    (tmp_path / 'tensorflow' / '__init__.py').write_text('')
    code = (
        'import sys; from hebbjax.data import download, load; assert "tensorflow_datasets" not in sys.modules;'
        f'load("mnist", data_dir={str(prepared)!r}); download.prepare_dataset("mnist", {str(prepared)!r});'
        'assert "tensorflow_datasets" in sys.modules; assert "tensorflow" not in sys.modules'
    )
    path = os.pathsep.join([str(tmp_path), str(pathlib.Path(data.__file__).parents[2])])
    environment = os.environ | {'PYTHONPATH': path}
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_advice_is_kept_quiet_as_long_as_tensorflow_datasets_is_called():
    from absl import logging as absl_logging

    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = absl_logging.get_absl_logger()
    logger.addHandler(handler)
    with datasets.calling_tfds('it cannot be', 'mnist', pathlib.Path('there')):
        absl_logging.warning('advice')
        absl_logging.error('trouble')
    absl_logging.warning('later')
    logger.removeHandler(handler)
    assert records == ['trouble', 'later']


def test_the_directory_is_the_arguments_or_the_environments(prepared, monkeypatch):
    monkeypatch.setenv('HOME', '/home/someone')
    monkeypatch.setenv('HEBBJAX_DATA_DIR', str(prepared))
    monkeypatch.setenv('TFDS_DATA_DIR', '~/second')
    assert datasets.data_dir_of('/argument') == pathlib.Path('/argument')
    assert datasets.data_dir_of() == prepared
    assert len(data.load('mnist', 'test').labels) == 30
    monkeypatch.setenv('HEBBJAX_DATA_DIR', '')
    assert datasets.data_dir_of() == pathlib.Path('/home/someone/second')
    monkeypatch.delenv('TFDS_DATA_DIR')
    assert datasets.data_dir_of() == pathlib.Path('/home/someone/tensorflow_datasets')


# Reading what is not there or not right


def test_unknown_names():
    says = "there is no file or folder 'imagenet' here; name one that there is, or one of digits, mnist, "
    assert refusal(ValueError, data.load, 'imagenet') == f'{says}fashion_mnist, cifar10.'
    says = "dataset='imagenet' is unknown; there are mnist, fashion_mnist, cifar10."
    assert refusal(ValueError, download.prepare_dataset, 'imagenet') == says
    says = "split='validation' is unknown; there are train, test."
    assert refusal(ValueError, data.load, 'digits', 'validation') == says
    says = 'digits comes with scikit-learn, there is nothing to prepare.'
    assert refusal(ValueError, download.prepare_dataset, 'digits') == says


@pytest.mark.parametrize('exists', [True, False])
def test_absent_data_set(tmp_path, monkeypatch, exists):
    directory = tmp_path if exists else tmp_path / 'no where'
    text = refusal(FileNotFoundError, data.load, 'cifar10', data_dir=directory)
    assert text.startswith(f'cifar10 is not prepared in {directory} ')
    assert '--data-dir, else HEBBJAX_DATA_DIR, else TFDS_DATA_DIR, else ~/tensorflow_datasets' in text
    quoted = directory if exists else f"'{directory}'"
    assert f'`hebbjax data cifar10 --data-dir {quoted}`' in text
    monkeypatch.setenv('HEBBJAX_DATA_DIR', str(directory))
    assert '`hebbjax data cifar10`' in refusal(FileNotFoundError, data.load, 'cifar10')
    assert not (tmp_path / 'no where').exists()


@pytest.mark.parametrize('what', ['.', 'mnist'])
def test_file_in_place_of_a_directory(tmp_path, what):
    directory = tmp_path / 'data'
    if what != '.':
        directory.mkdir()
    (directory / what).write_text('not a directory')
    assert f'is not prepared in {directory} (' in refusal(FileNotFoundError, data.load, 'mnist', data_dir=directory)


def test_half_a_data_set_is_absent_and_a_damaged_description_is_told(copy):
    info = copy / 'mnist' / '3.0.1' / 'dataset_info.json'
    content = info.read_text()
    info.write_text(content[:100])
    text = refusal(ValueError, data.load, 'mnist', data_dir=copy)
    assert text.startswith(f'{copy / "mnist"} cannot be read (')
    info.write_text(content.replace('array_record', 'tfrecord'))
    for door in (data.load, download.prepare_dataset):
        text = refusal(ValueError, door, 'mnist', data_dir=copy)
        assert text.startswith(f'{info.parent} holds tfrecord files, which need TensorFlow')
        assert '`hebbjax data mnist --data-dir DIR`' in text
    info.unlink()
    assert 'mnist is not prepared in' in refusal(FileNotFoundError, data.load, 'mnist', data_dir=copy)


def test_truncated_or_missing_record_file(copy):
    (file,) = (copy / 'mnist' / '3.0.1').glob('*train.array_record*')
    content = file.read_bytes()
    for keep in (0, 100, len(content) // 2, -10, None):
        file.unlink() if keep is None else file.write_bytes(content[:keep])
        text = refusal(ValueError, data.load, 'mnist', data_dir=copy)
        assert text.startswith(f'{file.parent} cannot be read (')
        assert f'delete what is damaged, and run `hebbjax data mnist --data-dir {copy}`' in text
        assert len(data.load('mnist', 'test', data_dir=copy).labels) == 30  # the other file is whole


def test_damaged_image(server, tmp_path, monkeypatch):
    whole = download._png
    serve(monkeypatch, server, 'mnist', archive('mnist'))
    for keep in (3, 300):
        monkeypatch.setattr(download, '_png', lambda image, keep=keep: whole(image)[:keep])
        directory = download.prepare_dataset('mnist', tmp_path / str(keep))
        text = refusal(ValueError, data.load, 'mnist', data_dir=tmp_path / str(keep))
        assert text.startswith(f'{directory} cannot be read (')


# Preparing


def test_prepared_already(prepared, monkeypatch):
    monkeypatch.setattr('requests.get', lambda *args, **kwargs: pytest.fail('asked the network'))
    monkeypatch.setenv('TFDS_DATA_DIR', str(prepared))
    monkeypatch.delenv('HEBBJAX_DATA_DIR', raising=False)
    assert download.prepare_dataset('cifar10') == prepared / 'cifar10' / '3.0.2'


def refused(directory, start, name='mnist'):
    """Prepare in vain: the right error, in one sentence, and nothing that looks prepared."""
    began = time.monotonic()
    text = refusal(ValueError, download.prepare_dataset, name, directory)
    assert time.monotonic() - began < 8
    assert text.startswith(start)
    assert not list(directory.glob(f'{name}/*'))
    refusal(FileNotFoundError, data.load, name, data_dir=directory)
    return text


@pytest.mark.parametrize(
    'how, reason',
    [({'port': 9}, 'ConnectionError: '), ({'status': 404}, 'HTTPError: 404'), ({'status': 503}, 'HTTPError: 503')],
)
def test_a_source_that_does_not_serve_is_told(server, tmp_path, monkeypatch, how, reason):
    serve(monkeypatch, server, 'mnist', archive('mnist'), **how)
    text = refused(tmp_path, f'mnist could not be prepared in {tmp_path} ({reason}')
    assert f', and run `hebbjax data mnist --data-dir {tmp_path}` on a machine with network.' in text
    assert not list(tmp_path.iterdir())


def test_silent_source_is_not_waited_for(server, tmp_path, monkeypatch):
    import requests

    def get(url, *, timeout, **kwargs):
        raise requests.ReadTimeout if timeout == 5 else AssertionError(f'would wait {timeout}')

    serve(monkeypatch, server, 'mnist', archive('mnist'))
    monkeypatch.setattr(requests, 'get', get)
    assert '(ReadTimeout); ' in refused(tmp_path, f'mnist could not be prepared in {tmp_path} (')


def test_a_download_that_breaks_off_is_told(server, tmp_path, monkeypatch):
    serve(monkeypatch, server, 'mnist', archive('mnist'))
    monkeypatch.delitem(server.files, '/mnist/train-labels-idx1-ubyte.gz')
    text = refused(tmp_path / 'gone', f'mnist could not be prepared in {tmp_path / "gone"} (')
    assert '(DownloadError: ' in text and 'run `hebbjax data mnist' in text
    serve(monkeypatch, server, 'cifar10', archive('cifar10'), missing=1000)
    refused(tmp_path / 'cut', f'cifar10 could not be prepared in {tmp_path / "cut"} (', 'cifar10')


def test_wrong_checksum(server, tmp_path, monkeypatch):
    serve(monkeypatch, server, 'mnist', archive('mnist'), checksum_of=b'something else')
    text = refused(tmp_path, f'mnist could not be prepared in {tmp_path} (')
    assert '(NonMatchingChecksumError: ' in text and 'run `hebbjax data mnist' in text


@pytest.mark.parametrize('name', ['mnist', 'cifar10'])
def test_truncated_archive(server, tmp_path, monkeypatch, name):
    halves = {file: content[: len(content) // 2] for file, content in archive(name).items()}
    serve(monkeypatch, server, name, halves)
    refused(tmp_path, f'{name} could not be prepared in {tmp_path} (', name)


def test_failure_in_the_middle_leaves_nothing_and_a_second_attempt_prepares(server, tmp_path, monkeypatch, capsys):
    whole, seen = download._png, []

    def png(image):
        seen.append(1)
        if len(seen) == 110:  # the train split is written, the test split is not
            raise OSError(28, 'No space left on device')
        return whole(image)

    serve(monkeypatch, server, 'mnist', archive('mnist'))
    directory = tmp_path / 'new'
    with monkeypatch.context() as patch:
        patch.setattr(download, '_png', png)
        refused(directory, f'mnist could not be prepared in {directory} (')
    target = download.prepare_dataset('mnist', directory)
    assert len(data.load('mnist', 'test', data_dir=directory).labels) == 30
    assert capsys.readouterr().out == ''
    assert {path.name for path in target.iterdir()} >= {'dataset_info.json', 'features.json'}
    assert {path.name for path in directory.iterdir()} == {'mnist', 'downloads'}


def test_directories_that_nothing_can_be_prepared_in(tmp_path, monkeypatch):
    leftover = tmp_path / 'mnist' / '3.0.1'
    leftover.mkdir(parents=True)
    text = refusal(FileExistsError, download.prepare_dataset, 'mnist', tmp_path)
    assert text.startswith(f'{leftover} exists but is not a prepared data set')
    (tmp_path / 'file').write_text('')
    for directory in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        text = refusal(PermissionError, download.prepare_dataset, 'mnist', directory)
        assert f'{tmp_path / "file"} is not a directory that may be written' in text
    monkeypatch.setattr(os, 'access', lambda path, mode: str(path) != str(tmp_path))  # chmod does not stop root
    text = refusal(PermissionError, download.prepare_dataset, 'mnist', tmp_path / 'new' / 'deep')
    assert text == f'{tmp_path} is not a directory that may be written; choose another --data-dir.'


# Holding out


def test_split_validation_is_stratified():
    labels = np.repeat(np.arange(4), [400, 200, 100, 20])[np.random.default_rng(0).permutation(720)]
    train, held_out = data.split_validation(labels, 0.25, seed=3)
    assert sorted([*train, *held_out]) == list(range(720))
    assert np.bincount(labels[held_out]).tolist() == [100, 50, 25, 5]
    assert (np.diff(train) > 0).all() and (np.diff(held_out) > 0).all()
    np.testing.assert_array_equal(held_out, data.split_validation(jnp.asarray(labels), 0.25, seed=3)[1])
    assert held_out.tolist() != data.split_validation(labels, 0.25, seed=4)[1].tolist()


def test_a_labelled_subset_has_as_many_of_each_class():
    labels = np.repeat(np.arange(4), [400, 200, 100, 20])[np.random.default_rng(0).permutation(720)]
    few, more = (data.labelled_subset(labels, per_class, seed=3) for per_class in (5, 20))
    assert np.bincount(labels[few]).tolist() == [5] * 4 and np.bincount(labels[more]).tolist() == [20] * 4
    assert (np.diff(more) > 0).all() and {*few} < {*more}
    np.testing.assert_array_equal(few, data.labelled_subset(jnp.asarray(labels), 5, seed=3))
    assert few.tolist() != data.labelled_subset(labels, 5, seed=4).tolist()
    text = refusal(ValueError, data.labelled_subset, labels, 21, seed=0)
    assert text == 'per_class=21 is more labels than class 3 has; use 20 at most.'
    assert 'use 0 at most' in refusal(ValueError, data.labelled_subset, [], 1, seed=0)


def test_what_cannot_be_split_is_refused():
    for fraction in (0, 1, -0.1, 1.5, float('nan'), None):
        text = refusal(ValueError, data.split_validation, np.arange(100) % 2, fraction, seed=0)
        assert text == f'fraction={fraction} is out of range; use a finite number > 0 and < 1.'
    for labels in ([], [1], [0, 0, 0, 1], [0, 1, 2] * 3):
        text = refusal(ValueError, data.split_validation, labels, 0.2, seed=0)
        assert f'{len(labels)} images of {len(set(labels))} classes are too few' in text
    assert 'shape (2, 3)' in refusal(ValueError, data.split_validation, np.ones((2, 3)), 0.2, seed=0)
