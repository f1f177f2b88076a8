"""A model's input, height x width, against timm's own transform and a loop."""
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from timm_assemble.data.preprocessing import Preprocessing, normalize, size_of, size_text

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))


@pytest.fixture
def model():
    return timm.create_model('test_assemble_resnet', pretrained_cfg_overlay=dict(
        input_size=(3, 48, 48), test_input_size=(3, 64, 96), crop_pct=0.9, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))


def test_transform_is_timms_at_the_test_size(model):
    found = Preprocessing.of_model(model)
    config = resolve_data_config({}, model=model, use_test_size=True)
    assert found.size == (64, 96) and found.text.startswith('64 x 96, crop 0.9')
    assert torch.equal(found.transform()(IMAGE), create_transform(**config)(IMAGE))


def test_normalization_of_pixels_is_that_of_the_transform(model):
    found = Preprocessing.of_model(model)
    pixels = torch.as_tensor(found.transform(normalized=False)(IMAGE))
    expected = torch.tensor([[[(value / 255 - found.mean[c]) / found.std[c] for value in row] for row in channel]
                             for c, channel in enumerate(pixels.tolist())])
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 64, 96)
    torch.testing.assert_close(normalize(pixels, *found.statistics()), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.transform()(IMAGE), expected, rtol=0, atol=1e-5)


def test_other_sizes_and_channels(model):
    found = Preprocessing.of_model(model, input_size=(3, 32, 40))
    assert found.size == (32, 40) and found.with_size((8, 9), 1.0).text.startswith('8 x 9, crop 1')
    gray = timm.create_model('test_assemble_resnet', in_chans=1)
    found = Preprocessing.of_model(gray)
    assert (found.channels, found.image_mode, len(found.mean), len(found.std)) == (1, 'L', 1, 1)
    with pytest.raises(ValueError, match=r'^mean must have one value or 3, got 2'):
        Preprocessing.of_model(model, mean=(0.1, 0.2))


def test_sizes():
    assert size_of(7) == size_of([7]) == (7, 7) and size_of((3, 5)) == (3, 5) and size_text((3, 8, 9)) == '8 x 9'
    with pytest.raises(ValueError, match=r'^img_size must be height and width, or one number for both'):
        size_of((1, 2, 3), 'img_size')


def test_sizes_may_be_numpys_integers_and_no_floats():
    assert size_of(np.int64(64)) == size_of(np.array([64, 64])) == (64, 64)
    for value in (64.0, (64, 64.0), 'ab', ()):
        with pytest.raises(ValueError, match=r'^input_size must be height and width, or one number for both'):
            size_of(value)
