"""Commands under hostile hands: drawn flags, and run folders whose files were edited, end in one sentence."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import shutil
import tempfile
import threading
import typing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from hebbjax import cli, data, files, runs
from hebbjax.jobs import amato, cnn, dense, evaluate, miconi, picture, recipes, schema, train

COMMANDS = {
    'cnn': cnn.Config,
    'dense': dense.Config,
    'miconi': miconi.Config,
    'amato': amato.Config,
    'train cnn': recipes.Cnn,
    'train dense': recipes.Dense,
    'train miconi': recipes.Miconi,
    'train': train.Resume,
    'evaluate': evaluate.Evaluate,
    'picture': picture.Picture,
}
NEEDED = {'train': ['--resume', 'nowhere'], 'evaluate': ['nowhere'], 'picture': ['nowhere']}
NO_FLOATS = ('nan', 'inf', '-inf', '1e400', '-1e400', '1e31', '-1e31')
NO_INTS = ('9' * 20, '-' + '9' * 20, '-1', '1000001')
WORDS = ('[/red]', 'a[/b]', 'ü', 'x' * 5000, '', ':smile:', '日本\n', '-1', 'nan', '../..', '[bold]')
FLAGS = [
    (command, field.name, str(typing.get_type_hints(config)[field.name]))
    for command, config in COMMANDS.items()
    for field in dataclasses.fields(config)
    if field.name not in ('folder', 'resume')
]
NUMBERS = [flag for flag in FLAGS if 'int' in flag[2] or 'float' in flag[2]]


def called(argv, capsys):
    """Run a command; give its exit code and what it said on stderr."""
    try:
        code = cli.main(list(map(str, argv)))
    except SystemExit as ended:  # tyro's own
        code = ended.code
    said = capsys.readouterr()
    assert 'Traceback' not in said.err + said.out
    return code, said.err


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """An empty folder to work in, and data that cannot be read: whoever comes so far was accepted."""
    asked = []

    def load(*args, **where):
        asked.append(args)
        raise ValueError('data was asked for')

    monkeypatch.setattr(data, 'load', load)
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.parametrize('command', COMMANDS)
def test_numbers_that_nothing_can_be_done_with_are_refused_before_data_is_read(command, no_data, tmp_path, capsys):
    draw = random.Random(command)
    for _, name, hint in (flag for flag in NUMBERS if flag[0] == command):
        many = 3 if 'tuple' in hint else 1
        for value in draw.sample(NO_FLOATS if 'float' in hint else NO_INTS[: 4 if name != 'seed' else 2], 2):
            argv = [*command.split(), *NEEDED.get(command, []), schema.flag(name), *[value] * many]
            code, said = called(argv, capsys)
            assert code == 2 and not no_data and not list(tmp_path.iterdir()), (name, value)
            assert said.startswith(f'hebbjax {command}: error: {schema.flag(name)}') and said.count('\n') == 1, said


def test_every_number_has_bounds_and_every_setting_of_its_own_passes():
    assert len(NUMBERS) > 100
    for config in (cnn.Config, dense.Config, recipes.Cnn, recipes.Dense):
        for dataset in data.NAMES:
            config(dataset=dataset).resolve()
    for config in (miconi.Config, recipes.Miconi, amato.Config):
        config().resolve()


@pytest.mark.parametrize('command', COMMANDS)
def test_words_in_any_flag_end_in_a_sentence_and_leave_nothing(command, no_data, tmp_path, capsys):
    draw = random.Random(command)
    for _, name, _ in (flag for flag in FLAGS if flag[0] == command):
        value = draw.choice(WORDS)
        code, said = called([*command.split(), *NEEDED.get(command, []), schema.flag(name), value], capsys)
        assert code == 2 and said and not list(tmp_path.iterdir()), (name, value)
        if said.startswith('hebbjax'):
            assert said.count('\n') == 1, said


# run folders whose files were edited


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A tiny run, evaluated; tests work on copies."""
    folder, whole = tmp_path_factory.mktemp('runs') / 'run', data.load
    with pytest.MonkeyPatch.context() as patched:
        few = lambda *args, **where: data.Split(*(part[:300] for part in whole(*args, **where)))  # noqa: E731
        patched.setattr(data, 'load', few)
        settings = ['--features', '6', '--epochs', '2', '--callbacks', 'log', 'checkpoint', '--look', '2']
        assert cli.main(['train', 'cnn', *settings, '--run', str(folder)]) == 0
        assert cli.main(['evaluate', str(folder), '--rows', 'hebbian']) == 0
    return folder


