"""The committed drawing shows the parts of the network and is legible; test_docs draws it anew."""
import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import pytest
from PIL import ImageFont

from docs import draw_network
from docs.network_facts import NetworkFacts

TIMES = '\N{MULTIPLICATION SIGN}'
FONTS = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'


def _drawing():
    """Return the root of the committed drawing, and its elements by tag."""
    root = ElementTree.fromstring(draw_network.DRAWING.read_text(encoding='utf-8'))
    by_tag = {}
    for node in root.iter():
        by_tag.setdefault(node.tag.split('}')[1], []).append(node)
    return root, by_tag


def _text(node):
    return ''.join(node.itertext()).replace('\N{NO-BREAK SPACE}', ' ')


def _text_bounds(node):
    """Return left, top, right and bottom in DejaVu Sans, which is wider than other sans-serifs."""
    x, y, size = (float(node.get(name)) for name in ('x', 'y', 'font-size'))
    regular, bold = (ImageFont.truetype(FONTS / f'DejaVuSans{kind}.ttf', 10 * size) for kind in ('', '-Bold'))
    length = regular.getlength(node.text or '') / 10
    for span in node:
        length += (bold.getlength(span.text) + regular.getlength(span.tail or '')) / 10
    left = {'start': x, 'middle': x - length / 2, 'end': x - length}[node.get('text-anchor')]
    return left, y - 0.75 * size, left + length, y + 0.2 * size


def _rect_bounds(node):
    x, y, width, height = (float(node.get(name, 0)) for name in ('x', 'y', 'width', 'height'))
    return x, y, x + width, y + height


def _segments(path):
    points = [tuple(map(float, point.split())) for point in path.get('d')[1:].split(' L')]
    return [(min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])) for a, b in itertools.pairwise(points)]


def _meet(a, b, margin=0.):
    return a[0] < b[2] + margin and b[0] < a[2] + margin and a[1] < b[3] + margin and b[1] < a[3] + margin


def _inside(a, b, margin=0.):
    return a[0] >= b[0] + margin and a[1] >= b[1] + margin and a[2] <= b[2] - margin and a[3] <= b[3] - margin


def test_drawing_shows_every_part_in_the_papers_numbers():
    texts = [_text(node) for node in _drawing()[1]['text']]
    for blocks, width, side in ((2, 64, 64), (3, 128, 32), (5, 256, 16)):
        assert f'big  {blocks} blocks, F = {width}' in texts
        assert f'little  1 block, F = {width // 2}' in texts
        assert f'merge  1 block, F = {width}' in texts
        assert f'{side // 2} {TIMES} {side // 2} {TIMES} {4 * width}' in texts
        assert f'add, ReLU  {side} {TIMES} {side} {TIMES} {4 * width}' in texts
    assert 'plain  3 blocks, F = 512' in texts and f'8 {TIMES} 8 {TIMES} 2048' in texts
    assert texts.count(f'nearest {TIMES}2') == 3
    for part in ('[DropBlock]', f'blur 3{TIMES}3  (anti-aliasing)', 'gate', 'half a', 'half b', f'avg pool 3{TIMES}3'):
        assert part in texts


def test_nothing_in_the_drawing_is_clipped_or_overlaps():
    root, tags = _drawing()
    sheet = (0., 0., float(root.get('width')), float(root.get('height')))
    texts = [(_text(node), _text_bounds(node)) for node in tags['text']]
    rects = [_rect_bounds(node) for node in tags['rect'] if _rect_bounds(node) != sheet]
    boxes = [_rect_bounds(node) for node in tags['rect'] if node.get('rx') == '5']
    lines = [segment for path in tags['path'] for segment in _segments(path)]
    assert len(texts) > 50 and len(boxes) > 20 and len(lines) > 30

    for text, bounds in texts:
        assert _inside(bounds, sheet, margin=8), f'{text!r} leaves the drawing'
        for rect in rects:
            assert _inside(bounds, rect, margin=2) or not _meet(bounds, rect), f'{text!r} crosses an edge'
        for line in lines:
            assert not _meet(bounds, line), f'{text!r} has a line through it'
    for (text_a, a), (text_b, b) in itertools.combinations(texts, 2):
        assert not _meet(a, b), f'{text_a!r} overlaps {text_b!r}'
    for line in lines:
        for box in boxes:
            assert not _meet(line, box, margin=-1), f'a line runs through the box at {box}'
    for a, b in itertools.combinations(lines, 2):
        crossing = (a[0] == a[2]) != (b[0] == b[2]) and _meet(a, b, margin=-1)
        assert not crossing, f'the lines {a} and {b} cross'


def test_blocks_of_several_widths_are_rejected():
    with pytest.raises(ValueError, match='blocks of one width'):
        NetworkFacts('test_assemble_resnet', 64).inner_width('stages.0')
