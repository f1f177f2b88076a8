"""The accuracy gate against hand-made logits."""
import math

import pytest
import torch

from timm_assemble.deploy.gate import Agreement, Gate, GateError, compare, signal_to_noise


def test_signal_to_noise_is_that_of_known_noise_and_ignores_what_a_softmax_ignores():
    torch.manual_seed(0)
    z, noise = torch.randn(2000, 10), torch.randn(2000, 10)
    assert abs(signal_to_noise(z, z + 0.1 * noise) - 20) < 0.2
    assert abs(signal_to_noise(z, z + 0.01 * noise) - 40) < 0.2
    assert abs(signal_to_noise(z, z + 0.1 * noise + torch.arange(2000.)[:, None]) - 20) < 0.2
    assert signal_to_noise(z, z) == math.inf
    assert signal_to_noise(z, torch.full_like(z, math.nan)) == -math.inf


def logits(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_agreement_counts_the_images_of_which_the_model_is_sure():
    model = torch.cat([logits([5, 0, 0], [0, 5, 0], [0.1, 0, 0]).repeat(4, 1)])
    other = model.clone()
    other[2] = torch.tensor([0, 0.1, 0])  # changed where the model is not sure
    other[3] = torch.tensor([0, 5, 0])  # changed where it is
    batches = torch.arange(12).split(5)
    found = compare(lambda i: model[i], lambda i: other[i], batches)
    assert (found.images, found.sure) == (12, 8)
    assert found.top1 == pytest.approx(100 * 7 / 8) and found.top1_all == pytest.approx(100 * 10 / 12)
    assert compare(lambda i: model[i], lambda i: other[i], batches, sure=0).top1 == pytest.approx(100 * 10 / 12)
    other[0] = torch.tensor([math.nan, 0, 0])  # argmax of this is 0, as the model's
    assert compare(lambda i: model[i], lambda i: other[i], batches).top1 == pytest.approx(100 * 6 / 8)


def test_a_single_logit_is_that_of_the_second_of_two_classes():
    z = torch.linspace(-3, 3, 40)[:, None]
    found = compare(lambda i: z[i], lambda i: -z[i], torch.arange(40).split(8))
    assert found.top1 == found.top1_all == 0 and found.sure == 40 and found.sqnr == pytest.approx(-20 * math.log10(2))
    assert compare(lambda i: z[i], lambda i: z[i] + 0.01, torch.arange(40).split(8)).top1 == 100


@pytest.mark.parametrize('outputs, got', [
    (lambda x: [x, x], 'list'), (lambda x: x[..., None], r'Tensor of \(12, 3, 1\)')])
def test_what_are_no_logits_are_rejected(outputs, got):
    with pytest.raises(ValueError, match=rf'^model must return logits \(B, classes\) to be compared, got {got}$'):
        compare(outputs, outputs, [torch.zeros(12, 3)])


def test_too_few_held_out_images_are_rejected():
    with pytest.raises(ValueError, match='batches must have at least 10 held-out images, got 9'):
        compare(lambda x: x, lambda x: x, [torch.zeros(9, 3)])


@pytest.mark.parametrize('top1, sqnr, sure, message', [
    (98.9, 30.0, 100, r'at least 99 % .* SQNR of at least 10 dB, got same top-1 on 98.90 % of the 100 held-out'),
    (100.0, 9.9, 100, r'SQNR of the logits 9\.9 dB'),
    (100.0, -math.inf, 100, 'SQNR of the logits -inf dB'),
    (0.0, 30.0, 0, r'sure must be a top-1 probability that the model reaches, got 0\.5, which it reaches on none of'),
])
def test_a_gate_rejects_what_does_not_reach_it(top1, sqnr, sure, message):
    with pytest.raises(GateError, match=message):
        Gate().check(Agreement(200, sure, top1, top1, sqnr))


def test_a_gate_accepts_what_reaches_it():
    Gate().check(Agreement(200, 100, 99.0, 50.0, 10.0))
    Gate(agreement=0, sqnr=-100).check(Agreement(200, 1, 0.0, 0.0, -50.0))


@pytest.mark.parametrize('values, message', [
    (dict(agreement=101), 'agreement must be a percentage from 0 to 100, got 101'),
    (dict(agreement=math.nan), 'agreement must be'),
    (dict(sqnr=math.nan), 'sqnr must be a number of dB, got nan'),
    (dict(sure=1), 'sure must be a probability from 0 to below 1, got 1'),
])
def test_bad_gates_are_rejected(values, message):
    with pytest.raises(ValueError, match=message):
        Gate(**values)
