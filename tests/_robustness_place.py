"""What the tests of ``timm-assemble robustness`` share: models and pictures on disk, arguments, figures, refusals."""
import json

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from timm_assemble.__main__ import main
from timm_assemble.robustness.metrics import COMMON, SEVERITIES

CORRUPTIONS = ('gaussian_noise', 'impulse_noise')  # drawn from NumPy's state, and from a seed of its own


def make_place(root):
    """Two models' weights for three classes, a folder of clean pictures and one in ImageNet-C's form."""
    rng = np.random.RandomState(0)
    for seed, name in enumerate(('a', 'b')):
        torch.manual_seed(seed)
        model = timm.create_model('test_assemble_resnet', num_classes=3)
        save_file(model.state_dict(), root / f'{name}.safetensors')
    for i in range(6):
        path = root / 'clean' / 'xyz'[i % 3] / f'{i}.jpeg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.randint(0, 256, (9, 12, 3)).astype(np.uint8)).resize((300, 240)).save(path)
    for name in COMMON:
        for severity in SEVERITIES:
            for c in 'xyz':
                path = root / 'c' / name / str(severity) / c / '0.JPEG'
                path.parent.mkdir(parents=True)
                Image.fromarray(rng.randint(0, 256, (8, 8, 3)).astype(np.uint8)).resize((224, 224)).save(path)
    return root


def arguments(place, *more, models='ab'):
    return [*(f'test_assemble_resnet={place / name}.safetensors' for name in models), *map(str, more)]


def generate(place, output, *more):
    return arguments(place, '--generate', place / 'clean', '--corruptions', *CORRUPTIONS, '--input-size', 32,
                     '--shift', 4, '--baseline', f'test_assemble_resnet={place / "a"}.safetensors',
                     '--output', output, *more)


def figures(output):
    results = json.loads((output / 'results.json').read_text())
    assert set(results.pop('run')) >= {'seconds', 'date', 'workers'}  # all that may differ
    return results


def bad(capsys, *args):
    assert main(['robustness', *map(str, args)]) == 2
    out, err = capsys.readouterr()
    line = err.replace('\r', '\n').splitlines()[-1]  # after the bar, if there was one
    assert not out and line.startswith('timm-assemble: ') and 'Traceback' not in err
    return line
