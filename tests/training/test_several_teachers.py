"""The mean of several teachers against a loop, what it belongs to, and the command."""
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_dataset

from timm_assemble.__main__ import main
from timm_assemble.hub.save import save_model
from timm_assemble.training import (
    TeacherLogits, TeacherViews, combine_stores, store_teacher_logits, store_teacher_views,
)

from .. import _oracles as oracle

CLASSES = 5


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Five images, a store of logits and one of views of each of two teachers, of which one sees larger images."""
    root, rng = tmp_path_factory.mktemp('root'), np.random.default_rng(0)
    for c in range(CLASSES):
        (root / 'train' / str(c)).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), np.uint8)).save(root / 'train' / str(c) / 'a.png')
    for i, size in enumerate((32, 48)):
        torch.manual_seed(i)
        model = timm.create_model('test_assemble_resnet', num_classes=CLASSES)
        torch.nn.init.normal_(model.get_classifier().weight, std=1.0)
        data = create_dataset('', root=str(root), split='train')
        options = dict(workers=0, chunk_size=2, progress=False)
        store_teacher_logits(model, f'teacher {i}', data, root / f'logits{i}', preprocessing=dict(img_size=size),
                             **options)
        transform = dict(input_size=(3, 32, 32), interpolation='bilinear')
        store_teacher_views(model, f'teacher {i}', data, root / f'views{i}', transform, 2, 2 * i, teacher_size=size,
                            **options)
        save_model(model, root / f'model{i}')
    return root


@pytest.mark.parametrize('kind, top_k', [('logits', None), ('logits', 2), ('views', 0)])
def test_mean_is_of_the_probabilities(root, tmp_path, kind, top_k):
    info = combine_stores([root / f'{kind}{i}' for i in range(2)], tmp_path / 'mean', (1, 3), top_k)
    store = {'logits': TeacherLogits, 'views': TeacherViews}[kind]
    teachers, mean = [store(root / f'{kind}{i}') for i in range(2)], store(tmp_path / 'mean')
    for key in [(i,) for i in range(CLASSES)] if kind == 'logits' else [(i, v) for i in range(CLASSES) for v in (0, 1)]:
        rows = [teacher.probabilities(*key).double().numpy() for teacher in teachers]
        expected = [0.25 * a + 0.75 * b for a, b in zip(*rows)]
        if top_k:
            expected = oracle.spread_evenly(np.log(expected), top_k)
        np.testing.assert_allclose(mean.probabilities(*key), expected, atol=1e-3)
        assert kind == 'logits' or mean.replay(*key) == teachers[0].replay(*key) == teachers[1].replay(*key)
    assert info == mean.info and info.teacher['name'] == 'teacher 0 + teacher 1'
    assert [(t['name'], t['weight']) for t in info.teacher['teachers']] == [('teacher 0', 0.25), ('teacher 1', 0.75)]
    assert len(info.preprocessing['teachers']) == 2 and info.samples == teachers[0].info.samples


def test_command_stores_each_teacher_and_the_mean(root, tmp_path, capsys):
    models = [f'local-dir:{root}/model{i}' for i in range(2)]
    command = ['teacher-logits', '--model', *models, '--teacher-weights', '1', '3', '--data-dir', str(root),
               '--workers', '0', '--device', 'cpu', '--output', str(tmp_path / 'mean')]
    for _ in range(2):  # the second finds all finished
        assert main(command) == 0
        assert f'train with --kd-model-name logits:{tmp_path / "mean"}' in capsys.readouterr().out
    teachers = [TeacherLogits(tmp_path / f'mean-{i}') for i in (1, 2)]
    mean = TeacherLogits(tmp_path / 'mean')
    for i in range(CLASSES):
        expected = 0.25 * teachers[0].probabilities(i) + 0.75 * teachers[1].probabilities(i)
        torch.testing.assert_close(mean.probabilities(i), expected, atol=1e-3, rtol=0)
    assert mean.info.teacher['name'] == ' + '.join(models)
    for args, message in (((*command, '--teacher-weights', '1'), '--teacher-weights must be 2 positive numbers'),
                          ((*command, '--checkpoint', 'x'), '--checkpoint must be left out with several models')):
        assert main([*args]) == 2
        assert message in capsys.readouterr().err


def test_stores_that_do_not_belong_together_are_rejected(root, tmp_path):
    logits, views = root / 'logits0', root / 'views0'
    for stores, weights, message in (
            ((logits,), None, 'stores must be two or more, got 1'),
            ((logits, views), None, 'stores must all be of logits or all of views'),
            ((logits, root / 'logits1'), (1, 0), r'weights must be 2 positive numbers, one per teacher, got \[1, 0\]')):
        with pytest.raises(ValueError, match=message):
            combine_stores(stores, tmp_path / 'mean', weights)
    assert not (tmp_path / 'mean').exists()
