"""Published top-1 on ImageNet-1k with its source; nothing of it is measured here."""
from typing import Dict, NamedTuple, Tuple

from timm_assemble.recipes.paper import MOBILENETS, TECHNIQUES, rows_of

__all__ = ['PAPER_SOURCE', 'TIMM_SOURCE', 'Published', 'published']

PAPER_SOURCE = 'arXiv 2001.06268'
DISTILLED = ('E7', 'E8', 'E9', 'E10', 'E11', 'E12', 'M4', 'M5', 'M6', 'M7', 'M8')  # rows of the paper
TIMM_SOURCE = "timm's results-imagenet.csv of 2025-10-30"


class Published(NamedTuple):
    """Published top-1 of a network at its image size in ``networks.SIZES``."""

    weights: str  # tag of timm's weights, or row of the paper
    top1: float  # percent
    extra_data: str = ''  # training data beside ImageNet-1k
    distilled: bool = False


# The best of timm's weights at this size of ImageNet-1k alone, the best with more data, and the weights that the paper
# compares with. No line where timm publishes none.
_TIMM: Dict[str, Tuple[Published, ...]] = {
    'resnet50': (Published('tv2_in1k', 80.846), Published('fb_swsl_ig1b_ft_in1k', 81.146, 'IG-1B')),
    'resnet50d': (Published('ra4_e3600_r224_in1k', 80.956),),
    'seresnet50': (Published('ra2_in1k', 80.260),),
    'resnetaa50d': (Published('sw_in12k_ft_in1k', 81.782, 'ImageNet-12k'),),
    'resnet152': (Published('a1h_in1k', 82.818),),
    'resnetrs152': (Published('tf_in1k', 83.710),),
    'tf_efficientnet_b4': (
        Published('ap_in1k', 83.246), Published('aa_in1k', 83.040), Published('ns_jft_in1k', 85.156, 'JFT-300M')),
    'tf_efficientnet_b6': (
        Published('ap_in1k', 84.794), Published('aa_in1k', 84.124), Published('ns_jft_in1k', 86.476, 'JFT-300M')),
    'tf_efficientnet_b7': (
        Published('ap_in1k', 85.132), Published('aa_in1k', 84.424), Published('ns_jft_in1k', 86.850, 'JFT-300M')),
    'convnext_tiny': (Published('fb_in1k', 82.066), Published('in12k_ft_in1k', 84.192, 'ImageNet-12k')),
    'regnetv_040': (Published('ra3_in1k', 83.204),),
    'regnetz_040_h': (Published('ra3_in1k', 83.764),),
    'repvit_m2_3': (Published('dist_450e_in1k', 83.746, distilled=True),),
    'hgnetv2_b4': (Published('ssld_stage2_ft_in1k', 83.700, 'ImageNet-22k', distilled=True),),
    'efficientvit_l1': (Published('r224_in1k', 84.464),),
    'tiny_vit_21m_224': (
        Published('in1k', 83.268), Published('dist_in22k_ft_in1k', 85.088, 'ImageNet-22k', distilled=True)),
    'hiera_small_224': (Published('mae_in1k_ft_in1k', 83.888),),
    'mobilenetv1_100': (Published('ra4_e3600_r224_in1k', 75.388),),
    'mobilenetv1_125': (Published('ra4_e3600_r224_in1k', 76.920),),
    'mobilenetv3_large_100': (
        Published('ra4_e3600_r224_in1k', 76.310), Published('miil_in21k_ft_in1k', 77.920, 'ImageNet-21k')),
    'efficientnet_lite0': (Published('ra_in1k', 75.488),),
}


def published(name: str) -> Tuple[Published, ...]:
    """Return the published top-1 of a network, of ImageNet-1k alone first.

    Best first, empty where nothing is published. Of ours it is the paper's best row.
    """
    if name in TECHNIQUES or name in MOBILENETS:
        rows = sorted(rows_of(name), key=lambda row: row.top1)[-1:]
        return tuple(Published(f'row {row.name}', row.top1, distilled=row.name in DISTILLED) for row in rows)
    return _TIMM.get(name, ())
