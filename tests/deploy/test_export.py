"""Exported files, run without this package by the lines of the documentation, against the model; errors."""
import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf
from torch import nn

from timm_assemble.__main__ import main
from timm_assemble.deploy import export as export_file
from timm_assemble.deploy import read_metadata
from timm_assemble.deploy.export import ENDINGS, FORMATS, export_model, files_of, installed_runtimes, load_exported
from timm_assemble.deploy.fold import fold_for_inference
from timm_assemble.deploy.graph import DeployedModel, trace

from .test_optimize import NETWORKS, error, make

# without attention, which test_optimize compiles and test_portability exports
KWARGS = dict(layers=(1, 1, 1, 1), num_classes=7, width=16, attn='', big_little=(), shortcut='d')
NAMES = ['cat', "d'og", 'é "quoted"', *'abcd']
PREPROCESS, *LOADERS = re.findall(
    r'```python\n(import .*?)```',
    (Path(__file__).parents[2] / 'docs' / 'deployment.md').read_text().partition('### Load a file')[2], re.DOTALL)
LOAD = dict(zip(FORMATS, LOADERS, strict=True))
EXECUTORCH = bool(installed_runtimes('executorch')) and torch.__version__ >= '2.14'
FILE = {kind: f'model{ending}' for ending, kinds in ENDINGS.items() for kind in kinds}
RUN = """
import os, sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        assert name.partition('.')[0] not in ('timm', 'timm_assemble'), name

sys.meta_path.insert(0, Blocker())
for folder, code in zip(sys.argv[2::2], sys.argv[3::2]):
    os.chdir(folder)
    names = {}
    exec(sys.argv[1] + code, names)
    names['np'].savez('got.npz', logits=names['logits'], images=names['preprocess']('image.png', names['metadata']))
"""
SIZE = (3, 64, 96)
# what a caller may get wrong, from a right batch, and what must still be right
WRONG = {
    'uint8': lambda x: x.byte(), 'double': lambda x: x.double(), 'half': lambda x: x.half(),
    'larger': lambda x: x.repeat(1, 1, 2, 1), 'smaller': lambda x: x[..., 1:], 'grey': lambda x: x[:, :1],
    'four channels': lambda x: torch.cat([x, x[:, :1]], 1), 'no batch': lambda x: x[0],
    'nhwc': lambda x: x.permute(0, 2, 3, 1), 'five axes': lambda x: x[None]}
RIGHT = {
    'one': lambda x: x[:1], 'channels last': lambda x: x.contiguous(memory_format=torch.channels_last),
    'permuted': lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    'transposed': lambda x: x.mT.contiguous().mT, 'sliced': lambda x: x.repeat_interleave(2, 3)[..., ::2],
    'expanded': lambda x: x[:1].expand(3, -1, -1, -1), 'offset': lambda x: torch.cat([x, x])[2:]}


def export(folder, *more):
    return main(['export', f'local-dir:{folder}', *map(str, more)])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('export') / 'model'
    save_for_hf(
        make(**KWARGS), path, model_args=KWARGS, safe_serialization='both', model_config=dict(label_names=NAMES))
    return path


@pytest.fixture(scope='module')
def model(folder):
    return timm.create_model(f'local-dir:{folder}', pretrained=True).eval()


@pytest.fixture(scope='module')
def files(folder, tmp_path_factory):
    """One file of each format: any batch size; ONNX with any size and uint8 images, the package with bfloat16."""
    options = {'program': [], 'package': ['--format', 'package', '--dtype', 'bfloat16'],
               'onnx': ['--any-size', '--normalize-inside', '--opset', '18'], 'openvino': [], 'executorch': []}
    paths = {}
    for kind in (kind for kind in FORMATS if installed_runtimes(kind) and (kind != 'executorch' or EXECUTORCH)):
        paths[kind] = tmp_path_factory.mktemp(kind) / FILE[kind]
        assert export(folder, paths[kind], '--size', *SIZE[1:], *options[kind]) == 0
        assert {*paths[kind].parent.iterdir()} == {*files_of(paths[kind], kind)}
    return paths