@pytest.fixture
def edited(run, tmp_path, monkeypatch, few_digits):
    """A copy of the run to edit. What reads it well comes no further than a mark in place of training or drawing."""

    def reached(*args, **how):
        raise ValueError('reached')

    monkeypatch.setattr(train, 'go_on', reached)
    monkeypatch.setattr(evaluate, 'fit', reached)
    monkeypatch.setattr(picture.files, 'write_whole', reached)
    monkeypatch.setattr(picture.visualize, 'fields', lambda *args, **how: Figure())  # takes long, and reads no file
    folder = shutil.copytree(run, tmp_path / 'run')
    (folder / runs.PICTURES).mkdir()
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


def looked_at(folder, command, capsys):
    """Run a command on a folder that was edited; say whether it was refused, in one sentence, with nothing changed."""
    before = {path: path.stat().st_size for path in folder.rglob('*') if path.name != runs.LOCK}
    code, said = called([*command.split(), folder], capsys)
    assert code == 2 and said.count('\n') == 1, said
    assert {path: path.stat().st_size for path in folder.rglob('*') if path.name != runs.LOCK} == before
    return said if 'error: reached' not in said else ''


LOOKING = ('picture', 'evaluate', 'train --resume')


@pytest.mark.parametrize(
    ('name', 'commands'),
    [
        ('config.json', LOOKING),
        ('details.jsonl', ('picture', 'train --resume')),
        ('evaluation.json', ('picture', 'evaluate')),
        ('versions.json', ('train --resume',)),
    ],
)
@pytest.mark.parametrize('seed', range(2))
def test_edited_files_are_refused_or_read_and_never_a_traceback(name, commands, seed, edited, monkeypatch, capsys):
    if name == 'evaluation.json':
        monkeypatch.setattr(picture, 'of_logs', lambda *args: ())
    draw, path = random.Random(f'{name} {seed}'), edited / name
    whole = files.read_lines(path) if path.suffix == '.jsonl' else files.read_json(path)
    for _ in range(12):
        content, what = changed(draw, whole)
        lines = '\n'.join(map(json.dumps, content)) + '\n' if isinstance(content, list) else json.dumps(content)
        path.write_text(lines if path.suffix == '.jsonl' else json.dumps(content))
        said = looked_at(edited, draw.choice(commands), capsys)
        assert not said or name in said or 'another' in said or 'hold' in said or 'fit' in said, (what, said)


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        *((name, text) for name in ('config.json', 'evaluation.json', 'versions.json', 'details.jsonl')
          for text in ('[' * 100_000, '7\n', 'null\n', '[]\n' * 2, '"x"\n', '\x00\n', '\udcff\n', '{"rows": null}\n',
                       '{"rows": [1]}\n', '{"rows": [{"row": "../x", "confusion": [[1]]}]}\n', '9' * 5000 + '\n')),
    ],
)  # fmt: skip
def test_other_content_is_damage(name, text, edited, capsys):
    (edited / name).write_bytes(text.encode(errors='surrogateescape'))
    command = {'versions.json': 'train --resume'}.get(name, 'picture')
    if name == 'details.jsonl' and text[-1] != '\n':
        assert not looked_at(edited, command, capsys)  # a line that was cut off
    else:
        assert f'{name} is damaged' in looked_at(edited, command, capsys)


