"""Networks with random weights and the statistics of images, and what is compared in int8."""
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import nn

from timm_assemble.deploy.calibration import CalibrationImages, split_images
from timm_assemble.deploy.gate import Gate

__all__ = ['ANY', 'fitted_network', 'images_for', 'noise_images']

ANY = Gate(agreement=0, sqnr=-1e9, sure=0)  # of random weights, no model is sure
IMAGES = 64  # a quarter of them calibrates


def noise_images(count: int, size: int, seed: int) -> torch.Tensor:
    """Return random images with noise of all scales, as photographs have it.

    White noise is one of them because exports are verified on it: in an EfficientNet fitted to smooth images alone, it
    grows until float32 loses it.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = [F.interpolate(torch.randn(count, 3, side, side, generator=generator), (size, size), mode='bilinear')
              for side in (2, 4, 8, 16, 64, size)]
    return torch.stack(layers).sum(0).div(2.4).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def fitted_network(name: str, size: int) -> nn.Module:
    """Create a model with random weights whose norms have the statistics of :func:`noise_images`.

    With random statistics, the signal fades with depth, and the logits hardly depend on the image.
    """
    torch.manual_seed(0)
    model: Any = timm.create_model(name).to(memory_format=torch.channels_last)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith('gamma'):
            nn.init.uniform_(parameter, 0.1, 0.3)  # layer scales of ConvNeXt begin at almost zero
    # the last norms of residual branches, which would amplify any noise; those of EfficientNets do not begin at zero
    last = {block.bn3 for block in model.modules() if getattr(block, 'has_skip', False) and hasattr(block, 'bn3')}
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            low, high = (0.5, 1.5) if module.weight.any() and module not in last else (0.1, 0.3)
            nn.init.uniform_(module.weight, low, high)
            nn.init.uniform_(module.bias, -low, low)
            module.momentum = None  # the mean over batches
            module.reset_running_stats()
    model.train()
    for seed in (100, 101):
        model(noise_images(8, size, seed))
    return model.eval()


def images_for(size: int) -> CalibrationImages:
    """Return images of :func:`noise_images` to calibrate with, and others held out."""
    return split_images([noise_images(IMAGES, size, 1)], (3, size, size))