@pytest.mark.timeout(600)  # it compiles
def test_documented_loaders_without_this_package_equal_the_model(folder, model, files, tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(256, size=(13, 17, 3), dtype=np.uint8)).resize((170, 130))
    arguments = []
    for kind, path in files.items():
        image.save(path.parent / 'image.png')
        arguments += [path.parent, LOAD[kind]]
    done = subprocess.run([sys.executable, '-c', RUN, PREPROCESS, *arguments], check=True, timeout=240, text=True,
                          stdout=subprocess.PIPE, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    config = timm.data.resolve_data_config({'input_size': SIZE}, model=model, use_test_size=True)
    x = timm.data.create_transform(**config)(image)[None]
    with torch.no_grad():
        expected = model(x)
    assert done.stdout.splitlines() == [NAMES[expected.argmax()]] * len(files)
    for kind, path in files.items():
        got = np.load(path.parent / 'got.npz')
        images = torch.from_numpy(got['images'])
        if kind == 'onnx':
            assert images.dtype == torch.uint8 and images.shape == (1, *SIZE[1:], 3)
            images = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(config['mean']).view(3, 1, 1)) / torch.tensor(
                config['std']).view(3, 1, 1)
        assert (images - x).abs().max() < 1e-5 * x.abs().max()
        assert got['logits'].dtype == np.float32
        assert error(torch.from_numpy(got['logits']), expected) < (0.1 if kind == 'package' else 1e-4), kind


@pytest.mark.timeout(600)
@pytest.mark.parametrize('kind', ['program', 'package'])
def test_wrong_images_are_errors_and_other_layouts_are_right(kind, model, files):
    run = load_exported(files[kind], kind)
    x = torch.randn(3, *SIZE)
    for name, change in RIGHT.items():
        images = change(x)
        with torch.no_grad():
            assert error(run(images), model(images)) < (0.1 if kind == 'package' else 1e-4), name
    for name, change in WRONG.items():
        with pytest.raises((RuntimeError, AssertionError), match=r'(?i)guard|match|same scalar type'):
            run(change(x))
            pytest.fail(f'{name} images are accepted')


@pytest.mark.timeout(600)
def test_package_with_torchs_own_checks_takes_one_image(files, monkeypatch):
    """They are off by default, and took the batch size of the example, 2, as the smallest."""
    monkeypatch.setenv('AOTI_RUNTIME_CHECK_INPUTS', '1')  # read once per loaded library
    run, x = load_exported(files['package'], 'package'), torch.zeros(1, *SIZE)
    assert run(x).shape == (1, 7)
    with pytest.raises(RuntimeError, match='unmatched stride'):
        run(x.contiguous(memory_format=torch.channels_last))


def test_onnx_of_any_size_names_its_axes_and_rejects_wrong_images(model, files):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(files['onnx']))
    [images], [logits] = session.get_inputs(), session.get_outputs()
    assert (images.type, images.shape) == ('tensor(uint8)', ['batch', 'height', 'width', 3])
    assert logits.shape == ['batch', 7]
    run = load_exported(files['onnx'], 'onnx')
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ('mean', 'std'))
    for batch, *size in ((1, 64, 96), (2, 75, 101), (5, 31, 32)):
        x = torch.randint(256, (batch, *size, 3), dtype=torch.uint8)
        with torch.no_grad():
            assert error(run(x), model((x.permute(0, 3, 1, 2) / 255 - mean) / std)) < 1e-4
    with pytest.raises(Exception, match='Pad reflect requires'):
        run(x[:, :16, :16])
    for wrong in (x.float(), x[..., :1], x[0], x.permute(0, 3, 1, 2)):
        with pytest.raises(Exception, match='INVALID_ARGUMENT'):
            run(wrong)


@pytest.mark.timeout(600)
def test_package_that_normalizes_inside(tmp_path):
    """Of a convolution, which compiles in seconds."""
    model, path = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 30 * 30, 7)).eval(), tmp_path / 'a.pt2'
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    differences = export_model(
        model, path, (1, 3, 32, 32), 'package', normalization=(mean.tolist(), std.tolist()), metadata={'a': 'é'})
    assert [*differences] == ['torch'] and differences['torch'] < 1e-4
    metadata = read_metadata(path, 'package')
    assert metadata == dict(
        a='é', format='package', dtype='float32', input_size=[3, 32, 32], input_shape=['batch', 32, 32, 3],
        input_dtype='uint8', normalize_inside=True)
    run, x = load_exported(path, 'package'), torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8)
    for images in (x, x[:1], x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)):
        with torch.no_grad():
            assert error(run(images), model(((images / 255 - mean) / std).permute(0, 3, 1, 2))) < 1e-4
    for wrong in (x.float(), x[:, 1:], x[..., :1], x[0]):
        with pytest.raises(RuntimeError, match=r'must match|same scalar type'):
            run(wrong)


