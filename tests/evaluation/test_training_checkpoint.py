"""A checkpoint of train.py keeps its class map and its size in both evaluations."""
import argparse
import json

import pytest
import timm
import torch
from PIL import Image

from timm_assemble.__main__ import main

from .._published import FOUR_CHANNELS, train_args
from ..robustness._samples import write_image

COUNTS, SIZE = dict(a=1, b=2, c=3, d=6), (48, 80)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Images in folders, and the checkpoint of a model that takes each for its first class, ``d`` by the class map."""
    root = tmp_path_factory.mktemp('run')
    for name, count in COUNTS.items():
        for i in range(count):
            write_image(root / 'images' / name / f'{i}.png', Image.new('RGB', (120, 90), (20 * i, 0, 0)))
    (root / 'map.txt').write_text('d\nc\nb\na\n')
    model = timm.create_model('test_assemble_resnet', num_classes=len(COUNTS))
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.copy_(torch.tensor([1., 0, 0, 0]))
    args = dict(train_args(FOUR_CHANNELS), model='test_assemble_resnet', num_classes=len(COUNTS), in_chans=None,
                gp=None, bn_eps=None, model_kwargs={}, img_size=None, input_size=(3, *SIZE),
                class_map=str(root / 'map.txt'))
    torch.save(dict(state_dict=model.state_dict(), args=argparse.Namespace(**args)), root / 'last.pth.tar')
    return root


def evaluate(command, root, output, *options):
    assert main([command, f'm=test_assemble_resnet={root / "last.pth.tar"}', *map(str, options),
                 '--output', str(output), '--workers', '0']) == 0
    return json.loads((output / 'results.json').read_text())['models'][0]


def test_robustness_takes_the_names_for_the_classes(run, tmp_path):
    found = evaluate('robustness', run, tmp_path, '--generate', run / 'images', '--corruptions', 'brightness',
                     '--input-size', 32)
    assert found['clean']['top1_error'] == pytest.approx(100 - 100 * COUNTS['d'] / sum(COUNTS.values()))
    assert found['classes_by'] == "the model's label_names" and found['own_size'] == [*SIZE]


def test_retrieval_takes_the_size_of_the_training(run, tmp_path):
    assert evaluate('retrieval', run, tmp_path, '--data-dir', run / 'images')['input_size'] == [*SIZE]
