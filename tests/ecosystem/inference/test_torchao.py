"""torchao: int8 weights of the classifier."""
import pytest
import timm
import torch
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

from ..conftest import as_trained

LIBRARY = 'torchao'
HOW = """\
import timm
import timm_assemble  # registers the models
from torchao.quantization import Int8WeightOnlyConfig, quantize_

model = timm.create_model('assemble_resnet50').eval()
quantize_(model, Int8WeightOnlyConfig())  # the weights of linear layers
"""


def test_lines_of_the_page(run_how):
    """Run these lines."""
    assert run_how().model.get_classifier().weight.__class__ is not torch.nn.Parameter


@pytest.mark.parametrize('config', [Int8WeightOnlyConfig, Int8DynamicActivationInt8WeightConfig])
@torch.no_grad()
def test_quantize(name, config):
    """Quantize the linear layer to int8, and compare the logits."""
    model = as_trained(timm.create_model(name)).eval()
    images = torch.rand(2, 3, 64, 64)
    logits = model(images)
    quantize_(model, config())
    error = (model(images) - logits).norm() / logits.norm()
    assert 0 < error < 0.03
