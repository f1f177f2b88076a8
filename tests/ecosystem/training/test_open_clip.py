"""OpenCLIP: a CLIP whose image tower is a model of timm."""
import torch

from ..conftest import as_trained

LIBRARY = 'open-clip-torch'
HOW = """\
import open_clip
import timm_assemble  # registers the models

model = open_clip.CLIP(
    embed_dim=32,
    vision_cfg=dict(timm_model_name='assemble_resnet50', timm_pool='avg', timm_proj='linear', image_size=64),
    text_cfg=dict(context_length=8, vocab_size=100, width=32, heads=2, layers=1))
"""


def test_training_step(run_how):
    """Run these lines and train one step with the contrastive loss."""
    how = run_how()
    as_trained(how.model.visual)
    images, texts = torch.rand(2, 3, 64, 64), torch.randint(100, (2, 8))
    image_features, text_features, scale = how.model.train()(images, texts)
    assert image_features.shape == text_features.shape == (2, 32)
    loss = how.open_clip.ClipLoss()(image_features, text_features, scale)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in how.model.visual.parameters())
    before = [p.clone() for p in how.model.parameters()]
    torch.optim.AdamW(how.model.parameters()).step()
    assert all(p.isfinite().all() for p in how.model.parameters())
    assert not any(map(torch.equal, how.model.visual.parameters(), before))
