"""Sphinx's settings. The source folder is the repository, so that relative links are the same on GitHub and here."""
import os
import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parents[2]))
from timm_assemble import __version__

project = 'timm_assemble'
release = version = __version__
root_doc = 'README'
include_patterns = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'benchmarks/**.md', 'docs/**.md', 'docs/**.ipynb']
exclude_patterns = ['.*', 'build', 'dist', 'output', '*-output', 'tests', 'timm_assemble*']  # not walked
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
nitpick_ignore = [('py:exc', 'UserError')]  # docstrings name it without its module
# what Results holds; nobody makes one
nitpick_ignore_regex = [('py:class', r'timm_assemble\.(robustness\.tasks|evaluation\.engine)\..*')]
if os.environ.get('INTERSPHINX'):
    extensions.append('sphinx.ext.intersphinx')
    intersphinx_mapping = {
        'python': ('https://docs.python.org/3', None), 'numpy': ('https://numpy.org/doc/stable', None),
        'torch': ('https://docs.pytorch.org/docs/stable', None)}
    nitpick_ignore_regex.append(('py:.*', r'timm\..*'))  # has no inventory
else:
    nitpick_ignore_regex.append(('py:.*', r'(torch|timm|numpy|pathlib|PIL)\..*'))

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


# By page, the captions and pages of its hidden tables of contents, which the navigation shows; on GitHub it has links.
# The build fails on a page that none of them has.
CONTENTS = {
    'README': {
        'Models': 'docs/models docs/recipes docs/official_pipeline docs/exactness',
        'Guides': 'docs/walkthrough docs/demo docs/training docs/finetuning docs/convert docs/hub docs/robustness '
                  'docs/retrieval docs/deployment docs/ecosystem',
        'Measurements': 'benchmarks/README docs/training_step',
        'Reference': 'docs/api/timm_assemble docs/api/layers docs/api/models docs/api/data docs/api/training '
                     'docs/api/deploy docs/api/robustness docs/api/retrieval docs/api/convert docs/api/hub '
                     'docs/api/recipes docs/api/timm_scripts',
        'Project': 'CONTRIBUTING docs/architecture docs/decisions CHANGELOG'},
    'benchmarks/README': {'Results': 'pages/*'},
}


def add_contents(app, docname: str, source: list) -> None:
    """Append the tables of contents to their pages."""
    for caption, pages in CONTENTS.get(docname, {}).items():
        source[0] += '\n'.join(
            ['\n```{toctree}', ':hidden:', ':glob:', f':caption: {caption}', '', *pages.split(), '```\n'])


def copy_front_page(app, exception) -> None:
    """Copy README.html to index.html, the page of the folder."""
    if exception is None and app.builder.name == 'html':
        shutil.copy(Path(app.outdir, f'{root_doc}.html'), Path(app.outdir, 'index.html'))


def setup(app) -> None:
    app.add_directive('mermaid', Mermaid)
    app.connect('source-read', add_contents)
    app.connect('build-finished', copy_front_page)
