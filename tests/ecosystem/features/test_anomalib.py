"""anomalib: PatchCore on features of two stages."""
import numpy as np
import pytest
import timm
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Patchcore
from PIL import Image

from ..conftest import differing

LIBRARY = 'anomalib'
HOW = """\
import timm_assemble  # registers the models
from anomalib.models import Patchcore
from anomalib.pre_processing import PreProcessor
from timm import get_pretrained_cfg
from torchvision.transforms.v2 import Compose, Normalize, Resize

cfg = get_pretrained_cfg('assemble_resnet50')
pre_processor = PreProcessor(Compose([Resize((96, 96)), Normalize(cfg.mean, cfg.std)]))  # not ImageNet's usual ones
model = Patchcore('assemble_resnet50', ['stages.1', 'stages.2'], pre_trained=False, pre_processor=pre_processor)
"""
OF_REFERENCE = "['stages.1', 'stages.2']", "['layer2', 'layer3']"


@pytest.fixture
def data(tmp_path):
    """Dark images; anomalous ones have a bright square."""
    for folder, bright in (('good', 0), ('defect', 255)):
        (tmp_path / folder).mkdir()
        for i in range(10):
            image = np.random.default_rng(i).integers(0, 64, (96, 96, 3), np.uint8)
            image[32:64, 32:64] |= bright
            Image.fromarray(image).save(tmp_path / folder / f'{i}.png')
    return Folder('squares', normal_dir='good', root=tmp_path, abnormal_dir='defect', train_batch_size=2,
                  eval_batch_size=2, num_workers=0, val_split_mode='same_as_test', seed=0)


def check(model, data):
    engine = Engine(accelerator='cpu', devices=1, logger=False)
    engine.fit(model, data)
    scores = {label: [] for label in (False, True)}
    for batch in engine.predict(model, datamodule=data):
        assert batch.anomaly_map.isfinite().all()
        for label, score in zip(batch.gt_label, batch.pred_score):
            scores[bool(label)].append(score)
    assert min(scores[True]) > max(scores[False])  # features of untrained weights are enough for squares


def test_patchcore(run_how, data):
    """Fit PatchCore on images without anomalies and score others."""
    check(run_how(of_reference=OF_REFERENCE).model, data)


def test_patchcore_of_a_folder(run_how, folder, name, data):
    """Fit PatchCore with the weights of a folder, backbone 'local-dir:trained'."""
    how = run_how(of_reference=OF_REFERENCE)
    model = Patchcore(f'local-dir:{folder}', how.model.model.layers, pre_processor=how.pre_processor)
    expected = timm.create_model(f'local-dir:{folder}', pretrained=True).state_dict()
    weights = model.model.feature_extractor.feature_extractor.state_dict()
    assert weights and not differing({name.removeprefix('model.'): value for name, value in weights.items()}, expected)
    check(model, data)
