"""segmentation_models_pytorch: every decoder that takes a convolutional encoder, with its depths and output strides."""
import pytest
import segmentation_models_pytorch as smp
import timm
import torch

from ..conftest import as_trained, differing

LIBRARY = 'segmentation-models-pytorch'
HOW = """\
import segmentation_models_pytorch as smp
import timm_assemble  # registers the models

model = smp.Unet('tu-assemble_resnet50', encoder_weights=None, classes=3)
"""

# DPT is not among them: its encoder must be a vision transformer
CONFIGURATIONS = {
    'Unet': {},
    'Unet depth 4': dict(encoder_depth=4, decoder_channels=(256, 128, 64, 32)),
    'Unet depth 3': dict(encoder_depth=3, decoder_channels=(256, 128, 64)),
    'UnetPlusPlus': {},
    'MAnet': {},
    'Linknet': {},
    'FPN': {},
    'FPN depth 4': dict(encoder_depth=4, upsampling=2),
    'PSPNet': {},  # of depth 3
    'DeepLabV3': {},  # of output stride 8
    'DeepLabV3 stride 16': dict(encoder_output_stride=16, upsampling=16),
    'DeepLabV3Plus': {},  # 16
    'DeepLabV3Plus stride 8': dict(encoder_output_stride=8),
    'PAN': {},  # 16
    'PAN stride 32': dict(encoder_output_stride=32),
    'UPerNet': {},
    'Segformer': {},
}


SIDES = {'PAN': 128, 'PAN stride 32': 256}  # its decoder halves the last feature map three times


def train_step(model, side=64):
    as_trained(model).train()
    masks = torch.randint(3, (2, side, side))
    logits = model(torch.randn(2, 3, side, side))
    assert logits.shape == (2, 3, side, side)
    loss = smp.losses.DiceLoss('multiclass')(logits, masks)
    loss.backward()
    assert loss.isfinite()
    before = {name: p.clone() for name, p in model.encoder.named_parameters()}
    torch.optim.SGD(model.parameters(), lr=100.).step()  # far, for no weight to be rounded to itself
    assert all(p.isfinite().all() for p in model.parameters())
    unchanged = [name for name, p in model.encoder.named_parameters() if p.equal(before[name])]
    assert not unchanged


def test_lines_of_the_page(run_how):
    """Run these lines and train one step."""
    train_step(run_how().model)


def test_weights_of_a_folder(folder, name):
    """Load the weights of a folder with 'tu-local-dir:trained'."""
    model = smp.Unet(f'tu-local-dir:{folder}', encoder_weights=True)
    expected = timm.create_model(f'local-dir:{folder}', pretrained=True).state_dict()
    weights = model.encoder.model.state_dict()
    assert weights and not differing(weights, expected)


@pytest.mark.parametrize('configuration', CONFIGURATIONS)
def test_training_step(configuration, name):
    """Train one step."""
    model = smp.create_model(configuration.partition(' ')[0], f'tu-{name}', encoder_weights=None, classes=3,
                             **CONFIGURATIONS[configuration])
    train_step(model, SIDES.get(configuration, 64))
