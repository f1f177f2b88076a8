"""Batch norms that use the statistics of the test batch."""
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf
from torch import nn
from torchvision import transforms

from timm_assemble.__main__ import main
from timm_assemble.robustness import evaluate
from timm_assemble.robustness.adaptation import adapt_batch_norms

from ._samples import arguments, error_of, model_names, read_results, red_over_half


@pytest.fixture
def trained():
    """Return a model of ours whose batch norms have statistics of their own."""
    return with_statistics(timm.create_model('test_assemble_resnet', num_classes=3))


def with_statistics(model):
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def loop(norm, x, prior):
    """Return a batch norm's output, channel by channel."""
    y, n = np.empty(x.shape), len(x)
    for c in range(x.shape[1]):
        values = x[:, c].double().numpy()
        mean = prior / (prior + n) * norm.running_mean[c].item() + n / (prior + n) * values.mean()
        batch = values.var(ddof=1) if values.size > 1 else 0
        var = prior / (prior + n) * norm.running_var[c].item() + n / (prior + n) * batch
        y[:, c] = (values - mean) / np.sqrt(var + norm.eps) * norm.weight[c].item() + norm.bias[c].item()
    return torch.from_numpy(y).float()


@pytest.mark.parametrize('prior', [0, 16])
@pytest.mark.parametrize('kind', [nn.BatchNorm2d, timm.layers.BatchNormAct2d, nn.BatchNorm1d])
def test_norms_are_a_loop_over_the_channels_of_each_batch(prior, kind):
    norm, plain = (with_statistics(kind(5)) for _ in range(2))
    adapt_batch_norms(nn.Sequential(norm), prior)
    for n in (4, 1, 3):  # nothing is left of an earlier batch
        x = torch.randn(n, 5, *([] if kind is nn.BatchNorm1d else [2, 3])) * 2 + 1
        expected = loop(plain, x, prior)
        torch.testing.assert_close(norm(x), expected.relu() if hasattr(norm, 'act') else expected, rtol=1e-4,
                                   atol=1e-4)


@pytest.mark.parametrize('name', ['test_assemble_resnet', 'resnet18', 'test_efficientnet'])
def test_without_a_prior_models_are_those_in_training_mode(name):
    """Up to the variance: a training batch norm divides by the number of values."""
    model, x = with_statistics(timm.create_model(name, num_classes=3)), torch.randn(64, 3, 64, 64)
    with torch.no_grad():
        expected, plain = timm.create_model(name, num_classes=3).train(), model(x)
        expected.load_state_dict(model.state_dict())
        for module in expected.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.eval()
        expected = expected(x)
        adapt_batch_norms(model, 0)
        torch.testing.assert_close(model(x), expected, rtol=0.03, atol=0.03)
        assert (plain - expected).abs().max() > 0.1


def test_adapted_run_is_a_loop_over_batches_of_a_shuffled_list(trained, samples, tmp_path):
    save_for_hf(trained, str(tmp_path / 'model'), safe_serialization=True, model_args=dict(num_classes=3))
    options = dict(clean=samples / 'clean', imagenet_c=samples / 'c', corruptions=['fog'], input_size=32, batch_size=4)
    source = f'm=local-dir:{tmp_path / "model"}'
    got = evaluate(source, adapt='bn', prior=3, seed=5, keep_predictions=True, output=tmp_path / 'a', **options)
    files = sorted((samples / 'clean').glob('*/*.jpeg'), key=lambda path: (path.parent.name, path.name))
    order = np.random.RandomState(5).permutation(6)
    adapt_batch_norms(trained, 3)
    nll = {}
    for batch in (order[:4], order[4:]):
        images = []
        for path in (files[i] for i in batch):
            image = transforms.Resize(256)(Image.open(path).convert('RGB'))
            images.append(np.asarray(transforms.CenterCrop(224)(image).resize((32, 32), 2)))
        mean, std = (np.array(trained.pretrained_cfg[key]) for key in ('mean', 'std'))
        x = torch.tensor(((np.stack(images) / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
        with torch.no_grad():
            log_probs = trained(x).log_softmax(1)
        nll.update({i: -row['xyz'.index(files[i].parent.name)].item() for i, row in zip(batch, log_probs)})
    values = got.to_dict()
    assert values['models'][0]['clean']['nll'] == pytest.approx(np.mean([*nll.values()]), rel=1e-3)
    assert values['protocol']['adaptation'] == dict(layers='bn', prior=3, batch_size=4, order='shuffled by seed 5')
    assert 'batch norms adapted to each batch of 4, prior 3, images shuffled by seed 5' in values['protocol']['text']
    with np.load(tmp_path / 'a' / 'predictions' / 'm.npz') as file:
        np.testing.assert_allclose(file['clean/clean/nll'], [nll[i] for i in range(6)], rtol=1e-3)
        assert file['clean/clean/file'].tolist() == [*range(6)]
    with pytest.raises(ValueError, match='output must not have results of another measurement'):
        evaluate(source, adapt='bn', prior=3, seed=5, keep_predictions=True, output=tmp_path / 'a',
                 **{**options, 'batch_size': 3})
    plain = evaluate(source, **options).to_dict()
    assert plain['protocol']['adaptation'] is None
    assert plain['models'][0]['clean']['nll'] != pytest.approx(values['models'][0]['clean']['nll'], rel=1e-3)


def test_wrong_uses_of_adaptation_are_one_line(samples, tmp_path, capsys):
    save_for_hf(timm.create_model('test_vit', num_classes=3), str(tmp_path / 'vit'), safe_serialization=True)
    a = ['robustness', f'v=local-dir:{tmp_path / "vit"}', *model_names(samples), '--clean', samples / 'clean',
         '--output', tmp_path / 'o']
    line = error_of(capsys, *a, '--adapt', 'bn')
    assert line == 'timm-assemble: --adapt must be given for models with batch norms, v has none'
    assert not [*tmp_path.rglob('*.npz')]  # before any work
    assert '--prior needs --adapt' in error_of(capsys, *a, '--prior', 3)
    line = error_of(capsys, *a, '--adapt', 'bn', '--shift', 2)
    assert '--adapt is for independent images, and takes neither --imagenet-p nor --shift' in line
    with pytest.raises(ValueError, match="adapt must be given for models by name, got 'red'"):
        evaluate(dict(red=red_over_half), clean=samples / 'clean', input_size=32, adapt='bn')


def test_ranks_workers_and_other_models_change_no_adapted_result(samples, tmp_path):
    for name, more in (('one', []), ('two', ['--workers', 1])):
        models = 'a' if name == 'one' else 'ba'
        assert main([*arguments(samples, '--clean', samples / 'clean', '--output', tmp_path / name, '--adapt', 'bn',
                                '--batch-size', 4, models=models), *map(str, more)]) == 0
    one, two = (read_results(tmp_path / name)['models'][-1] for name in ('one', 'two'))
    assert one == two
