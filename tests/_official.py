"""The official implementation's figures, and its weights made anew by the formula that its figures were taken with."""
import gzip
import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import timm
import torch

import timm_assemble  # noqa: F401  registers the models
from timm_assemble.convert import state_dict_from_tf

GOLDEN = Path(__file__).parent / 'golden'
NETWORKS = json.loads((GOLDEN / 'official_network.json').read_text())
TRAINING = json.loads((GOLDEN / 'official_training.json').read_text())
TOLERANCE = 2e-5  # of the logits' standard deviation

# official network -> registered name and constructor arguments
MODELS = {
    'r50': ('assemble_resnet50_base', {}),
    'r50d': ('assemble_resnet50_d', {}),
    'r50d_se': ('assemble_resnet50_d_se', {}),
    'r50d_sk': ('assemble_resnet50_d_sk', {}),
    'r50_bl': ('assemble_resnet50_bl', {}),
    'r50_bl_sk': ('assemble_resnet50_bl_sk', {}),
    'assemble50': ('assemble_resnet50', {}),
    'assemble152': ('assemble_resnet152', {}),
    'assemble50_gem': ('assemble_resnet50', dict(global_pool='gem')),
    'assemble50_emb': ('assemble_resnet50', dict(embedding_size=512)),
    'r50d_sk_aa': ('assemble_resnet50_d_sk', dict(aa_size=3)),
    'r50_sk_aafull': ('assemble_resnet50_base', dict(attn='sk', aa_size=3, aa_shortcut=True)),
    'assemble50_nodown': ('assemble_resnet50', dict(last_stride=1)),
    'tiny_assemble50': ('assemble_resnet50', dict(width=8)),
    'tiny_assemble152': ('assemble_resnet152', dict(width=8)),
    'tiny_r50d_sk': ('assemble_resnet50_d_sk', dict(width=8)),
}


@cache
def _all_variables() -> dict:
    with gzip.open(GOLDEN / 'official_variables.json.gz', 'rt') as f:
        return json.load(f)


def variable_specs(network: str) -> list:
    """``[name, shape, trainable, last_gamma]`` of each of a network's variables."""
    return _all_variables()[network]


def make_variable(name: str, shape, last_gamma: bool) -> np.ndarray:
    """The formula's value of a variable, in TensorFlow's layout."""
    r = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    leaf = name.rsplit('/', 1)[1]
    if leaf == 'kernel':
        value = r * np.sqrt(2 / np.prod(shape[:-1]))
    elif leaf == 'gamma':
        value = (1 + 0.1 * r) * (0.25 if last_gamma else 1)
    elif leaf == 'moving_variance':
        value = np.exp(0.1 * r)
    else:
        assert leaf in ('beta', 'moving_mean', 'bias'), leaf
        value = 0.1 * r
    return value.astype(np.float32)


def make_variables(network: str) -> dict:
    """All of a network's variables by the formula."""
    return {name: make_variable(name, shape, last) for name, shape, _, last in variable_specs(network)}


def official_model(network: str, **kwargs) -> torch.nn.Module:
    """The network with the formula's weights, in eval mode; arguments override the network's own."""
    name, model_args = MODELS[network]
    classes = len(next(iter(NETWORKS['networks'][network]['logits'].values()))['first16'][0])
    num_classes = 11 if classes == 11 else 1001
    model = timm.create_model(name, **{'num_classes': num_classes, **model_args, **kwargs})
    model.load_state_dict(state_dict_from_tf(make_variables(network), model))
    return model.eval()


def official_input(height: int, width: int) -> torch.Tensor:
    """The picture batch that the figures were taken with."""
    x = np.random.RandomState(0).uniform(-1, 1, (2, height, width, 3)).astype(np.float32)
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def sizes(network: str) -> list:
    """Input sizes at which the official code ran."""
    logits = NETWORKS['networks'][network]['logits']
    return [tuple(map(int, size.split('x'))) for size, figures in logits.items() if 'first16' in figures]


def departure(network: str, logits: torch.Tensor, height: int, width: int) -> float:
    """Largest difference from the official logits and their mean and spread, over their standard deviation."""
    golden = NETWORKS['networks'][network]['logits'][f'{height}x{width}']
    y = logits.double().numpy()
    differences = [
        np.abs(y[:, :16] - np.array(golden['first16'])).max(),
        abs(y.mean() - golden['mean']),
        abs(y.std() - golden['std']),
        abs(np.sqrt((y ** 2).sum()) - golden['l2']) / np.sqrt(y.size),
    ]
    return max(differences) / golden['std']
