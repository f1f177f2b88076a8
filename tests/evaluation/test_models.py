"""Labels of models under test."""
import pytest

from timm_assemble.evaluation.models import label_models


def function(images):
    return images


@pytest.mark.parametrize('models, baseline, labels, label', [
    ('resnet18', None, ['resnet18'], None),
    (function, None, ['function'], None),
    (['a=hf-hub:x/y', 'resnet18', 'resnet18=p/w.pth'], None, ['a', 'resnet18', 'resnet18=w.pth'], None),
    (['m=p/w.pth', 'm=q/w.pth'], 'm=q/w.pth', ['m=p/w.pth', 'm=q/w.pth'], 'm=q/w.pth'),
    (['m=p/w.pth', function], 'm=p/w.pth', ['m=w.pth', 'function'], 'm=w.pth'),
    (['m=p/w.pth'], 'm=q/w.pth', ['m=q/w.pth', 'm=p/w.pth'], 'm=q/w.pth'),
    (dict(one='resnet18', two=function), 'two', ['one', 'two'], 'two'),
    (dict(one='resnet18'), 'm=q/w.pth', ['m=w.pth', 'one'], 'm=w.pth'),
])
def test_labels_are_short_and_the_baseline_is_found_or_added(models, baseline, labels, label):
    labelled, found = label_models(models, baseline)
    assert [*labelled] == labels and found == label


@pytest.mark.parametrize('models, message', [
    (['x=hf-hub:a/b', 'x=hf-hub:a/c'], 'models must have distinct labels, got x more than once'),
    ([function, function], 'got function more than once'), ([], 'models must be at least one')])
def test_models_without_distinct_labels_are_rejected(models, message):
    with pytest.raises(ValueError, match=message):
        label_models(models)
