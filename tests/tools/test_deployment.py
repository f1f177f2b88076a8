"""The benchmark of deployment: parts that run alone, bounds, and the networks of int8."""
import json
from argparse import Namespace

import pytest
import torch

from benchmarks import deployment
from benchmarks.harness.int8 import fitted_network, noise_images
from benchmarks.harness.measure import RESULTS, read_results


@pytest.mark.parametrize('group, part', [
    ('assemble_resnet50 at 256, batch size 4', 'steps'), ("The demo's trained assemble_resnet50, 512 images", 'demo'),
    ('assemble_resnet50 at 256, batch size 4, threads 1, processor time, random weights', 'batches'),
    ('assemble_resnet50 at 256, batch size 4, threads 2, wall time, random weights', 'threads'),
    ('resnet50 at 224, batch size 4, threads 1, processor time, random weights', 'int8'),
    ('First output of assemble_resnet50', 'start'), ('assemble_resnet152 at 256, batch size 1', 'models'),
    ('assemble_resnet50 at 256, batch size 1', 'models')])
def test_every_group_belongs_to_a_part(group, part):
    assert deployment.part_of(group) == part and part in deployment.PARTS


def test_parts_that_are_not_measured_keep_their_rows(tmp_path):
    output = tmp_path / 'deployment.json'
    args = Namespace(only=['start'], output=output)
    assert deployment.kept_rows(args) == {}
    output.write_text(json.dumps(read_results(RESULTS / 'deployment.json')))
    kept = deployment.kept_rows(args)
    groups = {row['group'] for rows in kept.values() for row in rows}
    assert 'start' not in kept and {'steps', 'batches'} <= {*kept} and not [g for g in groups if g.startswith('First')]
    assert deployment.kept_rows(Namespace(only=None, output=output)) == {}


def test_agreement_has_a_bound_for_the_trained_network_alone():
    rows = [dict(group=group, name='optimized, int8', details={'same top-1 (%)': 50.0})
            for group in ("The demo's trained assemble_resnet50", 'resnet50 at 224, random weights')]
    assert deployment.broken(rows) == [
        "The demo's trained assemble_resnet50: optimized, int8: same top-1 on less than 99.0 %"]


def test_logits_of_a_network_with_fitted_norms_depend_on_the_image():
    model = fitted_network('test_assemble_resnet', 64)
    with torch.no_grad():
        logits = model(noise_images(16, 64, 1))
    assert logits.std(0).mean() > 0.3 * logits.std()
