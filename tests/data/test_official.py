"""The official data pipeline against values of the official code and against TensorFlow's operations."""
import json
import random
import zlib
from collections import Counter
from operator import itemgetter

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from skimage import data as photos

from tests._official import GOLDEN
from tests._tensorflow import import_tensorflow
from timm_assemble.data import official, official_autoaugment, read_image
from timm_assemble.data.official import AutoAugment, evaluation_transform, resize, sample_crop, training_crop
from timm_assemble.data.official_autoaugment import POLICIES, apply_operation
from timm_assemble.errors import UserError

OFFICIAL = json.loads((GOLDEN / 'official_data.json').read_text())
SHARPNESS = np.load(GOLDEN / 'official_sharpness.npz')
ARRAYS = {name: name for name in OFFICIAL['crc32']} | OFFICIAL['same_as']


def golden_image(height, width, k):
    y, x, c = np.meshgrid(range(height), range(width), range(3), indexing='ij')
    image = np.floor(127.5 + 127.5 * np.sin(0.13 * (1 + c + k) * y + 0.07 * (3 - c) * x + c)).astype(np.uint8)
    image.reshape(-1, 3)[::7] = 0
    return image


def tensorflow_resize(pixels, height, width):
    tf = import_tensorflow()
    return tf.raw_ops.ResizeBilinear(
        images=pixels[None], size=[height, width], align_corners=False, half_pixel_centers=False)[0].numpy()


@pytest.fixture(scope='module')
def photo():
    """A photo of 427 x 640."""
    return Image.fromarray(photos.chelsea()).resize((640, 427), Image.Resampling.BICUBIC)


def test_policies_are_the_official_ones():
    assert {name: [[[*operation] for operation in pair] for pair in pairs] for name, pairs in POLICIES.items()} == (
        OFFICIAL['policies'])


@pytest.mark.parametrize('name', [*ARRAYS])
def test_every_operation_gives_the_official_pixels(name):
    operation, level, *negative = name.split('_')
    result = np.array(apply_operation(
        Image.fromarray(golden_image(40, 48, 0)), operation, int(level), negative == ['negative']))
    if operation == 'Sharpness':  # sums of floats in another order
        difference = np.abs(result.astype(int) - SHARPNESS[ARRAYS[name]])
        assert difference.max() <= 1 and (difference > 0).mean() < 0.002
    else:
        assert zlib.crc32(result) == OFFICIAL['crc32'][ARRAYS[name]]


@pytest.mark.parametrize('size', [(224, 224), (137, 211)])
@pytest.mark.parametrize('operation, level', [
    ('Rotate', 2), ('Rotate', -9), ('ShearX', 5), ('ShearX', -3), ('ShearY', 2), ('ShearY', -7), ('TranslateX', -8),
    ('TranslateY', 3)])
def test_moved_pixels_are_tensorflows_nearest(size, operation, level):
    tf = import_tensorflow()
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    matrix = official_autoaugment._MATRICES[operation](level / 10, *size)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=np.concatenate((pixels, np.full((*size, 1), 255, np.uint8)), 2)[None], output_shape=size, fill_value=0.0,
        transforms=np.array([[*matrix, 0, 0]], np.float32), interpolation='NEAREST', fill_mode='CONSTANT')[0].numpy()
    expected = np.where(moved[..., 3:] > 0, moved[..., :3], 128)
    result = apply_operation(Image.fromarray(pixels), operation, abs(level), level < 0)
    assert np.array_equal(result, expected)