@pytest.mark.parametrize('value', ['6', 3.5, True, None, [1], {}, float('nan'), -1, 10**12])
def test_settings_of_another_type_or_size_are_damage(value, edited, capsys):
    config = files.read_json(edited / 'config.json')
    draw = random.Random(str(value))
    for name in draw.sample(['features', 'window', 'glimpses', 'epochs', 'k', 'seed', 'look', 'batch'], 3):
        config['settings'] = files.read_json(runs_config := edited / 'config.json')['settings'] | {name: value}
        runs_config.with_name('kept').write_text(runs_config.read_text())
        runs_config.write_text(json.dumps(config))
        said = looked_at(edited, draw.choice(LOOKING), capsys)
        optional = value is None and name not in ('seed', 'look')  # left out: the data set's own
        assert optional or f'config.json is damaged (--{name} ' in said, (name, said)
        runs_config.with_name('kept').replace(runs_config)


@pytest.mark.parametrize('seed', range(4))
def test_another_split_than_the_run_began_with_is_refused(seed, edited, capsys):
    draw, config = random.Random(seed), files.read_json(edited / 'config.json')
    config['settings']['validation'] = draw.uniform(0.1, 0.9)
    (edited / 'config.json').write_text(json.dumps(config))
    said = looked_at(edited, draw.choice(['evaluate', 'train --resume']), capsys)
    assert 'began with other training or validation images' in said
    assert f'--validation {config["settings"]["validation"]}' in said


def test_other_images_of_the_same_number_are_refused_and_older_runs_go_on(edited, monkeypatch, capsys):
    load = data.load

    def brighter(name, split='train', **where):
        images, labels = load(name, split, **where)
        return data.Split(images ^ 1, labels)

    with monkeypatch.context() as patched:
        patched.setattr(data, 'load', brighter)
        for command in ('evaluate', 'train --resume'):
            assert 'began with other training or validation images' in looked_at(edited, command, capsys)
    config = files.read_json(edited / 'config.json')
    del config['data']['digest']
    (edited / 'config.json').write_text(json.dumps(config))
    for command in ('evaluate', 'train --resume'):
        assert not looked_at(edited, command, capsys)


# what a command leaves behind, and where it writes


@pytest.mark.parametrize(
    ('argv', 'breaks'),
    [
        ('train cnn --callbacks log checkpoint', 'hebbjax.jobs.train.go_on'),
        ('train dense --dataset digits', 'hebbjax.jobs.train.go_on'),
        ('cnn', 'hebbjax.jobs.compare.train_row'),
        ('dense --dataset digits --rows untrained', 'hebbjax.jobs.arms.supervised.fit'),
    ],
)
def test_what_is_refused_before_anything_was_reached_leaves_no_folder(
    argv, breaks, few_digits, relaxed, tmp_path, monkeypatch, capsys
):
    def diverged(*args, **how):
        raise ValueError('the loss is no longer a number.')

    monkeypatch.setattr(breaks, diverged)
    sizes = ['--features', '6', '--epochs', '1', '--head-epochs', '1']
    code, said = called([*argv.split(), *sizes, '--run', tmp_path / 'run'], capsys)
    assert (code, said) == (2, f'hebbjax {argv.partition(" --")[0]}: error: the loss is no longer a number.\n')
    assert not list(tmp_path.iterdir())


def test_a_refusal_takes_away_no_more_than_was_made_just_now(tmp_path):
    for name, reached in (('a', ['metrics.jsonl']), ('b', ['seed0/G16.npz']), ('c', []), ('d', ['.lock'])):
        folder = runs.create(tmp_path / name, {}, {})
        for file in reached:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).touch()
        with pytest.raises(ValueError), runs.tentative(folder):
            raise ValueError
        assert folder.exists() == (name in 'ab')
    with pytest.raises(OSError), runs.tentative(folder := runs.create(tmp_path / 'e', {}, {})):
        raise OSError  # a full disk, say: make room, and go on
    assert folder.exists()


