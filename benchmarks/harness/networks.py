"""The networks compared, their image sizes, and the forms they run in."""
import gc
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

import timm
import torch
import torch._dynamo
import torch.nn.functional as F
from timm.utils.model import reparameterize_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import timm_assemble
from timm_assemble.deploy.calibration import MIN_IMAGES

from .int8 import ANY, noise_images

try:
    from torch._inductor.utils import clear_caches
except ImportError:  # its name until torch 2.8
    from torch._inductor.utils import clear_inductor_caches as clear_caches

__all__ = [
    'DTYPES', 'FORMS', 'LARGE', 'MOBILE', 'MODES', 'OURS', 'REFERENCE', 'RIVALS', 'SIZES', 'Network', 'Setting',
    'describe', 'forget_compiled', 'multiply_adds', 'prepare', 'split']

MODES, FORMS = ('inference', 'training'), ('eager', 'optimized')
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'int8': torch.int8}
REFERENCE, CLASSES = 'resnet50', 1000  # not those of ImageNet-22k, which some names have by default
# Image sizes, those of the published top-1. ResNets of about 50 layers and MobileNets are all at 224, where timm
# publishes all of them; the others where they are best.
OURS = {
    'assemble_resnet50_d': 224, 'assemble_resnet50_bl_sk': 256, 'assemble_resnet50': 256, 'assemble_resnet101': 256,
    'assemble_resnet152': 256, 'assemble_mobilenet': 224, 'assemble_mobilenet_se16': 224, 'assemble_mobilenet_se2': 224,
}
MOBILE = (  # networks under 1 GMAC, which the front page leaves to the benchmark's page
    'assemble_mobilenet', 'assemble_mobilenet_se16', 'assemble_mobilenet_se2', 'mobilenetv1_100', 'mobilenetv1_125',
    'mobilenetv3_large_100', 'efficientnet_lite0')
RIVALS = {  # as accurate as the ResNets of this package or more, in as little time
    'regnetv_040': 288, 'regnetz_040_h': 256, 'repvit_m2_3': 224, 'hgnetv2_b4': 224, 'efficientvit_l1': 224,
    'tiny_vit_21m_224': 224, 'hiera_small_224': 224,
}
SIZES = {
    'resnet50': 224, 'resnet50d': 224, 'seresnet50': 224, 'skresnet50d': 224, 'resnetaa50d': 224, **OURS,
    'resnet152': 224, 'resnetrs152': 320, 'tf_efficientnet_b4': 380, 'tf_efficientnet_b6': 528,
    'tf_efficientnet_b7': 600, 'convnext_tiny': 224, **RIVALS, **dict.fromkeys(MOBILE, 224),
}
# Large networks form groups of their own, in fewer rounds: they take seconds per call, and not all fit into memory.
LARGE_MACS, LARGE = 10e9, 'networks of 10 GMACs and more'


class Setting(NamedTuple):
    """The settings that all cases of a group share."""

    mode: str
    form: str
    dtype: str
    batch_size: int

    @property
    def title(self) -> str:
        """Beginning of the group's name in the results; :meth:`parse` reads it back."""
        return f'{self.mode.capitalize()}, {self.form}, {self.dtype}, batch size {self.batch_size}'

    @classmethod
    def parse(cls, group: str) -> Optional['Setting']:
        """Return the setting of a group's name, None if it has no title."""
        found = re.match(r'(\w+), (\w+), (\w+), batch size (\d+)\b', group)
        return found and cls(found[1].lower(), found[2], found[3], int(found[4]))


class Network(NamedTuple):
    """A network before it is built."""

    name: str
    size: int
    params: int
    macs: float  # multiply-adds of one image's forward pass


def multiply_adds(model: nn.Module, size: int) -> float:
    """Count the multiply-adds of a forward pass of one image."""
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, size, size, device=device))
    return counter.get_total_flops() / 2


def describe(name: str, mode: str) -> Network:
    """Count parameters and multiply-adds, on the meta device."""
    model: Any = timm.create_model(name, num_classes=CLASSES, device='meta').eval()
    cfg = model.pretrained_cfg
    if mode == 'training':
        size = cfg['input_size'][-1]
    else:
        size = SIZES.get(name) or (cfg.get('test_input_size') or cfg['input_size'])[-1]
    return Network(name, size, sum(p.numel() for p in model.parameters()), multiply_adds(model, size))


def split(networks: Sequence[Network]) -> Dict[str, List[Network]]:
    """Separate the large networks, by the suffix of the group's name."""
    large = [network for network in networks if network.macs >= LARGE_MACS]
    small = [network for network in networks if network.macs < LARGE_MACS]
    return {suffix: part for suffix, part in (('', small), (f', {LARGE}', large)) if part}


def _inference(model: nn.Module, setting: Setting, x: torch.Tensor) -> Callable[[], Any]:
    dtype, device = DTYPES[setting.dtype], x.device.type
    model = reparameterize_model(model, inplace=True).eval()  # merges branches, as RepViT's, that only training needs
    if setting.form == 'optimized':
        size = tuple(x.shape)
        optimized = timm_assemble.optimize_for_inference(model, size, dtype) if dtype != torch.int8 else (
            timm_assemble.optimize_for_inference(
                model, size, calibration=[noise_images(MIN_IMAGES, size[-1], seed=1)], gate=ANY))
        return lambda: optimized(x)
    autocast = torch.autocast(device, dtype, enabled=dtype != torch.float32)

    def call() -> torch.Tensor:
        with torch.inference_mode(), autocast:
            return model(x)
    return call


def _training(model: nn.Module, setting: Setting, x: torch.Tensor) -> Callable[[], Any]:
    dtype, device = DTYPES[setting.dtype], x.device.type
    target = torch.arange(len(x), device=x.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    model.train()
    forward: Any = torch.compile(model) if setting.form == 'optimized' else model
    autocast = torch.autocast(device, dtype, enabled=dtype != torch.float32)

    def step() -> None:
        with autocast:
            loss = F.cross_entropy(forward(x), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return step


def forget_compiled() -> None:
    """Free what was compiled, which holds the weights, as torch keeps it to the end of the process."""
    torch.compiler.reset()
    clear_caches()
    gc.collect()


def prepare(network: Network, setting: Setting, device: str) -> Callable[[], Any]:
    """Build a network with random weights, channels-last, and return its call in the form of a setting.

    A training step is forward, cross-entropy, backward and an SGD update; its optimized form is ``torch.compile``'s.
    """
    model: Any = timm.create_model(network.name, num_classes=CLASSES).to(device).to(memory_format=torch.channels_last)
    x = torch.randn(setting.batch_size, 3, network.size, network.size)
    x = x.to(device).to(memory_format=torch.channels_last)
    return (_inference if setting.mode == 'inference' else _training)(model, setting, x)
