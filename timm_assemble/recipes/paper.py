"""What the paper and others publish, once: recipes, tables and the converter read it here.

Source: arXiv 2001.06268, on ImageNet-1k the ablation (rows E0 to E12) and MobileNet (rows M0 to M8), and fine-grained
classification. Throughput is in images/s on one Tesla P40. mCE is over 19 corruptions generated at 256 x 256.
"""
from typing import Dict, List, NamedTuple, Optional

__all__ = [
    'EFFICIENTNET_B6_IMAGES_PER_S', 'FINE_TUNING_TOP1', 'MOBILENETS', 'NEAREST', 'ROWS', 'TECHNIQUES', 'UNPUBLISHED',
    'Nearest', 'Pixel3', 'Row', 'rows_of', 'span',
]


class Pixel3(NamedTuple):
    """Images/s on one large core of a Pixel 3 with TFLite, batch size 1."""

    float32: float
    quantized: float


class Row(NamedTuple):
    """One row of the paper.

    Attributes:
        name: ``'E0'`` to ``'E12'``, or ``'M0'`` to ``'M8'``.
        model: Registered name of the network.
        epochs: Epochs of the training, warm-up included.
        test_size: Height and width of the test images.
        top1: ImageNet-1k validation top-1 in percent.
        mce: Mean corruption error in percent of AlexNet's.
        images_per_s: Throughput; None for MobileNets.
        mfr: Mean flip rate in percent of AlexNet's; None for ResNets, which have it for two rows only.
        pixel3: Throughput of MobileNets on a telephone, None where the table has none.
    """

    name: str
    model: str
    epochs: int
    test_size: int
    top1: float
    mce: float
    images_per_s: Optional[int]
    mfr: Optional[float] = None
    pixel3: Optional[Pixel3] = None


ROWS: Dict[str, Row] = {row.name: row for row in (
    Row('E0', 'assemble_resnet50_base', 120, 224, 76.87, 75.55, 536),
    Row('E1', 'assemble_resnet50_d', 120, 224, 77.37, 75.73, 493),
    Row('E2', 'assemble_resnet50_d', 120, 224, 78.35, 74.27, 493),
    Row('E3', 'assemble_resnet50_d', 200, 224, 79.10, 68.19, 493),
    Row('E4', 'assemble_resnet50_d_se', 200, 224, 79.71, 64.48, 420),
    Row('E5', 'assemble_resnet50_d_se', 270, 224, 80.40, 62.64, 420),
    Row('E6', 'assemble_resnet50_d_sk', 270, 224, 81.40, 58.34, 359),
    Row('E7', 'assemble_resnet50_d_sk', 270, 224, 81.69, 57.08, 359),
    Row('E8', 'assemble_resnet50_d_sk', 600, 224, 82.10, 56.48, 359),
    Row('E9', 'assemble_resnet50_bl_sk', 600, 256, 82.44, 55.20, 359),
    Row('E10', 'assemble_resnet50', 600, 256, 82.69, 54.12, 312),
    Row('E11', 'assemble_resnet50', 600, 256, 82.78, 48.89, 312),
    Row('E12', 'assemble_resnet152', 600, 256, 84.19, 43.27, 143),
    Row('M0', 'assemble_mobilenet', 120, 224, 72.59, 83.85, None, 74.29, Pixel3(12.98, 22.49)),
    Row('M1', 'assemble_mobilenet_se16', 360, 224, 74.28, 78.86, None, 69.98, Pixel3(10.33, 19.71)),
    Row('M2', 'assemble_mobilenet', 120, 224, 72.66, 83.05, None, 71.89, Pixel3(12.98, 22.49)),
    Row('M3', 'assemble_mobilenet', 200, 224, 73.54, 78.56, None, 65.78),
    Row('M4', 'assemble_mobilenet', 200, 224, 74.18, 77.51, None, 64.41),
    Row('M5', 'assemble_mobilenet', 360, 224, 74.37, 76.39, None, 65.02),
    Row('M6', 'assemble_mobilenet_se16', 360, 224, 76.42, 71.67, None, 56.73, Pixel3(10.33, 19.71)),
    Row('M7', 'assemble_mobilenet_se2', 360, 224, 76.82, 70.67, None, 55.76, Pixel3(9.9, 19.32)),
    Row('M8', 'assemble_mobilenet_se2', 900, 224, 77.30, 68.12, None, 49.99, Pixel3(9.9, 19.32)),
)}
FINE_TUNING_TOP1 = {
    'Food-101': 92.5, 'Stanford Cars': 94.4, 'Oxford-Flowers': 98.9, 'FGVC Aircraft': 92.4, 'Oxford-IIIT Pets': 94.3}


class Nearest(NamedTuple):
    """The published training that is nearest to a recipe which no one has measured.

    Attributes:
        network: What was trained, and how.
        top1: ImageNet-1k validation top-1 in percent.
        test_size: Height and width of the test images.
    """

    network: str
    top1: float
    test_size: int


# timm's are of its results/results-imagenet.csv in August 2026, ffcv's of the README of libffcv/ffcv-imagenet, tested
# with flips, the last of arXiv 1906.06423, table 2.
NEAREST: Dict[str, Nearest] = {
    'A1': Nearest('ResNet-50-D, A1', 80.73, 224),
    'A2': Nearest('ResNet-50-D, A2', 80.27, 224),
    'A3': Nearest('ResNet-50-D, A3', 78.74, 224),
    'RA4': Nearest("ResNet-50-D, timm's RA4", 80.96, 224),
    'One GPU, 16': Nearest("ResNet-50, ffcv's 16 epochs", 73.8, 256),
    'One GPU, 100': Nearest('ResNet-50-D, A3', 78.74, 224),
    'FixRes': Nearest('ResNet-50, FixRes after 77.0', 79.0, 384),
}
UNPUBLISHED = ('E11 with views', 'E12 with views')  # trainings of recipes that are not in the paper
EFFICIENTNET_B6_IMAGES_PER_S = 28  # with AutoAugment, 84.2 % top-1, in the same table
# ResNets in the paper's order; the two that are in no row are in the official code. Its "R50-D, BL" rows have
# Big-Little's stem and shortcut, as the official code builds them.
TECHNIQUES: Dict[str, str] = {
    'assemble_resnet50_base': 'plain ResNet-50',
    'assemble_resnet50_d': 'ResNet-D',
    'assemble_resnet50_d_se': 'ResNet-D, SE',
    'assemble_resnet50_d_sk': 'ResNet-D, SK',
    'assemble_resnet50_bl': 'Big-Little (2, 4)',
    'assemble_resnet50_bl_sk': 'Big-Little (2, 4), SK',
    'assemble_resnet50': 'Big-Little (2, 4), SK, AA',
    'assemble_resnet101': 'Big-Little (2, 4), SK, AA',
    'assemble_resnet152': 'Big-Little (1, 2), SK, AA',
}
MOBILENETS: Dict[str, str] = {  # their techniques, in the same order
    'assemble_mobilenet': 'MobileNet-V1',
    'assemble_mobilenet_se16': 'MobileNet-V1, SE (1/16)',
    'assemble_mobilenet_se2': 'MobileNet-V1, SE (1/2)',
}


def rows_of(model: str) -> List[Row]:
    """Return the rows of a network, from the plainest training to the last; empty where the paper has none."""
    return [row for row in ROWS.values() if row.model == model]


def span(values: List[str]) -> str:
    """Return ``'first - last'`` of a network's rows, one value where they agree, ``''`` for none."""
    return ' - '.join(dict.fromkeys((values[0], values[-1]))) if values else ''
