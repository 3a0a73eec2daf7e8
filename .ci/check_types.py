"""What is checked of types, by basedpyright: the library, what its surface promises, and code that uses it.

Every name of the public surface says what it takes and gives; and the pages' Python, as a file of a user's own, is
checked by all rules. Run it with the environment's python.
"""

import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
SURFACE = (
    '', 'data', 'diagnostics', 'interop', 'interop.sklearn', 'layers', 'learned', 'plots', 'readout', 'rules',
    'training', 'transforms',
)  # fmt: skip
ASSIGNED = ('__eq__', '__hash__', '__reduce__')  # functions that specs share; only a `def` would have a type of its own


def checker(*arguments: str, **how) -> subprocess.CompletedProcess:
    """Run basedpyright in this environment."""
    command = [pathlib.Path(sys.executable).with_name('basedpyright'), '--pythonpath', sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {'PYTHONPATH': str(ROOT)}, text=True, **how)


def public_names() -> set[str]:
    """Name all that packages hand out, by the modules that define it."""
    names = set()
    for package in SURFACE:
        module = importlib.import_module(f'hebbjax.{package}'.rstrip('.'))
        own = [name for name, thing in vars(module).items() if getattr(thing, '__module__', None) == module.__name__]
        for name in getattr(module, '__all__', own):
            names.add(f'{getattr(getattr(module, name), "__module__", module.__name__)}.{name}')
    return names


def untyped() -> list[str]:
    """Say which parts of the surface do not say what they take or give."""
    done = checker('--verifytypes', 'hebbjax', '--ignoreexternal', '--outputjson', stdout=subprocess.PIPE)
    symbols, surface, said = json.loads(done.stdout)['typeCompleteness']['symbols'], public_names(), []
    assert len(surface) > 100 and {symbol['name'] for symbol in symbols} & surface, 'the surface was not found'
    for symbol in symbols:
        is_public = any(symbol['name'] == name or symbol['name'].startswith(f'{name}.') for name in surface)
        if is_public and not symbol['isTypeKnown'] and not symbol['name'].endswith(ASSIGNED):
            messages = [part['message'] for part in symbol['diagnostics']]
            # of what is unknown because something it names is, that is enough; what other packages do not say is theirs
            said += [f'{symbol["name"]}: {message}' for message in messages if message.endswith(' is missing')]
    return said


def check_pages() -> int:
    """Check the Python of all pages, each as one file. -> the checker's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        for page in [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]:
            blocks = re.findall(r'^```python\n(.*?)^```', page.read_text(), re.MULTILINE | re.DOTALL)
            name = 'page_' + '_'.join(page.relative_to(ROOT).with_suffix('.py').parts)  # no name of a package
            pathlib.Path(folder, name).write_text('\n'.join(blocks))
        # loops of examples are entered, and blocks may define again what earlier ones did
        rules = {'typeCheckingMode': 'standard', 'reportPossiblyUnboundVariable': False, 'reportRedeclaration': False}
        pathlib.Path(folder, 'pyrightconfig.json').write_text(json.dumps(rules | {'extraPaths': [str(ROOT)]}))
        return checker('--project', folder).returncode


sys.path.insert(0, str(ROOT))
lacking = untyped()
print(*lacking, sep='\n', end='\n' if lacking else '')
sys.exit(any([lacking, checker().returncode, check_pages()]))
