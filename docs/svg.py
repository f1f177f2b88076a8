"""Boxes, arrows and text as SVG.

Written without a plotting library, so that the file is small, the same to the byte with every library version, and has
text that can be searched and read aloud.
"""
from typing import List, NamedTuple, Sequence, Tuple, Union
from xml.sax.saxutils import escape

__all__ = ['INK', 'MUTED', 'Sheet', 'Style']

INK, MUTED, LINE = '#1f2933', '#5b6875', '#52606d'
Point = Tuple[float, float]
# A string, or pieces of one, of which those that begin with '*' are bold.
Text = Union[str, Sequence[str]]


class Style(NamedTuple):
    """Colours of a box, and whether its edge is dashed."""

    fill: str
    edge: str
    dashed: bool = False


def _number(value: float) -> str:
    return f'{value:.1f}'.removesuffix('.0')


def _attributes(**values: Union[str, float]) -> str:
    return ''.join(
        f' {name.replace("_", "-")}="{value if isinstance(value, str) else _number(value)}"'
        for name, value in values.items())


class Sheet:
    """A white sheet, drawn in the order of the calls.

    Args:
        width: Width in pixels.
        title: Title, for screen readers and as the tooltip.
        description: Description, for screen readers.
    """

    def __init__(self, width: float, title: str, description: str) -> None:
        self.width = width
        self.title, self.description = title, description
        self._items: List[str] = []

    def rect(self, x: float, y: float, width: float, height: float, style: Style, radius: float = 5) -> None:
        dash = {'stroke_dasharray': '4 3'} if style.dashed else {}
        self._items.append('<rect' + _attributes(
            x=x, y=y, width=width, height=height, rx=radius, fill=style.fill, stroke=style.edge, **dash) + '/>')

    def text(self, x: float, y: float, text: Text, size: float = 13, anchor: str = 'middle', colour: str = INK) -> None:
        """Write text on the base line ``y``; two spaces stay two.

        ``anchor`` is ``'start'``, ``'middle'`` or ``'end'``.
        """
        if not text:
            return
        pieces = [p.replace('  ', '\N{NO-BREAK SPACE} ') for p in ([text] if isinstance(text, str) else text)]
        spans = ''.join(
            f'<tspan font-weight="bold">{escape(p[1:])}</tspan>' if p.startswith('*') else escape(p) for p in pieces)
        self._items.append(
            '<text' + _attributes(x=x, y=y, font_size=size, text_anchor=anchor, fill=colour) + f'>{spans}</text>')

    def box(
            self, centre: float, y: float, width: float, height: float, style: Style, lines: Sequence[Text],
            size: float = 13, bars: int = 0,
    ) -> float:
        """Draw a box of centred lines with bars at its foot; return its lower edge."""
        self.rect(centre - width / 2, y, width, height, style)
        pitch, foot = 1.3 * size, 13 if bars else 0
        first = y + (height - foot) / 2 - pitch * (len(lines) - 1) / 2 + 0.36 * size
        for i, line in enumerate(lines):
            self.text(centre, first + pitch * i, line, size)
        bar, gap = 22, 5
        for i in range(bars):
            left = centre - (bars * (bar + gap) - gap) / 2 + i * (bar + gap)
            self._items.append('<rect' + _attributes(
                x=left, y=y + height - 10, width=bar, height=5, rx=1, fill=style.edge) + '/>')
        return y + height

    def circle(self, x: float, y: float, radius: float, style: Style, text: str) -> None:
        self._items.append('<circle' + _attributes(cx=x, cy=y, r=radius, fill=style.fill, stroke=style.edge) + '/>')
        self.text(x, y + 5, text, 15)

    def line(self, *points: Point, arrow: bool = True) -> None:
        """Draw a line through the points; its arrow head touches the last one."""
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)  # lines go straight across or down
        shaft = [*points[:-1], (x - 5 * dx, y - 5 * dy)] if arrow else list(points)
        path = 'M' + ' L'.join(f'{_number(px)} {_number(py)}' for px, py in shaft)
        self._items.append('<path' + _attributes(d=path, fill='none', stroke=LINE, stroke_width=1.4) + '/>')
        if arrow:
            head = [(x, y), *((x - 7 * dx + 4 * s * dy, y - 7 * dy + 4 * s * dx) for s in (-1, 1))]
            self._items.append('<polygon' + _attributes(
                points=' '.join(f'{_number(px)},{_number(py)}' for px, py in head), fill=LINE) + '/>')

    def render(self, height: float) -> str:
        """Return the text of the file."""
        w, h = _number(self.width), _number(height)
        return '\n'.join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" '
            'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif">',
            f'<title>{escape(self.title)}</title>',
            f'<desc>{escape(self.description)}</desc>',
            f'<rect width="{w}" height="{h}" fill="#ffffff"/>',
            *self._items,
            '</svg>\n',
        ])
