"""Captum: which pixels a logit depends on."""
import pytest
import timm
import torch
from captum.attr import LRP, DeepLift, GuidedBackprop, IntegratedGradients, Saliency

LIBRARY = 'captum'
HOW = """\
import timm
import timm_assemble  # registers the models
import torch
from captum.attr import IntegratedGradients

model = timm.create_model('assemble_resnet50').eval()
images = torch.rand(2, 3, 64, 64)
attributions = IntegratedGradients(model).attribute(images, target=7, n_steps=4)
"""


def test_lines_of_the_page(run_how):
    """Run these lines, and compare the sum of attributions with the change of the logit from a black image."""
    how = run_how()
    assert how.attributions.shape == (2, 3, 64, 64)
    with torch.no_grad():
        change = how.model(how.images)[:, 7] - how.model(torch.zeros(1, 3, 64, 64))[:, 7]
    torch.testing.assert_close(how.attributions.sum((1, 2, 3)).float(), change, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize('method', [
    Saliency, IntegratedGradients, GuidedBackprop, DeepLift,
    pytest.param(LRP, marks=pytest.mark.xfail(raises=TypeError, strict=True, reason=(
        'LRP has no rule for nn.Identity and nn.Flatten, which every model here has')))],
    ids=lambda method: method.__name__)
def test_attribute(name, method):
    """Attribute a logit to pixels."""
    model = timm.create_model(name, num_classes=3).eval()
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    attributions = method(model).attribute(images, target=1)
    assert attributions.shape == images.shape and attributions.isfinite().all() and attributions.any()
