"""A small trained classifier and its images, in a second: fitted norms and classifier."""
import timm
import torch
import torch.nn.functional as F
from torch import nn

KWARGS = dict(layers=(1, 1, 1, 1), num_classes=4, width=16, big_little=(), shortcut='d')
SIZE = (3, 64, 64)


def make_images(count, seed):
    """Images of four classes, patterns with noise, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 4
    x = F.interpolate(patterns[labels], SIZE[1:], mode='bilinear')
    return x + 0.3 * torch.randn(count, *SIZE, generator=generator), labels


@torch.no_grad()
def make_trained():
    """Return a network with the norms' statistics of its images, and the best linear classifier of its features."""
    torch.manual_seed(0)
    model = timm.create_model('test_assemble_resnet', **KWARGS)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5), module.bias.uniform_(-0.5, 0.5)
            module.momentum = None
    images, labels = make_images(128, 1)
    model.train()(images)
    model.eval()
    features = model.forward_head(model.forward_features(images), pre_logits=True)
    mean = features.mean(0)
    centered = features - mean
    gram = centered.T @ centered + 0.1 * len(images) * torch.eye(features.shape[1])
    weight = 20 * torch.linalg.solve(gram, centered.T @ (F.one_hot(labels, 4) - 0.25)).T
    model.fc.weight.copy_(weight)
    model.fc.bias.copy_(-weight @ mean)
    return model


@torch.no_grad()
def spoil(model, factor=1000):
    """Scale a channel and undo it in the next convolution: the same function, with an activation of a huge range."""
    block = model.stages[0][0]
    block.conv1.norm.weight[0] *= factor
    block.conv1.norm.bias[0] *= factor
    block.conv2.conv.conv.weight[:, 0] /= factor
    return model
