"""One way in which imports run, by package; one public name for one thing; a house that can be read.

The sources are read as text, so imports inside functions count as well.
"""

import ast
import collections
import pathlib
import subprocess
import sys

import pytest

import hebbjax

ROOT = pathlib.Path(hebbjax.__file__).parent
ORDER = [
    {'support'},
    {'base'},
    {'data', 'transforms', 'diagnostics'},
    {'rules'},
    {'layers'},
    {'readout', 'plots'},
    {'training'},
    {'interop'},
    {'learned', 'cli'},
    {'__main__'},
]
LEVEL = {package: level for level, packages in enumerate(ORDER) for package in packages}
LEAVES = {'data', 'plots', 'interop'}  # nothing but what trains and the command line stands on them
ON_LEAVES = {'training', 'learned', 'cli', '__main__'} | LEAVES


def sources():
    """Every module of the library: dotted name without the package -> source."""
    files = {path.relative_to(ROOT).with_suffix(''): path for path in ROOT.rglob('*.py')}
    return {'.'.join(part for part in name.parts if part != '__init__'): p.read_text() for name, p in files.items()}


def imported(source):
    """What of the library a module imports: [(dotted name without the package, line)]."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [('.' * node.level + f'{node.module or ""}.{alias.name}', node.lineno) for alias in node.names]
    own = [(name, line) for name, line in names if name.split('.')[0] in ('', 'hebbjax')]
    return [(name if name[0] == '.' else name.removeprefix('hebbjax').removeprefix('.'), line) for name, line in own]


def violations(name, source):
    """Say, in a line each, what a module does that the order of packages forbids."""
    package, said = name.split('.')[0], []
    for target, line in imported(source):
        room = target.split('.')[0]
        if target.startswith('.'):
            said.append(f'{name}:{line} imports relatively; write the whole name')
        elif any(part.startswith('_') and not part.startswith('__') for part in target.split('.')):
            said.append(f'{name}:{line} imports the private {target}')
        elif not name:
            continue  # the public surface may show anything
        elif room not in LEVEL:
            said.append(f'{name}:{line} imports {target or "the package"} from the package itself')
        elif room == package:
            # `from hebbjax.rules import local` would be the function, where it is the module that is meant
            is_module = (ROOT / f'{target.replace(".", "/")}.py').exists()
            if '.' in name and target.count('.') < 2 and not is_module:
                said.append(f'{name}:{line} imports {target} from its own package; name the module')
        elif LEVEL[room] >= LEVEL[package]:
            said.append(f'{name}:{line} imports {room}, which does not stand before {package}')
        elif room in LEAVES and package not in ON_LEAVES:
            said.append(f'{name}:{line} imports {room}, a leaf')
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


def public_names(source):
    """What a module defines for others: functions, classes and constants at its top, less what begins with _."""
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith('_')]


def test_packages_import_upward_and_public_names_only():
    assert [said for name, source in sources().items() for said in violations(name, source)] == []


def test_modules_do_not_import_in_circles():
    modules = sources()
    graph = {
        name: {
            target if target in modules else target.rpartition('.')[0]
            for target, _ in imported(source)
            if {target, target.rpartition('.')[0]} & {*modules} - {''}
        }
        for name, source in modules.items()
        if name.count('.') or (ROOT / f'{name}.py').exists()
    }

    def visit(name, path):
        assert name not in path, f'imports run in a circle: {" -> ".join([*path, name])}'
        for other in graph.get(name, ()):
            visit(other, [*path, name]) if len(path) < 40 else None

    for name in graph:
        visit(name, [])


def test_a_public_name_is_defined_once():
    places = collections.defaultdict(list)
    for name, source in sources().items():
        if (ROOT / name.replace('.', '/')).is_dir() or not name:
            continue  # a package's face hands names on
        for public in public_names(source):
            places[public].append(name)
    assert {public: where for public, where in places.items() if len(where) > 1} == {}


def test_the_house_can_be_read():
    """All of it by whoever looks after it, the core in one sitting, any file at once."""
    lines = {name: source.count('\n') for name, source in sources().items()}
    # what most layers do without
    options = ('layers.codes', 'layers.kernel', 'layers.lateral', 'layers.normalization', 'layers.settling')
    core = ['base', 'transforms', 'training.step', 'rules.competition', 'rules.top_k', 'rules.local', 'rules.hebbian']
    core += ['rules.products']
    core += [name for name in lines if name.split('.')[0] == 'layers' and name not in options]
    assert sum(lines.values()) <= 12570
    assert sum(lines[name] for name in core) <= 1990
    assert max(lines.values()) <= 400
    assert len([*ROOT.glob('*.py')]) <= 6
    experiments = (ROOT.parent / 'experiments').rglob('*.py')
    assert sum(path.read_text().count('\n') for path in experiments) <= 3911


def test_the_library_never_configures_jax():
    found = {name: lines for name, source in sources().items() if (lines := configures(source))}
    assert {*found} == {'cli.launch'}  # a command's own flag, and nobody who imports the library meets it


@pytest.mark.parametrize(
    'name, source, says',
    [
        (
            'rules.local',
            'from hebbjax.layers import Layer',
            'rules.local:1 imports layers, which does not stand before',
        ),
        ('rules.som', 'def f():\n    import hebbjax.training', 'rules.som:2 imports training'),
        ('layers.layer', 'from hebbjax.data import load', 'layers.layer:1 imports data, a leaf'),
        ('readout.probe', 'from hebbjax import plots', 'readout.probe:1 imports plots, which does not stand before'),
        ('data.datasets', 'from hebbjax import transforms', 'data.datasets:1 imports transforms'),
        ('layers.layer', 'from hebbjax.layers.patches import _pair', 'imports the private layers.patches._pair'),
        ('layers.layer', 'from . import patches', 'imports relatively'),
        ('layers.layer', 'from hebbjax.layers import init', 'imports layers.init from its own package'),
        ('layers.layer', 'from hebbjax import Window', 'imports Window from the package itself'),
        ('layers.layer', 'import hebbjax', 'imports the package from the package itself'),
        ('training.loop', 'import hebbjax.interop.sklearn', 'imports interop, which does not stand before training'),
        ('training.loop', 'from hebbjax.cli import main', 'imports cli, which does not stand before training'),
    ],
)
def test_the_checker_sees_a_violation(name, source, says):
    (said,) = violations(name, source)
    assert says in said


def test_the_checkers_see_configuration_and_let_the_rest_pass():
    for source in ('jax.config.update("a", 1)', 'config.update("a", 1)', 'jax.config.jax_enable_x64 = True'):
        assert configures(source) == [1]
    assert configures('settings.update(a=1); config = {}') == []
    fine = 'import jax\nfrom hebbjax import rules\nfrom hebbjax.base import Array\nfrom hebbjax.layers import patches'
    assert violations('layers.layer', fine) == []
    assert public_names('A = 1\n_b = 2\ndef f(): pass\nclass C: pass') == ['A', 'f', 'C']


def test_importing_the_library_is_light():
    """Neither the surface nor the core drags in data sets, TensorFlow, figures or flax."""
    heavy = ['tensorflow', 'tensorflow_datasets', 'matplotlib', 'sklearn', 'orbax', 'flax.nnx', 'rich', 'tyro']
    code = f'import sys, hebbjax; print([name for name in {heavy} if name in sys.modules])\n'
    code += 'import hebbjax.interop; assert not {"sklearn", "torch"} & {*sys.modules}'  # estimators have their own door
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT.parent)
    assert (done.returncode, done.stdout.strip()) == (0, '[]'), done.stderr
