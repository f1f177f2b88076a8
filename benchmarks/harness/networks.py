"""Which networks are compared, at which size, and as what they are run: eager or optimized, inference or training.

Knows torch, timm, this package's models and its ``optimize_for_inference``.
"""
import re
import time
from contextlib import nullcontext
from typing import Any, Callable, NamedTuple, Optional

import timm
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import timm_assemble

try:
    from torch._inductor.utils import fresh_cache
except ImportError:  # its name until torch 2.8
    from torch._inductor.utils import fresh_inductor_cache as fresh_cache

__all__ = [
    'MODES', 'FORMS', 'DTYPES', 'REFERENCE', 'SIZES', 'OURS', 'Setting', 'Network', 'describe', 'Prepared',
    'compile_apart', 'prepare']

MODES, FORMS = ('inference', 'training'), ('eager', 'optimized')
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
REFERENCE = 'resnet50'
# Sides of the pictures classified: those of published figures. ResNets of about 50 layers all at 224, where timm has
# figures of all; the others where they are best.
OURS = {
    'assemble_resnet50_d': 224, 'assemble_resnet50_bl_sk': 256, 'assemble_resnet50': 256, 'assemble_resnet101': 256,
    'assemble_resnet152': 256,
}
SIZES = {
    'resnet50': 224, 'resnet50d': 224, 'seresnet50': 224, 'skresnet50d': 224, 'resnetaa50d': 224, **OURS,
    'resnet152': 224, 'resnetrs152': 320, 'tf_efficientnet_b4': 380, 'tf_efficientnet_b6': 528,
    'tf_efficientnet_b7': 600, 'convnext_tiny': 224,
}


class Setting(NamedTuple):
    """What the cases of a group have in common."""

    mode: str
    form: str
    dtype: str
    batch_size: int

    @property
    def title(self) -> str:
        """Begins the group's name in the results; :meth:`parse` reads it back."""
        return f'{self.mode.capitalize()}, {self.form}, {self.dtype}, batch size {self.batch_size}'

    @classmethod
    def parse(cls, group: str) -> Optional['Setting']:
        """The setting of a group's name; None where the name begins with no title."""
        found = re.match(r'(\w+), (\w+), (\w+), batch size (\d+)\b', group)
        return found and cls(found[1].lower(), found[2], found[3], int(found[4]))


class Network(NamedTuple):
    """What is known of a network before it is run."""

    name: str
    size: int
    params: int
    macs: float  # multiply-adds of convolutions and products, forward, one picture


def describe(name: str, mode: str) -> Network:
    """Parameters and multiply-adds at the mode's size, counted on the meta device, where nothing is computed."""
    model: Any = timm.create_model(name, device='meta').eval()
    cfg = model.pretrained_cfg
    if mode == 'training':
        size = cfg['input_size'][-1]
    else:
        size = SIZES.get(name) or (cfg.get('test_input_size') or cfg['input_size'])[-1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, size, size, device='meta'))
    return Network(name, size, sum(p.numel() for p in model.parameters()), counter.get_total_flops() / 2)


class Prepared(NamedTuple):
    """A network ready to be timed."""

    call: Callable[[], Any]
    cold_start_s: Optional[float]  # on the clock on the wall, from asking for the optimized form to its first output


def _inference(model: nn.Module, setting: Setting, x: torch.Tensor) -> Callable[[], Any]:
    dtype, device = DTYPES[setting.dtype], x.device.type
    model.eval()
    if setting.form == 'optimized':
        optimized = timm_assemble.optimize_for_inference(model, tuple(x.shape), dtype)
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


def compile_apart() -> None:
    """Have what is compiled in this process from now on be as if each network were alone in it.

    Networks of one class share the code that is compiled for training. Left alone, torch takes the second one's size of
    picture for a sign that sizes vary, and compiles slower code in several times the time; and the ninth is not
    compiled any more.
    """
    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._dynamo.config.cache_size_limit = torch._dynamo.config.accumulated_cache_size_limit


def prepare(network: Network, setting: Setting, device: str) -> Prepared:
    """Build a network of random weights, in channels-last, as what the setting says.

    Training is forward, cross-entropy, backward and an update by SGD; its optimized form is ``torch.compile``'s. What
    is compiled finds no earlier compilation in a cache, so that each start is cold.
    """
    model: Any = timm.create_model(network.name).to(device).to(memory_format=torch.channels_last)
    x = torch.randn(setting.batch_size, 3, network.size, network.size)
    x = x.to(device).to(memory_format=torch.channels_last)
    eager = setting.form == 'eager'
    with nullcontext() if eager else fresh_cache():
        start = time.perf_counter()
        call = (_inference if setting.mode == 'inference' else _training)(model, setting, x)
        if not eager:
            call()
        if device == 'cuda':
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return Prepared(call, None if eager else seconds)