def test_metadata_of_every_format(model, files):
    shared = dict(
        model='test_assemble_resnet', num_classes=7, label_names=NAMES, label_descriptions=None,
        mean=[*model.pretrained_cfg['mean']], std=[*model.pretrained_cfg['std']], crop_pct=0.875, crop_mode='center',
        interpolation='bilinear', input_size=[*SIZE])
    images = dict(input_shape=['batch', *SIZE], input_dtype='float32', normalize_inside=False)
    different = {
        'program': dict(dtype='float32', **images), 'package': dict(dtype='bfloat16', **images),
        'onnx': dict(dtype='float32', input_shape=['batch', 'height', 'width', 3], input_dtype='uint8',
                     normalize_inside=True),
        'openvino': dict(dtype='float32', **images),
        'executorch': dict(dtype='float32', **{**images, 'input_shape': [1, *SIZE]})}
    for kind, path in files.items():
        metadata = read_metadata(path, kind)
        assert metadata.pop('source').startswith('local-dir:') and len(metadata.pop('weights_sha256')) == 64
        assert metadata == dict(shared, format=kind, **different[kind])


# every family, and timm's: global average pools of channels-last weights
GRAPHS = {name: dict(width=8, num_classes=7) for name in NETWORKS}
OTHERS = ['resnet50', 'efficientnet_b0', 'convnext_atto']
GRAPHS |= {name: dict(num_classes=7) for name in OTHERS[:None if 'EVERY_NETWORK' in os.environ else 1]}


@pytest.mark.timeout(600)
@pytest.mark.parametrize('name', [*GRAPHS] if 'EVERY_NETWORK' in os.environ else ['assemble_mobilenet_se2'])
def test_onnx_and_openvino_files_equal_the_model_in_every_runtime(name, tmp_path):
    """Of the blocks of timm's MobileNets, which have no ConvNormAct; `files` has the others."""
    model = make(name, **{**GRAPHS[name], **({'drop_block_rate': 0.1} if 'mobilenet' in name else {})})
    for format in ('onnx', 'openvino'):
        path = tmp_path / FILE[format]
        results = export_model(model, path, (1, 3, 64, 64), format)
        assert {*results} == {*installed_runtimes(format)}
        for runtime in results:
            run, x = load_exported(path, format, runtime), torch.randn(5, 3, 64, 64)
            with torch.no_grad():
                assert error(run(x), model(x)) < 1e-4


@pytest.mark.timeout(600)
@pytest.mark.parametrize('name', GRAPHS)
def test_nothing_of_the_images_shape_feeds_what_follows_the_pooling(name):
    """There it became indices, with which OpenVINO drops the first convolution's bias. Blur pools have indices."""
    folded = fold_for_inference(make(name, **GRAPHS[name]), (1, 3, 64, 64))
    graph = trace(DeployedModel(folded), (1, 3, 64, 64), any_batch=True, any_size=False).run_decompositions().graph
    names = {node: str(node.target) for node in graph.nodes}
    pooling = [node for node, name in names.items() if name in ('aten.mean.dim', 'aten.sum.dim_IntList')][-1]
    after = {pooling}
    for node in graph.nodes:
        if after & {*node.all_input_nodes}:
            after.add(node)
    read = {names[used] for node in after - {pooling} for used in node.all_input_nodes if used not in after}
    assert len(after) > 2 and read and not any('images' in name or 'sym_size' in name for name in read)
    assert not {'aten.as_strided.default', 'aten.arange.start_step', 'aten.index.Tensor'} & {*map(names.get, after)}


def test_fixed_batch_size(folder, tmp_path):
    path = tmp_path / 'a.pt2'
    assert export(folder, path, '--batch-size', 2) == 0
    assert read_metadata(path, 'program')['input_shape'] == [2, 3, 160, 160]
    with pytest.raises(AssertionError, match='Guard failed'):
        load_exported(path, 'program')(torch.zeros(3, 3, 160, 160))


