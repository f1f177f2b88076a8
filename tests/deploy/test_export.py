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
for code, path, images, logits in zip(*[iter(sys.argv[1:])] * 4):
    exec(code)
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


@pytest.mark.timeout(600)  # it compiles
def test_files_without_this_package_equal_the_model(folder, tmp_path, capsys):
    """With any batch size; ONNX with any size as well, and the package with bfloat16 weights."""
    options = {'program': [], 'package': ['--compile', '--dtype', 'bfloat16'], 'onnx': ['--any-size']}
    images = {kind: [torch.randn(n, 3, 64, 96) for n in (1, 5)] for kind in FORMATS}
    images['onnx'].append(torch.randn(2, 3, 75, 101))
    arguments = []
    for kind in FORMATS:
        path = tmp_path / kind / ('a.onnx' if kind == 'onnx' else 'a.pt2')
        path.parent.mkdir()
        assert export(folder, path, '--size', 64, 96, *options[kind]) == 0
        printed = capsys.readouterr().out
        assert f'{kind} of test_assemble_resnet, ' in printed
        assert 'minus mean (0.485, 0.458, 0.4076), divided by std (0.003922' in printed
        assert [*path.parent.iterdir()] == [path]
        torch.save(images[kind], tmp_path / f'{kind}.images')
        arguments += [LOAD[kind], path, tmp_path / f'{kind}.images', tmp_path / f'{kind}.logits']
    subprocess.run(
        [sys.executable, '-c', RUN, *arguments], check=True, env={**os.environ, 'OMP_NUM_THREADS': '1'}, timeout=240)
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    for kind in FORMATS:
        for x, logits in zip(images[kind], torch.load(tmp_path / f'{kind}.logits'), strict=True):
            with torch.no_grad():
                assert logits.dtype == torch.float32
                assert error(logits, model(x)) < (0.1 if kind == 'package' else 1e-4), kind


@pytest.mark.parametrize('kind', ['program', 'onnx'])
def test_exported_mobilenet_equals_the_model(kind, tmp_path):
    """Its blocks are timm's, without ConvNormAct."""
    model, path = make('assemble_mobilenet_se2', width=8, num_classes=7, drop_block_rate=0.1), tmp_path / 'exported'
    export_model(model, path, (1, 3, 64, 64), kind)
    run, x = load_exported(path, kind), torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        assert error(run(x), model(x)) < 1e-4


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
