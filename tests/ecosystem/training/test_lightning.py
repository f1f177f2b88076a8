"""Lightning: its Trainer, alone and with the DropBlock schedule."""
import lightning
import pytest
import torch
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch.utils.data import DataLoader, TensorDataset

from ..conftest import MODELS, as_trained, rates_of_training

LIBRARY = 'lightning'
HOW = """\
import lightning
import timm
import timm_assemble  # registers the models
import torch

class Classifier(lightning.LightningModule):
    def __init__(self, **kwargs):
        super().__init__()
        self.model = timm.create_model('assemble_resnet50', num_classes=3, **kwargs)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.model(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)
"""
SCHEDULE = """\
from timm_assemble.training.callbacks import LightningDropBlock

module = Classifier(drop_block_rate=0.1)
callbacks = [LightningDropBlock(end=0.1)]  # of lightning.Trainer
"""
STEPS = 4


def fit(module, **kwargs):
    data = TensorDataset(torch.randn(2 * STEPS, 3, 64, 64), torch.randint(3, (2 * STEPS,)))
    as_trained(module)
    before = {name: p.clone() for name, p in module.named_parameters()}
    trainer = lightning.Trainer(
        accelerator='cpu', max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, **kwargs)
    trainer.fit(module, DataLoader(data, batch_size=2))
    assert trainer.global_step == STEPS
    assert all(p.isfinite().all() for p in module.parameters())
    unchanged = [name for name, p in module.named_parameters() if p.equal(before[name])]
    assert not unchanged


def test_fit(run_how):
    """Train four batches with Trainer.fit."""
    fit(run_how().Classifier())


@pytest.mark.parametrize('name', MODELS)  # timm's SKNet loses its activations
def test_sync_batchnorm(run_how):
    """Convert the batch norms as Trainer(sync_batchnorm=True) does, with equal outputs."""
    module, x = as_trained(run_how().Classifier()).eval(), torch.randn(2, 3, 64, 64)
    expected = module.model(x)
    module = TorchSyncBatchNorm().apply(module)
    assert any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in module.modules())
    torch.testing.assert_close(module.model(x), expected)


@pytest.mark.parametrize('name', MODELS)
def test_drop_block_schedule(run_how):
    """Train four batches with LightningDropBlock."""
    how = run_how('SCHEDULE', **vars(run_how()))
    rates = rates_of_training(how.module)
    fit(how.module, callbacks=how.callbacks)
    assert rates == pytest.approx([0.1 * step / STEPS for step in range(STEPS)])
