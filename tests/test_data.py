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

from hebbjax import data, prepare

PREPARED = ('mnist', 'fashion_mnist', 'cifar10')
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
            assert prepare.prepare(name, directory).parent == directory / name
    return directory


@pytest.fixture
def copy(prepared, tmp_path):
    shutil.copytree(prepared / 'mnist', tmp_path / 'mnist')
    return tmp_path


def sentence(error):
    """The message, which must be one line of readable length."""
    text = str(error.value)
    assert '\n' not in text and 20 < len(text) < 500, text
    return text


# Reading


@pytest.mark.parametrize('name', PREPARED)
def test_what_was_prepared_is_what_loads(prepared, name):
    for split, want in fake(name).items():
        got = data.load(name, split, data_dir=prepared)
        order = got.images[:, 0, 0, 0]
        assert got.images.dtype == np.uint8 and got.labels.dtype == np.int32
        assert sorted(order) == list(range(len(want.labels)))
        np.testing.assert_array_equal(got.images, want.images[order])
        np.testing.assert_array_equal(got.labels, want.labels[order])


def test_order_is_that_of_tensorflow_datasets(prepared):
    # The official keys are the indices; the order on disk is theirs, hashed, and the same for every data set.
    orders = [data.load(name, 'test', data_dir=prepared).images[:6, 0, 0, 0].tolist() for name in PREPARED]
    assert orders == [[16, 13, 27, 19, 15, 6]] * 3


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
    np.testing.assert_array_equal(train.images, data.load('digits', 'train').images)


