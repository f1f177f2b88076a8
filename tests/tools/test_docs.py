"""What is committed for readers is what the scripts in docs/ make of the models now, and can be read."""
import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import pytest
from PIL import ImageFont

from docs import draw_network, robustness_table, training_tables, variants
from docs.generated_block import rewrite_block
from docs.network_facts import NetworkFacts
from timm_assemble.robustness.results.schema import check_results

TIMES = '\N{MULTIPLICATION SIGN}'
FONTS = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'


def _drawing():
    """The committed picture's root, and its elements by tag."""
    root = ElementTree.fromstring(draw_network.PICTURE.read_text(encoding='utf-8'))
    by_tag = {}
    for node in root.iter():
        by_tag.setdefault(node.tag.split('}')[1], []).append(node)
    return root, by_tag


def _text(node):
    return ''.join(node.itertext()).replace('\N{NO-BREAK SPACE}', ' ')


def _text_bounds(node):
    """Left, top, right and bottom, in DejaVu Sans: wide, so that what fits in it fits in other sans-serifs."""
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


def test_picture_is_that_of_the_model():
    command = 'run `python -m docs.draw_network` and look at what changed'
    assert draw_network.PICTURE.is_file(), f'docs/network.svg is missing: {command}.'
    same = draw_network.PICTURE.read_text(encoding='utf-8') == draw_network.picture()
    assert same, f'docs/network.svg is not what the model is now: {command}.'


def test_picture_shows_every_part():
    """Against the paper's and the official code's description of the network, in numbers written down here."""
    texts = [_text(node) for node in _drawing()[1]['text']]
    for blocks, width, side in ((2, 64, 32), (3, 128, 16), (5, 256, 8)):
        assert f'big  {blocks} blocks, F = {width}' in texts
        assert f'little  1 block, F = {width // 2}' in texts
        assert f'merge  1 block, F = {width}' in texts
        assert f'{side} {TIMES} {side} {TIMES} {4 * width}' in texts
        assert f'add, ReLU  {2 * side} {TIMES} {2 * side} {TIMES} {4 * width}' in texts
    assert 'plain  3 blocks, F = 512' in texts and f'8 {TIMES} 8 {TIMES} 2048' in texts
    assert texts.count(f'nearest {TIMES}2') == 3
    for part in ('[DropBlock]', f'blur 3{TIMES}3  (anti-aliasing)', 'gate', 'half a', 'half b', f'avg pool 3{TIMES}3'):
        assert part in texts


def test_nothing_in_the_picture_is_clipped_or_overlaps():
    root, tags = _drawing()
    sheet = (0., 0., float(root.get('width')), float(root.get('height')))
    texts = [(_text(node), _text_bounds(node)) for node in tags['text']]
    rects = [_rect_bounds(node) for node in tags['rect'] if _rect_bounds(node) != sheet]
    boxes = [_rect_bounds(node) for node in tags['rect'] if node.get('rx') == '5']
    lines = [segment for path in tags['path'] for segment in _segments(path)]
    assert len(texts) > 50 and len(boxes) > 20 and len(lines) > 30

    for text, bounds in texts:
        assert _inside(bounds, sheet, margin=8), f'{text!r} leaves the picture'
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


def test_facts_refuse_blocks_of_several_widths():
    with pytest.raises(ValueError, match='blocks of one width'):
        NetworkFacts('test_assemble_resnet', 64).inner_width('stage1')


def test_readme_has_the_table_of_variants():
    text = variants.README.read_text(encoding='utf-8')
    command = 'run `python -m docs.variants --write`'
    for marker in (variants.BEGIN, variants.END):
        assert text.count(marker) == 1, f'README.md must have {marker} once: put it there and {command}.'
    table = variants.table()
    same = rewrite_block(text, variants.BEGIN, variants.END, table) == text
    assert same, f'the table of models in README.md is not what the models are now: {command}.'

    # the official networks at 1001 classes less one class, and the multiply-adds everyone counts for ResNet-50
    rows = {cells[1].strip(' `'): [cell.strip() for cell in cells] for cells in
            (line.split('|') for line in table.splitlines()[2:])}
    assert len(rows) == 9
    for name, official in (
            ('assemble_resnet50_base', 25_559_081), ('assemble_resnet50_d', 25_578_313),
            ('assemble_resnet50', 41_848_489), ('assemble_resnet152', 117_006_249)):
        assert rows[name][4] == f'{(official - 2049) / 1e6:.2f}'
    assert rows['assemble_resnet50_base'][5:8] == ['4.09', '224', '2, 4, 8, 16, 32']
    assert rows['assemble_resnet50'][6:8] == ['256', '4, 8, 16, 16, 32']


