"""Commands under hostile hands: drawn flags, and run folders whose files were edited, end in one sentence."""

import concurrent.futures
import dataclasses
import json
import random
import threading
import typing

import pytest

from hebbjax import data
from hebbjax.cli import compare, evaluate, flags, plot, run_folder, settings, show, train
from hebbjax.plots import Figure
from hebbjax.support import files
from hebbjax.training.presets import TUNED

COMMANDS = {
    'compare': compare.Compare,
    'train cnn': train.TrainKrotov,
    'train miconi': train.TrainMiconi,
    'train': train.Resume,
    'evaluate': evaluate.Evaluate,
    'plot': plot.Plot,
    'show': show.Show,
}
NEEDED = {'train': ['--resume', 'nowhere'], 'evaluate': ['nowhere'], 'plot': ['nowhere'], 'show': ['nowhere']}
NO_FLOATS = ('nan', 'inf', '-inf', '1e400', '-1e400', '1e31', '-1e31')
NO_INTS = ('9' * 20, '-' + '9' * 20, '-1', '1000001')
WORDS = ('[/red]', 'a[/b]', 'ü', 'x' * 5000, '', ':smile:', '日本\n', '-1', 'nan', '../..', '[bold]')
FLAGS = [
    (command, field.name, str(typing.get_type_hints(config)[field.name]))
    for command, config in COMMANDS.items()
    for field in dataclasses.fields(config)
    if field.name not in ('folder', 'resume', 'network')
]
NUMBERS = [flag for flag in FLAGS if 'int' in flag[2] or 'float' in flag[2]]


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """An empty folder to work in, and data that cannot be read: whoever comes so far was accepted."""
    asked = []

    def load(*args, **where):
        asked.append(args)
        raise ValueError('data was asked for')

    monkeypatch.setattr(data, 'read', load)
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.parametrize('command', COMMANDS)
def test_values_that_nothing_can_be_done_with_are_refused_before_data_is_read(command, no_data, tmp_path, call, refuse):
    draw, needed = random.Random(command), [*command.split(), *NEEDED.get(command, [])]
    for _, name, hint in (flag for flag in NUMBERS if flag[0] == command):
        value = draw.choice(NO_FLOATS if 'float' in hint else NO_INTS[: 4 if name != 'seed' else 2])
        said = refuse(needed, flags.flag(name), [value] * (3 if name == 'features' and 'miconi' in command else 1))
        assert said.startswith(f'hebbjax {command.split()[0]}: error: {flags.flag(name)}'), said
        assert not no_data and not list(tmp_path.iterdir())
    for _, name, _ in (flag for flag in FLAGS if flag[0] == command):
        code, _, said = call(needed, flags.flag(name), draw.choice(WORDS))
        assert code == 2 and said and not list(tmp_path.iterdir()), name
        assert not said.startswith('hebbjax') or said.count('\n') == 1, said


def test_every_number_has_bounds_and_every_setting_of_its_own_passes():
    assert len(NUMBERS) > 50
    for network, tuned in TUNED.items():
        assert set(tuned) == set(data.NAMES)
        for dataset in tuned:
            compare.Compare(network=network, dataset=dataset).resolve()
            train.TrainKrotov(network=network, dataset=dataset).resolve()
    train.TrainMiconi().resolve()


# run folders whose files were edited


@pytest.fixture
def edited(folder, monkeypatch):
    """A copy of a run to edit. What reads it well comes no further than a mark in place of training or drawing."""

    def reached(*args, **how):
        raise ValueError('reached')

    monkeypatch.setattr(train, 'go_on', reached)
    monkeypatch.setattr(train.Watched, 'probe', reached)
    monkeypatch.setattr(plot.files, 'write_whole', reached)
    for drawing in ('receptive_field_grid', 'metric_curves'):  # which read no file
        monkeypatch.setattr(plot.plots, drawing, lambda *args, **how: Figure())
    return folder


HOSTILE = ('6', 3.5, None, True, [], {}, [1, 2], '[/red]', -1, 0, 10**12, 10**400, 1e308, float('nan'), float('inf'),
           [[]], {'a': {}}, '', '../../x')  # fmt: skip


def places(value, path=()):
    """Every place in a JSON value, as a path of keys and numbers; of long lists the first and the last."""
    yield path
    keys = value if isinstance(value, dict) else {0, len(value) - 1} if isinstance(value, list) and value else ()
    for key in keys:
        yield from places(value[key], (*path, key))


def changed(draw, value):
    """Take something out of a JSON value, or put something else in its place; say what was done."""
    value = json.loads(json.dumps(value))
    path = draw.choice(list(places(value)))
    if not path:
        return (new := draw.choice(HOSTILE)), f'all = {new!r:.30}'
    *above, last = path
    holder = value
    for key in above:
        holder = holder[key]
    if draw.random() < 0.3:
        del holder[last]
        return value, f'{path} taken out'
    holder[last] = draw.choice(HOSTILE)
    return value, f'{path} = {holder[last]!r:.30}'


@pytest.fixture
def look_at(refuse):
    """(folder, command) -> the sentence that an edited folder is refused with, nothing changed; '' if it is read."""

    def look(folder, command):
        sizes = lambda: {path: path.stat().st_size for path in folder.rglob('*') if path.name != run_folder.LOCK}  # noqa: E731
        before = sizes()
        said = refuse(command.split(), folder)
        assert sizes() == before
        return said if 'error: reached' not in said else ''

    return look


LOOKING = ('plot', 'evaluate', 'train --resume')


