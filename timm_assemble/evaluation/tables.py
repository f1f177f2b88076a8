"""Tables as aligned text, Markdown, LaTeX or CSV."""
import csv
import io
from typing import Any, Iterable, Mapping, NamedTuple, Sequence, Union

__all__ = ['Cell', 'Table', 'number', 'to_csv']

Cell = Union[str, float, None]

LATEX = str.maketrans({'_': r'\_', '%': r'\%', '&': r'\&', '#': r'\#', '$': r'\$', '{': r'\{', '}': r'\}',
                       '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '\\': r'\textbackslash{}'})


def number(value: Cell) -> str:
    """Return a number with two digits, without a negative zero; None is -, a text itself."""
    return value if isinstance(value, str) else '-' if value is None else f'{round(value, 2) + 0.0:.2f}'


class Table(NamedTuple):
    """A title, titles of columns and rows; the first column has names."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def text(self) -> str:
        """Return aligned text."""
        grid = [[*self.head], *([number(cell) for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*grid)]
        lines = ['  '.join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:]))])
                 for line in grid]
        return '\n'.join([self.title, *(line.rstrip() for line in lines)])

    def markdown(self) -> str:
        """Return a Markdown table below its title."""
        lines = [self.head, ['---', *['---:'] * (len(self.head) - 1)], *([number(c) for c in row] for row in self.rows)]
        return '\n'.join([f'**{self.title}**', '', *(
            f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in line)} |' for line in lines)])

    def latex(self) -> str:
        """Return a LaTeX table for the package booktabs."""
        def line(cells: Iterable[str]) -> str:
            return ' & '.join(cell.translate(LATEX) for cell in cells) + r' \\'
        return '\n'.join([
            r'\begin{table}', rf'\caption{{{self.title.translate(LATEX)}}}',
            rf'\begin{{tabular}}{{l{"r" * (len(self.head) - 1)}}}', r'\toprule', line(self.head), r'\midrule',
            *(line(number(cell) for cell in row) for row in self.rows), r'\bottomrule', r'\end{tabular}',
            r'\end{table}'])


def to_csv(lines: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return lines as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator='\n', extrasaction='ignore')
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
