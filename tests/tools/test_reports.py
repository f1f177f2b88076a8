"""Pages, headlines, the front page's tables and the plot, from committed and from made-up results."""
import ast
import itertools
import re

import pytest
import timm

from benchmarks.harness.measure import RESULTS, ROOT, environment, make_row, read_results
from benchmarks.harness.networks import OURS, REFERENCE, SIZES, Network, Setting, split
from benchmarks.reports import __main__ as reports
from benchmarks.reports import plots, speed
from benchmarks.reports.published import published

EAGER = Setting('inference', 'eager', 'float32', 4)
OPTIMIZED = EAGER._replace(form='optimized', dtype='bfloat16')


def made_up_results(settings=(EAGER, OPTIMIZED), device='cpu') -> dict:
    """Return results as throughput.py writes them, of images/s that fall with the place in SIZES."""
    rows = []
    for setting in settings:
        networks = [Network(name, size, 10**7, 1e9 * (1 + i)) for i, (name, size) in enumerate(SIZES.items())]
        for suffix, part in split([n for n in networks if n.name != REFERENCE]).items():
            everyone = {n.name: n for n in (networks[0], *part)}
            seconds = {n.name: [n.macs / 1e10] * 2 for n in everyone.values()}
            for name, n in everyone.items():
                rows.append(make_row(
                    setting.title + suffix, name, seconds, None if name == REFERENCE else REFERENCE, of='speed'))
                rows[-1]['details'] = {'size': n.size, 'params (M)': n.params / 1e6, 'GMACs': n.macs / 1e9,
                                       'images/s': setting.batch_size / seconds[name][0]}
        pair = {'tf_efficientnet_b6': [2.0, 2.0], 'assemble_resnet152': [0.5, 0.5]}
        for name, images_s in (('tf_efficientnet_b6', 2.0), ('assemble_resnet152', 8.0)):
            reference = None if name == 'tf_efficientnet_b6' else 'tf_efficientnet_b6'
            group = f'{setting.title}, assemble_resnet152 beside tf_efficientnet_b6'
            rows.append(make_row(group, name, pair, reference, of='speed', **{'images/s': images_s}))
    return dict(schema_version=1, question='How?', command='python -m benchmarks.throughput',
                environment={**environment('cpu', 'wall time'), 'device': device}, rows=rows)


def cells(block: str) -> list:
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in block.splitlines() if line.startswith('| ')]


def test_numbers_of_the_pages_are_those_of_the_results():
    """Every number between the markers, so that another layout of a table is no failure."""
    number = re.compile(r'\d+(?:\.\d+)?')
    for path, text in reports.pages().items():
        assert number.findall(text) == number.findall(path.read_text('utf-8')), (
            f'{path.name}: run `python -m benchmarks.reports`')
    assert {path.stem for path in reports.PAGES.glob('*.md')} == {path.stem for path in RESULTS.glob('*.json')}
    for path in RESULTS.glob('*.json'):
        code = (ROOT / 'benchmarks' / f'{path.stem.removesuffix("_cuda")}.py').read_text()
        question = ast.literal_eval(re.search('^QUESTION = (.*)$', code, re.MULTILINE)[1])
        assert read_results(path)['question'] == question, path.stem


def test_front_page_has_models_by_top1_ratios_to_efficientnet_and_what_is_better_and_faster():
    results = made_up_results()
    titles, *rows = cells(speed.models_table(results))
    assert titles == ['model', 'size', 'params (M)', 'GMACs', 'top-1 (%)', 'mCE (%)', 'eager float32, CPU',
                      'optimized bfloat16, CPU']
    assert ['**`assemble_resnet50`**', '256', '10.0', '8.00', '82.78 (distilled)', '48.89', '0.12', '0.12'] in rows
    names = [row[0] for row in rows]
    assert names == sorted(names, key=lambda name: published(name.strip('*`'))[0].top1)
    assert len(rows) == 21  # skresnet50d and assemble_resnet101 have no published top-1
    titles, *rows = cells(speed.efficientnet_table(results))
    assert titles == ['images/s', '`assemble_resnet152`', '`tf_efficientnet_b6`', 'ratio (quartiles)']
    assert rows == [['eager float32', '8', '2', '4.00 (4.00 to 4.00)'],
                    ['optimized bfloat16', '8', '2', '4.00 (4.00 to 4.00)'],
                    ['the paper, Tesla P40', '143', '28', '5.1']]
    lines = speed.losses(results).splitlines()
    # resnet50d is the second network, assemble_resnet50_d the sixth: 3x the images/s
    start = '- `assemble_resnet50_d` (79.10): `resnet50` (80.85; 6.00x), `resnet50d` (80.96; 3.00x), '
    assert any(line.startswith(start) for line in lines)
    assert '- `assemble_resnet152` (84.19): none of these on ImageNet-1k alone' in lines


def test_gpu_has_columns_and_rows_of_its_own():
    files = made_up_results(), made_up_results([EAGER._replace(batch_size=128)], 'NVIDIA H200')
    block = speed.models_table(*files)
    titles, *rows = cells(block)
    assert titles[-3:] == ['eager float32, CPU', 'optimized bfloat16, CPU', 'eager float32, H200']
    assert next(row for row in rows if row[0] == '**`assemble_resnet50`**')[-1] == '0.12'
    assert [f'Measured at batch size {n} by' in block for n in (4, 128)] == [True, True]
    assert ['eager float32, H200', '8', '2', '4.00 (4.00 to 4.00)'] in cells(speed.efficientnet_table(*files))


def test_other_batch_sizes_do_not_count():
    speeds = speed.read_speeds(made_up_results([EAGER, EAGER._replace(batch_size=8)]))
    assert [s.name for s in speeds] == list(SIZES) and {s.setting for s in speeds} == {EAGER}
    assert speeds[3].ratio == pytest.approx(1 / 4) and speeds[0].ratio == 1


@pytest.mark.parametrize('name', SIZES)
def test_published_top1_is_of_existing_weights_best_first(name):
    entries = published(name)
    assert timm.is_model(name)
    assert bool(entries) == (name not in ('skresnet50d', 'assemble_resnet101'))
    for entry in entries:
        assert 70 < entry.top1 < 90
        assert name in OURS or timm.get_pretrained_cfg(f'{name}.{entry.weights}') is not None
    for before, after in itertools.pairwise(entries):
        assert bool(before.extra_data) < bool(after.extra_data) or before.top1 > after.top1


def test_published_top1_of_ours_is_the_papers_best_row():
    assert published('assemble_resnet50') == (('row E11', 82.78, '', True),)
    assert published('no_such_network') == ()


def test_plot_has_a_point_for_each_form_and_network_with_a_published_top1(tmp_path):
    axes = plots.plot_throughput(made_up_results(), tmp_path / 'plot.png')
    names = [label.get_text().split()[0] for label in axes.get_yticklabels()]
    assert {*names} == {*SIZES} - {'skresnet50d', 'assemble_resnet101'}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['eager float32', 'optimized bfloat16']
    for points in axes.collections:
        assert {int(y): round(x, 6) for x, y in points.get_offsets()}[names.index('assemble_resnet50')] == 5
    assert (tmp_path / 'plot.png').exists()
