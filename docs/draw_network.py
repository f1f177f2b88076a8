"""Draw Assemble-ResNet-50 into docs/network.svg. ``python -m docs.draw_network``

Every size, width, count and stride in it comes from the model.
"""
import sys
from pathlib import Path
from typing import List, Tuple

from docs.network_facts import TIMES, TO, NetworkFacts
from docs.svg import MUTED, Sheet, Style, Text
from timm_assemble.layers import BigLittleStage, DropBlock2d

__all__ = ['DRAWING', 'NETWORK', 'drawing']

DRAWING = Path(__file__).with_name('network.svg')
NETWORK, SIDE, OPENED = 'assemble_resnet50', 256, 'stages.3.1'
MINUS, DOT = '\N{MINUS SIGN}', '\N{MIDDLE DOT}'

BIG, LITTLE = Style('#dce8f6', '#3f73ad'), Style('#fbe6d0', '#b96f22')
BLOCK, CONV = Style('#ddefe0', '#478a57'), Style('#e9edf2', '#66727f')
BARE, TRAINING = Style('#ffffff', '#66727f'), Style('#ffffff', '#8a5fa8', dashed=True)
PANEL, INNER = Style('#f7f9fb', '#d3dae2'), Style('#eef2f7', '#c3ccd6')

# the columns of the network, left, and of the opened block, right
LEFT, RIGHT, TOP = (12., 470.), (484., 988.), 52.
TRUNK, BIG_X, LITTLE_X, BRANCH = 241., 128., 354., 208.
MAIN, SHORTCUT = 660., 921.
GAP = 16.


def _panel(sheet: Sheet, span: Tuple[float, float], y: float, height: float, name: str, note: str = '') -> None:
    left, right = span
    sheet.rect(left, y, right - left, height, PANEL, radius=8)
    sheet.text(left + 10, y + 21, ('*' + name,), 15, 'start')
    if note:
        sheet.text(right - 10, y + 20, note, 12.5, 'end', MUTED)


def _arrow_down(sheet: Sheet, x: float, y: float, end: float, label: str = '') -> None:
    sheet.line((x, y), (x, end))
    if label:
        sheet.text(x + 8, (y + end) / 2 + 4, label, 12, 'start', MUTED)


def _arrow_in(sheet: Sheet, panel: float, end: float, label: str = '') -> None:
    """Draw the trunk into the panel that begins at ``panel``, with a label."""
    sheet.line((TRUNK, panel - GAP - 10), (TRUNK, end))
    sheet.text(TRUNK + 8, (panel + end) / 2 + 4, label, 12, 'start', MUTED)


def _stride(facts: NetworkFacts, name: str) -> str:
    return f'stride {facts.stride(name)}'


def _split(sheet: Sheet, y: float, end: float, big_label: str, little_label: str) -> None:
    """Draw the arrows from the trunk to the two branches."""
    for x, label in ((BIG_X, big_label), (LITTLE_X, little_label)):
        sheet.line((TRUNK, y), (x, y), (x, end))
        sheet.text(x + 8, (y + end) / 2 + 4, label, 12, 'start', MUTED)


def _sum(sheet: Sheet, y: float, size: str) -> float:
    return sheet.box(TRUNK, y, LITTLE_X - BIG_X + BRANCH, 26, BARE, [('*add, ReLU', f'  {size}')])


def _blocks(facts: NetworkFacts, name: str, title: str, n: int = 0) -> Tuple[List[Text], int]:
    """Return the lines of a box of blocks, those of a module or ``n`` like it, and the number of blocks."""
    n = n or len(facts.blocks(name))
    count = '1 block' if n == 1 else f'{n} blocks'
    return [(f'*{title}', f'  {count}, F = {facts.inner_width(name)}'), facts.size(name)], n


def _stem(sheet: Sheet, facts: NetworkFacts, y: float) -> float:
    """Draw the first convolution; return the lower edge."""
    height = 80
    _panel(sheet, LEFT, y, height, 'stem')
    _arrow_in(sheet, y, y + 24, _stride(facts, 'stem.0'))
    sheet.box(TRUNK, y + 24, BRANCH, 42, CONV, [('*' + facts.kernel('stem.0'),), facts.size('stem.0')])
    return y + height


