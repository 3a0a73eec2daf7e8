"""One way in which imports run: upward, without circles, without a sibling's private names.

The checker reads the sources as text, so it sees imports inside functions as well.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

import hebbjax

ROOT = pathlib.Path(hebbjax.__file__).parent
ORDER = [
    {'checks'},
    {'values'},
    {'types'},
    {
        'chunks',
        'patches',
        'pooling',
        'whitening',
        'augment',
        'norms',
        'teachers',
        'schedules',
        'initial',
        'competition',
        'interrupt',
        'activations',
        'homeostasis',
        'plasticity',
        'measures',
        'surrogate',
        'decoding',
    },
    {'rules'},
    {'prototypes'},
    {'maps'},
    {'layers'},
    {'learning', 'monitor', 'stages', 'frozen', 'receptive'},
    {'train', 'readout'},
    {'parallel', 'models', 'moment'},
    {'supervised'},
    {'hybrid'},
    {'loop', 'evaluation'},
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
LEAVES = {
    'data',
    'prepare',
    'files',
    'checkpoint',
    'resume',
    'visualize',
    'charts',
    'distributions',
    'progress',
    'output',
    'callbacks',
    'loggers',
    'runs',
    'interop',
    'hebbify',
    'export',
}
JOBS = {'jobs', 'cli', '__main__'}
ROOMS = {*LEVEL, *LEAVES, *JOBS}


def sources():
    """Every module of the library: dotted name without the package -> source."""
    files = {path.relative_to(ROOT).with_suffix(''): path for path in ROOT.rglob('*.py')}
    return {'.'.join(part for part in name.parts if part != '__init__'): p.read_text() for name, p in files.items()}


def imported(source):
    """What of the library a module imports: [(dotted name, asked for by that very name)], each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(a.name, node.lineno) for a in node.names if a.name.split('.')[0] == 'hebbjax']
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.append(('.' * node.level + (node.module or ''), node.lineno))
        elif isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'hebbjax':
            found += [(f'{node.module}.{a.name}', node.lineno) for a in node.names]
    return [(name.removeprefix('hebbjax').removeprefix('.') if name[0] != '.' else name, line) for name, line in found]


def module_of(name, modules):
    """The module that a dotted name lies in: `rules.krotov` -> `rules`, `jobs.arms.Trained` -> `jobs.arms`."""
    while name and name not in modules:
        name = name.rpartition('.')[0]
    return name


def violations(name, source, modules):
    """Say, in a line each, what a module does that the order of imports forbids."""
    own, said = name.split('.')[0], []
    aliases = set()
    for target, line in imported(source):
        where = f'{name}:{line}'
        if target.startswith('.'):
            said.append(f'{where} imports relatively; write the whole name')
            continue
        module = module_of(target, modules)
        room = module.split('.')[0]
        if target == module:
            aliases.add(module.rpartition('.')[2])
        if any(part.startswith('_') and not part.startswith('__') for part in target.split('.')):
            said.append(f'{where} imports the private {target}')
        if not name:
            continue  # the public surface may show anything
        if not module:
            said.append(f'{where} imports {target or "the package"} from the package itself')
        elif own in LEVEL and room not in LEVEL:
            said.append(f'{where} belongs to the core and imports {room}')
        elif own in LEVEL and LEVEL[room] >= LEVEL[own]:
            said.append(f'{where} imports {room}, which does not stand before it')
        elif own in LEAVES and room in JOBS:
            said.append(f'{where} is a leaf and imports {room}')
        elif own == 'jobs' and room in ('cli', '__main__'):
            said.append(f'{where} is a job and imports {room}')
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr.startswith('_') and not node.attr.startswith('__'):
            owner = ast.unparse(node.value)
            if owner.split('.')[-1] in aliases:
                said.append(f'{name}:{node.lineno} reaches for the private {owner}.{node.attr}')
    return said


