"""Small models with non-default arguments, three in the forms that people publish; pushes and pulls of them."""
import argparse
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
import timm
import torch
import yaml
from huggingface_hub import constants
from timm.models import save_for_hf
from timm.utils import CheckpointSaver, ModelEmaV3

from timm_assemble.cli.main import main
from timm_assemble.data.preprocessing import input_channels

FOLDER, WITH_EMA, FOUR_CHANNELS = 'folder', 'with-ema', 'four-channels'
VARIANTS = {
    FOLDER: ('test_assemble_resnet', dict(num_classes=7, width=16, aa_size=5, global_pool='gem')),
    WITH_EMA: ('assemble_resnet50_d_se', dict(num_classes=5, width=8, embedding_size=24, last_stride=1)),
    FOUR_CHANNELS: ('assemble_resnet50', dict(num_classes=3, width=8, in_chans=4, bn_eps=1e-3)),
}
# the other registered models, with every argument that decides what the weights mean among them
OTHERS = {
    'assemble_resnet50_base': dict(width=8, in_chans=1, num_classes=2, aa_size=4, aa_shortcut=True),
    'assemble_resnet50_d': dict(width=8, num_classes=4, global_pool='max', embedding_size=16, layers=(1, 2, 1, 1)),
    'assemble_resnet50_d_sk': dict(width=8, num_classes=6, aa_size=2, global_pool='gem', in_chans=5),
    'assemble_resnet50_bl': dict(width=16, num_classes=3, attn='se', embedding_size=8, big_little=(4, 2)),
    'assemble_resnet50_bl_sk': dict(width=8, num_classes=9, deep_stem=True, shortcut='d', in_chans=2),
    'assemble_resnet101': dict(width=8, aa_size=7, last_stride=1, layers=(2, 2, 2, 1)),
    'assemble_resnet152': dict(width=8, num_classes=0, aa_size=0, global_pool='gem', embedding_size=24),
    'assemble_mobilenet': dict(width=8, num_classes=4, in_chans=1, bn_eps=1e-3),
    'assemble_mobilenet_se16': dict(width=16, num_classes=3, output_stride=8),
    'assemble_mobilenet_se2': dict(width=8, num_classes=6, se_reduction=3, global_pool='catavgmax', in_chans=4),
}
MODELS = {**VARIANTS, **{name: (name, args) for name, args in OTHERS.items()}}
PULL = """
import contextlib, io, json, sys
sources, codes = json.loads(sys.argv[1])
said = []
for code in codes:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    said.append(out.getvalue())
import timm, timm_assemble, torch
from tests._published import logits
torch.save(([logits(timm.create_model(source, pretrained=True)) for source in sources], said), sys.argv[2])
"""


def make_model(kind, seed=0):
    """Return a model with random weights and statistics, so that a lost one changes the logits."""
    name, args = MODELS[kind]
    torch.manual_seed(seed)
    overlay = input_channels(timm.get_pretrained_cfg(name).to_dict(), args.get('in_chans', 3))
    model = timm.create_model(name, pretrained_cfg_overlay=overlay, **args).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


@torch.inference_mode()
def logits(model):
    """Return the logits of fixed images, on one thread: more would add in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    channels = next(p for p in model.parameters() if p.ndim == 4).shape[1]
    out = model.eval()(torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(1)))
    torch.set_num_threads(threads)
    return out


def write_folder(folder, kind=FOLDER, seed=0):
    """Write a folder in Hugging Face format without a card; return its model."""
    model = make_model(kind, seed)
    save_for_hf(model, str(folder), safe_serialization=True, model_args=MODELS[kind][1])
    return model


def train_args(kind):
    """Return train.py's arguments for a variant; those without an option of their own are in model_kwargs."""
    name, args = VARIANTS[kind]
    own = {'num_classes', 'in_chans', 'bn_eps'}
    args = {'num_classes': None, 'in_chans': None, 'bn_eps': None, **args}
    return dict(
        model=name, gp=args.pop('global_pool', None), bn_momentum=None, input_size=None, img_size=64, crop_pct=None,
        mean=None, std=None, interpolation='', drop=0.0, drop_path=None, drop_block=None,
        model_kwargs={k: v for k, v in args.items() if k not in own}, **{k: args[k] for k in own},
        dataset='torch/cifar10', data_dir='/somewhere/private', val_split='validation', epochs=3, batch_size=4, lr=0.05,
        opt='sgd', weight_decay=1e-4, model_ema=kind == WITH_EMA, eval_metric='top1', log_wandb=False)


def write_checkpoint(folder, kind, seed=0):
    """Write what timm's train.py leaves; return the checkpoint's path and the model to publish."""
    folder.mkdir()
    args, model = train_args(kind), make_model(kind, seed)
    best = make_model(kind, seed + 100) if kind == WITH_EMA else model
    ema = ModelEmaV3(best) if kind == WITH_EMA else None
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    saver = CheckpointSaver(
        model, optimizer, args=argparse.Namespace(**args), model_ema=ema, checkpoint_dir=str(folder),
        recovery_dir=str(folder))
    saver.save_checkpoint(2, metric=61.25)
    (folder / 'args.yaml').write_text(yaml.safe_dump(args))
    return folder / 'model_best.pth.tar', best


def push(url, *args, token='hf_writer'):
    """Run the command in this process, as the account of a token; return status, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv('HF_TOKEN', token)
        patch.setattr(constants, 'ENDPOINT', url)
        return main(['push', *map(str, args)]), out.getvalue(), err.getvalue()


def pull(url, folder, sources, codes=()):
    """Return the logits of models and what pieces of code print, in a process of a person who has never used the Hub.

    The code runs first and as pasted, in an empty folder, with an empty cache and without a token.
    """
    (folder / 'empty').mkdir()
    others = {k: v for k, v in os.environ.items() if not k.startswith(('HF_', 'HUGGING'))}
    env = {**others, 'HF_ENDPOINT': url, 'HF_HOME': str(folder / 'home'), 'OMP_NUM_THREADS': '1',
           'NO_PROXY': '127.0.0.1', 'HF_HUB_DISABLE_XET': '1', 'PYTHONWARNINGS': 'ignore', 'PYTHONPATH': os.getcwd()}
    done = subprocess.run(
        [sys.executable, '-c', PULL, json.dumps([[*sources], [*codes]]), str(folder / 'pulled.pt')],
        capture_output=True, text=True, timeout=240, env=env, cwd=folder / 'empty')
    assert done.returncode == 0, done.stderr
    return torch.load(folder / 'pulled.pt')