def test_color_takes_tensorflows_gray():
    tf = import_tensorflow()
    colors = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    gray = tf.image.rgb_to_grayscale(colors).numpy().astype(np.float32)
    expected = (gray + np.float32(0.1) * (colors - gray)).astype(np.uint8)
    difference = np.abs(np.array(apply_operation(Image.fromarray(colors), 'Color', 0)).astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-4


@pytest.mark.parametrize('side, gray', [(16, 1), (224, 196), (300, 255)])
def test_contrast_blends_with_the_number_of_pixels_over_256(side, gray):
    result = apply_operation(Image.new('RGB', (side, side), (0, 100, 255)), 'Contrast', 1)
    assert result.getpixel((0, 0)) == tuple(int(gray + 0.28 * (value - gray)) for value in (0, 100, 255))


def test_cutout_fills_a_square_around_a_uniform_center():
    random.seed(0)
    holes = [np.array(apply_operation(Image.new('RGB', (100, 80)), 'Cutout', 3))[..., 0] for _ in range(2000)]
    assert {*np.unique(holes)} == {0, 128} and max(hole[40].sum() // 128 for hole in holes) == 60
    # A pixel is filled where the center is at most 30 pixels away: half as often at an edge.
    filled = np.mean(holes, 0) / 128
    assert abs(filled[40, 50] - 60 / 80 * 60 / 100) < 0.03 and abs(filled[40, 0] - 60 / 80 * 31 / 100) < 0.03


@pytest.mark.parametrize('policy, pairs', [('imagenet', 25), ('good', 95)])
def test_a_pair_is_drawn_uniformly_and_each_operation_with_its_probability(monkeypatch, policy, pairs):
    drawn = Counter()

    def record(image, *operation):
        drawn[operation] += 1
        return image
    monkeypatch.setattr(official_autoaugment, 'apply_operation', record)
    random.seed(0)
    augment, image, rounds = AutoAugment(policy), Image.new('RGB', (2, 2)), 40_000
    for _ in range(rounds):
        assert augment(image) is image
    expected = Counter()
    for pair in OFFICIAL['policies'][policy]:
        for name, probability, level in pair:
            signs = (True, False) if name.startswith(('Rotate', 'Shear', 'Translate')) else (False,)
            for negative in signs:
                expected[name, level, negative] += probability / pairs / len(signs)
    assert {*drawn} == {operation for operation, share in expected.items() if share}
    for operation, share in expected.items():
        assert abs(drawn[operation] / rounds - share) <= 5 * (share / rounds) ** 0.5, operation


@pytest.mark.parametrize('case', [*OFFICIAL['evaluation']])
def test_evaluation_gives_the_official_values(case):
    expected = OFFICIAL['evaluation'][case]
    size, side, crop_type = case.split('_')
    height, width, side, crop_type = *map(int, size.split('x')), int(side), int(crop_type)
    assert [*official.evaluation_size(height, width, expected['short']), 3] == expected['resized']
    result = evaluation_transform(side, crop_type)(golden_image(height, width, 1))
    assert result.shape == (3, side, side) and result.dtype == torch.float32
    pixels, middle = result.permute(1, 2, 0).numpy().astype(float), side // 2
    for name, part in {'corner': pixels[:4, :4], 'center': pixels[middle, middle - 4:middle + 4],
                       'last': pixels[-1, -1], 'mean': pixels.mean((0, 1)), 'std': pixels.std((0, 1))}.items():
        np.testing.assert_allclose(part, expected[name], rtol=0, atol=1e-3, err_msg=name)
    assert np.abs(pixels).sum() == pytest.approx(expected['checksum'], rel=1e-9)


@pytest.mark.parametrize('crop_type, short', [(0, 292), (1, 257)])
def test_evaluation_of_a_jpeg_file_is_tensorflows(photo, tmp_path, crop_type, short):
    tf = import_tensorflow()
    photo.save(tmp_path / 'photo.jpg', quality=90)
    # TensorFlow's default is the fast transform, which Pillow does not have: one grey level apart on average.
    decoded = tf.io.decode_jpeg((tmp_path / 'photo.jpg').read_bytes(), dct_method='INTEGER_ACCURATE').numpy()
    width = int(np.float32(640) * (np.float32(short) / np.float32(427)))
    top, left = (short - 256) // 2, (width - 256) // 2
    expected = tensorflow_resize(decoded, short, width)[top:top + 256, left:left + 256] - np.float32(official.MEAN)
    result = evaluation_transform(256, crop_type)(read_image(tmp_path / 'photo.jpg'))
    np.testing.assert_allclose(result.permute(1, 2, 0), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize('height, width', [(427, 640), (375, 500)])
def test_crops_are_distributed_as_tensorflows(height, width):
    tf, count = import_tensorflow(), 20_000
    tf.random.set_seed(0)

    def draw(_):
        return tf.image.sample_distorted_bounding_box(
            [height, width, 3], tf.constant([[[0.0, 0, 1, 1]]]), seed=1, min_object_covered=0.1,
            aspect_ratio_range=(0.75, 1.33), area_range=(0.05, 1.0), max_attempts=100,
            use_image_if_no_bounding_boxes=True)[:2]
    begin, size = tf.function(lambda: tf.map_fn(draw, tf.range(count), fn_output_signature=(tf.int32, tf.int32)))()
    theirs = np.concatenate((begin.numpy()[:, :2], size.numpy()[:, :2]), 1)
    random.seed(0)
    ours = np.array([sample_crop(height, width) for _ in range(count)])
    for value in (lambda crop: crop[2] / crop[3], lambda crop: crop[2] * crop[3], *map(itemgetter, range(4))):
        assert scipy.stats.ks_2samp(value(ours.T), value(theirs.T)).pvalue > 0.01
    share = ours[:, 2] * ours[:, 3] / (height * width)
    assert share.min() >= 0.1 and (height != 375 or share.mean() == pytest.approx(0.39, abs=0.005))


@pytest.mark.parametrize('size', [(1, 1), (2, 500), (500, 2)])
def test_crops_of_extreme_images_are_inside(size):
    random.seed(0)
    for top, left, height, width in (sample_crop(*size) for _ in range(200)):
        assert height > 0 and width > 0 and top + height <= size[0] and left + width <= size[1]


@pytest.mark.parametrize('flip', [0.0, 1.0])
def test_training_crop_flips_resizes_and_truncates_in_this_order(photo, flip):
    random.seed(3)
    top, left, height, width = sample_crop(427, 640)
    crop = np.array(photo)[top:top + height, left:left + width]
    expected = tensorflow_resize(crop[:, ::-1] if flip else crop, 224, 192).astype(np.uint8)
    random.seed(3)
    result = training_crop((224, 192), hflip=flip)(photo)
    # A value that is whole but for rounding may be truncated to the one below.
    difference = np.abs(np.array(result).astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-4


def test_arrays_give_what_images_give(photo):
    for transform in (training_crop(64), AutoAugment('good')):
        random.seed(1)
        image = transform(photo)
        random.seed(1)
        array = transform(np.array(photo))
        assert isinstance(image, Image.Image) and isinstance(array, np.ndarray)
        assert np.array_equal(image, array)
    assert torch.equal(evaluation_transform(64)(photo), evaluation_transform(64)(np.array(photo)))


def test_window_is_a_part_of_the_whole(photo):
    pixels = np.array(photo)
    assert torch.equal(resize(pixels, (300, 700), (20, 30, 100, 50)), resize(pixels, (300, 700))[20:120, 30:80])


@pytest.mark.parametrize('call, message', [
    (lambda: AutoAugment('original'), "policy must be one of imagenet, good, got 'original'"),
    (lambda: evaluation_transform(256, 2), 'crop_type must be 0 or 1, got 2'),
    (lambda: evaluation_transform(0), 'size must be a positive integer, got 0'),
])
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