def test_write_changes_the_block_alone(tmp_path, monkeypatch, capsys):
    readme = tmp_path / 'README.md'
    monkeypatch.setattr(variants, 'README', readme)
    monkeypatch.setattr(variants, 'table', lambda: 'new')
    readme.write_text(f'above\n{variants.BEGIN}\nold\n{variants.END}\nbelow\n', encoding='utf-8')
    assert variants.main(['--write']) == 0
    assert readme.read_text(encoding='utf-8') == f'above\n{variants.BEGIN}\n\nnew\n\n{variants.END}\nbelow\n'

    readme.write_text('no markers\n', encoding='utf-8')
    assert variants.main(['--write']) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r'python -m docs\.variants: error: the page must have the markers .*\n', error)
    assert readme.read_text(encoding='utf-8') == 'no markers\n'


def test_table_refuses_an_unknown_model(monkeypatch):
    monkeypatch.delitem(variants.PUBLISHED, 'assemble_resnet50')
    with pytest.raises(ValueError, match='assemble_resnet50'):
        variants.table()


def test_training_tables():
    text = training_tables.PAGE.read_text(encoding='utf-8')
    assert training_tables.page(text) == text


def test_training_in_a_loop_of_ones_own(tmp_path, monkeypatch):
    """The page's code runs as it stands, with what it takes for granted."""
    import numpy as np
    import timm
    from PIL import Image

    from timm_assemble.training import store_teacher_logits

    monkeypatch.chdir(tmp_path)
    model = timm.create_model('test_assemble_resnet', num_classes=3, drop_block_rate=0.1)
    for c in range(3):
        (tmp_path / 'images' / 'train' / str(c)).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((64, 64, 3), 60 * c + i, np.uint8)).save(
                tmp_path / 'images' / 'train' / str(c) / f'{i}.png')
    dataset = timm.data.create_dataset('', root='images', split='train')
    store_teacher_logits(model, 'teacher', dataset, 'teacher', workers=0, progress=False)
    blocks = re.findall('```python\n(.*?)```', training_tables.PAGE.read_text(encoding='utf-8'), re.DOTALL)
    assert len(blocks) == 2
    names = dict(model=model, step=5, total_steps=10)
    for block in blocks:
        exec(block, names)
    assert model.stage4[0].drop2.last_rate == pytest.approx(0.05)
    assert all(p.grad is not None for p in model.parameters())


def test_robustness_page_has_the_tables_of_its_results():
    paths = sorted(robustness_table.RESULTS.glob('*.json'))
    assert len(paths) == 3
    for path in paths:
        check_results(json.loads(path.read_text(encoding='utf-8')))
    text = robustness_table.PAGE.read_text(encoding='utf-8')
    same = rewrite_block(text, robustness_table.BEGIN, robustness_table.END, robustness_table.tables(paths)) == text
    assert same, 'docs/robustness.md is not what docs/robustness/ has: run `python -m docs.robustness_table --write`.'


def test_robustness_tables_refuse_what_does_not_belong_together(tmp_path):
    [path, *_] = sorted(robustness_table.RESULTS.glob('*.json'))
    other = json.loads(path.read_text(encoding='utf-8'))
    other['protocol']['seed'] = 1
    (tmp_path / 'other.json').write_text(json.dumps(other), encoding='utf-8')
    fewer = json.loads(path.read_text(encoding='utf-8'))
    fewer['models'].pop()
    (tmp_path / 'fewer.json').write_text(json.dumps(fewer), encoding='utf-8')
    for paths in ([], [path, tmp_path / 'other.json'], [path, tmp_path / 'fewer.json']):
        with pytest.raises(ValueError, match='of one protocol, data and versions, of the same models'):
            robustness_table.tables(paths)
    fewer['models'][0]['shift'] = None
    (tmp_path / 'fewer.json').write_text(json.dumps(fewer), encoding='utf-8')
    with pytest.raises(ValueError, match='must have clean pictures and shifts'):
        robustness_table.tables([tmp_path / 'fewer.json'])
