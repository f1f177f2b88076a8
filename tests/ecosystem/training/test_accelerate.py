"""Accelerate: its training loop, and models made without memory for their weights."""
import timm
import torch
from accelerate import Accelerator
from torch.nn import functional as F
from torch.testing import assert_close

from ..conftest import as_trained

LIBRARY = 'accelerate'
HOW = """\
import timm
import timm_assemble  # registers the models
import torch
from accelerate import Accelerator

model = timm.create_model('assemble_resnet50', num_classes=3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model, optimizer = accelerator.prepare(model, optimizer)
"""
EMPTY = """\
import timm
import timm_assemble  # registers the models
from accelerate import init_empty_weights, load_checkpoint_and_dispatch

with init_empty_weights(include_buffers=True):
    empty = timm.create_model('assemble_resnet50', num_classes=3)
all_meta = all(tensor.is_meta for tensor in (*empty.parameters(), *empty.buffers()))
model = load_checkpoint_and_dispatch(empty, file, device_map={'': 'cpu'})  # file: model.safetensors
"""
X = torch.rand(2, 3, 64, 64)


def test_training_step(run_how):
    """Run these lines and train one step on two batches of accumulated gradients."""
    how = run_how()
    before = how.model.get_classifier().weight.clone()
    for expected in (True, False):
        with how.accelerator.accumulate(how.model):
            how.accelerator.backward(F.cross_entropy(how.model.train()(X), torch.tensor([0, 1])))
            how.optimizer.step()
            how.optimizer.zero_grad()
            assert torch.equal(how.model.get_classifier().weight, before) == expected


def test_empty_weights(run_how, name, tmp_path):
    """Create a model on the meta device, buffers too, and load its weights."""
    model = as_trained(timm.create_model(name, num_classes=3)).eval()
    Accelerator(cpu=True).save_model(model, tmp_path)
    how = run_how('EMPTY', file=str(tmp_path / 'model.safetensors'))
    assert how.all_meta
    with torch.inference_mode():
        assert_close(how.model.eval()(X), model(X))