def _stem_pool(sheet: Sheet, facts: NetworkFacts, y: float) -> float:
    """Draw the two branches of the Big-Little stem and their merge; return the lower edge."""
    big, little, merge = 'stem_pool.big', [f'stem_pool.little.{i}' for i in range(3)], 'stem_pool.merge'
    height = 236
    _panel(sheet, LEFT, y, height, 'stem_pool')
    sheet.line((TRUNK, y - GAP - 10), (TRUNK, y + 18), arrow=False)
    end = y + 10
    _split(sheet, end + 8, end + 32, _stride(facts, big), '')
    lines: List[Text] = [f'{facts.kernel(big)},  {facts.size(big)}']
    big_end = sheet.box(BIG_X, end + 32, BRANCH, 76, BIG, [('*big',), *lines])
    lines = []
    for name in little:
        stride = f' {_stride(facts, name)}' if facts.stride(name) > 1 else ''
        lines.append(f'{facts.kernel(name)}{stride},  {facts.size(name)}')
    little_end = sheet.box(LITTLE_X, end + 32, BRANCH, 76, LITTLE, [('*little',), *lines], 12)
    _arrow_down(sheet, BIG_X, big_end, big_end + 18)
    _arrow_down(sheet, LITTLE_X, little_end, little_end + 18)
    end = _sum(sheet, little_end + 18, facts.input_size(merge))
    _arrow_down(sheet, TRUNK, end, end + 18)
    sheet.box(TRUNK, end + 18, BRANCH, 42, CONV, [('*merge', f'  {facts.kernel(merge)}'), facts.size(merge)])
    return y + height


def _merge_block(sheet: Sheet, facts: NetworkFacts, name: str, y: float) -> float:
    """Draw the block that merges the sum of the stage before; return the lower edge."""
    _arrow_in(sheet, y, y + 24, _stride(facts, name))
    lines, n = _blocks(facts, name, 'merge')
    return sheet.box(TRUNK, y + 24, BRANCH, 50, BLOCK, lines, bars=n)


def _big_little_stage(sheet: Sheet, facts: NetworkFacts, name: str, y: float) -> float:
    """Draw the merge block, if any, two branches and their sum; return the lower edge."""
    big, little, merge = f'{name}.big', f'{name}.little', f'{name}.merge'
    merges = bool(facts.blocks(merge))
    height = 224 if merges else 156
    _panel(sheet, LEFT, y, height, name)
    end = _merge_block(sheet, facts, merge, y) if merges else y - GAP - 10
    top = end + 12 if merges else y + 18
    sheet.line((TRUNK, end), (TRUNK, top), arrow=False)
    _split(sheet, top, top + 24, _stride(facts, big), _stride(facts, little))
    lines, n = _blocks(facts, big, 'big')
    big_end = sheet.box(BIG_X, top + 24, BRANCH, 50, BIG, lines, bars=n)
    lines, n = _blocks(facts, little, 'little')
    little_end = sheet.box(LITTLE_X, top + 24, BRANCH, 50, LITTLE, lines, bars=n)
    _arrow_down(sheet, BIG_X, big_end, big_end + 26, f'nearest {TIMES}2')
    _arrow_down(sheet, LITTLE_X, little_end, little_end + 26)
    _sum(sheet, big_end + 26, facts.size(name))
    return y + height


def _plain_stage(sheet: Sheet, facts: NetworkFacts, name: str, y: float) -> float:
    """Draw the merge block and the plain blocks; return the lower edge."""
    height = 160
    _panel(sheet, LEFT, y, height, name)
    merge, *blocks = (f'{name}.{i}' for i in range(len(facts.module(name))))
    end = _merge_block(sheet, facts, merge, y)
    _arrow_down(sheet, TRUNK, end, end + 26, _stride(facts, blocks[0]))
    lines, _ = _blocks(facts, blocks[0], 'plain', len(blocks))
    sheet.box(TRUNK, end + 26, BRANCH, 50, BLOCK, lines, bars=len(blocks))
    return y + height


def _head(sheet: Sheet, facts: NetworkFacts, y: float) -> float:
    height = 66
    _panel(sheet, LEFT, y, height, 'head')
    _arrow_in(sheet, y, y + 14)
    pool, classes = 'global_pool', facts.module('fc').out_features
    sheet.box(TRUNK, y + 14, BRANCH, 42, CONV, [
        (f'*{facts.module(pool).pool_type} pool', f'  {facts.size(pool)}'), ('*linear', f'  {classes} classes')])
    return y + height


