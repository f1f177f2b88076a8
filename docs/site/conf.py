"""Sphinx's settings. The source folder is the repository, so that relative links are those of GitHub: `make docs`."""
import os
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from timm_assemble import __version__

ROOT = Path(__file__).parents[2]

project = 'timm_assemble'
copyright = 'the authors of timm_assemble'
release = version = __version__
root_doc = 'README'
include_patterns = ['README.md', 'CHANGELOG.md', 'benchmarks/**.md', 'docs/**.md', 'docs/**.ipynb']
exclude_patterns = ['.*', 'build', 'dist', '*-output', 'kd-accuracy', 'output', 'tests', 'timm_assemble', '*.egg-info']
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.mathjax', 'sphinx-mathjax-offline',
              'sphinx.ext.viewcode']

# The navigation: titles of groups and their pages in order. Pages that no group names join the guides, in front of the
# reference of the benchmarks.
GROUPS = {
    'Models': ['docs/models', 'docs/recipes', 'docs/exactness'],
    'Guides': ['docs/walkthrough', 'docs/demo', 'docs/training', 'docs/finetuning', 'docs/convert', 'docs/hub',
               'docs/robustness', 'docs/retrieval', 'docs/deployment', 'docs/ecosystem'],
    'Measurements': ['benchmarks/README', 'docs/training_step'],
    'Reference': [f'docs/api/{name}' for name in ('timm_assemble', 'layers', 'models', 'training', 'deploy', 'robustness')] + [
        'docs/api/*'],
    'Project': ['docs/architecture', 'CHANGELOG'],
}


def contents() -> str:
    """Return the table of contents of the site, from the pages that exist."""
    found = {str(path.relative_to(ROOT).with_suffix('')) for pattern in ('docs/*.md', 'docs/*.ipynb', 'docs/api/*.md')
             for path in ROOT.glob(pattern)}
    named = {page for pages in GROUPS.values() for page in pages}
    blocks = []
    for caption, pages in GROUPS.items():
        others = sorted(page for page in found - named if not page.startswith('docs/api/')) * (caption == 'Guides')
        listed = [page for page in pages if '*' in page or (ROOT / f'{page}.md').exists() or page in found] + others
        blocks.append('\n'.join(['```{toctree}', ':hidden:', ':glob:', f':caption: {caption}', '', *listed, '```']))
    return '\n\n'.join(blocks)


def add_contents(app, docname, source) -> None:
    """Append the table of contents to the front page, and the pages of the benchmarks to theirs."""
    if docname == root_doc:
        source[0] += '\n' + contents()
    if docname == 'benchmarks/README':
        source[0] += '\n```{toctree}\n:hidden:\n:glob:\n\npages/*\n```\n'


def copy_front_page(app, exception) -> None:
    """Copy README.html to index.html, which servers show for the folder."""
    if exception is None and app.builder.name == 'html':
        shutil.copy(Path(app.outdir) / f'{root_doc}.html', Path(app.outdir) / 'index.html')


class Mermaid(SphinxDirective):
    """A diagram, drawn when the site is built: pages load nothing from other servers."""
    has_content = True

    def run(self):
        import mmdr
        svg = mmdr.render('\n'.join(self.content)).svg()
        return [nodes.raw('', f'<div class="mermaid">{svg}</div>', format='html')]


# MyST and notebooks
myst_heading_anchors = 4
myst_fence_as_directive = {'mermaid'}
nb_execution_mode = 'force'
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_output_stderr = 'remove'  # progress bars

# docstrings
autodoc_default_options = {'members': True, 'member-order': 'bysource'}
autodoc_inherit_docstrings = False  # torch's text for every `forward`
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
napoleon_use_rtype = False
napoleon_use_ivar = True
toc_object_entries_show_parents = 'hide'

# Names of other projects: links to them need their inventories, which `make docs INTERSPHINX=1` downloads.
if os.environ.get('INTERSPHINX'):
    extensions.append('sphinx.ext.intersphinx')
    intersphinx_mapping = {
        'python': ('https://docs.python.org/3', None), 'torch': ('https://docs.pytorch.org/docs/stable', None),
        'timm': ('https://huggingface.co/docs/timm', None)}
nitpicky = True
nitpick_ignore_regex = [('py:.*', r'(torch|timm|numpy|pathlib)\..*')] * ('INTERSPHINX' not in os.environ) + [
    ('py:class', r'timm_assemble\.robustness\.tasks\..*')]  # records that Results holds, and nobody makes

# HTML
html_theme = 'furo'
html_title = f'timm_assemble {release}'
html_static_path = ['static']
html_css_files = ['site.css']
html_copy_source = False
html_show_copyright = False
linkcheck_anchors = False  # many are made by scripts


def setup(app) -> None:
    app.add_directive('mermaid', Mermaid)
    app.connect('source-read', add_contents)
    app.connect('build-finished', copy_front_page)
