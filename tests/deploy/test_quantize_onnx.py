"""int8 files against the model; without torch; the gate; the command."""
import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models import save_for_hf

from timm_assemble.__main__ import main
from timm_assemble.deploy.calibration import split_images
from timm_assemble.deploy.gate import GateError, signal_to_noise
from timm_assemble.deploy.metadata import read_metadata
from timm_assemble.deploy.quantize_onnx import export_quantized

from ._trained import KWARGS, SIZE, make_images, make_trained, spoil

RUN = """
import sys
sys.modules['torch'] = None  # an import of torch fails
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
images = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], session.run(None, {'images': images})[0])
"""


@pytest.fixture(scope='module')
def model():
    return make_trained()


@pytest.fixture(scope='module')
def images():
    return split_images([make_images(160, 2)], SIZE)


def test_int8_file_agrees_with_the_trained_model_and_runs_without_torch(model, images, tmp_path):
    import onnx

    path = tmp_path / 'a.onnx'
    normalization = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    measured = export_quantized(model, path, (1, *SIZE), images, metadata=dict(model='a'), normalization=normalization)
    assert [*tmp_path.iterdir()] == [path]
    assert measured.images == 120 and measured.sure > 100 and measured.top1 >= 99 and measured.sqnr > 10
    metadata = read_metadata(path, 'onnx')
    assert metadata['dtype'] == 'int8' and metadata['model'] == 'a' and metadata['input_dtype'] == 'uint8'
    assert metadata['calibration_images'] == 40 and metadata['held_out_images'] == 120
    assert metadata['agreement'] == round(measured.top1, 3) and metadata['sqnr_db'] == round(measured.sqnr, 2)

    graph = onnx.load(path).graph
    arrays = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    assert all(np.isfinite(array).all() for name, array in arrays.items() if name.endswith('_scale'))
    made_by = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == 'Conv']
    quantized = [n for n in convolutions if getattr(made_by.get(n.input[1]), 'op_type', '') == 'DequantizeLinear']
    assert len(quantized) == len(convolutions) - 1 and convolutions[0] not in quantized
    scales = arrays[made_by[quantized[0].input[1]].input[1]]
    assert scales.ndim == 1 and len(scales) > 1  # one per channel
    assert arrays[made_by[quantized[0].input[1]].input[0]].dtype == np.int8

    x, _ = make_images(24, 3)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in normalization)
    raw = ((x * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    np.save(tmp_path / 'images.npy', raw.permute(0, 2, 3, 1).numpy())
    subprocess.run([sys.executable, '-c', RUN, path, tmp_path / 'images.npy', tmp_path / 'logits.npy'], check=True,
                   env={**os.environ, 'OMP_NUM_THREADS': '1'}, timeout=120)
    logits = torch.from_numpy(np.load(tmp_path / 'logits.npy'))
    with torch.no_grad():
        expected = model((raw.float() / 255 - mean) / std)
    assert logits.dtype == torch.float32 and (logits.argmax(1) == expected.argmax(1)).all()
    assert signal_to_noise(expected, logits) > 10


def test_a_network_with_one_channel_scaled_by_1000_is_rejected(model, images, tmp_path):
    spoiled = spoil(copy.deepcopy(model))
    x, _ = make_images(8, 3)
    with torch.no_grad():
        assert torch.allclose(model(x), spoiled(x), atol=1e-3)  # in float nothing changed
    path = tmp_path / 'a.onnx'
    path.write_text('precious')
    with pytest.raises(GateError, match='the quantized model must keep the top-1 on at least 99 %'):
        export_quantized(spoiled, path, (1, *SIZE), images)
    assert [file.read_text() for file in tmp_path.iterdir()] == ['precious']


def test_command_quantizes_and_names_bad_images_and_the_gate(model, tmp_path, capsys):
    folder = tmp_path / 'model'
    save_for_hf(model, folder, model_args=KWARGS, safe_serialization=True)
    x, _ = make_images(48, 2)
    calibrate = tmp_path / 'images'
    calibrate.mkdir()
    for i, image in enumerate(((x - x.min()) / (x.max() - x.min()) * 255).to(torch.uint8).permute(0, 2, 3, 1)):
        Image.fromarray(image.numpy()).save(calibrate / f'{i:02}.png')
    (calibrate / '99.png').write_text('no image')
    path = tmp_path / 'a.onnx'

    def export(*more):
        return main(['export', f'local-dir:{folder}', str(path), '--size', '64', '--int8', '--calibrate',
                     str(calibrate), *more])
    assert export('--batch-size', '4', '--min-sqnr', '1000') == 2
    err = capsys.readouterr().err
    assert f'skipped: {calibrate / "99.png"}: ' in err and 'an SQNR of at least 1000 dB, got same top-1' in err
    assert not path.exists()
    assert export('--batch-size', '4', '--min-sqnr', '1000', '--ignore-gate') == 0
    out = capsys.readouterr().out
    assert 'onnx of test_assemble_resnet, int8, images 3 x 64 x 64; same top-1 on ' in out and '(below the gate)' in out
    assert read_metadata(path, 'onnx')['calibration_images'] == 12


@pytest.mark.parametrize('arguments, message', [
    (['a.pt2', '--int8', '--calibrate', '.'], '--int8 needs an OUTPUT that ends in .onnx, got a.pt2'),
    (['a.onnx', '--int8'], '--int8 needs --calibrate, a folder of images'),
    (['a.onnx', '--calibrate', '.'], '--calibrate needs --int8'),
    (['a.onnx', '--min-agreement', '0'], '--min-agreement needs --int8'),
    (['a.onnx', '--int8', '--calibrate', '.', '--dtype', 'float16'], '--int8 needs --dtype float32, got float16'),
    (['a.onnx', '--int8', '--calibrate', '.', '--sure', '2'],
     '--sure must be a probability from 0 to below 1, got 2.0.'),
])
def test_bad_use_is_one_line_before_any_work(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['export', 'no_such_model', *arguments]) == 2
    assert capsys.readouterr().err == f'timm-assemble: {message}\n'


