"""Finished results side by side."""
import json
import shutil

import pytest

from timm_assemble.__main__ import main
from timm_assemble.robustness import Results, evaluate, make_table, statistics

from ._samples import error_of, red_over_half


def blue(images):
    return -red_over_half(images) * 0.01


MODELS = dict(red=red_over_half, blue=blue, pale=lambda images: red_over_half(images) * 0.01)


def run(tree, output, *labels, keep=True, **options):
    """Measure models against ``blue``, and return the folder."""
    options = {**dict(
        imagenet_c=tree, corruptions=['fog', 'snow'], clean=tree / 'snow' / '1', input_size=32, shift=2,
        baseline='blue', test_sets=dict(mine=tree / 'snow' / '5'), ood=dict(other=tree / 'fog' / '3')), **options}
    evaluate({label: MODELS[label] for label in labels}, keep_predictions=keep, output=output,
             identities={label: label for label in labels}, **options)
    return output


@pytest.fixture(scope='module')
def runs(tree, tmp_path_factory):
    root = tmp_path_factory.mktemp('runs')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, 'RESAMPLES', 20)
        for name, labels in (('whole', ('red', 'blue', 'pale')), ('a', ('red', 'blue')), ('b', ('blue', 'pale'))):
            run(tree, root / name, *labels)
        run(tree, root / 'without', 'pale', 'blue', keep=False)
        yield root


def test_two_runs_side_by_side_are_one_run_of_all_models(runs, capsys):
    paths = [str(runs / name / 'results.json') for name in 'ab']
    got, whole = make_table(paths).to_dict(), Results.load(runs / 'whole').to_dict()
    assert [model['label'] for model in got['models']] == ['red', 'blue', 'pale']
    for model, expected in zip(got['models'], whole['models']):
        assert model == expected
    assert got['comparisons'] == whole['comparisons'] and len(got['comparisons']) == 3
    assert main(['robustness', '--table', *paths]) == 0
    printed = capsys.readouterr().out
    assert all(line in printed for line in make_table(paths).tables().splitlines()) and 'red - pale' in printed
    shutil.rmtree(runs / 'b' / 'predictions')
    got = make_table(paths).to_dict()
    assert [entry['models'] for entry in got['comparisons']] == [['red', 'blue']]
    assert got['models'][2]['statistics']['intervals']  # those of its own run


def test_other_protocols_and_wrong_arguments_are_one_line(runs, tree, tmp_path, capsys):
    other = run(tree, tmp_path / 'other', 'red', 'blue', keep=False, shift=None, input_size=48, test_sets={})
    line = error_of(capsys, 'robustness', '--table', runs / 'without', other)
    assert line.startswith(f'timm-assemble: --table must have results of one protocol, {runs / "without"} and {other} '
                           'differ in protocol.input_size ([32, 32] and [48, 48]), data.mine.fingerprint (')
    assert line.endswith(' and None)')
    line = error_of(capsys, 'robustness', '--table', tmp_path / 'nowhere')
    assert f'--table must have results.json of a finished run, got {tmp_path / "nowhere"}: ' in line
    assert '--table must be given alone, got MODEL, --seed too' in error_of(
        capsys, 'robustness', 'a', '--seed', '3', '--table', other)
    assert 'MODEL must be at least one' in error_of(capsys, 'robustness', '--clean', tree / 'fog' / '1').replace(
        'models must', 'MODEL must')
    baseline = run(tree, tmp_path / 'baseline', 'red', 'pale', keep=False, baseline='red')
    with pytest.raises(ValueError, match=r"differ in protocol.baseline \(blue and red\)"):
        make_table([runs / 'without', baseline])
    other = run(tree, tmp_path / 'other weights', 'pale', 'blue', keep=False)
    (other / 'results.json').write_text((other / 'results.json').read_text().replace('callable pale', 'callable grey'))
    got = make_table([runs / 'without', other]).to_dict()
    assert not got['comparisons']
    assert [model['label'] for model in got['models']] == ['pale', 'blue', 'other weights: pale']
    shutil.copytree(other, tmp_path / 'more' / 'other weights')
    with pytest.raises(ValueError, match='of models with distinct labels, or folders with distinct names'):
        make_table([runs / 'without', other, tmp_path / 'more' / 'other weights'])


def test_results_of_another_version_and_other_unreadable_files(runs, tmp_path, capsys):
    values = json.loads((runs / 'without' / 'results.json').read_text())
    values['unreadable'] = [dict(path='snow/5/a/0.png', reason='damaged', tasks=1)]
    for name, change in (('other', {}), ('old', dict(schema_version=4))):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'results.json').write_text(json.dumps({**values, **change}))
    notes = make_table([runs / 'without', tmp_path / 'other']).to_dict()['notes']
    assert 'the runs left out different files that could not be read' in notes
    assert error_of(capsys, 'robustness', '--table', tmp_path / 'old') == (
        f"timm-assemble: --table must be results of this version, got '{tmp_path / 'old'}'")
