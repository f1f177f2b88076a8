"""Exported files, run by a process without this package, against the model; the command and its errors."""
import json
import os
import subprocess
import sys

import pytest
import timm
import torch
from timm.models import save_for_hf

from timm_assemble.__main__ import main
from timm_assemble.deploy import export as export_file
from timm_assemble.deploy.export import FORMATS, METADATA_FILE, export_model, load_exported

from .test_optimize import error, make

KWARGS = dict(layers=(1, 1, 1, 1), num_classes=7, width=16, big_little=(), shortcut='d')
# the lines of docs/deployment.md
LOAD = {
    'program': 'import torch; run = torch.export.load(path).module()',
    'package': 'import torch; run = torch._inductor.aoti_load_package(path)',
    'onnx': """
import onnxruntime, torch
session = onnxruntime.InferenceSession(path)
run = lambda x: torch.from_numpy(session.run(None, {'images': x.numpy()})[0])
""",
}
RUN = """
import sys
path, images, logits = sys.argv[1:]
%s
torch.save([run(x) for x in torch.load(images)], logits)
assert not {'timm', 'timm_assemble'} & {*sys.modules}
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('export') / 'model'
    save_for_hf(make(**KWARGS), path, model_args=KWARGS, safe_serialization='both')
    return path


def export(folder, *more):
    return main(['export', f'local-dir:{folder}', *map(str, more)])


@pytest.mark.parametrize('kind', FORMATS)
def test_file_without_this_package_equals_the_model(kind, folder, tmp_path, capsys):
    """With any batch size; ONNX with any size as well, and the package with bfloat16 weights."""
    path = tmp_path / ('a.onnx' if kind == 'onnx' else 'a.pt2')
    more = {'program': [], 'package': ['--compile', '--dtype', 'bfloat16'], 'onnx': ['--any-size']}[kind]
    assert export(folder, path, '--size', 64, 96, *more) == 0
    printed = capsys.readouterr().out
    assert f'{kind} of test_assemble_resnet, ' in printed
    assert 'minus mean (0.485, 0.458, 0.4076), divided by std (0.003922' in printed
    assert [f.name for f in tmp_path.iterdir()] == [path.name]
    shapes = [(1, 64, 96), (5, 64, 96)] + ([(2, 75, 101)] if kind == 'onnx' else [])
    images = [torch.randn(n, 3, *size) for n, *size in shapes]
    torch.save(images, tmp_path / 'images.pt')
    subprocess.run([sys.executable, '-c', RUN % LOAD[kind], path, tmp_path / 'images.pt', tmp_path / 'logits.pt'],
                   check=True, env={**os.environ, 'OMP_NUM_THREADS': '1'}, timeout=240)
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    for x, logits in zip(images, torch.load(tmp_path / 'logits.pt')):
        with torch.no_grad():
            assert logits.dtype == torch.float32
            assert error(logits, model(x)) < (0.1 if kind == 'package' else 1e-4)


def test_program_has_its_metadata_and_a_fixed_batch_size(folder, tmp_path):
    path = tmp_path / 'a.pt2'
    assert export(folder, path, '--batch-size', 2) == 0
    files = {METADATA_FILE: ''}
    torch.export.load(path, extra_files=files)
    metadata = json.loads(files[METADATA_FILE])
    assert metadata['input_size'] == [3, 160, 160] and metadata['num_classes'] == 7 and metadata['dtype'] == 'float32'
    assert metadata['interpolation'] == 'bilinear' and metadata['crop_pct'] == 0.875
    assert len(metadata['weights_sha256']) == 64
    with pytest.raises(AssertionError, match='Guard failed'):
        load_exported(path, 'program')(torch.zeros(3, 3, 160, 160))


@pytest.mark.parametrize('arguments, message', [
    (['a.txt'], 'OUTPUT must end in .onnx or .pt2, got a.txt'),
    (['a.onnx', '--compile'], '--compile needs an OUTPUT that ends in .pt2, got a.onnx'),
    (['a.pt2', '--size', '1', '2', '3'], '--size must be one or two integers, got 3'),
    (['nowhere/a.pt2'], 'OUTPUT must be in a folder that exists and can be written to, got nowhere/a.pt2'),
    (['exists.pt2'], 'OUTPUT must not exist without --force, got exists.pt2'),
    (['folder.pt2'], 'OUTPUT must be a file, got the folder folder.pt2'),
    (['x.onnx'], "format 'onnx' needs onnx: pip install 'timm-assemble[export]'"),
])
def test_bad_use_is_one_line_before_any_work(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export_file.importlib.util, 'find_spec', lambda name: None)
    (tmp_path / 'exists.pt2').write_text('precious')
    (tmp_path / 'folder.pt2').mkdir()
    assert main(['export', 'no_such_model', *arguments]) == 2
    assert capsys.readouterr().err == f'timm-assemble: {message}\n'
    assert (tmp_path / 'exists.pt2').read_text() == 'precious'


@pytest.mark.parametrize('name', ['no_such_model', 'assemble_resnet50'])
def test_models_without_weights_are_one_line(name, tmp_path, capsys):
    assert main(['export', name, str(tmp_path / 'a.pt2')]) == 2
    message = capsys.readouterr().err
    assert name in message and message.count('\n') == 1


def test_failed_export_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pt2'
    path.write_text('precious')

    def save(program, new, metadata):
        with open(new, 'w') as f:
            f.write('half')
        raise OSError('disk full')
    monkeypatch.setitem(export_file.SAVERS, 'program', save)
    with pytest.raises(OSError, match='disk full'):
        export_model(make(**KWARGS), path, (1, 3, 64, 64))
    assert [f.read_text() for f in tmp_path.iterdir()] == ['precious']
    with pytest.raises(ValueError, match=r"format must be one of .*'tflite'"):
        export_model(make(**KWARGS), path, (1, 3, 64, 64), 'tflite')
