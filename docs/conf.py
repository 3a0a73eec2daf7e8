"""The site: MyST pages, whose code cells the build runs; the reference is made of docstrings. Nothing is fetched.

sphinx-build -W -n -j 2 docs build/site
"""

import importlib
import importlib.metadata
import inspect
import os
import pathlib
import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

import hebbjax

ROOT = pathlib.Path(__file__).parents[1]
ELSEWHERE = {  # pages that lie outside of docs/, and stay readable there
    'results': 'experiments/RESULTS.md',
    'records': 'benchmarks/RECORDS.md',
    'notes': 'benchmarks/NOTES.md',
}
PACKAGES = ['hebbjax', *(f'hebbjax.{path.parent.name}' for path in sorted((ROOT / 'hebbjax').glob('*/__init__.py')))]

project, author, version = 'hebbjax', 'the authors of hebbjax', hebbjax.__version__
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx_copybutton']
html_theme, html_title, html_show_copyright, html_copy_source = 'furo', 'hebbjax', False, False
html_static_path, html_css_files = ['_static'], ['site.css']
html_math_renderer = 'mathml'  # drawn by browsers themselves: no script, no fonts
copybutton_prompt_text = '>>> '

myst_enable_extensions, myst_heading_anchors = ['dollarmath'], 3
nb_execution_mode, nb_execution_raise_on_error, nb_execution_timeout = 'force', True, 120
nb_merge_streams, nb_render_markdown_format = True, 'gfm'
# Kernels of code cells: programs are compiled once for all pages, and by the emitters that compile fastest.
os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT), str(ROOT / 'docs'), os.environ.get('PYTHONPATH', '')])
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
if importlib.metadata.version('jaxlib').startswith('0.10.'):  # a flag that XLA does not know ends the process
    os.environ.setdefault('XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / 'build' / 'compiled'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')

default_role = 'code'  # one backtick in a docstring
autodoc_member_order, autodoc_preserve_defaults = 'bysource', True
autodoc_default_options = {'members': True, 'undoc-members': True}
python_use_unqualified_type_names = True
napoleon_use_param = False
EXTERNAL = r'(jax|collections|numpy|optax|flax|matplotlib|pathlib|rich|orbax|os)\..*'  # no other site is asked
# names of types that nobody needs to import
INTERNAL = r'hebbjax\..*\.(Carry|Chain|ImageShape|Model|Moments|NetworkModel|NormParams|NormStats|Pool|Program)'
nitpick_ignore = [('py:class', 'dict[str')]  # of a signature that sphinx cannot read
nitpick_ignore_regex = [('py:.*', EXTERNAL), ('py:.*', INTERNAL)]


def bring_pages(app, docname, source):
    """Read the pages that lie elsewhere, and point the links of all pages to where things are on the site."""
    own, here = ELSEWHERE.get(docname, f'docs/{docname}.md'), os.path.dirname(f'docs/{docname}')
    places = {path: f'docs/{name}.md' for name, path in ELSEWHERE.items()} | {'README.md': 'docs/index.md'}

    def lead(match):
        target = os.path.normpath(os.path.join(os.path.dirname(own), match[1]))
        return f']({os.path.relpath(places.get(target, target), here)}{match[2] or ""})'

    text = source[0]
    if docname in ELSEWHERE:
        app.env.note_dependency(ROOT / own)
        text = (
            (ROOT / own).read_text().replace(' ± ', '\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}')
        )  # cells stay on one line
    source[0] = re.sub(r'\]\(([^)#:]+)(#[^)]*)?\)', lead, text)


def comment_behind(name):
    """Find what the source says behind a field of a NamedTuple or dataclass: `field: kind  # comment`."""
    module, owner, field = name.rsplit('.', 2)
    text = inspect.getsource(getattr(importlib.import_module(module), owner))
    comment = re.search(rf'^    {field}: .*?  # (.*)$', text, re.MULTILINE)
    return comment[1] if comment else ''


def as_rest(app, what, name, obj, options, lines):
    """Make reStructuredText of a docstring: indented equations are shown as they are, and so are | and *."""
    if what == 'attribute' and (not any(lines) or lines[0].startswith('Alias for field')):
        lines[:] = [comment_behind(name)]
    if what == 'data' and lines and lines[0] == (type(obj).__doc__ or '').split('\n')[0]:
        lines[:] = []  # what Python says of all dictionaries
    shown, in_equation, in_section = [], False, False
    for number, line in enumerate(lines):
        if line and not line.startswith(' '):
            in_equation, in_section = False, bool(re.fullmatch(r'(Args|Example|Raises|Returns):', line))
        elif line and not in_section and not in_equation and not lines[number - 1]:
            shown, in_equation = [*shown, '.. code-block:: text', ''], True
        is_code = in_equation or line.lstrip().startswith(('>>>', '...'))
        parts = re.split(r'(`[^`]*`)', line)  # code in backticks is left alone
        parts[::2] = [re.sub(r'([|*])', r'\\\1', part) for part in parts[::2]]
        shown.append(line if is_code else ''.join(parts))
    # napoleon would take what stands before a colon for the type of an attribute
    lines[:] = (['..', ''] if what in ('attribute', 'data') else []) + shown


def miss_no_name(app, env):
    """Warn of public names that the reference lacks; those of `hebbjax` itself may stand where they come from."""
    there = {name.removeprefix('hebbjax.') for name in env.domains['py'].objects}
    for package in PACKAGES:
        for name in getattr(importlib.import_module(package), '__all__', ()):
            known = there if package != 'hebbjax' else there | {path.rpartition('.')[2] for path in there}
            if f'{package}.{name}'.removeprefix('hebbjax.') not in known:
                logging.getLogger(__name__).warning('the reference lacks %s.%s', package, name)


def mathml(display):
    """Give what writes an equation."""

    def write(self, node):
        self.body.append(convert(node.astext(), display=display))
        raise nodes.SkipNode

    return write, None


def setup(app):
    app.connect('source-read', bring_pages)
    app.connect('autodoc-process-docstring', as_rest, priority=400)  # before napoleon
    app.connect('env-check-consistency', miss_no_name)
    app.add_html_math_renderer('mathml', inline_renderers=mathml('inline'), block_renderers=mathml('block'))
