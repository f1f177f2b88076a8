"""The distillation loss and task against the official losses, a loop, and the gradient of timm's own distillation."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from timm import create_model
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn

from timm_assemble.training import (
    StoredLogitsDistillationTask, distillation_cross_entropy, distillation_weights, pack_targets, unpack_targets,
)

from .. import _oracles as oracle
from .._official import TRAINING

INPUTS = {name: torch.tensor(TRAINING['loss_inputs'][name]) for name in ('logits', 'labels', 'teacher_logits')}


class FixedLogits(nn.Module):
    """A student with given logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, x):
        return self.logits


@pytest.mark.parametrize('smoothing', [0, 0.1])
@pytest.mark.parametrize('temperature', [1, 2])
def test_losses_equal_the_official_ones(smoothing, temperature):
    """The task's losses, for class indices and for class weights."""
    expected = TRAINING['losses'][f'ls{smoothing}_T{temperature}']
    probs = (INPUTS['teacher_logits'] / temperature).softmax(1)
    weights = torch.from_numpy(oracle.smoothed(INPUTS['labels'].numpy(), 5, smoothing))
    for criterion, labels in ((LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss(),
                               INPUTS['labels']), (SoftTargetCrossEntropy(), weights)):
        task = StoredLogitsDistillationTask(
            FixedLogits(INPUTS['logits']), criterion, temperature=temperature, verbose=False)
        result = task(torch.zeros(4, 3, 2, 2), pack_targets(labels, probs))
        assert result['task_loss'].item() == pytest.approx(expected['cross_entropy'], rel=1e-6)
        assert result['kd_loss'].item() == pytest.approx(expected['cross_entropy_kd'], rel=1e-6)
        assert result['loss'].item() == pytest.approx(
            expected['cross_entropy'] + expected['cross_entropy_kd'], rel=1e-6)
        assert torch.equal(result['output'], INPUTS['logits'])


def test_gradient_equals_that_of_timms_task():
    """timm minimizes the KL divergence, which differs by the teacher's entropy."""
    from timm.task import LogitDistillationTask

    torch.manual_seed(0)
    student = create_model('test_assemble_resnet', num_classes=5)
    teacher = create_model('test_assemble_resnet', num_classes=5).eval()
    x, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    student.eval()  # the same batch norm for both
    arguments = dict(task_loss_weight=0.3, distill_loss_weight=2.0, temperature=3.0, verbose=False)
    timm_task = LogitDistillationTask(student, teacher, criterion=nn.CrossEntropyLoss(), **arguments)
    task = StoredLogitsDistillationTask(student, nn.CrossEntropyLoss(), **arguments)
    with torch.no_grad():
        probs = (teacher(x) / 3).softmax(1)
    losses = timm_task(x, labels)['loss'], task(x, pack_targets(labels, probs))['loss']
    for theirs, ours in zip(*(torch.autograd.grad(loss, student.parameters(), allow_unused=True) for loss in losses)):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_loss_of_half_precision_logits_is_float32(dtype):
    logits, probs = INPUTS['logits'].to(dtype), INPUTS['teacher_logits'].softmax(1)
    loss = distillation_cross_entropy(logits, probs)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-(probs * F.log_softmax(logits.double(), 1)).sum(1).mean().item(), rel=1e-5)


@given(labels=st.lists(st.integers(0, 2 ** 24 - 1), min_size=1, max_size=5), classes=st.integers(2, 6))
def test_unpacking_returns_what_was_packed(labels, classes):
    """Class indices of a batch and of one sample, and class weights."""
    probs, weights = torch.rand(2, len(labels), classes)
    for first, second in ((torch.tensor(labels), probs), (torch.tensor(labels[0]), probs[0]), (weights, probs)):
        for unpacked, original in zip(unpack_targets(pack_targets(first, second), classes), (first, second)):
            assert torch.equal(unpacked, original)


@pytest.mark.parametrize('flags, weights', [
    ((None, None), (1, 1)), ((0.3, None), (0.3, 0.7)), ((None, 0.5), (1, 0.5)), ((0.3, 0.5), (0.3, 0.5))])
def test_loss_weights_default_as_in_timm(flags, weights):
    from timm.task import LogitDistillationTask

    model = create_model('test_assemble_resnet', num_classes=3)
    task = LogitDistillationTask(model, model, criterion=nn.CrossEntropyLoss(), task_loss_weight=flags[0],
                                 distill_loss_weight=flags[1], verbose=False)
    assert distillation_weights(*flags) == pytest.approx(weights)
    assert (task.task_loss_weight, task.distill_loss_weight) == pytest.approx(weights)


@pytest.mark.parametrize('call, message', [
    (lambda: distillation_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 3), 0),
     'temperature must be positive, got 0'),
    (lambda: StoredLogitsDistillationTask(FixedLogits(INPUTS['logits']), nn.CrossEntropyLoss(), temperature=-1),
     'temperature must be positive, got -1'),
    (lambda: distillation_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 4)),
     r'shape of logits, \(2, 3\), got \(2, 4\)'),
    *((lambda shape=shape: unpack_targets(torch.zeros(shape), 3), 'targets must have 4 or 6 columns')
      for shape in ((5,), (4, 3), (4, 5), (4, 7)))])
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