def _selective_kernel(sheet: Sheet, facts: NetworkFacts, name: str, y: float) -> float:
    """Draw a selective kernel; return the lower edge."""
    conv, fc1, fc2 = f'{name}.conv', f'{name}.fc1', f'{name}.fc2'
    half = facts.module(conv).out_channels // 2
    half_width, height = 168, 316
    sheet.rect(MAIN - half_width, y, 2 * half_width, height, INNER, radius=8)
    sheet.text(MAIN - half_width + 10, y + 20, ('*selective kernel',), 13, 'start')
    sheet.text(MAIN + half_width - 10, y + 20, 'SK-C3', 12.5, 'end', MUTED)
    _arrow_down(sheet, MAIN, y - 20, y + 32)
    end = sheet.box(MAIN, y + 32, 190, 44, CONV, [
        (f'*{facts.kernel(conv)}  ', facts.channels(conv)), facts.after_convolution(conv)])
    a, b, width, gate = MAIN - 118, MAIN + 118, 88, 130
    for x, title, which in ((a, 'a', 'first'), (b, 'b', 'last')):
        sheet.line((MAIN, end), (MAIN, end + 14), (x, end + 14), (x, end + 38))
        sheet.box(x, end + 38, width, 58, BARE, [(f'*half {title}',), f'{which} {half}', 'channels'], 12)
        inward = 1 if x < MAIN else -1
        sheet.line((x + inward * width / 2, end + 67), (MAIN - inward * gate / 2, end + 67))
    bottom = sheet.box(MAIN, end + 30, gate, 122, CONV, [
        ('*gate',), 'mean of a + b', f'{facts.kernel(fc1)}  {facts.channels(fc1)}', facts.after_convolution(fc1),
        f'{facts.kernel(fc2)}  {facts.channels(fc2)}', f'softmax {TO} g'], 12)
    top = bottom + 28
    for x in (a, b):
        _arrow_down(sheet, x, end + 96, top)
    _arrow_down(sheet, MAIN, bottom, top)
    sheet.box(MAIN, top, b - a + width, 44, BARE, [
        ('*weighted sum  ', f'g {DOT} a + (1 {MINUS} g) {DOT} b'), facts.size(name)])
    return y + height


def _opened_block(sheet: Sheet, facts: NetworkFacts, name: str, y: float) -> float:
    """Draw a block, main path left and shortcut right; return the lower edge."""
    height = 752
    conv1, conv2, blur, conv3 = (f'{name}.{part}' for part in ('conv1', 'conv2', 'aa', 'conv3'))
    pool, project = f'{name}.shortcut.0', f'{name}.shortcut.1'
    title = f'Inside a block: the first plain one of {name.split(".")[0]}'
    _panel(sheet, RIGHT, y, height, title, f'F = {facts.inner_width(name)}')

    sheet.text(MAIN, y + 52, facts.input_size(name))
    top = y + 92
    _arrow_down(sheet, MAIN, y + 58, top)
    sheet.line((MAIN, y + 72), (SHORTCUT, y + 72), (SHORTCUT, top))
    sheet.text(SHORTCUT - 8, y + 66, 'shortcut', 12, 'end', MUTED)
    end = sheet.box(SHORTCUT, top, 122, 58, BARE, [
        (f'*avg pool {facts.kernel(pool)}',), _stride(facts, pool), facts.size(pool)], 12)
    _arrow_down(sheet, SHORTCUT, end, end + 20)
    short_end = sheet.box(SHORTCUT, end + 20, 122, 58, CONV, [
        (f'*{facts.kernel(project)}',), facts.channels(project), facts.after_convolution(project)], 12)

    end = sheet.box(MAIN, top, 190, 44, CONV, [
        (f'*{facts.kernel(conv1)}  ', facts.channels(conv1)), facts.after_convolution(conv1)])
    end = _selective_kernel(sheet, facts, conv2, end + 20)
    if isinstance(facts.module(f'{name}.drop2'), DropBlock2d):
        _arrow_down(sheet, MAIN, end, end + 22)
        end = sheet.box(MAIN, end + 22, 190, 26, TRAINING, ['[DropBlock]'])
    _arrow_down(sheet, MAIN, end, end + 26, _stride(facts, blur))
    size = facts.module(blur).filt_size
    end = sheet.box(MAIN, end + 26, 190, 44, BARE, [
        (f'*blur {size}{TIMES}{size}', '  (anti-aliasing)'), facts.size(blur)])
    _arrow_down(sheet, MAIN, end, end + 22)
    end = sheet.box(MAIN, end + 22, 190, 44, CONV, [
        (f'*{facts.kernel(conv3)}  ', facts.channels(conv3)), facts.after_convolution(conv3)])
    _arrow_down(sheet, MAIN, end, end + 16)
    sheet.circle(MAIN, end + 28, 12, BARE, '+')
    sheet.line((SHORTCUT, short_end), (SHORTCUT, end + 28), (MAIN + 12, end + 28))
    _arrow_down(sheet, MAIN, end + 40, end + 56)
    end = sheet.box(MAIN, end + 56, 190, 26, BARE, [('*ReLU', f'  {facts.size(name)}')])
    return y + height


