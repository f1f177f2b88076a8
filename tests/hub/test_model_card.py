"""What a model card says, and that writing it does not change the model. test_push.py runs the card's code."""
import pytest
import timm
import torch
from huggingface_hub import ModelCard

import timm_assemble  # noqa: F401  registers the models
from timm_assemble.hub.model_card import Result, model_card


@pytest.fixture(scope='module')
def model():
    return timm.create_model('test_assemble_resnet', num_classes=4, drop_block_rate=0.1)


def test_parameters_gmacs_and_sizes_are_those_of_the_readme():
    with torch.device('meta'):
        card = model_card(timm.create_model('assemble_resnet50', device='meta'), 'hf-hub:user/name')
    assert '**Parameters**: 41.85 M' in card and '**GMACs**: 7.48 at 256 x 256' in card
    assert '3 x 224 x 224 in training, 256 x 256 in tests; crop 0.875' in card


def test_both_libraries_are_shown_and_the_error_without_the_import(model):
    for classes, kind in ((4, 'AutoModelForImageClassification'), (0, 'AutoModel')):
        card = model_card(timm.create_model('test_assemble_resnet', num_classes=classes), 'hf-hub:user/name@v1')
        start = card.split('## Model')[0].replace('\n> ', '\n')
        assert "import timm_assemble\nmodel = timm.create_model('hf-hub:user/name@v1', pretrained=True)\n" in start
        assert f"import {kind}\nmodel = {kind}.from_pretrained('user/name', revision='v1')\n" in start
        assert "The model architecture 'test_assemble_resnet' is not supported in your version of timm" in start
    theirs = model_card(timm.create_model('test_resnet'), 'hf-hub:user/name')
    assert 'timm_assemble' not in theirs and 'transformers' not in theirs


def test_the_model_is_not_changed(model):
    model.train()
    model.stages[0].eval()  # a frozen part
    state = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    assert model_card(model, 'hf-hub:user/name') == model_card(model, 'hf-hub:user/name')
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(state[k], v) and v.device.type == 'cpu' for k, v in model.state_dict().items())


def test_huggingface_hub_reads_the_header_back_with_the_model_index(model, tmp_path):
    results = [Result('top-1', 12.5, 'validation, 160 x 160', 'measure it', 'cifar10'),
               Result('top-5', 50, 'validation, 160 x 160', 'measure it', 'cifar10'),
               Result('top-1', 40, 'my own | mine', 'measure it')]
    (tmp_path / 'README.md').write_text(model_card(
        model, 'hf-hub:user/name', results=results, title="it's: a #title", datasets=['cifar10']))
    card = ModelCard.load(tmp_path / 'README.md')
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == ('timm', 'image-classification', 'apache-2.0')
    assert data.tags == ['image-classification', 'timm', 'timm_assemble']
    assert data.datasets == ['cifar10'] and data.metrics == ['accuracy'] and data.model_name == "it's: a #title"
    assert [(r.dataset_name, r.metric_type, r.metric_value, r.metric_name) for r in data.eval_results] == [
        ('cifar10', 'accuracy', 12.5, 'top-1 (%), validation, 160 x 160'),
        ('cifar10', 'accuracy', 50, 'top-5 (%), validation, 160 x 160')]
    assert '| top-1 | 40.00 | - | my own \\| mine | `measure it` |' in card.text
    unmeasured = ModelCard(model_card(model, 'hf-hub:user/name'))
    assert unmeasured.data.eval_results is None and 'model-index' not in str(unmeasured)


def test_line_breaks_in_values_add_no_lines(model):
    def card(text):
        return model_card(
            model, 'hf-hub:user/name', title=text, weights=text, model_args={'x': text}, datasets=[text],
            recipe={'opt': text, 'kd_model_name': text}, results=[Result(text, 1, text, text, text)], license_id=text)

    broken = card('a\n---\n# b\r\nc')
    assert len(broken.splitlines()) == len(card('a').splitlines())
    assert ModelCard(broken).data.eval_results[0].dataset_name == 'a --- # b c'


def test_training_arguments_have_an_effect_and_name_no_paths(model):
    args = dict(epochs=600, lr=0.4, data_dir='/home/me/data', output='/home/me/out', experiment='secret', opt='sgd',
                wandb_project='mine', resume='/x', amp=False, amp_dtype='float16', mixup=0.2, mixup_mode='elem',
                reprob=0., remode='pixel')
    card = model_card(model, 'hf-hub:user/name', recipe=args)
    assert '| `mixup_mode` | elem |' in card and '| `epochs` | 600 |' in card
    for absent in ('/home', 'secret', 'mine', 'amp_dtype', 'remode', '/x'):
        assert absent not in card


@pytest.mark.parametrize('teacher, shown', [
    ('logits:/home/me/store', 'stored logits of a teacher'), ('local-dir:/home/me/model', 'a model from a folder'),
    ('hf-hub:timm/resnet50.a1_in1k', 'hf-hub:timm/resnet50.a1_in1k'), ('resnet50.a1_in1k', 'resnet50.a1_in1k'),
    ('store:/home/me/x', 'store'),
])
def test_the_teacher_is_named_without_its_path(model, teacher, shown):
    card = model_card(model, 'hf-hub:user/name', recipe=dict(epochs=3, kd_model_name=teacher, kd_temperature=2.0))
    named = model_card(model, 'hf-hub:user/name', recipe=dict(kd_model_name=teacher, kd_teacher='b7, 3 stored views'))
    assert '| `kd_teacher` | b7, 3 stored views |\n' in named and '`kd_teacher`' not in card
    assert f'| `kd_model_name` | {shown} |\n' in card and '| `kd_temperature` | 2.0 |' in card and '/home' not in card


def test_the_card_of_a_timm_model_does_not_mention_this_package():
    card = model_card(timm.create_model('resnet18', device='meta'), 'local-dir:x')
    assert 'timm_assemble' not in card and 'pip install timm\n' in card


def test_the_card_of_a_model_without_classifier_has_no_classification_code():
    card = model_card(timm.create_model('test_assemble_resnet', num_classes=0, device='meta'), 'hf-hub:user/name')
    assert '# classification' not in card and '# embedding' in card


@pytest.mark.parametrize('source', ['user/name', "hf-hub:us'er/name", 'https://x', 'local-dir:a\nb'])
def test_a_source_of_another_form_is_rejected(model, source):
    with pytest.raises(ValueError, match=r"source must be 'hf-hub:user/name' or 'local-dir:folder', got"):
        model_card(model, source)