@pytest.mark.parametrize(
    ('name', 'commands'), [('config.json', LOOKING), ('details.jsonl', ('plot',)), ('evaluation.json', ('plot',))]
)
def test_edited_files_are_refused_or_read_and_never_a_traceback(name, commands, edited, monkeypatch, look_at):
    if name == 'evaluation.json':
        monkeypatch.setattr(plot, 'draw_logs', lambda *args: {})
    draw, path = random.Random(name), edited / name
    whole = files.read_lines(path) if path.suffix == '.jsonl' else files.read_json(path)
    for _ in range(10):
        content, what = changed(draw, whole)
        lines = '\n'.join(map(json.dumps, content)) + '\n' if isinstance(content, list) else json.dumps(content)
        path.write_text(lines if path.suffix == '.jsonl' else json.dumps(content))
        said = look_at(edited, draw.choice(commands))
        assert (
            not said or name in said or 'began with' in said or 'another' in said or 'hold' in said or 'fit' in said
        ), (what, said)


def test_other_content_is_damage(edited, look_at):
    for name in ('config.json', 'evaluation.json', 'details.jsonl'):
        whole = (edited / name).read_bytes()
        for text in ('[' * 100_000, '7\n', 'null\n', '[]\n' * 2, '\x00\n', '\udcff\n', '{"rows": null}\n',
                     '{"rows": [1]}\n', '{"rows": [{"confusion": [[1]]}]}\n', '9' * 5000 + '\n'):  # fmt: skip
            (edited / name).write_bytes(text.encode(errors='surrogateescape'))
            said = look_at(edited, 'plot')
            is_cut_off = name == 'details.jsonl' and text[-1] != '\n'  # a line that is left out
            assert is_cut_off or f'{name} is damaged' in said, (text[:30], said)
        (edited / name).write_bytes(whole)


def test_settings_of_another_type_or_size_are_damage(edited, look_at):
    path, draw = edited / 'config.json', random.Random(0)
    config = files.read_json(path)
    for value in ('6', 3.5, True, None, [1], {}, float('nan'), -1, 10**12):
        name = draw.choice(['features', 'window', 'patches_per_image', 'epochs', 'k', 'seed', 'monitor_every', 'batch'])
        path.write_text(json.dumps(config | {'settings': config['settings'] | {name: value}}))
        said = look_at(edited, draw.choice(LOOKING))
        optional = value is None and name not in ('seed', 'monitor_every')  # left out: the data set's own
        assert optional or f'config.json is damaged ({flags.flag(name)}=' in said, (name, said)


def test_other_images_than_the_run_began_with_are_refused(edited, monkeypatch, look_at):
    load = data.read

    def brighter(name, split='train', **where):
        reading = load(name, split, **where)
        return reading._replace(images=reading.images ^ 1)

    with monkeypatch.context() as patched:
        patched.setattr(data, 'read', brighter)
        for command in ('evaluate', 'train --resume'):
            assert 'began with other training or validation images' in look_at(edited, command)
    config = files.read_json(edited / 'config.json')
    config['settings']['validation'] = 0.31
    (edited / 'config.json').write_text(json.dumps(config))
    assert '--validation 0.31' in look_at(edited, 'evaluate')


# what a command leaves behind, and where it writes


def test_runs_that_begin_at_once_each_find_a_folder(tmp_path):
    """Between looking for a name and taking it, all others have looked, too."""
    together = threading.Barrier(8)

    def begin(number):
        together.wait()
        return run_folder.create_numbered(tmp_path / 'cnn', {'number': number}, {})

    for _ in range(5):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            folders = list(pool.map(begin, range(8)))
        assert len(set(folders)) == 8
        assert [files.read_json(folder / 'config.json')['number'] for folder in folders] == list(range(8))
    assert {path.name for path in tmp_path.iterdir()} == {f'cnn-{number}' for number in range(1, 41)}


def test_a_read_only_run_is_evaluated_and_plotted_into_another_folder(folder, tmp_path, monkeypatch, call, refuse):
    (folder / 'evaluation.json').unlink()
    monkeypatch.setattr(run_folder.os, 'access', lambda path, mode: folder not in (path, *path.parents))  # as root may
    monkeypatch.setattr(plot, 'draw_logs', lambda *args: {})  # which takes its time
    before, out = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}, tmp_path / 'out'
    for command in (['evaluate', folder, '--rows', 'hebbian', '--readout', 'ridge'], ['plot', folder]):
        assert refuse(command).endswith(' is no folder that may be written to; name another one with --out.\n')
        assert call(command, '--out', out)[0] == 0
        assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == before
        for bad in (tmp_path / 'a' / 'b', out / 'evaluation.json'):
            said = refuse(command, '--out', bad)
            assert 'is no folder' in said and '--out' in said
    made = {'evaluation.json', 'layer1_fields.png', 'confusion_hebbian.png'}
    assert {path.name for path in out.iterdir()} == made
    assert {path.name for path in tmp_path.iterdir()} == {'run', 'out'}


@pytest.mark.parametrize('command', [['compare', '--network', 'dense'], ['train', 'cnn', '--patches-per-image', '0']])
def test_networks_larger_than_memory_are_refused(command, few_digits, tmp_path, monkeypatch, refuse):
    monkeypatch.setattr(settings, 'device_memory', lambda: 10**7)
    monkeypatch.chdir(tmp_path)
    said = refuse(command, '--features', random.Random(0).randint(100_000, 10**6))
    assert 'GB cannot learn in a memory of 0.01 GB; use fewer --features.' in said
    assert not list(tmp_path.iterdir())
