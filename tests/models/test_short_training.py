"""A short training with default arguments: eval mode is as good as batch statistics, also after update_bn."""
import timm
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

import timm_assemble  # noqa: F401  registers the models

STEPS, BATCH, HELD_OUT = 100, 32, 360


def test_eval_mode_is_as_good_as_batch_statistics_after_a_short_training():
    """A batch norm momentum of 0.003 leaves eval mode at chance here."""
    torch.manual_seed(2)
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1).expand(-1, 3, -1, -1)
    x, y = F.interpolate(x / 16 - 0.3, 32, mode='bilinear'), torch.tensor(digits.target)
    order = torch.randperm(len(y))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    model = timm.create_model('test_assemble_resnet', num_classes=10)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(STEPS):
        batch = train[torch.randint(len(train), (BATCH,))]
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def accuracy():
        return (model(x[test]).argmax(1) == y[test]).float().mean().item()

    model.eval()
    evaluated = accuracy()
    update_bn(x[train].split(BATCH), model)
    estimated = accuracy()
    model.train()
    of_batch = accuracy()
    assert of_batch > 0.8
    assert evaluated > of_batch - 0.05 and estimated > of_batch - 0.05
