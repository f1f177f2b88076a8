"""Tables as aligned text, Markdown, LaTeX or CSV."""
import csv
import io
from typing import Any, List, Mapping, NamedTuple, Sequence, Union

from tabulate import tabulate

__all__ = ['Cell', 'Table', 'number', 'to_csv']

Cell = Union[str, float, None]


def number(value: Cell) -> str:
    """Return a number with two digits, without a negative zero; None is -, a text itself."""
    return value if isinstance(value, str) else '-' if value is None else f'{round(value, 2) + 0.0:.2f}'


class Table(NamedTuple):
    """A title, titles of columns and rows; the first column has names, on the left."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def _as(self, form: str, escape: str = '') -> str:
        def cell(value: Cell) -> str:
            return number(value).replace('|', r'\|') if escape else number(value)
        rows: List[List[str]] = [[cell(value) for value in row] for row in self.rows]
        return tabulate(rows, [*map(cell, self.head)], form, disable_numparse=True,
                        colalign=['left', *['right'] * (len(self.head) - 1)])

    def text(self) -> str:
        """Return aligned text."""
        return '\n'.join([self.title, *(line.rstrip() for line in self._as('plain').splitlines())])

    def markdown(self) -> str:
        """Return a Markdown table below its title."""
        return f'**{self.title}**\n\n{self._as("pipe", "|")}'

    def latex(self) -> str:
        """Return a LaTeX table for the package booktabs."""
        [_, _, caption, *_] = tabulate([[self.title]], tablefmt='latex').splitlines()  # escaped as the cells
        return '\n'.join([r'\begin{table}', rf'\caption{{{caption.strip().rstrip(chr(92)).strip()}}}',
                          self._as('latex_booktabs'), r'\end{table}'])


def to_csv(lines: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return lines as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator='\n', extrasaction='ignore')
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
