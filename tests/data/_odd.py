"""A tree of odd files, as they come with real photos."""
import os

import numpy as np
from PIL import Image

SIZE = 64, 80  # height and width


def write_odd_tree(root):
    """Write files of two classes below ``root``; return names of those that can be read, and the others' reasons."""
    rng = np.random.default_rng(0)
    readable, number = [], 0

    def path(name):
        nonlocal number
        number += 1
        folder = root / f'c{number % 2}'
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def save(name, image, **options):
        file = path(name)
        image.save(file, **options)
        readable.append(str(file.relative_to(root)))
        return file

    def noise(channels=3, dtype=np.uint8):
        shape = (*SIZE, channels) if channels > 1 else SIZE
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype)

    rgb = Image.fromarray(noise())
    save('bits.png', Image.fromarray(noise(1)).convert('1'))
    save('gray.png', Image.fromarray(noise(1)))
    save('gray_alpha.png', Image.fromarray(noise(2), 'LA'))
    save('palette.png', rgb.convert('P'))
    save('transparent.png', rgb.convert('P'), transparency=3)
    save('rgb.jpg', rgb)
    save('alpha.png', Image.fromarray(noise(4), 'RGBA'))
    save('cmyk.jpg', Image.fromarray(noise(4), 'CMYK'))
    save('deep.png', Image.fromarray(noise(1, np.uint16)))
    save('deep.tif', Image.fromarray(noise(1, np.uint16)))
    exif = Image.Exif()
    exif[0x0112] = 6
    save('rotated.jpeg', rgb, exif=exif)
    for name in ('x.webp', 'x.bmp', 'x.ppm', 'UPPER.JPG', 'x.pgm'):
        save(name, rgb.convert('L') if name.endswith('pgm') else rgb)
    unreadable = {}

    def odd(name, reason):
        file = path(name)
        unreadable[os.fsencode(file.relative_to(root)).decode('utf-8', 'backslashreplace')] = reason
        return file

    Image.fromarray(noise(1).astype(np.float32)).save(odd('floats.tif', 'it has floats as pixels'))
    whole = (root / 'c0' / 'rgb.jpg').read_bytes() if (root / 'c0' / 'rgb.jpg').exists() else (
        root / 'c1' / 'rgb.jpg').read_bytes()
    odd('cut.jpg', 'truncated').write_bytes(whole[:len(whole) // 2])
    odd('gone.png', 'it is a link to nowhere').symlink_to('nowhere')
    odd('lfs.png', 'Git LFS').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n')
    odd('folder.png', 'it is a folder').mkdir()
    odd(os.fsdecode(b'latin\xe9.png'), 'its name is not UTF-8').write_bytes(b'')
    rgb.save(os.fsencode(root / 'c0' / os.fsdecode(b'latin\xe9.png')), 'PNG') if (
        root / 'c0' / os.fsdecode(b'latin\xe9.png')).exists() else None
    odd('text.png', 'cannot identify image file').write_text('hello')
    (root / 'c0' / 'notes.txt').write_text('not an image')
    return readable, unreadable
