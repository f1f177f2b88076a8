"""torchvision: detectors over a feature pyramid."""
import pytest
import torch
from timm.layers import freeze_batch_norm_2d
from torchvision.models.detection import FasterRCNN, RetinaNet

from ..conftest import as_trained

LIBRARY = 'torchvision'
HOW = """\
import timm
import timm_assemble  # registers the models
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

class Backbone(nn.Module):
    def __init__(self, name, out_channels=256):
        super().__init__()
        self.body = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4))  # strides 4, 8, 16, 32
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), out_channels, LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, images):
        return self.fpn({str(i): features for i, features in enumerate(self.body(images))})

backbone = Backbone('assemble_resnet50')
cfg = backbone.body.pretrained_cfg
model = FasterRCNN(backbone, num_classes=3, image_mean=cfg['mean'], image_std=cfg['std'])
"""

BOXES = torch.tensor([[8., 8, 40, 40], [30, 20, 90, 80]])


@pytest.fixture(params=[FasterRCNN, RetinaNet], ids=lambda detector: detector.__name__)
def model(request, run_how):
    how = run_how()
    as_trained(how.backbone)
    assert how.backbone.body.feature_info.reduction() == [4, 8, 16, 32]
    return request.param(
        how.backbone, num_classes=3, image_mean=how.cfg['mean'], image_std=how.cfg['std'], min_size=96, max_size=96)


def train_step(model, images):
    targets = [dict(boxes=BOXES, labels=torch.tensor([1, 2]))] * images
    losses = model([torch.rand(3, 96, 96) for _ in range(images)], targets)
    loss = sum(losses.values())
    loss.backward()
    assert loss.isfinite()
    parameters = [p for p in model.backbone.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    before = [p.clone() for p in parameters]
    torch.optim.SGD(parameters, lr=0.01).step()
    assert all(p.isfinite().all() for p in parameters) and not any(map(torch.equal, parameters, before))


def test_train_on_two_images(model):
    """Train one step on two images."""
    train_step(model.train(), 2)


def test_train_on_one_image(model, name, request):
    """Train one step on one image."""
    if 'resnet50d' != name:
        request.applymarker(pytest.mark.xfail(raises=ValueError, strict=True, reason=(
            'selective kernels have batch norm after a spatial mean, which cannot train on one image')))
    train_step(model.train(), 1)


def test_train_on_one_image_with_frozen_batch_norm(model):
    """Train one step on one image, with timm.layers.freeze_batch_norm_2d(backbone)."""
    model.backbone = freeze_batch_norm_2d(model.backbone)
    train_step(model.train(), 1)


def test_detect(model):
    """Detect on two images of different sizes."""
    with torch.inference_mode():
        detections = model.eval()([torch.rand(3, 96, 96), torch.rand(3, 80, 64)])
    assert len(detections) == 2
    assert all(set(found) == {'boxes', 'labels', 'scores'} and found['boxes'].isfinite().all() for found in detections)


def test_lines_of_the_page(run_how):
    """Run these lines."""
    assert run_how().model.backbone.out_channels == 256
