"""Files of results stay what they are, whatever they are: modes, links, devices; what cannot be written is refused."""

import contextlib
import json
import os
import pathlib
import socket
import stat
import tempfile
import tty

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hebbjax import cli, files
from hebbjax.jobs import compare

CONTENT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda one: st.lists(one, max_size=3)
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
            with pytest.raises(PermissionError, match=r'cannot be written: it is read-only; change its mode'):
                write(path)
        assert stat.S_IMODE(target.stat().st_mode) == mode
        target.chmod(0o600)
        assert target.read_text() == 'old' and len(list(folder.iterdir())) == links + 1


def special(kind, path):
    """Make what is no regular file."""
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'socket':
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    else:
        path.mkdir()


@given(kind=st.sampled_from(['pipe', 'socket', 'folder']), links=st.integers(0, 2))
def test_what_is_no_file_is_refused_and_stays(kind, links):
    with place() as folder:
        special(kind, target := folder / 'x')
        before, path = target.stat(), linked(target, links, folder)
        says = 'it is a folder' if kind == 'folder' else 'it is a pipe, a socket or a disk; name a file'
        for write in (files.check_writable, lambda path: files.write_json(path, 1)):
            with pytest.raises(PermissionError, match=says):
                write(path)
        assert os.path.samestat(before, target.stat()) and len(list(folder.iterdir())) == links + 1


def test_a_disk_is_refused(tmp_path, monkeypatch):
    (tmp_path / 'sda').write_text('all data')
    real = os.stat
    blocks = lambda path, **how: os.stat_result((stat.S_IFBLK | 0o660, *real(path, **how)[1:]))  # noqa: E731
    monkeypatch.setattr(files.os, 'stat', blocks)
    with pytest.raises(PermissionError, match='it is a pipe, a socket or a disk'):
        files.write_json(tmp_path / 'sda', 1)
    monkeypatch.undo()
    assert (tmp_path / 'sda').read_text() == 'all data'


@given(content=CONTENT, links=st.integers(0, 2))
def test_a_character_device_is_written_to_and_stays(content, links):
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)  # nothing to read is an error
    try:
        with place() as folder:
            device = pathlib.Path(os.ttyname(slave))
            before, path = device.stat(), linked(device, links, folder)
            files.check_writable(path)
            files.write_json(path, content)
            assert os.path.samestat(before, device.stat()) and len(list(folder.iterdir())) == links
            told = b''
            while not told.endswith(b'\n'):
                told += os.read(master, 1000)
            assert json.loads(told) == content
    finally:
        os.close(master)
        os.close(slave)


def test_what_fills_a_device_sees_a_file_with_the_ending_of_the_link(tmp_path):
    """matplotlib would make a file device.png beside a device without an ending."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    (tmp_path / 'x.png').symlink_to(os.ttyname(slave))
    seen = []
    files.write_whole(tmp_path / 'x.png', lambda file: seen.append(file) or file.write_bytes(b'picture'))
    assert seen[0].suffix == '.png' and not seen[0].exists() and os.read(master, 7) == b'picture'
    os.close(master)
    os.close(slave)


def test_the_output_of_the_process_is_written_to_in_order(capfd):
    print('before')
    files.write_json(pathlib.Path('/dev/stdout'), {'a': 1})
    print('after', flush=True)
    assert capfd.readouterr().out.split() == ['before', '{', '"a":', '1', '}', 'after']


@pytest.mark.parametrize('read', [files.read_json, files.read_lines])
def test_pipes_and_nests_are_read_as_damage(read, tmp_path):
    special('pipe', tmp_path / 'pipe')
    (tmp_path / 'deep').write_text('[' * 100_000 + '\n')
    (tmp_path / 'bytes').write_bytes(b'\xff\n')
    for name, says in (('pipe', 'no regular file'), ('deep', 'recursion'), ('bytes', 'decode')):
        with pytest.raises(ValueError, match=rf'{name} is damaged \(.*{says}'):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ('command', 'flag'),
    [
        *(('cnn', flag) for flag in ('json', 'figure', 'curves')),
        *(('amato', flag) for flag in ('json', 'markdown', 'figure')),
        ('dense', 'json'),
        ('miconi', 'json'),
    ],
)
@pytest.mark.parametrize('kind', ['pipe', 'socket', 'read-only'])
def test_every_flag_that_names_a_file_is_met_before_training(command, flag, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, 'material', lambda config: pytest.fail('data was read'))
    path = tmp_path / 'x.png'
    if kind == 'read-only':
        path.touch(0o444)
    else:
        special(kind, path)
    before = path.stat()
    assert cli.main([command, f'--{flag}', str(path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f'hebbjax {command}: error: {path} cannot be written: ') and told.count('\n') == 1
    assert os.path.samestat(before, path.stat()) and list(tmp_path.iterdir()) == [path]


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
