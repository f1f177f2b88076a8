"""grad-cam: where a model looks."""
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

LIBRARY = 'grad-cam'
HOW = """\
import timm
import timm_assemble  # registers the models
from pytorch_grad_cam import GradCAM

model = timm.create_model('assemble_resnet50').eval()
last_stage = model.get_submodule(model.feature_info[-1]['module'])
cam = GradCAM(model, target_layers=[last_stage])
"""
X = torch.rand(2, 3, 64, 64)


def test_grad_cam(run_how):
    """Run these lines, and draw the heat map of a class."""
    heat = run_how().cam(X, targets=[ClassifierOutputTarget(7)] * 2)
    assert heat.shape == (2, 64, 64) and 0 <= heat.min() <= heat.max() <= 1


def test_the_feature_maps_are_those_of_the_model(run_how):
    """Compare the feature map that GradCAM weighs with forward_features."""
    how = run_how()
    how.cam(X, targets=[ClassifierOutputTarget(7)] * 2)
    activations, gradients = how.cam.activations_and_grads.activations, how.cam.activations_and_grads.gradients
    with torch.inference_mode():
        assert torch.equal(activations[0], how.model.forward_features(X))
    assert gradients[0].shape == activations[0].shape and gradients[0].isfinite().all() and gradients[0].any()
