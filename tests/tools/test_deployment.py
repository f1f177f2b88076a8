"""The benchmark of deployment: parts that run alone, its bound, and the networks of int8."""
import pytest
import torch

from benchmarks import deployment
from benchmarks.harness.int8 import fitted_network, noise_images


@pytest.mark.parametrize('group, part', [
    ('assemble_resnet50 at 256, batch size 4, threads 1', 'one thread'),
    ('assemble_resnet50 at 256, batch size 4, threads 2', 'two threads'),
    ('resnet50 at 224, batch size 4, threads 1', 'networks')])
def test_every_group_belongs_to_a_part(group, part):
    assert deployment.part_of(group) == part and part in deployment.PARTS


def test_the_fastest_form_of_a_dtype_counts_against_the_fastest_peer():
    rows = [dict(group='a', name=name, details={'over the fastest peer': ratio}) for name, ratio in (
        ('ours, float32, inductor', 0.5), ('ours, bfloat16, inductor', 0.9), ('ours, bfloat16, openvino', 0.99))]
    assert deployment.slower(rows) == ['a: float32: 0.50 of the fastest peer']


def test_logits_of_a_network_with_fitted_norms_depend_on_the_image():
    model = fitted_network('test_assemble_resnet', 64)
    with torch.no_grad():
        logits = model(noise_images(16, 64, 1))
    assert logits.std(0).mean() > 0.3 * logits.std()
