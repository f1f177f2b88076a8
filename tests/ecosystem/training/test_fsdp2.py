"""torch's FSDP2 and DCP: each of two processes holds half of the weights, gradients and checkpoints."""
import pytest
import timm
import torch
from torch import distributed
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.nn import functional as F

import timm_assemble  # noqa: F401 (registers the models in the spawned processes)

LIBRARY = 'torch'
HOW = """\
import timm
import timm_assemble  # registers the models
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.fsdp import fully_shard

def sharded():  # in every process
    model = timm.create_model('assemble_resnet50', num_classes=3, drop_block_rate=0.1)
    for child in model.children():  # stem, stages and head
        fully_shard(child)
    return fully_shard(model)

def save(model, folder):
    checkpoint.save(get_model_state_dict(model), checkpoint_id=folder)

def load(model, folder):
    checkpoint.load(get_model_state_dict(model), checkpoint_id=folder)
"""
X, Y = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])


def train(model):
    """Train two steps and return the losses; the masks of DropBlock are those of the seeds."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step in range(2):
        torch.manual_seed(step)
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def run(rank, code, folder):
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    how = {}
    exec(code, how)
    torch.manual_seed(0)  # the same first weights in both processes
    train_and_save(how, folder)
    distributed.barrier()
    distributed.destroy_process_group()  # else a thread of gloo may outlive the interpreter and end it with SIGABRT


def train_and_save(how, folder):
    model = how['sharded']()
    size = sum(p.numel() for p in model.parameters())
    assert sum(p.to_local().numel() for p in model.parameters()) < 0.55 * size
    losses = train(model)
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    if distributed.get_rank() == 0:  # the full weights are given to one process
        torch.save((losses, weights), folder / 'trained.pt')
    how['save'](model, folder / 'checkpoint')
    other = how['sharded']()
    how['load'](other, folder / 'checkpoint')
    assert all(torch.equal(a.to_local(), b.to_local()) for a, b in zip(model.parameters(), other.parameters()))


def test_training_and_checkpoint(how, name, tmp_path):
    """Train two steps with FSDP2, save and load with DCP, and compare losses and weights with one process."""
    code = how(of_reference=(', drop_block_rate=0.1', ''))
    torch.multiprocessing.spawn(run, (code, tmp_path), nprocs=2)
    losses, weights = torch.load(tmp_path / 'trained.pt')
    torch.manual_seed(0)
    single = timm.create_model(name, num_classes=3, **({'drop_block_rate': 0.1} if 'assemble' in name else {}))
    assert train(single) == pytest.approx(losses, rel=1e-4)
    torch.testing.assert_close(weights, dict(single.state_dict()), rtol=1e-3, atol=1e-4)
    loaded = {key: torch.full_like(value, -1) for key, value in weights.items()}
    checkpoint.load(loaded, checkpoint_id=tmp_path / 'checkpoint')
    assert all(value.equal(weights[key]) for key, value in loaded.items())
