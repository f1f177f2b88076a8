"""Top-1 and top-5 of a model on a folder of pictures, as the paper tests: the model's test size and crop.

Knows timm's data and what the paper measured; any model of timm can be measured.
"""
from pathlib import Path
from typing import Any, Dict, NamedTuple

import torch
from timm.data import ImageNetInfo, create_dataset, create_loader, resolve_data_config
from timm.utils import natural_key

__all__ = ['PUBLISHED_TOP1', 'Accuracy', 'measure_accuracy', 'read_class_map']

# arXiv 2001.06268, table of the ablation on ImageNet-1k; a range is from the row with the plainest training to the last
PUBLISHED_TOP1 = {
    'assemble_resnet50_base': '76.87', 'assemble_resnet50_d': '77.37 - 79.10',
    'assemble_resnet50_d_se': '79.71 - 80.40', 'assemble_resnet50_d_sk': '81.40 - 82.10',
    'assemble_resnet50_bl_sk': '82.44', 'assemble_resnet50': '82.69 - 82.78', 'assemble_resnet152': '84.19',
}


class Accuracy(NamedTuple):
    """Accuracy in percent, and what it was measured on."""

    top1: float
    top5: float
    pictures: int
    size: int
    crop_pct: float
    imagenet: bool

    @property
    def protocol(self) -> str:
        """On what and how it was measured."""
        return f'{self.pictures} pictures at {self.size}, crop {self.crop_pct:.4g}'

    def describe(self, name: str = '') -> str:
        """One line; with what the paper has for a model of this name, where the pictures are ImageNet's."""
        published = PUBLISHED_TOP1.get(name) if self.imagenet else None
        line = f'top-1 {self.top1:.2f} %, top-5 {self.top5:.2f} % on {self.protocol}'
        return line + (f"; published: top-1 {published} % on the 50000 of ImageNet's validation" if published else '')


def read_class_map(root: Path, num_classes: int, argument: str = '--verify') -> Dict[str, int]:
    """Class of each folder of pictures.

    A model of 1000 or 1001 classes and folders named by ImageNet's synsets, not all of them needed: ImageNet's order,
    which is that of the sorted synsets; official class i + 1 is ImageNet's class i. Else one a class, in the order
    that timm's train.py and validate.py give them: numbers within names by value, capitals as small letters. Hidden
    folders are passed over.

    Args:
        root: Folder with a folder of pictures a class.
        num_classes: Of the model.
        argument: What errors call the folder.

    Raises:
        ValueError: No folder, or as many as there are neither classes nor synsets for.
    """
    if not root.is_dir():
        raise ValueError(f'{argument} must be a folder with a folder a class, got {root}')
    names = sorted((f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith('.')),
                   key=lambda name: (natural_key(name), name))
    synsets = {name: i for i, name in enumerate(ImageNetInfo('imagenet-1k').label_names())}
    if names and num_classes in (1000, 1001) and synsets.keys() >= set(names):
        return {name: synsets[name] + num_classes - 1000 for name in names}
    if len(names) != num_classes:
        raise ValueError(f'{argument} must have a folder for each of the {num_classes} classes'
                         f'{" or folders named by synsets" if num_classes in (1000, 1001) else ""}, '
                         f'got {len(names)} folders in {root}')
    return {name: i for i, name in enumerate(names)}


@torch.inference_mode()
def measure_accuracy(model: Any, root: Path, class_map: Dict[str, int], batch_size: int = 50) -> Accuracy:
    """Classify every picture once, at the model's test size and crop.

    Args:
        model: A model of timm; it is put into eval mode, and on a GPU where there is one.
        root: Folder with a folder of pictures a class.
        class_map: From :func:`read_class_map`.
        batch_size: Pictures at a time.

    Raises:
        ValueError: There are no pictures.
    """
    config = resolve_data_config({}, model=model, use_test_size=True)
    try:
        dataset = create_dataset('', root=str(root), search_split=False, class_map=class_map)
    except RuntimeError as e:  # timm's word for no pictures
        raise ValueError(f'--verify: {e}') from e
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    loader = create_loader(
        dataset, config['input_size'], batch_size, interpolation=config['interpolation'], mean=config['mean'],
        std=config['std'], crop_pct=config['crop_pct'], crop_mode=config['crop_mode'], device=device, num_workers=0)
    model = model.to(device).eval()
    hits = torch.zeros(2, dtype=torch.long)
    for images, target in loader:
        top = model(images).topk(min(5, model.num_classes)).indices == target[:, None]
        hits += torch.stack((top[:, 0].sum(), top.sum())).cpu()
    model.to('cpu')
    top1, top5 = (100 * hits / len(dataset)).tolist()
    imagenet = all(name in ImageNetInfo('imagenet-1k').label_names() for name in class_map)
    return Accuracy(top1, top5, len(dataset), config['input_size'][-1], config['crop_pct'], imagenet)
