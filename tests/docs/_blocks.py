"""Blocks of Markdown pages, and what each is: run, output, or not run for a reason.

A fence follows ``<!-- not run: REASON -->``, ``<!-- run by TEST -->`` or ``<!-- output -->`` where it does not run.
Blocks between the markers of generated text are the generators'.
"""
import re
from pathlib import Path
from typing import List, NamedTuple

GENERATED = re.compile(r'<!-- ([\w ]+):\s?begin -->.*?<!-- \1:\s?end -->', re.DOTALL)
FENCE = re.compile(r'(?:^<!-- (not run: .+?|run by .+?|output) -->\n)?^```(\S*)\n(.*?)^```$', re.DOTALL | re.MULTILINE)
DATA = ('bibtex', 'mermaid', 'yaml', 'json')  # languages of blocks that nothing runs


class Block(NamedTuple):
    language: str
    code: str
    mark: str  # '' runs

    @property
    def runs(self) -> bool:
        return not self.mark and self.language not in DATA


def read_blocks(page: Path) -> List[Block]:
    text = GENERATED.sub('', page.read_text('utf-8'))
    return [Block(language, code, mark) for mark, language, code in FENCE.findall(text)]