def test_tensorflow_is_never_tried(prepared, tmp_path):
    (tmp_path / 'tensorflow').mkdir()
    (tmp_path / 'tensorflow' / '__init__.py').write_text('')
    code = (
        'import sys; from hebbjax import data, prepare; assert "tensorflow_datasets" not in sys.modules;'
        f'data.load("mnist", data_dir={str(prepared)!r}); prepare.prepare("mnist", {str(prepared)!r});'
        'assert "tensorflow_datasets" in sys.modules; assert "tensorflow" not in sys.modules'
    )
    path = os.pathsep.join([str(tmp_path), str(pathlib.Path(data.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, '-c', code], env=os.environ | {'PYTHONPATH': path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_quiet_lasts_as_long_as_its_block():
    from absl import logging as absl_logging

    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = absl_logging.get_absl_logger()
    logger.addHandler(handler)
    with data.quiet():
        absl_logging.warning('advice')
        absl_logging.error('trouble')
    absl_logging.warning('later')
    logger.removeHandler(handler)
    assert records == ['trouble', 'later']


# Which directory


def test_data_dir_of(monkeypatch):
    monkeypatch.setenv('HOME', '/home/someone')
    monkeypatch.setenv('HEBBJAX_DATA_DIR', '/first')
    monkeypatch.setenv('TFDS_DATA_DIR', '~/second')
    assert data.data_dir_of('/argument') == pathlib.Path('/argument')
    assert data.data_dir_of() == pathlib.Path('/first')
    monkeypatch.setenv('HEBBJAX_DATA_DIR', '')
    assert data.data_dir_of() == pathlib.Path('/home/someone/second')
    monkeypatch.delenv('TFDS_DATA_DIR')
    assert data.data_dir_of() == pathlib.Path('/home/someone/tensorflow_datasets')


def test_environment_is_read(prepared, monkeypatch):
    monkeypatch.setenv('HEBBJAX_DATA_DIR', str(prepared))
    assert len(data.load('mnist', 'test').labels) == 30


# Reading what is not there or not right


def test_unknown_names():
    with pytest.raises(ValueError) as error:
        data.load('imagenet')
    assert sentence(error) == "unknown data set 'imagenet'; choose one of digits, mnist, fashion_mnist, cifar10"
    with pytest.raises(ValueError) as error:
        data.load('digits', 'validation')
    assert sentence(error) == "unknown split 'validation' of digits; wanted 'train' or 'test'"


@pytest.mark.parametrize('exists', [True, False])
def test_absent_data_set(tmp_path, monkeypatch, exists):
    directory = tmp_path if exists else tmp_path / 'no where'
    with pytest.raises(FileNotFoundError) as error:
        data.load('cifar10', data_dir=directory)
    text = sentence(error)
    assert text.startswith(
        f'cifar10 is not prepared in {tmp_path} ' if exists else f'there is no directory {directory} '
    )
    assert '--data-dir, then HEBBJAX_DATA_DIR, then TFDS_DATA_DIR, then ~/tensorflow_datasets' in text
    quoted = directory if exists else f"'{directory}'"
    assert f'`hebbjax data cifar10 --data-dir {quoted}`' in text
    monkeypatch.setenv('HEBBJAX_DATA_DIR', str(directory))
    with pytest.raises(FileNotFoundError) as error:
        data.load('cifar10')
    assert '`hebbjax data cifar10`' in sentence(error)
    assert not (tmp_path / 'no where').exists()


def test_half_a_data_set_is_absent(copy):
    (copy / 'mnist' / '3.0.1' / 'dataset_info.json').unlink()
    with pytest.raises(FileNotFoundError) as error:
        data.load('mnist', data_dir=copy)
    assert 'mnist is not prepared in' in sentence(error)


@pytest.mark.parametrize('what', ['.', 'mnist'])
def test_file_in_place_of_a_directory(tmp_path, what):
    directory = tmp_path / 'data'
    directory.mkdir()
    wrong = directory / what
    if what == '.':
        directory.rmdir()
    wrong.write_text('not a directory')
    with pytest.raises(NotADirectoryError) as error:
        data.load('mnist', data_dir=directory)
    assert sentence(error) == f'{wrong} is not a directory; choose another --data-dir'


def test_directory_that_may_not_be_read(copy, monkeypatch):
    def listdir(path):
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(os, 'listdir', listdir)  # chmod does not stop root
    with pytest.raises(PermissionError) as error:
        data.load('mnist', data_dir=copy)
    assert sentence(error).startswith(f'{copy} may not be read')


@pytest.mark.skipif(os.geteuid() == 0, reason='root reads everything')
def test_directory_without_permission(copy):
    (copy / 'mnist').chmod(0)
    try:
        with pytest.raises(PermissionError) as error:
            data.load('mnist', data_dir=copy)
    finally:
        (copy / 'mnist').chmod(0o755)
    assert sentence(error).startswith(f'{copy / "mnist"} may not be read')


def test_tfrecord(copy):
    info = copy / 'mnist' / '3.0.1' / 'dataset_info.json'
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    for door in (data.load, prepare.prepare):
        with pytest.raises(ValueError) as error:
            door('mnist', data_dir=copy)
        text = sentence(error)
        assert text.startswith(f'{info.parent} holds tfrecord files, which cannot be read without TensorFlow')
        assert '`hebbjax data mnist --data-dir DIR`' in text


@pytest.mark.parametrize('keep', [0, 100, 0.5, -10, None])
def test_truncated_or_missing_record_file(copy, keep):
    (file,) = (copy / 'mnist' / '3.0.1').glob('*train.array_record*')
    content = file.read_bytes()
    if keep is None:
        file.unlink()
    else:
        file.write_bytes(content[: int(keep * len(content)) if keep == 0.5 else keep])
    with pytest.raises(ValueError) as error:
        data.load('mnist', data_dir=copy)
    text = sentence(error)
    assert text.startswith(f'{file.parent} cannot be read (')
    assert f'delete it and run `hebbjax data mnist --data-dir {copy}`' in text
    assert len(data.load('mnist', 'test', data_dir=copy).labels) == 30  # the other file is whole


def test_a_pipe_in_the_place_of_any_file_is_not_waited_for(copy):
    whole = copy / 'whole'
    for number, file in enumerate(sorted((copy / 'mnist' / '3.0.1').iterdir())):
        file.rename(whole)
        os.mkfifo(file)
        if number % 2:  # a link to one is one
            file.rename(copy / 'pipe')
            file.symlink_to(copy / 'pipe')
        with pytest.raises(ValueError) as error:
            data.load('mnist', data_dir=copy)
        assert f'mnist cannot be read ({file.name} is no regular file); ' in sentence(error)
        file.unlink()
        whole.rename(file)
        (copy / 'pipe').unlink(missing_ok=True)
    assert len(data.load('mnist', 'test', data_dir=copy).labels) == 30


def test_damaged_description(copy):
    info = copy / 'mnist' / '3.0.1' / 'dataset_info.json'
    info.write_text(info.read_text()[:100])
    with pytest.raises(ValueError) as error:
        data.load('mnist', data_dir=copy)
    assert sentence(error).startswith(f'{copy / "mnist"} cannot be read (')


@pytest.mark.parametrize('keep', [3, 60, 300])
def test_damaged_image(server, tmp_path, monkeypatch, keep):
    whole = prepare._png
    serve(monkeypatch, server, 'mnist', archive('mnist'))
    monkeypatch.setattr(prepare, '_png', lambda image: whole(image)[:keep])
    directory = prepare.prepare('mnist', tmp_path)
    with pytest.raises(ValueError) as error:
        data.load('mnist', data_dir=tmp_path)
    assert sentence(error).startswith(f'{directory} cannot be read (')


# Preparing


def test_prepared_already(prepared, monkeypatch):
    monkeypatch.setattr('requests.get', lambda *args, **kwargs: pytest.fail('asked the network'))
    monkeypatch.setenv('TFDS_DATA_DIR', str(prepared))
    monkeypatch.delenv('HEBBJAX_DATA_DIR', raising=False)
    assert prepare.prepare('cifar10') == prepared / 'cifar10' / '3.0.2'


def test_stdout_stays_clean(server, tmp_path, monkeypatch, capsys):
    serve(monkeypatch, server, 'mnist', archive('mnist'))
    target = prepare.prepare('mnist', tmp_path / 'new')
    assert capsys.readouterr().out == ''
    assert {path.name for path in target.iterdir()} >= {'dataset_info.json', 'features.json'}
    assert {path.name for path in (tmp_path / 'new').iterdir()} == {'mnist', 'downloads'}


def test_nothing_to_prepare():
    with pytest.raises(ValueError) as error:
        prepare.prepare('digits')
    assert sentence(error) == 'digits comes with scikit-learn, there is nothing to prepare'
    with pytest.raises(ValueError) as error:
        prepare.prepare('minst')
    assert sentence(error).startswith("unknown data set 'minst'")


def refused(kind, directory, start, name='mnist'):
    """Prepare in vain: the right error, in one sentence, and nothing that looks prepared."""
    began = time.monotonic()
    with pytest.raises(kind) as error:
        prepare.prepare(name, directory)
    assert time.monotonic() - began < 8
    assert sentence(error).startswith(start)
    assert error.type is kind
    assert not list(directory.glob(f'{name}/*'))
    with pytest.raises(FileNotFoundError):
        data.load(name, data_dir=directory)
    return str(error.value)


def test_source_does_not_answer(server, tmp_path, monkeypatch):
    serve(monkeypatch, server, 'mnist', archive('mnist'), port=9)
    text = refused(ConnectionError, tmp_path, f'mnist is not prepared in {tmp_path} and 127.0.0.1:9 does not answer (')
    assert f'; run `hebbjax data mnist --data-dir {tmp_path}` on a machine with network' in text
    assert not list(tmp_path.iterdir())


def test_silent_source_is_not_waited_for(server, tmp_path, monkeypatch):
    import requests

    def get(url, *, timeout, **kwargs):
        raise requests.ReadTimeout if timeout == 5 else AssertionError(f'would wait {timeout}')

    serve(monkeypatch, server, 'mnist', archive('mnist'))
    monkeypatch.setattr(requests, 'get', get)
    text = refused(ConnectionError, tmp_path, f'mnist is not prepared in {tmp_path} and 127.0.0.1')
    assert 'does not answer (ReadTimeout);' in text


@pytest.mark.parametrize('status', [404, 503])
def test_source_answers_no(server, tmp_path, monkeypatch, status):
    serve(monkeypatch, server, 'mnist', archive('mnist'), status=status)
    text = refused(ConnectionError, tmp_path, f'mnist is not prepared in {tmp_path} and 127.0.0.1')
    assert f'answers with HTTP status {status};' in text


def test_one_file_is_gone(server, tmp_path, monkeypatch):
    serve(monkeypatch, server, 'mnist', archive('mnist'))
    monkeypatch.delitem(server.files, '/mnist/train-labels-idx1-ubyte.gz')
    refused(ConnectionError, tmp_path, 'the download of mnist broke off (DownloadError); run `hebbjax data mnist')


def test_download_breaks_off(server, tmp_path, monkeypatch):
    serve(monkeypatch, server, 'cifar10', archive('cifar10'), missing=1000)
    refused(ConnectionError, tmp_path, 'the download of cifar10 broke off (', 'cifar10')


def test_wrong_checksum(server, tmp_path, monkeypatch):
    serve(monkeypatch, server, 'mnist', archive('mnist'), checksum_of=b'something else')
    refused(ValueError, tmp_path, 'the download of mnist has another checksum than')


@pytest.mark.parametrize('name', ['mnist', 'cifar10'])
def test_truncated_archive(server, tmp_path, monkeypatch, name):
    halves = {file: content[: len(content) // 2] for file, content in archive(name).items()}
    serve(monkeypatch, server, name, halves)
    refused(ValueError, tmp_path, f'{name} could not be prepared in {tmp_path} (', name)


def test_failure_in_the_middle(server, tmp_path, monkeypatch):
    whole, seen = prepare._png, []

    def png(image):
        seen.append(1)
        if len(seen) == 110:  # the train split is written, the test split is not
            raise OSError(28, 'No space left on device')
        return whole(image)

    serve(monkeypatch, server, 'mnist', archive('mnist'))
    with monkeypatch.context() as patch:
        patch.setattr(prepare, '_png', png)
        refused(OSError, tmp_path, f'mnist could not be prepared in {tmp_path} (')
    prepare.prepare('mnist', tmp_path)
    assert len(data.load('mnist', 'test', data_dir=tmp_path).labels) == 30


def test_leftover_directory(tmp_path):
    (tmp_path / 'mnist' / '3.0.1').mkdir(parents=True)
    with pytest.raises(FileExistsError) as error:
        prepare.prepare('mnist', tmp_path)
    assert sentence(error).startswith(f'{tmp_path / "mnist" / "3.0.1"} exists but is not a prepared data set')


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    for directory in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(NotADirectoryError) as error:
            prepare.prepare('mnist', directory)
        assert 'is not a directory; choose another --data-dir' in sentence(error)


def test_directory_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: str(path) != str(tmp_path))  # chmod does not stop root
    with pytest.raises(PermissionError) as error:
        prepare.prepare('mnist', tmp_path / 'new' / 'deep')
    assert sentence(error).startswith(f'{tmp_path} may not be written')


# Holding out, and checking images


def test_split_validation_is_stratified():
    labels = np.repeat(np.arange(4), [400, 200, 100, 20])[np.random.default_rng(0).permutation(720)]
    train, held = data.split_validation(labels, 0.25, seed=3)
    assert sorted([*train, *held]) == list(range(720))
    assert np.bincount(labels[held]).tolist() == [100, 50, 25, 5]
    assert (np.diff(train) > 0).all() and (np.diff(held) > 0).all()
    np.testing.assert_array_equal(held, data.split_validation(jnp.asarray(labels), 0.25, seed=3)[1])
    assert held.tolist() != data.split_validation(labels, 0.25, seed=4)[1].tolist()


@pytest.mark.parametrize('fraction', [0, 1, -0.1, 1.5, float('nan')])
def test_split_validation_fraction(fraction):
    with pytest.raises(ValueError) as error:
        data.split_validation(np.arange(100) % 2, fraction, seed=0)
    assert sentence(error) == f'validation fraction must lie strictly between 0 and 1, got {fraction}'


@pytest.mark.parametrize('labels', [[], [1], [0, 0, 0, 1], [0, 1, 2] * 3])
def test_split_validation_too_small(labels):
    with pytest.raises(ValueError) as error:
        data.split_validation(labels, 0.2, seed=0)
    assert f'{len(labels)} images of {len(set(labels))} classes are too few' in sentence(error)
