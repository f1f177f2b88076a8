"""The card as text: what it says of a model, and that making it leaves the model alone. What runs is in test_hub.py."""
import pytest
import timm
import torch
import yaml

import timm_assemble  # noqa: F401  registers the models
from timm_assemble.hub.model_card import Result, model_card


@pytest.fixture(scope='module')
def model():
    return timm.create_model('test_assemble_resnet', num_classes=4, drop_block_rate=0.1)


def _header(card):
    return yaml.safe_load(card.split('---\n')[1])


def test_figures_are_the_readmes():
    with torch.device('meta'):
        card = model_card(timm.create_model('assemble_resnet50', device='meta'), 'hf-hub:user/name')
    assert '**Parameters**: 41.85 M' in card and '**GMACs**: 7.48 at 256 x 256' in card
    assert '3 x 224 x 224 in training, 256 x 256 in tests; crop 0.875' in card


def test_the_model_stays_as_it_was(model):
    model.train()
    model.stage1.eval()  # a frozen part
    state = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    assert model_card(model, 'hf-hub:user/name') == model_card(model, 'hf-hub:user/name')
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(state[k], v) and v.device.type == 'cpu' for k, v in model.state_dict().items())


def test_results_need_a_known_dataset_for_the_model_index(model):
    results = [Result('top-1', 12.5, 'validation, 160 x 160', 'measure it', 'cifar10'),
               Result('top-5', 50, 'my own', 'measure it')]
    card = model_card(model, 'hf-hub:user/name', results=results, title="it's: a #title")
    header = _header(card)
    listed, = header['model-index'][0]['results']
    assert listed['dataset']['name'] == 'cifar10' and listed['metrics'][0]['value'] == 12.5
    assert 'validation, 160 x 160' in listed['metrics'][0]['name'] and header['metrics'] == ['accuracy']
    assert '| top-5 | 50.00 | - | my own | `measure it` |' in card
    assert header['model-index'][0]['name'] == "it's: a #title"
    assert 'model-index' not in _header(model_card(model, 'hf-hub:user/name'))


def test_recipe_tells_no_places(model):
    args = dict(epochs=600, lr=0.4, data_dir='/home/me/data', output='/home/me/out', experiment='secret', opt='sgd',
                wandb_project='mine', resume='/x', amp=False, amp_dtype='float16', mixup=0.2, mixup_mode='elem',
                reprob=0., remode='pixel')
    card = model_card(model, 'hf-hub:user/name', recipe=args)
    assert '| `mixup_mode` | elem |' in card and '| `epochs` | 600 |' in card
    for absent in ('/home', 'secret', 'mine', 'amp_dtype', 'remode', '/x'):
        assert absent not in card


@pytest.mark.parametrize('teacher, told', [
    ('logits:/home/me/store', 'stored logits of a teacher'), ('local-dir:/home/me/model', 'a model from a folder'),
    ('hf-hub:timm/resnet50.a1_in1k', 'hf-hub:timm/resnet50.a1_in1k'), ('resnet50.a1_in1k', 'resnet50.a1_in1k'),
    ('store:/home/me/x', 'store'),
])
def test_recipe_tells_the_teacher_without_its_place(model, teacher, told):
    card = model_card(model, 'hf-hub:user/name', recipe=dict(epochs=3, kd_model_name=teacher, kd_temperature=2.0))
    assert f'| `kd_model_name` | {told} |\n' in card and '| `kd_temperature` | 2.0 |' in card and '/home' not in card


def test_a_model_of_timms_own_needs_no_import():
    card = model_card(timm.create_model('resnet18', device='meta'), 'local-dir:x')
    assert 'timm_assemble' not in card and 'pip install timm\n' in card


def test_a_model_without_classifier_is_not_asked_for_classes():
    card = model_card(timm.create_model('test_assemble_resnet', num_classes=0, device='meta'), 'hf-hub:user/name')
    assert '# classification' not in card and '# an embedding' in card


@pytest.mark.parametrize('source', ['user/name', "hf-hub:us'er/name", 'https://x'])
def test_bad_source(model, source):
    with pytest.raises(ValueError, match=r"source must be 'hf-hub:user/name' or 'local-dir:folder', got"):
        model_card(model, source)
