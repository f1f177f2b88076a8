"""The table of contents of the site. New pages in docs/ join the guides."""
from pathlib import Path

ROOT = Path(__file__).parents[2]

# titles of groups, with their pages in order where they exist
GROUPS = {
    'Models': ['docs/models', 'docs/recipes', 'docs/exactness'],
    'Guides': ['docs/walkthrough', 'docs/demo', 'docs/training', 'docs/finetuning', 'docs/convert', 'docs/hub',
               'docs/robustness', 'docs/retrieval', 'docs/deployment', 'docs/ecosystem'],
    'Measurements': ['benchmarks/README', 'docs/training_step'],
    'Reference': [f'docs/api/{name}' for name in (
        'timm_assemble', 'layers', 'models', 'training', 'deploy', 'robustness', 'retrieval', 'convert', 'hub',
        'recipes')],
    'Project': ['CONTRIBUTING', 'docs/architecture', 'docs/decisions', 'CHANGELOG'],
}


def groups() -> dict:
    """Return the pages that exist by title: those of :data:`GROUPS`, then those that it does not name."""
    exist = {path.relative_to(ROOT).with_suffix('').as_posix()
             for pattern in ('CHANGELOG.md', 'CONTRIBUTING.md', 'benchmarks/README.md', 'docs/*.md', 'docs/*.ipynb',
                             'docs/api/*.md')
             for path in ROOT.glob(pattern)}
    found = {title: [page for page in pages if page in exist] for title, pages in GROUPS.items()}
    for page in sorted(exist - {page for pages in GROUPS.values() for page in pages}):
        found['Reference' if page.startswith('docs/api/') else 'Guides'].append(page)
    return found


def toctree(pages: list, caption: str = '') -> str:
    """Return a hidden toctree in MyST's Markdown; the navigation shows it."""
    options = [':hidden:', ':glob:', *([f':caption: {caption}'] if caption else [])]
    return '\n'.join(['', '```{toctree}', *options, '', *pages, '```', ''])
