"""From files to the model's input: decoding, crops, corruptions, sequences."""
import re

import av
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from timm_assemble.data.images import UnreadableError, list_images
from timm_assemble.robustness import corruptions, metrics
from timm_assemble.robustness.protocols import Steps, read_frames, two_crops
from timm_assemble.robustness.tasks import CleanTask, Corruption, CorruptionTask, FlipTask, ShiftTask

from ._samples import write_image, write_video


def noise(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def write(path, pixels):
    return write_image(path, Image.fromarray(pixels))


def pixels_of(kind, folder, steps, *args, name='x'):
    """Return what a model gets of each file of a folder, or why it cannot be read."""
    files, found = list_images(folder, extensions=kind.extensions), []
    task = kind.of_files(name, files, Steps(*steps), *args, parameter='')
    for file, _ in files.files:
        try:
            found.append(np.stack([np.asarray(image) for image in task.finish(task.load(folder / file), file)]))
        except UnreadableError as e:
            found.append(e)
    return found


def test_published_images_are_cropped_and_never_resized(tmp_path):
    pixels = noise(240, 300)
    write(tmp_path / 'a' / 'x.png', pixels)
    [[image]] = pixels_of(CleanTask, tmp_path, (0, 224, (224, 224)))
    np.testing.assert_array_equal(image, pixels[8:232, 38:262])


def test_input_is_height_times_width(tmp_path):
    write(tmp_path / 'a' / 'x.png', noise(240, 300))
    [[image]] = pixels_of(CleanTask, tmp_path, (0, 224, (64, 96)))
    assert image.shape == (64, 96, 3)
    [crops] = pixels_of(ShiftTask, tmp_path, (0, 224, (64, 96)), 4, 0)
    assert crops.shape == (2, 64, 96, 3)


@pytest.mark.parametrize('content', [b'', b'not an image', 'half', 'small'])
def test_unreadable_images_are_named_and_the_rest_is_read(tmp_path, content):
    write(tmp_path / 'a' / '0.png', noise(40, 40))
    write(tmp_path / 'a' / '2.png', noise(40, 40))
    bad = write(tmp_path / 'a' / '1.png', noise(40, 30) if content == 'small' else noise(40, 40))
    if content != 'small':
        bad.write_bytes(bad.read_bytes()[:900] if content == 'half' else content)
    first, unreadable, last = pixels_of(CleanTask, tmp_path, (0, 32, (32, 32)))
    assert len(first) == len(last) == 1 and unreadable.path == str(bad) and '\n' not in unreadable.reason
    if content == 'small':
        assert unreadable.reason == 'image must be at least 32 x 32, as the protocol crops it, got 40 x 30'


def smooth(side=48):
    ramp = np.linspace(40, 200, side)
    return np.stack([ramp[:, None] + 0 * ramp, ramp[None] + 0 * ramp[:, None], np.full((side, side), 90)], 2).astype(
        np.uint8)


# glass_blur has its loop compiled at the first call, which takes seconds: one severity of it is enough
@pytest.mark.parametrize('name', [*metrics.ALEXNET_ERROR])
def test_corruption_is_repeatable_and_leaves_numpy_alone(name):
    image = smooth()
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    first = corruptions.corrupt(image, name, 2, 77)
    assert np.random.rand() == expected
    assert first.dtype == np.uint8 and first.shape == image.shape and (first != image).any()
    np.testing.assert_array_equal(corruptions.corrupt(image, name, 2, 77), first)
    drawn = name not in ('defocus_blur', 'zoom_blur', 'brightness', 'contrast', 'pixelate', 'jpeg_compression',
                         'gaussian_blur', 'saturate')
    assert (corruptions.corrupt(image, name, 2, 78) != first).any() == drawn


def test_corruptions_get_worse_and_colours_stay_in_their_order():
    image = smooth(64)
    for name in ('gaussian_noise', 'contrast', 'jpeg_compression'):
        distances = [np.abs(corruptions.corrupt(image, name, s, 1).astype(int) - image).mean()
                     for s in metrics.SEVERITIES]
        assert distances == sorted(distances) and distances[0] > 0
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    for name in ('brightness', 'jpeg_compression', 'motion_blur', 'saturate'):
        made = corruptions.corrupt(red, name, 1, 0).reshape(-1, 3).mean(0)
        assert made[0] > made[1] + 50 and made[0] > made[2] + 50


def test_spatter_without_drops_leaves_the_image():
    """The library divides by the largest drop; without any, NaN would be black."""
    image = np.full((32, 32, 3), 90, np.uint8)
    made = [corruptions.corrupt(image, 'spatter', 1, seed) for seed in range(40)]
    assert any((m == image).all() for m in made) and all(m.min() > 40 for m in made)


def test_seed_depends_on_run_corruption_severity_and_name():
    seeds = {corruptions.image_seed(*a) for a in (
        (0, 'snow', 1, 'a/1.png'), (1, 'snow', 1, 'a/1.png'), (0, 'fog', 1, 'a/1.png'), (0, 'snow', 2, 'a/1.png'),
        (0, 'snow', 1, 'a/2.png'))}
    assert len(seeds) == 5 and all(0 <= seed < 2 ** 32 for seed in seeds)
    assert corruptions.image_seed(0, 'snow', 1, 'a/1.png') == 1982300611  # a change invalidates all caches


def test_generated_images_depend_neither_on_order_nor_on_the_others(tmp_path):
    for i in range(3):
        write(tmp_path / 'a' / f'{i}.png', noise(80, 70, i))
    generated = CorruptionTask, tmp_path, (48, 40, (36, 36)), Corruption('gaussian_noise', 3, 0)
    *_, [last] = pixels_of(*generated)
    for i in (0, 1):
        (tmp_path / 'a' / f'{i}.png').unlink()
    np.testing.assert_array_equal(pixels_of(*generated)[0][0], last)
    # by hand: short side to 48, center crop 40, corrupted there, then to 36
    image = Image.fromarray(noise(80, 70, 2)).resize((48, 54), Image.Resampling.BILINEAR).crop((4, 7, 44, 47))
    seed = corruptions.image_seed(0, 'gaussian_noise', 3, 'a/2.png')
    made = Image.fromarray(corruptions.corrupt(np.asarray(image), 'gaussian_noise', 3, seed))
    np.testing.assert_array_equal(last, np.asarray(made.resize((36, 36), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize('call, message', [
    (lambda: corruptions.corrupt(noise(40, 40), 'rain', 1, 0), "corruption must be one of .*'rain'"),
    (lambda: corruptions.corrupt(noise(40, 40), 'snow', 6, 0), 'severity must be from 1 to 5, got 6'),
    (lambda: corruptions.corrupt(noise(40, 31), 'snow', 1, 0), r'sides of 32 or more, got uint8 of \(40, 31, 3\)'),
    (lambda: corruptions.corrupt(noise(40, 40) / 255, 'snow', 1, 0), 'got float64'),
])
def test_bad_corruptions_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_frames_are_rgb_and_in_the_order_of_presentation(tmp_path):
    levels = [40, 200, 60, 180, 80, 160, 100]
    path = write_video(tmp_path / 'a' / 'x.mp4', levels, (1.0, 0.5, 0.25))
    with av.open(str(path)) as video:
        stored = [packet.pts for packet in video.demux(video=0) if packet.pts is not None]
    assert stored != sorted(stored)  # else nothing is tested here
    frames = [np.asarray(frame).reshape(-1, 3).mean(0) for frame in read_frames(path)]
    assert [round(frame[0] / 20) for frame in frames] == [level // 20 for level in levels]
    for frame in frames:
        np.testing.assert_allclose(frame, frame[0] * np.array([1, 0.5, 0.25]), atol=6)
    [images] = pixels_of(FlipTask, tmp_path, (0, 224, (64, 64)))
    assert images.shape == (7, 64, 64, 3)


def test_files_that_are_not_sequences_are_named(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / '0.mp4').write_bytes(b'nothing')
    write_video(tmp_path / 'a' / '1.mp4', [90])
    # with its index in front a truncated video is decoded without an error
    path = write_video(tmp_path / 'a' / '2.mp4', [90, 200] * 5, options=dict(movflags='faststart'))
    assert len(read_frames(path)) == 10
    path.write_bytes(path.read_bytes()[:-len(path.read_bytes()) // 4])
    junk, short, truncated = pixels_of(FlipTask, tmp_path, (0, 224, (224, 224)))
    assert junk.path.endswith('0.mp4') and 'not a video' in junk.reason
    assert short.reason == 'frames must be 2 or more, got 1'
    assert re.fullmatch('it declares 10 frames, and [2-9] can be read', truncated.reason)


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(4, 30), st.integers(1, 8), st.integers(0, 99))
def test_two_crops_are_of_the_image_and_near_each_other(height, width, size, shift, seed):
    rows, columns = np.mgrid[:height, :width]
    first, second = two_crops(np.stack([rows, columns, 0 * rows], 2).astype(np.uint8), (size, size), shift, seed)
    assert first.shape == second.shape == (size, size, 3)
    if min(height, width) >= size + shift:  # nothing is padded: the pixels are their positions
        for axis, side in enumerate((height, width)):
            positions = [int(crop[0, 0, axis]) for crop in (first, second)]
            assert abs(positions[0] - positions[1]) <= shift
            center = (side - size) / 2
            assert all(abs(position - center) <= shift / 2 + 1 for position in positions)


def test_positions_of_crops_are_uniform():
    rows, columns = np.mgrid[:12, :12]
    image = np.stack([rows, columns, 0 * rows], 2).astype(np.uint8)
    positions = [tuple(crop[0, 0, :2]) for seed in range(400) for crop in two_crops(image, (10, 10), 2, seed)]
    counts = [positions.count((r, c)) for r in range(3) for c in range(3)]
    assert sum(counts) == 800 and min(counts) > 800 / 9 / 2


def test_shifted_crops_count_pixels_of_the_input(tmp_path):
    write(tmp_path / 'a' / '0.png', noise(300, 400))
    [images] = pixels_of(ShiftTask, tmp_path, (292, 256, (64, 64)), 4, 0)
    assert images.shape == (2, 64, 64, 3)  # of an image of 73 x 97
    scaled = np.asarray(Image.fromarray(noise(300, 400)).resize((97, 73), Image.Resampling.BILINEAR))
    windows = {scaled[r:r + 64, c:c + 64].tobytes() for r in range(10) for c in range(34)}
    assert all(image.tobytes() in windows for image in images)
