"""Published top-1 on ImageNet-1k with its source; nothing of it is measured here."""
from typing import Dict, NamedTuple, Tuple

from timm_assemble.recipes.paper import MOBILENETS, TECHNIQUES, rows_of

__all__ = ['PAPER_SOURCE', 'TIMM_SOURCE', 'Published', 'published']

PAPER_SOURCE = 'arXiv 2001.06268'
TIMM_SOURCE = "timm's results-imagenet.csv of 2025-10-30"


class Published(NamedTuple):
    """Published top-1 of a network at its image size in ``networks.SIZES``."""

    top1: float  # percent
    weights: str  # tag of timm's weights, or row of the paper
    extra_data: str = ''  # training data beside ImageNet-1k


# Tag, top-1 and extra data of timm's weights at this size: the best of ImageNet-1k alone, then the best with more data,
# and the weights that the paper compares with. Empty where timm publishes none.
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
    'mobilenetv1_100': (('ra4_e3600_r224_in1k', 75.388, ''),),
    'mobilenetv1_125': (('ra4_e3600_r224_in1k', 76.920, ''),),
    'mobilenetv3_large_100': (
        ('ra4_e3600_r224_in1k', 76.310, ''), ('miil_in21k_ft_in1k', 77.920, 'ImageNet-21k')),
    'efficientnet_lite0': (('ra_in1k', 75.488, ''),),
}


def published(name: str) -> Tuple[Published, ...]:
    """Return the published top-1 of a network, of ImageNet-1k alone first.

    Best first, empty where nothing is published. Of ours it is the paper's best row.
    """
    if name in TECHNIQUES or name in MOBILENETS:
        rows = sorted(rows_of(name), key=lambda row: row.top1)[-1:]
        return tuple(Published(row.top1, f'row {row.name}') for row in rows)
    return tuple(Published(top1, tag, extra) for tag, top1, extra in _TIMM.get(name, ()))
