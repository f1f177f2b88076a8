"""Top-1 and top-5 accuracy of any timm model on a folder of images, at the model's test size and crop."""
from pathlib import Path
from typing import Any, Callable, Collection, Dict, NamedTuple, Optional

import torch
from timm.data import ImageNetInfo, create_dataset, create_loader, resolve_data_config
from timm.utils import natural_key
from torch.utils.data import default_collate

from ..errors import UserError

__all__ = ['Accuracy', 'map_classes', 'measure_accuracy', 'read_class_map']


class Accuracy(NamedTuple):
    """Accuracy in percent with its protocol.

    Attributes:
        top1: Top-1 accuracy.
        top5: Top-5 accuracy.
        images: Number of images.
        size: Height and width of the images.
        crop_pct: Fraction of the short side that is cropped.
        imagenet: Whether every folder is named by a synset of ImageNet-1k.
        transform: Whose transform the images went through.
    """

    top1: float
    top5: float
    images: int
    size: int
    crop_pct: float
    imagenet: bool
    transform: str = "timm's"

    @property
    def protocol(self) -> str:
        """Number of images, size, crop and transform."""
        return f'{self.images} images at {self.size}, crop {self.crop_pct:.4g}, {self.transform} transform'

    def __str__(self) -> str:
        return f'top-1 {self.top1:.2f} %, top-5 {self.top5:.2f} % on {self.protocol}'


def read_class_map(root: Path, num_classes: int, argument: str = 'root') -> Dict[str, int]:
    """Return the class of each folder of images.

    Folders named by ImageNet's synsets get ImageNet's class if the model has 1000 or 1001 classes; some may be
    missing, and of 1001 classes the first is "background". Other folders are one per class, in the order of timm's
    train.py and validate.py: numbers within names by value, without regard to case. Hidden folders are ignored.

    Args:
        root: Folder with one folder of images per class.
        num_classes: Number of the model's classes.
        argument: Name of ``root`` in errors.

    Raises:
        UserError: ``root`` is not a folder, or the number of folders is wrong.
    """
    if not root.is_dir():
        raise UserError(f'{argument} must be a folder with one folder per class, got {root}')
    return map_classes([f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith('.')], num_classes,
                       argument, f' in {root}')


def map_classes(folders: Collection[str], num_classes: int, argument: str = 'root', where: str = '') -> Dict[str, int]:
    """Return the class of each of the folders, as :func:`read_class_map` does; ``where`` is for its message."""
    names = sorted(folders, key=lambda name: (natural_key(name), name))
    synsets = {name: i for i, name in enumerate(ImageNetInfo('imagenet-1k').label_names())}
    if names and num_classes in (1000, 1001) and synsets.keys() >= set(names):
        return {name: synsets[name] + num_classes - 1000 for name in names}
    if len(names) != num_classes:
        raise UserError(f'{argument} must have one folder for each of the {num_classes} classes'
                         f'{" or folders named by synsets" if num_classes in (1000, 1001) else ""}, '
                         f'got {len(names)} folders{where}')
    return {name: i for i, name in enumerate(names)}


@torch.inference_mode()
def measure_accuracy(
        model: Any, root: Path, class_map: Dict[str, int], batch_size: int = 50,
        official: Optional[Callable[..., Any]] = None,
) -> Accuracy:
    """Compute the accuracy over all images of a folder, at the model's test size and crop.

    Args:
        model: A timm model. It is put into eval mode and runs on a GPU if there is one.
        root: Folder with one folder of images per class.
        class_map: Class of each folder, from :func:`read_class_map`.
        batch_size: Images per batch.
        official: From size and crop to the official transform to float pixels, which replaces timm's.

    Raises:
        UserError: ``root`` has no images.
    """
    config = resolve_data_config({}, model=model, use_test_size=True)
    try:
        dataset = create_dataset('', root=str(root), search_split=False, class_map=class_map)
    except RuntimeError as e:  # what timm raises for a folder without images
        raise UserError(f'root must have images: {e}') from e
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    loader = create_loader(
        dataset, config['input_size'], batch_size, interpolation=config['interpolation'], mean=config['mean'],
        std=config['std'], crop_pct=config['crop_pct'], crop_mode=config['crop_mode'], device=device, num_workers=0,
        collate_fn=default_collate if official else None)  # timm's truncates floats
    if official:
        dataset.transform = official(config['input_size'], config['crop_pct'])
    model = model.to(device).eval()
    hits = torch.zeros(2, dtype=torch.long)
    for images, target in loader:
        top = model(images).topk(min(5, model.num_classes)).indices == target[:, None]
        hits += torch.stack((top[:, 0].sum(), top.sum())).cpu()
    model.to('cpu')
    top1, top5 = (100 * hits / len(dataset)).tolist()
    imagenet = all(name in ImageNetInfo('imagenet-1k').label_names() for name in class_map)
    return Accuracy(top1, top5, len(dataset), config['input_size'][-1], config['crop_pct'], imagenet,
                    'the official' if official else "timm's")
