"""Top-1 on ImageNet-1k as published, with its source. Nothing here is measured by this project.

Knows the paper's figures in docs.variants and no network.
"""
from typing import Dict, NamedTuple, Tuple

from docs.variants import PUBLISHED as PAPER

__all__ = ['Published', 'PAPER_SOURCE', 'TIMM_SOURCE', 'published']

PAPER_SOURCE = 'arXiv 2001.06268, ablation on ImageNet-1k'
TIMM_SOURCE = 'timm, results/results-imagenet.csv of 2025-10-30'


class Published(NamedTuple):
    """Published metric of a network, at the image size that :data:`benchmarks.harness.networks.SIZES` lists for it."""

    top1: float  # percent
    weights: str  # tag of timm's weights, or row of the paper
    source: str
    extra_data: str = ''  # what was trained on beside ImageNet-1k


# Best first, of what timm publishes at this size: weights of ImageNet-1k alone, then the best with more data. Where the
# paper compares with other weights, those stand as well. An empty entry: timm publishes no weights of the network.
_TIMM: Dict[str, Tuple[Tuple[str, float, str], ...]] = {
    'resnet50': (('tv2_in1k', 80.846, ''), ('fb_swsl_ig1b_ft_in1k', 81.146, 'IG-1B')),
    'resnet50d': (('ra4_e3600_r224_in1k', 80.956, ''),),
    'seresnet50': (('ra2_in1k', 80.260, ''),),
    'skresnet50d': (),
    'resnetaa50d': (('sw_in12k_ft_in1k', 81.782, 'ImageNet-12k'),),
    'resnet152': (('a1h_in1k', 82.818, ''),),
    'resnetrs152': (('tf_in1k', 83.710, ''),),
    'tf_efficientnet_b4': (
        ('ap_in1k', 83.246, ''), ('aa_in1k', 83.040, ''), ('ns_jft_in1k', 85.156, 'JFT-300M')),
    'tf_efficientnet_b6': (
        ('ap_in1k', 84.794, ''), ('aa_in1k', 84.124, ''), ('ns_jft_in1k', 86.476, 'JFT-300M')),
    'tf_efficientnet_b7': (
        ('ap_in1k', 85.132, ''), ('aa_in1k', 84.424, ''), ('ns_jft_in1k', 86.850, 'JFT-300M')),
    'convnext_tiny': (('fb_in1k', 82.066, ''), ('in12k_ft_in1k', 84.192, 'ImageNet-12k')),
}


def published(name: str) -> Tuple[Published, ...]:
    """What is published of a network: of ImageNet-1k alone first, best first; empty where there is nothing.

    The paper's figures are of its best training of the network, on ImageNet-1k alone.
    """
    if name in PAPER:
        row = PAPER[name]
        if not row.top1:
            return ()
        return (Published(float(row.top1.split()[-1]), f'row {row.rows.split()[-1]}', PAPER_SOURCE),)
    return tuple(Published(top1, tag, TIMM_SOURCE, extra) for tag, top1, extra in _TIMM.get(name, ()))
