"""Pixels of image files, and lists of files."""
import shutil

import numpy as np
import pytest
from PIL import Image

from timm_assemble.evaluation.image_files import list_files, read_image


def test_pixels_are_rgb_whatever_the_file_has(tmp_path):
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    for name, image in (('rgb.png', Image.fromarray(red)), ('palette.png', Image.fromarray(red).convert('P')),
                          ('alpha.png', Image.fromarray(red).convert('RGBA'))):
        image.save(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / name)), red)
    Image.fromarray(red[..., 0]).save(tmp_path / 'grey.png')
    assert (np.asarray(read_image(tmp_path / 'grey.png')) == 255).all()


def test_file_list_is_sorted_and_covers_names_and_sizes(tmp_path):
    for name in ('b/2.png', 'b/1.JPEG', 'a/9.jpg', 'b/.hidden.png', 'b/notes.txt', '.git/1.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    (tmp_path / 'c').mkdir()
    files = list_files(tmp_path)
    assert files.classes == ('a', 'b', 'c')
    assert files.files == (('a/9.jpg', 0), ('b/1.JPEG', 1), ('b/2.png', 1))
    same = list_files(shutil.copytree(tmp_path, tmp_path.with_name('copy')))
    assert same.fingerprint == files.fingerprint
    for change in (lambda: (tmp_path / 'a/9.jpg').write_bytes(b'xx'), lambda: (tmp_path / 'b/2.png').unlink()):
        before = list_files(tmp_path).fingerprint
        change()
        assert list_files(tmp_path).fingerprint != before
    with pytest.raises(ValueError, match='has none'):
        list_files(tmp_path / 'b')
