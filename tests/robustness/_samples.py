"""Models, images and videos on disk, arguments and results of the tests."""
import json

import av
import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from timm_assemble.__main__ import main
from timm_assemble.robustness.metrics import COMMON, SEVERITIES

CORRUPTIONS = ('gaussian_noise', 'impulse_noise')  # drawn from NumPy's state, and from a seed of its own
WRONG = {('fog', 3): 1, ('snow', 5): 2, ('snow', 1): 3}  # of the four images of a folder


def make_samples(root):
    """Write two models of three classes, clean images, and ImageNet-C's layout."""
    for seed, name in enumerate(('a', 'b')):
        torch.manual_seed(seed)
        model = timm.create_model('test_assemble_resnet', num_classes=3)
        save_file(model.state_dict(), root / f'{name}.safetensors')
    rng = np.random.RandomState(0)
    for i in range(6):
        write_image(root / 'clean' / 'xyz'[i % 3] / f'{i}.jpeg', noise(rng, 9, 12).resize((300, 240)))
    for name in COMMON:
        for severity in SEVERITIES:
            for c in 'xyz':
                write_image(root / 'c' / name / str(severity) / c / '0.JPEG', noise(rng, 8, 8).resize((224, 224)))
    return root


def noise(rng, height, width):
    return Image.fromarray(rng.randint(0, 256, (height, width, 3)).astype(np.uint8))


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def write_video(path, levels, colour=(1.0, 1.0, 1.0), side=224, options=None):
    """Write frames of the grey ``levels``, stored in another order than presented."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w', options=options or {}) as video:
        stream = video.add_stream('mpeg4', rate=10)
        stream.width = stream.height = side
        stream.pix_fmt = 'yuv420p'
        stream.codec_context.max_b_frames = 2
        for level in levels:
            pixels = (np.ones((side, side, 3)) * level * np.array(colour)).astype(np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        video.mux(stream.encode())
    return path


def red_over_half(images):
    """Return logits of class 1 where an image is more red than not, else of class 0."""
    red = images[:, 0].float().mean((1, 2)) - 127.5
    return torch.stack([-red, red], 1)


def counting(counts, classify=red_over_half):
    """Return a callable that notes the size of each batch."""
    return lambda images: (counts.append(len(images)), classify(images))[1]


def model_names(samples, models='ab'):
    return [f'test_assemble_resnet={samples / name}.safetensors' for name in models]


def arguments(samples, *more, models='ab'):
    return ['robustness', *model_names(samples, models), *map(str, more), '--workers', '0', '--input-size', '32']


def generate(samples, output, *more):
    return [*arguments(samples, '--generate', samples / 'clean', '--corruptions', *CORRUPTIONS, '--shift', 4,
                       '--baseline', model_names(samples)[0], '--output', output), *map(str, more)]


def read_results(output):
    results = json.loads((output / 'results.json').read_text())
    assert set(results.pop('run')) >= {'seconds', 'date', 'workers'}  # all that may differ
    return results


def cached_records(folder):
    """Return the arrays of every cached result, without what two runs may differ in."""
    found = {}
    for path in folder.glob('[!.]*.npz'):
        with np.load(path) as file:
            found[path.name] = {name: file[name].tolist() for name in file.files if name != 'about'}
    return found


def error_of(capsys, *args, printed=False):
    """Run a command that fails, and return its one line; ``printed`` says whether it printed results before."""
    try:
        status = main([*map(str, args)])
    except SystemExit as e:  # argparse's
        status = e.code
    out, err = capsys.readouterr()
    line = err.replace('\r', '\n').splitlines()[-1]  # after the progress bar, if there was one
    assert status == 2 and bool(out) == printed and line.startswith('timm-assemble') and 'Traceback' not in err
    return line
