"""Sphinx's settings. The source folder is the repository, so that relative links are the same on GitHub and here."""
import os
import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parents[2]))
from docs.site.contents import groups, toctree
from timm_assemble import __version__

project = 'timm_assemble'
release = version = __version__
root_doc = 'README'
include_patterns = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'benchmarks/**.md', 'docs/**.md', 'docs/**.ipynb']
exclude_patterns = ['.*', 'build', 'dist', 'output', '*-output', 'kd-accuracy', 'tests', 'timm_assemble*']  # not walked
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode', 'sphinx.ext.mathjax',
              'sphinx-mathjax-offline']

myst_heading_anchors = 4
myst_fence_as_directive = {'mermaid'}
nb_execution_mode = 'force'
nb_execution_timeout = 1800  # of a cell; two minutes for all of them on an idle core
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = 'remove'  # progress bars

autodoc_default_options = {'members': True, 'member-order': 'bysource'}
autodoc_inherit_docstrings = False  # torch's text for every `forward`
autodoc_preserve_defaults = True  # `nn.ReLU`, not the class's representation
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
napoleon_use_ivar = True
napoleon_use_rtype = False
toc_object_entries_show_parents = 'hide'

# Every name of this project must resolve. Names of other projects need their inventories, which
# `make docs INTERSPHINX=1` downloads; without them they are plain text, so that the site builds offline.
nitpicky = True
nitpick_ignore_regex = [('py:class', r'timm_assemble\.robustness\.tasks\..*')]  # what Results holds; nobody makes one
if os.environ.get('INTERSPHINX'):
    extensions.append('sphinx.ext.intersphinx')
    intersphinx_mapping = {
        'python': ('https://docs.python.org/3', None), 'numpy': ('https://numpy.org/doc/stable', None),
        'torch': ('https://docs.pytorch.org/docs/stable', None)}
    nitpick_ignore_regex.append(('py:.*', r'timm\..*'))  # has no inventory
else:
    nitpick_ignore_regex.append(('py:.*', r'(torch|timm|numpy|pathlib)\..*'))

html_theme = 'furo'
html_title = f'timm_assemble {release}'
html_static_path = ['static']
html_css_files = ['site.css']
html_copy_source = False
html_show_copyright = False


class Mermaid(SphinxDirective):
    """A diagram, drawn when the site is built: pages load nothing from other servers."""
    has_content = True

    def run(self) -> list:
        import mmdr
        svg = mmdr.render('\n'.join(self.content)).svg()
        return [nodes.raw('', f'<div class="mermaid">{svg}</div>', format='html')]


def add_contents(app, docname: str, source: list) -> None:
    """Append the navigation to the front page and to that of the benchmarks; on GitHub they have links."""
    if docname == root_doc:
        source[0] += ''.join(toctree(pages, caption) for caption, pages in groups().items())
    elif docname == 'benchmarks/README':
        source[0] += toctree(['pages/*'])


def copy_front_page(app, exception) -> None:
    """Copy README.html to index.html, the page of the folder."""
    if exception is None and app.builder.name == 'html':
        shutil.copy(Path(app.outdir, f'{root_doc}.html'), Path(app.outdir, 'index.html'))


def setup(app) -> None:
    app.add_directive('mermaid', Mermaid)
    app.connect('source-read', add_contents)
    app.connect('build-finished', copy_front_page)
