"""``timm_assemble.robustness.evaluate`` as a library's function."""
import re
from pathlib import Path

import numpy as np
import pytest
import timm
from timm.models import save_for_hf

from timm_assemble.__main__ import main
from timm_assemble.robustness import evaluate
from timm_assemble.robustness import statistics
from timm_assemble.robustness.results import Comparison, ProtocolValues, RobustnessReport, RobustnessValues, Statistics

from ._samples import arguments, counting, model_names, noise, read_results, red_over_half, write_image

PAGE = Path(__file__).parents[2] / 'docs' / 'robustness.md'


@pytest.fixture
def two_classes(tree):
    return tree / 'snow' / '1'  # three of its four images are wrong for red_over_half


def test_command_and_function_give_the_same_results(samples, tmp_path):
    assert main(arguments(samples, '--clean', samples / 'clean', '--output', tmp_path)) == 0
    names = model_names(samples)
    results = evaluate(names, clean=samples / 'clean', input_size=32)
    expected = read_results(tmp_path)
    assert {key: value for key, value in results.to_dict().items() if key != 'run'} == expected
    again = evaluate(dict(zip('ab', names)), clean=str(samples / 'clean'), input_size=32, batch_size=1)
    assert [*again.summary] == ['a', 'b']
    assert [*again.summary.values()] == [pytest.approx(metrics) for metrics in results.summary.values()]


def test_without_output_nothing_is_written(two_classes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    counts = []
    for _ in range(2):
        results = evaluate({'red': counting(counts)}, clean=two_classes, input_size=32)
    assert counts == [1, 4] * 2  # an image to try it, and all four
    assert results.summary['red']['top1'] == 25 and not [*tmp_path.iterdir()]
    assert results.to_dict()['models'][0]['checksum'] is None
    assert str(results) == results.tables() and '25.00' in results.tables()


def test_callables_are_cached_under_the_identity_that_is_given(two_classes, tmp_path):
    counts = []
    options = dict(clean=two_classes, input_size=32, output=tmp_path / 'output')
    with pytest.raises(ValueError, match='identities must say which weights red has, because `output` caches results'):
        evaluate({'red': red_over_half}, **options)
    for identity, batches in (('weights 1', [1, 4]), ('weights 1', [1]), ('weights 2', [1, 4])):
        counts.clear()
        options.update(output=tmp_path / identity, cache=tmp_path / 'cache')
        results = evaluate({'red': counting(counts)}, identities=dict(red=identity), **options)
        assert counts == batches and results.summary['red']['top1'] == 25
    assert read_results(tmp_path / 'weights 2')['models'][0]['source'] == 'callable weights 2'
    assert (tmp_path / 'weights 2' / 'results.csv').read_text() == results.csv()
    before = (tmp_path / 'weights 2' / 'results.json').read_bytes()
    options.update(output=tmp_path / 'weights 2')
    with pytest.raises(ValueError, match=r'output must not have results of another .* \(protocol imagenet-c, red\)'):
        evaluate({'red': counting(counts)}, identities=dict(red='weights 3'), **options)
    assert (tmp_path / 'weights 2' / 'results.json').read_bytes() == before


@pytest.mark.parametrize('options, message', [
    (dict(batch_size=0), 'batch_size must be an integer of 1 or more, got 0'),
    (dict(shift=-1), 'shift must be an integer of 1 or more, got -1'),
    (dict(input_size=True), 'input_size must be height'),
    (dict(identities=dict(blue='1')), r"identities must be of callables, \['red'\] here, got \['blue'\]"),
    (dict(models=dict(red=red_over_half, blue=red_over_half), identities=dict(red='1', blue='1')),
     "identities must be distinct, got {'red': '1', 'blue': '1'}"),
    (dict(batch_size=4.0), r'^batch_size must be an integer of 1 or more, got 4\.0$'),
    (dict(batch_size=True), 'batch_size must be an integer of 1 or more, got True'),
    (dict(seed=-1), 'seed must be an integer of 0 or more, got -1'),
    (dict(protocol='mine'), "protocol must be one of .* got 'mine'"), (dict(clean=None), 'imagenet_c must be given'),
])
def test_wrong_arguments_name_the_parameter(two_classes, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(**{**dict(models={'red': red_over_half}, clean=two_classes), **options})


@pytest.mark.parametrize('classify, message', [
    (lambda images: np.zeros((len(images), 3)), r'models must return logits, mine .* \(1, classes\), got ndarray'),
    (lambda images: images, r'models must return logits, mine does not: .* \(1, classes\), got \(1, 3, 32, 32\)'),
    (lambda images: images[:, :2, 0, 0] / (images.max() == 0),  # fails on images that are not black
     'models must fit the images; mine on clean: logits must be finite, got others for 4 of 4'),
    (lambda images: images[:, :1, 0, 0], 'clean for mine must have .* folder for each of the 1 classes, .* got 2'),
])
def test_wrong_callables_are_reported(two_classes, classify, message):
    with pytest.raises(ValueError, match=message):
        evaluate(dict(mine=classify), clean=two_classes, input_size=32)


def test_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        write_image(Path('validation') / 'xy'[i] / f'{i}.png', noise(np.random.RandomState(i), 30, 30))
    save_for_hf(timm.create_model('test_assemble_resnet', num_classes=2), 'trained', safe_serialization=True)
    predictions, example, _ = re.findall(r'```python\n(.*?)```', PAGE.read_text(encoding='utf-8'), re.DOTALL)
    names: dict = {}
    exec(example, names)
    assert [*names['results'].summary] == ['mine', 'flipped'] and names['results'].summary['flipped']['mean_error'] >= 0
    monkeypatch.setattr(statistics, 'RESAMPLES', 9)
    evaluate({'a': red_over_half}, generate='validation', corruptions=['fog'], input_size=32, keep_predictions=True,
             output='robustness-output', identities=dict(a='1'))
    capsys.readouterr()
    exec(predictions, {})
    assert 'x/0.png' in (out := capsys.readouterr().out) or 'y/1.png' in out or out == '[] []\n'


def test_page_has_every_field_of_the_results():
    page = PAGE.read_text(encoding='utf-8')
    kinds = (RobustnessValues, RobustnessReport, Statistics, ProtocolValues, Comparison)
    fields = [name for kind in kinds for name in kind.__struct_fields__]
    assert not [name for name in fields if not re.search(rf'`(\w+\[\]\.)?{name}(\[\])?`', page)]