def _legend(sheet: Sheet, facts: NetworkFacts, y: float) -> float:
    height = 204
    _panel(sheet, RIGHT, y, height, 'Legend')
    dropped = ' and '.join(part for part, _ in facts.model.named_children() if facts.has_drop_block(part))
    entries = [
        (BIG, 'big branch: all blocks but one, at half the resolution'),
        (LITTLE, 'little branch: thin and shallow, at full resolution'),
        (BLOCK, 'merge block, plain blocks'),
        (CONV, 'convolution or linear layer'),
        (BARE, 'no parameters'),
        (TRAINING, f'DropBlock: in training, if enabled, in {dropped}'),
    ]
    for i, (style, text) in enumerate(entries):
        sheet.rect(RIGHT[0] + 12, y + 36 + 22 * i, 26, 14, style, radius=3)
        sheet.text(RIGHT[0] + 48, y + 47 + 22 * i, text, 12.5, 'start')
    bars = 'Small bars: one per bottleneck block, inner width F, 4F channels out.'
    sheet.text(RIGHT[0] + 12, y + 184, bars, 12.5, 'start')
    return y + height


def _parameters(sheet: Sheet, facts: NetworkFacts, y: float, bottom: float) -> None:
    """Draw a bar for every part of the network, spread down to ``bottom``."""
    parts = [name for name, _ in facts.model.named_children() if facts.parameters(name)]
    longest = max(facts.parameters(part) for part in parts)
    pitch = (bottom - y - 40) / len(parts)
    _panel(sheet, RIGHT, y, bottom - y, 'Parameters', f'{facts.parameters():.2f} M')
    for i, part in enumerate(parts):
        base, millions = y + 34 + pitch * (i + 0.5) + 4, facts.parameters(part)
        sheet.text(RIGHT[0] + 12, base, part, 12.5, 'start')
        length = 324 * millions / longest
        sheet.rect(RIGHT[0] + 88, base - 11, max(length, 1), 12, CONV, radius=1)
        sheet.text(RIGHT[0] + 96 + length, base, f'{millions:.2f} M', 12, 'start', MUTED)


def drawing() -> str:
    """Return the text of ``network.svg``."""
    facts = NetworkFacts(NETWORK, SIDE)
    sheet = Sheet(
        1000, f'{NETWORK}: the network and one of its blocks',
        'A stem; a Big-Little stem; stages 1 to 3, each the sum of a big branch at half resolution and a thin, shallow '
        'little branch at full resolution; stages 2 to 4 begin with a block that merges the sum before; plain blocks '
        'in stage 4; average pool and classifier. Beside it a '
        'bottleneck block: 1x1, selective kernel, blur, 1x1, plus the shortcut.')
    sheet.text(LEFT[0], 28, ('*' + NETWORK, f'  {facts.parameters():.1f} M parameters'), 18, 'start')
    sheet.text(RIGHT[1], 28, f'sizes: width {TIMES} height {TIMES} channels', 12.5, 'end', MUTED)

    sheet.text(TRUNK, TOP + 2, f'image  {facts.input_size("stem.0")}')
    y = _stem(sheet, facts, TOP + 32)
    y = _stem_pool(sheet, facts, y + GAP)
    for name in ('stages.0', 'stages.1', 'stages.2', 'stages.3'):
        draw = _big_little_stage if isinstance(facts.module(name), BigLittleStage) else _plain_stage
        y = draw(sheet, facts, name, y + GAP)
    bottom = _head(sheet, facts, y + GAP)

    y = _opened_block(sheet, facts, OPENED, TOP - 8)
    y = _legend(sheet, facts, y + GAP)
    _parameters(sheet, facts, y + GAP, bottom)
    return sheet.render(bottom + 12)


def main() -> int:
    """Write the drawing."""
    DRAWING.write_text(drawing(), encoding='utf-8')
    print(f'{DRAWING.name}: {NETWORK} at {SIDE} {TIMES} {SIDE}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
