"""Accuracy on a folder of images: the count, the protocol, and what cannot be read."""
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from timm_assemble.data.accuracy import measure_accuracy


def image_folder(root, names, each=2):
    """Write one folder of noise images per name."""
    rng = np.random.RandomState(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.randint(0, 256, (300, 320, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f'{i}.png')
    return root


def ranking(order, **overlay):
    """A model that ranks the classes in this order for every image."""
    model = timm.create_model('test_assemble_resnet', num_classes=len(order), pretrained_cfg_overlay=overlay)
    torch.nn.init.zeros_(model.fc.weight)
    for place, index in enumerate(order):
        model.fc.bias.data[index] = -place
    return model


def test_accuracy_counts_the_first_and_the_first_five_classes(tmp_path):
    """One folder in six is right, five are near; the images are 64 high and 96 wide."""
    root = image_folder(tmp_path / 'images', 'abcdef')
    model, sizes = ranking([2, 1, 0, 3, 4, 5], input_size=(3, 64, 96), test_input_size=None), set()
    model.register_forward_pre_hook(lambda module, inputs: sizes.add(tuple(inputs[0].shape[1:])))
    accuracy = measure_accuracy(model, root)
    assert str(accuracy).startswith('top-1 16.67 %, top-5 83.33 % on 12 images at 64 x 96, crop 0.875, bilinear, '
                                    'classes by the order of the folders')
    assert sizes == {(3, 64, 96)} and not accuracy.imagenet and accuracy.unreadable == ()


def test_names_decide_the_classes_and_unreadable_images_are_left_out(tmp_path):
    """All extensions count; folders d to b of a model that names its classes in another order."""
    root = image_folder(tmp_path / 'images', 'bcd', each=1)
    Image.new('L', (50, 50)).save(root / 'd' / 'x.webp')
    (root / 'b' / 'gone.tif').symlink_to('nowhere')
    accuracy = measure_accuracy(ranking([0, 1, 2, 3, 4, 5], label_names=['d', 'c', 'b', 'a', 'e', 'f']), root)
    assert (accuracy.top1, accuracy.top5, accuracy.images) == (50, 100, 4)
    [line] = accuracy.unreadable
    assert line.endswith('b/gone.tif cannot be read: it is a link to nowhere, which does not exist')
    with pytest.raises(ValueError, match=r'^verify must have folders named by the model.s label_names, a, b, x, y; got '
                                         'b, c, d, of which c, d are no class of the model$'):
        measure_accuracy(ranking([0, 1, 2, 3], label_names=['a', 'b', 'x', 'y']), root, 'verify')


def test_a_folder_without_readable_images_is_rejected(tmp_path):
    (tmp_path / 'a').mkdir()
    with pytest.raises(ValueError, match=r'^folder must be a folder with one folder per class, with files that end in'):
        measure_accuracy(ranking([0]), tmp_path)
    (tmp_path / 'a' / 'x.png').write_text('text')
    with pytest.raises(ValueError, match=r'^folder must have images that can be read, got 1 that cannot: .*a/x.png'):
        measure_accuracy(ranking([0]), tmp_path)
