"""Reading images of every mode against slow loops, and the order of files against timm's."""
import numpy as np
import pytest
from PIL import Image
from timm.data.readers.reader_image_folder import find_images_and_targets

from timm_assemble.data.images import EXTENSIONS, UnreadableError, decode_image, list_images, read_image

GRAY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def repeated(gray):
    return np.stack([gray] * 3, 2)


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_16_bits_are_scaled_to_8(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 1 << 16, (6, 8), np.uint16)
    Image.fromarray(values).save(tmp_path / f'x.{suffix}')
    expected = np.array([[round(int(v) * 255 / 65535) for v in row] for row in values])
    assert np.array_equal(read_image(tmp_path / f'x.{suffix}'), repeated(expected))
    assert np.array_equal(read_image(tmp_path / f'x.{suffix}', 'L'), expected)


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGBA'])
def test_other_modes_keep_their_colors_and_lose_transparency(tmp_path, mode):
    source = Image.fromarray(GRAY if mode != '1' else (GRAY > 99).astype(np.uint8) * 255)
    image = source.convert('RGBA' if mode == 'RGBA' else mode)
    if mode in ('LA', 'RGBA'):
        image.putalpha(7)
    image.save(tmp_path / 'x.png', **(dict(transparency=0) if mode == 'P' else {}))
    assert np.array_equal(read_image(tmp_path / 'x.png'), repeated(np.asarray(source)))


def test_cmyk_is_converted_and_the_rotation_of_exif_is_not_applied(tmp_path):
    cmyk = np.zeros((6, 8, 4), np.uint8)
    cmyk[..., 0], cmyk[..., 3] = 255, 51  # cyan, a fifth black
    Image.fromarray(cmyk, 'CMYK').save(tmp_path / 'x.tif')
    assert np.asarray(read_image(tmp_path / 'x.tif'))[0, 0].tolist() == [0, 204, 204]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GRAY).save(tmp_path / 'x.jpg', exif=exif)
    assert read_image(tmp_path / 'x.jpg').size == (8, 6)


@pytest.mark.parametrize('values', [GRAY.astype(np.float32), GRAY.astype(np.int32)])
def test_pixels_of_unknown_range_are_unreadable(tmp_path, values):
    Image.fromarray(values).save(tmp_path / 'x.tiff')
    with pytest.raises(ValueError, match='range is unknown'):
        decode_image(tmp_path / 'x.tiff')
    with pytest.raises(UnreadableError, match=r'x.tiff cannot be read: it has .* whose range is unknown'):
        read_image(tmp_path / 'x.tiff')


def test_order_and_classes_are_timms(tmp_path):
    for name in ('b10/2.png', 'b10/10.png', 'B11/x.JPG', 'a/deep/1.webp', 'a/deep/01.png', 'b9/X.png', 'c/1.tif'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    files = list_images(tmp_path)
    expected, classes = find_images_and_targets(str(tmp_path), types=EXTENSIONS)
    assert [*files.classes] == [*classes]
    assert [(str(tmp_path / name), label) for name, label in files.files] == expected
    assert [name for name, _ in list_images(tmp_path, only=['c']).files] == ['c/1.tif']
    assert {label for _, label in list_images(tmp_path, labelled=False).files} == {-1}