def configures(source):
    """Lines that set jax's configuration: `jax.config.update(...)`, `config.update`, or an assignment to it."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == 'update'
        if called and ast.unparse(node.func.value).split('.')[-1] == 'config':
            lines.append(node.lineno)
        if isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            lines += [node.lineno for t in targets if ast.unparse(t).startswith('jax.config')]
    return lines


def circle(graph):
    """Find modules that import one another in a circle, or nothing."""
    done = set()

    def visit(name, path):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        found = next((c for other in sorted(graph[name]) if (c := visit(other, [*path, name]))), None)
        done.add(name)
        return found

    return next((c for name in sorted(graph) if (c := visit(name, []))), None)


def test_every_module_has_a_room():
    assert {name.split('.')[0] for name in sources() if name} <= ROOMS
    assert set(LEVEL) <= set(sources())


@pytest.mark.parametrize('name', sorted(sources()))
def test_modules_import_upward_and_public_names_only(name):
    assert violations(name, sources()[name], set(sources())) == []


def test_modules_do_not_import_in_circles():
    modules = sources()
    graph = {name: {module_of(t, modules) for t, _ in imported(source)} - {''} for name, source in modules.items()}
    assert circle(graph) is None


@pytest.mark.parametrize('name', sorted(sources()))
def test_the_library_never_configures_jax(name):
    assert configures(sources()[name]) == []


@pytest.mark.parametrize(
    'name, source, says',
    [
        ('rules', 'from hebbjax.layers import Layer', 'rules:1 imports layers, which does not stand before it'),
        ('rules', 'def f():\n    import hebbjax.train', 'rules:2 imports train, which does not stand before it'),
        ('patches', 'from hebbjax import measures', 'imports measures, which does not stand before it'),
        ('train', 'from hebbjax import readout', 'imports readout, which does not stand before it'),
        ('layers', 'from hebbjax.data import load', 'belongs to the core and imports data'),
        ('supervised', 'import hebbjax.jobs.arms', 'belongs to the core and imports jobs'),
        ('layers', 'from hebbjax.patches import _pair', 'imports the private patches._pair'),
        ('layers', 'from hebbjax import patches\npatches._pair(1)', 'layers:2 reaches for the private patches._pair'),
        ('layers', 'import hebbjax.patches\nhebbjax.patches._pair(1)', 'the private hebbjax.patches._pair'),
        ('layers', 'from . import patches', 'imports relatively'),
        ('layers', 'from hebbjax import krotov', 'imports krotov from the package itself'),
        ('layers', 'import hebbjax', 'imports the package from the package itself'),
        ('checkpoint', 'from hebbjax.jobs import arms', 'is a leaf and imports jobs'),
        ('jobs.arms', 'from hebbjax import cli', 'is a job and imports cli'),
    ],
)
def test_the_checker_sees_a_violation(name, source, says):
    (said,) = violations(name, source, {*ROOMS, 'jobs.arms'})
    assert says in said


def test_the_checkers_see_circles_and_configuration_and_let_the_rest_pass():
    assert circle({'a': {'b'}, 'b': {'c'}, 'c': {'a'}, 'd': set()}) == ['a', 'b', 'c', 'a']
    assert circle({'a': {'b', 'c'}, 'b': {'c'}, 'c': set()}) is None
    for source in ('jax.config.update("a", 1)', 'config.update("a", 1)', 'jax.config.jax_enable_x64 = True'):
        assert configures(source) == [1]
    assert configures('settings.update(a=1); config = {}') == []
    fine = 'import jax\nfrom hebbjax import rules\nfrom hebbjax.types import Array\nrule._replace(a=1); rules.oja()'
    assert violations('layers', fine, ROOMS) == []


def test_importing_the_library_is_light():
    """Neither the surface nor the core drags in data sets, TensorFlow or figures."""
    heavy = ['tensorflow', 'tensorflow_datasets', 'matplotlib', 'sklearn', 'orbax']
    core = ', '.join(f'hebbjax.{name}' for name in sorted(LEVEL))
    code = f'import sys, hebbjax, {core}; print([name for name in {heavy} if name in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT.parent)
    assert (done.returncode, done.stdout.strip()) == (0, '[]'), done.stderr