def test_runs_that_begin_at_once_each_find_a_folder(tmp_path):
    """Between looking for a name and taking it, all others have looked, too."""
    together = threading.Barrier(8)

    def begin(number):
        together.wait()
        return runs.create_free(tmp_path, 'cnn', {'number': number}, {})

    for _ in range(5):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            made = list(pool.map(begin, range(8)))
        assert len(set(made)) == 8
        assert [files.read_json(folder / 'config.json')['number'] for folder in made] == list(range(8))
    assert {path.name for path in tmp_path.iterdir()} == {f'cnn-{number}' for number in range(1, 41)}


def test_a_name_that_is_taken_meanwhile_is_not_written_into(tmp_path, monkeypatch):
    replace = os.replace

    def late(made, folder):
        if folder.name == 'run-1':
            folder.mkdir(exist_ok=True)
            (folder / 'theirs').touch()
        replace(made, folder)

    monkeypatch.setattr(runs.os, 'replace', late)
    with pytest.raises(FileExistsError, match='is not empty; name a new folder'):
        runs.create(tmp_path / 'run-1', {}, {})
    (tmp_path / 'run-1' / 'theirs').unlink()
    (tmp_path / 'run-1').rmdir()
    assert runs.create_free(tmp_path, 'run', {}, {}).name == 'run-2'
    assert {path.name for path in tmp_path.rglob('*')} == {'run-1', 'theirs', 'run-2', 'config.json', 'versions.json'}


def test_a_read_only_run_is_evaluated_and_pictured_into_another_folder(run, tmp_path, monkeypatch, few_digits, capsys):
    folder = shutil.copytree(run, tmp_path / 'run')
    (folder / 'evaluation.json').unlink()
    monkeypatch.setattr(runs.os, 'access', lambda path, mode: folder not in (path, *path.parents))  # root may write
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    out = tmp_path / 'out'
    for command in ('evaluate --rows hebbian', 'picture'):
        name, *rows = command.split()
        code, said = called([name, folder, *rows], capsys)
        assert code == 2 and said.endswith('run may not be written to; name another folder with --out.\n')
        assert called([name, folder, *rows, '--out', out], capsys)[0] == 0
        assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == before
    made = {path.name for path in out.iterdir()}
    assert made >= {'evaluation.json', 'layer1_fields.png', 'confusion_hebbian.png', 'wins.png'}
    for bad, says in ((tmp_path / 'a' / 'b', 'is no folder'), (out / 'evaluation.json', 'is no folder')):
        for command in ('evaluate', 'picture'):
            code, said = called([command, folder, '--out', bad], capsys)
            assert code == 2 and says in said and '--out' in said
    assert {path.name for path in tmp_path.iterdir()} == {'run', 'out'}


@pytest.mark.parametrize('command', ['dense', 'train dense', 'cnn', 'train cnn'])
def test_networks_larger_than_memory_are_refused(command, few_digits, tmp_path, monkeypatch, capsys):
    features = random.Random(command).randint(100_000, 10**6)
    monkeypatch.setattr('hebbjax.chunks.memory', lambda: 10**7)
    flags = ['--dataset', 'digits', '--features', features, '--rows', 'hebbian', '--run', tmp_path / 'run']
    code, said = called([*command.split(), *(flags if ' ' not in command else flags[:4] + flags[6:])], capsys)
    assert code == 2 and 'GB cannot learn in a memory of 0.01 GB; use fewer --features.' in said
    assert not list(tmp_path.iterdir())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.floats().map(np.float64) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)
def test_results_hold_no_bare_nan(content):
    def refuse(constant):
        raise AssertionError(constant)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'x.json')
        files.write_json(path, content)
        json.loads(path.read_text(), parse_constant=refuse)