@pytest.mark.parametrize('arguments, message', [
    (['a.txt'], "OUTPUT must be a file *.pt2, *.onnx, *.xml, *.pte, got 'a.txt'"),
    (['a.onnx', '--format', 'package'], "--format must be onnx for a.onnx, got 'package'"),
    (['a.pt2', '--opset', '18'], "--opset must be None for 'program', got 18"),
    (['a.pt2', '--size', '1', '2', '3'],
     '--size must be height and width, or one number for both, positive integers, got [1, 2, 3]'),
    (['nowhere/a.pt2'], 'OUTPUT must be in a folder that exists and can be written to, got nowhere/a.pt2'),
    (['exists.pt2'], 'OUTPUT must not exist without --force, got exists.pt2'),
    (['folder.pt2'], 'OUTPUT must be a file, got the folder folder.pt2'),
    (['x.onnx'], "--format 'onnx' needs onnx: pip install '.[export]' in a clone of timm_assemble"),
    (['x.onnx', '--dtype', 'bfloat16'],
     "--dtype must be float32 or float16 for 'onnx', got bfloat16: its runtime chooses that"),
    (['x.xml'], "--format 'openvino' needs openvino: pip install '.[openvino]' in a clone of timm_assemble"),
    (['x.xml', '--dtype', 'float16'], "--dtype must be float32 for 'openvino', got float16: its runtime chooses that"),
    (['x.pte', '--dtype', 'float16'],
     "--dtype must be float32 for 'executorch', got float16: its runtime chooses that"),
    (['x.pte'], "--format 'executorch' needs executorch: pip install '.[executorch]' in a clone of timm_assemble"),
    (['exists.xml'], 'OUTPUT must not exist without --force, got exists.bin'),
    (['a.pt2', '--format', 'package', '--any-size'],
     '--any-size needs another format: a package is compiled for one size'),
    (['a.pt2', '--format', 'package'], "--format 'package' needs a C++ compiler: none found"),
])
def test_bad_use_is_one_line_before_any_work(arguments, message, tmp_path, monkeypatch, capsys):
    def no_compiler():
        raise RuntimeError('none found')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export_file.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr('torch._inductor.cpp_builder.get_cpp_compiler', no_compiler)
    (tmp_path / 'exists.pt2').write_text('precious'), (tmp_path / 'exists.bin').write_text('precious')
    (tmp_path / 'folder.pt2').mkdir()
    assert main(['export', 'no_such_model', *arguments]) == 2
    assert capsys.readouterr().err == f'timm-assemble: {message}\n'
    assert (tmp_path / 'exists.pt2').read_text() == 'precious'


def spoiled(path, format, runtime):
    run = load_exported(path, format, runtime)
    return lambda x: run(x) * 1.01


def broken(path, format, runtime):
    def run(x):
        raise RuntimeError('no such\noperator')
    return run


@pytest.mark.parametrize('load, message', [
    (spoiled, r"OUTPUT must give the model's logits within 0\.001 of their standard deviation, got a difference of "
              r'\d\.\de-02 for images of \(1, 3, 32, 32\); nothing was written'),
    (broken, "MODEL cannot be exported as 'program': no such operator"),
], ids=['other logits', 'cannot run'])
def test_file_that_fails_its_check_leaves_nothing(load, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export_file, 'load_exported', load)
    assert export(folder, tmp_path / 'a.pt2', '--size', 32) == 2
    assert re.fullmatch(f'timm-assemble: {message}\n', capsys.readouterr().err)
    assert not [*tmp_path.iterdir()]


def test_failed_export_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pt2'
    path.write_text('precious')

    def save(program, new, metadata):
        with open(new, 'w') as f:
            f.write('half')
        raise OSError(28, 'disk full')
    monkeypatch.setitem(export_file.SAVERS, 'program', save)
    model = nn.Conv2d(3, 4, 3).eval()
    with pytest.raises(OSError, match='disk full'):
        export_model(model, path, (1, 3, 64, 64))
    assert [f.read_text() for f in tmp_path.iterdir()] == ['precious']
    with pytest.raises(ValueError, match=r"format must be one of .*'tflite'"):
        export_model(model, path, (1, 3, 64, 64), 'tflite')
    with pytest.raises(ValueError, match=r'normalization must have 3 means and standard deviations, got'):
        export_model(model, path, (1, 3, 64, 64), normalization=([0.5], [0.5]))
    with pytest.raises(ValueError, match="dtype must be float32 or float16 for 'onnx'"):
        export_model(model.bfloat16(), path, (1, 3, 64, 64), 'onnx')


@pytest.mark.parametrize('free', ['any_batch', 'any_size'])
def test_executorch_takes_one_size(free, tmp_path):
    if not EXECUTORCH:
        pytest.skip('needs executorch and torch 2.14')
    with pytest.raises(ValueError, match=f"^{free} must be False for 'executorch', got True"):
        export_model(nn.Conv2d(3, 4, 3).eval(), tmp_path / 'a.pte', (1, 3, 8, 8), 'executorch', **{
            'any_batch': False, free: True})


def test_feature_maps_of_a_half_precision_model_are_those_of_its_files(tmp_path):
    """All of them, in float32, which the model's own dtype does not bound."""
    model = timm.create_model('test_resnet', features_only=True).eval().bfloat16()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = copy.deepcopy(model).float()(x)
    for kind in ('onnx', 'openvino'):
        results = export_model(model, tmp_path / FILE[kind], (1, 3, 64, 64), kind, torch.float32)
        for runtime in results:
            maps = load_exported(tmp_path / FILE[kind], kind, runtime)(x)
            assert [y.shape for y in maps] == [y.shape for y in expected]
            assert all(error(y, z) < 1e-3 for y, z in zip(maps, expected))
