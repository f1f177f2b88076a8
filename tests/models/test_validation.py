"""Files that no model can be meant by: reported in one line and within seconds, before anything is built."""
import json
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from timm_assemble.models.family import registered_models
from timm_assemble.models.loading import load_source, split_source
from timm_assemble.models.validation import check_pretrained_cfg, check_weights
from timm_assemble.runtime.checksum import weights_sha256

from .._published import logits, write_folder


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """A model folder that nobody changes."""
    folder = tmp_path_factory.mktemp('model')
    write_folder(folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / 'm')


def changed(**changes):
    """Return the text of a config.json with other values; ``cfg_`` and ``arg_`` name nested keys."""
    def text(config):
        for key, value in changes.items():
            part, _, inner = key.partition('_')
            group = {'cfg': 'pretrained_cfg', 'arg': 'model_args'}.get(part)
            target, key = (config[group], inner) if group else (config, key)
            target[key] = value
        return json.dumps(config)
    return text


@pytest.mark.timeout(20)
@pytest.mark.parametrize('content, message', [
    (None, 'must exist'),
    (b'\xff\xfe', 'must be JSON'),
    ('{', 'must be JSON'),
    ('[' * 100_000, 'must be JSON'),
    ('null', 'must be a JSON object, got None'),
    ('{}', 'architecture must be the name of a model that timm knows, got None'),
    (changed(architecture='resnet5000'), "architecture must be .*, got 'resnet5000'"),
    (changed(architecture=['resnet18']), r"architecture must be .*, got \['resnet18'\]"),
    (changed(model_args=None), 'model_args must be an object, got None'),
    (changed(pretrained_cfg=None), 'pretrained_cfg must be an object, got None'),
    (changed(arg_widht=8), "unexpected keyword argument 'widht'"),
    (changed(arg_device='cuda'), "multiple values for keyword argument 'device'"),
    (changed(arg_width='8'), "width must be of type int, got '8'"),
    (changed(arg_deep_stem='no'), "deep_stem must be of type bool, got 'no'"),
    (changed(arg_bn_eps=float('nan')), 'bn_eps must be of type float, got nan'),
    (changed(arg_attn=1), 'attn'),
    (changed(arg_layers=None), "object of type 'NoneType' has no len"),
    (changed(arg_layers=[3, 3, 20_000, 2]), r'layers must be at most 500 in total, got \[3, 3, 20000, 2\]'),
    (changed(arg_layers=[1] * 20_000), 'layers must be at most 500 in total, got'),
    (changed(architecture='resnet18', arg_layers=[2, 2, 20_000, 2]), 'layers must be at most 500'),
    (changed(architecture='vit_tiny_patch16_224', arg_depth=20_000), 'depth must be at most 500'),
    (changed(arg_width=2 ** 20), 'width must be at most 512'),
    (changed(arg_num_classes=10 ** 400), 'num_classes must be at most 1000000'),
    (changed(num_classes='7'), "num_classes must be an integer of 0 or more, got '7'"),
    (changed(cfg_mean='0.5'), "mean must be a list of numbers, got '0.5'"),
    (changed(cfg_std=[0.2, 0, 0.2]), r'std must be a list of positive numbers, got \[0.2, 0, 0.2\]'),
    (changed(cfg_input_size=3), 'input_size must be channels, height and width'),
    (changed(cfg_input_size=[3, 10 ** 9, 224]), 'input_size must be channels, height and width'),
    (changed(cfg_crop_pct='all'), "crop_pct must be a positive number, got 'all'"),
    (changed(label_names=['a', 'b']), 'label_names must be as many as the 7 classes, got 2'),
    (changed(cfg_label_names='abcdefg'), "label_names must be a list of strings, got 'abcdefg'"),
])
def test_bad_config_is_one_line_that_names_file_key_and_value(folder, content, message):
    file = folder / 'config.json'
    if content is None:
        file.unlink()
    else:
        content = content(json.loads(file.read_text())) if callable(content) else content
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        load_source(f'local-dir:{folder}')
    assert str(error.value).startswith(f'model local-dir:{folder}: {file}') and '\n' not in str(error.value)


def test_folders_of_other_tools_and_of_timms_older_format_load(tmp_path):
    model = timm.create_model('test_resnet', num_classes=2)
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    config = json.loads((tmp_path / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'architectures': ['T'], 'transformers_version': '5'}))
    assert load_source(f'local-dir:{tmp_path}').architecture == 'test_resnet'
    older = {**config['pretrained_cfg'], 'architecture': 'test_resnet', 'num_features': 1, 'labels': ['a', 'b']}
    (tmp_path / 'config.json').write_text(json.dumps(older))
    assert load_source(f'local-dir:{tmp_path}').num_classes == 2


def test_source_has_the_model_its_preprocessing_and_checksum(folder):
    source = load_source(f'label=local-dir:{folder}')
    file = load_file(folder / 'model.safetensors')
    assert source.checksum == weights_sha256(file) and not source.model.training
    again = timm.create_model(f'local-dir:{folder}', pretrained=True)
    assert torch.equal(logits(source.model), logits(again))
    assert (source.architecture, source.preprocessing.input_size) == ('test_assemble_resnet', (3, 160, 160))


@pytest.mark.parametrize('name, index, value, message', [
    ('stem.0.conv.weight', ..., float('nan'), 'conv.weight must be finite, got 2352 of 2352 values that are not'),
    ('fc.bias', 2, float('inf'), 'fc.bias must be finite, got 1 of 7 values'),
    ('stem.0.norm.running_var', 0, -0.5, 'norm.running_var must be 0 or more, got -0.5'),
])
def test_weights_that_cannot_be_meant_are_rejected(folder, name, index, value, message):
    file = folder / 'model.safetensors'
    state = load_file(file)
    check_weights(state, 'a file')
    state[name][index] = value
    save_file(state, file)
    with pytest.raises(ValueError, match=f'a file: .*{message}'):
        check_weights(state, 'a file')
    with pytest.raises(ValueError, match=f'model local-dir:.*{message}'):
        load_source(f'local-dir:{folder}')


def test_configuration_of_every_registered_model_passes():
    for name in registered_models():
        check_pretrained_cfg(timm.get_pretrained_cfg(name).to_dict())


@pytest.mark.parametrize('model, message', [
    ('resnet5000', 'model resnet5000: timm knows no such model'),
    ('nowhere/at/all', 'model nowhere/at/all: timm knows no such model'),
    ('assemble_resnet50', 'model assemble_resnet50: No pretrained weights exist for assemble_resnet50'),
    ('local-dir:nowhere', 'model local-dir:nowhere: nowhere/config.json must exist'),
    ('resnet18=', "model must be a name, .*, got 'resnet18='"),
    ('resnet18=nowhere', 'model resnet18=nowhere: CHECKPOINT of resnet18=CHECKPOINT must be a file, got nowhere'),
])
def test_unknown_sources_are_errors_of_the_parameter(model, message):
    with pytest.raises(ValueError, match=message):
        load_source(model)


def test_sources_are_split_into_label_name_and_checkpoint():
    assert split_source('a=hf-hub:x/y') == ('a', 'hf-hub:x/y', '')
    assert split_source('local-dir:a=b') == ('local-dir:a=b', 'local-dir:a=b', '')
    assert split_source('resnet18=p/w.pth') == ('resnet18=w.pth', 'resnet18', 'p/w.pth')
