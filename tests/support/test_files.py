"""Files of results stay what they are, whatever they are: modes, links; what cannot be written is refused."""

import contextlib
import json
import os
import pathlib
import socket
import stat
import tempfile

import damage
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hebbjax.support import files

CONTENT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab é日"', max_size=5),
    lambda inner: st.lists(inner, max_size=3),
)


@contextlib.contextmanager
def place():
    """A folder for one example."""
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)


def linked(path, links, where):
    """Put links in front of a path, there or not; give the first of the chain."""
    for number in range(links):
        (link := where / f'link{number}.json').symlink_to(os.path.relpath(path, where))
        path = link
    return path


@given(
    content=CONTENT,
    mode=st.none() | st.integers(0, 0o777).map(lambda bits: bits | stat.S_IWUSR),
    mask=st.sampled_from([0, 0o022, 0o027, 0o077]),
    links=st.integers(0, 3),
    name=st.sampled_from(['x.json', '.x', 'Ünï cödé 日本.json', 'x' * 240 + '.json']),
)
def test_a_file_that_is_written_keeps_its_mode_and_links_go_on_pointing(content, mode, mask, links, name):
    with place() as folder:
        (folder / 'there').mkdir()
        target = folder / 'there' / name
        if mode is not None:
            target.write_text('old')
            target.chmod(mode)
        path = linked(target, links, folder)
        files.check_writable(path)
        before = os.umask(mask)
        try:
            files.write_json(path, content)
        finally:
            os.umask(before)
        assert stat.S_IMODE(target.stat().st_mode) == (0o666 & ~mask if mode is None else mode)
        assert path.is_symlink() == (links > 0) and not target.is_symlink()
        target.chmod(0o600)
        assert json.loads(target.read_text()) == content
        assert list(target.parent.iterdir()) == [target]
        assert len(list(folder.iterdir())) == links + 1


@given(mode=st.integers(0, 0o777).map(lambda bits: bits & ~stat.S_IWUSR), links=st.integers(0, 2))
def test_a_read_only_file_is_refused_and_left_to_root_as_well(mode, links):
    with place() as folder:
        (target := folder / 'x').write_text('old')
        target.chmod(mode)
        path = linked(target, links, folder)
        for write in (files.check_writable, lambda path: files.write_json(path, 1)):
            with pytest.raises(PermissionError, match='cannot be written: it is read-only, or its folder is'):
                write(path)
        assert stat.S_IMODE(target.stat().st_mode) == mode
        target.chmod(0o600)
        assert target.read_text() == 'old' and len(list(folder.iterdir())) == links + 1


def special(kind, path):
    """Make what is no regular file."""
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'socket':
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(path))
    else:
        path.mkdir()


@given(kind=st.sampled_from(['pipe', 'socket', 'folder']), links=st.integers(0, 2))
def test_what_is_no_file_is_refused_and_stays(kind, links):
    with place() as folder:
        special(kind, target := folder / 'x')
        before, path = target.stat(), linked(target, links, folder)
        for write in (files.check_writable, lambda path: files.write_json(path, 1)):
            with pytest.raises(PermissionError, match='it is a folder, a pipe or a device; name a file'):
                write(path)
        assert os.path.samestat(before, target.stat()) and len(list(folder.iterdir())) == links + 1


def test_a_disk_is_refused(tmp_path, monkeypatch):
    (tmp_path / 'sda').write_text('all data')
    real = os.stat
    blocks = lambda path, **how: os.stat_result((stat.S_IFBLK | 0o660, *real(path, **how)[1:]))  # noqa: E731
    monkeypatch.setattr(files.os, 'stat', blocks)
    with pytest.raises(PermissionError, match='it is a folder, a pipe or a device'):
        files.write_json(tmp_path / 'sda', 1)
    monkeypatch.undo()
    assert (tmp_path / 'sda').read_text() == 'all data'


@pytest.mark.parametrize('read', [files.read_json, files.read_lines])
def test_pipes_and_nests_are_read_as_damage(read, tmp_path):
    special('pipe', tmp_path / 'pipe')
    (tmp_path / 'deep').write_text('[' * 100_000 + '\n')
    (tmp_path / 'bytes').write_bytes(b'\xff\n')
    for name, says in (('pipe', 'no regular file'), ('deep', 'recursion'), ('bytes', 'decode')):
        with pytest.raises(ValueError, match=rf'{name} is damaged \(.*{says}'):
            read(tmp_path / name)


def test_a_failed_write_to_a_link_leaves_the_old_file(tmp_path):
    (tmp_path / 'x').write_text('old')
    (tmp_path / 'link').symlink_to('x')

    def fail(file):
        file.write_text('half')
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        files.write_whole(tmp_path / 'link', fail)
    assert (tmp_path / 'link').read_text() == 'old' and len(list(tmp_path.iterdir())) == 2


def test_what_is_written_has_reached_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, 'fsync', lambda number: order.append('fsync') or fsync(number))
    monkeypatch.setattr(files.os, 'replace', lambda *names: order.append('replace') or replace(*names))
    files.write_json(tmp_path / 'x', 1)
    assert order == ['fsync', 'replace']


def test_lines_are_added_and_one_that_was_cut_off_is_passed_over(tmp_path):
    path = tmp_path / 'x.jsonl'
    assert files.read_lines(path) == []
    files.write_lines(path, [{'a': float('nan')}])
    files.append_lines(path, [{'a': 1}, {'a': [float('inf'), 2.5]}])
    assert path.read_text() == '{"a": null}\n{"a": 1}\n{"a": [null, 2.5]}\n'
    with path.open('a') as file:
        file.write('{"a": 2, "b')  # killed while writing
    assert files.read_lines(path) == [{'a': None}, {'a': 1}, {'a': [None, 2.5]}]
    path.write_text('{"a\n{"a": 1}\n')
    with pytest.raises(ValueError, match=r'x\.jsonl is damaged'):
        files.read_lines(path)


def test_arrays_of_every_dtype_come_back_bit_by_bit(tmp_path, rng):
    arrays = {name: damage.bits(rng, jnp.dtype(name), (2, 3)) for name in damage.DTYPES}
    files.write_whole(tmp_path / 'x.npz', lambda file: files.write_npz(file, arrays))
    damage.assert_bits(files.read_npz((tmp_path / 'x.npz').read_bytes()), arrays)
    np.savez(tmp_path / 'plain.npz', a=np.arange(3))
    damage.assert_bits(files.read_npz((tmp_path / 'plain.npz').read_bytes()), {'a': np.arange(3)})
