"""Pages, headlines, the front page's tables and the plot, from committed and from made-up results."""
import ast
import itertools
import json
import re
from pathlib import Path

import pytest
import timm
from PIL import Image

from benchmarks.harness.measure import RESULTS, ROOT, environment, make_row, read_results
from benchmarks.harness.networks import DTYPES, OURS, REFERENCE, SIZES, Network, Setting, split
from benchmarks.reports import __main__ as reports
from benchmarks.reports import plot, report, speed
from benchmarks.reports.published import published
from benchmarks.throughput import published_details

COMMITTED = RESULTS / 'throughput.json'
EAGER = Setting('inference', 'eager', 'float32', 4)
OPTIMIZED = EAGER._replace(form='optimized', dtype='bfloat16')
MARKERS = ''.join(f'<!-- {name}:begin -->\n<!-- {name}:end -->\n' for name in reports.BLOCKS)


def made_up_results(path: Path, settings=(EAGER, OPTIMIZED)) -> dict:
    """Write results as throughput.py does, of images/s that fall with the place in SIZES."""
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
    results = dict(schema_version=1, question='How?', command='python -m benchmarks.throughput',
                   environment=environment('cpu', 'wall time'), rows=rows)
    path.write_text(json.dumps(results))
    return results


@pytest.fixture
def path(tmp_path):
    """Results of two settings."""
    made_up_results(tmp_path / 'throughput.json')
    return tmp_path / 'throughput.json'


def cells(block: str) -> list:
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in block.splitlines() if line.startswith('| ')]


def test_committed_pages_are_those_of_the_committed_results_and_questions():
    stale = [path.name for path, text in reports.pages().items() if not path.exists() or path.read_text() != text]
    front = reports.FRONT_PAGE.read_text()
    assert not stale and reports.front_page(front) == front, 'run `python -m benchmarks.reports`'
    assert {path.stem for path in report.PAGES.glob('*.md')} == {path.stem for path in RESULTS.glob('*.json')}
    for path in RESULTS.glob('*.json'):
        code = (ROOT / 'benchmarks' / f'{path.stem.removesuffix("_cuda")}.py').read_text()
        question = ast.literal_eval(re.search('^QUESTION = (.*)$', code, re.MULTILINE)[1])
        assert read_results(path)['question'] == question, path.stem


def test_page_keeps_its_text_and_a_new_one_gets_a_title(tmp_path, monkeypatch):
    monkeypatch.setattr(report, 'PAGES', tmp_path)
    new = report.page(RESULTS / 'layers.json')
    assert new.startswith(f'# layers\n\n{report.BEGIN}\n\n**How long do the layers') and '`python -m benchmarks.' in new
    assert '| SelectiveKernelC3 ' in new
    (tmp_path / 'layers.md').write_text(f'# Mine\n{report.BEGIN}\nold\n{report.END}\nafter\n')
    page = report.page(RESULTS / 'layers.json')
    assert page == new.replace('# layers\n\n', '# Mine\n').rstrip('\n') + '\nafter\n'


def test_headline_without_its_row_is_rejected(monkeypatch):
    monkeypatch.setattr(report, 'HEADLINES', {'layers': [report.Headline('', 'no such case', '')]})
    with pytest.raises(ValueError, match=r"layers\.json has no 'no such case'"):
        report.headlines()


def test_pages_are_written_together_or_not_at_all(tmp_path, monkeypatch, capsys):
    page, front = tmp_path / 'README.md', tmp_path / 'front.md'
    page.write_text(f'{report.HEADLINES_BEGIN}\n{report.HEADLINES_END}\n')
    front.write_text('no markers\n')
    for path in report.PAGES.glob('*.md'):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(report, 'PAGES', tmp_path)
    monkeypatch.setattr(reports, 'PAGES', tmp_path)
    monkeypatch.setattr(reports, 'README', page)
    monkeypatch.setattr(reports, 'FRONT_PAGE', front)
    before = page.read_text()
    assert reports.main() == 2 and page.read_text() == before
    err = capsys.readouterr().err
    assert err.count('\n') == 1 and 'error: text must have the markers' in err
    front.write_text(MARKERS)
    assert reports.main() == 0
    assert 'x the images/s (' in page.read_text() and '82.78' in front.read_text()


