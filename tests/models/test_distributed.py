"""Two processes with DistributedDataParallel: every parameter has a gradient, and ranks stay equal."""
import timm
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import timm_assemble  # noqa: F401 (registers the models in the spawned processes)


def _train(rank, store):
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    torch.manual_seed(rank)
    model = timm.create_model('test_assemble_resnet', num_classes=10, drop_block_rate=0.1)
    model = DistributedDataParallel(model, find_unused_parameters=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        model.module.set_drop_block_rate(0.1 * step)
        model(torch.randn(4, 3, 64, 64)).square().mean().backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    total = torch.stack([p.double().sum() for p in model.parameters()])
    other = total.clone()
    distributed.broadcast(other, 0)
    assert torch.equal(total, other), 'ranks differ'
    assert abs(model.module.stages[3][0].drop2.rate.item() - 0.2) < 1e-6
    distributed.barrier()
    distributed.destroy_process_group()  # else a thread of gloo may outlive the interpreter and end it with SIGABRT


def test_ranks_stay_equal_over_training_steps(tmp_path):
    torch.multiprocessing.spawn(_train, (tmp_path / 'store',), nprocs=2)
