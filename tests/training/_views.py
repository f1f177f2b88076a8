"""Small images, a teacher and stored views of them."""
import numpy as np
import torch
from PIL import Image
from timm import create_model
from timm.data import create_dataset, create_loader

from timm_assemble.training import TeacherCollate, TeacherViews, ViewDataset, store_teacher_views

CLASSES, SIZE = 3, 32
# every generator draws: Python's for the crop, numpy's for RandAugment's choice, torch's for the flip
TRANSFORM = dict(input_size=(3, SIZE, SIZE), scale=(0.3, 1.0), color_jitter=0.4, grayscale_prob=0.2,
                 auto_augment='rand-m9-n2-mstd0.5', interpolation='random', mean=(0.4, 0.5, 0.6))


def write_images(root, per_class=9, size=(40, 50), suffix='png'):
    rng = np.random.default_rng(0)
    for c in range(CLASSES):
        (root / 'train' / f'class{c}').mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(
                root / 'train' / f'class{c}' / f'{i:04}.{suffix}')
    return root


def dataset_of(root):
    return create_dataset('', root=str(root), split='train', input_img_mode='RGB')


def teacher():
    torch.manual_seed(0)
    return create_model('test_assemble_resnet', num_classes=CLASSES)


def store_views(root, output, views=3, model=None, transform=TRANSFORM, **arguments):
    arguments = {**dict(chunk_size=8, batch_size=4, workers=0, progress=False), **arguments}
    return store_teacher_views(model or teacher(), 'teacher', dataset_of(root), output, transform, views, **arguments)


def loader_of(root, store, workers=0, prefetcher=True, batch_size=4, transform=TRANSFORM, dataset=None, **arguments):
    dataset = dataset or ViewDataset(dataset_of(root), TeacherViews(store))
    collate = TeacherCollate(torch.utils.data.default_collate)
    return create_loader(
        dataset, batch_size=batch_size, is_training=True, collate_fn=arguments.pop('collate_fn', collate),
        num_workers=workers, use_prefetcher=prefetcher, device=torch.device('cpu'), std=(0.2, 0.3, 0.4),
        **{**transform, **arguments})
