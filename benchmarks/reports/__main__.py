"""Write all pages from results/*.json. ``python -m benchmarks.reports``"""
import sys
from pathlib import Path
from typing import Callable, Dict, Sequence

from docs.generated_block import rewrite_block

from timm_assemble.runtime.atomic import atomic_file

from ..harness.measure import ROOT
from . import speed
from .report import HEADLINES_BEGIN, HEADLINES_END, PAGES, README, RESULTS, headlines, page

__all__ = ['FRONT_PAGE', 'front_page', 'pages']

FRONT_PAGE = ROOT / 'README.md'
THROUGHPUT = RESULTS / 'throughput.json', RESULTS / 'throughput_cuda.json'
BLOCKS: Dict[str, Callable[..., str]] = {'models': speed.models_table}


def front_page(text: str, throughput: Sequence[Path] = THROUGHPUT) -> str:
    """Return the front page with the blocks of benchmarks.throughput's results."""
    for name, block in BLOCKS.items():
        text = rewrite_block(text, f'<!-- {name}:begin -->', f'<!-- {name}:end -->', block(*throughput))
    return text


def pages() -> Dict[Path, str]:
    """Return the pages of all benchmarks and benchmarks/README.md, by their paths."""
    texts = {PAGES / f'{path.stem}.md': page(path) for path in sorted(RESULTS.glob('*.json'))}
    for path in THROUGHPUT:
        target = PAGES / f'{path.stem}.md'
        texts[target] = rewrite_block(
            texts[target], '<!-- overview:begin -->', '<!-- overview:end -->', speed.overview(path))
    return texts | {README: rewrite_block(README.read_text(), HEADLINES_BEGIN, HEADLINES_END, headlines())}


def main() -> int:
    """Write all pages; return 2 with one line, and write none, on an error."""
    try:
        texts = pages() | {FRONT_PAGE: front_page(FRONT_PAGE.read_text())}
        for path, text in texts.items():
            with atomic_file(path) as temporary:
                temporary.write_text(text)
    except (OSError, ValueError) as e:
        print(f'python -m benchmarks.reports: error: {e}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