def test_front_page_has_models_by_top1_ratios_to_efficientnet_and_what_is_better_and_faster(path):
    titles, _, *rows = cells(speed.models_table(path))
    assert titles == [
        'model', 'size', 'params (M)', 'GMACs', 'top-1 (%)', 'mCE (%)', 'eager float32, CPU',
        'optimized bfloat16, CPU']
    assert ['**`assemble_resnet50`**', '256', '10.0', '8.00', '82.78 (distilled)', '48.89', '0.12', '0.12'] in rows
    names = [row[0] for row in rows]
    assert names == sorted(names, key=lambda name: published(name.strip('*`'))[0].top1)
    assert len(rows) == 14  # skresnet50d and assemble_resnet101 have no published top-1
    titles, _, *rows = cells(speed.efficientnet_table(path))
    assert titles == ['images/s', '`assemble_resnet152`', '`tf_efficientnet_b6`', 'ratio (quartiles)']
    assert rows == [['eager float32', '8', '2', '4.00 (4.00 to 4.00)'],
                    ['optimized bfloat16', '8', '2', '4.00 (4.00 to 4.00)'],
                    ['the paper, Tesla P40', '143', '28', '5.1']]
    lines = speed.losses(path).splitlines()
    # resnet50d is the second network, assemble_resnet50_d the sixth: 3x the images/s
    start = '- `assemble_resnet50_d` (79.10): `resnet50` (80.85; 6.00x), `resnet50d` (80.96; 3.00x), '
    assert any(line.startswith(start) for line in lines)
    assert '- `assemble_resnet152` (84.19): none of these on ImageNet-1k alone' in lines


def test_gpu_has_columns_and_rows_of_its_own(path, tmp_path):
    gpu = tmp_path / 'throughput_cuda.json'
    results = made_up_results(gpu, [EAGER._replace(batch_size=128)])
    results['environment']['device'] = 'NVIDIA H200'
    gpu.write_text(json.dumps(results))
    block = speed.models_table(path, gpu)
    titles, _, *rows = cells(block)
    assert titles[-3:] == ['eager float32, CPU', 'optimized bfloat16, CPU', 'eager float32, H200']
    assert next(row for row in rows if row[0] == '**`assemble_resnet50`**')[-1] == '0.12'
    assert [f'Measured at batch size {n} by' in block for n in (4, 128)] == [True, True]
    assert ['eager float32, H200', '8', '2', '4.00 (4.00 to 4.00)'] in cells(speed.efficientnet_table(path, gpu))
    assert speed.losses(path, gpu) == speed.losses(path)


def test_other_batch_sizes_do_not_count(tmp_path):
    speeds = speed.read_speeds(made_up_results(tmp_path / 'x.json', [EAGER, EAGER._replace(batch_size=8)]))
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
    assert published_details(name).get('top-1 (%)', '') == next((e.top1 for e in entries if not e.extra_data), '')


def test_published_top1_of_ours_is_the_papers_best_row():
    assert published('assemble_resnet50') == ((82.78, 'row E11', ''),)
    assert published('no_such_network') == ()


def _overlaps(boxes):
    return [(a, b) for (a, one), (b, two) in itertools.combinations(boxes, 2) if one.overlaps(two)]


@pytest.mark.parametrize('settings', [
    [EAGER], [EAGER._replace(form=form, dtype=dtype) for form in ('eager', 'optimized') for dtype in DTYPES][:4]])
def test_plot_has_a_panel_per_form_and_names_that_do_not_overlap(settings, tmp_path):
    path = tmp_path / 'plot.png'
    results = made_up_results(tmp_path / 'x.json', settings)
    figure = plot.draw(results, path)
    with Image.open(path) as image:
        assert image.size[0] > 600 and len(image.convert('L').getcolors()) > 50
        assert image.info['Description'] == report.provenance(results)
    assert len(figure.axes) == len(settings)
    for axes in figure.axes:
        texts = [text for text in axes.texts if text.get_text()]
        assert {text.get_text() for text in texts} == {*SIZES} - {'skresnet50d', 'assemble_resnet101'}
        assert not _overlaps([(text.get_text(), text.get_window_extent()) for text in texts])
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(plot.KINDS)
    ours = figure.axes[0].collections[0]
    assert len(ours.get_offsets()) == len([name for name in OURS if published(name)])


def test_unusable_results_are_rejected_and_of_the_plot_in_one_line_with_status_2(path, capsys):
    results = json.loads(path.read_text())
    results['rows'] = [{**row, 'group': 'other'} for row in results['rows']
                       if row['name'] != 'assemble_resnet152' or row['comparison']['reference'] == REFERENCE]
    path.write_text(json.dumps(results))
    for block in reports.BLOCKS.values():
        with pytest.raises(ValueError, match=r'results need --modes inference|has no pair of networks'):
            block(path)
    for content, message in ((json.dumps(results), 'results need --modes'), ('{', 'Expecting'), (None, 'No such file')):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        assert plot.main(['--results', str(path)]) == 2
        err = capsys.readouterr().err
        assert err.count('\n') == 1 and message in err


def test_committed_plot_is_of_the_committed_results():
    with Image.open(COMMITTED.with_suffix('.png')) as image:
        assert image.info['Description'] == report.provenance(read_results(COMMITTED)), (
            'run `python -m benchmarks.reports.plot`')
