import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from ..robustness._samples import write_image

LEVELS = {'x': (40, 60), 'y': (120, 150), 'z': (210, 240)}


@pytest.fixture(scope='session')
def samples(tmp_path_factory):
    """Return two models of three classes, and 20 images of three classes and one of a class of its own."""
    root = tmp_path_factory.mktemp('samples')
    for seed, name in enumerate(('a', 'b')):
        torch.manual_seed(seed)
        model = timm.create_model('test_assemble_resnet', num_classes=3)
        save_file(model.state_dict(), root / f'{name}.safetensors')
    rng = np.random.RandomState(0)
    for i in range(20):
        low, high = LEVELS['xyz'[i % 3]]
        pixels = rng.randint(low, high, (5, 6, 3)).astype(np.uint8)
        write_image(root / 'images' / 'xyz'[i % 3] / f'{i:02d}.png', Image.fromarray(pixels).resize((48, 40)))
    write_image(root / 'images' / 'alone' / '20.png', Image.fromarray(pixels).resize((48, 40)))
    return root
