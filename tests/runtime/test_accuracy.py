"""Accuracy on a folder of images: the count, and the class of each folder."""
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from timm_assemble.runtime.accuracy import measure_accuracy, read_class_map


def image_folder(root, names, each=2):
    """Write one folder of noise images per name."""
    rng = np.random.RandomState(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.randint(0, 256, (300, 320, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f'{i}.png')
    return root


# timm leaves files open
@pytest.mark.filterwarnings('ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning')
def test_accuracy_counts_the_first_and_the_first_five_classes(tmp_path):
    """The model ranks the classes 2, 1, 0, 3, 4, 5 for every image: one folder in six is right, five are near."""
    root = image_folder(tmp_path / 'images', 'abcdef')
    model = timm.create_model('test_assemble_resnet', num_classes=6)
    torch.nn.init.zeros_(model.fc.weight)
    model.fc.bias.data = torch.tensor([3., 4, 5, 2, 1, 0])
    class_map = read_class_map(root, 6)
    assert class_map == dict(a=0, b=1, c=2, d=3, e=4, f=5)
    accuracy = measure_accuracy(model, root, class_map)
    assert str(accuracy) == 'top-1 16.67 %, top-5 83.33 % on 12 images at 160, crop 0.875' and not accuracy.imagenet


def test_a_folder_without_images_is_rejected(tmp_path):
    (tmp_path / 'a').mkdir()
    model = timm.create_model('test_assemble_resnet', num_classes=1)
    with pytest.raises(ValueError, match=r'^root must have images: '):
        measure_accuracy(model, tmp_path, read_class_map(tmp_path, 1))


def test_classes_are_in_the_order_of_timms_training(tmp_path):
    """Numbers by value and without regard to case, unlike plain order; hidden folders are ignored."""
    names = ['9', '10', 'ant', 'Bee2', 'bee10', 'Zebra']
    root = image_folder(tmp_path / 'images', reversed(names))
    (root / '.checkpoints').mkdir()
    assert read_class_map(root, 6) == {name: i for i, name in enumerate(names)}
    assert read_class_map(root, 6) == timm.data.create_dataset('', root=str(root)).reader.class_to_idx


def test_synsets_are_imagenets_classes(tmp_path):
    """By position among all synsets, of which some may be missing; after "background" if the model has it."""
    for name in ('n01440764', 'n15075141', 'n02123045'):  # tench, toilet paper, tabby
        (tmp_path / name).mkdir()
    assert read_class_map(tmp_path, 1000) == dict(n01440764=0, n15075141=999, n02123045=281)
    assert read_class_map(tmp_path, 1001) == dict(n01440764=1, n15075141=1000, n02123045=282)
    with pytest.raises(ValueError, match=r'^root must have one folder for each of the 10 classes, got 3 folders'):
        read_class_map(tmp_path, 10)
    (tmp_path / 'other').mkdir()
    with pytest.raises(ValueError, match=r'^images must .* 1000 classes or folders named by synsets, got 4 folders'):
        read_class_map(tmp_path, 1000, 'images')
    with pytest.raises(ValueError, match=r'^images must be a folder'):
        read_class_map(tmp_path / 'nowhere', 1000, 'images')
