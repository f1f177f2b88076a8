"""Images for quantization: which are chosen, how they are preprocessed and split, and bad input."""
import pytest
import timm
import torch
from PIL import Image

from timm_assemble.data import ClassMap, Preprocessing
from timm_assemble.deploy.calibration import load_folder, split_images, whole_batches
from timm_assemble.models.loading import ModelSource

SIZE = (3, 8, 8)


def source():
    return ModelSource(None, Preprocessing(SIZE, (0.5, 0.25, 0.125), (0.5, 0.5, 0.5), 'bilinear', 1.0), ClassMap(3))


def write(folder, count, suffix='.png'):
    """Images whose red is their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new('RGB', (12, 10), (i, 100, 200)).save(folder / f'{i:03}{suffix}')


def red(images):
    return ((images[:, 0].mean((1, 2)) * 0.5 + 0.5) * 255).round().int().tolist()


@pytest.mark.parametrize('pair', [False, True])
def test_a_quarter_calibrates_and_the_others_are_held_out(pair):
    images = torch.arange(100.).view(-1, 1, 1, 1).expand(-1, *SIZE)
    batches = [(x, torch.zeros(len(x))) if pair else x for x in images.split(7)]
    calibration, held_out = (part[:, 0, 0, 0].tolist() for part in split_images(iter(batches), SIZE, 50))
    assert calibration == [*range(0, 50, 4)] and sorted(calibration + held_out) == [*range(50)]


@pytest.mark.parametrize('batches, message', [
    ([torch.zeros(39, *SIZE)], 'calibration must have at least 40 images, got 39'),
    ([], 'calibration must have at least 40 images, got 0'),
    ([torch.zeros(50, 3, 8, 9)], r'calibration must yield .*\(B, 3, 8, 8\), got torch.float32 \(50, 3, 8, 9\)'),
    ([torch.zeros(50, *SIZE, dtype=torch.uint8)], 'got torch.uint8'),
    ([torch.zeros(50, *SIZE)], 'calibration must have at least 10 distinct images, got 1 of 50'),
    ([{'image': 1}], 'got dict'),
    ([[]], 'got list'),
])
def test_unsuitable_images_are_rejected(batches, message):
    with pytest.raises(ValueError, match=message):
        split_images(batches, SIZE)


@pytest.mark.parametrize('classes', [1, 3])
def test_every_nth_image_of_a_folder_is_loaded_as_in_evaluation(classes, tmp_path):
    for i in range(classes):
        write(tmp_path / f'class{i}' if classes > 1 else tmp_path, 60)
    images, skipped = load_folder(tmp_path, source(), SIZE, 40)
    assert not skipped and images.shape == (40, *SIZE)
    if classes == 1:
        assert red(images) == [i * 60 // 40 for i in range(40)]
        assert torch.allclose(images[:, 1].mean(), torch.tensor((100 / 255 - 0.25) / 0.5))
    assert torch.equal(images, load_folder(tmp_path, source(), SIZE, 40)[0])
    assert len(load_folder(tmp_path, source(), SIZE)[0]) == 60 * classes


def test_bad_images_are_skipped_and_named(tmp_path):
    write(tmp_path, 42)
    (tmp_path / '007.png').write_text('no image')
    images, skipped = load_folder(tmp_path, source(), SIZE)
    assert red(images) == [i for i in range(42) if i != 7]
    assert len(skipped) == 1 and skipped[0].startswith(f'{tmp_path / "007.png"}: cannot identify image')
    for i in range(3):
        (tmp_path / f'00{i}.png').unlink()
    with pytest.raises(ValueError, match=r'calibrate must have at least 40 images that can be read, got 38 in'):
        load_folder(tmp_path, source(), SIZE)
    with pytest.raises(ValueError, match='calibrate must be a folder of images, got'):
        load_folder(tmp_path / 'none', source(), SIZE)


def test_preprocessing_is_that_of_the_models_evaluation(tmp_path):
    write(tmp_path, 40)
    model = timm.create_model('test_resnet', pretrained=False)
    trained = ModelSource(model, Preprocessing.of_model(model), ClassMap(1000))
    images, _ = load_folder(tmp_path, trained, trained.preprocessing.input_size)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    assert torch.equal(images[3], transform(Image.open(tmp_path / '003.png')))


def test_whole_batches_leave_the_last_images_out():
    assert [len(x) for x in whole_batches(torch.zeros(11), 4)] == [4, 4]
    with pytest.raises(ValueError, match=r'^batch_size must be at most 3, a quarter of the images, got 4$'):
        whole_batches(torch.zeros(3), 4)
