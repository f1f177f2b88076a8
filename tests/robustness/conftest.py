import numpy as np
import pytest
from PIL import Image

from timm_assemble.robustness.metrics import COMMON, SEVERITIES

from ._samples import WRONG, make_samples, write_image


@pytest.fixture(scope='session')
def samples(tmp_path_factory):
    return make_samples(tmp_path_factory.mktemp('samples'))


@pytest.fixture(scope='session')
def tree(tmp_path_factory):
    """Return ImageNet-C's layout, of which ``red_over_half`` gets WRONG wrong."""
    root = tmp_path_factory.mktemp('imagenet-c')
    files = {level: write_image(root / f'{level}.JPEG', Image.fromarray(np.full((224, 224, 3), level, np.uint8)))
             for level in (40, 210)}
    for name in COMMON:
        for severity in SEVERITIES:
            for i, label in enumerate((0, 0, 1, 1)):
                wrong = i < WRONG.get((name, severity), 0)
                path = root / name / str(severity) / 'ab'[label] / f'{i}.JPEG'
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files[(40, 210)[label ^ wrong]].read_bytes())
    return root
